# SPDX-License-Identifier: Apache-2.0
"""Whether a probability is worth something: accepting what is right, rejecting what is not.

Scores are ranked; equal ones are accepted together or not at all. An answer that was never given has the
score -inf and is accepted at no threshold. A pair that has no right answer, being of two places, counts in no
recall: an answer to it is a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array, Mask

CALIBRATION_BINS = 10


@dataclass(frozen=True, eq=False)
class Ranking:
    """What accepting everything down to each score would give, best score first, (K,) each.

    Attributes:
        score: Distinct ones.
        right: How many right answers are accepted.
        wrong: How many wrong ones.
        answerable: Pairs that have a right answer.
        asked: All pairs.
    """

    score: Array
    right: Array
    wrong: Array
    answerable: int
    asked: int

    @property
    def precision(self) -> Array:
        """Share of right ones among what is accepted, (K,)."""
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> Array:
        """Share of the pairs that have a right answer whose right answer is accepted, (K,)."""
        return self.right / self.answerable


def ranked(scores: ArrayLike, right: ArrayLike, answerable: ArrayLike | None = None) -> Ranking:
    """Rank answers.

    Args:
        scores: (N,); -inf for an answer that was not given.
        right: Which answers are right, (N,); whatever is said of one that was not given.
        answerable: Which pairs have a right answer, (N,); all of them if it is not said.

    Raises:
        BadInputError: Shapes differ, or a score is NaN.
    """
    score, good = np.asarray(scores, np.float64), np.asarray(right, bool)
    has_one = np.ones_like(good) if answerable is None else np.asarray(answerable, bool)
    if score.ndim != 1 or not score.shape == good.shape == has_one.shape or np.isnan(score).any():
        raise BadInputError(
            f"scores and verdicts must be (N,), no NaN: got {score.shape}, {good.shape}, {has_one.shape}"
        )
    given = score > -np.inf
    order = np.argsort(-score[given], kind="stable")
    sorted_score, sorted_good = score[given][order], good[given][order]
    last = np.r_[sorted_score[1:] != sorted_score[:-1], True][: len(sorted_score)]  # of equal scores
    accepted, wrong = (np.cumsum(what)[last].astype(float) for what in (sorted_good, ~sorted_good))
    return Ranking(sorted_score[last], accepted, wrong, int(has_one.sum()), len(good))


def average_precision(found: Ranking) -> float:
    """Return the area under precision by recall, 0 to 1; NaN if no pair has a right answer."""
    return float(np.sum(np.diff(np.r_[0.0, found.recall]) * found.precision)) if found.answerable else np.nan


def recall_at_precision(found: Ranking, precision: float = 1.0) -> float:
    """Return the largest recall at such a precision (MR@P1): 0 if none, NaN if no pair has a right answer."""
    if not found.answerable:
        return np.nan
    return float(found.recall[found.precision >= precision].max(initial=0.0))


def recall_at_false_positive_rate(
    found: Ranking, negatives: ArrayLike, rate: float = 0.001
) -> tuple[float, float]:
    """Return the recall where no larger share of negatives is accepted, and the score that this takes.

    Args:
        found: Of pairs that have a right answer.
        negatives: Scores of pairs that have no right answer, (M,).
        rate: Share of those that may be accepted.

    Returns:
        Recall (NaN without pairs), and the lowest score that is accepted (infinite if nothing may be).

    Raises:
        BadInputError: There are no negatives, or one is NaN.
    """
    other = np.asarray(negatives, np.float64)
    if other.ndim != 1 or not len(other) or np.isnan(other).any():
        raise BadInputError("a false positive rate needs scores of negatives, no NaN")
    accepted = np.array([np.mean(other >= score) for score in found.score]) <= rate
    if not found.answerable:
        return np.nan, np.inf
    if not accepted.any():
        return 0.0, np.inf
    lowest = int(np.flatnonzero(accepted)[-1])
    return float(found.recall[lowest]), float(found.score[lowest])


def risk_coverage(found: Ranking) -> tuple[Array, Array]:
    """Return the share that is answered, and the share of it that is wrong, from the best score on, (K,)."""
    return (found.right + found.wrong) / found.asked, 1.0 - found.precision


def area_under_risk(found: Ranking) -> float:
    """Return the mean risk over coverage (AURC), the less the better; NaN where nothing is answered.

    Source: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks (2017).
    """
    coverage, risk = risk_coverage(found)
    if not len(coverage):
        return np.nan
    return float(np.sum(np.diff(np.r_[0.0, coverage]) * risk) / coverage[-1])


@dataclass(frozen=True, eq=False)
class Reliability:
    """Probabilities beside what came true, by bin, (B,) each; bins without answers are left out.

    Attributes:
        said: Mean probability.
        came_true: Share of right answers.
        count: Answers.
    """

    said: Array
    came_true: Array
    count: Array

    @property
    def error(self) -> float:
        """Expected calibration error: how far apart the two are, on average over answers; NaN if of none."""
        if not self.count.sum():
            return np.nan
        return float(np.sum(self.count * np.abs(self.said - self.came_true)) / self.count.sum())


def reliability(probability: ArrayLike, right: ArrayLike, bins: int = CALIBRATION_BINS) -> Reliability:
    """Group answers by their probability.

    Args:
        probability: Of answers that were given, (N,), 0 to 1.
        right: Which are, (N,).
        bins: Of equal width.

    Raises:
        BadInputError: Shapes differ, or something is no probability.
    """
    p, good = np.asarray(probability, np.float64), np.asarray(right, bool)
    if p.ndim != 1 or p.shape != good.shape or not ((p >= 0) & (p <= 1)).all():
        raise BadInputError(f"probabilities and verdicts must be (N,), 0 to 1: got {p.shape}, {good.shape}")
    own: Array = np.minimum((p * bins).astype(int), bins - 1)
    members: list[Mask] = [own == number for number in range(bins) if (own == number).any()]
    said, came_true, count = (
        np.array([float(of(mask)) for mask in members])
        for of in (lambda mask: p[mask].mean(), lambda mask: good[mask].mean(), np.sum)
    )
    return Reliability(said, came_true, count)
