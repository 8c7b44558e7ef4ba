# SPDX-License-Identifier: Apache-2.0
"""How far cameras would move if one patch of the scene were not there: what its matches err by in common.

Residuals say how large errors are if each match errs by itself. Those of one patch do not: they have its
slant and its repetitions in common, and an answer that hangs on a patch or two may be far off though all
fits. Leaving out one patch after the other shows it (Tukey's jackknife, by groups).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Array, Indices, Problem, Tracks, scaled_cameras
from pose_bridge.estimators.normal_equations import LOSS_SIGMA, NormalEquations

SIZE = 0.4  # of a patch, by the median distance of points from their middle
FAR = 10  # patches from the middle: points beyond are of one patch with those before them
LEFT_OUT = 0.99  # of a patch: a camera that sees nothing else is still determined


def covariance(
    problem: Problem,
    T_reference_camera: Mapping[int, Array],
    points: Array,
    tracks: Tracks,
    error_px: Array,
    half_px: float,
) -> Array:
    """Return the joint covariance of (dt, dr) of the free views, the target first, (6n, 6n).

    The first step without each patch; the distance to the target is held, being the unit of length. Steps by
    weights are too short, as a weight falls with the error that it weighs: made up for by means (Huber's).

    Args:
        problem: Where the keypoints come from.
        T_reference_camera: Adjusted, by view; view 0 is fixed.
        points: Adjusted, (P, 3).
        tracks: What is observed.
        error_px: Of each observation, (O,).
        half_px: An observation that misses by so much counts half.

    Raises:
        NoEstimateError: The observations do not determine the cameras.
    """
    unit = float(np.linalg.norm(T_reference_camera[1][:3, 3])) or 1.0  # what is small must not depend on it
    cameras, points = scaled_cameras(T_reference_camera, 1.0 / unit), points / unit
    patch_of = _patches(points)
    parts = []
    for patch in range(patch_of.max() + 1):
        own = tracks.where(patch_of[tracks.point] == patch)
        inside = points[patch_of == patch]
        system = NormalEquations(problem, own, cameras, len(inside), half_px / LOSS_SIGMA)
        parts.append(system.reduced(cameras, inside))
    information, gradient = (np.array(part) for part in zip(*parts, strict=True))
    count = gradient.shape[1]
    without = np.zeros((len(parts), count + 1, count + 1))
    without[:, :count, :count] = information.sum(axis=0) - LEFT_OUT * information
    without[:, count, :3] = without[:, :3, count] = cameras[1][:3, 3]  # no step along the baseline
    pull = np.pad(gradient, ((0, 0), (0, 1)))
    try:
        moved = np.linalg.solve(without, pull[..., None])[:, :count, 0]
    except np.linalg.LinAlgError as error:
        raise NoEstimateError("the target camera is not determined by the observations") from error
    weight = 1.0 / (1.0 + (error_px / half_px) ** 2)
    moved *= weight.mean() / np.mean(weight**2)
    moved *= np.tile([unit] * 3 + [1.0] * 3, count // 6)
    return np.asarray(moved.T @ moved)


def _patches(points: Array) -> Indices:
    """Number of the cube that each point lies in, (P,)."""
    from_middle = points - np.median(points, axis=0)
    typical = np.median(np.linalg.norm(from_middle, axis=1)) or 1.0
    cubes = np.clip(np.floor(from_middle / (SIZE * typical)), -FAR, FAR)
    return np.unique(cubes, axis=0, return_inverse=True)[1].ravel()
