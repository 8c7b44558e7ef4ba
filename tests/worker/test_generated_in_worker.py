# SPDX-License-Identifier: Apache-2.0
"""The learned rung in a real worker, on small checkpoints in the published formats with random weights."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from checkpoints import save_models, small_settings
from worker.same import assert_same

from pose_bridge import models
from pose_bridge.bridge import Bridge
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import CancelledError, ModelError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Answer, Question, Reason, Stage, Status, View
from pose_bridge.worker import ModelsState, WorkerClient

CAMERA = Camera.from_focal_px(100.0, 128, 96)
SLACK_S = 1.0  # half a second is promised; the machine may be busy


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("weights"))


def configured(weights: Path, **more: dict[str, Any]) -> Config:
    worker = {"worker": {"nice": 0, "heartbeat_s": 0.05, "restart_delay_s": 0.05}}
    return models.configured(small_settings(weights), worker, more)


def view(seed: int) -> View:
    noise = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
    return View(id=f"v{seed}", image=cv2.GaussianBlur(noise, (0, 0), 1.0), camera=CAMERA)


def question(**more: Any) -> Question:
    return Question(reference=view(1), target=view(2), **{"allow_hypothesis": True, "budget_s": 60.0, **more})


def until(true: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + 60.0
    while not true() and time.monotonic() < end_s:
        time.sleep(0.02)
    return true()


def assert_hypothesis(answer: Answer) -> None:
    assert answer.status is Status.HYPOTHESIS, answer.reason_text
    assert (answer.stage, answer.estimator, answer.generator) == (Stage.GENERATED, "vggt", "ltx")


@pytest.fixture(scope="module")
def worker(weights: Path) -> Any:
    with WorkerClient(configured(weights)) as client:
        yield client
        assert client.restarts == 0


def test_models_are_loaded_unasked(worker: WorkerClient) -> None:
    assert until(lambda: worker.models is ModelsState.LOADED)
    assert not worker.models_failure


def test_the_same_as_in_this_process(worker: WorkerClient, weights: Path) -> None:
    said: list[str] = []
    answer = worker.answer(question(), Control(on_progress=said.append))
    assert_hypothesis(answer)
    assert (answer.real_frames, answer.generated_frames) == (2, 14)
    assert {f"generated: step {step} of 8" for step in range(1, 9)} <= set(said)
    here = Bridge(configured(weights)).answer(question())
    assert_same(*(dataclasses.replace(a, elapsed_s=0.0) for a in (answer, here)), within=1e-3)
    other = worker.answer(question(seed=1))
    assert np.abs(other.rotation - answer.rotation).max() > 1e-9


def test_nobody_gets_a_guess_who_did_not_ask(worker: WorkerClient) -> None:
    answer = worker.answer(question(allow_hypothesis=False))
    assert answer.status is Status.REJECTED
    assert answer.stage < Stage.GENERATED


@pytest.mark.parametrize("where", ["generated: step 3 of 8", "generated: looking for agreement"])
def test_cancelled(worker: WorkerClient, where: str) -> None:
    cancelled, since_s = threading.Event(), [0.0]

    def listen(what: str) -> None:
        if what == where and not cancelled.is_set():
            since_s[0] = time.monotonic()
            cancelled.set()

    pid = worker.pid
    with pytest.raises(CancelledError):
        worker.answer(question(seed=5), Control(cancelled, listen))
    assert cancelled.is_set()
    assert time.monotonic() - since_s[0] < SLACK_S
    assert_hypothesis(worker.answer(question()))
    assert worker.pid == pid


def test_no_time_for_any_video(worker: WorkerClient) -> None:
    answer = worker.answer(question(budget_s=0.02))
    assert answer.status is Status.REJECTED
    assert answer.reason is Reason.BUDGET


def test_videos_too_large_for_memory(weights: Path) -> None:
    """The answer says so, the worker lives on, and a question that needs no video is answered."""
    large = configured(
        weights, ltx={"long_side_px": 1280, "num_frames": 121, "schedule": "1000"}, worker={"memory_gib": 1.0}
    )
    with WorkerClient(large) as client:
        assert until(lambda: client.models is ModelsState.LOADED)
        answer = client.answer(question())
        assert answer.status is Status.REJECTED
        assert "does not fit into memory with 121 frames of 1280x960" in answer.reason_text
        assert client.answer(question(allow_hypothesis=False)).status is Status.REJECTED
        assert client.restarts == 0


def truncated(folder: Path) -> None:
    path = folder / "vggt" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def swapped(folder: Path) -> None:
    shutil.copy(next((folder / "ltx").glob("vae/*.safetensors")), folder / "vggt" / "model.safetensors")


def half_there(folder: Path) -> None:
    shutil.rmtree(folder / "ltx" / "transformer")


def rubbish(folder: Path) -> None:
    next((folder / "ltx").glob("transformer/*.safetensors")).write_bytes(b"\xff" * 1000)


@pytest.mark.parametrize("spoil", [truncated, swapped, half_there, rubbish])
def test_weights_that_cannot_be_used(weights: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """Nothing but hypotheses is lost, and whoever wants one is told why there is none."""
    folder = Path(shutil.copytree(weights, tmp_path / "weights"))
    spoil(folder)
    with WorkerClient(configured(folder)) as client:
        assert until(lambda: client.models is ModelsState.FAILED)
        assert str(folder) in client.models_failure
        with pytest.raises(ModelError, match=str(folder)):
            client.answer(question())
        assert client.answer(question(allow_hypothesis=False)).status is Status.REJECTED
        assert client.restarts == 0
