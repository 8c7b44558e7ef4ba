# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms: `T_a_b`, (4, 4), takes points of frame b to frame a."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array, finite, fraction_of_one, shaped

_LAST_ROW_TOLERANCE = 1e-6
_DIGITS_TOLERANCE = 1e-3
# Below this angle (theta - sin theta) / theta^3 loses digits, and three terms of its series are exact.
_SMALL_ANGLE_RAD = 1e-2


def rigid(T: ArrayLike) -> Array:
    """Return `T` in float64, (4, 4).

    Raises:
        BadInputError: Not rigid to 1e-6: scale, shear, reflection, another last row, NaN, another shape.
    """
    matrix = finite(T, (4, 4), "transform")
    if np.abs(matrix[3] - (0.0, 0.0, 0.0, 1.0)).max() > _LAST_ROW_TOLERANCE:
        raise BadInputError(f"last row must be 0 0 0 1, got {matrix[3].tolist()}; is it transposed?")
    rotations.rotation(matrix[:3, :3])
    return matrix


def from_digits(T: ArrayLike) -> Array:
    """Return a transform whose rotation was written with few digits, as files have them, exactly rigid.

    Raises:
        BadInputError: Not rigid to 1e-3, or as `rigid`.
    """
    matrix = finite(T, (4, 4), "transform").copy()
    R = rotations.nearest_rotation(matrix[:3, :3])
    if np.abs(R - matrix[:3, :3]).max() <= _DIGITS_TOLERANCE:
        matrix[:3, :3] = R
    return rigid(matrix)


def make(R: ArrayLike, t: ArrayLike) -> Array:
    """Return the transform of a rotation and a translation.

    Args:
        R: R_a_b, (3, 3).
        t: Origin of frame b in frame a, (3,).

    Returns:
        T_a_b, (4, 4).

    Raises:
        BadInputError: `R` is not a rotation to 1e-6, or `t` not three finite numbers.
    """
    T_a_b = np.eye(4)
    T_a_b[:3, :3] = rotations.rotation(R)
    T_a_b[:3, 3] = finite(t, (3,), "translation")
    return T_a_b


def inverse(T_a_b: ArrayLike) -> Array:
    """Return T_b_a.

    Raises:
        BadInputError: The input is not rigid to 1e-6.
    """
    T = rigid(T_a_b)
    R_b_a = T[:3, :3].T
    return make(R_b_a, -R_b_a @ T[:3, 3])


def relative(T_world_reference: ArrayLike, T_world_target: ArrayLike) -> Array:
    """Return the target camera's pose seen from the reference camera.

    Args:
        T_world_reference: Camera-to-world, (4, 4).
        T_world_target: Camera-to-world, (4, 4), the same unit of length.

    Returns:
        T_reference_target, (4, 4).

    Raises:
        BadInputError: An input is not rigid to 1e-6.
    """
    return inverse(T_world_reference) @ rigid(T_world_target)


def transform(T_a_b: ArrayLike, points_b: ArrayLike) -> Array:
    """Return points of frame b in frame a.

    Args:
        T_a_b: (4, 4).
        points_b: (N, 3). A row with NaN stays NaN.

    Returns:
        (N, 3).

    Raises:
        BadInputError: The transform is not rigid to 1e-6, or the points are not (N, 3).
    """
    T = rigid(T_a_b)
    return np.asarray(shaped(points_b, (-1, 3), "points_b") @ T[:3, :3].T + T[:3, 3])


def se3_exp(twist: ArrayLike) -> Array:
    """Return the transform of a twist.

    Args:
        twist: Translation part, then rotation part in radians, (6,).

    Returns:
        (4, 4).

    Raises:
        BadInputError: `twist` is not six finite numbers.

    Source: Barfoot, State Estimation for Robotics, equations 7.79 and 7.85.
    """
    vector = finite(twist, (6,), "twist")
    return make(rotations.so3_exp(vector[3:]), _left_jacobian(vector[3:]) @ vector[:3])


def se3_log(T: ArrayLike) -> Array:
    """Return the twist of a transform: translation part, then rotation part in radians, (6,).

    Raises:
        BadInputError: The input is not rigid to 1e-6.
    """
    matrix = rigid(T)
    rotvec_rad = rotations.so3_log(matrix[:3, :3])
    return np.concatenate([np.linalg.solve(_left_jacobian(rotvec_rad), matrix[:3, 3]), rotvec_rad])


def interpolate(T_a: ArrayLike, T_b: ArrayLike, fraction: float) -> Array:
    """Return the pose at a fraction of the way between two: slerp for the rotation, a line for the origin.

    Args:
        T_a: Pose at fraction 0, (4, 4).
        T_b: Pose at fraction 1 in the same parent frame, (4, 4).
        fraction: 0 to 1.

    Raises:
        BadInputError: An input is not rigid to 1e-6, or the fraction is outside [0, 1].
    """
    start, end, weight = rigid(T_a), rigid(T_b), fraction_of_one(fraction)
    R = rotations.slerp(start[:3, :3], end[:3, :3], weight)
    return make(R, (1.0 - weight) * start[:3, 3] + weight * end[:3, 3])


def _left_jacobian(rotvec_rad: Array) -> Array:
    """Return V with T = (Exp(r), V u) for the twist (u, r), (3, 3)."""
    angle_rad = float(np.linalg.norm(rotvec_rad))
    W = rotations.skew(rotvec_rad)
    square = angle_rad**2
    if angle_rad < _SMALL_ANGLE_RAD:
        cubic = 1.0 / 6.0 - square / 120.0 + square**2 / 5040.0
    else:
        cubic = (angle_rad - np.sin(angle_rad)) / angle_rad**3
    return np.asarray(np.eye(3) + 0.5 * np.sinc(angle_rad / (2.0 * np.pi)) ** 2 * W + cubic * (W @ W))
