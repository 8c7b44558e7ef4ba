# SPDX-License-Identifier: Apache-2.0
"""Cameras, poses, views and answers in and out of ROS messages; what is not known is NaN there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from pose_bridge.action import EstimateRelativePose, Relocalize
from pose_bridge.errors import BadCameraError, BadImageError, BadInputError, ErrorCode, PoseBridgeError
from pose_bridge.geometry import rigid, rotations, uncertainty
from pose_bridge.geometry.arrays import Mask
from pose_bridge.geometry.cameras import COEFFICIENTS, Camera
from pose_bridge.msg import Hypothesis, RelativePose
from pose_bridge.msg import View as ViewMessage
from pose_bridge.ros import images
from pose_bridge.views import Answer, Prior, Reason, Status, Translation, View

Matrix = NDArray[np.float64]
Message = TypeVar("Message")

_NS = 1_000_000_000
# What nav2's AMCL refuses: nav2_util, validate_messages.hpp.
_MAX_VARIANCE = 1e9
_UNIT_TOLERANCE = 1e-4


class Failed(Protocol):
    """A result of either action, or a response of a service."""

    error_code: int
    error_msg: str


Failure = TypeVar("Failure", bound=Failed)


@dataclass(frozen=True, kw_only=True)
class End:
    """What a message says of one end of an answer.

    Attributes:
        id: Of the view or keyframe.
        stamp_ns: Of its capture.
        camera_frame_id: The camera's own tf frame.
    """

    id: str
    stamp_ns: int
    camera_frame_id: str


def to_stamp(stamp_ns: int) -> Time:
    """Return nanoseconds as a message."""
    seconds, nanoseconds = divmod(stamp_ns, _NS)
    return Time(sec=seconds, nanosec=nanoseconds)


def from_stamp(stamp: Time) -> int:
    """Return a stamp in nanoseconds."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def without_numbers(message: Message) -> Message:
    """Fill every floating-point number of a message with NaN, in place, and return it.

    rclpy's own defaults are an identity pose with zero covariance: the most certain answer there is.
    """
    for name in message.get_fields_and_field_types():  # type: ignore[attr-defined]
        value = getattr(message, name)
        if isinstance(value, float):
            setattr(message, name, float("nan"))
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            value.fill(np.nan)
        elif hasattr(value, "get_fields_and_field_types"):
            without_numbers(value)
    return message


def empty_answer() -> RelativePose:
    """Return an answer that says nothing: no estimate, every number NaN."""
    return without_numbers(RelativePose())


def to_camera(message: CameraInfo, *, rectified: bool = False) -> Camera:
    """Return the camera of the images that a sensor_msgs/CameraInfo is sent with, binning and ROI applied.

    Args:
        message: Raw images have K and D, rectified ones P.
        rectified: Whether the images are.

    Raises:
        BadCameraError: Not calibrated, not finite, or of a distortion model that is not understood.

    Source: the comments in sensor_msgs/CameraInfo: offsets are in full-resolution pixels, before binning.
    """
    K = np.reshape(message.p, (3, 4))[:, :3] if rectified else np.reshape(message.k, (3, 3))
    model, distortion = ("none", np.zeros(0)) if rectified else _distortion(message)
    full = Camera.from_opencv(
        K, distortion, width=message.width, height=message.height, distortion_model=model
    )
    x, y = max(1, message.binning_x), max(1, message.binning_y)
    roi = message.roi
    width, height = (roi.width or full.width) // x, (roi.height or full.height) // y
    return full.crop(roi.x_offset, roi.y_offset, width * x, height * y).resize(width, height)


def to_camera_info(camera: Camera) -> CameraInfo:
    """Return a camera as a message without a header, for raw images."""
    K = camera.to_opencv_K()
    model = "plumb_bob" if camera.distortion_model == "none" else camera.distortion_model
    distortion = np.zeros(5) if camera.distortion_model == "none" else camera.distortion
    P = np.hstack([K, np.zeros((3, 1))])
    return CameraInfo(
        width=camera.width,
        height=camera.height,
        distortion_model=model,
        d=distortion.tolist(),
        k=K.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=P.ravel().tolist(),
    )


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
    pose = Pose(orientation=_quaternion(matrix[:3, :3]))
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
    transform.transform.rotation = _quaternion(matrix[:3, :3])
    transform.transform.translation = _vector(matrix[:3, 3])
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


def has_picture(message: ViewMessage) -> bool:
    """Return whether a view brings its picture along, or names a keyframe by id or stamp."""
    return bool(len(message.image.data) or len(message.compressed_image.data))


def to_view(message: ViewMessage, view_id: str, mask: Mask | None = None) -> View:
    """Return the view that a goal brings along.

    Args:
        message: With a picture.
        view_id: Its name.
        mask: Where the picture may be used.

    Raises:
        BadImageError: No picture, or one that cannot be used; the message names the view.
        BadCameraError: The camera cannot be used, or its images are of another size.
        BadInputError: The pose or the depth cannot be used.
    """
    try:
        picture, image = _picture(message)
        camera = to_camera(message.camera_info, rectified=message.is_rectified)
        refuse_size(image, camera)
        posed = bool(message.camera_pose.header.frame_id)
        return View(
            id=view_id,
            image=image,
            camera=camera,
            mask=mask,
            stamp_ns=from_stamp(picture.header.stamp),
            T_side_camera=to_matrix(message.camera_pose.pose.pose) if posed else None,
            depth_m=images.decode_depth(message.depth) if len(message.depth.data) else None,
        )
    except BadInputError as error:
        named = f"view {view_id}: "
        raise type(error)(named + str(error).removeprefix(named)) from error


def refuse_size(image: NDArray[np.uint8], camera: Camera) -> None:
    """Check that a camera_info belongs to images of this size.

    Raises:
        BadCameraError: It does not.
    """
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise BadCameraError(
            f"camera_info is for {camera.width}x{camera.height} images, the image is {width}x{height}; "
            "send the camera_info of this very topic (an image that was resized has one of its own)"
        )


def to_message(
    answer: Answer, reference: End, target: End, *, prefix: str, hypothesis_asked: bool = False
) -> RelativePose:
    """Return an answer as a message in which every number that is not meant to be used is NaN.

    Args:
        answer: Of any status.
        reference: The reference view.
        target: The target view.
        prefix: Of both ends' own frames: `PREFIX/ID`.
        hypothesis_asked: Whether a hypothesis may be told; without, it is a rejection.
    """
    status, reason = answer.status, answer.reason
    if status is Status.HYPOTHESIS and not hypothesis_asked:
        status, reason = Status.REJECTED, reason or Reason.WEAK_BRIDGE
    message = empty_answer()
    message.header = Header(stamp=to_stamp(target.stamp_ns), frame_id=f"{prefix}/{reference.id}")
    message.child_frame_id = f"{prefix}/{target.id}"
    message.reference_stamp = to_stamp(reference.stamp_ns)
    message.reference_id, message.target_id = reference.id, target.id
    message.reference_camera_frame_id = reference.camera_frame_id
    message.target_camera_frame_id = target.camera_frame_id
    message.status, message.reason, message.reason_text = int(status), int(reason), answer.reason_text
    message.probability, message.processing_time_s = answer.probability, answer.elapsed_s
    message.stage, message.estimator, message.real_frames = (
        int(answer.stage),
        answer.estimator,
        answer.real_frames,
    )
    message.bridge_tracks = 0 if answer.evidence is None else answer.evidence.tracks
    if status in (Status.ACCEPTED, Status.HYPOTHESIS):
        _write_numbers(message, answer)
    return message


def to_result(relative_pose: RelativePose) -> EstimateRelativePose.Result:
    """Return the result of a question that was answered, be it with no."""
    return EstimateRelativePose.Result(relative_pose=relative_pose)


def to_localized(
    pose: PoseWithCovarianceStamped,
    relative_pose: RelativePose,
    keyframe_id: str,
    map_odom: TransformStamped | None = None,
) -> Relocalize.Result:
    """Return the result of a search that found the robot.

    Args:
        pose: Base in map at capture.
        relative_pose: From the map's keyframe to the view that answered.
        keyframe_id: That keyframe.
        map_odom: T_map_odom; None where there is no odometry, and its numbers are NaN.
    """
    result = without_numbers(Relocalize.Result())
    result.pose, result.relative_pose, result.keyframe_id = pose, relative_pose, keyframe_id
    if map_odom is not None:
        result.map_odom = map_odom
    return result


def to_hypothesis(
    T_map_base: ArrayLike,
    covariance: ArrayLike,
    *,
    probability: float,
    agreeing: int,
    keyframe_ids: Sequence[str],
) -> Hypothesis:
    """Return one place where the robot may be.

    Raises:
        BadInputError: Not rigid to 1e-6, or no covariance.
    """
    return Hypothesis(
        pose=to_pose_with_covariance(T_map_base, covariance),
        probability=float(probability),
        agreeing=agreeing,
        keyframe_ids=list(keyframe_ids),
    )


def to_failure(result: Failure, error: Exception) -> Failure:
    """Make a fresh result of either action, or a fresh response of a service, say why there is none.

    Args:
        result: Such as `Relocalize.Result()`; changed in place and returned, every number NaN.
        error: Any exception; what the library did not raise on purpose is UNKNOWN.
    """
    without_numbers(result)
    result.error_code = int(error.code if isinstance(error, PoseBridgeError) else ErrorCode.UNKNOWN)
    result.error_msg = str(error) or type(error).__name__
    return result


def _write_numbers(message: RelativePose, answer: Answer) -> None:
    """Write what the answer's translation lets be used; the rest stays NaN."""
    covariance = np.full((6, 6), np.nan)
    if answer.translation is Translation.METRIC:
        covariance = answer.covariance
        message.pose.pose = to_pose(answer.T_reference_target)
    else:
        covariance[3:, 3:] = answer.rotation_covariance_rad2
        message.pose.pose.orientation = _quaternion(answer.rotation)
    message.pose.covariance = covariance.ravel()
    message.translation = int(answer.translation)
    message.scale_source, message.scale_sigma = int(answer.scale_source), float(answer.scale_sigma)
    if answer.translation is not Translation.UNDEFINED:
        message.direction = _vector(answer.direction)
        message.direction_sigma_rad = answer.direction_sigma_rad


def _picture(message: ViewMessage) -> tuple[Any, NDArray[np.uint8]]:
    """Return the message that holds the picture, and the picture."""
    if len(message.image.data):
        return message.image, images.decode(message.image)
    if len(message.compressed_image.data):
        return message.compressed_image, images.decode_compressed(message.compressed_image)
    raise BadImageError(
        "neither an image nor a keyframe is given; fill in image, compressed_image or keyframe_id"
    )


def _distortion(message: CameraInfo) -> tuple[str, Matrix]:
    """Return the model and as many coefficients as it has; drivers add zeros, or send nothing but zeros."""
    model, coefficients = message.distortion_model, np.asarray(message.d, dtype=np.float64)
    if model != "equidistant" and not coefficients.any():
        return "none", np.zeros(0)
    wanted = COEFFICIENTS.get(model, len(coefficients))
    return model, coefficients if coefficients[wanted:].any() else coefficients[:wanted]


def _matrix(position: Any, orientation: Quaternion) -> Matrix:
    quat_xyzw = [orientation.x, orientation.y, orientation.z, orientation.w]
    R = rotations.rotation_from_quat_xyzw(quat_xyzw)
    return rigid.make(R, [position.x, position.y, position.z])


def _quaternion(R: ArrayLike) -> Quaternion:
    x, y, z, w = rotations.quat_xyzw_from_rotation(R).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)


def _vector(values: ArrayLike) -> Vector3:
    x, y, z = np.asarray(values, dtype=np.float64).tolist()
    return Vector3(x=x, y=y, z=z)
