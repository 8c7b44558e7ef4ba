# SPDX-License-Identifier: Apache-2.0
"""Points from views whose poses are known, by odometry or through the map; shared by the estimators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pose_bridge.estimators.base import Array, Indices, Problem, Tracks
from pose_bridge.geometry import epipolar, rigid

ODOMETRY_ERROR_PX = 6.0  # how far odometry's poses may put a match off its epipolar line


@dataclass(frozen=True, eq=False)
class Rig:
    """Posed views and the points they see, in one frame.

    Attributes:
        T_rig_camera: By view.
        tracks: Of the points.
        points: (P, 3).
    """

    T_rig_camera: Mapping[int, Array]
    tracks: Tracks
    points: Array


class _Cloud:
    """Points from pairs of keypoints (view, index); pairs that share a keypoint are one point."""

    def __init__(self) -> None:
        self._points: list[Array] = []
        self._rows: list[tuple[int, int, int]] = []
        self._point_of: dict[tuple[int, int], int] = {}
        self._seen: set[tuple[int, int]] = set()  # (point, view): a view shows a point once

    def add(self, first: tuple[int, int], second: tuple[int, int], point: Array) -> None:
        """Take a match for what it shows."""
        known = self._point_of.get(first, self._point_of.get(second))
        if known is None:
            known = len(self._points)
            self._points.append(point)
        for view, keypoint in (first, second):
            if (view, keypoint) not in self._point_of and (known, view) not in self._seen:
                self._point_of[view, keypoint] = known
                self._seen.add((known, view))
                self._rows.append((known, view, keypoint))

    def rig(self, T_rig_camera: Mapping[int, Array]) -> Rig:
        """What was taken, with the cameras that saw it."""
        return Rig(T_rig_camera, Tracks.of_rows(self._rows), np.array(self._points).reshape(-1, 3))


def triangulated(
    problem: Problem,
    T_rig_camera: Mapping[int, Array],
    pairs: Iterable[tuple[int, int]],
    min_angle_deg: float,
) -> Rig:
    """Return posed views with the points that pairs of them show.

    Args:
        problem: Features and matches.
        T_rig_camera: By view, metric.
        pairs: Of those views; the first ones decide where a point lies.
        min_angle_deg: Points under a smaller angle between their rays are left out.
    """
    cloud = _Cloud()
    for a, b in pairs:
        for (i, j), point in zip(*_of_pair(problem, T_rig_camera, a, b, min_angle_deg), strict=True):
            cloud.add((a, int(i)), (b, int(j)), point)
    return cloud.rig(T_rig_camera)


def _of_pair(
    problem: Problem, T_rig_camera: Mapping[int, Array], a: int, b: int, min_angle_deg: float
) -> tuple[Indices, Array]:
    matches = problem.matches[a, b]
    x_a, x_b = problem.features[a].points[matches[:, 0]], problem.features[b].points[matches[:, 1]]
    T_b_a = rigid.relative(T_rig_camera[b], T_rig_camera[a])
    if np.linalg.norm(T_b_a[:3, 3]) == 0.0:
        return matches[:0], np.empty((0, 3))
    error_px = problem.focal_px() * epipolar.sampson_error(epipolar.essential_from_pose(T_b_a), x_a, x_b)
    wide = epipolar.parallax_rad(T_b_a, x_a, x_b) > np.radians(min_angle_deg)
    good = (error_px < ODOMETRY_ERROR_PX) & wide & epipolar.in_front(T_b_a, x_a, x_b)
    return matches[good], rigid.transform(T_rig_camera[a], epipolar.triangulate(T_b_a, x_a[good], x_b[good]))
