# SPDX-License-Identifier: Apache-2.0
"""A node in simulated time, and a recording that starts again from its beginning."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from installed import require_ros

require_ros()

from robot_world import T_MAP_ODOM  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import Caller, NodeProcess, Robot, S, calling, until  # noqa: E402
from ros_room import AT_A_LOOK, carry_away, last_log, look_around, map_the_room  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

from pose_bridge.action import Relocalize  # noqa: E402
from pose_bridge.errors import ErrorCode  # noqa: E402
from pose_bridge.geometry import rigid  # noqa: E402
from pose_bridge.ros import poses  # noqa: E402

START_NS = 1000 * S
T_ODOM_THERE = rigid.inverse(T_MAP_ODOM) @ AT_A_LOOK[-1]
TICKS, TICK_S = 5, 0.05
SETTLED_S = 0.2  # for what is on its way


class RecordedRobot(Robot):
    """Brings its own time along: each report of odometry is now."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller)
        self.stamp_ns = START_NS
        caller.speak(Clock, "/clock")

    def move(self, T_odom_base: np.ndarray, stamp_ns: int) -> None:
        self._caller.say("/clock", Clock(clock=poses.to_stamp(stamp_ns)))
        super().move(T_odom_base, stamp_ns)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    settings = {"use_sim_time": True, "tf.publish_map_odom": True, "image.reliability": "reliable"}
    node = NodeProcess(tmp_path_factory.mktemp("node"), free_domain(), settings)
    with calling(node) as caller:
        yield caller
    assert node.end() == 0


@pytest.fixture(scope="module")
def robot(caller: Caller) -> RecordedRobot:
    robot = RecordedRobot(caller)
    robot.greet()
    assert caller.call("reset").success
    return robot


def tick(robot: Robot) -> None:
    """Time goes on, and nothing happens."""
    robot.stamp_ns += S // 2
    robot.move(T_ODOM_THERE, robot.stamp_ns)
    time.sleep(TICK_S)


def assert_found(caller: Caller, robot: Robot, looks_ns: list[int]) -> None:
    """By one of these pictures; and tf is told, by the recording's time."""
    held = caller.heard["/tf"]
    before = len(held)
    outcome = caller.ask(Relocalize.Goal(publish=True, budget_s=60.0))
    assert outcome.code is ErrorCode.NONE, outcome.result.error_msg
    assert poses.from_stamp(outcome.result.pose.header.stamp) in looks_ns
    assert until(lambda: tick(robot) or len(held) > before + TICKS)
    (transform,) = held[-1].transforms
    np.testing.assert_allclose(poses.transform_to_matrix(transform.transform), T_MAP_ODOM, atol=1e-5)
    assert looks_ns[-1] < poses.from_stamp(transform.header.stamp) < robot.stamp_ns + S


def test_a_recording_that_starts_again(caller: Caller, robot: RecordedRobot) -> None:
    """What was known by the old clock is told no longer, and the robot is found again by the new one."""
    map_the_room(caller, robot)
    carry_away(caller)
    assert_found(caller, robot, look_around(caller, robot))

    robot.stamp_ns = START_NS
    robot.move(T_ODOM_THERE, START_NS)
    assert until(lambda: "the clock went back" in last_log(caller))
    time.sleep(SETTLED_S)
    held = caller.heard["/tf"]
    before = len(held)
    for _ in range(2 * TICKS):
        tick(robot)
    time.sleep(SETTLED_S)
    assert len(held) == before

    assert_found(caller, robot, look_around(caller, robot))
