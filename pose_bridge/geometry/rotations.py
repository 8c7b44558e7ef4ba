# SPDX-License-Identifier: Apache-2.0
"""Rotations: matrices, rotation vectors and quaternions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array, finite, fraction_of_one

_ORTHONORMAL_TOLERANCE = 1e-6
_UNIT_QUATERNION_TOLERANCE = 1e-3
# Least gap, over the largest singular value, at which the nearest rotation is one and not a family.
_UNIQUE_TOLERANCE = 1e-9


def rotation(R: ArrayLike) -> Array:
    """Return `R` as a float64 rotation matrix, (3, 3).

    Raises:
        BadInputError: Not orthonormal to 1e-6, a reflection, not finite, or of another shape.
    """
    matrix = finite(R, (3, 3), "rotation")
    error = float(np.abs(matrix.T @ matrix - np.eye(3)).max())
    if error > _ORTHONORMAL_TOLERANCE:
        raise BadInputError(f"rotation must be orthonormal to 1e-6, off by {error:.3g}; see nearest_rotation")
    if np.linalg.det(matrix) < 0.0:
        raise BadInputError("rotation is a reflection (determinant -1); check for a flipped axis")
    return matrix


def skew(v: ArrayLike) -> Array:
    """Return the matrix [v]_x, (3, 3), with [v]_x w = v x w.

    Args:
        v: (3,).

    Raises:
        BadInputError: `v` is not three finite numbers.
    """
    x, y, z = finite(v, (3,), "v")
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def so3_exp(rotvec_rad: ArrayLike) -> Array:
    """Return the rotation matrix of a rotation vector.

    Args:
        rotvec_rad: Axis times angle, (3,).

    Raises:
        BadInputError: `rotvec_rad` is not three finite numbers.

    Source: Rodrigues' formula; both coefficients as sinc, which needs no case for small angles.
    """
    vector = finite(rotvec_rad, (3,), "rotvec_rad")
    W, angle_rad = skew(vector), float(np.linalg.norm(vector))
    half_sinc = np.sinc(angle_rad / (2.0 * np.pi))
    return np.asarray(np.eye(3) + np.sinc(angle_rad / np.pi) * W + 0.5 * half_sinc**2 * (W @ W))


def so3_log(R: ArrayLike) -> Array:
    """Return the rotation vector of a rotation matrix, (3,), of length 0 to pi.

    At pi the axis has two signs; one of them is returned. Through the quaternion, because the trace loses
    half of the digits near 0 and the antisymmetric part loses them near pi.

    Raises:
        BadInputError: `R` is not a rotation to 1e-6.
    """
    quat_xyzw = quat_xyzw_from_rotation(R)
    sine = float(np.linalg.norm(quat_xyzw[:3]))
    if sine == 0.0:
        return np.zeros(3)
    return np.asarray(quat_xyzw[:3] * (2.0 * np.arctan2(sine, quat_xyzw[3]) / sine))


def rotation_angle_rad(R: ArrayLike) -> float:
    """Return the angle of a rotation, 0 to pi.

    Raises:
        BadInputError: `R` is not a rotation to 1e-6.
    """
    return float(np.linalg.norm(so3_log(R)))


def slerp(R_a: ArrayLike, R_b: ArrayLike, fraction: float) -> Array:
    """Return the rotation at a fraction of the shortest way from one rotation to another, at constant rate.

    Two rotations half a turn apart have two shortest ways; one of them is taken.

    Args:
        R_a: At fraction 0, (3, 3).
        R_b: At fraction 1, (3, 3).
        fraction: 0 to 1.

    Raises:
        BadInputError: An input is not a rotation to 1e-6, or the fraction is outside [0, 1].

    Source: Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985.
    """
    start = rotation(R_a)
    return start @ so3_exp(fraction_of_one(fraction) * so3_log(nearest_rotation(start.T @ rotation(R_b))))


def quat_xyzw_from_rotation(R: ArrayLike) -> Array:
    """Return the unit quaternion (x, y, z, w) of a rotation, the one with w >= 0.

    Raises:
        BadInputError: `R` is not a rotation to 1e-6.

    Source: Shepperd, Quaternion from Rotation Matrix, Journal of Guidance and Control 1(3), 1978.
    """
    m = rotation(R)
    trace = float(np.trace(m))
    # Four multiples of one quaternion; that with the largest component of its own divides by no small number.
    multiples = np.array(
        [
            [1.0 - trace + 2.0 * m[0, 0], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], 1.0 - trace + 2.0 * m[1, 1], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], 1.0 - trace + 2.0 * m[2, 2], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1.0 + trace],
        ]
    )
    quat_xyzw = multiples[int(np.argmax(np.diag(multiples)))]
    sign = -1.0 if quat_xyzw[3] < 0.0 else 1.0
    return np.asarray(sign * quat_xyzw / np.linalg.norm(quat_xyzw))


def rotation_from_quat_xyzw(quat_xyzw: ArrayLike) -> Array:
    """Return the rotation matrix of a quaternion (x, y, z, w).

    Args:
        quat_xyzw: Of length 1 to 1e-3, (4,). What is left of the length is divided out.

    Raises:
        BadInputError: Not four finite numbers, or not of unit length.
    """
    quaternion = finite(quat_xyzw, (4,), "quat_xyzw")
    length = float(np.linalg.norm(quaternion))
    if abs(length - 1.0) > _UNIT_QUATERNION_TOLERANCE:
        raise BadInputError(f"quat_xyzw must have length 1 to 1e-3, got {length:.6g}; is it set at all?")
    quaternion = quaternion / length
    W = skew(quaternion[:3])
    return np.asarray(np.eye(3) + 2.0 * (quaternion[3] * W + W @ W))


def nearest_rotation(M: ArrayLike) -> Array:
    """Return the rotation nearest to a matrix in the Frobenius norm, which also maximizes trace(R^T M).

    Args:
        M: (3, 3), of any scale.

    Raises:
        BadInputError: Not finite, or so degenerate that no single rotation is nearest.

    Source: Umeyama, Least-Squares Estimation of Transformation Parameters, PAMI 13(4), 1991, lemma.
    """
    U, singular, Vt = np.linalg.svd(finite(M, (3, 3), "M"))
    sign = 1.0 if np.linalg.det(U) * np.linalg.det(Vt) > 0.0 else -1.0
    if singular[1] + sign * singular[2] <= _UNIQUE_TOLERANCE * singular[0]:
        raise BadInputError(f"no single rotation is nearest: singular values {singular.tolist()}")
    return np.asarray(U @ np.diag([1.0, 1.0, sign]) @ Vt)
