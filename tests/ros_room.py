# SPDX-License-Identifier: Apache-2.0
"""A robot that maps a room, is carried away and looks around, and what a node keeps of that."""

from __future__ import annotations

from typing import Any

import numpy as np
from robot_world import MAP, T_MAP_ODOM, standing
from ros_node import Caller, Robot, S, until
from std_msgs.msg import Empty

from pose_bridge.action import EstimateRelativePose
from pose_bridge.errors import ErrorCode
from pose_bridge.geometry import rigid
from pose_bridge.msg import View as ViewMessage
from pose_bridge.ros import poses
from pose_bridge.srv import SetMapPose

LOOKS = 6
AT_A_LOOK = [standing(2.0, 2.0 + 0.1 * index, -90.0 + 30.0 * index) for index in range(LOOKS)]


def map_the_room(caller: Caller, robot: Robot) -> list[int]:
    """Stamps of the map's keyframes: odometry and map are one."""
    robot.move(standing(0, 0, 0), robot.stamp_ns + S // 10)
    assert set_map_pose(caller, np.eye(4)).error_code == 0
    stamps_ns = [robot.step(place.T_map_base, seed) for seed, place in enumerate(MAP)]
    return are_kept(caller, stamps_ns)


def carry_away(caller: Caller) -> None:
    caller.say("pose_bridge/kidnapped", Empty())
    assert until(lambda: "kidnapped" in last_log(caller))


def look_around(caller: Caller, robot: Robot) -> list[int]:
    """Stamps of what it sees from elsewhere, by odometry of its own."""
    stamps_ns = [
        robot.step(rigid.inverse(T_MAP_ODOM) @ T_map_base, 100 + index)
        for index, T_map_base in enumerate(AT_A_LOOK)
    ]
    return are_kept(caller, stamps_ns)


def is_kept(caller: Caller, stamp_ns: int) -> bool:
    """Whether a picture is a keyframe by now, which diagnostics would tell only once per second."""
    outcome = caller.ask(EstimateRelativePose.Goal(reference=captured(stamp_ns)))
    return outcome.code is ErrorCode.BAD_REQUEST  # for want of a target


def are_kept(caller: Caller, stamps_ns: list[int]) -> list[int]:
    for stamp_ns in stamps_ns:
        assert until(lambda stamp_ns=stamp_ns: is_kept(caller, stamp_ns))
    return stamps_ns


def drive_until_kept(caller: Caller, robot: Robot) -> int:
    """What went wrong before may still be on its way when the next picture comes; returns the one kept."""
    for index in range(20):
        stamp_ns = robot.step(standing(0.3 * index, 0.0, 0.0), 200 + index)
        if until(lambda stamp_ns=stamp_ns: is_kept(caller, stamp_ns), 1.0):
            return stamp_ns
    raise AssertionError("no picture is kept any more")


def last_log(caller: Caller) -> str:
    log = caller.heard["/rosout"]
    return log[-1].msg if log else ""


def set_map_pose(caller: Caller, T_map_odom: np.ndarray, parent: str = "map", child: str = "odom") -> Any:
    transform = poses.to_transform(T_map_odom, 1, parent, child)
    return caller.call("set_map_pose", SetMapPose.Request(map_odom=transform))


def captured(stamp_ns: int) -> ViewMessage:
    """A keyframe, named by its time."""
    message = ViewMessage()
    message.camera_info.header.stamp = poses.to_stamp(stamp_ns)
    return message
