# SPDX-License-Identifier: Apache-2.0
"""The register rung's estimator: the target against points seen from the posed views around the reference."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pycolmap

from pose_bridge.config import RegisterConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import bundle, posed
from pose_bridge.estimators.base import Array, Estimate, Indices, Problem, Tracks
from pose_bridge.estimators.pairs import PairVerifier, ideal_camera, matrix
from pose_bridge.estimators.sfm import SfmEstimator
from pose_bridge.geometry import rigid
from pose_bridge.views import Stage


class RegistrationEstimator:
    """Triangulates from the reference views, resects the target (LO-RANSAC and refinement), adjusts."""

    name = "registration"
    stage = Stage.REGISTER

    def __init__(self, settings: RegisterConfig, verifier: PairVerifier, sfm: SfmEstimator) -> None:
        self._settings = settings
        self._verifier = verifier
        self._sfm = sfm

    def estimate(self, problem: Problem, control: Control) -> Estimate:
        """Estimate the target's pose; the problem holds the target and views of the reference side only.

        The reference views' poses come from odometry where all have them, else from a reconstruction of that
        side. Either is a first guess and adjusted with the target; metres are scale.py's to say.

        Raises:
            NoEstimateError: No points on the reference side, or too few of them are seen by the target.
            CancelledError, BudgetSpentError: From `control`.
        """
        side = self._by_odometry(problem, control) or self._by_reconstruction(problem, control)
        control.check()
        keypoints, points = _target_observations(problem, side.tracks)
        T_target_reference, inliers = self._resect(problem, keypoints, side.points[points])
        seen = Tracks(
            np.r_[side.tracks.point, points[inliers]],
            np.r_[side.tracks.view, np.ones(inliers.sum(), np.intp)],
            np.r_[side.tracks.keypoint, keypoints[inliers]],
        )
        return bundle.adjust(
            self,
            problem,
            {**side.T_rig_camera, 1: rigid.inverse(T_target_reference)},
            side.points,
            seen,
            max_error_px=self._settings.max_error_px,
        )

    def _by_reconstruction(self, problem: Problem, control: Control) -> posed.Rig:
        own = [view for view in range(len(problem.views)) if view != 1]
        if len(own) < 2:
            raise NoEstimateError("no context around the reference to register the target against")
        # Another view stands in for the target: the one that shares most with the reference.
        second = own.index(max(own[1:], key=lambda view: len(problem.matches[0, view])))
        own[1], own[second] = own[second], own[1]
        found = self._sfm.reconstruct(problem.part(own), control)
        view = np.array(own)[found.tracks.view]
        cameras = {own[new]: T for new, T in found.T_reference_camera.items()}
        return posed.Rig(cameras, Tracks(found.tracks.point, view, found.tracks.keypoint), found.points)

    def _by_odometry(self, problem: Problem, control: Control) -> posed.Rig | None:
        """Points triangulated with odometry's poses; None where it is missing or has no baseline."""
        own = [view for view in range(len(problem.views)) if view != 1]
        known = [problem.views[view].T_side_camera for view in own]
        poses = [T for T in known if T is not None]
        if len(own) < 2 or len(poses) < len(own):
            return None
        cameras = {view: rigid.relative(poses[0], T) for view, T in zip(own, poses, strict=True)}
        pairs = [pair for pair in combinations(own, 2) if pair in problem.matches]
        verified = self._verifier.verify(problem, control, pairs)
        side = posed.triangulated(problem, cameras, verified, self._settings.min_triangulation_deg)
        return side if len(side.points) else None

    def _resect(self, problem: Problem, keypoints: Indices, points: Array) -> tuple[Array, np.ndarray]:
        if len(points) < self._settings.min_inliers:
            raise NoEstimateError(
                f"the target sees {len(points)} points of the reference side, needed are "
                f"{self._settings.min_inliers}"
            )
        options = pycolmap.AbsolutePoseEstimationOptions()
        options.ransac.max_error = self._settings.max_error_px
        options.ransac.random_seed = problem.seed % 2**31
        focal_px = problem.focal_px()
        found = pycolmap.estimate_and_refine_absolute_pose(
            problem.features[1].points[keypoints] * focal_px, points, ideal_camera(focal_px), options
        )
        if found is None or found["num_inliers"] < self._settings.min_inliers:
            raise NoEstimateError("too few points of the reference side agree on where the target is")
        return matrix(found["cam_from_world"]), np.asarray(found["inlier_mask"], bool)


def _target_observations(problem: Problem, tracks: Tracks) -> tuple[Indices, Indices]:
    """Return which target keypoint shows which point; a keypoint and a point appear once."""
    point_of = tracks.point_of()
    seen: dict[int, int] = {}
    for (a, b), matches in sorted(problem.matches.items()):
        if 1 not in (a, b):
            continue
        other, own, theirs = (
            (a, matches[:, 1], matches[:, 0]) if b == 1 else (b, matches[:, 0], matches[:, 1])
        )
        for keypoint, match in zip(own, theirs, strict=True):
            point = point_of.get((other, int(match)))
            if point is not None:
                seen.setdefault(int(keypoint), point)
    once = {point: keypoint for keypoint, point in reversed(list(seen.items()))}
    return np.array(list(once.values()), np.intp), np.array(list(once), np.intp)
