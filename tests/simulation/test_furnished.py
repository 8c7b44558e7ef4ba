# SPDX-License-Identifier: Apache-2.0
"""Furnished rooms: repeatable, closed, with a place to drive; rooms of a style share what they hold."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.furnished import CELL_M, ROBOT_RADIUS_M, Room, planar
from pose_bridge.simulation.robot import DEFAULT_BUILD

CAMERA = Camera.from_focal_px(115.0, 160, 120)


@cache
def room(style: int, number: int) -> Room:
    return Room(style, number)


def looking(place: Room, yaw_rad: float) -> np.ndarray:
    """T_world_camera in the middle of what is free."""
    places = place.free_places()
    x, y = places[np.argmin(np.linalg.norm(places - places.mean(axis=0), axis=1))]
    return planar(x, y, yaw_rad) @ DEFAULT_BUILD.T_base_camera


def test_the_same_seeds_make_the_same_room() -> None:
    again, T = Room(1, 2), looking(room(1, 2), 0.3)
    first, second = (made.picture(T, CAMERA) for made in (room(1, 2), again))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.depth_m, second.depth_m)
    np.testing.assert_array_equal(room(1, 2).free, again.free)


def test_rooms_of_a_style_share_textures_and_nothing_else() -> None:
    here, there = room(1, 2), room(1, 3)
    assert not np.array_equal(here.size_m, there.size_m)
    shared = set(here.surfaces.textures) & set(there.surfaces.textures)
    assert len(shared) > 10
    sizes = [
        {
            tuple(np.round(np.linalg.norm([a, d], axis=1), 9))
            for a, d in zip(r.surfaces.across, r.surfaces.down, strict=True)
        }
        for r in (here, there)
    ]
    assert len(sizes[0] & sizes[1]) > 20  # the same pieces of furniture, not just the same kinds


@pytest.mark.parametrize("number", [2, 3])
def test_a_room_is_closed_and_cannot_be_left(number: int) -> None:
    made = room(1, number)
    assert (made.size_m >= (4, 3, 2.4)).all()
    assert (made.size_m <= (8, 6, 3)).all()
    for yaw_rad in np.arange(4) * np.pi / 2:
        T = looking(made, yaw_rad)
        picture = made.picture(T, CAMERA)
        assert np.isfinite(picture.depth_m).all()
        pixels = np.stack(np.meshgrid(np.arange(160), np.arange(120)), axis=2).reshape(-1, 2) + 0.5
        rays = np.concatenate([CAMERA.normalize(pixels), np.ones((len(pixels), 1))], axis=1)
        points = rigid.transform(T, rays * picture.depth_m.reshape(-1, 1))
        outside_m = np.maximum(-points, points - made.size_m).max(axis=1)
        assert (
            outside_m > 1e-5
        ).mean() < 0.001  # what is narrower than a sample may take its neighbour's depth
        assert outside_m.max() < 0.1
    assert made.is_free(*made.free_places()[0])
    for outside in ((-0.1, 1.0), (made.size_m[0] + 0.1, 1.0), (1.0, made.size_m[1] + 0.1)):
        assert not made.is_free(*outside)


@pytest.mark.parametrize("number", [2, 3])
def test_a_robot_touches_nothing_where_it_may_be(number: int) -> None:
    """Every corner of what stands lower than the robot is farther from the free cells than its radius."""
    made = room(1, number)
    surfaces, places = made.surfaces, made.free_places()
    assert made.free.mean() > 0.2
    low = (
        (surfaces.corners[:, 2] < 1.0)
        & (surfaces.corners[:, 2] > 0.05)
        & (np.abs(surfaces.normals[:, 2]) < 0.5)
    )
    low &= np.linalg.norm(surfaces.across, axis=1) < 2.9  # not the walls
    gaps = np.linalg.norm(surfaces.corners[low][:, None, :2] - places, axis=2).min(axis=1)
    assert gaps.min() > ROBOT_RADIUS_M - 1.5 * CELL_M


def test_pieces_repeat_in_a_room() -> None:
    counts = [np.unique(room(1, number).surfaces.textures, return_counts=True)[1].max() for number in (2, 3)]
    assert min(counts) > 4
