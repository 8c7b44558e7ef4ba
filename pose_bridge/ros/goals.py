# SPDX-License-Identifier: Apache-2.0
"""Goals that take long: run in threads of their own, so that cameras and cancels are heard meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future

from pose_bridge.errors import (
    BusyError,
    CancelledError,
    DeactivatedError,
    NotActiveError,
    PoseBridgeError,
)

log = logging.getLogger(__name__)

TELL_S = 1.0
TICK_S = 0.01
SEND_S = 0.5  # rclpy sends a result in a task of its own, after the goal's callback has returned

Result = TypeVar("Result")


class Task(threading.Event):
    """One goal, or one piece of work in the background; set when it is to stop.

    Args:
        handle: Whose cancel request stops it too; None without a goal.
    """

    def __init__(self, handle: ServerGoalHandle | None = None) -> None:
        super().__init__()
        self.handle = handle

    def is_set(self) -> bool:
        """Whether it is to stop."""
        return super().is_set() or self.cancel_requested

    @property
    def cancel_requested(self) -> bool:
        """Whether the caller asked to stop."""
        return self.handle is not None and self.handle.is_cancel_requested


class Goals:
    """Runs so many goals at a time while it is open; work in the background steps aside for them.

    Args:
        node: Whose executor the results come back to.
        max_waiting: Goals that may run or wait.
    """

    def __init__(self, node: Node, max_waiting: int) -> None:
        self._node = node
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._open = False
        self._running: set[Task] = set()
        self._untold: set[Task] = set()  # goals whose callers have no result yet
        self._told_s = -SEND_S  # when the last one's was handed to rclpy
        self._background: Task | None = None
        self._pool = ThreadPoolExecutor(max_waiting + 1, thread_name_prefix="goal")

    @property
    def running(self) -> int:
        """Goals that run or wait."""
        return len(self._running)

    def open(self) -> None:
        """Take goals from now on."""
        with self._lock:
            self._open = True

    def close(self) -> None:
        """Take no more goals, and stop those that run: they end with DeactivatedError."""
        with self._lock:
            self._open = False
        self.stop()

    def stop(self) -> None:
        """Stop the goals that run."""
        with self._lock:
            tasks = [*self._running, *([self._background] if self._background else [])]
        for task in tasks:
            task.set()

    def shutdown(self) -> None:
        """Close for good, and wait for the threads."""
        self.close()
        self._pool.shutdown()

    def tell(self) -> None:
        """Wait until callers have the results of goals that were stopped, if they can still be sent."""
        end_s = time.monotonic() + TELL_S
        while self._untold and time.monotonic() < end_s and self._node.context.ok():
            time.sleep(TICK_S)
        time.sleep(max(0.0, self._told_s + SEND_S - time.monotonic()))

    async def run(self, handle: ServerGoalHandle, work: Callable[[Task], Result]) -> Result:
        """Do a goal's work in a thread and wait for it without holding up the executor.

        Raises:
            NotActiveError, BusyError: Nothing was begun.
            CancelledError: The caller asked to stop.
            DeactivatedError: `close` was called meanwhile.
            Exception: Whatever else the work raises.
        """
        task = Task(handle)
        self._untold.add(task)
        try:
            self._admit(task)
            done: Future = Future(executor=self._node.executor)
            self._pool.submit(self._work, task, work, done)
            outcome = await done
        finally:
            self._told_s = time.monotonic()
            self._untold.discard(task)
        try:
            if not isinstance(outcome, BaseException):  # published, though somebody has asked to stop since
                return outcome  # type: ignore[no-any-return]
            if task.cancel_requested:
                raise CancelledError("cancelled by the caller")
            if isinstance(outcome, CancelledError) or (
                task.is_set() and isinstance(outcome, PoseBridgeError)
            ):
                raise DeactivatedError("the node was deactivated or reset while the goal ran")
            raise outcome
        finally:
            del done, outcome  # an error that its own frame holds keeps all pictures of the goal

    def in_background(self, work: Callable[[Task], None]) -> bool:
        """Do something while there is nothing else to do; returns whether it began."""
        with self._lock:
            if not self._open or self._running or self._background is not None:
                return False
            self._background = task = Task()
        self._pool.submit(self._work_in_background, task, work)
        return True

    def alone(self, work: Callable[[Task], None]) -> None:
        """Do something that nobody waits for, as one of the goals.

        Raises:
            NotActiveError, BusyError: It is not begun.
        """
        task = Task()
        self._admit(task)
        self._pool.submit(self._work_alone, task, work)

    def _admit(self, task: Task) -> None:
        with self._lock:
            if not self._open:
                raise NotActiveError("the node is not active: ros2 lifecycle set NODE activate")
            if len(self._running) >= self._max_waiting:
                raise BusyError(f"{len(self._running)} goals run or wait already; ask again later")
            self._running.add(task)
            if self._background is not None:
                self._background.set()

    def _work(self, task: Task, work: Callable[[Task], Any], done: Future) -> None:
        try:
            outcome = work(task)
        except BaseException as error:
            if not isinstance(error, PoseBridgeError):
                log.exception("in a goal")
            outcome = error.with_traceback(None)  # whose frames hold all pictures of the goal
        with self._lock:
            self._running.discard(task)
        done.set_result(outcome)
        if self._node.executor is not None:
            self._node.executor.wake()

    def _work_alone(self, task: Task, work: Callable[[Task], None]) -> None:
        try:
            work(task)
        except Exception:
            log.exception("in a task that nobody waits for")
        finally:
            with self._lock:
                self._running.discard(task)

    def _work_in_background(self, task: Task, work: Callable[[Task], None]) -> None:
        try:
            work(task)
        except CancelledError:
            pass
        except Exception:
            log.exception("in the background")
        finally:
            with self._lock:
                self._background = None
