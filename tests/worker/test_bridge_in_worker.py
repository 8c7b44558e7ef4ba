# SPDX-License-Identifier: Apache-2.0
"""The bridge itself in the worker: the same answers, and cancelled wherever it is."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from worker.same import assert_same

from pose_bridge import photographs
from pose_bridge.bridge import Bridge
from pose_bridge.config import Config, ContextConfig, FeaturesConfig, WorkerConfig
from pose_bridge.control import Control
from pose_bridge.errors import BadImageError, CancelledError
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Answer, Question, Reason, Require, View
from pose_bridge.worker import WorkerClient

CONFIG = Config(
    context=ContextConfig(wide_pairs=2),
    features=FeaturesConfig(max_features=600, tilt_directions=1, tilt_max_features=200),
    worker=WorkerConfig(nice=0),
)
SLACK_S = 1.0  # half a second is promised; the machine may be busy


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerClient]:
    with WorkerClient(CONFIG) as client:
        yield client
        assert client.restarts == 0


@pytest.fixture(scope="module")
def question(fox: Path) -> Question:
    """Climbs all rungs that there are."""
    cameras = photographs.read_cameras(fox / "cameras.json")

    def view(name: str) -> View:
        path = fox / "images" / f"{name}.jpg"
        return dataclasses.replace(
            photographs.read_view(path, cameras), id=name, T_side_camera=metric(cameras.pose(path))
        )

    return Question(
        reference=view("0006"),
        target=view("0031"),
        reference_context=(view("0003"), view("0008")),
        target_context=tuple(map(view, ("0012", "0018", "0021", "0026"))),
        require=Require.METRIC,
        budget_s=100.0,
    )


def metric(T: np.ndarray) -> np.ndarray:
    return rigid.make(T[:3, :3], 0.7 * T[:3, 3])


@pytest.fixture(scope="module")
def answer(question: Question) -> Answer:
    """Of the bridge in this process."""
    return Bridge(CONFIG).answer(question)


def assert_same_answer(a: Answer, b: Answer) -> None:
    """Up to rounding: the worker has fewer threads, and linear algebra adds up in another order."""
    assert_same(*(dataclasses.replace(answer, elapsed_s=0.0) for answer in (a, b)), within=1e-7)


def test_the_same_answer_as_in_process(worker: WorkerClient, question: Question, answer: Answer) -> None:
    assert answer.accepted, answer.reason_text
    steps: list[str] = []
    better: list[Answer] = []
    found = worker.answer(question, Control(None, steps.append, better.append))
    assert_same_answer(found, answer)
    assert_same_answer(better[-1], answer)
    assert steps[0] == "looking at the two views"
    assert 0.0 < found.elapsed_s < 100.0


def test_cancelled_at_every_step_and_asked_again(
    worker: WorkerClient, question: Question, answer: Answer
) -> None:
    steps: list[str] = []
    assert_same_answer(worker.answer(question, Control(None, steps.append)), answer)
    assert len(steps) >= 6
    pid = worker.pid
    for index in range(len(steps)):
        cancelled = threading.Event()
        seen: list[float] = []

        def listen(
            what: str, index: int = index, cancelled: threading.Event = cancelled, seen: list[float] = seen
        ) -> None:
            seen.append(time.monotonic())
            if len(seen) == index + 1:
                cancelled.set()

        with pytest.raises(CancelledError):
            worker.answer(dataclasses.replace(question, seed=index + 1), Control(cancelled, listen))
        assert time.monotonic() - seen[index] < SLACK_S
    assert_same_answer(worker.answer(question), answer)
    assert worker.pid == pid


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.1, 0.2, 0.4, 0.8])
def test_cancelled_whenever(worker: WorkerClient, question: Question, delay_s: float) -> None:
    """Also between steps; a seed of its own, so that little is remembered."""
    cancelled = threading.Event()
    done_s: list[float] = []

    def ask() -> None:
        with contextlib.suppress(CancelledError):
            again = dataclasses.replace(question, seed=round(1e3 * delay_s) + 100)
            assert worker.answer(again, Control(cancelled)).accepted
        done_s.append(time.monotonic())

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(delay_s)
    cancelled.set()
    cancelled_s = time.monotonic()
    thread.join()
    assert done_s[0] - cancelled_s < SLACK_S


def test_a_budget_that_is_too_small_is_an_answer(worker: WorkerClient, question: Question) -> None:
    found = worker.answer(dataclasses.replace(question, budget_s=0.001))
    assert found.reason is Reason.BUDGET


def test_an_unusable_view_is_refused(worker: WorkerClient) -> None:
    camera = Camera.from_focal_px(50.0, 20, 20)
    views = [View(id=str(i), image=np.full((20, 20, 3), i, np.uint8), camera=camera) for i in range(2)]
    question = Question(reference=views[0], target=views[1])
    with pytest.raises(BadImageError) as alone:
        Bridge(CONFIG).answer(question)
    with pytest.raises(BadImageError) as from_worker:
        worker.answer(question)
    assert str(from_worker.value) == str(alone.value)
