# SPDX-License-Identifier: Apache-2.0
import math
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ros_installed import require_ros

from pose_bridge import errors
from pose_bridge.errors import BadCameraError, BadImageError, BadInputError, ErrorCode
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Answer, Evidence, Reason, ScaleSource, Stage, Status, Translation

require_ros()

from geometry_msgs.msg import (  # noqa: E402
    Pose,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    TransformStamped,
)
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from pose_bridge.action import EstimateRelativePose, Relocalize  # noqa: E402
from pose_bridge.msg import Hypothesis, LoopClosureCandidate, RelativePose  # noqa: E402
from pose_bridge.msg import View as ViewMessage  # noqa: E402
from pose_bridge.ros import conversions, images  # noqa: E402
from pose_bridge.srv import MapFile, SetMapPose  # noqa: E402

REFERENCE = conversions.End(id="7", stamp_ns=5_000_000_001, camera_frame_id="camera_optical_frame")
TARGET = conversions.End(id="goal-3-target", stamp_ns=1_700_000_000_123_456_789, camera_frame_id="camera")
ROWS, COLUMNS = np.mgrid[:48, :64]
PICTURE = np.dstack([30 + 3 * COLUMNS, 60 + 2 * ROWS, 220 - 2 * COLUMNS]).astype(np.uint8)
SPREAD = np.random.default_rng(4).normal(size=(6, 6))
COVARIANCE = 0.5e-3 * (SPREAD @ SPREAD.T + (SPREAD @ SPREAD.T).T)

numbers = st.floats(-100.0, 100.0)
twists = st.tuples(*[numbers] * 3, *[st.floats(-1.8, 1.8)] * 3)


def info(**fields) -> CameraInfo:
    given = {
        "width": 64,
        "height": 48,
        "distortion_model": "plumb_bob",
        "d": [0.1, -0.2, 0.001, 0.002, 0.05],
        "k": [50.0, 0.0, 31.5, 0.0, 51.0, 23.5, 0.0, 0.0, 1.0],
        "p": [40.0, 0.0, 30.5, 0.0, 0.0, 41.0, 22.5, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    return CameraInfo(**{**given, **fields})


def finite_numbers(message, path="") -> list[str]:
    """Every floating-point number of a message that is finite, whatever it is in."""
    found = []
    for name, kind in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        if hasattr(value, "get_fields_and_field_types"):
            found += finite_numbers(value, f"{path}.{name}")
        elif kind.startswith(("sequence<", "float", "double")):
            for item in np.ravel(np.array(value, dtype=object)):
                if hasattr(item, "get_fields_and_field_types"):
                    found += finite_numbers(item, f"{path}.{name}[]")
                elif isinstance(item, float) and math.isfinite(item):
                    found.append(f"{path}.{name}")
    return found


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
        evidence=Evidence(
            tracks=123,
            features={},
            reference_view_id="7",
            target_view_id="t",
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
    T, covariance = conversions.from_pose_with_covariance(message.pose)
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
    assert conversions.from_stamp(message.header.stamp) == TARGET.stamp_ns
    assert conversions.from_stamp(message.reference_stamp) == REFERENCE.stamp_ns
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
    np.testing.assert_allclose(conversions.to_matrix(message.pose.pose)[:3, :3], answer.rotation, atol=1e-12)
    assert math.isnan(message.scale_sigma)


def test_results_say_that_nothing_went_wrong():
    answer = message_of(accepted())
    result = conversions.to_result(answer)
    assert (result.relative_pose, result.error_code) == (answer, EstimateRelativePose.Result.NONE)
    pose = conversions.to_stamped_pose(np.eye(4), COVARIANCE, 3, "map")
    found = conversions.to_localized(pose, answer, "7")
    assert (found.pose, found.relative_pose, found.keyframe_id) == (pose, answer, "7")
    assert found.error_code == Relocalize.Result.NONE
    assert finite_numbers(found.map_odom) == []
    map_odom = conversions.to_transform(np.eye(4), 3, "map", "odom")
    assert conversions.to_localized(pose, answer, "7", map_odom).map_odom == map_odom


def test_a_hypothesis_of_a_place():
    T = rigid.se3_exp([1.0, 2.0, 0.0, 0.0, 0.0, 1.0])
    place = conversions.to_hypothesis(T, COVARIANCE, probability=0.5, agreeing=2, keyframe_ids=("a", "b"))
    found, covariance = conversions.from_pose_with_covariance(place.pose)
    np.testing.assert_allclose(found, T, atol=1e-12)
    np.testing.assert_array_equal(covariance, COVARIANCE)
    assert (place.probability, place.agreeing, place.keyframe_ids) == (0.5, 2, ["a", "b"])


# --- poses ---


@given(twists)
def test_poses_return(twist):
    T = rigid.se3_exp(twist)
    np.testing.assert_allclose(conversions.to_matrix(conversions.to_pose(T)), T, atol=1e-9)
    sent = conversions.to_transform(T, 7, "map", "odom")
    np.testing.assert_allclose(conversions.transform_to_matrix(sent.transform), T, atol=1e-9)
    message = conversions.to_pose_with_covariance(T, COVARIANCE)
    found, covariance = conversions.from_pose_with_covariance(message)
    np.testing.assert_allclose(found, T, atol=1e-9)
    np.testing.assert_array_equal(covariance, COVARIANCE)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_return(stamp_ns):
    assert conversions.from_stamp(conversions.to_stamp(stamp_ns)) == stamp_ns


def test_the_covariance_is_row_by_row():
    covariance = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    covariance[0, 5] = covariance[5, 0] = 0.5
    message = conversions.to_pose_with_covariance(np.eye(4), covariance)
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
        conversions.to_matrix(Pose(orientation=orientation))


def test_a_prior_says_how_sure_it_is():
    T = rigid.se3_exp([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    prior = conversions.to_prior(conversions.to_pose_with_covariance(T, COVARIANCE))
    np.testing.assert_allclose(prior.T_reference_target, T, atol=1e-12)
    np.testing.assert_array_equal(prior.covariance, COVARIANCE)
    with pytest.raises(BadInputError, match="say how far off"):
        conversions.to_prior(PoseWithCovariance())
    lopsided = PoseWithCovariance()
    lopsided.covariance[1] = 1.0
    with pytest.raises(BadInputError, match="symmetric"):
        conversions.to_prior(lopsided)


def test_frames_have_names():
    for parent, child in (("", "odom"), ("map", ""), ("map", "map")):
        with pytest.raises(BadInputError, match="two frames with names"):
            conversions.to_transform(np.eye(4), 0, parent, child)
    with pytest.raises(BadInputError, match="the name of the frame"):
        conversions.to_stamped_pose(np.eye(4), COVARIANCE, 0, "")
    transform = conversions.to_transform(np.eye(4), 0, "map", "odom")
    assert conversions.to_tf([transform]).transforms == [transform]
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")


@given(st.floats(0.001, 10.0), st.floats(0.001, 10.0), st.floats(-0.999, 0.999))
def test_an_initial_pose_bounds_the_covariance(sigma_x, sigma_y, correlation):
    covariance = COVARIANCE.copy()
    covariance[:2, :] = covariance[:, :2] = 0.0
    block = np.array([[sigma_x**2, correlation * sigma_x * sigma_y], [0.0, sigma_y**2]])
    block[1, 0] = block[0, 1]
    covariance[:2, :2] = block
    message = conversions.to_initial_pose(np.eye(4), covariance, 5, "map")
    assert conversions.amcl_refusal(message) == ""
    sent = np.reshape(message.pose.covariance, (6, 6))
    assert np.array_equal(sent, np.diag(np.diag(sent)))
    assert np.linalg.eigvalsh(sent[:2, :2] - block)[0] >= -1e-12 * block.max()
    assert sent[5, 5] == covariance[5, 5]


def test_what_amcl_would_drop_is_refused():
    def refusal(change) -> str:
        message = conversions.to_initial_pose(np.eye(4), np.eye(6), 5, "map")
        change(message)
        return conversions.amcl_refusal(message)

    assert refusal(lambda m: None) == ""
    assert "no name" in refusal(lambda m: setattr(m.header, "frame_id", ""))
    assert "not finite" in refusal(lambda m: m.pose.covariance.__setitem__(3, math.nan))
    assert "not finite" in refusal(lambda m: setattr(m.pose.pose.position, "x", math.inf))
    assert "negative" in refusal(lambda m: m.pose.covariance.__setitem__(1, -1e-12))
    assert "above 1e9" in refusal(lambda m: m.pose.covariance.__setitem__(0, 1.1e9))
    assert "squared length" in refusal(lambda m: setattr(m.pose.pose.orientation, "z", 0.0101))
    assert refusal(lambda m: setattr(m.pose.pose.orientation, "z", 0.0099)) == ""
    with pytest.raises(BadInputError, match="above 1e9"):
        conversions.to_initial_pose(np.eye(4), np.diag([1e9, 1.0, 1.0, 1.0, 1.0, 1.0]), 5, "map")


# --- cameras ---


def test_a_raw_camera():
    camera = conversions.to_camera(info())
    np.testing.assert_array_equal(camera.to_opencv_K(), np.reshape(info().k, (3, 3)))
    assert camera.K[0, 2] == 32.0  # pixel centres at + 0.5
    assert camera.distortion_model == "plumb_bob"
    np.testing.assert_array_equal(camera.distortion, info().d)


def test_a_rectified_camera():
    camera = conversions.to_camera(info(), rectified=True)
    assert camera.to_opencv_K().tolist() == [[40.0, 0.0, 30.5], [0.0, 41.0, 22.5], [0.0, 0.0, 1.0]]
    assert camera.distortion_model == "none"


@pytest.mark.parametrize(
    ("model", "sent", "wanted", "kept"),
    [
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0], "plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.0]),
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0], "plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.3]),
        ("plumb_bob", [0.0] * 5, "none", []),
        ("plumb_bob", [], "none", []),
        ("", [], "none", []),
        ("inverse_brown_conrady", [0.0] * 5, "none", []),
        ("rational_polynomial", [0.1] * 8, "rational_polynomial", [0.1] * 8),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 6, "rational_polynomial", [0.1] * 8),
        ("equidistant", [0.0] * 4, "equidistant", [0.0] * 4),
        ("equidistant", [0.01] * 4, "equidistant", [0.01] * 4),
    ],
)
def test_distortion(model, sent, wanted, kept):
    camera = conversions.to_camera(info(distortion_model=model, d=sent))
    assert (camera.distortion_model, camera.distortion.tolist()) == (wanted, kept)


@pytest.mark.parametrize("rectified", [False, True])
def test_binning_and_region(rectified):
    message = info(width=640, height=480, k=[500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0])
    message.p = [500.0, 0.0, 319.5, 0.0, 0.0, 510.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    message.binning_x, message.binning_y = 2, 4
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 20, 40, 301, 202
    camera = conversions.to_camera(message, rectified=rectified)
    assert (camera.width, camera.height) == (150, 50)
    np.testing.assert_allclose(camera.K, [[250.0, 0.0, 150.0], [0.0, 127.5, 50.0], [0.0, 0.0, 1.0]])
    full = conversions.to_camera(info(width=640, height=480, k=message.k, p=message.p), rectified=rectified)
    ray = np.array([[0.1, -0.05, 1.0]])
    pixel = (full.project(ray) - (20, 40)) / (2, 4)
    np.testing.assert_allclose(camera.project(ray), pixel, atol=1e-9)


@pytest.mark.parametrize("model", ["none", "plumb_bob", "rational_polynomial", "equidistant"])
def test_cameras_return(model):
    count = {"none": 0, "plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}[model]
    camera = Camera.from_opencv(
        [[50.0, 0.0, 31.5], [0.0, 51.0, 23.5], [0.0, 0.0, 1.0]],
        0.01 * np.arange(1, count + 1),
        width=64,
        height=48,
        distortion_model=model,
    )
    message = conversions.to_camera_info(camera)
    assert conversions.to_camera(message) == camera
    np.testing.assert_allclose(conversions.to_camera(message, rectified=True).K, camera.K)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"k": [0.0] * 9}, "is the camera calibrated"),
        ({"k": [math.nan] * 9}, "K must be finite"),
        ({"d": [math.nan] * 5}, "distortion must be finite"),
        ({"d": [0.1] * 3}, "has 5 coefficients, got 3"),
        ({"d": [0.1] * 8}, "has 5 coefficients, got 8"),
        ({"distortion_model": "inverse_brown_conrady"}, "unknown distortion model"),
        ({"width": 0, "height": 0}, "read it off the image"),
        ({"binning_x": 100}, "must be a whole number > 0"),
    ],
)
def test_a_bad_camera_is_refused(fields, complaint):
    with pytest.raises(BadCameraError, match=complaint):
        conversions.to_camera(info(**fields))


def test_a_camera_that_was_never_rectified_is_refused():
    with pytest.raises(BadCameraError, match="is the camera calibrated"):
        conversions.to_camera(info(p=[0.0] * 12), rectified=True)


# --- views ---


def view_message(**fields) -> ViewMessage:
    message = ViewMessage(image=images.encode(PICTURE), camera_info=info())
    message.image.header.stamp = conversions.to_stamp(42)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_a_view_with_everything():
    T = rigid.se3_exp([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    message = view_message(depth=images.encode_depth(np.full((48, 64), 2.0, np.float32)))
    message.camera_pose = conversions.to_stamped_pose(T, np.zeros((6, 6)), 42, "odom")
    mask = np.ones((48, 64), bool)
    view = conversions.to_view(message, "goal-1-reference", mask)
    assert (view.id, view.stamp_ns) == ("goal-1-reference", 42)
    assert np.array_equal(view.image, PICTURE)
    assert view.camera == conversions.to_camera(info())
    assert view.mask is mask
    np.testing.assert_allclose(view.T_side_camera, T, atol=1e-12)
    assert (view.depth_m == 2.0).all()


def test_a_view_with_the_least():
    message = view_message(image=Image(), compressed_image=images.encode_compressed(PICTURE))
    message.compressed_image.header.stamp = conversions.to_stamp(43)
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


# --- as others do it ---


@given(twists)
def test_as_tf_transformations_does_it(twist):
    theirs = pytest.importorskip("tf_transformations")
    T = rigid.se3_exp(twist)
    q = conversions.to_pose(T).orientation
    np.testing.assert_allclose(theirs.quaternion_matrix([q.x, q.y, q.z, q.w])[:3, :3], T[:3, :3], atol=1e-9)
