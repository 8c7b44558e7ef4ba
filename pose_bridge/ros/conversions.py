# SPDX-License-Identifier: Apache-2.0
"""Goals, views and answers in and out of ROS messages; what is not known is NaN there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, TypeVar

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from numpy.typing import ArrayLike, NDArray
from std_msgs.msg import Header

from pose_bridge.action import EstimateRelativePose, Relocalize
from pose_bridge.errors import BadImageError, BadInputError, ErrorCode, PoseBridgeError
from pose_bridge.geometry.arrays import Mask
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.msg import Hypothesis, RelativePose
from pose_bridge.msg import View as ViewMessage
from pose_bridge.ros import cameras, images, poses
from pose_bridge.views import Answer, Reason, Require, Stage, Status, Translation, View

Message = TypeVar("Message")


class Failed(Protocol):
    """A result of either action, or a response of a service."""

    error_code: int
    error_msg: str


Failure = TypeVar("Failure", bound=Failed)
Member = TypeVar("Member", bound=IntEnum)


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

    @classmethod
    def of(cls, keyframe: Keyframe) -> End:
        """Return the end that a keyframe is."""
        return cls(id=keyframe.id, stamp_ns=keyframe.stamp_ns, camera_frame_id=keyframe.camera_id)


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


def question_options(goal: EstimateRelativePose.Goal) -> dict[str, Any]:
    """Return what a goal says besides its views, as keywords of `views.Question`.

    Raises:
        BadInputError: A stage or a requirement that does not exist, or a prior that is none.
    """
    options: dict[str, Any] = {
        "require": _member(Require, goal.require, "require"),
        "allow_hypothesis": bool(goal.allow_hypothesis),
        "seed": int(goal.seed),
    }
    if goal.max_stage:
        options["max_stage"] = _member(Stage, goal.max_stage, "max_stage")
    return options | {
        "prior": poses.to_prior(goal.prior) if goal.use_prior else None,
        "budget_s": unless_zero(goal.budget_s),
        "min_probability": unless_zero(goal.min_probability),
    }


def unless_zero(value: float) -> float | None:
    """Return a goal's number, or None for 0, which stands for the parameter's value."""
    return None if value == 0.0 else float(value)


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
        camera = cameras.to_camera(message.camera_info, rectified=message.is_rectified)
        cameras.refuse_size(image, camera)
        posed = bool(message.camera_pose.header.frame_id)
        return View(
            id=view_id,
            image=image,
            camera=camera,
            mask=mask,
            stamp_ns=poses.from_stamp(picture.header.stamp),
            T_side_camera=poses.to_matrix(message.camera_pose.pose.pose) if posed else None,
            depth_m=images.decode_depth(message.depth) if len(message.depth.data) else None,
        )
    except BadInputError as error:
        named = f"view {view_id}: "
        raise type(error)(named + str(error).removeprefix(named)) from error


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
    message.header = Header(stamp=poses.to_stamp(target.stamp_ns), frame_id=f"{prefix}/{reference.id}")
    message.child_frame_id = f"{prefix}/{target.id}"
    message.reference_stamp = poses.to_stamp(reference.stamp_ns)
    message.reference_id, message.target_id = reference.id, target.id
    message.reference_camera_frame_id = reference.camera_frame_id
    message.target_camera_frame_id = target.camera_frame_id
    message.status, message.reason, message.reason_text = int(status), int(reason), text(answer.reason_text)
    message.probability, message.processing_time_s = float(answer.probability), float(answer.elapsed_s)
    message.stage, message.estimator, message.generator = (
        int(answer.stage),
        answer.estimator,
        answer.generator,
    )
    message.real_frames, message.generated_frames = answer.real_frames, answer.generated_frames
    message.bridge_tracks = 0 if answer.evidence is None else answer.evidence.tracks
    if status in (Status.ACCEPTED, Status.HYPOTHESIS):
        _write_numbers(message, answer)
    return message


def to_feedback(
    stage: Stage, progress: float, elapsed_s: float, best: RelativePose | None = None
) -> EstimateRelativePose.Feedback:
    """Return how far a question has come.

    Args:
        stage: The rung that is tried.
        progress: Within the rung, 0 to 1.
        elapsed_s: Since the goal began to run.
        best: The best answer so far; None: rejected, without numbers.
    """
    if best is None:
        best = empty_answer()
        best.status = int(Status.REJECTED)
    return EstimateRelativePose.Feedback(
        stage=int(stage), progress=float(progress), elapsed_s=float(elapsed_s), best_so_far=best
    )


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
        pose=poses.to_pose_with_covariance(T_map_base, covariance),
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
    result.error_msg = text(str(error)) or type(error).__name__
    return result


def text(anything: str) -> str:
    """Return text that a message can hold; one with half a surrogate pair in it cannot even be logged."""
    return anything.encode(errors="replace").decode()


def _write_numbers(message: RelativePose, answer: Answer) -> None:
    """Write what the answer's translation lets be used; the rest stays NaN."""
    covariance = np.full((6, 6), np.nan)
    if answer.translation is Translation.METRIC:
        covariance = answer.covariance
        message.pose.pose = poses.to_pose(answer.T_reference_target)
    else:
        covariance[3:, 3:] = answer.rotation_covariance_rad2
        message.pose.pose.orientation = poses.to_quaternion(answer.rotation)
    message.pose.covariance = covariance.ravel()
    message.translation = int(answer.translation)
    message.scale_source, message.scale_sigma = int(answer.scale_source), float(answer.scale_sigma)
    if answer.translation is not Translation.UNDEFINED:
        message.direction = poses.to_vector(answer.direction)
        message.direction_sigma_rad = float(answer.direction_sigma_rad)


def _picture(message: ViewMessage) -> tuple[Any, NDArray[np.uint8]]:
    """Return the message that holds the picture, and the picture."""
    if len(message.image.data):
        return message.image, images.decode(message.image)
    if len(message.compressed_image.data):
        return message.compressed_image, images.decode_compressed(message.compressed_image)
    raise BadImageError(
        "neither an image nor a keyframe is given; fill in image, compressed_image or keyframe_id"
    )


def _member(kind: type[Member], value: int, name: str) -> Member:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(f"{int(item)} ({item.name})" for item in kind)
        raise BadInputError(f"{name} is {value}; give one of {known}") from error
