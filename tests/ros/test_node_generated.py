# SPDX-License-Identifier: Apache-2.0
"""Hypotheses through node and worker, on small checkpoints: told to who asked, and to nobody else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from installed import require_ros

require_ros()

from action_msgs.msg import GoalStatus  # noqa: E402
from checkpoints import save_models, small_settings  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import Caller, NodeProcess, calling, pair, until  # noqa: E402
from ros_numbers import finite_numbers  # noqa: E402

from pose_bridge.action import EstimateRelativePose  # noqa: E402
from pose_bridge.errors import ErrorCode  # noqa: E402
from pose_bridge.msg import RelativePose  # noqa: E402


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("weights"))


def started(folder: Path, weights: Path) -> NodeProcess:
    some = small_settings(weights)
    settings = {f"{group}.{name}": value for group, values in some.items() for name, value in values.items()}
    return NodeProcess(folder, free_domain(), settings, real=True)


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Caller]:
    node = started(tmp_path_factory.mktemp("node"), weights)
    with calling(node) as caller:
        yield caller
    assert node.end() == 0


def goal(**known: object) -> EstimateRelativePose.Goal:
    return pair(**{"allow_hypothesis": True, "budget_s": 60.0, **known})


def test_models_load_in_the_background(caller: Caller) -> None:
    def models() -> str:
        return {v.key: v.value for v in caller.status("worker").values}.get("models", "")

    assert until(lambda: caller.status("worker") is not None and models() == "LOADED")


def test_a_hypothesis_for_who_asked_and_on_no_topic(caller: Caller) -> None:
    outcome = caller.ask(goal())
    found = outcome.result.relative_pose
    assert found.status == RelativePose.STATUS_HYPOTHESIS, found.reason_text
    assert (found.stage, found.estimator, found.generator) == (RelativePose.STAGE_GENERATED, "vggt", "ltx")
    assert (found.real_frames, found.generated_frames) == (2, 14)
    assert np.isnan(found.probability)
    assert np.isfinite([found.direction.x, found.direction.y, found.direction.z]).all()
    progress = [step.progress for step in outcome.feedback if step.stage == RelativePose.STAGE_GENERATED]
    assert progress == sorted(progress)
    assert len(set(progress)) >= 8
    assert 0.0 <= progress[0] < progress[-1] <= 1.0
    assert caller.settled()  # nothing on topics


def test_nothing_for_who_did_not_ask(caller: Caller) -> None:
    found = caller.ask(goal(allow_hypothesis=False)).result.relative_pose
    assert found.status == RelativePose.STATUS_REJECTED
    assert set(finite_numbers(found)) <= {".processing_time_s", ".probability"}


def test_cancelled_in_the_middle_of_a_video(caller: Caller) -> None:
    sent = caller.send(goal(seed=7))
    assert until(lambda: any(step.stage == RelativePose.STAGE_GENERATED for step in sent.feedback))
    sent.cancel()
    outcome = sent.outcome()
    assert (outcome.status, outcome.code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
    assert finite_numbers(outcome.result) == []
    assert caller.ask(goal()).result.relative_pose.status == RelativePose.STATUS_HYPOTHESIS


def test_weights_that_are_missing_name_the_remedy(tmp_path: Path, weights: Path) -> None:
    """Configuring fails, offline; and once they are there, it does not."""
    there = tmp_path / "weights"
    node = started(tmp_path, there)
    caller = Caller(node.domain)
    try:
        assert not caller.transition(Transition.TRANSITION_CONFIGURE)
        assert until(lambda: "there is no model.safetensors in it" in node.said())
        shutil.copytree(weights, there)
        caller.activate()
    finally:
        caller.close()
        assert node.end() == 0
