# SPDX-License-Identifier: Apache-2.0
"""The normal equations of cameras, with the points that they see eliminated.

Wrong matches that happen to fit roughly would pull at everything, so observations that miss by much count
little (Cauchy's loss, by reweighting).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Array, Indices, Problem, Tracks
from pose_bridge.geometry import rigid, rotations

LEAST_DEPTH_M = 1e-3
LEAST_INFORMATION = 1e-6  # of a point along a ray that nothing else crosses


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


class Linear(NamedTuple):
    """Weighted residuals of observations, (O, 2), and how they change.

    Attributes:
        by_camera: With the (dt, dr) of the camera, (O, 2, 6).
        by_point: With the point, (O, 2, 3).
    """

    residual: Array
    by_camera: Array
    by_point: Array


class Reduced(NamedTuple):
    """Normal equations of cameras once the points are eliminated.

    Attributes:
        H: Information, (6n, 6n).
        gradient: (6n,).
        coupling: Of points and cameras, (P, 6n, 3).
        V_inverse: Covariance of the points, were the cameras known, (P, 3, 3).
        g_point: Gradient of the points, (P, 3).
    """

    H: Array
    gradient: Array
    coupling: Array
    V_inverse: Array
    g_point: Array


class NormalEquations:
    """The normal equations of the cameras that are free, and of the points.

    Args:
        problem: Where the keypoints come from.
        tracks: What is observed; a point at most once by each view.
        views: All that take part; view 0 is fixed.
        points: How many.
        sigma_px: Standard deviation of a keypoint.
        half_px: An observation that misses by so much counts half.
        beliefs: What else is known.

    Attributes:
        views: Those that are free, the target first.
        tracks: What is observed.
    """

    def __init__(
        self,
        problem: Problem,
        tracks: Tracks,
        views: Iterable[int],
        points: int,
        sigma_px: float,
        half_px: float,
        beliefs: Sequence[Belief] = (),
    ) -> None:
        self.views = tuple(sorted(set(views) - {0}, key=lambda view: (view != 1, view)))
        self.tracks, self._points, self._beliefs = tracks, points, beliefs
        self._half_px, self._half = half_px, half_px / sigma_px
        self._start = {view: 6 * index for index, view in enumerate(self.views)}
        free = {view: index for index, view in enumerate(self.views)}
        self._camera = np.array([free.get(view, -1) for view in tracks.view.tolist()], np.intp)
        seen = zip(tracks.view, tracks.keypoint, strict=True)
        self._seen = np.array([problem.features[view].points[keypoint] for view, keypoint in seen])
        self._focal_px, self._weight = problem.focal_px(), problem.focal_px() / sigma_px

    def error_px(self, cameras: Mapping[int, Array], points: Array) -> Array:
        """Of each observation, (O, 2); infinite behind the camera."""
        *_, local = self._sight(cameras, points)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = self._focal_px * (local[:, :2] / local[:, 2:] - self._seen)
        return np.where(local[:, 2:] > 0.0, error, np.inf)

    def counts(self, cameras: Mapping[int, Array], points: Array) -> Array:
        """How much each observation counts, (O,), from 0 to 1."""
        squared_px = np.sum(self.error_px(cameras, points) ** 2, axis=1)
        return np.asarray(1.0 / (1.0 + squared_px / self._half_px**2))

    def cost(self, cameras: Mapping[int, Array], points: Array) -> float:
        """What is minimized: squared standard deviations."""
        squared = np.sum((self._weight / self._focal_px * self.error_px(cameras, points)) ** 2, axis=1)
        loss = self._half**2 * np.log1p(squared / self._half**2)
        departures = [belief.departure(cameras)[0] for belief in self._beliefs]
        return float(loss.sum() + sum(d @ d for d in departures))

    def step(self, cameras: Mapping[int, Array], points: Array, damping: float) -> tuple[Array, Array]:
        """Changes of the cameras, (n, 6), and of the points, (P, 3)."""
        found = self._reduced(cameras, points, damping)
        try:
            change = np.linalg.solve(found.H + damping * np.diag(np.diag(found.H)), -found.gradient)
        except np.linalg.LinAlgError as error:
            raise NoEstimateError("the observations do not determine the cameras") from error
        pull = found.g_point + np.einsum("pij,i->pj", found.coupling, change)
        return np.asarray(change.reshape(-1, 6)), -np.einsum("pij,pj->pi", found.V_inverse, pull)

    def information(self, cameras: Mapping[int, Array], points: Array) -> Array:
        """Of the free cameras, whatever the points, (6n, 6n)."""
        return self._reduced(cameras, points, 0.0).H

    def parts(
        self, cameras: Mapping[int, Array], points: Array, part_of: Indices
    ) -> Iterator[tuple[Indices, Array, Array]]:
        """What each part of the points, (P,), says: rows of the cameras it knows, information, gradient."""
        linear, part = self._linear(cameras, points), part_of[self.tracks.point]
        order = np.argsort(part, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            camera = self._camera[rows]
            free = np.unique(camera[camera >= 0])
            camera = np.where(camera < 0, -1, np.searchsorted(free, camera))
            own, point = np.unique(self.tracks.point[rows], return_inverse=True)
            of_rows = Linear(*(array[rows] for array in linear))
            found = _eliminated(of_rows, point.ravel(), camera, (len(own), len(free)), 0.0)
            yield (6 * free[:, None] + np.arange(6)).ravel(), found.H, found.gradient

    def moved(
        self, cameras: Mapping[int, Array], points: Array, change: Array, shift: Array
    ) -> tuple[dict[int, Array], Array]:
        """Where a step leads."""
        new = dict(cameras)
        for view, (dt, dr) in zip(self.views, change.reshape(-1, 2, 3), strict=True):
            R = rotations.nearest_rotation(rotations.so3_exp(dr) @ cameras[view][:3, :3])
            new[view] = rigid.make(R, cameras[view][:3, 3] + dt)
        return new, points + shift

    def _reduced(self, cameras: Mapping[int, Array], points: Array, damping: float) -> Reduced:
        linear, size = self._linear(cameras, points), (self._points, len(self.views))
        found = _eliminated(linear, self.tracks.point, self._camera, size, damping)
        believe(self._beliefs, cameras, self._start, found.H, found.gradient)
        return found

    def _linear(self, cameras: Mapping[int, Array], points: Array) -> Linear:
        R, arm, local = self._sight(cameras, points)
        x, y, z = local.T
        z = np.maximum(z, LEAST_DEPTH_M)
        zero = np.zeros_like(z)
        project = np.array([[1.0 / z, zero, -x / z**2], [zero, 1.0 / z, -y / z**2]]).transpose(2, 0, 1)
        residual = self._weight * (np.c_[x / z, y / z] - self._seen)
        counts = 1.0 / np.sqrt(1.0 + np.sum((residual / self._half) ** 2, axis=1, keepdims=True))
        by_point = counts[..., None] * self._weight * project @ R.transpose(0, 2, 1)
        by_camera = np.concatenate([-by_point, np.cross(arm[:, None], -by_point)], axis=2)
        return Linear(counts * residual, by_camera, by_point)

    def _sight(self, cameras: Mapping[int, Array], points: Array) -> tuple[Array, Array, Array]:
        """Of each observation: its camera's axes, (O, 3, 3), and the point, in view 0's and in its own."""
        T = np.array([cameras[view] for view in (*self.views, 0)])[self._camera]
        R, arm = T[:, :3, :3], points[self.tracks.point] - T[:, :3, 3]
        return R, arm, np.einsum("oji,oj->oi", R, arm)


def _eliminated(
    linear: Linear, point: Indices, camera: Indices, size: tuple[int, int], damping: float
) -> Reduced:
    """Schur complement of points.

    Args:
        linear: Observations.
        point: Which point each shows, (O,).
        camera: To which camera, (O,); -1 for the one that is fixed.
        size: How many points and cameras there are.
        damping: Of the points.
    """
    points, cameras = size
    by_camera_T, by_point_T = linear.by_camera.transpose(0, 2, 1), linear.by_point.transpose(0, 2, 1)
    of = np.equal.outer(np.arange(cameras), camera).astype(float)
    blocks = np.zeros((cameras, 6, cameras, 6))
    blocks[range(cameras), :, range(cameras)] = np.tensordot(of, by_camera_T @ linear.by_camera, 1)
    gradient = (of @ np.einsum("oij,oi->oj", linear.by_camera, linear.residual)).ravel()
    free = camera >= 0
    coupling = np.zeros((points, 6 * cameras, 3))
    coupling.reshape(points, cameras, 6, 3)[point[free], camera[free]] = (by_camera_T @ linear.by_point)[free]
    V, g_point = np.zeros((points, 3, 3)), np.zeros((points, 3))
    np.add.at(V, point, by_point_T @ linear.by_point)
    np.add.at(g_point, point, np.einsum("oij,oi->oj", linear.by_point, linear.residual))
    V_inverse = np.linalg.inv(
        V + (damping * np.einsum("pii->pi", V) + LEAST_INFORMATION)[..., None] * np.eye(3)
    )
    weighted = coupling @ V_inverse
    H = blocks.reshape(6 * cameras, 6 * cameras)
    H -= np.einsum("pik,pjk->ij", weighted, coupling, optimize=True)
    gradient -= np.einsum("pik,pk->i", weighted, g_point)
    return Reduced(H, gradient, coupling, V_inverse, g_point)
