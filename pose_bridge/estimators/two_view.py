# SPDX-License-Identifier: Apache-2.0
"""The direct rung's estimator: essential matrix of two views, or only their rotation."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import TwoViewConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import bundle
from pose_bridge.estimators.base import Array, Estimate, Problem, Tracks
from pose_bridge.geometry import epipolar, rigid, rotations
from pose_bridge.views import Stage

CONFIDENCE = 0.9999
MAX_TRIALS = 5000
FLAT_SHARE = (
    0.85  # a homography that explains this share of the essential matrix's inliers: flat, or only turned
)
SAME_ROTATION_RAD = np.radians(2.0)
AS_GOOD = 1.5  # a turn that fits worse than a plane by this factor is none: a camera may circle a poster
EXACT_SHARE = 0.2  # of the inlier threshold: what fits this well is a turn, whatever fits better


class TwoViewEstimator:
    """MAGSAC++ (OpenCV) on the essential matrix and the homography, cheirality, refinement.

    OpenCV's sampler always starts from the same state, so the answer does not depend on the seed.

    Of a flat scene and of a camera that only turned the translation stays undefined: an essential matrix
    fitted to them is a plausible number.
    """

    name = "two_view"
    stage = Stage.DIRECT

    def __init__(self, settings: TwoViewConfig) -> None:
        self._settings = settings

    def estimate(self, problem: Problem, control: Control) -> Estimate:
        """Estimate the pose from the matches of views 0 and 1 alone.

        Raises:
            NoEstimateError: Too few matches agree, or two different rotations explain them equally well.
            CancelledError, BudgetSpentError: From `control`.
        """
        control.check()
        matches = problem.matches[0, 1]
        if len(matches) < self._settings.min_inliers:
            raise NoEstimateError(
                f"{len(matches)} matches between the two views, {self._settings.min_inliers} needed"
            )
        a, b = problem.features[0].points[matches[:, 0]], problem.features[1].points[matches[:, 1]]
        limit = self._settings.max_error_px / problem.focal_px()
        E, inliers = _essential(a, b, limit)
        H, on_plane = _homography(a, b, limit)
        self._require(int(max(inliers.sum(), on_plane.sum())))
        control.check()
        if on_plane.sum() >= FLAT_SHARE * inliers.sum():
            return self._rotation_only(
                problem, matches[on_plane], _rotation_of(H, a[on_plane], b[on_plane], limit)
            )
        T_target_reference, front = epipolar.pose_from_essential(E, a[inliers], b[inliers])
        kept = matches[inliers][front]
        self._require(len(kept))
        return self._pose(problem, T_target_reference, kept)

    def _require(self, inliers: int) -> None:
        if inliers < self._settings.min_inliers:
            raise NoEstimateError(
                f"{inliers} matches between the two views agree, {self._settings.min_inliers} needed"
            )

    def _pose(self, problem: Problem, T_target_reference: Array, matches: NDArray[np.intp]) -> Estimate:
        a, b = problem.features[0].points[matches[:, 0]], problem.features[1].points[matches[:, 1]]
        parallax = epipolar.parallax_rad(T_target_reference, a, b)
        if np.degrees(np.median(parallax)) < self._settings.min_parallax_deg:
            return self._rotation_only(problem, matches, _turn(a, b))
        return bundle.adjust(
            self,
            problem,
            {0: np.eye(4), 1: rigid.inverse(T_target_reference)},
            epipolar.triangulate(T_target_reference, a, b),
            _pair_tracks(matches),
            max_error_px=2 * self._settings.max_error_px,
        )

    def _rotation_only(
        self, problem: Problem, matches: NDArray[np.intp], R_target_reference: Array
    ) -> Estimate:
        """Rotation with its covariance by the residuals; the translation means nothing (it is zero)."""
        a, b = problem.features[0].points[matches[:, 0]], problem.features[1].points[matches[:, 1]]
        residual = np.linalg.norm(_transfer(R_target_reference, a) - b, axis=1)
        rays = np.c_[a, np.ones(len(a))] / np.linalg.norm(np.c_[a, np.ones(len(a))], axis=1, keepdims=True)
        information = sum(np.eye(3) - np.outer(ray, ray) for ray in rays)
        variance = max(float(np.mean(residual**2)) / 2, (0.1 / problem.focal_px()) ** 2)
        covariance = np.zeros((6, 6))
        covariance[3:, 3:] = variance * np.linalg.inv(information)
        return Estimate(
            stage=self.stage,
            estimator=self.name,
            T_reference_camera={0: np.eye(4), 1: rigid.make(R_target_reference.T, np.zeros(3))},
            tracks=_pair_tracks(matches),
            points=10.0 * rays,  # on their rays; how far is not known
            rms_px=float(np.sqrt(np.mean(residual**2) / 2)) * problem.focal_px(),
            joint_covariance=covariance,
            covariance_views=(1,),
            translation_defined=False,
        )


def _essential(a: Array, b: Array, limit: float) -> tuple[Array, NDArray[np.bool_]]:
    E, mask = cv2.findEssentialMat(a, b, np.eye(3), cv2.USAC_MAGSAC, CONFIDENCE, limit, MAX_TRIALS)
    if E is None or E.shape != (3, 3):
        raise NoEstimateError("no essential matrix fits the matches of the two views")
    U, _, Vt = np.linalg.svd(E)
    return U @ np.diag([1.0, 1.0, 0.0]) @ Vt, mask.reshape(-1) > 0


def _homography(a: Array, b: Array, limit: float) -> tuple[Array, NDArray[np.bool_]]:
    # in coordinates near 1, OpenCV's solver misses most inliers
    unit = np.diag([1.0 / limit, 1.0 / limit, 1.0])
    H, mask = cv2.findHomography(
        a / limit, b / limit, cv2.USAC_MAGSAC, 1.0, maxIters=MAX_TRIALS, confidence=CONFIDENCE
    )
    if H is None:
        return np.eye(3), np.zeros(len(a), bool)
    return np.asarray(np.linalg.inv(unit) @ H @ unit, float), mask.reshape(-1) > 0


def _rotation_of(H: Array, a: Array, b: Array, limit: float) -> Array:
    """R_target_reference of views related by a homography: a turn, or an unambiguous plane.

    Raises:
        NoEstimateError: The plane allows two different rotations (Hartley and Zisserman, 2nd ed., result
            13.2 and Malis and Vargas, Deeper understanding of the homography decomposition, 2007).
    """
    turn = _turn(a, b)
    turn_error, plane_error = (np.median(np.linalg.norm(_transfer(M, a) - b, axis=1)) for M in (turn, H))
    if turn_error < min(limit, max(AS_GOOD * plane_error, EXACT_SHARE * limit)):
        return turn
    _, candidates, _, normals = cv2.decomposeHomographyMat(H, np.eye(3))
    visible = [
        rotations.nearest_rotation(R)
        for R, normal in zip(candidates, normals, strict=True)
        if (np.c_[a, np.ones(len(a))] @ normal).min() > 0  # the plane lies in front of the camera
    ]
    if not visible:
        raise NoEstimateError("a plane fits the matches, but it would lie behind the camera")
    if any(rotations.rotation_angle_rad(R.T @ visible[0]) > SAME_ROTATION_RAD for R in visible[1:]):
        raise NoEstimateError(
            "the scene that both views see is flat: two different rotations explain it equally well"
        )
    return visible[0]


def _turn(a: Array, b: Array) -> Array:
    """R_target_reference that turns one view's rays onto the other's (Kabsch)."""
    rays_a, rays_b = (np.c_[x, np.ones(len(x))] for x in (a, b))
    rays_a, rays_b = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (rays_a, rays_b))
    return rotations.nearest_rotation(rays_b.T @ rays_a)


def _transfer(R_target_reference: Array, a: Array) -> Array:
    turned = np.c_[a, np.ones(len(a))] @ R_target_reference.T
    return turned[:, :2] / turned[:, 2:]


def _pair_tracks(matches: NDArray[np.intp]) -> Tracks:
    index = np.arange(len(matches))
    return Tracks(
        np.r_[index, index],
        np.r_[np.zeros_like(index), np.ones_like(index)],
        np.r_[matches[:, 0], matches[:, 1]],
    )
