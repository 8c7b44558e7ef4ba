# SPDX-License-Identifier: Apache-2.0
"""Two sides of a question, each held together by its poses: what each sees of the other's points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import posed
from pose_bridge.estimators.base import Array, Indices, Problem, Tracks, Witnesses
from pose_bridge.geometry import rigid
from pose_bridge.views import View

LIKE_RAD = np.radians(25.0)  # between two views of a point that look alike
LIKE_RATIO = 1.5  # of their distances
LIKELY_PX = 24.0  # around where a point is expected
MANY_EXPECTED = 100  # points in a view, from which it can confirm or deny
DENIED_SHARE, CONFIRMED_SHARE = 0.04, 0.1  # of them that are found
NEAR_M = 0.2  # points nearer than this are not expected

Node = tuple[int, int]  # view, keypoint


@dataclass(frozen=True, eq=False)
class Links:
    """Keypoints of one side's views that match points of the other side.

    Attributes:
        view: (L,).
        keypoint: (L,).
        point: Index of the other side's point, (L,).
        rays: Where the keypoint is, normalized, (L, 2).
    """

    view: Indices
    keypoint: Indices
    point: Indices
    rays: Array


class Sides:
    """The reference side, 0, and the target side, 1.

    Args:
        problem: All views have poses.
        min_angle_deg: Points under a smaller angle between their rays are left out.

    Attributes:
        rigs: Of both sides, each in the frame of the end that it belongs to.
        links: Of both: what views of the other side see of a side's points.

    Raises:
        NoEstimateError: A view has no pose.
    """

    def __init__(self, problem: Problem, min_angle_deg: float) -> None:
        self.problem = problem
        self.rigs = [self._rig(end, min_angle_deg) for end in (0, 1)]
        self.links = [self._links(side) for side in (0, 1)]

    def errors(self, T_reference_target: Array) -> list[Array]:
        """How far each link's point is from where it is seen, on the plane z = 1, (L,) of both sides."""
        found = []
        for side, T_own_other in enumerate((T_reference_target, rigid.inverse(T_reference_target))):
            links, points = self.links[side], self.rigs[side].points
            error = np.empty(len(links.point))
            for view, T_rig_camera in self.rigs[1 - side].T_rig_camera.items():
                rows = np.flatnonzero(links.view == view)
                T = T_own_other @ T_rig_camera
                error[rows] = _projection_error(T, points[links.point[rows]], links.rays[rows])
            found.append(error)
        return found

    def fits(self, T_reference_target: Array) -> list[NDArray[np.bool_]]:
        """Which links fit, as far as odometry allows to tell."""
        limit = posed.ODOMETRY_ERROR_PX / self.problem.focal_px()
        return [error < limit for error in self.errors(T_reference_target)]

    def cameras(self, T_reference_target: Array) -> dict[int, Array]:
        """T_reference_camera of the target side's views, as odometry has them around the target."""
        return {view: T_reference_target @ T for view, T in self.rigs[1].T_rig_camera.items()}

    def followed(self, T_reference_camera: Mapping[int, Array]) -> dict[int, Array]:
        """T_reference_camera of the target side's views; of those not known, from the next one that is."""
        way = self.problem.way(1)
        known = [place for place, view in enumerate(way) if view in T_reference_camera]
        nearest = {place: min(known, key=lambda other: abs(other - place)) for place in range(len(way))}
        return {
            view: T_reference_camera[way[nearest[place]]] @ driven(self.problem, way[nearest[place]], view)
            for place, view in enumerate(way)
        }

    def witnesses(self, T_reference_camera: Mapping[int, Array]) -> Witnesses:
        """Whether views of the target side show what the reference side saw from a like direction.

        A false alignment may have as many matches as it likes; it hardly ever has what else should be there.

        Args:
            T_reference_camera: Of all views of the target side.
        """
        links, points = self.links[0], self.rigs[0].points
        denied = confirmed = 0
        for view, T in T_reference_camera.items():
            expected = self._expected(view, T)
            if expected.sum() < MANY_EXPECTED:
                continue
            rows = np.flatnonzero(links.view == view)
            error = _projection_error(T, points[links.point[rows]], links.rays[rows])
            found = np.zeros(len(points), bool)
            found[links.point[rows[error < LIKELY_PX / self.problem.focal_px()]]] = True
            share = float((expected & found).sum() / expected.sum())
            denied += share < DENIED_SHARE
            confirmed += share > CONFIRMED_SHARE
        return Witnesses(denied, confirmed)

    def joined(self, T_reference_target: Array) -> tuple[Tracks, Array]:
        """Both sides' points in the reference frame, those that fitting links tie together as one."""
        own = [rig.tracks.point_of() for rig in self.rigs]
        offset = (0, len(self.rigs[0].points))
        points = np.vstack([self.rigs[0].points, rigid.transform(T_reference_target, self.rigs[1].points)])
        point_at = {node: point + offset[side] for side in (0, 1) for node, point in own[side].items()}
        seen: list[dict[int, int]] = [{} for _ in points]  # keypoint by view: a view shows a point once
        for (view, keypoint), point in point_at.items():
            seen[point][view] = keypoint
        stands_for = np.arange(len(points))
        for side, fits in enumerate(self.fits(T_reference_target)):
            links = self.links[side]
            for row in np.flatnonzero(fits):
                view, keypoint = int(links.view[row]), int(links.keypoint[row])
                point = stands_for[links.point[row] + offset[side]]
                if (view, keypoint) not in point_at:
                    if view not in seen[point]:
                        seen[point][view] = keypoint
                        point_at[view, keypoint] = point
                    continue
                other = stands_for[point_at[view, keypoint]]
                if other != point and not seen[point].keys() & seen[other].keys():
                    seen[point].update(seen[other])
                    seen[other] = {}
                    stands_for[stands_for == other] = point
        left = [index for index, views in enumerate(seen) if views]
        rows = [(new, *node) for new, index in enumerate(left) for node in seen[index].items()]
        return Tracks.of_rows(rows), points[left]

    def _rig(self, end: int, min_angle_deg: float) -> posed.Rig:
        problem = self.problem
        own = [view for view, side in enumerate(problem.sides) if side == end]
        cameras = {view: driven(problem, end, view) for view in own}
        pairs = [pair for pair in sorted(problem.matches) if {problem.sides[v] for v in pair} == {end}]
        return posed.triangulated(problem, cameras, pairs, min_angle_deg)

    def _links(self, side: int) -> Links:
        """Each view of a point once, however many matches say so."""
        point_of = self.rigs[side].tracks.point_of()
        across = self._across(side)
        found = dict.fromkeys((*seen, point_of[node]) for node, seen in across if node in point_of)
        rows = np.array(list(found), np.intp).reshape(-1, 3)
        features = self.problem.features
        rays = np.array([features[view].points[keypoint] for view, keypoint, _ in rows]).reshape(-1, 2)
        return Links(rows[:, 0], rows[:, 1], rows[:, 2], rays)

    def _across(self, side: int) -> Iterator[tuple[Node, Node]]:
        """Matches between the sides: the keypoint on this one, and the one on the other."""
        for pair, matches in sorted(self.problem.matches.items()):
            if self.problem.sides[pair[0]] == self.problem.sides[pair[1]]:
                continue
            first, second = (0, 1) if self.problem.sides[pair[0]] == side else (1, 0)
            for match in matches.tolist():
                yield (pair[first], match[first]), (pair[second], match[second])

    def _expected(self, view: int, T_reference_camera: Array) -> NDArray[np.bool_]:
        """Which points of the reference side a view should show as they were seen there, (P,)."""
        rig = self.rigs[0]
        places = np.zeros((max(rig.T_rig_camera) + 1, 3))
        places[list(rig.T_rig_camera)] = [T[:3, 3] for T in rig.T_rig_camera.values()]
        points = rig.points[rig.tracks.point]
        before, now = places[rig.tracks.view] - points, T_reference_camera[:3, 3] - points
        before_m, now_m = np.linalg.norm(before, axis=1), np.linalg.norm(now, axis=1)
        cosine = (before * now).sum(axis=1) / np.maximum(before_m * now_m, 1e-9)
        alike = (cosine > np.cos(LIKE_RAD)) & (np.abs(np.log(now_m / before_m)) < np.log(LIKE_RATIO))
        expected = np.zeros(len(rig.points), bool)
        expected[rig.tracks.point[alike]] = True
        local = rigid.transform(rigid.inverse(T_reference_camera), rig.points)
        return expected & _inside(self.problem.views[view], local)


def driven(problem: Problem, origin: int, view: int) -> Array:
    """T_origin_view by odometry, or through the map.

    Raises:
        NoEstimateError: One of them has no pose.
    """
    T_side_origin, T_side_view = (problem.views[index].T_side_camera for index in (origin, view))
    if T_side_origin is None or T_side_view is None:
        raise NoEstimateError("odometry does not say how the views of each side lie to each other")
    return rigid.relative(T_side_origin, T_side_view)


def _inside(view: View, p_camera: Array) -> NDArray[np.bool_]:
    """Which points, (N, 3), lie in a view's image; lens distortion is ignored."""
    camera, z = view.camera, np.maximum(p_camera[:, 2], 1e-9)
    pixels = (p_camera / z[:, None]) @ camera.K.T
    inside = (pixels[:, :2] >= 0.0) & (pixels[:, :2] <= (camera.width, camera.height))
    return np.asarray((p_camera[:, 2] > NEAR_M) & inside.all(axis=1))


def _projection_error(T_frame_camera: Array, points: Array, rays: Array) -> Array:
    """Distance on the plane z = 1 between where points are and where they are seen; infinite behind, (L,)."""
    local = rigid.transform(rigid.inverse(T_frame_camera), points)
    front = local[:, 2] > 0.0
    error = np.full(len(points), np.inf)
    error[front] = np.linalg.norm(local[front, :2] / local[front, 2:] - rays[front], axis=1)
    return error
