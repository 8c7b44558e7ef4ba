# SPDX-License-Identifier: Apache-2.0
"""The kidnapped robot: each kind keeps what it promises."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from pose_bridge.geometry.rotations import rotation_angle_rad
from pose_bridge.simulation import kidnap as story
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.kidnap import Kidnapping, Kind, kidnap, stranger
from pose_bridge.simulation.robot import Frame

CASES = [(seed, kind) for seed in (1, 2, 3) for kind in Kind]


@cache
def room(seed: int) -> Room:
    return Room(seed, 1)


@cache
def told(seed: int, kind: Kind) -> Kidnapping:
    return kidnap(room(seed), seed, kind)


def yaw(frame: Frame) -> float:
    return float(np.arctan2(frame.T_world_base[1, 0], frame.T_world_base[0, 0]))


def apart_deg(a: Frame, b: Frame) -> float:
    return float(np.degrees(rotation_angle_rad(a.T_world_base[:3, :3].T @ b.T_world_base[:3, :3])))


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = told(1, Kind.OPPOSITE), kidnap(room(1), 1, Kind.OPPOSITE)
    assert len(first.mapping) == len(second.mapping)
    np.testing.assert_array_equal(first.kidnapped[-1].T_odom_base, second.kidnapped[-1].T_odom_base)
    np.testing.assert_array_equal(first.kidnapped[7].image, second.kidnapped[7].image)


@pytest.mark.parametrize(("seed", "kind"), CASES)
def test_it_spins_and_drives(seed: int, kind: Kind) -> None:
    tale = told(seed, kind)
    turned = np.unwrap([yaw(frame) for frame in tale.kidnapped])
    spin = int(np.ceil(2 * np.pi / 0.8 / story.FRAME_S))
    assert turned[spin] - turned[0] == pytest.approx(2 * np.pi)
    places = np.array([frame.T_world_base[:2, 3] for frame in tale.kidnapped])
    np.testing.assert_allclose(places[: spin + 1], places[:1].repeat(spin + 1, axis=0), atol=1e-9)
    driven_m = np.linalg.norm(np.diff(places, axis=0), axis=1).sum()
    assert driven_m == pytest.approx(story.DRIVE_M, abs=0.06)
    assert all(room(seed).is_free(*place) for place in places)


@pytest.mark.parametrize(("seed", "kind"), CASES)
def test_odometry_breaks_once_and_time_goes_on(seed: int, kind: Kind) -> None:
    tale = told(seed, kind)
    assert {frame.odometry for frame in tale.mapping} == {0}
    assert {frame.odometry for frame in tale.kidnapped} == {1}
    stamps = [frame.stamp_ns for frame in (*tale.mapping, *tale.kidnapped)]
    assert (np.diff(stamps) > 0).all()
    np.testing.assert_allclose(tale.kidnapped[0].T_odom_base, np.eye(4))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_opposite_is_seen_from_the_other_half_looking_back_or_aside(seed: int) -> None:
    tale = told(seed, Kind.OPPOSITE)
    assert len(tale.mapping) > 20
    mapped = np.array([frame.T_world_base[:2, 3] for frame in tale.mapping])
    aside = min(apart_deg(tale.kidnapped[0], frame) for frame in tale.mapping)
    assert aside > 59.0
    size = room(seed).size_m[:2]
    later = np.array([frame.T_world_base[:2, 3] for frame in tale.kidnapped])
    gaps = [
        max(
            (later[:, k].min() - mapped[:, k].max()) / size[k],
            (mapped[:, k].min() - later[:, k].max()) / size[k],
        )
        for k in (0, 1)
    ]
    assert max(gaps) > 0.09
    turns = np.array([yaw(frame) - yaw(tale.mapping[0]) for frame in tale.mapping])
    span = np.degrees(np.ptp((turns + np.pi) % (2 * np.pi) - np.pi))
    assert 75.0 < span < 80.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_side_was_mapped_all_round_and_from_nearby(seed: int) -> None:
    tale = told(seed, Kind.SAME_SIDE)
    yaws = np.sort([yaw(frame) for frame in tale.mapping])
    assert np.diff(yaws).max() < np.radians(15)
    start = tale.kidnapped[0]
    near = [
        frame
        for frame in tale.mapping
        if np.linalg.norm(frame.T_world_base[:2, 3] - start.T_world_base[:2, 3]) < 1.2
        and apart_deg(frame, start) < 40.0
    ]
    assert near


def test_a_stranger_has_frames_but_no_map() -> None:
    frames = stranger(room(2), 5)
    assert len(frames) > 40
    assert all(room(2).is_free(*frame.T_world_base[:2, 3]) for frame in frames)
    np.testing.assert_allclose(frames[0].T_odom_base, np.eye(4))
