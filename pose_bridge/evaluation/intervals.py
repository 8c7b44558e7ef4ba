# SPDX-License-Identifier: Apache-2.0
"""How much chance there is in a number: 95 % intervals of rates, of statistics and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array, Mask

DRAWS = 1000
TAIL = 0.025
Interval = tuple[float, float]


def rate(good: int, total: int) -> Interval:
    """Return the interval of a rate (Clopper and Pearson, 1934); 0 to 1 where nothing was tried.

    Raises:
        BadInputError: More good ones than all.
    """
    if not 0 <= good <= total:
        raise BadInputError(f"{good} of {total} is no rate")
    low = beta.ppf(TAIL, good, total - good + 1) if good else 0.0
    high = beta.ppf(1.0 - TAIL, good + 1, total - good) if good < total else 1.0
    return float(low), float(high)


def bootstrap(
    values: ArrayLike, groups: Sequence[Hashable], of: Callable[[Array], float], seed: int
) -> Interval:
    """Return the interval of a statistic, drawn anew by groups: pairs of one scene come together.

    Args:
        values: One or more numbers of each pair, (N, ...).
        groups: What each pair belongs to, (N,).
        of: The statistic.
        seed: Of the drawing.

    Raises:
        BadInputError: There are no values, or not as many groups.
    """
    array = np.asarray(values, np.float64)
    if not len(array) or len(groups) != len(array):
        raise BadInputError(
            f"a bootstrap needs values and the group of each, got {len(array)}, {len(groups)}"
        )
    drawn = [of(array[chosen]) for chosen in _drawn_anew(tuple(groups), DRAWS, seed)]
    low, high = np.nanpercentile(drawn, [100.0 * TAIL, 100.0 * (1.0 - TAIL)]).tolist()
    return low, high


@lru_cache(maxsize=2)  # statistics of the same pairs follow each other; of many pairs a list is large
def _drawn_anew(groups: tuple[Hashable, ...], draws: int, seed: int) -> list[NDArray[np.intp]]:
    """The numbers of the pairs of each draw, (M,)."""
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    blocks, rng = [np.array(some) for some in members.values()], np.random.default_rng(seed)
    return [
        np.concatenate([blocks[k] for k in rng.integers(len(blocks), size=len(blocks))]) for _ in range(draws)
    ]


def difference(
    a: ArrayLike, b: ArrayLike, groups: Sequence[Hashable], of: Callable[[Array], float], seed: int
) -> tuple[float, Interval]:
    """Return by how much a statistic of `a` is larger than that of `b`, of the same pairs, and its interval.

    Raises:
        BadInputError: As `bootstrap`, or not as many of either.
    """
    both = [np.asarray(side, np.float64) for side in (a, b)]
    if both[0].shape != both[1].shape:
        raise BadInputError(f"paired numbers must come in pairs, got {both[0].shape} and {both[1].shape}")

    def apart(rows: Array) -> float:
        return of(rows[:, 0]) - of(rows[:, 1])

    paired = np.stack(both, axis=1)
    return apart(paired), bootstrap(paired, groups, apart, seed)


def measured(
    of: Callable[[Array], float],
    values: Array,
    groups: Sequence[Hashable],
    seed: int,
    *,
    counted: bool = False,
) -> dict[str, Any]:
    """Return a statistic and its interval by groups.

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
    low, high = bootstrap(values, groups, of, seed)
    if counted:
        by_count = rate(round(value * len(values)), len(values))
        low, high = min(low, by_count[0]), max(high, by_count[1])
    return {"value": value, "interval95": [low, high]}


def share(which: Mask, groups: Sequence[Hashable], seed: int, among: Mask | None = None) -> dict[str, Any]:
    """Return a share of pairs and its interval, by groups and by count: the wider.

    Args:
        which: Those that count, (N,).
        groups: What each pair belongs to, (N,).
        seed: Of the bootstrap.
        among: Of which it is a share, (N,); of all if it is not said.
    """
    asked = np.ones_like(which) if among is None else among
    members, good = list(compress(groups, asked)), which[asked]
    if not len(good):
        return {"value": math.nan, "interval95": list(rate(0, 0))}
    found = measured(lambda v: float(v.mean()), good.astype(np.float64), members, seed, counted=True)
    if math.isnan(found["interval95"][0]):  # they are all of one group
        found["interval95"] = list(rate(int(good.sum()), len(good)))
    return found
