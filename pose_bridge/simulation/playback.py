# SPDX-License-Identifier: Apache-2.0
"""A robot's life tick by tick: a story that was made beforehand, or a robot that is driven as it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pose_bridge.geometry import rigid
from pose_bridge.geometry.arrays import Array
from pose_bridge.simulation.kidnap import FRAME_S
from pose_bridge.simulation.robot import Build, Frame, Robot

NS = 1e9
LEVEL_VARIANCE = 1e-6  # of height, roll and pitch: the floor is flat


class Tick(NamedTuple):
    """One moment.

    Attributes:
        frame: Of the robot.
        seen: Whether its camera is on.
        over: Whether the story has ended, and the robot just stands there.
    """

    frame: Frame
    seen: bool = True
    over: bool = False


def told(frames: Sequence[Frame], dt_s: float) -> Iterator[Tick]:
    """Yield the robot of a story every `dt_s`, in between its frames too; at its end it stands for ever.

    Where the story leaves frames out, the camera is off and the robot goes straight on to the next.
    """
    stamps_ns = np.array([frame.stamp_ns for frame in frames])
    count = int((stamps_ns[-1] - stamps_ns[0]) / (dt_s * NS)) + 1
    for k in range(count):
        stamp_ns = int(stamps_ns[0] + round(k * dt_s * NS))
        after = int(np.searchsorted(stamps_ns, stamp_ns))
        yield _between(frames[max(after - 1, 0)], frames[after], stamp_ns)
    while True:
        yield Tick(frames[-1], over=True)  # the same frame again: it is rendered once


def driven(robot: Robot, dt_s: float, command: Callable[[], tuple[float, float]]) -> Iterator[Tick]:
    """Yield a robot every `dt_s` that does what it is told.

    Args:
        robot: Is moved.
        dt_s: Between two moments.
        command: Metres and radians (to the left) per second.
    """
    while True:
        yield Tick(robot.frame())
        robot.step(dt_s, *command())


class Drift:
    """How far wheels can be trusted that have come as far as they say.

    Args:
        build: Of the robot.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._last: Frame | None = None
        self._way_m = self._turned_rad = 0.0

    def add(self, frame: Frame) -> tuple[float, float]:
        """Take the next moment; returns how far the wheels say that it moved ahead and turned to the left."""
        if self._last is None or self._last.odometry != frame.odometry:
            self._way_m = self._turned_rad = 0.0
            self._last = frame
            return 0.0, 0.0
        T = rigid.relative(self._last.T_odom_base, frame.T_odom_base)
        self._last = frame
        ahead_m, turn_rad = float(T[0, 3]), float(np.arctan2(T[1, 0], T[0, 0]))
        self._way_m += abs(ahead_m)
        self._turned_rad += abs(turn_rad)
        return ahead_m, turn_rad

    def covariance(self) -> Array:
        """A bound of the pose's covariance in odometry: x, y, z, rotation about x, y, z, (6, 6)."""
        build, way_m, turned_rad = self._build, self._way_m, self._turned_rad
        yaw = (build.turn_sigma * turned_rad) ** 2
        yaw += build.turn_noise_rad**2 * turned_rad + build.yaw_noise_rad**2 * way_m
        place = (build.distance_sigma * way_m) ** 2 + build.distance_noise_m**2 * way_m + way_m**2 * yaw
        variances = np.array([place, place, 0.0, 0.0, 0.0, yaw])
        return np.diag(variances + LEVEL_VARIANCE)


def _between(before: Frame, after: Frame, stamp_ns: int) -> Tick:
    """The robot on its way from one frame to the next, a straight stretch or a turn on the spot."""
    apart_ns = after.stamp_ns - before.stamp_ns
    share = (stamp_ns - before.stamp_ns) / apart_ns if apart_ns else 1.0
    frame = dataclasses.replace(
        after,
        stamp_ns=stamp_ns,
        T_world_base=rigid.interpolate(before.T_world_base, after.T_world_base, share),
        T_odom_base=rigid.interpolate(before.T_odom_base, after.T_odom_base, share),
        seed=(*after.seed[:-1], stamp_ns),
    )
    return Tick(frame, seen=apart_ns < 1.5 * FRAME_S * NS or share == 1.0)
