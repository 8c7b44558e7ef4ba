# SPDX-License-Identifier: Apache-2.0
"""The context rung's estimator where odometry holds each side together: two rigid rigs, aligned.

Six numbers are unknown, three if both sides stand level on one floor, and every match between any two views
across the gap tells something about them. So a few here and there do what no single pair of views could.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np
import pycolmap

from pose_bridge.config import RigsConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import bundle, odometry_bundle, posed, voting
from pose_bridge.estimators.base import Array, Estimate, Problem, Tracks
from pose_bridge.estimators.normal_equations import Belief
from pose_bridge.estimators.pairs import ideal_camera, matrix
from pose_bridge.estimators.sides import Sides, driven
from pose_bridge.geometry import rigid
from pose_bridge.odometry import drift
from pose_bridge.views import Question, Stage, View

MAX_TRIALS = 30000  # finds 7 % of inliers with a probability of 0.99997
FIRST_SIGMA_PX = 1.5  # of keypoints, before they were adjusted
LEAST_SIGMA_PX = 0.3
ALIGNMENTS = 20  # that are looked at
DENIAL = 8  # points that one view which denies an alignment outweighs
MAX_POINTS = 600  # that are adjusted; more if more link the sides


class RigEstimator:
    """Triangulates both sides by odometry, aligns them (a vote, or generalized resection), adjusts all."""

    name = "rigs"
    stage = Stage.CONTEXT

    def __init__(self, settings: RigsConfig) -> None:
        self._settings = settings

    @staticmethod
    def applies(question: Question) -> bool:
        """Whether every view of a question has odometry, and one side has moved."""
        return all(map(_posed, question.sides)) and any(map(_moved, question.sides))

    def estimate(self, problem: Problem, control: Control) -> Estimate:
        """Estimate the target's pose from all matches between views of the two sides.

        Raises:
            NoEstimateError: No points on either side, or too few matches agree.
            CancelledError, BudgetSpentError: From `control`.
        """
        sides = Sides(problem, self._settings.min_triangulation_deg)
        control.check()
        T = self._aligned(sides, control)
        tracks, points = _thinned(problem, *sides.joined(T), self._settings.min_links)
        cameras = {**sides.rigs[0].T_rig_camera, **sides.cameras(T)}
        found, tracks = self._adjusted(problem, cameras, points, tracks, control)
        joint = np.linalg.inv(found.information)
        estimate = bundle.estimate_of(
            self,
            found.T_reference_camera,
            found.points,
            tracks,
            np.linalg.norm(found.error_px, axis=1),
            (joint + joint.T) / 2,
            found.views,
            rigid_sides=True,
        )
        level = list(self._level(problem, set(found.T_reference_camera)))
        return dataclasses.replace(
            estimate,
            witnesses=sides.witnesses(sides.followed(found.T_reference_camera)),
            unleveled=odometry_bundle.without(found, level) if level else None,
        )

    def _aligned(self, sides: Sides, control: Control) -> Array:
        """T_reference_target that most points of both sides speak for, and no view against."""
        found: Iterable[tuple[Array, int]] = (
            _level_alignments(sides, control) if sides.problem.level else self._resections(sides, control)
        )
        best, most = None, -np.inf
        for T, support in found:
            control.check()
            worth = support - DENIAL * sides.witnesses(sides.cameras(T)).denied
            if worth > most:
                best, most = T, worth
        if best is None:
            raise NoEstimateError("too few matches across the gap agree on how the two sides lie")
        return best

    def _resections(self, sides: Sides, control: Control) -> Iterator[tuple[Array, int]]:
        """T_reference_target by either rig among the other side's points, and how many of them fit."""
        for side in (0, 1):
            control.check()
            T_other_side = self._resected(sides, side)
            if T_other_side is not None:
                T = rigid.inverse(T_other_side) if side == 0 else T_other_side
                both = zip(sides.links, sides.fits(T), strict=True)
                yield T, sum(len(np.unique(links.point[fits])) for links, fits in both)

    def _resected(self, sides: Sides, side: int) -> Array | None:
        """T_other_side from what the other side's views see of this one's points."""
        problem, links, observer = sides.problem, sides.links[side], sides.rigs[1 - side]
        if len(np.unique(links.point)) < self._settings.min_links:
            return None
        focal_px = problem.focal_px()
        views = sorted(observer.T_rig_camera)
        options = pycolmap.RANSACOptions()
        options.max_error = posed.ODOMETRY_ERROR_PX
        options.max_num_trials = MAX_TRIALS
        options.random_seed = problem.seed % 2**31
        found = pycolmap.estimate_and_refine_generalized_absolute_pose(
            links.rays * focal_px,
            sides.rigs[side].points[links.point],
            np.searchsorted(views, links.view).tolist(),
            [pycolmap.Rigid3d(rigid.inverse(observer.T_rig_camera[view])[:3]) for view in views],
            [ideal_camera(focal_px)] * len(views),
            options,
        )
        return None if found is None else matrix(found["rig_from_world"])

    def _adjusted(
        self,
        problem: Problem,
        T_reference_camera: Mapping[int, Array],
        points: Array,
        tracks: Tracks,
        control: Control,
    ) -> tuple[odometry_bundle.Adjusted, Tracks]:
        """Adjust, drop what does not fit, and adjust again, with the noise of keypoints as it turns out."""
        seen = set(tracks.view.tolist()) | {0, 1}
        T_reference_camera = {view: T for view, T in T_reference_camera.items() if view in seen}
        beliefs: list[Belief] = [*self._held(problem, seen), *self._level(problem, seen)]
        sigma_px = FIRST_SIGMA_PX
        for limit in (2.0, 1.0, 1.0):  # of the largest error: odometry's first guess is rough
            found = odometry_bundle.adjust(
                problem,
                T_reference_camera,
                points,
                tracks,
                beliefs,
                sigma_px,
                control,
                odometry_bundle.ROUGH_GAIN,
            )
            error_px = np.linalg.norm(found.error_px, axis=1)
            keep = error_px < limit * self._settings.max_error_px
            points, tracks = bundle.keep_observations(found.points, tracks, keep)
            T_reference_camera = found.T_reference_camera
            redundancy = 2 * len(tracks.point) - 3 * len(points)
            if redundancy < bundle.MIN_REDUNDANCY:
                raise NoEstimateError("too few observations agree on how the two sides lie")
            sigma_px = max(LEAST_SIGMA_PX, float(np.sqrt(np.sum(error_px[keep] ** 2) / redundancy)))
        found = odometry_bundle.adjust(
            problem, T_reference_camera, points, tracks, beliefs, sigma_px, control
        )
        return found, tracks

    def _held(self, problem: Problem, views: set[int]) -> Iterator[odometry_bundle.Held]:
        """A map's views by themselves; a robot's odometry from each picture to the next, errors adding up."""
        settings = self._settings
        for side in (0, 1):
            if problem.mapped and side == 0:
                sigma = (settings.map_m, float(np.radians(settings.map_deg)))
                for view in sorted(views):
                    if view != 0 and problem.sides[view] == 0:
                        yield odometry_bundle.Held(view, 0, driven(problem, 0, view), sigma)
                continue
            way = problem.way(side)
            steps = [drift(driven(problem, *step), settings) for step in pairwise(way)]
            for start, end in pairwise([index for index, view in enumerate(way) if view in views]):
                origin, view = way[start], way[end]
                place, turn = np.sqrt(np.sum(steps[start:end], axis=0)).tolist()
                yield odometry_bundle.Held(view, origin, driven(problem, origin, view), (place, turn))

    def _level(self, problem: Problem, views: set[int]) -> Iterator[odometry_bundle.Level]:
        """That the robot's bases stand upright on one floor, where both sides say so.

        What they err by they have in common, the reference's part of it among it: together they count once.
        """
        T_side_camera = [np.asarray(view.T_side_camera) for view in problem.views]
        believed = [view for view in sorted(views) if problem.sides[view] == 1] if problem.level else []
        share = float(np.sqrt(len(believed)))
        sigma = (share * self._settings.level_m, share * float(np.radians(self._settings.level_deg)))
        for view in believed:
            up_reference, up_view = T_side_camera[0][2, :3], T_side_camera[view][2, :3]
            height_m = float(T_side_camera[view][2, 3] - T_side_camera[0][2, 3])
            yield odometry_bundle.Level(view, up_reference, up_view, height_m, sigma)


def _posed(side: tuple[View, ...]) -> bool:
    return all(view.T_side_camera is not None for view in side)


def _moved(side: tuple[View, ...]) -> bool:
    places = np.array([view.T_side_camera[:3, 3] for view in side if view.T_side_camera is not None])
    return bool(np.ptp(places, axis=0).any())


def _level_alignments(sides: Sides, control: Control) -> list[tuple[Array, int]]:
    """T_reference_target by a vote, which needs frames with z up: those of the sides; and their support."""
    T_side_end = [np.asarray(sides.problem.views[end].T_side_camera) for end in (0, 1)]
    sights = [_sights(sides, side, T_side_end[side], T_side_end[1 - side]) for side in (0, 1)]
    return [
        (rigid.inverse(T_side_end[0]) @ T @ T_side_end[1], support)
        for T, support in voting.alignments(sights[0], sights[1], ALIGNMENTS, control)
    ]


def _sights(sides: Sides, side: int, T_own_end: Array, T_other_end: Array) -> voting.Sights:
    observed, observer, links = sides.rigs[side], sides.rigs[1 - side], sides.links[side]
    T_other_camera = {view: T_other_end @ T for view, T in observer.T_rig_camera.items()}
    poses = np.array([T_other_camera[view] for view in links.view.tolist()]).reshape(-1, 4, 4)
    rays = np.einsum("nij,nj->ni", poses[:, :3, :3], np.c_[links.rays, np.ones(len(links.rays))])
    return voting.Sights(
        points_m=rigid.transform(T_own_end, observed.points[links.point]),
        origins_m=poses[:, :3, 3],
        rays=rays / np.linalg.norm(rays, axis=1, keepdims=True),
        tolerance_rad=posed.ODOMETRY_ERROR_PX / sides.problem.focal_px(),
    )


def _thinned(problem: Problem, tracks: Tracks, points: Array, min_links: int) -> tuple[Tracks, Array]:
    """Keep the points that link the sides, and a few others with long tracks: odometry does for the rest."""
    side = np.asarray(problem.sides)[tracks.view]
    seen = np.array([np.bincount(tracks.point[side == end], minlength=len(points)) for end in (0, 1)])
    links = np.asarray(seen.all(axis=0))
    if links.sum() < min_links:
        raise NoEstimateError(f"only {links.sum()} points tie the two sides, needed are {min_links}")
    keep = links.copy()
    keep[np.argsort(-np.where(links, np.inf, seen.sum(axis=0)), kind="stable")[:MAX_POINTS]] = True
    return tracks.where(keep[tracks.point]), points[keep]
