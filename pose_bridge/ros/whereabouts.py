# SPDX-License-Identifier: Apache-2.0
"""Whether it is known where the robot is in its map, and whose word counts for that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import RelocalizeConfig
from pose_bridge.errors import StaleError
from pose_bridge.relocalization import Hypothesis, is_one_place
from pose_bridge.ros.frames import Frames
from pose_bridge.session import Session

log = logging.getLogger(__name__)

Result = TypeVar("Result")

FOLLOW_S = 0.5  # between two looks at tf: what it says counts since the last one


class Whereabouts:
    """Where the robot is, as tf, a service or a search says; for as many threads as like to tell or ask.

    Args:
        settings: What it means that two places agree.
        session: Places keyframes in the map.
        frames: Tells what tf says, and tells tf.
    """

    def __init__(self, settings: RelocalizeConfig, session: Session, frames: Frames) -> None:
        self._settings = settings
        self._session = session
        self._frames = frames
        self._lock = threading.Lock()
        self._lost = False
        self._T_map_odom: NDArray[np.float64] | None = None  # by a search, until tf agrees
        self._hypotheses: Sequence[Hypothesis] = ()

    @property
    def hypotheses(self) -> Sequence[Hypothesis]:
        """What the last search found, since the robot was last lost."""
        return self._hypotheses

    def lose(self) -> None:
        """From now on it is not known."""
        with self._lock:
            self._lost, self._T_map_odom, self._hypotheses = True, None, ()
            self._frames.stop_map_odom()

    def stop_telling(self) -> None:
        """Tell tf nothing any more; a search that is to stop and has not told yet does not either."""
        with self._lock:
            self._frames.stop_map_odom()

    def suspect(self, hypotheses: Sequence[Hypothesis]) -> None:
        """A search found places where it may be, and none for sure."""
        with self._lock:
            self._hypotheses = hypotheses

    def find(self, found: Hypothesis, tell: Callable[[], Result]) -> Result:
        """A search found it; `tell` says so to others, while nothing can change it.

        Raises:
            StaleError: Odometry broke after the pictures were taken.
            Exception: From `tell`; then it is not found either.
        """
        with self._lock:
            if found.best.view.epoch != self._session.odometry.epoch:
                raise StaleError("the robot's odometry broke after what it was found by; ask again")
            told = tell()
            self._lost, self._T_map_odom, self._hypotheses = False, found.best.T_map_odom, (found,)
        return told

    def say(self, T_map_odom: NDArray[np.float64], since_stamp_ns: int) -> None:
        """Somebody says where odometry lies in the map from a time on.

        Raises:
            BadInputError: Not a rigid transform.
        """
        with self._lock:
            self._session.set_map_pose(T_map_odom, since_stamp_ns)
            self._lost, self._T_map_odom = False, None

    def follow_tf(self) -> None:
        """Take tf's word for where odometry lies in the map, while the robot is not lost.

        After a search it counts once it agrees with that: until then it is what was true before.
        """
        with self._lock:
            newest = self._session.odometry.newest
            if newest is None or self._lost:
                return
            stamp_ns, pose = newest
            T_map_odom = self._frames.T_map_odom(stamp_ns, pose.T_odom_base)
            if T_map_odom is not None and self._agrees(T_map_odom, pose.T_odom_base):
                self._session.set_map_pose(T_map_odom, stamp_ns - int(FOLLOW_S * 1e9), pose.epoch)

    def _agrees(self, T_map_odom: NDArray[np.float64], T_odom_base: NDArray[np.float64]) -> bool:
        if self._T_map_odom is None:
            return True
        if not is_one_place(self._T_map_odom @ T_odom_base, T_map_odom @ T_odom_base, self._settings):
            log.info("tf has the robot elsewhere than where it was found; nothing is mapped by it")
            return False
        self._T_map_odom = None
        return True
