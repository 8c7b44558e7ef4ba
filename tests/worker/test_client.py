# SPDX-License-Identifier: Apache-2.0
"""Real processes: the worker misbehaves, the caller hears of it, and the next question is answered."""

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from worker import fake_worker
from worker.same import assert_same

from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import (
    BadImageError,
    CancelledError,
    DeactivatedError,
    NoEstimateError,
    NotActiveError,
    OutOfMemoryError,
    PoseBridgeError,
    WorkerDiedError,
    WorkerStalledError,
)
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Answer, Question, Reason, View
from pose_bridge.worker import WorkerClient, WorkerState
from pose_bridge.worker.client import Backoff

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_worker.py")
CAMERA = Camera.from_focal_px(50.0, 80, 60)
SLACK_S = 1.0  # half a second is promised; the machine may be busy
AT_ONCE = "at_once"
SEEDS = itertools.count()


def ask(what: str = AT_ONCE, **known: object) -> Question:
    """A question, new each time, that makes the fake bridge do something."""
    rng = np.random.default_rng(next(SEEDS))
    views = [
        View(id=name, image=rng.integers(0, 256, (60, 80, 3), np.uint8), camera=CAMERA)
        for name in ("reference", what, "context")
    ]
    return Question(
        reference=views[0],
        target=views[1],
        target_context=(views[2],),
        **{"seed": next(SEEDS), "budget_s": 30.0, **known},
    )


def fake_python(folder: Path, *how: str) -> str:
    """An interpreter that runs the fake worker, whatever it is told to run."""
    script = folder / "python"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "{FAKE}" {" ".join(how)} "$2"\n'
    )
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerClient]:
    """One for all tests with these settings: what one does to it must not be seen by the next."""
    executable = fake_python(tmp_path_factory.mktemp("worker"))
    with WorkerClient(configured(python_executable=executable, memory_gib=1.0)) as client:
        yield client
        pid = client.pid
    assert is_gone(pid)


Start = Callable[..., WorkerClient]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker with other settings, and stops it after the test."""
    clients = []

    def start(*how: str, **settings: object) -> WorkerClient:
        clients.append(WorkerClient(configured(python_executable=fake_python(tmp_path, *how), **settings)))
        clients[-1].start()
        return clients[-1]

    yield start
    for client in clients:
        pid = client.pid
        client.stop()
        assert is_gone(pid)


def configured(**settings: object) -> Config:
    quick = {"restart_delay_s": 0.05, "heartbeat_s": 0.05, "nice": 0, "threads": 1}
    return Config.from_dict({"worker": quick | settings})


def is_gone(pid: int | None) -> bool:
    """Whether there is no such process any more, or only what its parent has not fetched."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.01)


def assert_answers(client: WorkerClient) -> None:
    question = ask()
    assert_same(client.answer(question), fake_worker.answer(question))


class Asking:
    """A question asked in a thread of its own."""

    def __init__(self, client: WorkerClient, question: Question) -> None:
        self.cancelled = threading.Event()
        self.steps: list[str] = []
        self.outcome: Answer | Exception | None = None
        self._control = Control(self.cancelled, self.steps.append)
        self._thread = threading.Thread(target=self._ask, args=[client, question])
        self._thread.start()

    def _ask(self, client: WorkerClient, question: Question) -> None:
        try:
            self.outcome = client.answer(question, self._control)
        except PoseBridgeError as error:
            self.outcome = error

    def end(self, within_s: float = 20.0) -> Answer | Exception | None:
        self._thread.join(within_s)
        assert not self._thread.is_alive(), "the caller still waits"
        return self.outcome


# --- answers and errors


def test_the_answer_comes_back_to_the_last_bit(client: WorkerClient) -> None:
    assert (client.restarts, client.last_failure) == (0, "")
    steps: list[str] = []
    better: list[Answer] = []
    for what in (AT_ONCE, "prints"):
        question = ask(what)
        answer = client.answer(question, Control(None, steps.append, better.append))
        assert_same(answer, fake_worker.answer(question))
    assert steps == [AT_ONCE, "prints"]
    assert [found.reason_text for found in better] == ["question 1", "question 2"]


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("bad_image", BadImageError, "^view x: too small$"),
        ("odd", NoEstimateError, "^odd$"),
        ("unexpected", PoseBridgeError, "unexpected ZeroDivisionError: by nothing"),
    ],
)
def test_errors_come_back_as_they_are(
    client: WorkerClient, caplog: pytest.LogCaptureFixture, what: str, kind: type, text: str
) -> None:
    pid = client.pid
    with pytest.raises(kind, match=text) as caught:
        client.answer(ask(what))
    assert type(caught.value) is kind
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert ["in unexpected" in text for text in logged] == [True] * (what == "unexpected")
    assert_answers(client)
    assert client.pid == pid


def test_pictures_travel_once_and_are_asked_for_again(start: Start) -> None:
    for how in ((), ("forgetful",)):
        client, question = start(*how), ask()
        for _ in range(3):
            assert_same(client.answer(question), fake_worker.answer(question))
        assert client.restarts == 0


def test_threads_wait_in_turn_and_waiting_costs_no_budget(client: WorkerClient) -> None:
    first = Asking(client, ask("deaf 0.7"))
    until(lambda: bool(first.steps))
    questions = [ask(budget_s=0.3) for _ in range(4)]
    waiting = [Asking(client, question) for question in questions]
    for question, asking in zip(questions, waiting, strict=True):
        assert_same(asking.end(), fake_worker.answer(question))
    assert isinstance(first.end(), Answer)


# --- cancel


def test_a_cancelled_question_ends_at_once_and_the_worker_goes_on(client: WorkerClient) -> None:
    pid = client.pid
    for what in ("patiently", "deaf 1.5"):
        asking = Asking(client, ask(what))
        until(lambda asking=asking: bool(asking.steps))
        began_s = time.monotonic()
        asking.cancelled.set()
        assert isinstance(asking.end(), CancelledError)
        assert time.monotonic() - began_s < SLACK_S
    assert client.state is WorkerState.BUSY
    assert_answers(client)
    assert client.pid == pid


def test_who_waits_can_cancel_too(client: WorkerClient) -> None:
    first = Asking(client, ask("deaf 3"))
    until(lambda: bool(first.steps))
    second = Asking(client, ask())
    second.cancelled.set()
    assert isinstance(second.end(SLACK_S), CancelledError)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        client.answer(ask(), Control(cancelled))
    assert client.state is WorkerState.BUSY


def test_a_step_that_does_not_end_is_killed(start: Start) -> None:
    client = start(kill_grace_s=0.2)
    pid = client.pid
    asking = Asking(client, ask("deaf 60"))
    until(lambda: bool(asking.steps))
    asking.cancelled.set()
    assert isinstance(asking.end(SLACK_S), CancelledError)
    assert_answers(client)
    assert is_gone(pid)
    assert client.restarts == 1
    assert "did not end in 0.2 s" in client.last_failure


def test_a_listener_that_fails_ends_the_question(client: WorkerClient) -> None:

    def fail(what: str) -> None:
        raise KeyError(what)

    pid = client.pid
    with pytest.raises(KeyError, match="patiently"):
        client.answer(ask("patiently"), Control(on_progress=fail))
    assert_answers(client)
    assert client.pid == pid


# --- the worker fails


def test_a_crash_is_told_with_its_last_words(client: WorkerClient) -> None:
    restarts = client.restarts
    with pytest.raises(
        WorkerDiedError, match=r"signal 11, Segm.*these are my last words.*Fatal Python error"
    ):
        client.answer(ask("crash"))
    assert_answers(client)
    assert client.restarts == restarts + 1
    assert "these are my last words" in client.last_failure


@pytest.mark.parametrize("running", [True, False])
def test_killed(client: WorkerClient, running: bool) -> None:
    pid, restarts = client.pid, client.restarts
    asking = Asking(client, ask("deaf 60")) if running else None
    until(lambda: asking is None or bool(asking.steps))
    os.kill(pid, signal.SIGKILL)
    if asking is not None:
        outcome = asking.end()
        assert isinstance(outcome, WorkerDiedError)
        assert "signal 9" in str(outcome)
    until(lambda: client.restarts == restarts + 1)
    assert_answers(client)
    assert client.pid != pid


def test_frozen(start: Start) -> None:
    client = start(stall_s=0.5)
    pid = client.pid
    asking = Asking(client, ask("deaf 60"))
    until(lambda: bool(asking.steps))
    os.kill(pid, signal.SIGSTOP)
    outcome = asking.end()
    assert isinstance(outcome, WorkerStalledError)
    assert "0.5 s" in str(outcome)
    assert is_gone(pid)
    assert_answers(client)


def test_a_frozen_worker_does_not_hold_who_cancels(start: Start) -> None:
    """Not even while megabytes of pictures do not fit into its socket."""
    client = start(stall_s=2.0)
    os.kill(client.pid, signal.SIGSTOP)
    image = np.zeros((1200, 1600, 3), np.uint8)
    large = View(id=AT_ONCE, image=image, camera=Camera.from_focal_px(50.0, 1600, 1200))
    asking = Asking(client, Question(reference=ask().reference, target=large))
    until(lambda: client.state is WorkerState.BUSY)
    asking.cancelled.set()
    assert isinstance(asking.end(SLACK_S), CancelledError)
    assert_answers(client)


def test_busy_in_a_library_is_not_frozen(client: WorkerClient) -> None:
    pid = client.pid
    assert isinstance(client.answer(ask("greedy 1")), Answer)
    assert client.pid == pid


def test_an_answer_long_after_its_budget_is_not_waited_for(start: Start) -> None:
    client = start(overdue_s=1.0)
    with pytest.raises(WorkerStalledError, match="budget"):
        client.answer(ask("deaf 60", budget_s=0.1))
    assert_answers(client)


@pytest.mark.parametrize("how", ["numpy", "opencv", "std::bad_alloc", "CUDA out of memory."])
def test_out_of_memory(client: WorkerClient, how: str) -> None:
    pid = client.pid
    with pytest.raises(OutOfMemoryError, match="fewer or smaller images"):
        client.answer(ask(f"memory {how}"))
    assert_answers(client)
    assert client.pid != pid


def test_rubbish_on_the_connection(client: WorkerClient) -> None:
    for what in ("noise", "pickle", "no-pose", "no-such-error", "other-errand", "missing-twice"):
        pid = client.pid
        with pytest.raises(WorkerDiedError, match="does not keep to the protocol"):
            client.answer(ask(f"writes {what}"))
        assert_answers(client)
        assert client.pid != pid


def test_a_message_that_never_ends(start: Start) -> None:
    client = start(stall_s=0.5)
    with pytest.raises(WorkerStalledError):
        client.answer(ask("never_ends"))
    assert_answers(client)


# --- start, stop, restart


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("other-version", "speaks version 999"),
        ("says-other-version", "another version of pose_bridge"),
        ("silent", "did not come up in 2 s"),
    ],
)
def test_a_worker_that_does_not_fit_is_told(start: Start, how: str, text: str) -> None:
    with pytest.raises(WorkerDiedError, match=text):
        start(how, start_timeout_s=2.0)


@pytest.mark.parametrize(
    ("executable", "text"),
    [
        ("/nowhere/python", "'/nowhere/python' cannot be started: No such file.*worker.python_executable"),
        (str(FAKE), "Permission denied"),
        ("false", "exit code 1"),
    ],
)
def test_what_is_no_python_is_told(executable: str, text: str) -> None:
    client = WorkerClient(configured(python_executable=executable))
    with pytest.raises(WorkerDiedError, match=text):
        client.start()
    assert client.state is WorkerState.STOPPED
    assert client.pid is None
    with pytest.raises(NotActiveError):
        client.answer(ask())


def test_stopped_and_started_again(start: Start) -> None:
    client = start()
    pid = client.pid
    client.start()
    assert client.pid == pid
    running, waiting = Asking(client, ask("deaf 60")), Asking(client, ask())
    until(lambda: client.state is WorkerState.BUSY)
    client.stop()
    assert is_gone(pid)
    assert isinstance(running.end(), DeactivatedError)
    assert isinstance(waiting.end(), DeactivatedError)
    client.stop()
    with pytest.raises(NotActiveError):
        client.answer(ask())
    client.start()
    assert_answers(client)
    assert client.restarts == 0


def test_states_are_told_in_order_and_a_listener_cannot_stop_them() -> None:
    """With the bridge itself, which finds nothing in a blank picture."""
    states: list[str] = []

    def listen(state: WorkerState) -> None:
        states.append(state.name)
        raise ValueError(state)

    with WorkerClient(configured(), listen) as client:
        camera = Camera.from_focal_px(50.0, 80, 80)
        views = [View(id=str(i), image=np.full((80, 80, 3), i, np.uint8), camera=camera) for i in range(2)]
        question = Question(reference=views[0], target=views[1])
        assert client.answer(question).reason is Reason.POOR_VIEWS
        os.kill(client.pid, signal.SIGKILL)
        until(lambda: client.restarts == 1 and client.state is WorkerState.READY)
    assert " ".join(states) == "STARTING READY BUSY READY RESTARTING READY STOPPED"


def test_while_it_cannot_be_restarted(start: Start, tmp_path: Path) -> None:
    client = start("once", str(tmp_path / "mark"))
    os.kill(client.pid, signal.SIGKILL)
    until(lambda: client.restarts >= 2)
    assert client.state is WorkerState.RESTARTING
    waiting = Asking(client, ask())
    waiting.cancelled.set()
    assert isinstance(waiting.end(SLACK_S), CancelledError)
    with pytest.raises(WorkerDiedError, match=r"could not be restarted.*only once"):
        client.answer(ask(budget_s=0.2))
    waiting = Asking(client, ask())
    (tmp_path / "mark").unlink()
    assert isinstance(waiting.end(), Answer)


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5
    assert Backoff(2.0, 1.0).next_s() == 1.0


def test_a_killed_parent_leaves_no_worker(tmp_path: Path) -> None:
    """Neither idle nor in mid-computation."""
    script = """
import sys
from worker.test_client import FAKE, Asking, ask, configured
from pose_bridge.worker import WorkerClient
client = WorkerClient(configured(python_executable=sys.argv[1]))
client.start()
if sys.argv[2]:
    asking = Asking(client, ask(sys.argv[2]))
    while not asking.steps: pass
print(client.pid, flush=True)
sys.stdin.read()
"""
    python = fake_python(tmp_path)
    for what in ("", "deaf 60"):
        parent = subprocess.Popen(
            [sys.executable, "-c", script, python, what],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with parent:
            pid = int(parent.stdout.readline())
            assert not is_gone(pid)
            parent.kill()
        until(lambda pid=pid: is_gone(pid))


def test_the_client_loads_no_heavy_library() -> None:
    check = (
        "import sys, pose_bridge.worker; "
        "assert not {'pycolmap', 'torch', 'matplotlib', 'pose_bridge.bridge'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, timeout=60)
