# SPDX-License-Identifier: Apache-2.0
"""A robot that drives, sees, is carried away and found: the node as a process, all topics over DDS."""

from __future__ import annotations

import math
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from installed import require_ros

require_ros()

from action_msgs.msg import GoalStatus  # noqa: E402
from geometry_msgs.msg import PoseWithCovariance, PoseWithCovarianceStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from robot_world import MAP, T_BASE_CAMERA, T_MAP_ODOM, standing  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import (  # noqa: E402
    LATCHED,
    SLACK_S,
    Caller,
    Goal,
    NodeProcess,
    Robot,
    S,
    calling,
    image,
    odometry,
    pair,
    until,
    view,
)
from ros_numbers import finite_numbers  # noqa: E402
from ros_room import (  # noqa: E402
    AT_A_LOOK,
    LOOKS,
    are_kept,
    captured,
    carry_away,
    drive_until_kept,
    last_log,
    look_around,
    map_the_room,
    set_map_pose,
)
from visualization_msgs.msg import MarkerArray  # noqa: E402

from pose_bridge.action import EstimateRelativePose, Relocalize  # noqa: E402
from pose_bridge.errors import ErrorCode  # noqa: E402
from pose_bridge.geometry import rigid  # noqa: E402
from pose_bridge.msg import LoopClosureCandidate, RelativePose  # noqa: E402
from pose_bridge.msg import View as ViewMessage  # noqa: E402
from pose_bridge.ros import poses  # noqa: E402
from pose_bridge.srv import MapFile, SetMapPose  # noqa: E402

UNPUBLISHED = ("/tf", "/tf_static", "initialpose", "pose_bridge/pose")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One for all tests here, reset before each."""
    settings = {
        "image.reliability": "reliable",
        "image.patience_s": 0.3,
        "worker.memory_gib": 2.0,
        "tf.publish_pairs": True,
        "tf.publish_map_odom": True,
        "diagnostics.window_s": 1.0,
        "diagnostics.silence_s": 30.0,
    }
    process = NodeProcess(tmp_path_factory.mktemp("node"), free_domain(), settings)
    yield process
    assert process.end() == 0


@pytest.fixture(scope="module")
def caller(node: NodeProcess) -> Iterator[Caller]:
    with calling(node) as caller:
        yield caller


@pytest.fixture(scope="module")
def only_robot(caller: Caller) -> Robot:
    robot = Robot(caller)
    robot.greet()
    return robot


@pytest.fixture
def robot(node: NodeProcess, caller: Caller, only_robot: Robot) -> Iterator[Robot]:
    """It knows nothing yet; after every test, the node answers as ever."""
    node.mood("at_once")
    assert caller.call("reset").success
    yield only_robot
    node.mood("at_once")
    outcome = caller.ask(pair())
    assert outcome.result.relative_pose.status == RelativePose.STATUS_ACCEPTED
    assert node.process.poll() is None


@pytest.fixture
def mapped(caller: Caller, robot: Robot) -> list[int]:
    """Stamps of the map's keyframes."""
    return map_the_room(caller, robot)


@pytest.fixture
def kidnapped(caller: Caller, robot: Robot, mapped: list[int]) -> list[int]:
    """Stamps of what it has seen since."""
    carry_away(caller)
    return look_around(caller, robot)


def keyframes(caller: Caller) -> dict[str, int]:
    """What diagnostics say of them now, not what they said before."""
    seen = len(caller.heard["diagnostics"])
    assert until(lambda: len(caller.heard["diagnostics"]) > seen)
    values = {pair.key: pair.value for pair in caller.status("keyframes").values}
    return {name: int(values[name]) for name in ("keyframes", "mapped")}


def published(caller: Caller) -> dict[str, int]:
    """How many messages came, but for those that only say that there are no frames any more."""
    heard = {topic: caller.heard[topic] for topic in UNPUBLISHED}
    return {topic: sum(bool(getattr(m, "transforms", True)) for m in some) for topic, some in heard.items()}


def assert_failed(outcome, code: ErrorCode) -> None:
    assert (outcome.code, outcome.status) == (code, GoalStatus.STATUS_ABORTED), outcome.result.error_msg
    assert finite_numbers(outcome.result) == []


# --- keyframes and pairs


def test_keyframes_are_named_by_time_and_by_id(caller: Caller, mapped: list[int]) -> None:
    goal = EstimateRelativePose.Goal(reference=captured(mapped[0]), target=captured(mapped[3] + S // 100))
    by_time = caller.ask(goal).result.relative_pose
    assert by_time.status == RelativePose.STATUS_ACCEPTED
    assert by_time.real_frames > 2  # their neighbours came along
    T_reference, T_target = (MAP[i].T_map_base @ T_BASE_CAMERA for i in (0, 3))
    expected = rigid.relative(T_reference, T_MAP_ODOM @ T_target)  # as the moody worker has it
    np.testing.assert_allclose(poses.to_matrix(by_time.pose.pose), expected, atol=1e-6)
    assert poses.from_stamp(by_time.reference_stamp) == mapped[0]
    assert poses.from_stamp(by_time.header.stamp) == mapped[3]

    ids = {"reference": by_time.reference_id, "target": by_time.target_id}
    named = {end: ViewMessage(keyframe_id=name) for end, name in ids.items()}
    by_id = caller.ask(EstimateRelativePose.Goal(**named)).result.relative_pose
    assert (by_id.reference_id, by_id.target_id) == tuple(ids.values())
    assert by_id.pose == by_time.pose

    frames = caller.heard["/tf_static"]
    assert until(lambda: frames and len(frames[-1].transforms) == 2)
    (first, second) = frames[-1].transforms
    assert (first.header.frame_id, first.child_frame_id) == ("map", f"pose_bridge/{ids['reference']}")
    assert (second.header.frame_id, second.child_frame_id) == (
        first.child_frame_id,
        f"pose_bridge/{ids['target']}",
    )
    np.testing.assert_allclose(poses.transform_to_matrix(first.transform), T_reference, atol=1e-6)

    goal.target = captured(mapped[3] + S // 4)
    assert_failed(caller.ask(goal), ErrorCode.UNKNOWN_KEYFRAME)


def nothing(*_: Any) -> None:
    pass


def kill_worker(node: NodeProcess, *_: Any) -> None:
    (worker,) = node.workers()
    os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize(
    ("mood", "happens", "code"),
    [
        ("rejects them", nothing, ErrorCode.NONE),
        ("guesses", nothing, ErrorCode.NONE),
        ("crash", nothing, ErrorCode.WORKER_DIED),
        ("hesitates", kill_worker, ErrorCode.WORKER_DIED),
        ("hesitates", lambda node, goal: goal.cancel(), ErrorCode.CANCELED),
    ],
    ids=["rejected", "guessed", "crashed", "killed", "cancelled"],
)
def test_only_an_accepted_answer_is_a_frame(
    node: NodeProcess,
    caller: Caller,
    mapped: list[int],
    mood: str,
    happens: Callable[[NodeProcess, Goal], None],
    code: ErrorCode,
) -> None:
    """Not even one that was accepted for a while, before it all went wrong."""
    topics = ("pose_bridge/relative_pose", "/tf_static")
    before = [len(caller.heard[topic]) for topic in topics]

    def news() -> list[int]:
        return [len(caller.heard[topic]) - count for topic, count in zip(topics, before, strict=True)]

    ends = {"reference": captured(mapped[0]), "target": captured(mapped[3])}
    node.mood(mood)
    goal = caller.send(EstimateRelativePose.Goal(**ends))
    accepted = RelativePose.STATUS_ACCEPTED
    assert until(lambda: goal.done or any(step.best_so_far.status == accepted for step in goal.feedback))
    happens(node, goal)
    outcome = goal.outcome()
    assert outcome.code is code
    assert outcome.result.relative_pose.status != accepted
    assert news() == [0, 0]

    node.mood("at_once")
    answer = caller.ask(EstimateRelativePose.Goal(**ends)).result.relative_pose
    assert answer.status == accepted
    assert until(lambda: all(news()))
    assert news() == [1, 1]  # what came late would have come before
    assert caller.heard["pose_bridge/relative_pose"][-1].target_id == answer.target_id
    assert caller.heard["/tf_static"][-1].transforms[-1].child_frame_id == answer.child_frame_id


def test_loop_closures(node: NodeProcess, caller: Caller, mapped: list[int]) -> None:
    answers = caller.heard["pose_bridge/loop_closures"]

    def ask(**known: Any) -> RelativePose:
        before = len(answers)
        ends = {"reference": captured(mapped[1]), "target": captured(mapped[5])}
        caller.say("pose_bridge/loop_closure_candidates", LoopClosureCandidate(**{**ends, **known}))
        assert until(lambda: len(answers) > before)
        return answers[-1]

    yes = ask()
    assert yes.status == RelativePose.STATUS_ACCEPTED
    assert poses.from_stamp(yes.reference_stamp) == mapped[1]
    node.mood("rejects them")
    assert (no := ask()).status == RelativePose.STATUS_REJECTED
    assert no.reason_text == "them"
    node.mood("crash")
    died = ask()
    node.mood("at_once")
    for known, reason in (
        ({"target": ViewMessage(keyframe_id="none")}, "no keyframe 'none'"),
        ({"use_prior": True, "prior": PoseWithCovariance()}, "covariance"),
    ):
        assert (none := ask(**known)).status == RelativePose.STATUS_NO_ESTIMATE
        assert reason in none.reason_text
        assert poses.from_stamp(none.reference_stamp) == mapped[1]  # whose answer it is
    assert died.status == RelativePose.STATUS_NO_ESTIMATE
    assert finite_numbers(died) == finite_numbers(none) == []
    assert none.target_id in ("none", "")

    assert caller.transition(Transition.TRANSITION_DEACTIVATE)
    assert "not active" in ask().reason_text
    assert caller.transition(Transition.TRANSITION_ACTIVATE)


# --- finding the robot


def test_kidnapped_and_found(caller: Caller, robot: Robot, kidnapped: list[int]) -> None:
    before = published(caller)
    outcome = caller.ask(Relocalize.Goal(wait_for_motion=False, publish=True, budget_s=60.0))
    assert outcome.code is ErrorCode.NONE, outcome.result.error_msg
    found = outcome.result
    assert (found.map_odom.header.frame_id, found.map_odom.child_frame_id) == ("map", "odom")
    np.testing.assert_allclose(poses.transform_to_matrix(found.map_odom.transform), T_MAP_ODOM, atol=1e-5)
    look = kidnapped.index(poses.from_stamp(found.pose.header.stamp))
    np.testing.assert_allclose(poses.to_matrix(found.pose.pose.pose), AT_A_LOOK[look], atol=1e-5)
    assert found.relative_pose.status == RelativePose.STATUS_ACCEPTED
    assert found.relative_pose.reference_id == found.keyframe_id

    assert until(lambda: len(caller.heard["pose_bridge/pose"]) == before["pose_bridge/pose"] + 1)
    assert until(lambda: len(caller.heard["initialpose"]) == before["initialpose"] + 1)
    initial = caller.heard["initialpose"][-1]
    assert poses.amcl_refusal(initial) == ""
    assert poses.from_stamp(initial.header.stamp) == robot.stamp_ns + S // 10  # moved to now, by odometry
    np.testing.assert_allclose(poses.to_matrix(initial.pose.pose), AT_A_LOOK[-1], atol=1e-5)

    held = caller.heard["/tf"]
    assert until(lambda: len(held) > before["/tf"] + 3)
    np.testing.assert_allclose(
        poses.transform_to_matrix(held[-1].transforms[0].transform), T_MAP_ODOM, atol=1e-5
    )
    carry_away(caller)
    time.sleep(0.2)
    silent = len(held)
    time.sleep(0.3)
    assert len(held) == silent  # where odometry lies in the map is no longer known


def test_what_is_not_asked_for_is_not_published(caller: Caller, kidnapped: list[int]) -> None:
    before = published(caller)
    assert caller.ask(Relocalize.Goal(wait_for_motion=False)).code is ErrorCode.NONE
    assert until(lambda: len(caller.heard["pose_bridge/pose"]) == before["pose_bridge/pose"] + 1)
    assert published(caller) == {**before, "pose_bridge/pose": before["pose_bridge/pose"] + 1}


def test_pictures_of_the_goal_itself(caller: Caller, kidnapped: list[int]) -> None:
    found = caller.ask(Relocalize.Goal(views=[captured(stamp_ns) for stamp_ns in kidnapped]))
    assert found.code is ErrorCode.NONE, found.result.error_msg
    twice = caller.ask(Relocalize.Goal(views=[captured(kidnapped[0])] * 2))
    assert_failed(twice, ErrorCode.BAD_REQUEST)
    cut_off = view(0, kidnapped[0])
    cut_off.image.data = cut_off.image.data[:100]
    assert_failed(caller.ask(Relocalize.Goal(views=[cut_off])), ErrorCode.BAD_IMAGE)


def break_odometry(node: NodeProcess, caller: Caller, robot: Robot) -> None:
    robot.move(standing(50.0, 0.0, 0.0), robot.stamp_ns + S // 5)


def turn_clock_back(node: NodeProcess, caller: Caller, robot: Robot) -> None:
    robot.move(AT_A_LOOK[-1], robot.stamp_ns - 20 * S)


def deactivate(node: NodeProcess, caller: Caller, robot: Robot) -> None:
    assert caller.transition(Transition.TRANSITION_DEACTIVATE)
    assert caller.transition(Transition.TRANSITION_ACTIVATE)


def reset(node: NodeProcess, caller: Caller, robot: Robot) -> None:
    assert caller.call("reset").success


@pytest.mark.parametrize(
    ("mood", "happens", "code"),
    [
        ("rejects you", nothing, ErrorCode.NOT_LOCALIZED),
        ("unexpected", nothing, ErrorCode.UNKNOWN),
        ("memory numpy", nothing, ErrorCode.OUT_OF_MEMORY),
        ("patiently", kill_worker, ErrorCode.WORKER_DIED),
        ("patiently", deactivate, ErrorCode.DEACTIVATED),
        ("patiently", reset, ErrorCode.DEACTIVATED),
        ("deaf 1", break_odometry, ErrorCode.STALE),
        ("deaf 1", turn_clock_back, ErrorCode.STALE),
    ],
)
def test_not_found_is_no_place(
    node: NodeProcess,
    caller: Caller,
    robot: Robot,
    kidnapped: list[int],
    mood: str,
    happens: Callable[[NodeProcess, Caller, Robot], None],
    code: ErrorCode,
) -> None:
    before = published(caller)
    node.mood(mood)
    goal = caller.send(Relocalize.Goal(wait_for_motion=False, publish=True))
    assert until(lambda: goal.done or any(step.state == step.BRIDGING for step in goal.feedback))
    happens(node, caller, robot)
    assert_failed(goal.outcome(), code)
    assert published(caller) == before


@pytest.mark.parametrize(
    ("mood", "state"),
    [
        ("patiently", "RETRIEVING"),
        ("patiently", "BRIDGING"),
        ("rejects you", "CHECKING"),
        ("rejects you", "WAITING_FOR_MOTION"),
    ],
)
def test_a_search_is_cancelled(
    node: NodeProcess, caller: Caller, robot: Robot, kidnapped: list[int], mood: str, state: str
) -> None:
    before = published(caller)
    goal = search_until(node, caller, mood, state)
    start_s = time.monotonic()
    goal.cancel()
    outcome = goal.outcome()
    assert time.monotonic() - start_s < SLACK_S
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
    assert finite_numbers(outcome.result) == []
    assert published(caller) == before


def search_until(node: NodeProcess, caller: Caller, mood: str, state: str) -> Goal:
    """A search that is, or just was, in a state, and does not end by itself."""
    node.mood(mood)
    goal = caller.send(Relocalize.Goal(budget_s=300.0, publish=True))
    assert until(lambda: any(step.state == getattr(step, state) for step in goal.feedback))
    return goal


def test_a_search_that_waits_ends_with_the_node(
    node: NodeProcess, caller: Caller, robot: Robot, kidnapped: list[int]
) -> None:
    before = published(caller)
    goal = search_until(node, caller, "rejects you", "WAITING_FOR_MOTION")
    deactivate(node, caller, robot)
    assert_failed(goal.outcome(), ErrorCode.DEACTIVATED)
    assert published(caller) == before


def test_it_waits_for_the_robot_to_move(
    node: NodeProcess, caller: Caller, robot: Robot, mapped: list[int]
) -> None:
    carry_away(caller)
    goal = caller.send(Relocalize.Goal(budget_s=60.0))
    assert until(lambda: any(step.advice == step.ADVICE_TURN for step in goal.feedback))
    look_around(caller, robot)
    assert goal.outcome().code is ErrorCode.NONE
    only = caller.ask(Relocalize.Goal(views=[captured(robot.stamp_ns)], wait_for_motion=False))
    assert (only.code, only.status) == (ErrorCode.NEED_MOTION, GoalStatus.STATUS_ABORTED)
    assert len(only.result.hypotheses) == 1  # a guess, and marked as one
    only.result.hypotheses = []
    assert finite_numbers(only.result) == []


def test_a_prior_that_cannot_be_meant(caller: Caller, kidnapped: list[int]) -> None:
    prior = PoseWithCovarianceStamped()
    prior.header.frame_id = "map"
    assert_failed(caller.ask(Relocalize.Goal(prior=prior)), ErrorCode.BAD_REQUEST)  # no covariance
    prior.pose.covariance = np.eye(6).ravel()
    assert caller.ask(Relocalize.Goal(prior=prior, wait_for_motion=False)).code is ErrorCode.NONE
    prior.header.frame_id = "odom"
    assert_failed(caller.ask(Relocalize.Goal(prior=prior)), ErrorCode.BAD_REQUEST)


# --- maps


def test_maps_are_saved_loaded_and_cleared(
    node: NodeProcess, caller: Caller, robot: Robot, mapped: list[int]
) -> None:
    def call(service: str, name: str) -> tuple[ErrorCode, int]:
        response = caller.call(service, MapFile.Request(name=name))
        assert bool(response.error_msg) == bool(response.error_code)
        return ErrorCode(response.error_code), response.keyframes

    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        assert call("save_map", "room") == (ErrorCode.STORAGE_FAILED, 0)  # as on a disk that is full
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert call("load_map", "room") == (ErrorCode.BAD_REQUEST, 0)  # not half a map either
    assert call("save_map", "room") == (ErrorCode.NONE, len(MAP))
    for name in ("", "..", "../room", "/room", "a/b"):
        assert call("save_map", name)[0] is ErrorCode.BAD_REQUEST
        assert call("load_map", name)[0] is ErrorCode.BAD_REQUEST
    assert caller.call("reset").success
    assert keyframes(caller) == {"keyframes": 0, "mapped": 0}
    assert call("save_map", "nothing") == (ErrorCode.NO_MAP, 0)
    assert_failed(caller.ask(Relocalize.Goal()), ErrorCode.NO_MAP)
    assert call("load_map", "room") == (ErrorCode.NONE, len(MAP))
    look_around(caller, robot)
    found = caller.ask(Relocalize.Goal(wait_for_motion=False))
    assert found.code is ErrorCode.NONE, found.result.error_msg
    assert caller.call("clear_map").success
    assert keyframes(caller) == {"keyframes": LOOKS, "mapped": 0}
    assert_failed(caller.ask(Relocalize.Goal()), ErrorCode.NO_MAP)


def test_a_map_pose_that_cannot_be_meant(caller: Caller, robot: Robot) -> None:
    assert set_map_pose(caller, np.eye(4), "map", "base_link").error_code == ErrorCode.BAD_REQUEST
    assert set_map_pose(caller, np.eye(4), "odom", "map").error_code == ErrorCode.BAD_REQUEST
    request = SetMapPose.Request()
    request.map_odom.header.frame_id, request.map_odom.child_frame_id = "map", "odom"
    for broken in (math.nan, 0.0):
        request.map_odom.transform.rotation.w = broken
        assert caller.call("set_map_pose", request).error_code == ErrorCode.BAD_REQUEST


# --- what comes on topics


def damaged(**fields: Any) -> Any:
    message = image(3)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (damaged(data=bytes(50)), "cut off"),
        (damaged(step=7), "step"),
        (damaged(encoding="rgb5"), "rgb5"),
        (damaged(height=0), ""),
    ],
)
def test_pictures_that_cannot_be_used(caller: Caller, robot: Robot, picture: Any, said: str) -> None:
    def told() -> bool:
        robot.step(standing(0, 0, 0), 0, picture)
        return said in caller.status("image").message and caller.status("image").level != b"\0"

    assert until(told, every_s=0.2)
    drive_until_kept(caller, robot)


@pytest.mark.parametrize(
    ("fields", "topic", "said"),
    [
        ({"k": [math.nan] * 9}, "camera_info", "K"),
        ({"width": 640, "height": 480}, "image", "640"),
    ],
)
def test_calibrations_that_cannot_be_used(
    caller: Caller, robot: Robot, fields: dict[str, Any], topic: str, said: str
) -> None:
    good = {name: getattr(robot.info, name) for name in fields}
    try:
        for name, value in fields.items():
            setattr(robot.info, name, value)

        def told() -> bool:  # a picture may still meet the calibration of before
            robot.step(standing(0, 0, 0), 0)
            return caller.status(topic).level == b"\2" and said in caller.status(topic).message

        assert until(told, every_s=0.2)
    finally:
        for name, value in good.items():
            setattr(robot.info, name, value)
    drive_until_kept(caller, robot)


def test_clocks_that_differ(caller: Caller, robot: Robot) -> None:
    robot.step(standing(0, 0, 0), 0)
    ahead = image(1, robot.stamp_ns + 5 * S)
    caller.say("image", ahead)
    assert until(lambda: "synchronize the clocks" in caller.status("image").message)
    assert_failed(caller.ask(Relocalize.Goal(wait_for_motion=False)), ErrorCode.NO_MAP)
    drive_until_kept(caller, robot)


def test_a_clock_that_goes_back(caller: Caller, robot: Robot, mapped: list[int]) -> None:
    """As when a recording starts again: what was seen by the old clock stays, and is another stretch."""
    end_ns = robot.stamp_ns
    robot.stamp_ns = mapped[0] - 50 * S
    robot.move(standing(0, 0, 0), robot.stamp_ns)
    assert until(lambda: "the clock went back" in last_log(caller))  # pictures on their way are dropped
    again = [robot.step(place.T_map_base, 50 + seed) for seed, place in enumerate(MAP[:3])]
    robot.stamp_ns = end_ns + S
    are_kept(caller, again)
    assert keyframes(caller) == {"keyframes": len(MAP) + 3, "mapped": len(MAP)}
    goal = EstimateRelativePose.Goal(reference=captured(mapped[0]), target=captured(again[1]))
    outcome = caller.ask(goal)
    assert outcome.result.relative_pose.status == RelativePose.STATUS_ACCEPTED


def test_odometry_that_is_no_pose(caller: Caller, robot: Robot) -> None:
    message = odometry(np.eye(4), robot.stamp_ns + S)
    message.pose.pose.orientation.w = math.nan
    caller.say("odom", message)
    assert until(lambda: caller.status("odom").level != b"\0" and caller.status("odom").message)
    drive_until_kept(caller, robot)


def test_markers_for_who_comes_late(caller: Caller, mapped: list[int]) -> None:
    heard = caller.hear(MarkerArray, "pose_bridge/markers", LATCHED)
    assert until(lambda: heard)
    assert sum(len(marker.points) for marker in heard[-1].markers) >= len(MAP)
    assert {marker.header.frame_id for marker in heard[-1].markers if marker.points} <= {"map", "odom"}
