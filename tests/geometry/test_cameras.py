# SPDX-License-Identifier: Apache-2.0
"""Cameras against OpenCV, the half-pixel rule, and calibrations that cannot be."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_bridge.errors import BadCameraError, BadInputError
from pose_bridge.geometry.cameras import Camera

WIDTH, HEIGHT = 640, 480
K_OPENCV = np.array([[520.0, 0.0, 315.3], [0.0, 515.0, 242.7], [0.0, 0.0, 1.0]])
# Real lenses: TUM freiburg1 (5), a barrel lens (4), an Azure Kinect (8), TUM-VI (fisheye).
TUM = (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)
BARREL = (-0.28, 0.07, 0.0003, -0.0002)
RATIONAL = (0.484, -2.766, 0.0003, -0.0002, 1.583, 0.364, -2.584, 1.507)
FISHEYE = (0.0034, 0.0008, -0.0023, 0.0004)


def _camera(distortion: tuple[float, ...] = (), model: str | None = None, **changes: float) -> Camera:
    K = K_OPENCV.copy()
    for name, value in changes.items():
        K[int(name[1]), int(name[2])] = value
    return Camera.from_opencv(K, distortion, width=WIDTH, height=HEIGHT, distortion_model=model)


LENSES = {
    "none": _camera(),
    "plumb_bob_5": _camera(TUM),
    "plumb_bob_4": _camera(BARREL),
    "rational_polynomial": _camera(RATIONAL),
    "equidistant": _camera(FISHEYE, "equidistant", k00=300.0, k11=300.0),
}
every_lens = pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())


def _opencv_pixels(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Project with OpenCV, to its own whole-numbered pixel centres."""
    zero, K, distortion = np.zeros(3), camera.to_opencv_K(), camera.distortion.copy()
    if camera.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, K, distortion)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, K, distortion)
    return np.asarray(pixels).reshape(-1, 2)


def _points_in_view(camera: Camera) -> np.ndarray:
    """Points at various depths whose pixels cover the image."""
    generator = np.random.default_rng(5)
    rays = camera.normalize(generator.uniform((0.0, 0.0), (WIDTH, HEIGHT), size=(200, 2)))
    assert np.isfinite(rays).all()
    return np.asarray(np.column_stack([rays, np.ones(200)]) * generator.uniform(0.1, 20.0, size=(200, 1)))


@every_lens
def test_project_agrees_with_opencv_half_a_pixel_on(camera: Camera) -> None:
    points = _points_in_view(camera)
    np.testing.assert_allclose(
        camera.project(points), _opencv_pixels(camera, points) + 0.5, rtol=0, atol=1e-9
    )


@every_lens
def test_normalize_inverts_opencv(camera: Camera) -> None:
    points = _points_in_view(camera)
    rays = camera.normalize(_opencv_pixels(camera, points) + 0.5)
    np.testing.assert_allclose(rays, points[:, :2] / points[:, 2:], rtol=0, atol=2e-7)


@every_lens
def test_normalize_then_project_is_the_same_pixel_all_over_the_image(camera: Camera) -> None:
    columns, rows = np.meshgrid(np.linspace(0.0, WIDTH, 33), np.linspace(0.0, HEIGHT, 25))
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    rays = camera.normalize(pixels)
    np.testing.assert_allclose(
        camera.project(np.column_stack([rays, np.ones(len(rays))])), pixels, rtol=0, atol=1e-5
    )


def test_the_optical_axis_of_an_opencv_calibration_is_half_a_pixel_on() -> None:
    camera = _camera()
    np.testing.assert_allclose(camera.K[:2, 2], K_OPENCV[:2, 2] + 0.5)
    np.testing.assert_allclose(camera.to_opencv_K(), K_OPENCV)
    np.testing.assert_allclose(camera.project([[0.0, 0.0, 3.0]]), [[315.8, 243.2]])


@every_lens
@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (333, 777), (1, 1)])
def test_a_pixel_keeps_its_ray_when_the_image_is_resized(camera: Camera, size: tuple[int, int]) -> None:
    pixels = np.array([[0.0, 0.0], [0.5, 0.5], [100.3, 400.2], [640.0, 480.0]])
    resized = camera.resize(*size)
    assert (resized.width, resized.height) == size
    scaled = pixels * size / np.array([WIDTH, HEIGHT])
    np.testing.assert_allclose(resized.normalize(scaled), camera.normalize(pixels), rtol=0, atol=2e-7)


@every_lens
def test_a_pixel_keeps_its_ray_when_the_image_is_cropped(camera: Camera) -> None:
    pixels = np.array([[200.5, 120.5], [333.3, 222.2]])
    cropped = camera.crop(200, 100, 300, 250)
    assert (cropped.width, cropped.height) == (300, 250)
    np.testing.assert_allclose(
        cropped.normalize(pixels - (200, 100)), camera.normalize(pixels), rtol=0, atol=1e-9
    )


def test_the_mean_of_four_pixels_is_the_pixel_of_the_half_sized_image() -> None:
    """Halving by averaging 2 x 2 blocks: the first has its centre at (1, 1), its pixel at (0.5, 0.5)."""
    camera = _camera()
    np.testing.assert_allclose(
        camera.resize(320, 240).normalize([[0.5, 0.5]]),
        camera.normalize([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [1.5, 1.5]]).mean(axis=0, keepdims=True),
    )


@given(
    st.floats(-0.35, 0.35),
    st.floats(-0.1, 0.1),
    st.tuples(st.floats(0.0, WIDTH), st.floats(0.0, HEIGHT)),
)
def test_a_ray_is_right_or_nan(k1: float, k2: float, pixel: tuple[float, float]) -> None:
    camera = _camera((k1, k2, 0.001, -0.001), k00=300.0, k11=300.0)
    ray = camera.normalize([pixel])[0]
    if np.isfinite(ray).all():
        assert np.linalg.norm(_opencv_pixels(camera, np.array([[*ray, 1.0]]))[0] + 0.5 - pixel) <= 0.1
    else:
        assert np.isnan(ray).all()


def test_what_does_not_invert_is_nan_and_only_that() -> None:
    # Strong barrel: r - r^3 / 3 never exceeds 2/3, and folds back beyond r = 1.
    camera = Camera.from_opencv(
        [[300, 0, 319.5], [0, 300, 239.5], [0, 0, 1]], (-1.0 / 3.0, 0, 0, 0), width=640, height=480
    )
    rays = camera.normalize(
        [[320.0, 240.0], [320.0 + 300.0 * 0.5, 240.0], [320.0 + 300.0 * 0.7, 240.0], [np.nan, 1.0]]
    )
    np.testing.assert_allclose(rays[0], [0.0, 0.0], rtol=0, atol=1e-12)
    x = rays[1, 0]
    assert x - x**3 / 3.0 == pytest.approx(0.5, abs=1e-6) and x < 1.0
    assert np.isnan(rays[2:]).all()
    pixels = camera.project([[0.9, 0.0, 1.0], [1.1, 0.0, 1.0], [np.sqrt(3.0), 0.0, 1.0]])
    assert np.isfinite(pixels[0]).all()
    assert np.isnan(pixels[1:]).all()  # the last would land in the middle of the image


def test_a_fisheye_folds_too() -> None:
    # theta - theta^3 / 3 grows up to theta = 1.
    camera = _camera((-1.0 / 3.0, 0.0, 0.0, 0.0), "equidistant")
    pixels = camera.project([[np.tan(0.99), 0.0, 1.0], [np.tan(1.01), 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert np.isfinite(pixels[[0, 2]]).all() and np.isnan(pixels[1]).all()


@pytest.mark.parametrize("k1", [1e-320, -1e-300, 1e-12])
def test_a_coefficient_of_almost_nothing_does_almost_nothing(k1: float) -> None:
    points = _points_in_view(_camera())
    for model, count in (("plumb_bob", 5), ("rational_polynomial", 8)):
        camera = _camera((k1, *[0.0] * (count - 2), -k1), model)
        np.testing.assert_allclose(camera.project(points), _camera().project(points), rtol=0, atol=1e-8)


def test_a_rational_lens_ends_at_its_pole() -> None:
    camera = _camera((0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0))  # radial factor 1 / (1 - r^2)
    pixels = camera.project([[0.9, 0.0, 1.0], [1.1, 0.0, 1.0]])
    assert np.isfinite(pixels[0]).all() and np.isnan(pixels[1]).all()


@pytest.mark.parametrize("model", ["none", "equidistant"])
def test_rays_from_85_degrees_on_are_nan(model: str) -> None:
    camera = _camera((0.0,) * 4 if model == "equidistant" else (), model, k00=10.0, k11=10.0)
    off_axis_rad = np.radians([84.9, 85.1])
    points = np.column_stack([np.sin(off_axis_rad), np.zeros(2), np.cos(off_axis_rad)])
    rays = camera.normalize(camera.project(points))
    assert rays[0, 0] == pytest.approx(np.tan(off_axis_rad[0]), rel=1e-6)
    assert np.isnan(rays[1]).all()


@every_lens
def test_points_that_are_not_in_front_are_nan(camera: Camera) -> None:
    pixels = camera.project(
        [[0.1, 0.1, -1.0], [0.1, 0.1, 0.0], [0.0, 0.0, 0.0], [0.1, np.nan, 1.0], [0.1, 0.1, 1.0]]
    )
    assert np.isnan(pixels[:3]).all()
    assert np.isnan(pixels[3]).any()
    assert np.isfinite(pixels[4]).all()


@every_lens
def test_no_points_give_no_points(camera: Camera) -> None:
    assert camera.normalize(np.zeros((0, 2))).shape == (0, 2)
    assert camera.project(np.zeros((0, 3))).shape == (0, 2)
    with pytest.raises(BadInputError, match="points_px"):
        camera.normalize(np.zeros((4, 3)))
    with pytest.raises(BadInputError, match="points_camera"):
        camera.project(np.zeros(3))


def test_field_of_view_and_focal_length() -> None:
    camera = Camera.from_focal_px(320.0, 640, 480)
    np.testing.assert_array_equal(camera.K, [[320, 0, 320], [0, 320, 240], [0, 0, 1]])
    assert camera.field_of_view_rad == pytest.approx((np.pi / 2, 2.0 * np.arctan(0.75)))
    assert _camera(k00=400.0, k11=900.0).mean_focal_px == pytest.approx(600.0)
    # An ideal fisheye: angle = radius / focal, whatever the lens.
    fisheye = _camera((0.0,) * 4, "equidistant", k00=300.0, k11=300.0)
    assert fisheye.field_of_view_rad == pytest.approx((640.0 / 300.0, 480.0 / 300.0), abs=1e-7)
    assert np.isnan(_camera((0.0,) * 4, "equidistant", k00=100.0, k11=100.0).field_of_view_rad[0])


@pytest.mark.parametrize(
    ("distortion", "model", "expected", "length"),
    [
        ((), None, "none", 0),
        ((0.0,) * 5, None, "none", 0),
        (BARREL, None, "plumb_bob", 5),
        (TUM, None, "plumb_bob", 5),
        (RATIONAL, None, "rational_polynomial", 8),
        ((0.0,) * 5, "plumb_bob", "plumb_bob", 5),
        (FISHEYE, "equidistant", "equidistant", 4),
    ],
)
def test_the_model_is_told_or_inferred(
    distortion: tuple[float, ...], model: str | None, expected: str, length: int
) -> None:
    camera = _camera(distortion, model)
    assert camera.distortion_model == expected
    assert camera.distortion.shape == (length,)
    np.testing.assert_array_equal(camera.distortion[: len(distortion)], distortion[:length])


def test_cameras_are_values() -> None:
    camera, same = _camera(TUM), _camera(TUM)
    assert camera == same and hash(camera) == hash(same)
    assert pickle.loads(pickle.dumps(camera)) == copy.deepcopy(camera) == camera
    assert dataclasses.replace(camera, width=641) != camera
    assert camera != _camera(BARREL) and camera != _camera(TUM, k00=521.0)
    assert camera != "camera"
    assert hash(_camera((0.1, 0.0, 0.0, 0.0))) == hash(_camera((0.1, -0.0, 0.0, 0.0)))


def test_cameras_cannot_be_changed_from_outside() -> None:
    K = K_OPENCV.copy()
    camera = Camera(width=WIDTH, height=HEIGHT, K=K, distortion_model="plumb_bob", distortion=np.array(TUM))
    K[0, 0] = 1.0
    assert camera.K[0, 0] == 520.0
    for array in (camera.K, camera.distortion):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        camera.width = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k00": np.nan}, "finite"),
        ({"k00": 0.0}, "focal"),
        ({"k11": -500.0}, "focal"),
        ({"k01": 0.1}, "skew"),
        ({"k10": 0.1}, "skew"),
        ({"k20": 1e-3}, "last row"),
        ({"k22": 2.0}, "last row"),
        ({"k02": -641.0}, "principal point"),
        ({"k02": 1281.0}, "principal point"),
        ({"k12": 961.0}, "principal point"),
    ],
)
def test_an_impossible_K_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(BadCameraError, match=message):
        _camera(**changes)


@pytest.mark.parametrize(
    ("distortion", "model", "message"),
    [
        ((0.1, 0.2), None, "2 coefficients"),
        ((0.1,) * 14, None, "14 coefficients"),
        ((0.1,) * 5, "equidistant", "has 4 coefficients, got 5"),
        ((), "plumb_bob", "has 5 coefficients, got 0"),
        ((0.1,) * 4, "none", "has 0 coefficients, got 4"),
        ((0.1,) * 4, "fisheye", "unknown distortion model 'fisheye'"),
        ((0.1, np.nan, 0.0, 0.0), None, "finite"),
        (((0.1,) * 4,), None, "shape"),
    ],
)
def test_an_impossible_distortion_is_refused(
    distortion: tuple[float, ...], model: str | None, message: str
) -> None:
    with pytest.raises(BadCameraError, match=message):
        _camera(distortion, model)


@pytest.mark.parametrize(("width", "height"), [(0, 480), (640, -1), (640.0, 480), (None, 480)])
def test_an_impossible_size_is_refused(width: int, height: int) -> None:
    with pytest.raises(BadCameraError, match=r"(width|height) must be a whole number"):
        Camera.from_opencv(K_OPENCV, width=width, height=height)


def test_an_impossible_crop_size_or_shape_is_refused() -> None:
    with pytest.raises(BadCameraError, match="width"):
        _camera().crop(0, 0, 0, 10)
    with pytest.raises(BadCameraError, match="principal point"):
        _camera().crop(0, 0, 100, 100)
    with pytest.raises(BadCameraError, match="height"):
        _camera().resize(320, 0)
    with pytest.raises(BadCameraError, match="focal"):
        Camera.from_focal_px(0.0, 640, 480)
    with pytest.raises(BadCameraError, match="shape"):
        Camera.from_opencv(np.eye(4), width=640, height=480)
