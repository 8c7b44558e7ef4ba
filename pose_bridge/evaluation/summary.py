# SPDX-License-Identifier: Apache-2.0
"""The answers of a run as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import decisions, intervals, metrics
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.methods import BRIDGE
from pose_bridge.geometry import distances
from pose_bridge.geometry.arrays import Array, Mask

GUESSING = ("generated",)  # methods with hypotheses
GAPS_DEG = ((0, 15), (15, 30), (30, 50), (50, 70), (70, 90), (90, 180))
ROUNDED_DEG = 0.01
FALSE_POSITIVE_RATE = 0.001
FEWEST_SCENES = 8  # to draw them anew, for an interval
BINS_DEG = ((0, 30), (30, 50), (50, 65), (65, 90), (90, 180))
PLACED, DRAWN = "placed within 0.25 m and 5°", "drawn within 90 px"  # Map-free's
Statistic = Callable[[Array], float]


@dataclass(frozen=True, eq=False)
class Column:
    """A method's errors on all pairs, and what they are ranked by.

    Attributes:
        name: Of the method.
        errors: (N,) each, NaN without an answer.
        answered: Which pairs have one, (N,).
        guessed: Which of them are hypotheses, (N,).
        right: Which answers are correct in the sense of docs/method.md, (N,).
        scores: (N,), -inf without an answer and of hypotheses; None if the method ranks none.
        seconds: It took, (N,).
        drawn_px: Map-free's error in the picture, (N,), NaN without metres.
    """

    name: str
    errors: metrics.PoseErrors
    answered: Mask
    guessed: Mask
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
        right=np.array(right, bool),
        scores=scores if ranks else None,
        seconds=seconds,
        drawn_px=np.array(drawn_px),
    )


# Of a column's errors, see `errors_of`.
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
    PLACED: lambda e: _of_metres(
        e, np.maximum(e[:, 3] / metrics.PLACED_M, e[:, 0] / metrics.PLACED_DEG), 1.0
    ),
    DRAWN: lambda e: _of_metres(e, e[:, 4], metrics.DRAWN_PX),
}
SHARES = {name for name in STATISTICS if "error" not in name}
COUNTED = {name for name in SHARES if "@" in name or name in (PLACED, DRAWN)}  # rates of pairs


def summary(rows: Sequence[Row], methods: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return all numbers, as JSON has them.

    Args:
        rows: Of a run, at least one.
        methods: In the order of the columns; differences are to the first.
        seed: Of the bootstraps.

    Raises:
        BadInputError: There are no rows.
    """
    everything, rows = rows, of_one_place(rows)
    strangers = [row for row in everything if row.T_reference_target is None]
    if not rows:
        raise BadInputError("no pair was answered yet, so there is nothing to report")
    drawn_by, groups = _groups(rows)
    columns = [column(rows, name) for name in methods]
    return {
        "pairs": len(rows),
        "elsewhere": len(strangers),
        "scenes": len({row.pair.scene for row in rows}),
        "drawn_by": drawn_by,
        "unreadable": sum(bool(row.error) for row in everything),
        "methods": {one.name: _numbers(one, groups, seed) for one in columns},
        "differences": {one.name: _differences(columns[0], one, groups, seed) for one in columns[1:]},
        "by_rotation_deg": _by_rotation(rows, columns),
        "by_gap_deg": _by_gap(rows, columns),
        "by_kind": _by_kind(rows, columns),
        "decisions": {one.name: _decisions(one, groups, seed) for one in columns if one.scores is not None},
        "other_places": {
            one.name: _other_places(one, strangers, groups, seed) for one in columns if one.name in BRIDGE
        },
        "hypotheses": {one.name: _hypotheses(one) for one in columns if one.name in GUESSING},
    }


def _place(row: Row) -> str:
    """Where a pair is of, by whatever is known to be one place."""
    return row.pair.place or row.pair.scene


def _groups(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """What pairs have in common and are drawn anew by: place or scene; where these are few, a view."""
    places = [_place(row) for row in rows]
    if len(set(places)) >= FEWEST_SCENES:
        return "place" if any(row.pair.place for row in rows) else "scene", places
    return "reference view", [f"{row.pair.scene}: {row.pair.reference}" for row in rows]


def _numbers(one: Column, groups: Sequence[str], seed: int) -> dict[str, Any]:
    errors = errors_of(one)
    found: dict[str, Any] = {
        "answered": int(one.answered.sum()),
        "right": int(one.right.sum()),
        "median seconds": median(one.seconds),
    }
    for name, of in STATISTICS.items():
        found[name] = _measured(of, errors, groups, seed, counted=name in COUNTED)
    return found


def _measured(
    of: Statistic, values: Array, groups: Sequence[str], seed: int, *, counted: bool = False
) -> dict[str, Any]:
    """A statistic and its interval by groups.

    Args:
        of: The statistic.
        values: Of each pair, (N, ...).
        groups: What each pair belongs to, (N,).
        seed: Of the bootstrap.
        counted: It is a rate of pairs, and its interval no narrower than if every pair were a group of its
            own: all of few is not sure.
    """
    value = of(values)
    if math.isnan(value) or len(set(groups)) < 2:
        return {"value": value, "interval95": [math.nan, math.nan]}
    low, high = intervals.bootstrap(values, groups, of, seed)
    if counted:
        by_count = intervals.rate(round(value * len(values)), len(values))
        low, high = min(low, by_count[0]), max(high, by_count[1])
    return {"value": value, "interval95": [low, high]}


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
    angles = np.array([row.pair.rotation_deg for row in rows], float)
    parts = {f"{low}-{high}": _within(angles, low, high) for low, high in BINS_DEG}
    return _by_part(parts, columns)


def _by_gap(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    """By rotation and by the gap between the two sides, where views around the ends make it another."""
    angles, gaps = (
        np.array([getattr(row.pair, name) for row in rows], float) for name in ("rotation_deg", "gap_deg")
    )
    gaps = np.where(np.isnan(gaps), angles, gaps)
    if not (gaps < angles - ROUNDED_DEG).any():
        return {}
    parts = {
        f"{low}-{high}, gap {least}-{most}": _within(angles, low, high) & _within(gaps, least, most)
        for low, high in BINS_DEG
        for least, most in GAPS_DEG
    }
    return _by_part(parts, columns)


def _by_kind(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Any]:
    kinds = np.array([row.pair.kind for row in rows])
    names = sorted(set(kinds.tolist()))
    return _by_part({name: kinds == name for name in names}, columns) if len(names) > 1 else {}


def _within(angles: Array, low: float, high: float) -> Mask:
    """Which angles lie in a bin; half a turn belongs to the last."""
    return np.asarray((angles >= low) & ((angles < high) | (high == 180)))


def _by_part(parts: Mapping[str, Mask], columns: Sequence[Column]) -> dict[str, Any]:
    return {
        name: {
            "pairs": int(inside.sum()),
            "methods": {
                one.name: {
                    "answered": int(one.answered[inside].sum()),
                    "right": int(one.right[inside].sum()),
                    **{
                        statistic: STATISTICS[statistic](errors_of(one)[inside])
                        for statistic in ("mean rotation error", "median rotation error", "R@15", "AUC30")
                    },
                }
                for one in columns
            },
        }
        for name, inside in parts.items()
        if inside.any()
    }


def _other_places(one: Column, strangers: Sequence[Row], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """How often a target of another place is taken for one of this, beside how many true ones are found."""
    asked = [(row, row.said[one.name]) for row in strangers if one.name in row.said]
    if not asked:
        return {}
    accepted = [(row, said) for row, said in asked if said.accepted]
    found_right = one.right & one.accepted
    recall = _measured(lambda r: float(r.mean()), found_right.astype(np.float64), groups, seed, counted=True)
    found: dict[str, Any] = {
        "pairs": len(asked),
        "unreadable": sum(bool(row.error) for row in strangers),
        "places": len({_place(row) for row, _ in asked}),
        "accepted": len(accepted),
        "accepted, interval95": list(intervals.rate(len(accepted), len(asked))),
        "places with one": len({_place(row) for row, _ in accepted}),
        "hypotheses": sum(said.hypothesis for _, said in asked),
        "accepted by kind": {
            kind: [sum(row.pair.kind == kind for row, _ in some) for some in (accepted, asked)]
            for kind in sorted({row.pair.kind for row, _ in asked})
        },
        "recall": recall["value"],
        "recall, interval95": recall["interval95"],
    }
    if one.scores is not None:
        scores = [said.score if said.accepted and said.score is not None else -math.inf for _, said in asked]
        most, threshold = decisions.recall_at_false_positive_rate(
            one.scores, found_right, scores, FALSE_POSITIVE_RATE
        )
        found |= {"recall at 0.1 %": most, "score at 0.1 %": threshold}
    return found


def _hypotheses(one: Column) -> dict[str, Any]:
    """What became of guesses: how many stayed so, how many agreement made answers, how many are right."""
    promoted = one.accepted
    return {
        "guesses": int(one.guessed.sum()),
        "right guesses": int((one.guessed & one.right).sum()),
        "promoted": int(promoted.sum()),
        "wrongly promoted": int((promoted & ~one.right).sum()),
    }


def _decisions(one: Column, groups: Sequence[str], seed: int) -> dict[str, Any]:
    """What a ranking is worth; pairs without an answer are ranked last, and none of them is accepted."""
    assert one.scores is not None
    accepted, wrong = int(one.accepted.sum()), int((one.accepted & ~one.right).sum())
    found: dict[str, Any] = {
        "accepted": accepted,
        "wrong": wrong,
        "wrong, interval95": list(intervals.rate(wrong, accepted)),
        "coverage": accepted / len(one.right),
    }
    ranked = np.stack((one.scores, one.right.astype(np.float64)), axis=1)
    for name, of in RANKINGS.items():
        if name != CALIBRATION or one.name in BRIDGE:  # other scores are no probabilities
            found[name] = _measured(of, ranked, groups, seed)
    if one.name in BRIDGE:
        said = _reliability(ranked)
        found["reliability"] = [
            {"said": p, "came true": q, "answers": int(n)}
            for p, q, n in zip(said.said.tolist(), said.came_true.tolist(), said.count.tolist(), strict=True)
        ]
    return found


def _reliability(ranked: Array) -> decisions.Reliability:
    given = np.isfinite(ranked[:, 0])
    return decisions.reliability(ranked[given, 0], ranked[given, 1] > 0)


CALIBRATION = "calibration error"
# Of scores, -inf without an answer, and whether answers are right, (N, 2).
RANKINGS: dict[str, Statistic] = {
    "average precision": lambda r: decisions.average_precision(r[:, 0], r[:, 1] > 0),
    "MR@P1": lambda r: decisions.recall_at_precision(r[:, 0], r[:, 1] > 0),
    "area under risk": lambda r: decisions.area_under_risk(r[:, 0], r[:, 1] > 0),
    CALIBRATION: lambda r: _reliability(r).error,
}


def errors_of(one: Column) -> Array:
    """Rotation, direction, direction as in papers (degrees), place (m), drawn (px), (N, 5), NaN for none."""
    errors = one.errors
    angles = (errors.rotation_deg, errors.translation_deg, errors.as_in_papers_deg)
    return np.stack((*angles, errors.translation_m, one.drawn_px), axis=1)


def _of_metres(errors: Array, values: Array, limit: float) -> float:
    """Return the share within a limit; NaN of a method that has no metres."""
    return math.nan if np.isnan(errors[:, 3]).all() else metrics.share_within(values, limit)


def mean(errors: Array) -> float:
    """Of those that are known; NaN if none is."""
    known = errors[~np.isnan(errors)]
    return float(known.mean()) if len(known) else math.nan


def median(errors: Array) -> float:
    """Of those that are known; NaN if none is."""
    known = errors[~np.isnan(errors)]
    return float(np.median(known)) if len(known) else math.nan
