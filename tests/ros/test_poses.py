# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed import require_ros

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid

require_ros()

from geometry_msgs.msg import Pose, PoseWithCovariance, Quaternion  # noqa: E402

from pose_bridge.ros import poses  # noqa: E402

SPREAD = np.random.default_rng(4).normal(size=(6, 6))
COVARIANCE = 0.5e-3 * (SPREAD @ SPREAD.T + (SPREAD @ SPREAD.T).T)

numbers = st.floats(-100.0, 100.0)
twists = st.tuples(*[numbers] * 3, *[st.floats(-1.8, 1.8)] * 3)


@given(twists)
def test_poses_return(twist):
    T = rigid.se3_exp(twist)
    np.testing.assert_allclose(poses.to_matrix(poses.to_pose(T)), T, atol=1e-9)
    sent = poses.to_transform(T, 7, "map", "odom")
    np.testing.assert_allclose(poses.transform_to_matrix(sent.transform), T, atol=1e-9)
    message = poses.to_pose_with_covariance(T, COVARIANCE)
    found, covariance = poses.from_pose_with_covariance(message)
    np.testing.assert_allclose(found, T, atol=1e-9)
    np.testing.assert_array_equal(covariance, COVARIANCE)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_return(stamp_ns):
    assert poses.from_stamp(poses.to_stamp(stamp_ns)) == stamp_ns


def test_the_covariance_is_row_by_row():
    covariance = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    covariance[0, 5] = covariance[5, 0] = 0.5
    message = poses.to_pose_with_covariance(np.eye(4), covariance)
    assert message.covariance[5] == message.covariance[30] == 0.5
    assert message.covariance[7] == 2.0


@pytest.mark.parametrize(
    "orientation",
    [
        Quaternion(x=0.0, y=0.0, z=0.0, w=0.0),
        Quaternion(x=math.nan, y=0.0, z=0.0, w=1.0),
        Quaternion(x=1.0, y=0.0, z=0.0, w=1.0),
    ],
)
def test_what_is_no_rotation_is_refused(orientation):
    with pytest.raises(BadInputError, match="quat_xyzw"):
        poses.to_matrix(Pose(orientation=orientation))


def test_a_prior_says_how_sure_it_is():
    T = rigid.se3_exp([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    prior = poses.to_prior(poses.to_pose_with_covariance(T, COVARIANCE))
    np.testing.assert_allclose(prior.T_reference_target, T, atol=1e-12)
    np.testing.assert_array_equal(prior.covariance, COVARIANCE)
    with pytest.raises(BadInputError, match="say how far off"):
        poses.to_prior(PoseWithCovariance())
    lopsided = PoseWithCovariance()
    lopsided.covariance[1] = 1.0
    with pytest.raises(BadInputError, match="symmetric"):
        poses.to_prior(lopsided)


def test_frames_have_names():
    for parent, child in (("", "odom"), ("map", ""), ("map", "map")):
        with pytest.raises(BadInputError, match="two frames with names"):
            poses.to_transform(np.eye(4), 0, parent, child)
    with pytest.raises(BadInputError, match="the name of the frame"):
        poses.to_stamped_pose(np.eye(4), COVARIANCE, 0, "")
    transform = poses.to_transform(np.eye(4), 0, "map", "odom")
    assert poses.to_tf([transform]).transforms == [transform]
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")


@given(st.floats(0.001, 10.0), st.floats(0.001, 10.0), st.floats(-0.999, 0.999))
def test_an_initial_pose_bounds_the_covariance(sigma_x, sigma_y, correlation):
    covariance = COVARIANCE.copy()
    covariance[:2, :] = covariance[:, :2] = 0.0
    block = np.array([[sigma_x**2, correlation * sigma_x * sigma_y], [0.0, sigma_y**2]])
    block[1, 0] = block[0, 1]
    covariance[:2, :2] = block
    message = poses.to_initial_pose(np.eye(4), covariance, 5, "map")
    assert poses.amcl_refusal(message) == ""
    sent = np.reshape(message.pose.covariance, (6, 6))
    assert np.array_equal(sent, np.diag(np.diag(sent)))
    assert np.linalg.eigvalsh(sent[:2, :2] - block)[0] >= -1e-12 * block.max()
    assert sent[5, 5] == covariance[5, 5]


def test_what_amcl_would_drop_is_refused():
    def refusal(change) -> str:
        message = poses.to_initial_pose(np.eye(4), np.eye(6), 5, "map")
        change(message)
        return poses.amcl_refusal(message)

    assert refusal(lambda m: None) == ""
    assert "no name" in refusal(lambda m: setattr(m.header, "frame_id", ""))
    assert "not finite" in refusal(lambda m: m.pose.covariance.__setitem__(3, math.nan))
    assert "not finite" in refusal(lambda m: setattr(m.pose.pose.position, "x", math.inf))
    assert "negative" in refusal(lambda m: m.pose.covariance.__setitem__(1, -1e-12))
    assert "above 1e9" in refusal(lambda m: m.pose.covariance.__setitem__(0, 1.1e9))
    assert "squared length" in refusal(lambda m: setattr(m.pose.pose.orientation, "z", 0.0101))
    assert refusal(lambda m: setattr(m.pose.pose.orientation, "z", 0.0099)) == ""
    with pytest.raises(BadInputError, match="above 1e9"):
        poses.to_initial_pose(np.eye(4), np.diag([1e9, 1.0, 1.0, 1.0, 1.0, 1.0]), 5, "map")


@given(twists)
def test_as_tf_transformations_does_it(twist):
    theirs = pytest.importorskip("tf_transformations")
    T = rigid.se3_exp(twist)
    q = poses.to_pose(T).orientation
    np.testing.assert_allclose(theirs.quaternion_matrix([q.x, q.y, q.z, q.w])[:3, :3], T[:3, :3], atol=1e-9)
