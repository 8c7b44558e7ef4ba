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
from pose_bridge.estimators.base import Array, Indices
from pose_bridge.estimators.normal_equations import NormalEquations

SIZE = 0.4  # of a patch, by the median distance of points from their middle
FAR = 10  # patches from the middle: points beyond are of one patch with those before them
SHIFTS = (0.0, 0.5)  # of a patch: where patches begin is chance, so two ways count half each
LEFT_OUT = 0.99  # of a patch: a camera that sees nothing else is still determined


def covariance(
    system: NormalEquations, cameras: Mapping[int, Array], points: Array, information: Array
) -> Array:
    """Return the joint covariance of (dt, dr) of the free views, the target first, (6n, 6n).

    The first step without each patch. Steps by weights are too short, as a weight falls with the error that
    it weighs: made up for by means (Huber's).

    Args:
        system: Of all observations.
        cameras: T_reference_camera, adjusted, by view.
        points: Adjusted, (P, 3).
        information: Of the free views, not singular, (6n, 6n): what the system says, and what else is known.

    Raises:
        NoEstimateError: The observations do not determine the cameras.
    """
    counts = system.counts(cameras, points)
    slope = np.mean(counts**2) / counts.mean()
    total = np.zeros_like(information)
    for shift in SHIFTS:
        for rows, part, pull in system.parts(cameras, points, _patches(points, shift)):
            left, gradient = information.copy(), np.zeros(len(information))
            left[np.ix_(rows, rows)] -= LEFT_OUT * part
            gradient[rows] = pull
            try:
                moved = np.linalg.solve(left, gradient) / slope
            except np.linalg.LinAlgError as error:
                raise NoEstimateError("the target camera is not determined by the observations") from error
            total += np.outer(moved, moved)
    return total / len(SHIFTS)


def _patches(points: Array, shift: float) -> Indices:
    """Number of the cube that each point lies in, (P,)."""
    from_middle = points - np.median(points, axis=0)
    size = SIZE * (np.median(np.linalg.norm(from_middle, axis=1)) or 1.0)
    cubes = np.floor(np.clip(from_middle / size, -FAR, FAR) + shift)
    return np.unique(cubes, axis=0, return_inverse=True)[1].ravel()
