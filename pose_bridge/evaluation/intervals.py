# SPDX-License-Identifier: Apache-2.0
"""How much chance there is in a number: 95 % intervals of rates, of statistics and of paired differences."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array

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
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    blocks, rng = list(members.values()), np.random.default_rng(seed)
    drawn = [
        of(array[np.concatenate([blocks[k] for k in rng.integers(len(blocks), size=len(blocks))])])
        for _ in range(DRAWS)
    ]
    low, high = np.nanpercentile(drawn, [100.0 * TAIL, 100.0 * (1.0 - TAIL)]).tolist()
    return low, high


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
