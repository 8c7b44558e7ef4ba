# SPDX-License-Identifier: Apache-2.0
"""Walks: repeatable, through free floor, outwards or around something."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rotations
from pose_bridge.simulation import walks
from pose_bridge.simulation.walks import FRAMES, MOST_HOUSES, ROOMS, Facing, Split, Walk, room_of, walk

HOUSE = 5


@pytest.fixture(scope="module")
def taken() -> list[Walk]:
    found = []
    for room in range(ROOMS):
        for number in range(4):
            try:
                found.append(walk(Split.VALIDATION, HOUSE, room, number))
            except BadInputError:
                assert number % 2 == 1  # there is always room to turn
    assert len(found) > 12
    return found


def turns_deg(one: Walk) -> np.ndarray:
    R = one.T_world_camera[:, :3, :3]
    return np.array([np.degrees(rotations.rotation_angle_rad(a.T @ b)) for a, b in pairwise(R)])


def test_the_same_numbers_give_the_same_walk() -> None:
    one, again = (walk(Split.TEST, 1, 2, 0) for _ in range(2))
    np.testing.assert_array_equal(one.T_world_camera, again.T_world_camera)
    np.testing.assert_array_equal(one.picture(3, 64, 48)[0], again.picture(3, 64, 48)[0])
    other = walk(Split.TEST, 1, 2, 2)
    assert not np.array_equal(one.T_world_camera, other.T_world_camera)


def test_houses_of_splits_are_different_ones() -> None:
    starts = sorted(split.value for split in Split)
    assert all(second - first >= MOST_HOUSES for first, second in pairwise(starts))
    sizes = {tuple(room_of(split, 0, 0).size_m) for split in Split}
    assert len(sizes) == len(Split)


def test_the_last_room_is_a_corridor() -> None:
    sizes_m = np.array([sorted(room_of(Split.TRAIN, 2, room).size_m[:2]) for room in range(ROOMS)])
    assert (sizes_m[:-1, 0] >= 3.0).all()
    assert sizes_m[-1, 0] < 2.7
    assert sizes_m[-1, 1] > 5.0 - 1e-9


def test_walks_lead_over_free_floor_and_keep_level(taken: list[Walk]) -> None:
    for one in taken:
        assert one.T_world_camera.shape == (FRAMES, 4, 4)
        x, y, z = one.T_world_camera[:, :3, 3].T
        assert all(one.room.is_free(*place) for place in zip(x, y, strict=True))
        assert np.ptp(z) < 1e-9
        assert (one.T_world_camera[:, 2, 1] < -0.8).all()  # the picture's down is the room's


def test_cameras_turn_steadily_by_forty_degrees_at_least(taken: list[Walk]) -> None:
    for one in taken:
        steps_deg = turns_deg(one)
        assert steps_deg.max() < 40.0
        assert 35.0 < steps_deg.sum() < 210.0


def test_around_a_thing_the_lines_of_sight_meet(taken: list[Walk]) -> None:
    for one in taken:
        if one.facing is Facing.CENTRED:
            origins, ahead = one.T_world_camera[:, :2, 3], one.T_world_camera[:, :2, 2]
            across = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
            across /= np.linalg.norm(across, axis=1, keepdims=True)
            middle, *_ = np.linalg.lstsq(across, (across * origins).sum(axis=1), rcond=None)
            off_rad = np.arctan2(((middle - origins) * across).sum(1), ((middle - origins) * ahead).sum(1))
            assert np.abs(off_rad).max() < np.radians(20.0)  # before every camera, not behind


def test_outwards_they_part(taken: list[Walk]) -> None:
    for one in taken:
        if one.facing is Facing.OUTWARD:
            assert np.linalg.norm(np.ptp(one.T_world_camera[:, :2, 3], axis=0)) <= walks.DRIFT_M + 1e-9


def test_pictures_have_depth_and_noise(taken: list[Walk]) -> None:
    image, depth_m = taken[0].picture(0, 64, 48)
    assert (image.shape, image.dtype, depth_m.shape) == ((48, 64, 3), np.uint8, (48, 64))
    assert np.isfinite(depth_m).all()
    clean = taken[0].room.picture(taken[0].T_world_camera[0], taken[0].camera(64, 48)).image
    assert 0.5 < np.abs(clean.astype(float) - image).mean() < 80.0


@pytest.mark.parametrize(("house", "room"), [(-1, 0), (MOST_HOUSES, 0), (0, -1), (0, ROOMS)])
def test_rooms_that_there_are_not(house: int, room: int) -> None:
    with pytest.raises(BadInputError, match="houses are"):
        room_of(Split.TRAIN, house, room)
