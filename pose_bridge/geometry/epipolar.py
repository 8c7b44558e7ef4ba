# SPDX-License-Identifier: Apache-2.0
"""Two views of the same points, in normalized coordinates, (N, 2), as `Camera.normalize` gives them.

`T_b_a` takes points of camera a to camera b. Rows with NaN (rays that the lens does not have) stay NaN and
are never in front.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError, NoEstimateError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array, Mask, finite, shaped

# Rays closer than this are parallel: a thousandth of a pixel, far below what any match can tell.
_PARALLEL_RAD = 1e-6
# Of an essential matrix the singular values are s, s, 0; farther off than this, it is another kind of matrix.
_SINGULAR_VALUE_RATIO = 0.5
_CLEAR_VOTE = 1.5


def essential_from_pose(T_b_a: ArrayLike) -> Array:
    """Return the essential matrix with x_b^T E x_a = 0, (3, 3), scaled for a translation of length 1.

    Raises:
        BadInputError: The pose is not rigid to 1e-6, or has no translation.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., equation 9.12.
    """
    T = rigid.rigid(T_b_a)
    length = float(np.linalg.norm(T[:3, 3]))
    if length == 0.0:
        raise BadInputError("an essential matrix needs a translation, got zero; compare rotations instead")
    return np.asarray(rotations.skew(T[:3, 3] / length) @ T[:3, :3])


def sampson_error(E: ArrayLike, x_a: ArrayLike, x_b: ArrayLike) -> Array:
    """Return to first order how far each match is from satisfying the epipolar constraint.

    Args:
        E: With x_b^T E x_a = 0, (3, 3), of any scale.
        x_a: (N, 2), normalized.
        x_b: (N, 2), normalized.

    Returns:
        Distance in normalized units, (N,); times the focal length: pixels. NaN where both are epipoles.

    Raises:
        BadInputError: A shape is wrong, or `E` is not finite.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., equation 11.9, its square root.
    """
    matrix = finite(E, (3, 3), "E")
    a, b = _matches(x_a, x_b)
    lines_b, lines_a = a @ matrix.T, b @ matrix
    gradient = np.sqrt(np.square(lines_b[:, :2]).sum(axis=1) + np.square(lines_a[:, :2]).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs((b * lines_b).sum(axis=1)) / gradient)


def decompose_essential(E: ArrayLike) -> Array:
    """Return the four poses T_b_a that an essential matrix allows, (4, 4, 4), with translations of length 1.

    Raises:
        BadInputError: Not an essential matrix: not finite, or its singular values are nowhere near s, s, 0.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd ed., result 9.19.
    """
    U, singular, Vt = np.linalg.svd(finite(E, (3, 3), "E"))
    if (
        singular[1] <= _SINGULAR_VALUE_RATIO * singular[0]
        or singular[2] >= _SINGULAR_VALUE_RATIO * singular[1]
    ):
        raise BadInputError(
            f"not an essential matrix: singular values {singular.tolist()}; is it a fundamental matrix?"
        )
    U, Vt = U * np.sign(np.linalg.det(U)), Vt * np.sign(np.linalg.det(Vt))
    W = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return np.stack([rigid.make(R, t) for R in (U @ W @ Vt, U @ W.T @ Vt) for t in (U[:, 2], -U[:, 2])])


def triangulate(T_b_a: ArrayLike, x_a: ArrayLike, x_b: ArrayLike) -> Array:
    """Return the point halfway between the two rays of each match where they pass closest.

    Args:
        T_b_a: (4, 4).
        x_a: (N, 2), normalized.
        x_b: (N, 2), normalized.

    Returns:
        In frame a, (N, 3), also behind a camera (see `in_front`). NaN where rays are parallel to 1e-6 rad.

    Raises:
        BadInputError: The pose is not rigid to 1e-6, or a shape is wrong.
    """
    T = rigid.rigid(T_b_a)
    a, b = _matches(x_a, x_b)
    depth_a, depth_b = _depths(T, a, b)
    return np.asarray(0.5 * (depth_a[:, None] * a + rigid.transform(rigid.inverse(T), depth_b[:, None] * b)))


def in_front(T_b_a: ArrayLike, x_a: ArrayLike, x_b: ArrayLike) -> Mask:
    """Return which matches meet in front of both cameras, (N,); parallel rays do not.

    Args:
        T_b_a: (4, 4).
        x_a: (N, 2), normalized.
        x_b: (N, 2), normalized.

    Raises:
        BadInputError: The pose is not rigid to 1e-6, or a shape is wrong.
    """
    depth_a, depth_b = _depths(rigid.rigid(T_b_a), *_matches(x_a, x_b))
    return np.asarray((depth_a > 0.0) & (depth_b > 0.0))


def parallax_rad(T_b_a: ArrayLike, x_a: ArrayLike, x_b: ArrayLike) -> Array:
    """Return the angle between the two rays of each match once they stand in one frame, (N,); 0 at infinity.

    Args:
        T_b_a: (4, 4); only its rotation counts.
        x_a: (N, 2), normalized.
        x_b: (N, 2), normalized.

    Raises:
        BadInputError: The pose is not rigid to 1e-6, or a shape is wrong.
    """
    T = rigid.rigid(T_b_a)
    a, b = _matches(x_a, x_b)
    turned = a @ T[:3, :3].T
    return np.asarray(np.arctan2(np.linalg.norm(np.cross(turned, b), axis=1), (turned * b).sum(axis=1)))


def pose_from_essential(E: ArrayLike, x_a: ArrayLike, x_b: ArrayLike) -> tuple[Array, Mask]:
    """Return the one of the four poses that has the matches in front of both cameras.

    Args:
        E: With x_b^T E x_a = 0, (3, 3).
        x_a: (N, 2), normalized, inliers of `E`.
        x_b: (N, 2), normalized.

    Returns:
        T_b_a with a translation of length 1, and which matches are in front, (N,).

    Raises:
        BadInputError: `E` is not an essential matrix, or a shape is wrong.
        NoEstimateError: No match is in front, or the winner has under 1.5 times the votes of the runner-up.
    """
    poses = decompose_essential(E)
    masks = [in_front(T_b_a, x_a, x_b) for T_b_a in poses]
    votes = np.array([int(mask.sum()) for mask in masks])
    runner_up, best = (int(index) for index in np.argsort(votes, kind="stable")[-2:])
    if votes[best] == 0 or votes[best] < _CLEAR_VOTE * votes[runner_up]:
        raise NoEstimateError(
            f"the side of the cameras is not clear: {votes.tolist()} of {len(masks[0])} matches in front"
        )
    return poses[best], masks[best]


def _matches(x_a: ArrayLike, x_b: ArrayLike) -> tuple[Array, Array]:
    """Return both sides in homogeneous coordinates, (N, 3)."""
    a, b = shaped(x_a, (-1, 2), "x_a"), shaped(x_b, (-1, 2), "x_b")
    if len(a) != len(b):
        raise BadInputError(f"matches must come in pairs, got {len(a)} points in x_a and {len(b)} in x_b")
    ones = np.ones((len(a), 1))
    return np.hstack([a, ones]), np.hstack([b, ones])


def _depths(T_b_a: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Return z in camera a and in camera b, (N,) each, where the two rays pass closest; NaN if parallel.

    Least squares of z_b b = z_a R a + t, solved with the normal n = R a x b of both rays.
    """
    turned, t = a @ T_b_a[:3, :3].T, T_b_a[:3, 3]
    normal = np.cross(turned, b)
    square = np.square(normal).sum(axis=1)
    lengths = np.square(turned).sum(axis=1) * np.square(b).sum(axis=1)
    square = np.where(square > _PARALLEL_RAD**2 * lengths, square, np.nan)
    depth_a = (np.cross(b, t) * normal).sum(axis=1) / square
    depth_b = (np.cross(turned, t) * normal).sum(axis=1) / square
    return depth_a, depth_b
