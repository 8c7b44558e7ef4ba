# SPDX-License-Identifier: Apache-2.0
"""The node's life as a process: states, parameters, names, and nothing left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installed import require_ros

require_ros()

from action_msgs.msg import GoalStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, SetParameters  # noqa: E402
from robot_world import MAP  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import Caller, NodeProcess, Robot, is_gone, pair, until  # noqa: E402
from ros_numbers import finite_numbers  # noqa: E402

from pose_bridge.action import Relocalize  # noqa: E402
from pose_bridge.errors import ErrorCode  # noqa: E402
from pose_bridge.keyframes import store  # noqa: E402
from pose_bridge.srv import MapFile  # noqa: E402

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWN = Transition.TRANSITION_ACTIVE_SHUTDOWN

Start = Callable[..., NodeProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a node with parameters and arguments, and ends it after the test."""
    nodes: list[NodeProcess] = []

    def start(parameters: dict[str, object] | None = None, *arguments: str) -> NodeProcess:
        nodes.append(NodeProcess(tmp_path, free_domain(), parameters, arguments))
        return nodes[-1]

    yield start
    for node in nodes:
        node.process.kill()
        node.process.wait()


@pytest.fixture
def meet() -> Iterator[Callable[..., Caller]]:
    """Joins the graph of a node, and leaves it after the test."""
    callers: list[Caller] = []

    def meet(node: NodeProcess, *names: str) -> Caller:
        callers.append(Caller(node.domain, *names))
        return callers[-1]

    yield meet
    for caller in callers:
        caller.check()
        caller.close()


Meet = Callable[..., Caller]


def assert_ended(outcome, code: ErrorCode) -> None:
    assert (outcome.code, outcome.status) == (code, GoalStatus.STATUS_ABORTED), outcome.result.error_msg
    assert finite_numbers(outcome.result) == []


# --- states


def test_from_state_to_state_and_back(start: Start, meet: Meet) -> None:
    """One after the other, since starting a process takes long."""
    node = start()
    caller = meet(node)
    assert caller.state() == "unconfigured"
    assert caller.transition(CONFIGURE)
    assert (caller.state(), node.workers()) == ("inactive", [])
    for goal in (pair(), Relocalize.Goal()):
        assert_ended(caller.ask(goal), ErrorCode.NOT_ACTIVE)
    assert caller.transition(ACTIVATE)
    (first,) = node.workers()

    goals = in_the_middle(node, caller)
    assert caller.transition(DEACTIVATE)
    for goal in goals:
        assert_ended(goal.outcome(), ErrorCode.DEACTIVATED)
    assert (caller.state(), node.workers()) == ("inactive", [])
    assert until(lambda: is_gone(first))
    assert_ended(caller.ask(pair()), ErrorCode.NOT_ACTIVE)

    assert caller.transition(ACTIVATE)
    answered(node, caller)
    goals = in_the_middle(node, caller)
    assert caller.transition(DEACTIVATE)
    assert caller.transition(CLEANUP)  # at once
    for goal in goals:
        assert_ended(goal.outcome(), ErrorCode.DEACTIVATED)
    assert (caller.state(), node.workers()) == ("unconfigured", [])

    caller.activate()
    answered(node, caller)
    goals = in_the_middle(node, caller)
    assert caller.transition(SHUTDOWN)
    for goal in goals:
        assert_ended(goal.outcome(), ErrorCode.DEACTIVATED)
    assert (caller.state(), node.workers()) == ("finalized", [])
    assert caller.settled()
    assert node.end() == 0


def in_the_middle(node: NodeProcess, caller: Caller) -> list:
    """One goal that runs, and one that waits."""
    node.mood("patiently")
    goals = [caller.send(pair()), caller.send(pair(seed=1))]
    assert goals[0].runs()
    return goals


def answered(node: NodeProcess, caller: Caller) -> None:
    node.mood("at_once")
    outcome = caller.ask(pair())
    assert outcome.code is ErrorCode.NONE, outcome.result.error_msg


def test_a_reset_ends_goals_and_nothing_else(start: Start, meet: Meet) -> None:
    node = start()
    caller = meet(node)
    caller.activate()
    goals = in_the_middle(node, caller)
    assert caller.call("reset").success
    for goal in goals:
        assert_ended(goal.outcome(), ErrorCode.DEACTIVATED)
    answered(node, caller)
    assert caller.settled()


def test_a_worker_that_does_not_come_up(start: Start, meet: Meet, tmp_path: Path) -> None:
    """It cannot be activated; once it can, it can."""
    node = start({"worker.start_timeout_s": 5.0})
    python = tmp_path / "python"
    script = python.read_text()
    python.write_text("#!/bin/sh\necho no such model; exit 3\n")
    caller = meet(node)
    assert caller.transition(CONFIGURE)
    assert not caller.transition(ACTIVATE)
    assert caller.state() == "inactive"
    assert "no such model" in node.said()
    python.write_text(script)
    assert caller.transition(ACTIVATE)
    answered(node, caller)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_node_that_ends_leaves_no_worker(start: Start, meet: Meet, number: int) -> None:
    node = start({"autostart": True})
    caller = meet(node)
    assert until(lambda: caller.state() == "active")
    (worker,) = node.workers()
    node.mood("deaf 60")
    goal = caller.send(pair())
    assert goal.runs()
    code = node.end(number)
    assert code == (-9 if number == signal.SIGKILL else 0), node.said()
    if number != signal.SIGKILL:
        assert_ended(goal.outcome(), ErrorCode.DEACTIVATED)
    assert until(lambda: is_gone(worker))
    assert "Traceback" not in node.said()


@pytest.mark.parametrize(("state", "how"), [("BRIDGING", "SIGTERM"), ("WAITING_FOR_MOTION", "shutdown")])
def test_a_node_that_ends_looks_for_the_robot_no_longer(
    start: Start, meet: Meet, tmp_path: Path, state: str, how: str
) -> None:
    store.save_map(tmp_path / "maps", "room", MAP)
    node = start({"autostart": True, "image.reliability": "reliable"})
    caller = meet(node)
    assert until(lambda: caller.state() == "active")
    assert caller.call("load_map", MapFile.Request(name="room")).keyframes == len(MAP)
    (worker,) = node.workers()
    node.mood("deaf 60")
    if state == "BRIDGING":
        Robot(caller).greet()  # a picture to look for
    goal = caller.send(Relocalize.Goal(budget_s=300.0, publish=True))
    assert until(lambda: goal.feedback and goal.feedback[-1].state == getattr(goal.feedback[-1], state))
    if how == "shutdown":
        assert caller.transition(SHUTDOWN)
        assert (caller.state(), node.workers()) == ("finalized", [])
    assert node.end(signal.SIGTERM) == 0, node.said()
    assert_ended(goal.outcome(), ErrorCode.DEACTIVATED)
    assert until(lambda: is_gone(worker))
    assert caller.settled()
    assert "Traceback" not in node.said()


# --- the background


def test_bridges_in_the_background_step_aside(start: Start, meet: Meet) -> None:
    node = start({"auto.enabled": True, "auto.min_angle_deg": 0.0, "image.reliability": "reliable"})
    caller = meet(node)
    caller.activate()
    node.mood("patiently")
    robot = Robot(caller)
    robot.greet()
    for seed, place in enumerate(MAP[:3]):
        robot.step(place.T_map_base, seed)
    assert until(lambda: "busy" in caller.status("worker").message if caller.status("worker") else "")
    goal = caller.send(pair())
    assert goal.runs()
    goal.cancel()
    assert goal.outcome().code is ErrorCode.CANCELED
    node.mood("at_once")
    answers = caller.heard["pose_bridge/relative_pose"]
    assert until(lambda: answers)
    assert "reference" not in answers[0].reference_id  # no goal's, but a keyframe's


# --- parameters


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("bridge.budgets_s", 1.0, "unknown parameter bridge.budgets_s"),
        ("goals.max_waiting", "many", "goals.max_waiting"),
        ("goals.max_waiting", 0, "goals.max_waiting"),
        ("bridge.budget_s", -1.0, "bridge.budget_s"),
        ("autostart", "perhaps", "autostart"),
    ],
)
def test_settings_that_cannot_be_end_it(start: Start, name: str, value: object, said: str) -> None:
    node = start({name: value})
    assert node.process.wait(60.0) != 0
    assert said in node.said()
    assert "Traceback" not in node.said()


def test_parameters(start: Start, meet: Meet) -> None:
    """Whole numbers where there are seconds; others' settings; and what can be changed when."""
    node = start({"bridge.budget_s": 7, "others.setting": 3, "frames.map": "world"})
    caller = meet(node)
    assert set_parameter(caller, "goals.max_waiting", 1)
    assert set_parameter(caller, "bridge.budget_s", 5)
    assert not set_parameter(caller, "goals.max_waiting", 0)
    assert caller.transition(CONFIGURE)
    assert not set_parameter(caller, "goals.max_waiting", 2)
    assert "others.setting is none of this node's" in node.said()
    assert caller.transition(ACTIVATE)
    node.mood("patiently")
    goal = caller.send(pair())
    assert goal.runs()
    assert_ended(caller.ask(pair()), ErrorCode.BUSY)
    goal.cancel()
    assert goal.outcome().code is ErrorCode.CANCELED

    names = ["bridge.budget_s", "goals.max_waiting", "tf.prefix"]
    client = caller.node.create_client(DescribeParameters, "pose_bridge/describe_parameters")
    assert until(client.service_is_ready)
    described = caller.wait(client.call_async(DescribeParameters.Request(names=names))).descriptors
    assert all(each.description for each in described)
    assert described[0].floating_point_range[0].from_value == pytest.approx(0.01)
    assert described[1].integer_range[0].from_value == 1


def set_parameter(caller: Caller, name: str, number: int) -> bool:
    value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=number)
    client = caller.node.create_client(SetParameters, "pose_bridge/set_parameters")
    assert until(client.service_is_ready)
    request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
    return bool(caller.wait(client.call_async(request)).results[0].successful)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("frames.map", "odom", "frames.map, .odom and .base must differ"),
        ("bridge.budget_s", "soon", "budget_s must be of type float, got 'soon'"),
    ],
)
def test_settings_that_cannot_be_configured(
    start: Start, meet: Meet, name: str, value: str, said: str
) -> None:
    node = start({name: value})
    caller = meet(node)
    assert not caller.transition(CONFIGURE)
    assert caller.state() == "unconfigured"
    assert until(lambda: said in node.said())


# --- names


def test_namespace_name_and_remapping(start: Start, meet: Meet) -> None:
    node = start({}, "-r", "__ns:=/robot", "-r", "__node:=finder", "-r", "image:=camera/image_raw")
    caller = meet(node, "/robot", "finder")
    caller.activate()
    answered(node, caller)
    assert caller.settled()
    topics = {name for name, _ in caller.node.get_topic_names_and_types()}
    assert {"/robot/finder/relative_pose", "/robot/initialpose", "/robot/camera/image_raw"} <= topics
    assert not {name for name in topics if "pose_bridge" in name}
    assert "active: hears pictures on /robot/camera/image_raw" in node.said()
    assert until(lambda: caller.status("image") and caller.status("image").name.startswith("finder: "))


def test_it_says_that_nothing_publishes_the_simulated_time(start: Start, meet: Meet) -> None:
    node = start({"use_sim_time": True, "autostart": True})
    caller = meet(node)
    assert until(lambda: caller.state() == "active")
    assert until(lambda: caller.status("node") and "/clock" in caller.status("node").message)
    answered(node, caller)
