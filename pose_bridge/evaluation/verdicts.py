# SPDX-License-Identifier: Apache-2.0
"""Accepting, rejecting and guessing: what the answers of a run that say how sure they are are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import numpy as np

from pose_bridge.evaluation import decisions, intervals, metrics
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.columns import Column, place
from pose_bridge.evaluation.methods import BRIDGE
from pose_bridge.geometry.arrays import Array, Mask

FALSE_POSITIVE_RATE = 0.001
FEWEST_NEGATIVES = 1000  # to speak of such a rate
PLACED, DRAWN = "placed within 0.25 m and 5°", "drawn within 90 px"  # Map-free's
AVERAGE_PRECISION, AREA_UNDER_RISK, CALIBRATION = "average precision", "area under risk", "calibration error"


def decided(one: Column, strangers: Sequence[Row], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """What a ranking is worth; pairs without an answer are ranked last, and none of them is accepted.

    Args:
        one: Of pairs of one place.
        strangers: Pairs of two, about which the method was asked: its answers are wrong.
        groups: Of the former, then of the latter.
        seed: Of the bootstraps.
    """
    values = rankable(one, strangers)
    accepted, right = values[:, 0] > -np.inf, values[:, 1] > 0
    found: dict[str, Any] = {
        "accepted": int(accepted.sum()),
        "wrong": int((accepted & ~right).sum()),
        "precision": intervals.share(right, groups, seed, among=accepted),
        "recall": intervals.share(accepted & right, groups, seed, among=values[:, 2] > 0),
        "coverage": float(accepted.mean()),
    }
    for name, of in RANKINGS.items():
        if name != CALIBRATION or one.name in BRIDGE:  # other scores are no probabilities
            found[name] = intervals.measured(of, values, groups, seed)
    if np.isfinite(one.errors.translation_m).any():
        for name, good in (
            (PLACED, metrics.placed(one.errors.rotation_deg, one.errors.translation_m)),
            (DRAWN, one.drawn_px < metrics.DRAWN_PX),
        ):
            metric = rankable(one, strangers, good)
            found[f"{AVERAGE_PRECISION}, {name}"] = intervals.measured(
                RANKINGS[AVERAGE_PRECISION], metric, groups, seed
            )
    if one.name in BRIDGE:
        said = _reliability(values)
        found["reliability"] = [
            {"said": p, "came true": q, "answers": int(n)}
            for p, q, n in zip(said.said.tolist(), said.came_true.tolist(), said.count.tolist(), strict=True)
        ]
    return found


def other_places(one: Column, strangers: Sequence[Row], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """How often a target of another place is taken for one of this, beside how many true ones are found.

    Args:
        one: Of pairs of one place.
        strangers: Pairs of two, about which the method was asked.
        groups: Of the former, then of the latter.
        seed: Of the bootstraps.
    """
    if not strangers:
        return {}
    own, others = groups[: len(one.right)], groups[len(one.right) :]
    accepted = _accepted(strangers, one.name)
    kinds = np.array([row.pair.kind for row in strangers])
    places, mistaken = ({place(row) for row in some} for some in (strangers, compress(strangers, accepted)))
    found_right = one.right & one.accepted
    found: dict[str, Any] = {
        "pairs": len(strangers),
        "accepted": int(accepted.sum()),
        "share accepted": intervals.share(accepted, others, seed),
        "places": len(places),
        "places with one": len(mistaken),
        "share of places with one": {
            "value": len(mistaken) / len(places),
            "interval95": list(intervals.rate(len(mistaken), len(places))),
        },
        "hypotheses": sum(row.said[one.name].hypothesis for row in strangers),
        "accepted by kind": {
            kind: [int((accepted & (kinds == kind)).sum()), int((kinds == kind).sum())]
            for kind in sorted(set(kinds.tolist()))
        },
        "recall": intervals.share(found_right, own, seed),
    }
    if one.scores is not None and len(strangers) >= FEWEST_NEGATIVES:
        found_by_score = decisions.ranked(one.scores, found_right)
        negatives = _scores_of(strangers, one.name)
        _, threshold = decisions.recall_at_false_positive_rate(found_by_score, negatives, FALSE_POSITIVE_RATE)
        found["recall at 0.1 %"] = intervals.share(found_right & (one.scores >= threshold), own, seed)
        found["score at 0.1 %"] = threshold
    return found


def hypotheses(one: Column, strangers: Sequence[Row], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """What became of guesses: how many stayed so, how many agreement made answers, how many are wrong.

    Args:
        one: Of pairs of one place.
        strangers: Pairs of two, about which the method was asked: whatever it accepts of them is wrong.
        groups: Of the former, then of the latter.
        seed: Of the bootstraps.
    """
    others = [row.said[one.name] for row in strangers]
    elsewhere = _accepted(strangers, one.name)
    promoted = np.r_[one.accepted, elsewhere]
    wrong = promoted & ~np.r_[one.right, np.zeros_like(elsewhere)]
    return {
        "guesses": int(one.guessed.sum()),
        "right guesses": int((one.guessed & one.right).sum()),
        "promotable": int(one.promotable.sum()),
        "promoted": int(one.accepted.sum()),
        "share promoted": intervals.share(one.accepted, groups[: len(one.right)], seed, among=one.promotable),
        "of two places": {
            "promotable": sum(said.promotable for said in others),
            "guesses": sum(said.hypothesis for said in others),
            "promoted": int(elsewhere.sum()),
        },
        "wrongly promoted": int(wrong.sum()),
        "share wrongly promoted": intervals.share(wrong, groups, seed, among=promoted),
    }


def _accepted(strangers: Sequence[Row], name: str) -> Mask:
    """Which pairs of two places are taken for one, (N,)."""
    return np.array([row.said[name].accepted for row in strangers], bool)


def _scores_of(strangers: Sequence[Row], name: str) -> Array:
    """Return what answers to pairs of two places are ranked by, (N,): -inf for none, inf for one without."""
    scores = [np.inf if (score := row.said[name].score) is None else score for row in strangers]
    return np.where(_accepted(strangers, name), scores, -np.inf)


def rankable(one: Column, strangers: Sequence[Row], right: Mask | None = None) -> Array:
    """Return score, whether it is right and whether a right one exists, of pairs of one place and of two.

    Args:
        one: Of the former; with scores.
        strangers: The latter, about which the method was asked.
        right: Which answers are, (N,); by default those of the column.
    """
    assert one.scores is not None
    good = one.right if right is None else right
    other = _scores_of(strangers, one.name)
    own = np.stack((one.scores, good, np.ones_like(good)), axis=1)
    return np.concatenate((own, np.stack((other, *np.zeros((2, len(other)))), axis=1)))


def ranking(values: Array) -> decisions.Ranking:
    """Return the ranking of what `rankable` returned, or of a part of it."""
    return decisions.ranked(values[:, 0], values[:, 1] > 0, values[:, 2] > 0)


def _reliability(ranked: Array) -> decisions.Reliability:
    given = np.isfinite(ranked[:, 0])  # what has no probability is not judged by it
    return decisions.reliability(ranked[given, 0], ranked[given, 1] > 0)


# See `rankable`.
RANKINGS: dict[str, Callable[[Array], float]] = {
    AVERAGE_PRECISION: lambda r: decisions.average_precision(ranking(r)),
    "MR@P1": lambda r: decisions.recall_at_precision(ranking(r)),
    AREA_UNDER_RISK: lambda r: decisions.area_under_risk(ranking(r)),
    CALIBRATION: lambda r: _reliability(r).error,
}
