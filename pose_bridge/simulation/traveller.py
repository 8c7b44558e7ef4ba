# SPDX-License-Identifier: Apache-2.0
"""A robot with a session, taken through stories, and the truth beside it."""

from __future__ import annotations

from collections.abc import Sequence

from pose_bridge.config import Config
from pose_bridge.geometry import rigid
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.relocalization import Answerer
from pose_bridge.session import Picture, Session
from pose_bridge.simulation.robot import Frame

PAUSE_NS = 10**9  # while it is carried


class Traveller:
    """Maps a room as a SLAM system would have it: the truth says where odometry lies in the map.

    Attributes:
        session: The robot.
        map: Its keyframes.
        truth: T_world_base by stamp, of what it saw last, (4, 4).
    """

    def __init__(self, config: Config, bridge: Answerer, mapping: Sequence[Frame]) -> None:
        self.session = Session(config, bridge)
        self._now_ns = 0
        self._live(mapping, mapped=True)
        self.map = self.session.keyframes.mapped()

    def carried(self, frames: Sequence[Frame]) -> None:
        """Set it down elsewhere; it sees these."""
        self.session.keyframes.replace(self.map)
        self.session.kidnapped()
        self._live(frames, mapped=False)

    @property
    def seen(self) -> list[Keyframe]:
        """What it kept since then."""
        return self.session.keyframes.of_epoch(self.session.odometry.epoch)

    def _live(self, frames: Sequence[Frame], mapped: bool) -> None:
        shift_ns = self._now_ns + PAUSE_NS - frames[0].stamp_ns
        self.truth = {frame.stamp_ns + shift_ns: frame.T_world_base for frame in frames}
        for frame in frames:
            stamp_ns = frame.stamp_ns + shift_ns
            self.session.move(stamp_ns, frame.T_odom_base)
            if mapped:
                T_map_odom = frame.T_world_base @ rigid.inverse(frame.T_odom_base)
                self.session.set_map_pose(T_map_odom, stamp_ns)
            self.session.see(
                Picture(
                    stamp_ns=stamp_ns,
                    image=frame.image,
                    camera=frame.camera,
                    camera_id="camera",
                    T_base_camera=frame.T_base_camera,
                )
            )
        self._now_ns = stamp_ns
