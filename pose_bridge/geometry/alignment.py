# SPDX-License-Identifier: Apache-2.0
"""Aligning two sets of corresponding points."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array, finite

# Width of a point set over its length, below which the turn about its line is not determined.
_COLLINEAR_TOLERANCE = 1e-6


def umeyama(points_a: ArrayLike, points_b: ArrayLike, with_scale: bool = True) -> tuple[float, Array]:
    """Return the similarity that brings points of frame b onto those of frame a with the least squared error.

    Args:
        points_a: (N, 3), N >= 3.
        points_b: (N, 3), row by row the same points.
        with_scale: Estimate the scale too; otherwise it is 1.

    Returns:
        (s, T_a_b) that minimize sum |a - (s R_a_b b + t_a_b)|^2; the scale multiplies b, not the translation.

    Raises:
        BadInputError: Fewer than three points, different counts, NaN, or points on one line or in one place.

    Source: Umeyama, Least-Squares Estimation of Transformation Parameters, PAMI 13(4), 1991, eq. 40-42.
    """
    a, b = finite(points_a, (-1, 3), "points_a"), finite(points_b, (-1, 3), "points_b")
    if len(a) != len(b) or len(a) < 3:
        raise BadInputError(
            f"alignment needs three pairs of points or more, got {len(a)} and {len(b)} points"
        )
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    _require_spread(a - mean_a, "points_a")
    _require_spread(b - mean_b, "points_b")
    cross_covariance = (a - mean_a).T @ (b - mean_b) / len(a)
    R_a_b = rotations.nearest_rotation(cross_covariance)
    scale = 1.0
    if with_scale:
        variance_b = float(np.square(b - mean_b).sum(axis=1).mean())
        scale = float(np.trace(R_a_b.T @ cross_covariance)) / variance_b
    return scale, rigid.make(R_a_b, mean_a - scale * R_a_b @ mean_b)


def _require_spread(centred: Array, name: str) -> None:
    singular = np.linalg.svd(centred, compute_uv=False)
    if singular[1] <= _COLLINEAR_TOLERANCE * singular[0]:
        raise BadInputError(
            f"{name} lie on one line or in one place (spread {singular.tolist()}); bring more points"
        )
