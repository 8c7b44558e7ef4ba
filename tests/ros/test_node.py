# SPDX-License-Identifier: Apache-2.0
"""Goals of a node in a process of its own: what goes wrong has a name, and the next goal is answered."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from installed import require_ros

require_ros()

from action_msgs.msg import GoalStatus  # noqa: E402
from geometry_msgs.msg import PoseWithCovariance, PoseWithCovarianceStamped  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from robot_world import CAMERA  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import (  # noqa: E402
    SLACK_S,
    Caller,
    NodeProcess,
    calling,
    is_gone,
    pair,
    until,
    view,
)
from ros_numbers import finite_numbers  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from pose_bridge.action import EstimateRelativePose, Relocalize  # noqa: E402
from pose_bridge.errors import ErrorCode  # noqa: E402
from pose_bridge.geometry import rigid  # noqa: E402
from pose_bridge.msg import RelativePose  # noqa: E402
from pose_bridge.msg import View as ViewMessage  # noqa: E402
from pose_bridge.ros import cameras, images, poses  # noqa: E402
from pose_bridge.views import Reason, Stage  # noqa: E402

T_REFERENCE_TARGET = rigid.se3_exp([0.5, -0.2, 0.1, 0.1, 0.8, -0.1])  # as the moody worker has it
MAX_WAITING = 4
STALL_S = 4.0  # frozen is told from busy, also on a busy machine


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One for all tests here: what one does to it must not be seen by the next."""
    settings = {
        "goals.max_waiting": MAX_WAITING,
        "worker.stall_s": STALL_S,
        "worker.memory_gib": 2.0,
        "worker.kill_grace_s": 30.0,
    }
    process = NodeProcess(tmp_path_factory.mktemp("node"), free_domain(), settings)
    yield process
    workers = process.workers()
    assert process.end() == 0
    assert until(lambda: all(map(is_gone, workers)))


@pytest.fixture(scope="module")
def caller(node: NodeProcess) -> Iterator[Caller]:
    with calling(node) as caller:
        yield caller


@pytest.fixture(autouse=True)
def next_goal_is_answered(node: NodeProcess, caller: Caller) -> Iterator[None]:
    """After every test: it is the same node, and right again."""
    node.mood("at_once")
    yield
    node.mood("at_once")
    assert_answered(caller.ask(pair()))
    assert caller.settled()
    assert node.process.poll() is None


def assert_answered(outcome) -> None:
    assert outcome.status == GoalStatus.STATUS_SUCCEEDED
    assert outcome.code is ErrorCode.NONE
    assert outcome.result.relative_pose.status == RelativePose.STATUS_ACCEPTED
    found = poses.to_matrix(outcome.result.relative_pose.pose.pose)
    np.testing.assert_allclose(found, T_REFERENCE_TARGET, atol=1e-9)


def assert_failed(outcome, code: ErrorCode) -> None:
    assert (outcome.code, outcome.status) == (code, GoalStatus.STATUS_ABORTED), outcome.result.error_msg
    assert finite_numbers(outcome.result) == []


def same(a: RelativePose, b: RelativePose) -> bool:
    """Whether two messages are one; NaN is NaN."""
    return bytes(serialize_message(a)) == bytes(serialize_message(b))


def broken(goal: EstimateRelativePose.Goal, path: str, value: object) -> EstimateRelativePose.Goal:
    """The goal with one thing in it changed."""
    *parts, last = path.split(".")
    target = goal
    for part in parts:
        target = getattr(target, part)
    setattr(target, last, value)
    return goal


# --- answers


def test_an_answer_is_published(caller: Caller) -> None:
    heard = caller.heard["pose_bridge/relative_pose"]
    before = len(heard)
    outcome = caller.ask(pair(seed=7))
    assert_answered(outcome)
    assert until(lambda: len(heard) > before)
    message = outcome.result.relative_pose
    assert same(heard[-1], message)
    assert until(lambda: same(caller.heard["pose_bridge/relative_pose_audit"][-1], message))
    assert (message.header.frame_id, message.child_frame_id) == (
        "pose_bridge/reference",
        "pose_bridge/target",
    )
    assert (message.reference_stamp.sec, message.header.stamp.sec) == (1, 2)
    assert message.reference_camera_frame_id == message.target_camera_frame_id == "camera"


def test_steps_are_told_as_they_begin(node: NodeProcess, caller: Caller) -> None:
    """While the goal runs: what comes with the result, a client of ROS may leave out."""
    node.mood("patiently")
    goal = caller.send(pair())
    assert until(lambda: goal.feedback and goal.feedback[-1].stage == Stage.CONTEXT)
    assert [step.stage for step in goal.feedback] == [Stage.NONE, Stage.CONTEXT]
    elapsed_s = [step.elapsed_s for step in goal.feedback]
    assert elapsed_s == sorted(elapsed_s)
    goal.cancel()
    assert goal.outcome().status == GoalStatus.STATUS_CANCELED


@pytest.mark.parametrize("mood", ["rejects you", "guesses"])
def test_no_is_an_answer(node: NodeProcess, caller: Caller, mood: str) -> None:
    node.mood(mood)
    outcome = caller.ask(pair())
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.NONE)
    assert outcome.result.relative_pose.status == RelativePose.STATUS_REJECTED
    assert outcome.result.relative_pose.reason == Reason.WEAK_BRIDGE
    audit = caller.heard["pose_bridge/relative_pose_audit"]
    assert until(lambda: audit and same(audit[-1], outcome.result.relative_pose))


def test_a_hypothesis_is_for_who_asks_and_for_no_topic(node: NodeProcess, caller: Caller) -> None:
    node.mood("guesses")
    result = caller.wait(caller.send(pair(allow_hypothesis=True)).handle.get_result_async()).result
    assert result.relative_pose.status == RelativePose.STATUS_HYPOTHESIS
    np.testing.assert_allclose(poses.to_matrix(result.relative_pose.pose.pose), T_REFERENCE_TARGET, atol=1e-9)


def test_the_best_so_far_is_told_and_taken_back_by_a_cancel(node: NodeProcess, caller: Caller) -> None:
    node.mood("hesitates")
    goal = caller.send(pair())
    accepted = RelativePose.STATUS_ACCEPTED
    assert until(lambda: goal.feedback and goal.feedback[-1].best_so_far.status == accepted)
    goal.cancel()
    outcome = goal.outcome()
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
    assert finite_numbers(outcome.result) == []


# --- goals that cannot be meant

RUBBISH = CompressedImage(format="jpeg", data=bytes(range(256)) * 4)
NO_K = [math.nan] * 9
ROUND = cameras.to_camera_info(CAMERA)
ROUND.distortion_model, ROUND.d = "round", [0.1] * 5
NO_ROTATION = PoseWithCovarianceStamped()
NO_ROTATION.header.frame_id, NO_ROTATION.pose.pose.orientation.w = "odom", 0.0
SMALL_DEPTH = images.encode_depth(np.ones((2, 2), np.float32))
WRONG = {
    "budget NaN": (("budget_s", math.nan), ErrorCode.BAD_REQUEST),
    "budget negative": (("budget_s", -1.0), ErrorCode.BAD_REQUEST),
    "probability 2": (("min_probability", 2.0), ErrorCode.BAD_REQUEST),
    "probability NaN": (("min_probability", math.nan), ErrorCode.BAD_REQUEST),
    "stage 9": (("max_stage", 9), ErrorCode.BAD_REQUEST),
    "require 7": (("require", 7), ErrorCode.BAD_REQUEST),
    "prior without covariance": (("use_prior", True), ErrorCode.BAD_REQUEST),
    "nothing": (("target", ViewMessage()), ErrorCode.BAD_REQUEST),
    "unknown keyframe": (("target", ViewMessage(keyframe_id="none")), ErrorCode.UNKNOWN_KEYFRAME),
    "cut off": (("target.image.data", bytes(100)), ErrorCode.BAD_IMAGE),
    "wrong step": (("target.image.step", 7), ErrorCode.BAD_IMAGE),
    "unknown encoding": (("target.image.encoding", "rgb5"), ErrorCode.BAD_IMAGE),
    "not even text": (("target.image.encoding", ""), ErrorCode.BAD_IMAGE),
    "no size": (("target.image.height", 0), ErrorCode.BAD_IMAGE),
    "huge": (("target.image.height", 2**32 - 1), ErrorCode.BAD_IMAGE),
    "K of NaN": (("target.camera_info.k", NO_K), ErrorCode.BAD_CAMERA),
    "no K": (("target.camera_info.k", [0.0] * 9), ErrorCode.BAD_CAMERA),
    "another size": (("target.camera_info.width", 640), ErrorCode.BAD_CAMERA),
    "distortion NaN": (("target.camera_info.d", [math.nan] * 5), ErrorCode.BAD_CAMERA),
    "distortion unknown": (("target.camera_info", ROUND), ErrorCode.BAD_CAMERA),
    "rubbish": (("target.compressed_image", RUBBISH), ErrorCode.BAD_IMAGE),
    "pose without rotation": (("target.camera_pose", NO_ROTATION), ErrorCode.BAD_REQUEST),
    "depth of another size": (("target.depth", SMALL_DEPTH), ErrorCode.BAD_REQUEST),
    "depth in colour": (("target.depth", view().image), ErrorCode.BAD_IMAGE),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_meant_is_refused(caller: Caller, what: str) -> None:
    (path, value), code = WRONG[what]
    goal = pair()
    if path == "target.compressed_image":
        goal.target.image = Image()
    assert_failed(caller.ask(broken(goal, path, value)), code)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("NaN", lambda prior: setattr(prior.pose.position, "x", math.nan)),
        ("no quaternion", lambda prior: setattr(prior.pose.orientation, "w", 0.3)),
        ("negative", lambda prior: setattr(prior, "covariance", -np.eye(6).ravel())),
        ("zero", lambda prior: setattr(prior, "covariance", np.zeros(36))),
    ],
)
def test_a_prior_that_is_none_is_refused(caller: Caller, what: str, change) -> None:
    prior = PoseWithCovariance(covariance=np.eye(6).ravel())
    change(prior)
    assert_failed(caller.ask(pair(use_prior=True, prior=prior)), ErrorCode.BAD_REQUEST)


def test_a_bad_picture_in_the_context_is_named(caller: Caller) -> None:
    bad = broken(pair(), "target.image.step", 1).target
    outcome = caller.ask(pair(reference_context=[view(3), bad]))
    assert_failed(outcome, ErrorCode.BAD_IMAGE)
    assert "reference_context_1" in outcome.result.error_msg


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ({"budget_s": math.nan}, ErrorCode.BAD_REQUEST),
        ({"budget_s": -1.0}, ErrorCode.BAD_REQUEST),
        ({"min_probability": 2.0}, ErrorCode.BAD_REQUEST),
        ({"min_probability": math.nan}, ErrorCode.BAD_REQUEST),
        ({"prior": "map"}, ErrorCode.BAD_REQUEST),
        ({"prior": "elsewhere"}, ErrorCode.BAD_REQUEST),
        ({"views": [view()]}, ErrorCode.NO_VIEWS),
        ({"views": [ViewMessage(keyframe_id="none")]}, ErrorCode.BAD_REQUEST),
        ({}, ErrorCode.NO_MAP),
    ],
)
def test_the_robot_is_not_looked_for_without_sense(caller: Caller, known: dict, code: ErrorCode) -> None:
    if "prior" in known:
        guess = PoseWithCovarianceStamped()
        guess.header.frame_id = known["prior"]
        known = {"prior": guess}
    assert_failed(caller.ask(Relocalize.Goal(**known)), code)


# --- many at once, and cancels


def test_of_ten_at_once_some_are_told_to_come_back(node: NodeProcess, caller: Caller) -> None:
    node.mood("patiently")
    goals = [caller.send(pair(seed=seed)) for seed in range(10)]
    assert until(lambda: sum(goal.done for goal in goals) == 10 - MAX_WAITING)
    for goal in goals:
        if goal.done:
            assert_failed(goal.outcome(), ErrorCode.BUSY)
        else:
            goal.cancel()
    codes = [goal.outcome().code for goal in goals]
    assert codes.count(ErrorCode.CANCELED) == MAX_WAITING


def test_goals_wait_for_their_turn(node: NodeProcess, caller: Caller) -> None:
    node.mood("deaf 0.3")
    goals = [caller.send(pair(seed=seed)) for seed in range(MAX_WAITING)]
    for goal in goals:
        assert_answered(goal.outcome())


MOODS = ["patiently", "deaf 1", "greedy 1", "hesitates"]


@pytest.mark.parametrize("mood", MOODS)
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.2])
def test_cancelled_whatever_it_does(node: NodeProcess, caller: Caller, mood: str, delay_s: float) -> None:
    node.mood(mood)
    goal = caller.send(pair())
    time.sleep(delay_s)
    start_s = time.monotonic()
    outcome = goal.cancel() or goal.outcome()
    assert time.monotonic() - start_s < SLACK_S
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
    assert finite_numbers(outcome.result) == []


def test_cancelled_while_it_waits_for_its_turn(node: NodeProcess, caller: Caller) -> None:
    node.mood("patiently")
    first, second = caller.send(pair()), caller.send(pair(seed=1))
    assert first.runs()
    second.cancel()
    assert second.outcome().code is ErrorCode.CANCELED
    assert not first.done
    first.cancel()
    assert first.outcome().code is ErrorCode.CANCELED


def test_a_cancel_that_comes_too_late_is_no_harm(caller: Caller) -> None:
    goal = caller.send(pair())
    assert_answered(goal.outcome())
    goal.cancel()


def test_a_budget_without_an_end(caller: Caller) -> None:
    assert_answered(caller.ask(pair(budget_s=math.inf)))


def test_a_caller_that_leaves_takes_nothing_along(node: NodeProcess, caller: Caller) -> None:
    node.mood("deaf 0.5")
    stranger = Caller(node.domain)
    stranger.send(pair())
    stranger.close()
    caller.accepted["pose_bridge/relative_pose"] += 1


# --- a worker that misbehaves

FAULTS = {
    "memory numpy": ErrorCode.OUT_OF_MEMORY,
    "memory CUDA out of memory.": ErrorCode.OUT_OF_MEMORY,
    "crash": ErrorCode.WORKER_DIED,
    "writes noise": ErrorCode.WORKER_DIED,
    "writes pickle": ErrorCode.WORKER_DIED,
    "writes no-pose": ErrorCode.WORKER_DIED,
    "writes no-such-error": ErrorCode.WORKER_DIED,
    "unexpected": ErrorCode.UNKNOWN,
    "odd": ErrorCode.UNKNOWN,
    "bad_image": ErrorCode.BAD_IMAGE,
}


@pytest.mark.parametrize("mood", FAULTS)
def test_what_the_worker_does_wrong_has_a_name(node: NodeProcess, caller: Caller, mood: str) -> None:
    node.mood(mood)
    assert_failed(caller.ask(pair()), FAULTS[mood])


def test_what_the_worker_prints_is_no_answer(node: NodeProcess, caller: Caller) -> None:
    node.mood("prints")
    assert_answered(caller.ask(pair()))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, ErrorCode.WORKER_DIED), (signal.SIGSTOP, ErrorCode.WORKER_STALLED)],
)
def test_a_worker_that_is_killed_or_frozen(
    node: NodeProcess, caller: Caller, number: int, code: ErrorCode
) -> None:
    node.mood("patiently")
    goal = caller.send(pair())
    assert until(lambda: len(goal.feedback) > 1)
    (worker,) = node.workers()
    os.kill(worker, number)
    assert_failed(goal.outcome(), code)
    assert until(lambda: is_gone(worker))
    node.mood("at_once")
    assert_answered(caller.ask(pair()))
    assert until(lambda: "ready again after a failure" in caller.status("worker").message)


@pytest.mark.parametrize("mood", ["mumbles", "stammers"])
def test_text_that_is_no_unicode_is_told_as_far_as_it_goes(
    node: NodeProcess, caller: Caller, mood: str
) -> None:
    node.mood(mood)
    result = caller.ask(pair()).result
    assert "? as it is" in result.relative_pose.reason_text + result.error_msg


def test_failures_are_counted(caller: Caller) -> None:
    def count() -> float:
        status = caller.status("goals")
        return next((float(v.value) for v in status.values if v.key == "ended: BAD_REQUEST"), 0.0)

    assert until(lambda: caller.status("goals"))
    before = count()
    assert_failed(caller.ask(pair(max_stage=9)), ErrorCode.BAD_REQUEST)
    assert until(lambda: count() > before)
