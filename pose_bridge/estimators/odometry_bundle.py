# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment in which odometry holds each side together: it gives what the pictures leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pose_bridge.control import Control
from pose_bridge.estimators.base import Array, Problem, Tracks
from pose_bridge.estimators.normal_equations import Belief, NormalEquations, believe
from pose_bridge.geometry import rigid, rotations

MAX_STEPS = 25
LOSS_SIGMA = 2.0  # an observation that misses by so much counts half
SMALL_STEP = 1e-6  # metres and radians
SMALL_GAIN, ROUGH_GAIN = 1e-5, 1e-3  # share of the cost
FIRST_DAMPING = 1e-4
LARGEST_DAMPING = 1e6
LEAST_SHARE = 1e-12  # of the largest eigenvalue; below, something is not determined


@dataclass(frozen=True, slots=True)
class Held:
    """Odometry's word, or a map's, on where a view is, seen from another.

    Attributes:
        view: Index.
        origin: The other one's.
        T_origin_view: (4, 4), metric.
        sigma: Of (translation in metres, rotation in radians) in the axes of the other one.
    """

    view: int
    origin: int
    T_origin_view: Array
    sigma: tuple[float, float]

    def departure(self, T_reference_camera: Mapping[int, Array]) -> tuple[Array, dict[int, Array]]:
        """See `Belief`."""
        T_origin, T = T_reference_camera[self.origin], T_reference_camera[self.view]
        R_origin, R, arm = T_origin[:3, :3], T[:3, :3], T[:3, 3] - T_origin[:3, 3]
        turn = rotations.so3_log(self.T_origin_view[:3, :3].T @ R_origin.T @ R)
        departure = np.r_[R_origin.T @ arm - self.T_origin_view[:3, 3], turn]
        own, origins = np.zeros((6, 6)), np.zeros((6, 6))
        own[:3, :3], origins[:3, :3] = R_origin.T, -R_origin.T
        origins[:3, 3:] = R_origin.T @ rotations.skew(arm)
        own[3:, 3:], origins[3:, 3:] = R.T, -R.T
        inverse_sigma = 1.0 / np.repeat(self.sigma, 3)
        weighted = {self.view: inverse_sigma[:, None] * own, self.origin: inverse_sigma[:, None] * origins}
        return inverse_sigma * departure, weighted


@dataclass(frozen=True, slots=True)
class Level:
    """A base on one floor with the reference's: which way is up in a view, and how high it is above that one.

    Attributes:
        view: Index.
        up_reference: Unit vector, (3,).
        up_view: The same seen from the view, (3,).
        height_m: Of the view above the reference.
        sigma: Of (height in metres, direction in radians).
    """

    view: int
    up_reference: Array
    up_view: Array
    height_m: float
    sigma: tuple[float, float]

    def departure(self, T_reference_camera: Mapping[int, Array]) -> tuple[Array, dict[int, Array]]:
        """See `Belief`."""
        T = T_reference_camera[self.view]
        jacobian = np.zeros((4, 6))
        jacobian[0, :3] = self.up_reference
        jacobian[1:, 3:] = T[:3, :3].T @ rotations.skew(self.up_reference)
        departure = np.r_[
            self.up_reference @ T[:3, 3] - self.height_m, T[:3, :3].T @ self.up_reference - self.up_view
        ]
        inverse_sigma = 1.0 / np.repeat(self.sigma, (1, 3))
        return inverse_sigma * departure, {self.view: inverse_sigma[:, None] * jacobian}


@dataclass(frozen=True, eq=False)
class Adjusted:
    """Where everything is.

    Attributes:
        T_reference_camera: By view.
        points: (P, 3).
        error_px: Of each observation, (O, 2).
        views: Those that are not fixed, the target first.
        information: Of (dt, dr) of `views`, stacked, for the pixel noise that was assumed, (6n, 6n).
    """

    T_reference_camera: dict[int, Array]
    points: Array
    error_px: Array
    views: tuple[int, ...]
    information: Array


def adjust(
    problem: Problem,
    T_reference_camera: Mapping[int, Array],
    points: Array,
    tracks: Tracks,
    beliefs: Sequence[Belief],
    sigma_px: float,
    control: Control,
    small_gain: float = SMALL_GAIN,
) -> Adjusted:
    """Minimize reprojection errors and departures from beliefs (Levenberg-Marquardt, points eliminated).

    Args:
        problem: Where the keypoints come from.
        T_reference_camera: First guess by view; view 0 stays the identity.
        points: First guess, (P, 3), in the frame of view 0.
        tracks: Observations of those views.
        beliefs: What ties the views of each side together, and whatever else is known.
        sigma_px: Standard deviation of a keypoint.
        control: Checked before each step.
        small_gain: Share of the cost; a step that gains less is the last.

    Raises:
        CancelledError, BudgetSpentError: From `control`.
        NoEstimateError: The observations do not determine the cameras.
    """
    views, half_px = T_reference_camera.keys(), LOSS_SIGMA * sigma_px
    system = NormalEquations(problem, tracks, views, len(points), sigma_px, half_px, beliefs)
    state = (dict(T_reference_camera), points)
    cost, damping = system.cost(*state), FIRST_DAMPING
    for _ in range(MAX_STEPS):
        control.check()
        step = system.step(*state, damping)
        moved = system.moved(*state, *step)
        lower = system.cost(*moved)
        if lower < cost:
            state, damping = moved, damping / 10.0
            done = cost - lower < small_gain * cost or np.abs(step[0]).max(initial=0.0) < SMALL_STEP
            cost = lower
            if done:
                break
        elif damping > LARGEST_DAMPING:
            break
        else:
            damping *= 10.0
    return Adjusted(*state, system.error_px(*state), system.views, system.information(*state))


def without(found: Adjusted, beliefs: Sequence[Belief]) -> tuple[Array, Array] | None:
    """Return T_reference_target and its covariance as they would be without some beliefs, to first order.

    Args:
        found: Adjusted with them; its target is free.
        beliefs: Those.

    Returns:
        (4, 4) and (6, 6); None where nothing else determines the target.
    """
    start = {view: 6 * index for index, view in enumerate(found.views)}
    information, pull = np.zeros_like(found.information), np.zeros(len(found.information))
    believe(beliefs, found.T_reference_camera, start, information, pull)
    left = found.information - information
    smallest, *_, largest = np.linalg.eigvalsh(left)
    if smallest <= LEAST_SHARE * largest:
        return None
    target = slice(start[1], start[1] + 6)
    rows = np.linalg.inv(left)[target]
    T, (dt, dr) = found.T_reference_camera[1], (rows @ pull).reshape(2, 3)
    moved = rigid.make(rotations.nearest_rotation(rotations.so3_exp(dr) @ T[:3, :3]), T[:3, 3] + dt)
    covariance = rows[:, target]
    return moved, (covariance + covariance.T) / 2
