# SPDX-License-Identifier: Apache-2.0
"""Odometry as a robot reports it: where the base was at a picture, how it drifts, when the track broke."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import OdometryConfig, RigsConfig
from pose_bridge.geometry import rigid, rotations

NS = 1e9


@dataclass(frozen=True, eq=False)
class BasePose:
    """Where the base was by odometry.

    Attributes:
        T_odom_base: (4, 4), metric; comparable only with poses of the same epoch.
        epoch: Number of the unbroken stretch of odometry.
        way: Metres driven and radians turned since that began, (2,).
    """

    T_odom_base: NDArray[np.float64]
    epoch: int
    way: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))


class MapPoses:
    """Where one stretch of odometry lies in the map: what is said for a time on counts until more is said.

    A picture may come after what was said for later ones. Not for several threads.

    Args:
        epoch: Of the stretch.
        settings: For how long odometry is remembered.
    """

    def __init__(self, epoch: int, settings: OdometryConfig) -> None:
        self.epoch = epoch
        self._history_ns = int(settings.history_s * NS)
        self._since_ns: list[int] = []
        self._T_map_odom: list[NDArray[np.float64]] = []

    def add(self, since_ns: int, T_map_odom: NDArray[np.float64]) -> None:
        """Take in where it lies from a time on."""
        later = bisect.bisect_left(self._since_ns, since_ns)
        old = max(0, bisect.bisect_right(self._since_ns, since_ns - self._history_ns) - 1)
        self._since_ns = [*self._since_ns[old:later], since_ns]
        self._T_map_odom = [*self._T_map_odom[old:later], T_map_odom]

    def at(self, stamp_ns: int) -> NDArray[np.float64] | None:
        """Return T_map_odom (4, 4) for a picture; None from before anything is known."""
        index = bisect.bisect_right(self._since_ns, stamp_ns) - 1
        return self._T_map_odom[index] if index >= 0 else None


def drift(T_last_next: NDArray[np.float64], settings: RigsConfig) -> NDArray[np.float64]:
    """Return the variance of place (metres) and of direction (radians) by odometry on a way, (2,).

    Args:
        T_last_next: The way, (4, 4), if it is straight.
        settings: How odometry errs.
    """
    return _drift_on(_way(T_last_next), settings)


def drift_on_winding(way: NDArray[np.float64], settings: RigsConfig) -> NDArray[np.float64]:
    """Return the same for a way of any shape: an early error of direction is one of place later.

    Args:
        way: Metres driven and radians turned, (2,).
        settings: How odometry errs.
    """
    place, turn = _drift_on(way, settings)
    return np.array([place + turn * way[0] ** 2, turn])


def drift_covariance(variances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what odometry drifts by as a covariance, (6, 6), the same along all axes.

    Args:
        variances: Of place and of direction, (2,); see `drift`.
    """
    return np.diag(np.repeat(variances, 3))


def _drift_on(way: NDArray[np.float64], settings: RigsConfig) -> NDArray[np.float64]:
    floor = np.array([settings.odometry_m, np.radians(settings.odometry_deg)])
    return np.asarray(floor**2 + (settings.odometry_share * way) ** 2)


def _way(T_last_next: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([np.linalg.norm(T_last_next[:3, 3]), rotations.rotation_angle_rad(T_last_next[:3, :3])])


class Odometry:
    """The newest stretch of odometry, and the breaks between stretches; for as many threads as like to ask.

    A break is a jump that no robot makes, a clock that goes back, or somebody's word (`break_off`).
    """

    def __init__(self, settings: OdometryConfig) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._stamps_ns: list[int] = []
        self._poses: list[BasePose] = []
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """Number of the stretch that now grows."""
        with self._lock:
            return self._epoch

    @property
    def newest(self) -> tuple[int, BasePose] | None:
        """Stamp and pose of the last report of this epoch; None before there is one."""
        with self._lock:
            last = self._last()
            return None if last is None else (self._stamps_ns[-1], last)

    def add(self, stamp_ns: int, T_odom_base: NDArray[np.float64]) -> str:
        """Take one report.

        Returns:
            Why it breaks with what came before; empty if it does not.

        Raises:
            BadInputError: Not a rigid transform.
        """
        T_odom_base = rigid.rigid(T_odom_base)
        with self._lock:
            last, broke, way = self._last(), "", np.zeros(2)
            if last is not None:
                step = _way(rigid.relative(last.T_odom_base, T_odom_base))
                broke, way = self._break_between(stamp_ns, step), last.way + step
            if broke:
                self._epoch, last, way = self._epoch + 1, None, np.zeros(2)
            if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
                if last is not None:
                    return ""  # came late, and newer ones are there
                self._stamps_ns, self._poses = [], []  # by another clock
            self._stamps_ns.append(stamp_ns)
            self._poses.append(BasePose(T_odom_base, self._epoch, way))
            self._forget(stamp_ns)
        return broke

    def break_off(self) -> None:
        """Start a new epoch: the robot was moved, or odometry was reset."""
        with self._lock:
            self._epoch += 1

    def at(self, stamp_ns: int) -> BasePose | None:
        """Return where the base was, between two reports that are near enough in time.

        None where it is not known: too old, too new (a report may yet come), in a gap or across a break.
        """
        with self._lock:
            after = bisect.bisect_left(self._stamps_ns, stamp_ns)
            if after < len(self._stamps_ns) and self._stamps_ns[after] == stamp_ns:
                return self._poses[after]
            if after == 0 or after == len(self._stamps_ns):
                return None
            (start_ns, end_ns), (a, b) = (
                self._stamps_ns[after - 1 : after + 1],
                self._poses[after - 1 : after + 1],
            )
        if a.epoch != b.epoch or end_ns - start_ns > self._settings.max_gap_s * NS:
            return None
        fraction = (stamp_ns - start_ns) / (end_ns - start_ns)
        way = a.way + fraction * (b.way - a.way)
        return BasePose(rigid.interpolate(a.T_odom_base, b.T_odom_base, fraction), a.epoch, way)

    def _last(self) -> BasePose | None:
        """The last report of this epoch, if there is one; with the lock held."""
        return self._poses[-1] if self._poses and self._poses[-1].epoch == self._epoch else None

    def _break_between(self, stamp_ns: int, step: NDArray[np.float64]) -> str:
        """Why a report breaks with the last one, from which it is so many metres and radians away."""
        passed_s = (stamp_ns - self._stamps_ns[-1]) / NS
        if passed_s < -self._settings.max_gap_s:
            return f"the clock went back by {-passed_s:.2f} s"
        moved_m, turned_deg = float(step[0]), float(np.degrees(step[1]))
        passed_s = max(passed_s, 0.0)
        if moved_m > self._settings.slack_m + self._settings.max_speed_m_s * passed_s:
            return f"odometry jumped by {moved_m:.2f} m in {passed_s:.2f} s"
        if turned_deg > self._settings.slack_deg + self._settings.max_turn_deg_s * passed_s:
            return f"odometry turned by {turned_deg:.0f} degrees in {passed_s:.2f} s"
        return ""

    def _forget(self, now_ns: int) -> None:
        old = bisect.bisect_left(self._stamps_ns, now_ns - int(self._settings.history_s * NS))
        del self._stamps_ns[:old], self._poses[:old]
