# SPDX-License-Identifier: Apache-2.0
"""The bridge itself behind the node: photographs in, the pose that it finds without ROS out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from installed import require_ros

require_ros()

from action_msgs.msg import GoalStatus  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import Caller, NodeProcess, calling, until  # noqa: E402
from ros_numbers import finite_numbers  # noqa: E402

from pose_bridge import photographs  # noqa: E402
from pose_bridge.action import EstimateRelativePose  # noqa: E402
from pose_bridge.bridge import Bridge  # noqa: E402
from pose_bridge.config import Config  # noqa: E402
from pose_bridge.errors import ErrorCode  # noqa: E402
from pose_bridge.geometry import distances, rigid  # noqa: E402
from pose_bridge.msg import RelativePose  # noqa: E402
from pose_bridge.msg import View as ViewMessage  # noqa: E402
from pose_bridge.ros import cameras, images, poses  # noqa: E402
from pose_bridge.views import Question, Require, View  # noqa: E402

SETTINGS = {
    "context": {"wide_pairs": 2},
    "features": {"max_features": 600, "tilt_directions": 1, "tilt_max_features": 200},
}
METRES = 0.7  # of one unit of the photographs' poses
NAMES = ("0006", "0031", "0003", "0008", "0012", "0018", "0021", "0026")


@pytest.fixture(scope="module")
def views(fox: Path) -> dict[str, View]:
    """Photographs whose cameras are known to odometry, but for the two in question."""
    known = photographs.read_cameras(fox / "cameras.json")
    found = {}
    for name in NAMES:
        path = fox / "images" / f"{name}.jpg"
        T = known.pose(path)
        posed = rigid.make(T[:3, :3], METRES * T[:3, 3])
        found[name] = dataclasses.replace(photographs.read_view(path, known), id=name, T_side_camera=posed)
    return found


@pytest.fixture(scope="module")
def goal(views: dict[str, View]) -> EstimateRelativePose.Goal:
    told = [message(views[name]) for name in NAMES]
    return EstimateRelativePose.Goal(
        reference=told[0],
        target=told[1],
        reference_context=told[2:4],
        target_context=told[4:],
        require=int(Require.METRIC),
        budget_s=100.0,
    )


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    settings = {f"{group}.{name}": value for group, some in SETTINGS.items() for name, value in some.items()}
    node = NodeProcess(tmp_path_factory.mktemp("node"), free_domain(), settings, real=True)
    with calling(node) as caller:
        yield caller
    assert node.end() == 0


def message(view: View) -> ViewMessage:
    said = ViewMessage(image=images.encode(view.image), camera_info=cameras.to_camera_info(view.camera))
    said.camera_pose.header.frame_id = "odom"
    said.camera_pose.pose.pose = poses.to_pose(view.T_side_camera)
    return said


def test_the_same_answer_as_without_ros(
    caller: Caller, goal: EstimateRelativePose.Goal, views: dict[str, View]
) -> None:
    found = caller.ask(goal).result.relative_pose
    assert found.status == RelativePose.STATUS_ACCEPTED, found.reason_text
    assert found.translation == RelativePose.TRANSLATION_METRIC
    names = {"0006": "reference", "0031": "target"}
    names |= {name: f"reference_context_{i}" for i, name in enumerate(NAMES[2:4])}
    names |= {name: f"target_context_{i}" for i, name in enumerate(NAMES[4:])}
    reference, target, *around = [dataclasses.replace(views[n], id=names[n], stamp_ns=0) for n in NAMES]
    question = Question(
        reference=reference,
        target=target,
        reference_context=tuple(around[:2]),
        target_context=tuple(around[2:]),
        require=Require.METRIC,
        upright=True,
        common_ground=Config().relocalize.common_ground,
        budget_s=100.0,
    )
    answer = Bridge(Config.from_dict(SETTINGS)).answer(question)
    np.testing.assert_allclose(poses.to_matrix(found.pose.pose), answer.T_reference_target, atol=1e-9)
    np.testing.assert_allclose(np.reshape(found.pose.covariance, (6, 6)), answer.covariance, rtol=1e-9)
    T_true = rigid.relative(reference.T_side_camera, target.T_side_camera)
    assert distances.rotation_error_deg(T_true[:3, :3], answer.T_reference_target[:3, :3]) < 5.0


def test_cancelled_at_every_step_and_asked_again(caller: Caller, goal: EstimateRelativePose.Goal) -> None:
    answered = caller.ask(goal)
    steps = [(step.stage, step.progress) for step in answered.feedback]
    assert len(set(steps)) >= 4
    for index in range(len(steps) - 1):  # after the last step, the answer may be quicker
        goal.seed = index + 1  # so that little is remembered
        again = caller.send(goal)
        assert until(lambda again=again, index=index: len(again.feedback) > index)
        again.cancel()
        outcome = again.outcome()
        assert (outcome.status, outcome.code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
        assert finite_numbers(outcome.result) == []
    goal.seed = 0
    last = caller.ask(goal).result.relative_pose
    assert last.pose == answered.result.relative_pose.pose
    assert caller.settled()
