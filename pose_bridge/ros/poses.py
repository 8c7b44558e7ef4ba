# SPDX-License-Identifier: Apache-2.0
"""Stamps, poses and covariances in and out of ROS messages, and what nav2 takes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Pose,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
from numpy.typing import ArrayLike, NDArray
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations, uncertainty
from pose_bridge.views import Prior

Matrix = NDArray[np.float64]

_NS = 1_000_000_000
# What nav2's AMCL refuses: nav2_util, validate_messages.hpp.
_MAX_VARIANCE = 1e9
_UNIT_TOLERANCE = 1e-4


def to_stamp(stamp_ns: int) -> Time:
    """Return nanoseconds as a message."""
    seconds, nanoseconds = divmod(stamp_ns, _NS)
    return Time(sec=seconds, nanosec=nanoseconds)


def from_stamp(stamp: Time) -> int:
    """Return a stamp in nanoseconds."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def to_matrix(pose: Pose) -> Matrix:
    """Return a pose as (4, 4).

    Raises:
        BadInputError: NaN, infinite, or a quaternion that is not of unit length.
    """
    return _matrix(pose.position, pose.orientation)


def transform_to_matrix(transform: Transform) -> Matrix:
    """Return a transform as (4, 4): T_header.frame_id_child.

    Raises:
        BadInputError: As `to_matrix`.
    """
    return _matrix(transform.translation, transform.rotation)


def to_pose(T: ArrayLike) -> Pose:
    """Return (4, 4) as a pose.

    Raises:
        BadInputError: Not rigid to 1e-6.
    """
    matrix = rigid.rigid(T)
    pose = Pose(orientation=to_quaternion(matrix[:3, :3]))
    pose.position.x, pose.position.y, pose.position.z = matrix[:3, 3].tolist()
    return pose


def to_transform(T_parent_child: ArrayLike, stamp_ns: int, parent: str, child: str) -> TransformStamped:
    """Return (4, 4) as a transform for tf.

    Raises:
        BadInputError: Not rigid to 1e-6, or a frame without a name.
    """
    if not parent or not child or parent == child:
        raise BadInputError(f"a transform needs two frames with names, got {parent!r} and {child!r}")
    matrix = rigid.rigid(T_parent_child)
    transform = TransformStamped(
        header=Header(stamp=to_stamp(stamp_ns), frame_id=parent), child_frame_id=child
    )
    transform.transform.rotation = to_quaternion(matrix[:3, :3])
    transform.transform.translation = to_vector(matrix[:3, 3])
    return transform


def to_tf(transforms: Sequence[TransformStamped]) -> TFMessage:
    """Return transforms as tf takes them."""
    return TFMessage(transforms=list(transforms))


def to_prior(message: PoseWithCovariance) -> Prior:
    """Return a guess.

    Raises:
        BadInputError: The pose is no pose, the covariance none, or zero as where nobody set it.
    """
    T, covariance = from_pose_with_covariance(message)
    if not (np.diag(covariance) > 0.0).all():
        raise BadInputError(
            "the prior's covariance has zeros on its diagonal; say how far off the guess may be"
        )
    return Prior(T_reference_target=T, covariance=covariance)


def from_pose_with_covariance(message: PoseWithCovariance) -> tuple[Matrix, Matrix]:
    """Return a pose, (4, 4), and its covariance, (6, 6).

    Raises:
        BadInputError: As `to_matrix`, or the matrix is no covariance.
    """
    return to_matrix(message.pose), uncertainty.checked(np.reshape(message.covariance, (6, 6)))


def to_pose_with_covariance(T: ArrayLike, covariance: ArrayLike) -> PoseWithCovariance:
    """Return a pose, (4, 4), and its covariance, (6, 6), as a message.

    Raises:
        BadInputError: Not rigid to 1e-6, or no covariance.
    """
    return PoseWithCovariance(pose=to_pose(T), covariance=uncertainty.checked(covariance).ravel())


def to_stamped_pose(
    T_frame_body: ArrayLike, covariance: ArrayLike, stamp_ns: int, frame_id: str
) -> PoseWithCovarianceStamped:
    """Return a pose, (4, 4), and its covariance, (6, 6), in a frame at a time.

    Raises:
        BadInputError: Not rigid to 1e-6, no covariance, or a frame without a name.
    """
    if not frame_id:
        raise BadInputError("a pose needs the name of the frame that it is in")
    return PoseWithCovarianceStamped(
        header=Header(stamp=to_stamp(stamp_ns), frame_id=frame_id),
        pose=to_pose_with_covariance(T_frame_body, covariance),
    )


def to_initial_pose(
    T_map_base: ArrayLike, covariance: ArrayLike, stamp_ns: int, map_frame_id: str
) -> PoseWithCovarianceStamped:
    """Return a pose as nav2's AMCL takes it on `initialpose`: with a diagonal that bounds the covariance.

    Raises:
        BadInputError: As `to_stamped_pose`, or AMCL would drop the message.
    """
    diagonal = np.diag(uncertainty.checked(covariance)).copy()
    diagonal[:2] *= 2.0  # twice the diagonal bounds a 2 x 2 block, whatever its correlation
    message = to_stamped_pose(T_map_base, np.diag(diagonal), stamp_ns, map_frame_id)
    refusal = amcl_refusal(message)
    if refusal:
        raise BadInputError(f"not a pose for {map_frame_id}: {refusal}")
    return message


def amcl_refusal(message: PoseWithCovarianceStamped) -> str:
    """Return why nav2's AMCL would drop an `initialpose` whole, or nothing.

    Source: nav2_util, validate_messages.hpp.
    """
    pose = message.pose.pose
    position = [pose.position.x, pose.position.y, pose.position.z]
    quat_xyzw = [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]
    elements = np.asarray(message.pose.covariance)
    if not message.header.frame_id:
        return "the frame has no name"
    if not np.isfinite([*position, *quat_xyzw, *elements]).all():
        return "a number is not finite"
    if (elements < 0.0).any():
        return f"the covariance has a negative element, {elements.min():.3g}"
    if (elements > _MAX_VARIANCE).any():
        return f"the covariance has an element above 1e9, {elements.max():.3g}"
    if not abs(np.dot(quat_xyzw, quat_xyzw) - 1.0) < _UNIT_TOLERANCE:
        return f"the quaternion's squared length is {np.dot(quat_xyzw, quat_xyzw):.6g}"
    return ""


def to_quaternion(R: ArrayLike) -> Quaternion:
    """Return a rotation, (3, 3), as a message.

    Raises:
        BadInputError: Not a rotation to 1e-6.
    """
    x, y, z, w = rotations.quat_xyzw_from_rotation(R).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)


def to_vector(values: ArrayLike) -> Vector3:
    """Return three numbers as a message."""
    x, y, z = np.asarray(values, dtype=np.float64).tolist()
    return Vector3(x=x, y=y, z=z)


def _matrix(position: Any, orientation: Quaternion) -> Matrix:
    quat_xyzw = [orientation.x, orientation.y, orientation.z, orientation.w]
    R = rotations.rotation_from_quat_xyzw(quat_xyzw)
    return rigid.make(R, [position.x, position.y, position.z])
