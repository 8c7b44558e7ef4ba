# SPDX-License-Identifier: Apache-2.0
"""Budget, cancellation and progress of one question, as every step of it sees them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from pose_bridge.errors import BudgetSpentError, CancelledError


class Control:
    """Handed down to every step; a step calls `check` between two pieces of work.

    Args:
        cancelled: Set by the caller, from any thread, to stop.
        on_progress: Called with what is being done, for people.
        on_better: Called with the best answer so far (`views.Answer`), each time there is a better one.
    """

    def __init__(
        self,
        cancelled: threading.Event | None = None,
        on_progress: Callable[[str], None] | None = None,
        on_better: Callable[[Any], None] | None = None,
    ) -> None:
        self._cancelled = cancelled or threading.Event()
        self._on_progress = on_progress
        self._on_better = on_better
        self.start(math.inf)

    def inner(self) -> Control:
        """Return a control for one of several questions: cancelled with this one, with a clock of its own."""
        return Control(self._cancelled)

    def start(self, budget_s: float) -> None:
        """Start the clock: from now, `check` raises after this many seconds."""
        self._start_s = time.monotonic()
        self._budget_s = budget_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, infinite without a budget."""
        return self._budget_s - self.elapsed_s

    @property
    def cancelled(self) -> bool:
        """Whether the caller wants it to stop."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Return if there is time and nobody cancelled.

        Raises:
            CancelledError: The caller cancelled.
            BudgetSpentError: The budget ran out.
        """
        self.check_cancelled()
        if self.remaining_s <= 0:
            raise BudgetSpentError(f"the budget of {self._budget_s:g} s ran out")

    def check_cancelled(self) -> None:
        """Return if nobody cancelled, though the time be up.

        Raises:
            CancelledError: The caller cancelled.
        """
        if self.cancelled:
            raise CancelledError("cancelled by the caller")

    def step(self, what: str) -> None:
        """Say what comes next, and `check`."""
        self.check()
        self.say(what)

    def say(self, what: str) -> None:
        """Say what is being done."""
        if self._on_progress is not None:
            self._on_progress(what)

    def better(self, answer: Any) -> None:
        """Tell the caller about the best answer so far."""
        if self._on_better is not None:
            self._on_better(answer)
