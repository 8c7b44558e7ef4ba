# SPDX-License-Identifier: Apache-2.0
"""InterPose's rule by hand, and the race that comes to the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.selection import consensus


def pose(turn_deg: float, direction_deg: float = 0.0) -> np.ndarray:
    """Turned about the vertical, moved to the side and ahead."""
    angle = np.radians(direction_deg)
    return rigid.make(
        rotations.so3_exp([0.0, np.radians(turn_deg), 0.0]), [np.cos(angle), 0.0, np.sin(angle)]
    )


def cloud(rng: np.random.Generator, T: np.ndarray, spread_deg: float, count: int = 11) -> np.ndarray:
    """Poses around one, a tenth of them far off."""
    found = []
    for _ in range(count):
        spread = spread_deg if rng.uniform() > 0.1 else 30.0
        turn, shift = np.radians(spread) * rng.standard_t(4, (2, 3)) / np.sqrt(3.0)
        t = T[:3, 3] + shift / 2.0
        found.append(rigid.make(rotations.so3_exp(turn) @ T[:3, :3], t / np.linalg.norm(t)))
    return np.array(found)


@given(st.integers(0, 10**6))
def test_the_distance_is_that_of_both_angles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rigid.make(rotations.so3_exp(rng.normal(0, 1, 3)), rng.normal(0, 1, 3)) for _ in range(2))
    wanted = distances.rotation_error_deg(a[:3, :3], b[:3, :3])
    wanted += distances.translation_error_unsigned_deg(a[:3, 3], b[:3, 3])
    assert consensus.distances_deg(a, b) == pytest.approx(wanted, abs=1e-5)


def test_by_hand() -> None:
    """A video that agrees with itself and the pair; one only with itself; one with neither."""
    videos = [
        np.array([pose(10), pose(11), pose(13)]),
        np.array([pose(60), pose(60), pose(60)]),
        np.array([pose(0), pose(40), pose(90)]),
    ]
    found = consensus.choose(videos, pose(15))
    np.testing.assert_allclose(found.d_med_deg, [1.5, 0.0, 45.0], atol=1e-9)
    np.testing.assert_allclose(found.d_bias_deg, [4.0, 45.0, 25.0], atol=1e-9)
    np.testing.assert_allclose(found.d_total_deg, [5.5, 45.0, 70.0], atol=1e-9)
    assert (found.video, found.subset, found.asked) == (0, 1, 9)
    np.testing.assert_array_equal(found.T_reference_target, pose(11))


def test_the_sign_of_the_way_does_not_count() -> None:
    assert consensus.distances_deg(pose(0, 0), pose(0, 180)) == pytest.approx(0.0, abs=1e-9)
    assert consensus.distances_deg(pose(0, 0), pose(0, 90)) == pytest.approx(90.0)


def test_subsets_hold_both_ends() -> None:
    drawn = consensus.subsets(25, 5, 11, seed=3)
    assert len(drawn) == 11
    assert drawn[0] == (0, 6, 12, 18, 24)
    for some in drawn:
        assert len(set(some)) == 5
        assert list(some) == sorted(some)
        assert (some[0], some[-1]) == (0, 24)
    assert drawn == consensus.subsets(25, 5, 11, seed=3)
    assert drawn[1:] != consensus.subsets(25, 5, 11, seed=4)[1:]
    assert consensus.subsets(2, 2, 1, seed=0) == [(0, 1)]


@pytest.mark.parametrize(("frames", "size", "count"), [(4, 5, 1), (9, 1, 3), (9, 5, 0)])
def test_subsets_that_cannot_be(frames: int, size: int, count: int) -> None:
    with pytest.raises(BadInputError):
        consensus.subsets(frames, size, count, seed=0)


def test_the_average_of_one_is_itself_and_of_two_between() -> None:
    np.testing.assert_allclose(consensus.average(pose(20, 30)[None]), pose(20, 30), atol=1e-12)
    between = consensus.average(np.array([pose(10, 0), pose(30, 40)]))
    assert distances.rotation_error_deg(between[:3, :3], pose(20)[:3, :3]) < 1e-6
    assert distances.translation_error_deg(between[:3, 3], pose(0, 20)[:3, 3]) < 1e-6


# --- the race


class Videos:
    """Answers for subsets, and counts them."""

    def __init__(self, clouds: Sequence[np.ndarray]) -> None:
        self.clouds = clouds
        self.asked: list[tuple[int, int]] = []

    def __call__(self, video: int, some: Sequence[int]) -> np.ndarray:
        assert some
        self.asked += [(video, index) for index in some]
        return self.clouds[video][list(some)]


def mixed(seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Videos of several qualities, and what the two views alone say."""
    rng = np.random.default_rng(seed)
    T = pose(*rng.uniform(-60.0, 60.0, 2))
    clouds = []
    for quality in rng.integers(0, 3, 4):
        off_deg, spread_deg = ((2.0, 0.7), (8.0, 3.0), (40.0, 20.0))[quality]
        centre = cloud(rng, T, off_deg, 1)[0]
        clouds.append(cloud(rng, centre, spread_deg * rng.uniform(0.5, 2.0)))
    return clouds, cloud(rng, T, 15.0, 1)[0]


@pytest.mark.parametrize("within_deg", (1.0, 0.0))
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_asked_twice_and_the_count_is_right(seed: int, within_deg: float) -> None:
    clouds, T_pair = mixed(seed)
    videos = Videos(clouds)
    found = consensus.race(videos, 4, 11, T_pair, within_deg)
    assert len(set(videos.asked)) == len(videos.asked) == found.asked <= 44


def test_it_comes_to_what_all_subsets_say() -> None:
    apart_deg, shares = [], []
    for seed in range(150):
        clouds, T_pair = mixed(seed)
        everything = consensus.choose(clouds, T_pair)
        found = consensus.race(Videos(clouds), 4, 11, T_pair)
        apart_deg.append(
            float(consensus.distances_deg(found.T_reference_target, everything.T_reference_target))
        )
        shares.append(found.asked / everything.asked)
    assert np.mean(np.array(apart_deg) < 1.0) > 0.9
    assert np.mean(shares) < 0.6


def test_where_all_agree_hardly_anything_is_asked() -> None:
    clouds = [np.repeat(pose(10)[None], 11, axis=0)] * 4
    assert consensus.race(Videos(clouds), 4, 11, pose(10)).asked <= 12


def test_certain_to_the_end_is_all() -> None:
    for seed in range(10):
        clouds, T_pair = mixed(seed)
        found = consensus.race(Videos(clouds), 4, 11, T_pair, within_deg=0.0, certainty_sigma=1e9)
        wanted = consensus.choose(clouds, T_pair)
        np.testing.assert_array_equal(found.T_reference_target, wanted.T_reference_target)
