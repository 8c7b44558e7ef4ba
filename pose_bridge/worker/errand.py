# SPDX-License-Identifier: Apache-2.0
"""One question on its way through the worker."""

from __future__ import annotations

import math
import queue
import time

from pose_bridge.control import Control
from pose_bridge.errors import CancelledError, PoseBridgeError
from pose_bridge.views import Answer, Question

TICK_S = 0.02  # how often a caller who waits looks whether it was cancelled


class Errand:
    """Reports of the worker go in on one side, and reach the caller in the caller's own thread."""

    def __init__(self, number: int, question: Question, budget_s: float) -> None:
        self.number = number
        self.question = question
        self.budget_s = budget_s
        self.asked_s = time.monotonic()
        self.sent_in_full = False
        self.deadline_s = math.inf
        self.overdue = ""
        self._inbox: queue.SimpleQueue[str | Answer | _End] = queue.SimpleQueue()

    def must_end(self, within_s: float, otherwise: str) -> None:
        """Give the worker so much time from now on, or less if it had less."""
        deadline_s = time.monotonic() + within_s
        if deadline_s < self.deadline_s:
            self.deadline_s, self.overdue = deadline_s, otherwise

    def report(self, news: str | Answer) -> None:
        """Tell the caller what is being done, or the best answer so far."""
        self._inbox.put(news)

    def end(self, outcome: Answer | PoseBridgeError) -> None:
        """Give the caller the answer, or why there is none."""
        self._inbox.put(_End(outcome))

    def follow(self, control: Control) -> Answer:
        """Pass reports on to `control` until the end.

        Raises:
            CancelledError: The caller cancelled.
            PoseBridgeError: There is no answer.
        """
        while True:
            check_cancelled(control)
            try:
                news = self._inbox.get(timeout=TICK_S)
            except queue.Empty:
                continue
            if isinstance(news, str):
                control.say(news)
            elif isinstance(news, Answer):
                control.better(news)
            else:
                return news.result()


class _End:
    def __init__(self, outcome: Answer | PoseBridgeError) -> None:
        self._outcome = outcome

    def result(self) -> Answer:
        if isinstance(self._outcome, PoseBridgeError):
            raise self._outcome
        return self._outcome


def check_cancelled(control: Control) -> None:
    """Return if nobody cancelled; the budget is the worker's business.

    Raises:
        CancelledError: The caller cancelled.
    """
    if control.cancelled:
        raise CancelledError("cancelled by the caller")
