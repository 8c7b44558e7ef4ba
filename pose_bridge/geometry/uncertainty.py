# SPDX-License-Identifier: Apache-2.0
"""Covariances of poses, in the one error model of the house.

Of a pose T_a_b with rotation R and translation t: t_true = t + dt and R_true = Exp(dr) R, both along the axes
of the parent frame a; covariances are (6, 6) in the order (dt, dr), in the translation's unit and radians.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array, finite

_SYMMETRY_TOLERANCE = 1e-9
_NEGATIVE_TOLERANCE = 1e-9
_SINGULAR_TOLERANCE = 1e-12


def checked(covariance: ArrayLike) -> Array:
    """Return a covariance in float64, exactly symmetric, (6, 6).

    Raises:
        BadInputError: Not finite, not symmetric, or not positive semidefinite, to 1e-9 of its translation and
            rotation blocks' own scales.
    """
    matrix = finite(covariance, (6, 6), "covariance")
    scaled_matrix = matrix / np.outer(_sigmas(matrix), _sigmas(matrix))
    asymmetry = float(np.abs(scaled_matrix - scaled_matrix.T).max())
    if asymmetry > _SYMMETRY_TOLERANCE:
        raise BadInputError(
            f"covariance must be symmetric, off by {asymmetry:.3g} of its scale; is it row by row?"
        )
    least = float(np.linalg.eigvalsh(scaled_matrix)[0])
    if least < -_NEGATIVE_TOLERANCE:
        raise BadInputError(
            f"covariance must be positive semidefinite, least eigenvalue {least:.3g} of its scale"
        )
    return np.asarray(0.5 * (matrix + matrix.T))


def compose_left(T_a_b: ArrayLike, covariance_b_c: ArrayLike) -> Array:
    """Return the covariance of T_a_c = T_a_b T_b_c for a known T_a_b: dt' = R_ab dt, dr' = R_ab dr.

    Raises:
        BadInputError: The transform is not rigid to 1e-6, or the covariance not one.
    """
    R_a_b = rigid.rigid(T_a_b)[:3, :3]
    return _propagated(_blocks(R_a_b, np.zeros((3, 3)), R_a_b), checked(covariance_b_c))


def compose_right(T_a_b: ArrayLike, covariance_a_b: ArrayLike, T_b_c: ArrayLike) -> Array:
    """Return the covariance of T_a_c = T_a_b T_b_c for a known T_b_c: dt' = dt + dr x (R_ab t_bc), dr' = dr.

    Raises:
        BadInputError: A transform is not rigid to 1e-6, or the covariance not one.
    """
    lever = rigid.rigid(T_a_b)[:3, :3] @ rigid.rigid(T_b_c)[:3, 3]
    return _propagated(_blocks(np.eye(3), -rotations.skew(lever), np.eye(3)), checked(covariance_a_b))


def compose(
    T_a_b: ArrayLike, covariance_a_b: ArrayLike, T_b_c: ArrayLike, covariance_b_c: ArrayLike
) -> Array:
    """Return the covariance of T_a_c = T_a_b T_b_c for independent errors of both, to first order.

    Raises:
        BadInputError: A transform is not rigid to 1e-6, or a covariance not one.
    """
    return compose_right(T_a_b, covariance_a_b, T_b_c) + compose_left(T_a_b, covariance_b_c)


def invert(T_a_b: ArrayLike, covariance_a_b: ArrayLike) -> Array:
    """Return the covariance of T_b_a: dt' = -R^T dt - [R^T t]_x R^T dr, dr' = -R^T dr, with R and t of T_a_b.

    Raises:
        BadInputError: The transform is not rigid to 1e-6, or the covariance not one.
    """
    T = rigid.rigid(T_a_b)
    R_b_a = T[:3, :3].T
    lever = rotations.skew(R_b_a @ T[:3, 3])
    return _propagated(_blocks(-R_b_a, -lever @ R_b_a, -R_b_a), checked(covariance_a_b))


def scaled(
    T_up_to_scale: ArrayLike, covariance: ArrayLike, scale: float, scale_sigma_relative: float
) -> Array:
    """Return the covariance of a pose once its translation is multiplied by an uncertain, independent scale.

    Args:
        T_up_to_scale: (4, 4).
        covariance: Of that pose, (6, 6), its translation in the same arbitrary unit.
        scale: Metres per arbitrary unit, > 0.
        scale_sigma_relative: Standard deviation of the scale over the scale, >= 0.

    Returns:
        (6, 6): Cov(t) = s^2 Cov(t_up_to_scale) + t t^T sigma^2 with the scaled t, cross blocks times s.

    Raises:
        BadInputError: The transform is not rigid to 1e-6, the covariance not one, or a scale out of range.
    """
    if not (np.isfinite(scale) and scale > 0.0):
        raise BadInputError(
            f"scale must be positive and finite, got {scale}; without one, answer with a direction"
        )
    if not (np.isfinite(scale_sigma_relative) and scale_sigma_relative >= 0.0):
        raise BadInputError(f"scale_sigma_relative must be finite and at least 0, got {scale_sigma_relative}")
    t = scale * rigid.rigid(T_up_to_scale)[:3, 3]
    result = _propagated(_blocks(scale * np.eye(3), np.zeros((3, 3)), np.eye(3)), checked(covariance))
    result[:3, :3] += scale_sigma_relative**2 * np.outer(t, t)
    return result


def largest_sigma(covariance: Array) -> float:
    """Return the largest standard deviation in any direction, of a place or of a rotation, (3, 3)."""
    return float(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def error_vector(T_estimate: ArrayLike, T_true: ArrayLike) -> Array:
    """Return (dt, dr) = (t_true - t, Log(R_true R^T)), (6,).

    Raises:
        BadInputError: A transform is not rigid to 1e-6.
    """
    estimate, true = rigid.rigid(T_estimate), rigid.rigid(T_true)
    between = rotations.nearest_rotation(true[:3, :3] @ estimate[:3, :3].T)
    return np.concatenate([true[:3, 3] - estimate[:3, 3], rotations.so3_log(between)])


def nees(T_estimate: ArrayLike, covariance: ArrayLike, T_true: ArrayLike) -> float:
    """Return the normalized estimation error squared, 6 on average if the covariance is honest.

    Raises:
        BadInputError: A transform is not rigid to 1e-6, or the covariance is not one, or has no inverse.

    Source: Bar-Shalom, Li, Kirubarajan, Estimation with Applications to Tracking and Navigation, section 5.4.
    """
    matrix = checked(covariance)
    sigmas = _sigmas(matrix)
    scaled_matrix = matrix / np.outer(sigmas, sigmas)
    least = float(np.linalg.eigvalsh(scaled_matrix)[0])
    if least <= _SINGULAR_TOLERANCE:
        raise BadInputError(f"covariance has no inverse, least eigenvalue {least:.3g} of its scale")
    error = error_vector(T_estimate, T_true) / sigmas
    return float(error @ np.linalg.solve(scaled_matrix, error))


def direction_sigma_rad(T: ArrayLike, covariance: ArrayLike) -> float:
    """Return the largest standard deviation of the translation's direction, to first order.

    Raises:
        BadInputError: The transform is not rigid to 1e-6 or has no translation, or the covariance is not one.
    """
    t = rigid.rigid(T)[:3, 3]
    length = float(np.linalg.norm(t))
    if length == 0.0:
        raise BadInputError("a zero translation has no direction; ask for the rotation alone")
    across = np.eye(3) - np.outer(t, t) / length**2
    largest = float(np.linalg.eigvalsh(across @ checked(covariance)[:3, :3] @ across)[-1])
    return float(np.sqrt(max(largest, 0.0))) / length


def _blocks(top_left: Array, top_right: Array, bottom_right: Array) -> Array:
    """Return the Jacobian (6, 6) of (dt', dr') by (dt, dr); dr' never depends on dt."""
    return np.block([[top_left, top_right], [np.zeros((3, 3)), bottom_right]])


def _propagated(jacobian: Array, covariance: Array) -> Array:
    result = jacobian @ covariance @ jacobian.T
    return np.asarray(0.5 * (result + result.T))


def _sigmas(covariance: Array) -> Array:
    """Return the scale of each row: the largest standard deviation of its block, (6,), 1 if that is zero."""
    variances = np.diag(covariance).reshape(2, 3).max(axis=1)
    return np.repeat(np.sqrt(np.where(variances > 0.0, variances, 1.0)), 3)
