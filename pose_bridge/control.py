# SPDX-License-Identifier: Apache-2.0
"""Budget, cancellation and progress of one question, as every step of it sees them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from pose_bridge.errors import BudgetSpentError, CancelledError


class Control:
    """Handed down to every step; a step calls `check` between two pieces of work.

    Args:
        budget_s: Seconds from now until `check` raises; None for no limit.
        cancelled: Set by the caller, from any thread, to stop.
        on_progress: Called with what is being done, for people.
    """

    def __init__(
        self,
        budget_s: float | None = None,
        cancelled: threading.Event | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._start_s = time.monotonic()
        self._budget_s = math.inf if budget_s is None else budget_s
        self._cancelled = cancelled or threading.Event()
        self._on_progress = on_progress

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, infinite without a budget."""
        return self._budget_s - self.elapsed_s

    def check(self) -> None:
        """Return if there is time and nobody cancelled.

        Raises:
            CancelledError: The caller cancelled.
            BudgetSpentError: The budget ran out.
        """
        if self._cancelled.is_set():
            raise CancelledError("cancelled by the caller")
        if self.remaining_s <= 0:
            raise BudgetSpentError(f"the budget of {self._budget_s:g} s ran out")

    def step(self, what: str) -> None:
        """Say what comes next, and `check`."""
        self.check()
        if self._on_progress is not None:
            self._on_progress(what)
