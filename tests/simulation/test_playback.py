# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest

from pose_bridge.geometry import uncertainty
from pose_bridge.simulation import driving, playback
from pose_bridge.simulation.driving import Move
from pose_bridge.simulation.furnished import planar
from pose_bridge.simulation.kidnap import FRAME_S
from pose_bridge.simulation.playback import Drift
from pose_bridge.simulation.robot import DEFAULT_BUILD, Place, Robot


class Hall:
    """Nothing is in the way."""

    def is_free(self, x_m: float, y_m: float) -> bool:
        return True


def filmed(moves: list[Move], seed: int = 0):
    robot = Robot(Hall(), Place(0.0, 0.0, 0.0), seed)
    frames = [robot.frame()]
    for speed_mps, turn_radps in driving.commands(moves, FRAME_S):
        robot.step(FRAME_S, speed_mps, turn_radps)
        frames.append(robot.frame())
    return frames


STORY = [Move(distance_m=1.0), Move(turn_rad=np.pi), Move(distance_m=0.5)]


def test_a_story_is_told_tick_by_tick():
    frames = filmed(STORY)
    told = list(itertools.takewhile(lambda tick: not tick.over, playback.told(frames, 0.05)))
    assert [tick.frame.stamp_ns for tick in told] == [round(k * 0.05e9) for k in range(len(told))]
    assert told[-1].frame.stamp_ns == frames[-1].stamp_ns
    for frame, tick in zip(frames, told[::4], strict=True):
        assert tick.frame.stamp_ns == frame.stamp_ns
        assert tick.frame.T_world_base == pytest.approx(frame.T_world_base, abs=1e-12)
        assert tick.frame.T_odom_base == pytest.approx(frame.T_odom_base, abs=1e-12)


def test_between_two_frames_it_is_on_its_way():
    start, end = filmed([Move(turn_rad=0.1)])
    ticks = list(itertools.islice(playback.told([start, end], FRAME_S / 4), 4))
    yaws = [np.arctan2(tick.frame.T_world_base[1, 0], tick.frame.T_world_base[0, 0]) for tick in ticks]
    assert yaws == pytest.approx([0.0, 0.025, 0.05, 0.075])
    assert len({tick.frame.seed for tick in ticks}) == 4
    assert ticks[2].frame.turn_radps == pytest.approx(0.1 / FRAME_S)


def test_where_frames_are_left_out_the_camera_is_off():
    frames = filmed(STORY)
    ticks = list(itertools.islice(playback.told(frames[:3] + frames[8:], 0.05), 40))
    off_ns = [tick.frame.stamp_ns for tick in ticks if not tick.seen]
    assert off_ns == [round(k * 0.05e9) for k in range(9, 32)]


def test_at_its_end_it_stands():
    frames = filmed(STORY)
    standing = [tick for tick in itertools.islice(playback.told(frames, 0.5), 40) if tick.over]
    assert len(standing) > 10
    assert all(tick.frame is frames[-1] and tick.seen for tick in standing)


def test_a_driven_robot_obeys():
    commands = iter([(0.5, 0.0)] * 10 + [(0.0, 1.0)] * 10 + [(0.0, 0.0)] * 10)
    ticks = list(
        itertools.islice(
            playback.driven(Robot(Hall(), Place(1.0, 2.0, 0.0), 0), 0.1, lambda: next(commands)), 25
        )
    )
    assert not any(tick.over for tick in ticks)
    assert ticks[-1].frame.T_world_base == pytest.approx(planar(1.5, 2.0, 1.0), abs=1e-12)
    assert [tick.frame.stamp_ns for tick in ticks] == [k * 10**8 for k in range(25)]


def test_drift_bounds_what_wheels_get_wrong():
    ratios = []
    for seed in range(60):
        drift = Drift(DEFAULT_BUILD)
        for frame in filmed(STORY, seed):
            drift.add(frame)
        error = uncertainty.error_vector(frame.T_odom_base, frame.T_world_base)
        ratios.append(error[[0, 1, 5]] ** 2 / np.diag(drift.covariance())[[0, 1, 5]])
    mean = np.mean(ratios, axis=0)
    assert (mean < 1.3).all()  # no larger than said, give or take what 60 robots can tell
    assert mean[2] > 0.5  # and of the yaw, on which the place depends, not much smaller


def test_drift_says_how_far_it_went_and_starts_anew_after_a_kidnapping():
    robot = Robot(Hall(), Place(0.0, 0.0, 0.0), 0)
    drift = Drift(DEFAULT_BUILD)
    drift.add(robot.frame())
    robot.step(1.0, 0.5, 0.0)
    ahead_m, turn_rad = drift.add(robot.frame())
    assert ahead_m == pytest.approx(0.5, abs=0.1)
    assert turn_rad == pytest.approx(0.0, abs=0.05)
    grown = drift.covariance()[0, 0]
    robot.put(Place(3.0, 3.0, 1.0))
    assert drift.add(robot.frame()) == (0.0, 0.0)
    assert drift.covariance()[0, 0] < 0.1 * grown
