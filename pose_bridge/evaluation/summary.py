# SPDX-License-Identifier: Apache-2.0
"""The answers of a run as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import decisions, intervals, metrics
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.methods import BRIDGE
from pose_bridge.geometry import distances
from pose_bridge.geometry.arrays import Array, Mask

FEWEST_SCENES = 8  # to draw them anew, for an interval
BINS_DEG = ((0, 30), (30, 50), (50, 65), (65, 90), (90, 180))
Statistic = Callable[[Array], float]


@dataclass(frozen=True, eq=False)
class Column:
    """A method's errors on all pairs, and what they are ranked by.

    Attributes:
        name: Of the method.
        errors: (N,) each, NaN without an answer.
        answered: Which pairs have one, (N,).
        right: Which answers are correct in the sense of docs/method.md, (N,).
        scores: (N,), -inf without an answer; None if the method ranks none.
        seconds: It took, (N,).
    """

    name: str
    errors: metrics.PoseErrors
    answered: Mask
    right: Mask
    scores: Array | None
    seconds: Array


def column(rows: Sequence[Row], name: str) -> Column:
    """Collect what a method said."""
    estimated = [row.estimated(name) for row in rows]
    errors = metrics.pose_errors(estimated, [row.T_reference_target for row in rows])
    right = [
        one is not None
        and distances.correct(
            one.T_reference_target, row.T_reference_target, directed=one.directed, metric=one.metric
        )
        for one, row in zip(estimated, rows, strict=True)
    ]
    answered = np.array([one is not None for one in estimated], bool)
    said = [row.said.get(name) for row in rows]
    scores = np.array([-np.inf if one is None or one.score is None else one.score for one in said])
    scores = np.where(answered, scores, -np.inf)
    ranks = bool(answered.any()) and bool(np.isfinite(scores[answered]).all())
    seconds = np.array([math.nan if one is None else one.seconds for one in said])
    return Column(name, errors, answered, np.array(right, bool), scores if ranks else None, seconds)


# Of a column's errors: rotation, direction, direction as papers have it, (N, 3), NaN without an answer.
STATISTICS: dict[str, Statistic] = {
    "mean rotation error": lambda e: mean(e[:, 0]),
    "median rotation error": lambda e: median(e[:, 0]),
    "mean direction error": lambda e: mean(e[:, 1]),
    "R@5": lambda e: metrics.share_within(e[:, 0], 5.0),
    "R@15": lambda e: metrics.share_within(e[:, 0], 15.0),
    "R@30": lambda e: metrics.share_within(e[:, 0], 30.0),
    "T@15": lambda e: metrics.share_within(e[:, 1], 15.0),
    "AUC30": lambda e: metrics.auc_joint(e[:, 0], e[:, 1]),
    "as in papers: mean direction error": lambda e: mean(e[:, 2]),
    "as in papers: T@15": lambda e: metrics.share_within(e[:, 2], 15.0),
    "as in papers: AUC30 joint": lambda e: metrics.auc_joint(e[:, 0], e[:, 2]),
    "as in papers: AUC30 smaller": lambda e: metrics.auc_smaller(e[:, 0], e[:, 2]),
    "as in papers: mAA30": lambda e: metrics.mean_average_accuracy(e[:, 0], e[:, 2]),
}
SHARES = {name for name in STATISTICS if "error" not in name}
COUNTED = {name for name in SHARES if "@" in name}  # rates of pairs


def summary(rows: Sequence[Row], methods: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return all numbers, as JSON has them.

    Args:
        rows: Of a run, at least one.
        methods: In the order of the columns; differences are to the first.
        seed: Of the bootstraps.

    Raises:
        BadInputError: There are no rows.
    """
    if not rows:
        raise BadInputError("no pair was answered yet, so there is nothing to report")
    drawn_by, groups = _groups(rows)
    columns = [column(rows, name) for name in methods]
    return {
        "pairs": len(rows),
        "scenes": len({row.pair.scene for row in rows}),
        "drawn_by": drawn_by,
        "unreadable": sum(bool(row.error) for row in rows),
        "methods": {one.name: _numbers(one, groups, seed) for one in columns},
        "differences": {one.name: _differences(columns[0], one, groups, seed) for one in columns[1:]},
        "by_rotation_deg": _by_rotation(rows, columns),
        "decisions": {one.name: _decisions(one) for one in columns if one.scores is not None},
    }


def _groups(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """What pairs have in common and are drawn anew together by: the scene; where these are few, a view."""
    scenes = [row.pair.scene for row in rows]
    if len(set(scenes)) >= FEWEST_SCENES:
        return "scene", scenes
    return "reference view", [f"{row.pair.scene}: {row.pair.reference}" for row in rows]


def _numbers(one: Column, groups: Sequence[str], seed: int) -> dict[str, Any]:
    errors = errors_of(one)
    found: dict[str, Any] = {
        "answered": int(one.answered.sum()),
        "right": int(one.right.sum()),
        "median seconds": median(one.seconds),
    }
    for name, of in STATISTICS.items():
        value = of(errors)
        found[name] = {"value": value, "interval95": list(_interval(name, value, errors, groups, seed))}
    return found


def _interval(name: str, value: float, errors: Array, groups: Sequence[str], seed: int) -> intervals.Interval:
    """By groups; of a rate no narrower than if every pair were a group of its own: all of few is not sure."""
    if math.isnan(value) or len(set(groups)) < 2:
        return math.nan, math.nan
    low, high = intervals.bootstrap(errors, groups, STATISTICS[name], seed)
    if name in COUNTED:
        by_count = intervals.rate(round(value * len(errors)), len(errors))
        low, high = min(low, by_count[0]), max(high, by_count[1])
    return low, high


def _differences(first: Column, one: Column, groups: Sequence[str], seed: int) -> dict[str, Any]:
    """By how much a method is better or worse than the first, on pairs that both answered; shares on all."""
    both = one.answered & first.answered
    found = {}
    for name, of in STATISTICS.items():
        keep = np.ones_like(both) if name in SHARES else both
        members = [group for group, kept in zip(groups, keep, strict=True) if kept]
        if len(set(members)) < 2 or math.isnan(of(errors_of(one)[keep]) - of(errors_of(first)[keep])):
            continue
        value, interval = intervals.difference(
            errors_of(one)[keep], errors_of(first)[keep], members, of, seed
        )
        found[name] = {"value": value, "interval95": list(interval), "n": int(keep.sum())}
    return found


def _by_rotation(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    angle = np.array([row.pair.rotation_deg for row in rows])
    found = {}
    for low, high in BINS_DEG:
        inside = (angle >= low) & ((angle < high) | (high == 180))
        if inside.any():
            found[f"{low}-{high}"] = {
                "pairs": int(inside.sum()),
                "methods": {
                    one.name: {
                        "answered": int(one.answered[inside].sum()),
                        "right": int(one.right[inside].sum()),
                        **{
                            name: STATISTICS[name](errors_of(one)[inside])
                            for name in ("mean rotation error", "R@15", "AUC30")
                        },
                    }
                    for one in columns
                },
            }
    return found


def _decisions(one: Column) -> dict[str, Any]:
    """What a ranking is worth; pairs without an answer are ranked last, and none of them is accepted."""
    assert one.scores is not None
    right, answered = int(one.right.sum()), int(one.answered.sum())
    wrong = answered - right
    found = {
        "accepted": answered,
        "wrong": wrong,
        "wrong, interval95": list(intervals.rate(wrong, answered)),
        "coverage": answered / len(one.right),
        "average precision": decisions.average_precision(one.scores, one.right),
        "MR@P1": decisions.recall_at_precision(one.scores, one.right),
        "area under risk": decisions.area_under_risk(one.scores, one.right),
    }
    if one.name in BRIDGE:
        said = decisions.reliability(one.scores[one.answered], one.right[one.answered])
        found["calibration error"] = said.error
        found["reliability"] = [
            {"said": p, "came true": q, "answers": int(n)}
            for p, q, n in zip(said.said.tolist(), said.came_true.tolist(), said.count.tolist(), strict=True)
        ]
    return found


def errors_of(one: Column) -> Array:
    """Rotation, direction, direction as papers have it, degrees, (N, 3), NaN without an answer."""
    errors = one.errors
    return np.stack((errors.rotation_deg, errors.translation_deg, errors.as_in_papers_deg), axis=1)


def mean(errors: Array) -> float:
    """Of those that are known; NaN if none is."""
    known = errors[~np.isnan(errors)]
    return float(known.mean()) if len(known) else math.nan


def median(errors: Array) -> float:
    """Of those that are known; NaN if none is."""
    known = errors[~np.isnan(errors)]
    return float(np.median(known)) if len(known) else math.nan
