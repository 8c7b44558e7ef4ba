# SPDX-License-Identifier: Apache-2.0
"""The normal equations of cameras, with the points that they see eliminated.

Wrong matches that happen to fit roughly would pull at everything, so observations that miss by much count
little (Cauchy's loss, by reweighting).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Array, Problem, Tracks
from pose_bridge.geometry import rigid, rotations

LEAST_DEPTH_M = 1e-3
LEAST_INFORMATION = 1e-6  # of a point along a ray that nothing else crosses
LOSS_SIGMA = 2.0  # an observation that misses by so much counts half


class Belief(Protocol):
    """What is known about cameras besides pictures."""

    def departure(self, T_reference_camera: Mapping[int, Array]) -> tuple[Array, dict[int, Array]]:
        """How far cameras are from it, in standard deviations, (K,), with Jacobians by view, (K, 6)."""
        ...


def believe(
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


class NormalEquations:
    """The normal equations of the cameras that are free, and of the points.

    Args:
        problem: Where the keypoints come from.
        tracks: What is observed.
        views: All that take part; view 0 is fixed.
        points: How many.
        sigma_px: Standard deviation of a keypoint.
        beliefs: What else is known.

    Attributes:
        views: Those that are free, the target first.
    """

    def __init__(
        self,
        problem: Problem,
        tracks: Tracks,
        views: Iterable[int],
        points: int,
        sigma_px: float,
        beliefs: Sequence[Belief] = (),
    ) -> None:
        self.views = tuple(sorted(set(views) - {0}, key=lambda view: (view != 1, view)))
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

    def reduced(self, cameras: Mapping[int, Array], points: Array) -> tuple[Array, Array]:
        """Information and gradient of the free cameras, once the points are eliminated, (6n, 6n), (6n,)."""
        return self._reduced(cameras, points, 0.0)[:2]

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
        believe(self._beliefs, cameras, self._start, H, gradient)
        return H, gradient, V_inverse, coupling, g_point

    def _local(self, cameras: Mapping[int, Array], points: Array) -> Array:
        local = np.empty((len(self._seen), 3))
        for view, rows in self._rows_of.items():
            T = cameras[view]
            local[rows] = (points[self._tracks.point[rows]] - T[:3, 3]) @ T[:3, :3]
        return local
