# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment in which odometry holds each side together: it gives what the pictures leave open.

Wrong matches that happen to fit roughly would pull at everything, so observations that miss by much count
little (Cauchy's loss, by reweighting).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Array, Problem, Tracks
from pose_bridge.geometry import rigid, rotations

MAX_STEPS = 25
SMALL_STEP = 1e-6  # metres and radians
SMALL_GAIN, ROUGH_GAIN = 1e-5, 1e-3  # share of the cost
FIRST_DAMPING = 1e-4
LARGEST_DAMPING = 1e6
LEAST_DEPTH_M = 1e-3
LEAST_INFORMATION = 1e-6  # of a point along a ray that nothing else crosses
LEAST_SHARE = 1e-12  # of the largest eigenvalue; below, something is not determined
LOSS_SIGMA = 2.0  # an observation that misses by so much counts half


class Belief(Protocol):
    """What is known about cameras besides pictures."""

    def departure(self, T_reference_camera: Mapping[int, Array]) -> tuple[Array, dict[int, Array]]:
        """How far cameras are from it, in standard deviations, (K,), with Jacobians by view, (K, 6)."""
        ...


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
    system = _System(problem, tracks, beliefs, list(set(T_reference_camera) - {0}), len(points), sigma_px)
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
    _believe(beliefs, found.T_reference_camera, start, information, pull)
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


def _believe(
    beliefs: Sequence[Belief],
    cameras: Mapping[int, Array],
    start: Mapping[int, int],
    H: Array,
    gradient: Array,
) -> None:
    """Add what beliefs say to the normal equations of the views that start somewhere in them."""
    for belief in beliefs:
        departure, jacobians = belief.departure(cameras)
        free = [(start[view], J) for view, J in jacobians.items() if view in start]
        for at, J in free:
            gradient[at : at + 6] += J.T @ departure
            for other, K in free:
                H[at : at + 6, other : other + 6] += J.T @ K


class _System:
    """The normal equations of the cameras that are free, and of the points."""

    def __init__(
        self,
        problem: Problem,
        tracks: Tracks,
        beliefs: Sequence[Belief],
        views: Sequence[int],
        points: int,
        sigma_px: float,
    ) -> None:
        self.views = tuple(sorted(views, key=lambda view: (view != 1, view)))
        self._beliefs, self._tracks, self._points = beliefs, tracks, points
        self._start = {view: 6 * index for index, view in enumerate(self.views)}
        self._rows_of = {view: np.flatnonzero(tracks.view == view) for view in (0, *self.views)}
        seen = zip(tracks.view, tracks.keypoint, strict=True)
        self._seen = np.array([problem.features[view].points[keypoint] for view, keypoint in seen])
        self._focal_px, self._weight = problem.focal_px(), problem.focal_px() / sigma_px

    def error_px(self, cameras: Mapping[int, Array], points: Array) -> Array:
        """Of each observation, (O, 2); infinite behind the camera."""
        local = self._local(cameras, points)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = self._focal_px * (local[:, :2] / local[:, 2:] - self._seen)
        return np.where(local[:, 2:] > 0.0, error, np.inf)

    def cost(self, cameras: Mapping[int, Array], points: Array) -> float:
        """What is minimized: squared standard deviations."""
        squared = np.sum((self._weight / self._focal_px * self.error_px(cameras, points)) ** 2, axis=1)
        loss = LOSS_SIGMA**2 * np.log1p(squared / LOSS_SIGMA**2)
        departures = [belief.departure(cameras)[0] for belief in self._beliefs]
        return float(loss.sum() + sum(d @ d for d in departures))

    def step(self, cameras: Mapping[int, Array], points: Array, damping: float) -> tuple[Array, Array]:
        """Changes of the cameras, (n, 6), and of the points, (P, 3)."""
        H, gradient, V_inverse, coupling, g_point = self._reduced(cameras, points, damping)
        try:
            change = np.linalg.solve(H + damping * np.diag(np.diag(H)), -gradient)
        except np.linalg.LinAlgError as error:
            raise NoEstimateError("the observations do not determine the cameras") from error
        shift = -np.einsum("pij,pj->pi", V_inverse, g_point + np.einsum("pij,i->pj", coupling, change))
        return np.asarray(change.reshape(-1, 6)), shift

    def information(self, cameras: Mapping[int, Array], points: Array) -> Array:
        """Of the free cameras, once the points are eliminated, (6n, 6n)."""
        return self._reduced(cameras, points, 0.0)[0]

    def moved(
        self, cameras: Mapping[int, Array], points: Array, change: Array, shift: Array
    ) -> tuple[dict[int, Array], Array]:
        """Where a step leads."""
        new = dict(cameras)
        for view, (dt, dr) in zip(self.views, change.reshape(-1, 2, 3), strict=True):
            R = rotations.nearest_rotation(rotations.so3_exp(dr) @ cameras[view][:3, :3])
            new[view] = rigid.make(R, cameras[view][:3, 3] + dt)
        return new, points + shift

    def _reduced(
        self, cameras: Mapping[int, Array], points: Array, damping: float
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Schur complement: H and gradient of the cameras, and what brings the points back."""
        size, point = 6 * len(self.views), self._tracks.point
        local = self._local(cameras, points)
        to_point, residual = np.zeros((len(local), 2, 3)), np.zeros((len(local), 2))
        H, gradient = np.zeros((size, size)), np.zeros(size)
        coupling = np.zeros((self._points, size, 3))
        for view, rows in self._rows_of.items():
            x, y, z = local[rows].T
            z = np.maximum(z, LEAST_DEPTH_M)
            zero = np.zeros_like(z)
            project = np.array([[1.0 / z, zero, -x / z**2], [zero, 1.0 / z, -y / z**2]]).transpose(2, 0, 1)
            error = self._weight * (np.c_[x / z, y / z] - self._seen[rows])
            counts = 1.0 / np.sqrt(1.0 + np.sum((error / LOSS_SIGMA) ** 2, axis=1, keepdims=True))
            error *= counts
            J_point = counts[..., None] * self._weight * project @ cameras[view][:3, :3].T
            to_point[rows], residual[rows] = J_point, error
            if view in self._start:
                arm = points[point[rows]] - cameras[view][:3, 3]
                J = np.concatenate([-J_point, np.cross(arm[:, None], -J_point)], axis=2)
                at = slice(self._start[view], self._start[view] + 6)
                H[at, at] += np.einsum("oij,oik->jk", J, J)
                gradient[at] += np.einsum("oij,oi->j", J, error)
                coupling[point[rows], at] += np.einsum("oij,oik->ojk", J, J_point)
        V, g_point = np.zeros((self._points, 3, 3)), np.zeros((self._points, 3))
        np.add.at(V, point, np.einsum("oij,oik->ojk", to_point, to_point))
        np.add.at(g_point, point, np.einsum("oij,oi->oj", to_point, residual))
        V_inverse = np.linalg.inv(
            V + (damping * np.einsum("pii->pi", V) + LEAST_INFORMATION)[..., None] * np.eye(3)
        )
        weighted = coupling @ V_inverse
        H -= np.einsum("pik,pjk->ij", weighted, coupling, optimize=True)
        gradient -= np.einsum("pik,pk->i", weighted, g_point)
        _believe(self._beliefs, cameras, self._start, H, gradient)
        return H, gradient, V_inverse, coupling, g_point

    def _local(self, cameras: Mapping[int, Array], points: Array) -> Array:
        local = np.empty((len(self._seen), 3))
        for view, rows in self._rows_of.items():
            T = cameras[view]
            local[rows] = (points[self._tracks.point[rows]] - T[:3, 3]) @ T[:3, :3]
        return local
