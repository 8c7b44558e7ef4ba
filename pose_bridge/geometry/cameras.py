# SPDX-License-Identifier: Apache-2.0
"""Cameras: pixels to rays and back.

Pixel centres are at +0.5: the top-left pixel's is (0.5, 0.5), and the image spans (0, 0) to (width, height).
OpenCV and ROS count from integer centres; `Camera.from_opencv` and `Camera.to_opencv_K` are the doors.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import cv2
import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike

from pose_bridge.errors import BadCameraError
from pose_bridge.geometry.arrays import Array, finite, shaped

# Number of coefficients of each distortion model, by the names of sensor_msgs/distortion_models.
COEFFICIENTS = {"none": 0, "plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}

_HALF_PIXEL = 0.5
_MAX_RAY_RAD = np.radians(85.0)
_MAX_MISS_PX = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """A calibrated camera: the size of its images, a pinhole and a distortion.

    Attributes:
        width: Of the image, px.
        height: Of the image, px.
        K: Pinhole matrix, (3, 3), px, with pixel centres at +0.5; no skew. Read-only.
        distortion_model: "none", "plumb_bob", "rational_polynomial" or "equidistant" (OpenCV's fisheye).
        distortion: Coefficients in OpenCV's order, (0,), (5,), (8,) or (4,). Read-only.

    Raises:
        BadCameraError: The calibration is impossible; the message says what, the value, and what to do.
    """

    width: int
    height: int
    K: Array
    distortion_model: str
    distortion: Array

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            size = getattr(self, name)
            if not isinstance(size, Integral) or size <= 0:
                raise BadCameraError(
                    f"{name} must be a whole number > 0, got {size!r}; read it off the image"
                )
            object.__setattr__(self, name, int(size))
        object.__setattr__(self, "K", _checked_K(self.K, self.width, self.height))
        object.__setattr__(self, "distortion", _checked_distortion(self.distortion_model, self.distortion))

    @classmethod
    def from_opencv(
        cls,
        K: ArrayLike,
        distortion: ArrayLike = (),
        *,
        width: int,
        height: int,
        distortion_model: str | None = None,
    ) -> Camera:
        """Return the camera of a calibration by OpenCV or ROS, whose pixel centres are whole numbers.

        Args:
            K: (3, 3), px.
            distortion: (0,), (4,), (5,) or (8,), in OpenCV's order.
            width: px.
            height: px.
            distortion_model: None: "none" for no coefficients or zeros, "plumb_bob" for 4 or 5,
                "rational_polynomial" for 8. A fisheye looks the same and must be said: "equidistant".

        Raises:
            BadCameraError: The calibration is impossible, or the model cannot be told from the coefficients.
        """
        coefficients = finite(distortion, (-1,), "distortion", BadCameraError)
        if distortion_model is None:
            distortion_model = _inferred_model(coefficients)
            coefficients = coefficients[: COEFFICIENTS[distortion_model]]
        K_house = finite(K, (3, 3), "K", BadCameraError).copy()
        K_house[:2, 2] += _HALF_PIXEL
        return cls(
            width=width,
            height=height,
            K=K_house,
            distortion_model=distortion_model,
            distortion=coefficients,
        )

    @classmethod
    def from_focal_px(cls, focal_px: float, width: int, height: int) -> Camera:
        """Return an undistorted camera with square pixels and the principal point in the middle of the image.

        Raises:
            BadCameraError: The focal length or a size is not positive.
        """
        K = np.array([[focal_px, 0.0, width / 2.0], [0.0, focal_px, height / 2.0], [0.0, 0.0, 1.0]])
        return cls(width=width, height=height, K=K, distortion_model="none", distortion=np.zeros(0))

    def to_opencv_K(self) -> Array:
        """Return K for whole-numbered pixel centres, (3, 3), as OpenCV and ROS want it."""
        K = self.K.copy()
        K[:2, 2] -= _HALF_PIXEL
        return K

    @property
    def mean_focal_px(self) -> float:
        """Geometric mean of the two focal lengths, px: turns small angles into pixels near the middle."""
        return float(np.sqrt(self.K[0, 0] * self.K[1, 1]))

    @property
    def field_of_view_rad(self) -> tuple[float, float]:
        """Horizontal and vertical angle between the image's borders; NaN where the lens does not reach."""
        cx, cy = self.K[:2, 2]
        borders_px = np.array([[0.0, cy], [self.width, cy], [cx, 0.0], [cx, self.height]])
        left, right, top, bottom = self.normalize(borders_px)
        return (
            float(np.arctan(right[0]) - np.arctan(left[0])),
            float(np.arctan(bottom[1]) - np.arctan(top[1])),
        )

    def normalize(self, points_px: ArrayLike) -> Array:
        """Return where the rays of pixels meet the plane z = 1.

        Args:
            points_px: (N, 2), pixel centres at +0.5.

        Returns:
            x/z and y/z, (N, 2). NaN where the lens model does not invert: the ray projects more than 0.1 px
            off, or lies 85 degrees or more off the axis.

        Raises:
            BadInputError: The points are not (N, 2).
        """
        points = shaped(points_px, (-1, 2), "points_px")
        if len(points) == 0:
            return np.zeros((0, 2))
        if self.distortion_model == "none":
            rays = (points - self.K[:2, 2]) / self.K[[0, 1], [0, 1]]
        else:
            rays = self._undistorted(points)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            miss_px = np.linalg.norm(self._pixels(rays) - points, axis=1)
            inverted = (miss_px <= _MAX_MISS_PX) & (np.linalg.norm(rays, axis=1) < np.tan(_MAX_RAY_RAD))
        return np.where(inverted[:, None], rays, np.nan)

    def project(self, points_camera: ArrayLike) -> Array:
        """Return the pixels where points are seen, whether or not these lie inside the image.

        Args:
            points_camera: (N, 3), in the optical frame: x right, y down, z forward.

        Returns:
            (N, 2), pixel centres at +0.5. NaN for points not in front of the camera (z <= 0), and where the
            distortion folds back, so that it would show a point from far outside amid the image.

        Raises:
            BadInputError: The points are not (N, 3).
        """
        points = shaped(points_camera, (-1, 3), "points_camera")
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return self._pixels(np.where(points[:, 2:] > 0.0, points[:, :2] / points[:, 2:], np.nan))

    def crop(self, left: int, top: int, width: int, height: int) -> Camera:
        """Return the camera of a window of the image; one that reaches outside stands for a padded image.

        Raises:
            BadCameraError: The window is empty, or more than its own size away from the principal point.
        """
        K = self.K.copy()
        K[:2, 2] -= (left, top)
        return Camera(
            width=width,
            height=height,
            K=K,
            distortion_model=self.distortion_model,
            distortion=self.distortion,
        )

    def resize(self, width: int, height: int) -> Camera:
        """Return the camera of the whole image resized; with pixel centres at +0.5 every length scales alike.

        Raises:
            BadCameraError: A size is not positive.
        """
        K = np.diag([width / self.width, height / self.height, 1.0]) @ self.K
        return Camera(
            width=width,
            height=height,
            K=K,
            distortion_model=self.distortion_model,
            distortion=self.distortion,
        )

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Camera) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        coefficients = tuple(self.distortion.tolist())
        return (self.width, self.height, self.distortion_model, *self.K.ravel().tolist(), coefficients)

    def _pixels(self, rays: Array) -> Array:
        """Return the pixels, (N, 2), of points on the plane z = 1, (N, 2)."""
        distorted = rays
        if self.distortion_model == "equidistant":
            distorted = _fisheye_distorted(rays, self.distortion)
        elif self.distortion_model != "none":
            distorted = _polynomial_distorted(rays, self.distortion)
        return np.asarray(distorted * self.K[[0, 1], [0, 1]] + self.K[:2, 2])

    def _undistorted(self, points_px: Array) -> Array:
        """Return what OpenCV's iteration finds for pixels, (N, 2), converged or not."""
        points, K, coefficients = points_px[:, None, :], self.K.copy(), self.distortion.copy()
        if self.distortion_model == "equidistant":  # Newton's method: OpenCV's own ten steps are enough
            rays = cv2.fisheye.undistortPoints(points, K, coefficients)
        else:
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-9)
            if hasattr(
                cv2, "undistortPointsIter"
            ):  # OpenCV 4, where undistortPoints itself stops after five steps
                rays = cv2.undistortPointsIter(points, K, coefficients, None, None, criteria)
            else:
                rays = cv2.undistortPoints(points, K, coefficients, criteria=criteria)
        return np.asarray(rays, dtype=np.float64).reshape(-1, 2)


def _checked_K(K: ArrayLike, width: int, height: int) -> Array:
    """Return K as a read-only copy, or raise BadCameraError."""
    matrix = finite(K, (3, 3), "K", BadCameraError).copy()
    focal_px, principal_px = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    if not (focal_px > 0.0).all():
        raise BadCameraError(
            f"focal lengths must be positive, got {focal_px.tolist()} px; is the camera calibrated?"
        )
    if matrix[2].tolist() != [0.0, 0.0, 1.0]:
        raise BadCameraError(f"K's last row must be 0 0 1, got {matrix[2].tolist()}; is K stored row by row?")
    if matrix[0, 1] != 0.0 or matrix[1, 0] != 0.0:
        raise BadCameraError(
            f"K must have no skew, got {matrix[0, 1]} and {matrix[1, 0]}; rectify the images first"
        )
    size = np.array([width, height])
    if (principal_px < -size).any() or (principal_px > 2 * size).any():
        raise BadCameraError(
            f"principal point {principal_px.tolist()} px is far outside the {width} x {height} image; "
            "is the calibration from images of another size?"
        )
    matrix.setflags(write=False)
    return matrix


def _checked_distortion(model: str, distortion: ArrayLike) -> Array:
    """Return the coefficients as a read-only copy of the model's length, or raise BadCameraError."""
    if model not in COEFFICIENTS:
        raise BadCameraError(f"unknown distortion model {model!r}; give one of {', '.join(COEFFICIENTS)}")
    coefficients = finite(distortion, (-1,), "distortion", BadCameraError)
    if model == "plumb_bob" and len(coefficients) == 4:
        coefficients = np.append(coefficients, 0.0)
    if len(coefficients) != COEFFICIENTS[model]:
        raise BadCameraError(
            f"distortion model {model} has {COEFFICIENTS[model]} coefficients, got {len(coefficients)}; "
            "is it the model that the camera was calibrated with?"
        )
    coefficients = coefficients.copy()
    coefficients.setflags(write=False)
    return coefficients


def _inferred_model(coefficients: Array) -> str:
    if not coefficients.any():
        return "none"
    models = {4: "plumb_bob", 5: "plumb_bob", 8: "rational_polynomial"}
    if len(coefficients) not in models:
        raise BadCameraError(
            f"no distortion model has {len(coefficients)} coefficients; "
            "give 4 or 5 (plumb_bob) or 8 (rational_polynomial)"
        )
    return models[len(coefficients)]


def _polynomial_distorted(rays: Array, coefficients: Array) -> Array:
    """Distort points on the plane z = 1, (N, 2), by plumb_bob or rational_polynomial; NaN beyond the fold.

    Source: OpenCV, calib3d, "Detailed Description", without thin prism and tilt.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = np.append(coefficients, np.zeros(8 - len(coefficients)))
    numerator, denominator = np.array([1.0, k1, k2, k3]), np.array([1.0, k4, k5, k6])
    # With u = r^2, r N(u) / D(u) grows as long as N D + 2 u (N' D - N D') > 0, and has a pole where D = 0.
    slope = polynomial.polysub(
        polynomial.polymul(polynomial.polyder(numerator), denominator),
        polynomial.polymul(numerator, polynomial.polyder(denominator)),
    )
    slope = polynomial.polyadd(polynomial.polymul(numerator, denominator), 2.0 * polynomial.polymulx(slope))
    limit = min(_first_positive_root(slope), _first_positive_root(denominator))
    x, y = rays.T
    u = x * x + y * y
    radial = polynomial.polyval(u, numerator) / polynomial.polyval(u, denominator)
    distorted = np.stack(
        [
            x * radial + 2.0 * p1 * x * y + p2 * (u + 2.0 * x * x),
            y * radial + p1 * (u + 2.0 * y * y) + 2.0 * p2 * x * y,
        ],
        axis=1,
    )
    return np.where((u < limit)[:, None], distorted, np.nan)


def _fisheye_distorted(rays: Array, coefficients: Array) -> Array:
    """Distort points on the plane z = 1, (N, 2), by the equidistant model; NaN beyond the fold.

    Source: Kannala and Brandt, A Generic Camera Model and Calibration Method, PAMI 28(8), 2006, equation 6.
    """
    series = np.append(1.0, coefficients)  # theta_d / theta, in powers of theta^2
    limit = _first_positive_root(series * (1.0, 3.0, 5.0, 7.0, 9.0))
    radius = np.linalg.norm(rays, axis=1)
    theta = np.arctan(radius)
    theta_over_radius = np.divide(theta, radius, out=np.ones_like(theta), where=radius > 0.0)
    stretch = np.where(theta**2 < limit, polynomial.polyval(theta**2, series) * theta_over_radius, np.nan)
    return np.asarray(rays * stretch[:, None])


def _first_positive_root(coefficients: Array) -> float:
    """Return the smallest positive real root of 1 + c1 u + c2 u^2 + ..., infinity if it has none."""
    # As roots in 1 / u, because that polynomial has the leading coefficient 1 and not one that may be tiny.
    inverses = polynomial.polyroots(np.trim_zeros(coefficients, "b")[::-1])
    largest = inverses.real[np.isreal(inverses)].max(initial=0.0)
    return 1.0 / float(largest) if largest > 0.0 else float("inf")
