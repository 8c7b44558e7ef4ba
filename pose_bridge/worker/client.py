# SPDX-License-Identifier: Apache-2.0
"""The robot's side: a bridge that looks like any other, but runs in a process that may die."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from enum import Enum

from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import (
    DeactivatedError,
    NotActiveError,
    OutOfMemoryError,
    PoseBridgeError,
    WorkerDiedError,
    WorkerStalledError,
)
from pose_bridge.views import Answer, Question
from pose_bridge.worker import protocol, questions
from pose_bridge.worker.errand import TICK_S, Errand, check_cancelled
from pose_bridge.worker.process import WorkerProcess
from pose_bridge.worker.protocol import Message, ProtocolError

log = logging.getLogger(__name__)


class WorkerState(Enum):
    """What the worker is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    RESTARTING = "restarting"


class ModelsState(Enum):
    """How far a worker is with the models that its settings name."""

    NONE = "none"
    LOADING = "loading"
    LOADED = "loaded"
    FAILED = "failed"


class Backoff:
    """Pauses between restarts, each twice as long as the one before."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self.reset()

    def reset(self) -> None:
        """Begin with the first one again."""
        self._next_s = self._first_s

    def next_s(self) -> float:
        """Return the next pause."""
        pause_s = min(self._next_s, self._longest_s)
        self._next_s = 2.0 * pause_s
        return pause_s


class WorkerClient:
    """Keeps a worker running from `start` to `stop`; threads that ask at the same time wait in turn.

    Args:
        config: Settings of the worker and of the bridge in it.
        on_state: Called with each new state, from any thread, in order; must not block or call back.
    """

    def __init__(self, config: Config, on_state: Callable[[WorkerState], None] | None = None) -> None:
        self._config = config
        self._settings = config.worker
        self._on_state = on_state or (lambda state: None)
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()  # guards what follows
        self._state = WorkerState.STOPPED
        self._since_s = time.monotonic()
        self._restarts = 0
        self._failure = ""
        self._models, self._models_failure = ModelsState.NONE, ""
        self._backoff = Backoff(self._settings.restart_delay_s, self._settings.max_restart_delay_s)
        self._stopping = False
        self._supervisor: threading.Thread | None = None
        self._process: WorkerProcess | None = None
        self._sent = questions.Recent[None](self._settings.cache_mib * 2**20)
        self._waiting: deque[Errand] = deque()
        self._running: Errand | None = None

    @property
    def state(self) -> WorkerState:
        """What the worker is doing."""
        return self._state

    @property
    def restarts(self) -> int:
        """How often the worker failed and had to be restarted."""
        return self._restarts

    @property
    def last_failure(self) -> str:
        """Why it failed last; empty if it did not since it was started."""
        return self._failure

    @property
    def models(self) -> ModelsState:
        """How far it is with its models."""
        return self._models

    @property
    def models_failure(self) -> str:
        """Why they cannot be loaded; empty unless that failed."""
        return self._models_failure

    @property
    def pid(self) -> int | None:
        """Number of the worker's process while there is one."""
        process = self._process
        return None if process is None else process.pid

    def __enter__(self) -> WorkerClient:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the worker, if it is not running, and return once it can be asked.

        Raises:
            WorkerDiedError: It did not come up; the message has its last words.
        """
        with self._changed:
            if self._supervisor is None:
                self._stopping, self._failure = False, ""
                self._backoff.reset()
                self._enter(WorkerState.STARTING)
                # Outlives every worker: a process may be tied to the thread that began it.
                self._supervisor = threading.Thread(target=self._supervise, name="worker", daemon=True)
                self._supervisor.start()
            self._changed.wait_for(lambda: self._state is not WorkerState.STARTING)
            if self._state is WorkerState.STOPPED:
                raise WorkerDiedError(self._failure or "the worker was stopped before it was up")

    def stop(self) -> None:
        """End the worker at once; a question that it works on ends with DeactivatedError."""
        with self._changed:
            supervisor = self._supervisor
            if supervisor is None:
                return
            self._stopping = True
            if self._process is not None:
                self._process.kill()
            self._changed.notify_all()
        supervisor.join()

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        """Say where the target camera is, as `Bridge.answer` does.

        The budget starts when the worker takes the question, not while others are answered or the worker
        is being restarted.

        Raises:
            BadInputError: A view cannot be used at all, or the images are too large.
            CancelledError: The caller cancelled; the worker may still finish its step.
            NotActiveError: `start` was not called.
            DeactivatedError: `stop` was called meanwhile.
            WorkerDiedError, WorkerStalledError, OutOfMemoryError: The worker failed and is being restarted,
                or could not be restarted for as long as the budget.
        """
        control = control or Control()
        budget_s = self._config.bridge.budget_s if question.budget_s is None else question.budget_s
        errand = Errand(next(self._numbers), question, budget_s)
        if self._state is WorkerState.STOPPED:
            raise NotActiveError("no worker is running; start it first")
        self._wait_for_turn(errand, control)
        control.start(budget_s)
        try:
            return errand.follow(control)
        finally:
            self._leave(errand)

    def _wait_for_turn(self, errand: Errand, control: Control) -> None:
        with self._changed:
            self._waiting.append(errand)
            try:
                while self._state is not WorkerState.READY or self._waiting[0] is not errand:
                    check_cancelled(control)
                    self._check_up(errand)
                    self._changed.wait(TICK_S)
                check_cancelled(control)
                self._ask(errand)
            finally:
                self._waiting.remove(errand)
                self._changed.notify_all()

    def _check_up(self, errand: Errand) -> None:
        if self._state is WorkerState.STOPPED:
            raise DeactivatedError("the worker was stopped while the question waited")
        if self._state is WorkerState.RESTARTING:
            down_s = time.monotonic() - max(self._since_s, errand.asked_s)
            if down_s > errand.budget_s:
                raise WorkerDiedError(f"the worker could not be restarted in {down_s:.1f} s: {self._failure}")

    def _ask(self, errand: Errand) -> None:
        self._send_question(errand)
        errand.must_end(
            errand.budget_s + self._settings.overdue_s,
            f"the worker was killed: no answer {self._settings.overdue_s:g} s after the budget ran out",
        )
        self._running = errand
        self._enter(WorkerState.BUSY)

    def _send_question(self, errand: Errand) -> None:
        assert self._process is not None
        body = questions.to_body(errand.question, self._sent)
        self._process.send(Message("question", errand.number, body))

    def _leave(self, errand: Errand) -> None:
        """Tell the worker, if it still works for a caller who is gone."""
        with self._changed:
            if self._running is errand and self._process is not None:
                grace_s = self._settings.kill_grace_s
                errand.must_end(
                    grace_s, f"the worker was killed: a cancelled step did not end in {grace_s:g} s"
                )
                self._process.send(Message("cancel", errand.number))

    def _supervise(self) -> None:
        """Start the worker, and again whenever it failed."""
        while not self._stopping:
            try:
                with closing(WorkerProcess(self._settings)) as process:
                    self._launch(process)
                    self._listen(process)
            except Exception as error:
                self._failed(_failure(error))
        with self._changed:
            self._supervisor = None
            self._enter(WorkerState.STOPPED)

    def _launch(self, process: WorkerProcess) -> None:
        with self._changed:
            self._process = process
            if self._stopping:
                process.kill()
        hello = {
            "version": protocol.VERSION,
            "config": self._config.to_dict(),
            "log_level": log.getEffectiveLevel(),
        }
        process.send(Message("hello", body=hello))
        try:
            reply = process.receive(self._settings.start_timeout_s)
        except WorkerStalledError as error:
            raise WorkerDiedError(
                f"the worker did not come up in {self._settings.start_timeout_s:g} s ({process.close()})"
            ) from error
        if reply.kind != "ready" or reply.body != protocol.VERSION:
            raise WorkerDiedError(
                f"the worker says {reply.kind} {reply.body!r}, not ready {protocol.VERSION}; "
                "it runs another version of pose_bridge"
            )
        with self._changed:
            self._sent.clear()
            self._models, self._models_failure = ModelsState.NONE, ""
            self._enter(WorkerState.READY)
        log.info("worker %d is up", process.pid)

    def _listen(self, process: WorkerProcess) -> None:
        loading_since_s = time.monotonic()
        while True:
            message = process.receive(self._settings.stall_s)
            with self._changed:
                if message.kind == "models":
                    name, text = (protocol.expect(part, str) for part in protocol.expect(message.body, list))
                    self._models, self._models_failure = ModelsState[name], text
                    loading_since_s = time.monotonic()
                elif message.kind != "alive":
                    self._take(message)
                loading_s = time.monotonic() - loading_since_s
                if self._models is ModelsState.LOADING and loading_s > self._settings.load_timeout_s:
                    raise WorkerStalledError(
                        f"the models were not loaded in {self._settings.load_timeout_s:g} s "
                        "(worker.load_timeout_s)"
                    )
                if self._running is not None and time.monotonic() > self._running.deadline_s:
                    raise WorkerStalledError(self._running.overdue)

    def _take(self, message: Message) -> None:
        errand = self._running
        if errand is None or message.number != errand.number:
            raise ProtocolError(f"{message.kind} of errand {message.number}, which is not running")
        if message.kind == "step":
            errand.report(protocol.expect(message.body, str))
        elif message.kind == "better":
            errand.report(protocol.expect(message.body, Answer))
        elif message.kind == "answer":
            self._finish(protocol.expect(message.body, Answer))
        elif message.kind == "error":
            self._take_error(message)
        elif message.kind == "missing" and not errand.sent_in_full:
            errand.sent_in_full = True
            self._sent.clear()
            self._send_question(errand)
        else:
            raise ProtocolError(f"unexpected {message.kind}")

    def _take_error(self, message: Message) -> None:
        error, details = protocol.error_of(message.body)
        if details:
            log.error("in the worker: %s", details)
        if isinstance(error, OutOfMemoryError):
            raise error  # what it holds may be what fills the memory
        self._finish(error)

    def _finish(self, outcome: Answer | PoseBridgeError) -> None:
        """End the running errand; the worker is ready for the next."""
        self._end_errand(outcome)
        self._backoff.reset()
        self._enter(WorkerState.READY)

    def _end_errand(self, outcome: Answer | PoseBridgeError) -> None:
        if self._running is not None:
            self._running.end(outcome)
            self._running = None

    def _failed(self, failure: PoseBridgeError) -> None:
        """Tell the caller, and wait until it is time for a restart."""
        with self._changed:
            self._process = None
            self._models, self._models_failure = ModelsState.NONE, ""
            if self._stopping:
                self._end_errand(DeactivatedError("the worker was stopped while it worked on the question"))
                return
            self._end_errand(failure)
            self._failure = str(failure)
            if self._state is WorkerState.STARTING:
                self._stopping = True
                return
            log.warning("restarting the worker: %s", failure)
            self._restarts += 1
            self._enter(WorkerState.RESTARTING)
            self._changed.wait_for(lambda: self._stopping, self._backoff.next_s())

    def _enter(self, state: WorkerState) -> None:
        if state is self._state:
            return
        self._state, self._since_s = state, time.monotonic()
        self._changed.notify_all()
        try:
            self._on_state(state)
        except Exception:  # of the listener; the worker goes on
            log.exception("a listener failed at %s", state)


def _failure(error: Exception) -> PoseBridgeError:
    """What to tell the caller whose question ended with the worker."""
    if isinstance(error, PoseBridgeError):
        return error
    if isinstance(error, ProtocolError):
        return WorkerDiedError(f"the worker was killed: it does not keep to the protocol ({error})")
    log.error("unexpected error beside the worker", exc_info=error)
    return WorkerDiedError(f"the worker was killed: unexpected {type(error).__name__}: {error}")
