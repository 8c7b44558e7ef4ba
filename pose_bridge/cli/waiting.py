# SPDX-License-Identifier: Apache-2.0
"""Waiting for an answer: what is being done, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.status import Status

from pose_bridge.cli.failures import ExitCode
from pose_bridge.control import Control
from pose_bridge.views import Answer

_TICK_S = 0.1
_PLAIN_EVERY_S = 3.0


def wait_for(work: Callable[[Control], Answer], budget_s: float) -> Answer:
    """Run `work` in a thread, so that Ctrl-C is heard at once whatever it is doing.

    The first Ctrl-C asks it to stop, the second leaves the process. The budget is only shown.

    Raises:
        CancelledError: From `work`, once it noticed.
    """
    cancelled, progress = threading.Event(), _Progress(budget_s)
    with _listening(cancelled, progress), progress, ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, Control(cancelled, progress.say))
        while not wait([future], timeout=_TICK_S).done:
            progress.tick()
        return future.result()


class _Progress:
    """The current step on stderr: a spinner on a terminal, otherwise a line now and then."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._console = Console(stderr=True, highlight=False)
        self._spinner: Status | None = None
        self._start_s = time.monotonic()
        self._what = self._printed = "starting"
        self._printed_s = self._start_s - _PLAIN_EVERY_S

    def say(self, what: str) -> None:
        """Remember what comes next; from any thread."""
        self._what = what

    def tick(self) -> None:
        """Show it."""
        now_s = time.monotonic()
        text = f"{self._what} ({now_s - self._start_s:.0f} s of at most {self._budget_s:g} s)"
        if self._spinner is not None:
            self._spinner.update(text)
        elif self._what != self._printed and now_s - self._printed_s >= _PLAIN_EVERY_S:
            self._console.print(text, markup=False, soft_wrap=True)
            self._printed, self._printed_s = self._what, now_s

    def show_cursor(self) -> None:
        """Undo what the spinner did to the terminal."""
        self._console.show_cursor(True)

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._spinner = self._console.status(self._what)
            self._spinner.start()

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()


@contextmanager
def _listening(cancelled: threading.Event, progress: _Progress) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        if cancelled.is_set():
            progress.show_cursor()
            os._exit(ExitCode.CANCELLED)  # the thread may be deep in a library, and would be waited for
        cancelled.set()
        progress.say("stopping; Ctrl-C again to leave at once")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
