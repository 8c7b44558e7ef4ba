# SPDX-License-Identifier: Apache-2.0
"""A robot: its frames and pictures are true, its odometry drifts as much as said, it hits nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation import driving
from pose_bridge.simulation.driving import Move
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.robot import DEFAULT_BUILD, Build, Place, Robot

SMALL = dataclasses.replace(DEFAULT_BUILD, camera=Camera.from_focal_px(115.0, 160, 120))


class Field:
    """A room without walls or furniture."""

    def is_free(self, x_m: float, y_m: float) -> bool:
        return True


@pytest.fixture(scope="module")
def room() -> Room:
    return Room(1, 2)


def drive(robot: Robot, moves: list[Move], dt_s: float = 0.2) -> None:
    for speed_mps, turn_radps in driving.commands(moves, dt_s):
        robot.step(dt_s, speed_mps, turn_radps)


def test_the_camera_looks_ahead_and_a_little_down() -> None:
    build = Build(camera=SMALL.camera, camera_pitch_rad=0.1, camera_height_m=0.6, camera_forward_m=0.2)
    T = build.T_base_camera
    np.testing.assert_allclose(T[:3, 3], [0.2, 0.0, 0.6])
    np.testing.assert_allclose(T[:3, 2], [np.cos(0.1), 0.0, -np.sin(0.1)], atol=1e-12)
    np.testing.assert_allclose(T[:3, 0], [0.0, -1.0, 0.0], atol=1e-12)


def test_an_arc_is_exact_whatever_the_step() -> None:
    """A quarter of a circle of radius 2 m."""
    for count in (1, 7):
        place = Place(1.0, 1.0, 0.0)
        for _ in range(count):
            place = place.moved(np.pi / count, np.pi / 2 / count)
        np.testing.assert_allclose(place, (3.0, 3.0, np.pi / 2), atol=1e-9)


def test_moves_are_made_exactly() -> None:
    moves = [Move(turn_rad=1.0), Move(distance_m=1.23), Move(turn_rad=-2.5), Move(distance_m=-0.4)]
    robot = Robot(Field(), Place(0.0, 0.0, 0.0), 0)
    drive(robot, moves)
    np.testing.assert_allclose(robot.place, driving.after(Place(0.0, 0.0, 0.0), moves), atol=1e-9)
    speeds = np.array(list(driving.commands(moves, 0.2)))
    assert np.abs(speeds).max(axis=0) == pytest.approx((driving.SPEED_MPS, driving.TURN_RADPS), rel=0.2)


def test_odometry_drifts_as_much_as_said() -> None:
    build = dataclasses.replace(SMALL, distance_sigma=0.0, turn_sigma=0.0)
    ends, yaws = [], []
    for seed in range(300):
        robot = Robot(Field(), Place(3.0, 1.0, 0.5), seed, build)
        drive(robot, [Move(distance_m=4.0)])
        T = robot.frame().T_odom_base
        ends.append(T[0, 3])
        yaws.append(np.arctan2(T[1, 0], T[0, 0]))
    assert np.mean(ends) == pytest.approx(4.0, abs=0.01)
    assert np.std(ends) == pytest.approx(2.0 * build.distance_noise_m, rel=0.15)
    assert np.std(yaws) == pytest.approx(2.0 * build.yaw_noise_rad, rel=0.15)
    turned = []
    for seed in range(300):
        robot = Robot(Field(), Place(0.0, 0.0, 0.0), seed, build)
        drive(robot, [Move(turn_rad=2.25)])
        turned.append(np.arctan2(*robot.frame().T_odom_base[1::-1, 0]) - 2.25)
    assert np.std(turned) == pytest.approx(1.5 * build.turn_noise_rad, rel=0.15)


def test_errors_of_scale_stay_with_a_robot() -> None:
    build = dataclasses.replace(SMALL, distance_noise_m=0.0, yaw_noise_rad=0.0, turn_noise_rad=0.0)
    scales = []
    for seed in range(200):
        robot = Robot(Field(), Place(0.0, 0.0, 0.0), seed, build)
        drive(robot, [Move(distance_m=1.0)])
        one = robot.frame().T_odom_base[0, 3]
        drive(robot, [Move(distance_m=1.0)])
        assert robot.frame().T_odom_base[0, 3] == pytest.approx(2 * one)
        scales.append(one)
    assert np.std(scales) == pytest.approx(build.distance_sigma, rel=0.2)


def test_put_elsewhere_odometry_starts_anew(room: Room) -> None:
    places = room.free_places()
    robot = Robot(room, Place(*places[0], 0.0), 1, SMALL)
    robot.step(0.2, 0.0, 0.5)
    before = robot.frame()
    robot.put(Place(*places[-1], 2.0))
    after = robot.frame()
    assert (before.odometry, after.odometry) == (0, 1)
    assert after.stamp_ns == before.stamp_ns == 200_000_000
    np.testing.assert_allclose(after.T_odom_base, np.eye(4))
    np.testing.assert_allclose(after.T_world_base[:2, 3], places[-1])
    with pytest.raises(BadInputError, match="no place"):
        robot.put(Place(-1.0, 0.0, 0.0))


def test_it_stops_at_what_is_in_the_way_and_can_turn(room: Room) -> None:
    robot = Robot(room, Place(*room.free_places()[0], 0.3), 1, SMALL)
    for _ in range(200):
        robot.step(0.2, 0.5, 0.0)
        assert room.is_free(*robot.place[:2])
    assert robot.blocked
    stood = robot.place
    robot.step(0.2, 0.5, 0.5)
    assert robot.place[:2] == stood[:2]
    assert robot.place.yaw_rad == pytest.approx(stood.yaw_rad + 0.1)


def test_pictures_belong_to_the_true_pose(room: Room) -> None:
    """A point of one frame, moved by its depth, has the same depth and about the same colour in the next."""
    build = dataclasses.replace(
        SMALL, optics=dataclasses.replace(SMALL.optics, exposure_sigma=0.0, cast_sigma=0.0)
    )
    robot = Robot(room, Place(*room.free_places()[40], 0.0), 1, build)
    first = robot.frame()
    robot.step(0.2, 0.0, 0.2)
    second = robot.frame()
    rows, columns = (index.reshape(-1) for index in np.indices(first.depth_m.shape)[:, 10:-10:3, 10:-10:3])
    rays = np.c_[build.camera.normalize(np.stack([columns, rows], axis=1) + 0.5), np.ones(len(rows))]
    points = rays * first.depth_m[rows, columns][:, None]
    T_second_first = rigid.relative(second.T_world_camera, first.T_world_camera)
    seen = rigid.transform(T_second_first, points)
    pixels = build.camera.project(seen)
    inside = ((pixels > 2) & (pixels < (158, 118))).all(axis=1)
    x, y = pixels[inside].astype(int).T
    depth_error = np.abs(second.depth_m[y, x] / seen[inside, 2] - 1.0)
    assert np.median(depth_error) < 0.005
    colour_error = np.abs(second.image[y, x].astype(float) - first.image[rows, columns][inside])
    assert np.median(colour_error) < 8.0


def test_frames_are_repeatable_and_rendered_once(room: Room) -> None:
    frames = [Robot(room, Place(*room.free_places()[5], 1.0), 3, SMALL).frame() for _ in range(2)]
    np.testing.assert_array_equal(frames[0].image, frames[1].image)
    assert frames[0].image is frames[0].image
    np.testing.assert_allclose(frames[0].T_world_camera, frames[0].T_world_base @ frames[0].T_base_camera)
    np.testing.assert_allclose(frames[0].T_odom_camera, frames[0].T_base_camera)


def test_ways_lead_around_the_furniture(room: Room) -> None:
    places = room.free_places()
    goals = driving.nearest_first(driving.spread(places, 4, np.random.default_rng(0)))
    here = Place(*goals[0], 0.0)
    for goal in goals[1:]:
        moves = driving.go(room, here, goal)
        robot = Robot(room, here, 0, SMALL)
        for speed_mps, turn_radps in driving.commands(moves, 0.2):
            robot.step(0.2, speed_mps, turn_radps)
            assert not robot.blocked
        np.testing.assert_allclose(robot.place[:2], goal, atol=1e-6)
        here = robot.place
    with pytest.raises(BadInputError, match="no way"):
        driving.go(room, here, np.array([-1.0, -1.0]))
