# SPDX-License-Identifier: Apache-2.0
"""What one method said about all pairs of a run, side by side with the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pose_bridge.evaluation import metrics
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.geometry import distances
from pose_bridge.geometry.arrays import Array, Mask

FEWEST_SCENES = 8  # to draw them anew, for an interval


@dataclass(frozen=True, eq=False)
class Column:
    """A method's errors on all pairs, and what they are ranked by.

    Attributes:
        name: Of the method.
        errors: (N,) each, NaN without an answer.
        answered: Which pairs have one, (N,).
        guessed: Which of them are hypotheses, (N,).
        promotable: Where agreement of attempts could make an answer of hypotheses, (N,).
        right: Which answers are correct in the sense of docs/method.md, (N,).
        scores: (N,), -inf without an answer and of hypotheses; None if the method ranks none.
        seconds: It took, (N,).
        drawn_px: Map-free's error in the picture, (N,), NaN without metres.
    """

    name: str
    errors: metrics.PoseErrors
    answered: Mask
    guessed: Mask
    promotable: Mask
    right: Mask
    scores: Array | None
    seconds: Array
    drawn_px: Array

    @property
    def accepted(self) -> Mask:
        """Which pairs have an answer that is no hypothesis, (N,)."""
        return self.answered & ~self.guessed


def of_one_place(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of pairs that have a right answer."""
    return [row for row in rows if row.T_reference_target is not None]


def of_two_places(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of pairs that have none."""
    return [row for row in rows if row.T_reference_target is None]


def asked(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the rows that a method has said something about: not all can say that two places are two."""
    return [row for row in rows if name in row.said]


def column(rows: Sequence[Row], name: str) -> Column:
    """Collect what a method said of pairs of one place."""
    estimated = [row.estimated(name) for row in rows]
    truths = [truth for row in rows if (truth := row.T_reference_target) is not None]
    errors = metrics.pose_errors(estimated, truths)
    right = [
        one is not None
        and distances.correct(one.T_reference_target, truth, directed=one.directed, metric=one.metric)
        for one, truth in zip(estimated, truths, strict=True)
    ]
    answered = np.array([one is not None for one in estimated], bool)
    said = [row.said.get(name) for row in rows]
    scores = np.array([-np.inf if one is None or one.score is None else one.score for one in said])
    guessed = np.array([one is not None and one.hypothesis for one in said], bool) & answered
    accepted = answered & ~guessed
    scores = np.where(accepted, scores, -np.inf)
    ranks = bool(accepted.any()) and bool(np.isfinite(scores[accepted]).all())
    seconds = np.array([math.nan if one is None else one.seconds for one in said])
    drawn_px = [math.nan if one is None or one.drawn_px is None else one.drawn_px for one in said]
    return Column(
        name=name,
        errors=errors,
        answered=answered,
        guessed=guessed,
        promotable=np.array([one is not None and one.promotable for one in said], bool),
        right=np.array(right, bool),
        scores=scores if ranks else None,
        seconds=seconds,
        drawn_px=np.array(drawn_px),
    )


def errors_of(one: Column) -> Array:
    """Rotation, direction, direction as in papers (degrees), place (m), drawn (px), (N, 5), NaN for none."""
    errors = one.errors
    angles = (errors.rotation_deg, errors.translation_deg, errors.as_in_papers_deg)
    return np.stack((*angles, errors.translation_m, one.drawn_px), axis=1)


def place(row: Row) -> str:
    """Where a pair is of, by whatever is known to be one place."""
    return row.pair.place or row.pair.scene


def groups(rows: Sequence[Row]) -> tuple[str, Callable[[Row], str]]:
    """Return what pairs have in common and are drawn anew by: place or scene; where these are few, a view."""
    if len({place(row) for row in rows}) >= FEWEST_SCENES:
        return "place" if any(row.pair.place for row in rows) else "scene", place
    return "reference view", lambda row: f"{row.pair.scene}: {row.pair.reference}"
