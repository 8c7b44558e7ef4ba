# SPDX-License-Identifier: Apache-2.0
"""What goals ask: in which frames their poses are, and what the robot's own odometry adds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from installed import require_ros
from robot_world import MAP, T_BASE_CAMERA, standing

require_ros()

from ros_node import S, pair, view  # noqa: E402

from pose_bridge.action import EstimateRelativePose  # noqa: E402
from pose_bridge.config import Config  # noqa: E402
from pose_bridge.errors import BadInputError  # noqa: E402
from pose_bridge.geometry import rigid  # noqa: E402
from pose_bridge.msg import View as ViewMessage  # noqa: E402
from pose_bridge.ros import poses  # noqa: E402
from pose_bridge.ros.requests import Requests  # noqa: E402
from pose_bridge.session import Session  # noqa: E402

T_MAP_ODOM = standing(4.0, -1.0, 30.0)


@pytest.fixture
def session() -> Session:
    """With MAP's keyframes, whose odometry lies elsewhere than the map."""
    session = Session(Config(), None)
    placed = [rigid.inverse(T_MAP_ODOM) @ place.T_map_base for place in MAP]
    session.keyframes.replace(
        dataclasses.replace(
            place, epoch=session.odometry.epoch, T_odom_base=T_odom_base, way=np.array([0.5, 0.2]) * index
        )
        for index, (place, T_odom_base) in enumerate(zip(MAP, placed, strict=True))
    )
    return session


@pytest.fixture
def requests(session: Session) -> Requests:
    for stamp_ns in (S - S // 10, S + S // 10):
        session.move(stamp_ns, standing(0, 0, 0))
    return Requests(session, lambda *_: T_BASE_CAMERA)


def seen(frame_id: str, seed: int = 1) -> ViewMessage:
    """A picture with a pose in a frame."""
    message = view(seed)
    message.camera_pose = poses.to_stamped_pose(standing(1, 2, 3), np.zeros((6, 6)), S, frame_id)
    return message


def named(index: int) -> ViewMessage:
    return ViewMessage(keyframe_id=MAP[index].id)


@pytest.mark.parametrize("context", [[seen("map", 2)], [named(0), seen("map", 2)]])
def test_poses_of_one_side_are_in_one_frame(requests: Requests, context: list[ViewMessage]) -> None:
    goal = pair()
    goal.target, goal.target_context = seen("odom"), context
    with pytest.raises(BadInputError, match=r"target.*one frame.*map, odom"):
        requests.question(goal)
    goal.target = seen("map")
    requests.question(goal)


@pytest.mark.parametrize(
    ("frame_id", "posed"), [("odom", "T_odom_camera"), ("map", "T_map_camera"), ("marker_7", None)]
)
def test_keyframes_among_pictures_are_in_their_frame(
    session: Session, requests: Requests, frame_id: str, posed: str | None
) -> None:
    goal = pair()
    goal.target, goal.target_context = seen(frame_id), [named(3)]
    question, *_ = requests.question(goal)
    (beside,) = question.target_context
    if posed is None:
        assert beside.T_side_camera is None
    else:
        np.testing.assert_allclose(beside.T_side_camera, getattr(session.named(MAP[3].id), posed))


@pytest.mark.parametrize("frame_id", ["map", "marker_7"])
def test_a_robot_that_is_looked_for_knows_odometry_only(requests: Requests, frame_id: str) -> None:
    with pytest.raises(BadInputError, match=rf"view_0.*odom.*{frame_id}"):
        requests.views([seen(frame_id)])
    (keyframe,) = requests.views([seen("odom")])
    np.testing.assert_allclose(keyframe.T_odom_camera, standing(1, 2, 3), atol=1e-9)


def test_odometry_between_keyframes_is_a_prior(session: Session, requests: Requests) -> None:
    ends: dict[str, Any] = {"reference": named(2), "target": named(7)}
    prior = requests.question(EstimateRelativePose.Goal(**ends))[0].prior
    assert prior is not None
    first, last = (session.named(MAP[index].id).T_odom_camera for index in (2, 7))
    np.testing.assert_allclose(prior.T_reference_target, rigid.relative(first, last), atol=1e-9)
    assert requests.question(EstimateRelativePose.Goal(**ends | {"target": view(1)}))[0].prior is None
    given = poses.to_pose_with_covariance(np.eye(4), np.eye(6))
    goal = EstimateRelativePose.Goal(**ends, use_prior=True, prior=given)
    np.testing.assert_allclose(requests.question(goal)[0].prior.T_reference_target, np.eye(4))
