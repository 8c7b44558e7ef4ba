# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from installed import require_ros

from pose_bridge.errors import BadCameraError
from pose_bridge.geometry.cameras import Camera

require_ros()

from sensor_msgs.msg import CameraInfo  # noqa: E402

from pose_bridge.ros import cameras  # noqa: E402


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


def test_a_raw_camera():
    camera = cameras.to_camera(info())
    np.testing.assert_array_equal(camera.to_opencv_K(), np.reshape(info().k, (3, 3)))
    assert camera.K[0, 2] == 32.0  # pixel centres at + 0.5
    assert camera.distortion_model == "plumb_bob"
    np.testing.assert_array_equal(camera.distortion, info().d)


def test_a_rectified_camera():
    camera = cameras.to_camera(info(), rectified=True)
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
    camera = cameras.to_camera(info(distortion_model=model, d=sent))
    assert (camera.distortion_model, camera.distortion.tolist()) == (wanted, kept)


@pytest.mark.parametrize("rectified", [False, True])
def test_binning_and_region(rectified):
    message = info(width=640, height=480, k=[500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0])
    message.p = [500.0, 0.0, 319.5, 0.0, 0.0, 510.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    message.binning_x, message.binning_y = 2, 4
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 20, 40, 301, 202
    camera = cameras.to_camera(message, rectified=rectified)
    assert (camera.width, camera.height) == (150, 50)
    np.testing.assert_allclose(camera.K, [[250.0, 0.0, 150.0], [0.0, 127.5, 50.0], [0.0, 0.0, 1.0]])
    full = cameras.to_camera(info(width=640, height=480, k=message.k, p=message.p), rectified=rectified)
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
    message = cameras.to_camera_info(camera)
    assert cameras.to_camera(message) == camera
    np.testing.assert_allclose(cameras.to_camera(message, rectified=True).K, camera.K)


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
        cameras.to_camera(info(**fields))


def test_a_camera_that_was_never_rectified_is_refused():
    with pytest.raises(BadCameraError, match="is the camera calibrated"):
        cameras.to_camera(info(p=[0.0] * 12), rectified=True)


def test_a_camera_info_of_another_size_is_refused():
    camera = cameras.to_camera(info())
    cameras.refuse_size(np.zeros((48, 64, 3), np.uint8), camera)
    for shape in ((64, 48, 3), (480, 640, 3)):
        with pytest.raises(BadCameraError, match=f"for 64x48 images, the image is {shape[1]}x{shape[0]}"):
            cameras.refuse_size(np.zeros(shape, np.uint8), camera)
