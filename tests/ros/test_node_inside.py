# SPDX-License-Identifier: Apache-2.0
"""Exceptions where nobody expects them: the node in this process, so that they can be put there."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import require_ros

require_ros()

import rclpy  # noqa: E402
from action_msgs.msg import GoalStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from robot_world import MAP, SEEN, Oracle, standing  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import LONG_S, QUICK, Caller, Robot, S, pair, until, view  # noqa: E402
from ros_numbers import finite_numbers  # noqa: E402
from std_msgs.msg import Empty  # noqa: E402

from pose_bridge.action import Relocalize  # noqa: E402
from pose_bridge.control import Control  # noqa: E402
from pose_bridge.errors import ErrorCode, NoMapError, StaleError  # noqa: E402
from pose_bridge.keyframes.keyframe import Keyframe  # noqa: E402
from pose_bridge.msg import LoopClosureCandidate, RelativePose  # noqa: E402
from pose_bridge.relocalization import Attempt, Hypothesis, Progress, State  # noqa: E402
from pose_bridge.ros.executor import NodeExecutor  # noqa: E402
from pose_bridge.ros.goals import Task  # noqa: E402
from pose_bridge.ros.node import SERVICE_THREADS, PoseBridgeNode  # noqa: E402
from pose_bridge.ros.outlet import Feedback  # noqa: E402
from pose_bridge.srv import MapFile  # noqa: E402
from pose_bridge.views import Answer, Question, Reason, Status  # noqa: E402

EXPECTED = "? nobody expects this"
ENDED = {
    "cancelled": (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED),
    "deactivated": (GoalStatus.STATUS_ABORTED, ErrorCode.DEACTIVATED),
}
UNEXPECTED = "\ud800 nobody expects this"  # and it is no text that could be sent or logged as it is


class Nobody:
    """A bridge that knows nothing."""

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        return Answer.rejected(Reason.NO_OVERLAP, "as ever")


class SurpriseError(Exception):
    pass


def surprise(*_: Any, **__: Any) -> Any:
    raise SurpriseError(UNEXPECTED)


@pytest.fixture(scope="module")
def domain() -> int:
    return free_domain()


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoseBridgeNode]:
    folder: Path = tmp_path_factory.mktemp("node")
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    settings = {**QUICK, "map.directory": str(folder), "image.reliability": "reliable"}
    node = PoseBridgeNode(
        context=context, parameter_overrides=[Parameter(name, value=v) for name, v in settings.items()]
    )
    executor = NodeExecutor(SERVICE_THREADS, context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() is TransitionCallbackReturn.SUCCESS
    node._session.bridge = Nobody()
    yield node
    node.close()
    executor.shutdown()
    thread.join()
    node.destroy_node()
    context.shutdown()


@pytest.fixture(scope="module")
def caller(domain: int, node: PoseBridgeNode) -> Iterator[Caller]:
    caller = Caller(domain)
    yield caller
    caller.check()
    caller.close()


@pytest.fixture(autouse=True)
def next_goal_is_answered(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()
    outcome = caller.ask(pair())
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.NONE)
    assert outcome.result.relative_pose.reason_text == "as ever"


def of(node: PoseBridgeNode, path: str) -> tuple[Any, str]:
    *parts, last = path.split(".")
    owner: Any = node
    for part in parts:
        owner = getattr(owner, part)
    return owner, last


PATHS = [
    "_requests.question",
    "_session.bridge.answer",
    "_outlet.answered",
    "_outlet.message",
    "_goals.run",
    "_health.answered",
]


@pytest.mark.parametrize("path", PATHS)
def test_whatever_is_raised_ends_in_a_code(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(*of(node, path), surprise)
    outcome = caller.ask(pair())
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_ABORTED, ErrorCode.UNKNOWN)
    assert finite_numbers(outcome.result) == []
    assert outcome.result.error_msg == EXPECTED


@pytest.mark.parametrize("path", ["_health.failed_goal", "_complain", "_outlet.hypotheses"])
def test_also_while_a_failure_is_noted(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(*of(node, path), surprise)
    outcome = caller.ask(Relocalize.Goal())
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NO_MAP)
    assert finite_numbers(outcome.result) == []


@pytest.mark.parametrize("error", [SurpriseError(UNEXPECTED), MemoryError(), NoMapError(UNEXPECTED)])
def test_searches_and_services_too(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    for name in ("relocalize", "save_map", "clear_map"):
        monkeypatch.setattr(node._session, name, fail)
    outcome = caller.ask(Relocalize.Goal())
    assert outcome.status == GoalStatus.STATUS_ABORTED
    assert finite_numbers(outcome.result) == []
    code = caller.call("save_map", MapFile.Request(name="room")).error_code
    assert code == outcome.code == (ErrorCode.NO_MAP if isinstance(error, NoMapError) else ErrorCode.UNKNOWN)
    cleared = caller.call("clear_map")
    assert not cleared.success
    assert cleared.message


def test_a_candidate_is_answered_whatever_happens(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = caller.heard["pose_bridge/loop_closures"]
    monkeypatch.setattr(node._session.bridge, "answer", surprise)
    before = len(answers)
    caller.say("pose_bridge/loop_closure_candidates", LoopClosureCandidate(reference=view(1), target=view(2)))
    assert until(lambda: len(answers) > before)
    assert answers[-1].status == RelativePose.STATUS_NO_ESTIMATE
    assert answers[-1].reason_text == EXPECTED
    assert finite_numbers(answers[-1]) == []


@pytest.mark.parametrize(
    ("path", "callback"),
    [
        ("_intake.image", "image"),
        ("_intake.camera_info", "camera_info"),
        ("_session.move", "odom"),
        ("_session.see", "odom"),  # which a picture waits for
        ("_session.kidnapped", "kidnapped"),
        ("_whereabouts.follow_tf", "_idle"),
        ("_outlet.draw", "_report"),
    ],
)
def test_what_a_callback_raises_is_reported(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch, path: str, callback: str
) -> None:
    failed: list[str] = []
    report = node._health.failed

    def listen(name: str, error: Exception) -> None:
        failed.append(name)
        report(name, error)

    monkeypatch.setattr(node._health, "failed", listen)
    monkeypatch.setattr(*of(node, path), surprise)
    robot = Robot(caller)

    def is_reported() -> bool:
        robot.step(standing(0, 0, 0), 1)
        caller.say("pose_bridge/kidnapped", Empty())
        return callback in failed

    assert until(is_reported)


def test_a_strip_that_cannot_be_drawn_takes_no_answer_back(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node._outlet, "show", surprise)
    outcome = caller.ask(pair())
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.NONE)


@pytest.mark.parametrize(("age_s", "why"), [(1000.0, "1000 s old"), (1.0, "odometry broke")])
def test_a_place_that_is_stale_is_not_published(
    node: PoseBridgeNode, monkeypatch: pytest.MonkeyPatch, age_s: float, why: str
) -> None:
    found, said = localized(SEEN[0]), []
    monkeypatch.setattr(node._outlet, "_now_ns", lambda: int(SEEN[0].stamp_ns + age_s * S))
    for name in ("_pose", "_initialpose"):
        monkeypatch.setattr(getattr(node._outlet, name), "publish", said.append)
    with pytest.raises(StaleError, match=why):
        node._outlet.localized(found, publish=True)
    assert said == []


def localized(view: Keyframe) -> Hypothesis:
    answer = Answer(status=Status.ACCEPTED, _T_reference_target=np.eye(4), _covariance=np.eye(6))
    return Hypothesis(
        (
            Attempt(
                question=Question(reference=MAP[0].view(), target=view.view()),
                answer=answer,
                keyframe=MAP[0],
                view=view,
                T_map_base=np.eye(4),
                covariance=np.eye(6),
                map_ids=(),
                view_ids=(),
            ),
        )
    )


def test_log_and_diagnostics_name_it(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a character in a text would otherwise silence them, too."""
    text = "\ud800 only here"

    def fail(*_: Any) -> None:
        raise SurpriseError(text)

    monkeypatch.setattr(node._whereabouts, "follow_tf", fail)
    assert until(lambda: any("? only here" in each.msg for each in caller.heard["/rosout"]))
    assert until(lambda: (status := caller.status("node")) and "? only here" in status.message)


@pytest.fixture
def lost(node: PoseBridgeNode, caller: Caller) -> Iterator[None]:
    """A map, and what the robot has just seen since nobody knows where it is."""
    session, now_ns = node._session, time.time_ns()
    session.kidnapped()
    session.move(now_ns, SEEN[-1].T_odom_base)
    epoch = session.odometry.epoch
    places = [dataclasses.replace(place, epoch=epoch - 1) for place in MAP]
    seen = [dataclasses.replace(keyframe, epoch=epoch, stamp_ns=now_ns) for keyframe in SEEN]
    session.keyframes.replace([*places, *seen])
    yield
    session.keyframes.clear()
    if caller.state() == "inactive":
        assert caller.transition(Transition.TRANSITION_ACTIVATE)


@pytest.mark.parametrize("how", ["cancelled", "deactivated"])
@pytest.mark.parametrize(
    ("state", "bridge"),
    [
        *(pytest.param(state, Nobody, id=state.name) for state in State),
        pytest.param(State.CHECKING, Oracle, id="found"),
    ],
)
def test_a_search_ends_in_whatever_state_it_is(
    node: PoseBridgeNode,
    caller: Caller,
    lost: None,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    bridge: type,
    how: str,
) -> None:
    """Which is held there until the node has heard of it."""
    reached, heard = threading.Event(), threading.Event()
    tell = Feedback.search

    def search(feedback: Feedback, progress: Progress) -> None:
        tell(feedback, progress)
        if progress.state is state:
            reached.set()
            heard.wait(LONG_S)

    monkeypatch.setattr(Feedback, "search", search)
    monkeypatch.setattr(node._session, "bridge", bridge())
    topics = ("pose_bridge/pose", "initialpose")
    before = [len(caller.heard[topic]) for topic in topics]
    goal = caller.send(Relocalize.Goal(budget_s=60.0, publish=True))
    assert reached.wait(LONG_S)
    if how == "cancelled":
        goal.cancel()
    else:
        assert caller.transition(Transition.TRANSITION_DEACTIVATE)
    heard.set()
    outcome = goal.outcome()
    assert (outcome.status, outcome.code) == ENDED[how]
    assert finite_numbers(outcome.result) == []
    assert [len(caller.heard[topic]) for topic in topics] == before


@pytest.mark.parametrize("what", ["answered", "failed", "cancelled"])
def test_pictures_are_let_go_with_their_goal(
    node: PoseBridgeNode, caller: Caller, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """At once, not when the garbage collector comes by."""
    held: list[weakref.ref] = []

    def answer(question: Question, control: Control) -> Answer:
        held.append(weakref.ref(question.target.image))
        control.step("context: matching")
        if what == "failed":
            raise NoMapError(EXPECTED)  # one that is logged with its stack would be held by pytest
        while what == "cancelled":
            control.check()
        return Answer.rejected(Reason.NO_OVERLAP, "as ever")

    monkeypatch.setattr(node._session.bridge, "answer", answer)
    monkeypatch.setattr(node._goals, "_work", listening(node._goals._work, held))
    gc.collect()
    gc.disable()
    try:
        goal = caller.send(pair())
        assert until(lambda: goal.feedback)
        if what == "cancelled":
            goal.cancel()
        goal.outcome()
        assert len(held) == 2
        assert until(lambda: all(each() is None for each in held))
    finally:
        gc.enable()


def listening(work: Callable[..., None], held: list[weakref.ref]) -> Callable[..., None]:
    """Goals' work, of which every task is noted."""

    def note(task: Task, *rest: Any) -> None:
        held.append(weakref.ref(task))
        work(task, *rest)

    return note


def test_a_background_task_that_fails_is_no_harm(
    node: PoseBridgeNode, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    assert node._goals.in_background(surprise)
    assert until(lambda: "in the background" in caplog.text)
