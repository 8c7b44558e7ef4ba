# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_bridge.keyframes.selection import select, weakest_link


def random_graph(seed: int, views: int, density: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    strength = rng.integers(1, 300, (views, views)) * (rng.random((views, views)) < density)
    strength = np.triu(strength, 1).astype(float)
    return strength + strength.T


def widest(strength: np.ndarray) -> float:
    """The largest bottleneck of any path from view 0 to view 1, by trying all of them."""
    views, best = len(strength), 0.0
    for count in range(views - 1):
        for middle in itertools.permutations(range(2, views), count):
            path = (0, *middle, 1)
            best = max(best, min(strength[a, b] for a, b in itertools.pairwise(path)))
    return best


@pytest.mark.parametrize("views", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(12))
def test_the_cut_is_the_bottleneck_of_the_widest_path(seed: int, views: int) -> None:
    strength = random_graph(seed, views)
    beyond, tie = weakest_link(strength)
    assert not beyond[0]
    assert beyond[1]
    across = strength[np.ix_(~beyond, beyond)]
    assert across.max() == tie == widest(strength)


@given(st.integers(0, 10**6), st.integers(2, 14), st.floats(0.0, 1.0))
def test_both_ends_are_apart_whatever_the_graph(seed: int, views: int, density: float) -> None:
    strength = random_graph(seed, views, density)
    beyond, tie = weakest_link(strength)
    assert beyond.shape == (views,)
    assert (bool(beyond[0]), bool(beyond[1])) == (False, True)
    scaled = weakest_link(10 * strength)
    np.testing.assert_array_equal(scaled[0], beyond)
    assert scaled[1] == 10 * tie


def test_two_clusters_are_parted_at_the_link_between_them() -> None:
    strength = np.zeros((6, 6))
    for group in ((0, 2, 3), (1, 4, 5)):
        for a, b in itertools.permutations(group, 2):
            strength[a, b] = 200.0
    strength[3, 4] = strength[4, 3] = 30.0
    beyond, tie = weakest_link(strength)
    np.testing.assert_array_equal(beyond, [False, True, False, False, True, True])
    assert tie == 30.0


# --- selection


def overlaps(seed: int, views: int) -> np.ndarray:
    return random_graph(seed, views) / 600.0


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 14))
def test_both_ends_first_and_none_twice(seed: int, views: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    sides = np.r_[0, 1, rng.integers(0, 2, views - 2)]
    chosen = select(overlaps(seed, views), sides, limit)
    assert chosen[:2] == [0, 1]
    assert len(set(chosen)) == len(chosen) <= min(limit, views)
    assert set(chosen) <= set(range(views))
    longer = select(overlaps(seed, views), sides, limit + 1)
    assert longer[: len(chosen)] == chosen  # greedy: a larger limit adds, and changes nothing


def test_what_is_tied_to_nothing_is_not_chosen() -> None:
    overlap = np.zeros((5, 5))
    overlap[0, 2] = overlap[2, 0] = overlap[1, 3] = overlap[3, 1] = 0.1
    assert sorted(select(overlap, np.array([0, 1, 0, 1, 0]), 5)) == [0, 1, 2, 3]


def test_what_leads_across_comes_first() -> None:
    overlap = np.zeros((4, 4))
    for a, b, share in ((0, 2, 0.2), (0, 3, 0.2), (1, 3, 0.1)):
        overlap[a, b] = overlap[b, a] = share
    assert select(overlap, np.array([0, 1, 0, 0]), 3) == [0, 1, 3]


def test_the_same_again_is_not_chosen() -> None:
    """View 2 shows what view 0 shows; view 3 is tied to it and shows more."""
    overlap = np.zeros((4, 4))
    for a, b, share in ((0, 2, 1.0), (0, 3, 0.25), (2, 3, 0.25)):
        overlap[a, b] = overlap[b, a] = share
    assert select(overlap, np.array([0, 1, 0, 0]), 3) == [0, 1, 3]


def test_both_sides_get_their_share() -> None:
    views = 14
    overlap = np.zeros((views, views))
    sides = np.r_[0, 1, np.repeat([0, 1], 6)]
    for a, b in itertools.combinations(range(views), 2):
        if sides[a] == sides[b]:
            overlap[a, b] = overlap[b, a] = 0.3
    chosen = select(overlap, sides, 8)
    assert abs(int((sides[chosen] == 0).sum()) - 4) <= 1
