# SPDX-License-Identifier: Apache-2.0
import math
from array import array

import numpy as np
import pytest
from installed import require_ros
from ros_numbers import finite_numbers
from synthetic import evidence

from pose_bridge import errors
from pose_bridge.errors import BadCameraError, BadImageError, BadInputError, ErrorCode
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import (
    Answer,
    Question,
    Reason,
    Require,
    ScaleSource,
    Stage,
    Status,
    Translation,
)

require_ros()

from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from pose_bridge.action import EstimateRelativePose, Relocalize  # noqa: E402
from pose_bridge.msg import Hypothesis, LoopClosureCandidate, RelativePose  # noqa: E402
from pose_bridge.msg import View as ViewMessage  # noqa: E402
from pose_bridge.ros import cameras, conversions, images, poses  # noqa: E402
from pose_bridge.srv import MapFile, SetMapPose  # noqa: E402

REFERENCE = conversions.End(id="7", stamp_ns=5_000_000_001, camera_frame_id="camera_optical_frame")
TARGET = conversions.End(id="goal-3-target", stamp_ns=1_700_000_000_123_456_789, camera_frame_id="camera")
ROWS, COLUMNS = np.mgrid[:48, :64]
PICTURE = np.dstack([30 + 3 * COLUMNS, 60 + 2 * ROWS, 220 - 2 * COLUMNS]).astype(np.uint8)
SPREAD = np.random.default_rng(4).normal(size=(6, 6))
COVARIANCE = 0.5e-3 * (SPREAD @ SPREAD.T + (SPREAD @ SPREAD.T).T)


def info(**fields) -> CameraInfo:
    camera = Camera.from_focal_px(50.0, 64, 48)
    message = cameras.to_camera_info(camera)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def accepted(translation=Translation.METRIC, status=Status.ACCEPTED) -> Answer:
    metric = translation is Translation.METRIC
    return Answer(
        status=status,
        reason=Reason.NONE if metric else Reason.NO_SCALE,
        stage=Stage.CONTEXT,
        probability=0.875,
        translation=translation,
        scale_source=ScaleSource.ODOMETRY if metric else ScaleSource.NONE,
        scale_sigma=0.25 if metric else float("nan"),
        estimator="sfm",
        real_frames=9,
        elapsed_s=1.5,
        evidence=evidence(
            tracks=123,
            reference_view_id="7",
            reference_points_px=np.zeros((1, 2)),
            target_points_px=np.zeros((1, 2)),
        ),
        _T_reference_target=rigid.se3_exp([1.0, 2.0, 3.0, 0.3, -0.2, 2.0]),
        _covariance=COVARIANCE,
        _direction_sigma_rad=0.0625,
    )


def message_of(answer: Answer, **options) -> RelativePose:
    return conversions.to_message(answer, REFERENCE, TARGET, prefix="bridge", **options)


# --- numbers that are not meant to be used ---


def test_finite_numbers_are_found():
    assert len(finite_numbers(RelativePose())) == 3 + 4 + 36 + 3 + 4  # rclpy's default: an identity pose
    assert finite_numbers(Relocalize.Result(hypotheses=[Hypothesis()]))[-1].startswith(".hypotheses[].")


FAILURES = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, errors.PoseBridgeError)
]


@pytest.mark.parametrize("result", [EstimateRelativePose.Result, Relocalize.Result])
@pytest.mark.parametrize("error", [*FAILURES, ValueError, MemoryError])
def test_a_failure_holds_no_number(result, error):
    failure = conversions.to_failure(result(), error("because"))
    assert finite_numbers(failure) == []
    assert failure.error_code == getattr(error, "code", ErrorCode.UNKNOWN) != ErrorCode.NONE
    assert failure.error_msg == "because"
    assert finite_numbers(deserialize_message(serialize_message(failure), result)) == []


@pytest.mark.parametrize("response", [SetMapPose.Response, MapFile.Response])
def test_services_fail_alike(response):
    failure = conversions.to_failure(response(), errors.StorageError())
    assert (failure.error_code, failure.error_msg) == (ErrorCode.STORAGE_FAILED, "StorageError")


@pytest.mark.parametrize(
    "message",
    [
        EstimateRelativePose.Feedback,
        EstimateRelativePose.Result,
        Relocalize.Feedback,
        Relocalize.Result,
        RelativePose,
        Hypothesis,
        PoseWithCovarianceStamped,
        TransformStamped,
    ],
)
def test_without_numbers_leaves_none(message):
    assert finite_numbers(message()) != []
    assert finite_numbers(conversions.without_numbers(message())) == []


def test_an_empty_answer_says_nothing():
    empty = conversions.empty_answer()
    assert finite_numbers(empty) == []
    assert empty.status == RelativePose.STATUS_NO_ESTIMATE


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NONE])
def test_a_rejection_holds_no_pose(reason):
    message = message_of(Answer.rejected(reason, "no", probability=0.125, elapsed_s=0.5))
    assert message.status == RelativePose.STATUS_REJECTED
    assert (message.reason, message.reason_text) == (reason, "no")
    assert sorted(finite_numbers(message)) == [".probability", ".processing_time_s"]  # of the judging


def test_a_hypothesis_is_told_to_who_asks():
    answer = accepted(status=Status.HYPOTHESIS)
    told = message_of(answer, hypothesis_asked=True)
    assert told.status == RelativePose.STATUS_HYPOTHESIS
    assert told.pose.pose.position.x == answer.T_reference_target[0, 3]
    kept = message_of(answer)
    assert (kept.status, kept.reason) == (RelativePose.STATUS_REJECTED, RelativePose.REASON_WEAK_BRIDGE)
    assert sorted(finite_numbers(kept)) == [".probability", ".processing_time_s"]


def test_a_metric_answer_is_told_whole():
    answer = accepted()
    message = message_of(answer)
    T, covariance = poses.from_pose_with_covariance(message.pose)
    np.testing.assert_allclose(T, answer.T_reference_target, atol=1e-12)
    np.testing.assert_array_equal(covariance, answer.covariance)
    direction = [message.direction.x, message.direction.y, message.direction.z]
    np.testing.assert_array_equal(direction, answer.direction)
    assert message.direction_sigma_rad == 0.0625
    assert message.status == RelativePose.STATUS_ACCEPTED
    assert message.translation == RelativePose.TRANSLATION_METRIC
    assert (message.scale_source, message.scale_sigma) == (RelativePose.SCALE_ODOMETRY, 0.25)
    assert (message.probability, message.processing_time_s) == (0.875, 1.5)
    assert (message.stage, message.estimator, message.real_frames) == (Stage.CONTEXT, "sfm", 9)
    assert message.bridge_tracks == 123
    assert message.header.frame_id == "bridge/7"
    assert message.child_frame_id == "bridge/goal-3-target"
    assert poses.from_stamp(message.header.stamp) == TARGET.stamp_ns
    assert poses.from_stamp(message.reference_stamp) == REFERENCE.stamp_ns
    assert (message.reference_id, message.target_id) == ("7", "goal-3-target")
    assert message.reference_camera_frame_id == "camera_optical_frame"
    assert message.target_camera_frame_id == "camera"
    assert deserialize_message(serialize_message(message), RelativePose) == message


@pytest.mark.parametrize("translation", [Translation.UNDEFINED, Translation.DIRECTION])
def test_of_an_answer_without_metres_only_what_is_known_is_told(translation):
    answer = accepted(translation)
    message = message_of(answer)
    found = set(finite_numbers(message))
    directed = {".direction.x", ".direction.y", ".direction.z", ".direction_sigma_rad"}
    assert found & directed == (directed if translation is Translation.DIRECTION else set())
    assert not {name for name in found if name.startswith(".pose.pose.position")}
    covariance = np.reshape(message.pose.covariance, (6, 6))
    np.testing.assert_array_equal(covariance[3:, 3:], COVARIANCE[3:, 3:])
    assert np.isnan(covariance[:3]).all() and np.isnan(covariance[:, :3]).all()
    message.pose.pose.position.x = message.pose.pose.position.y = message.pose.pose.position.z = 0.0
    np.testing.assert_allclose(poses.to_matrix(message.pose.pose)[:3, :3], answer.rotation, atol=1e-12)
    assert math.isnan(message.scale_sigma)


def test_results_say_that_nothing_went_wrong():
    answer = message_of(accepted())
    result = conversions.to_result(answer)
    assert (result.relative_pose, result.error_code) == (answer, EstimateRelativePose.Result.NONE)
    pose = poses.to_stamped_pose(np.eye(4), COVARIANCE, 3, "map")
    found = conversions.to_localized(pose, answer, "7")
    assert (found.pose, found.relative_pose, found.keyframe_id) == (pose, answer, "7")
    assert found.error_code == Relocalize.Result.NONE
    assert finite_numbers(found.map_odom) == []
    map_odom = poses.to_transform(np.eye(4), 3, "map", "odom")
    assert conversions.to_localized(pose, answer, "7", map_odom).map_odom == map_odom


def test_a_hypothesis_of_a_place():
    T = rigid.se3_exp([1.0, 2.0, 0.0, 0.0, 0.0, 1.0])
    place = conversions.to_hypothesis(T, COVARIANCE, probability=0.5, agreeing=2, keyframe_ids=("a", "b"))
    found, covariance = poses.from_pose_with_covariance(place.pose)
    np.testing.assert_allclose(found, T, atol=1e-12)
    np.testing.assert_array_equal(covariance, COVARIANCE)
    assert (place.probability, place.agreeing, place.keyframe_ids) == (0.5, 2, ["a", "b"])


def test_feedback_is_no_guess():
    feedback = conversions.to_feedback(Stage.REGISTER, 0.5, 1.25)
    assert (feedback.stage, feedback.progress, feedback.elapsed_s) == (Stage.REGISTER, 0.5, 1.25)
    assert feedback.best_so_far.status == RelativePose.STATUS_REJECTED
    assert finite_numbers(feedback.best_so_far) == []
    answer = message_of(accepted())
    assert conversions.to_feedback(Stage.CONTEXT, 1, 2, answer).best_so_far == answer


# --- goals ---


def question(**fields) -> Question:
    message = view_message()
    views = {"reference": conversions.to_view(message, "a"), "target": conversions.to_view(message, "b")}
    return Question(**views, **conversions.question_options(EstimateRelativePose.Goal(**fields)))


def test_a_goal_leaves_open_what_is_zero():
    asked, default = question(), question(require=1)
    assert asked.require is default.require is Require.DIRECTION
    assert (asked.budget_s, asked.min_probability, asked.prior, asked.seed) == (None, None, None, 0)
    assert asked.max_stage is Question(reference=asked.reference, target=asked.target).max_stage


def test_a_goal_is_understood():
    prior = poses.to_pose_with_covariance(np.eye(4), COVARIANCE)
    asked = question(
        require=EstimateRelativePose.Goal.REQUIRE_METRIC,
        max_stage=RelativePose.STAGE_REGISTER,
        budget_s=2.5,
        min_probability=0.75,
        use_prior=True,
        prior=prior,
        seed=2**64 - 1,
    )
    assert (asked.require, asked.max_stage) == (Require.METRIC, Stage.REGISTER)
    assert (asked.budget_s, asked.min_probability, asked.seed) == (2.5, 0.75, 2**64 - 1)
    np.testing.assert_array_equal(asked.prior.covariance, COVARIANCE)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"require": 3}, "require is 3; give one of 0 .ROTATION., 1"),
        ({"max_stage": 6}, "max_stage is 6"),
        ({"budget_s": -1.0}, "budget_s must be > 0"),
        ({"budget_s": math.nan}, "budget_s must be > 0"),
        ({"min_probability": 1.5}, "min_probability must lie"),
        ({"min_probability": math.nan}, "min_probability must lie"),
        ({"use_prior": True}, "say how far off"),
    ],
)
def test_an_impossible_goal_is_a_bad_request(fields, complaint):
    with pytest.raises(BadInputError, match=complaint) as caught:
        question(**fields)
    assert caught.value.code == ErrorCode.BAD_REQUEST


# --- views ---


def view_message(**fields) -> ViewMessage:
    message = ViewMessage(image=images.encode(PICTURE), camera_info=info())
    message.image.header.stamp = poses.to_stamp(42)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_a_view_with_everything():
    T = rigid.se3_exp([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    message = view_message(depth=images.encode_depth(np.full((48, 64), 2.0, np.float32)))
    message.camera_pose = poses.to_stamped_pose(T, np.zeros((6, 6)), 42, "odom")
    mask = np.ones((48, 64), bool)
    view = conversions.to_view(message, "goal-1-reference", mask)
    assert (view.id, view.stamp_ns) == ("goal-1-reference", 42)
    assert np.array_equal(view.image, PICTURE)
    assert view.camera == cameras.to_camera(info())
    assert view.mask is mask
    np.testing.assert_allclose(view.T_side_camera, T, atol=1e-12)
    assert (view.depth_m == 2.0).all()


def test_a_view_with_the_least():
    message = view_message(image=Image(), compressed_image=images.encode_compressed(PICTURE))
    message.compressed_image.header.stamp = poses.to_stamp(43)
    view = conversions.to_view(message, "a")
    assert (view.stamp_ns, view.T_side_camera, view.depth_m, view.mask) == (43, None, None, None)
    assert np.abs(view.image.astype(int) - PICTURE).mean() < 2


def test_a_picture_or_a_name():
    assert conversions.has_picture(view_message())
    assert conversions.has_picture(ViewMessage(compressed_image=images.encode_compressed(PICTURE)))
    assert not conversions.has_picture(ViewMessage(keyframe_id="7"))


def bad_pose() -> PoseWithCovarianceStamped:
    pose = conversions.without_numbers(PoseWithCovarianceStamped())
    pose.header.frame_id = "odom"
    return pose


@pytest.mark.parametrize(
    ("message", "error", "complaint"),
    [
        (ViewMessage(), BadImageError, "neither an image nor a keyframe"),
        (view_message(image=Image(data=array("B", b"abc"))), BadImageError, "unknown image encoding"),
        (view_message(camera_info=CameraInfo()), BadCameraError, "read it off the image"),
        (view_message(camera_info=info(width=640, height=480)), BadCameraError, "for 640x480 images"),
        (view_message(depth=images.encode(PICTURE)), BadImageError, "give 32FC1"),
        (
            view_message(depth=images.encode_depth(np.ones((4, 4), np.float32))),
            BadInputError,
            "depth_m must be",
        ),
        (view_message(camera_pose=bad_pose()), BadInputError, "quat_xyzw"),
    ],
)
def test_a_bad_view_is_refused_by_name(message, error, complaint):
    with pytest.raises(error, match=f"^view goal-1: .*{complaint}") as caught:
        conversions.to_view(message, "goal-1")
    assert str(caught.value).count("view goal-1") == 1


def test_a_loop_closure_candidate_holds_two_views():
    candidate = LoopClosureCandidate(reference=view_message(), target=ViewMessage(keyframe_id="7"))
    assert conversions.has_picture(candidate.reference) and not conversions.has_picture(candidate.target)
