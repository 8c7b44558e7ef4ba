# SPDX-License-Identifier: Apache-2.0
"""The answers of a run as numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import intervals, metrics, verdicts
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.columns import (
    Column,
    asked,
    column,
    errors_of,
    groups,
    of_one_place,
    of_two_places,
)
from pose_bridge.evaluation.methods import BRIDGE
from pose_bridge.evaluation.verdicts import DRAWN, PLACED
from pose_bridge.geometry.arrays import Array, Mask

GUESSING = ("generated",)  # methods with hypotheses
GAPS_DEG = ((0, 15), (15, 30), (30, 50), (50, 70), (70, 90), (90, 180))
ROUNDED_DEG = 0.01
BINS_DEG = ((0, 30), (30, 50), (50, 65), (65, 90), (90, 180))
Statistic = Callable[[Array], float]
Verdict = Callable[[Column, Sequence[Row], Sequence[str], int], dict[str, Any]]

# Of a column's errors, see `errors_of`.
STATISTICS: dict[str, Statistic] = {
    "mean rotation error": lambda e: mean(e[:, 0]),
    "median rotation error": lambda e: median(e[:, 0]),
    "mean direction error": lambda e: mean(e[:, 1]),
    "R@5": lambda e: metrics.share_within(e[:, 0], 5.0),
    "R@15": lambda e: metrics.share_within(e[:, 0], 15.0),
    "R@30": lambda e: metrics.share_within(e[:, 0], 30.0),
    "T@5": lambda e: metrics.share_within(e[:, 1], 5.0),
    "T@15": lambda e: metrics.share_within(e[:, 1], 15.0),
    "T@30": lambda e: metrics.share_within(e[:, 1], 30.0),
    "AUC30": lambda e: metrics.auc_joint(e[:, 0], e[:, 1]),
    "AUC30 smaller": lambda e: metrics.auc_smaller(e[:, 0], e[:, 1]),
    "as in papers: mean direction error": lambda e: mean(e[:, 2]),
    "as in papers: T@15": lambda e: metrics.share_within(e[:, 2], 15.0),
    "as in papers: AUC30 joint": lambda e: metrics.auc_joint(e[:, 0], e[:, 2]),
    "as in papers: AUC30 smaller": lambda e: metrics.auc_smaller(e[:, 0], e[:, 2]),
    "as in papers: mAA30": lambda e: metrics.mean_average_accuracy(e[:, 0], e[:, 2]),
    PLACED: lambda e: _of_metres(e, metrics.placed(e[:, 0], e[:, 3])),
    DRAWN: lambda e: _of_metres(e, e[:, 4] < metrics.DRAWN_PX),
}
ERRORS = {  # those that are of answers only, of a column each
    "mean rotation error": 0,
    "median rotation error": 0,
    "mean direction error": 1,
    "as in papers: mean direction error": 2,
}
SHARES = STATISTICS.keys() - ERRORS.keys()
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
    everything, rows, strangers = rows, of_one_place(rows), of_two_places(rows)
    if not rows:
        raise BadInputError("no pair of one place was answered yet, so there is nothing to report")
    drawn_by, group = groups(everything)
    own = [group(row) for row in rows]
    columns = [column(rows, name) for name in methods]

    def judged(of: Verdict, judges: Callable[[Column], bool]) -> dict[str, Any]:
        """What a verdict is on each column that it is about, with those of two places it was asked about."""
        found = {}
        for one in filter(judges, columns):
            some = asked(strangers, one.name)
            found[one.name] = of(one, some, [*own, *map(group, some)], seed)
        return found

    return {
        "pairs": len(rows),
        "elsewhere": len(strangers),
        "scenes": len({row.pair.scene for row in rows}),
        "drawn_by": drawn_by,
        "unreadable": sum(bool(row.error) for row in everything),
        "methods": {one.name: _numbers(one, own, seed) for one in columns},
        "no_answer": {name: _reasons(everything, name) for name in methods},
        "differences": {one.name: _differences(columns[0], one, own, seed) for one in columns[1:]},
        "by_rotation_deg": _by_rotation(rows, columns),
        "by_gap_deg": _by_gap(rows, columns),
        "by_kind": _by_kind(rows, columns),
        "decisions": judged(verdicts.decided, lambda one: one.scores is not None),
        "other_places": judged(verdicts.other_places, lambda one: one.name in BRIDGE),
        "hypotheses": judged(verdicts.hypotheses, lambda one: one.name in GUESSING),
    }


def _reasons(rows: Sequence[Row], name: str) -> dict[str, int]:
    """Why a method has no answer, the most frequent first."""
    said = (row.said.get(name) for row in rows)
    return dict(Counter(one.why for one in said if one is not None and one.why).most_common())


def _numbers(one: Column, groups: Sequence[str], seed: int) -> dict[str, Any]:
    errors = errors_of(one)
    found: dict[str, Any] = {
        "answered": int(one.answered.sum()),
        "right": int(one.right.sum()),
        "median seconds": median(one.seconds),
    }
    for name, of in STATISTICS.items():
        found[name] = intervals.measured(of, errors, groups, seed, counted=name in COUNTED)
    return found


def _differences(first: Column, one: Column, groups: Sequence[str], seed: int) -> dict[str, Any]:
    """By how much a method is better or worse than the first: errors where both have one, shares of all."""
    both = np.isfinite(errors_of(one)) & np.isfinite(errors_of(first))
    found = {}
    for name, of in STATISTICS.items():
        keep = both[:, ERRORS[name]] if name in ERRORS else np.ones(len(both), bool)
        members = list(compress(groups, keep))
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


def _of_metres(errors: Array, within: Mask) -> float:
    """Return the share within a limit; NaN of a method that has no metres."""
    return math.nan if np.isnan(errors[:, 3]).all() else float(within.mean())


def mean(errors: Array) -> float:
    """Of those that are known; NaN if none is."""
    known = errors[~np.isnan(errors)]
    return float(known.mean()) if len(known) else math.nan


def median(errors: Array) -> float:
    """Of those that are known; NaN if none is."""
    known = errors[~np.isnan(errors)]
    return float(np.median(known)) if len(known) else math.nan
