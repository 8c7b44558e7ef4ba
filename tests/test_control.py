# SPDX-License-Identifier: Apache-2.0
import math
import threading

import pytest

from pose_bridge import control as module
from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, CancelledError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_budget_there_is_always_time(clock: list[float]) -> None:
    control = Control()
    clock[0] += 1e9
    assert control.remaining_s == math.inf
    assert control.elapsed_s == pytest.approx(1e9)
    control.check()


def test_the_budget_runs_from_the_start(clock: list[float]) -> None:
    control = Control()
    clock[0] += 50.0
    control.start(10.0)
    clock[0] += 4.0
    assert (control.elapsed_s, control.remaining_s) == (4.0, 6.0)
    control.check()
    clock[0] += 6.0
    with pytest.raises(BudgetSpentError, match="10 s"):
        control.check()
    control.start(1.0)
    control.check()


def test_cancelled_comes_before_the_budget(clock: list[float]) -> None:
    cancelled = threading.Event()
    control = Control(cancelled)
    control.start(1.0)
    clock[0] += 2.0
    cancelled.set()
    with pytest.raises(CancelledError):
        control.check()


def test_a_step_is_told_only_if_it_is_taken() -> None:
    cancelled, said = threading.Event(), []
    control = Control(cancelled, said.append)
    control.step("one")
    cancelled.set()
    with pytest.raises(CancelledError):
        control.step("two")
    assert said == ["one"]


def test_what_was_done_is_told_even_when_time_is_up(clock: list[float]) -> None:
    cancelled, said = threading.Event(), []
    control = Control(cancelled, said.append)
    control.start(1.0)
    clock[0] += 2.0
    assert not control.cancelled
    cancelled.set()
    assert control.cancelled
    control.say("done")
    assert said == ["done"]


def test_nobody_needs_to_listen() -> None:
    control = Control()
    control.step("one")
    control.say("two")
    control.better("answer")


def test_the_best_so_far_is_told() -> None:
    heard: list[object] = []
    Control(on_better=heard.append).better("answer")
    assert heard == ["answer"]
