# SPDX-License-Identifier: Apache-2.0
"""Two-view verification of matches with known intrinsics (pycolmap), shared by the estimators, remembered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from pose_bridge.config import SfmConfig
from pose_bridge.control import Control
from pose_bridge.estimators.base import Array, Indices, Problem
from pose_bridge.features import Once
from pose_bridge.geometry import epipolar, rigid, rotations

NO_GEOMETRY = (
    pycolmap.TwoViewGeometryConfiguration.UNDEFINED,
    pycolmap.TwoViewGeometryConfiguration.DEGENERATE,
    pycolmap.TwoViewGeometryConfiguration.MULTIPLE,
)
MAX_TRIALS = 2500  # finds 30 % of inliers with a probability of 0.998
REMEMBERED = 5000
SUPPORT_PX = 1.0  # a match that is so far from its epipolar line speaks half for it
PairGeometry = dict[tuple[int, int], pycolmap.TwoViewGeometry]


class PairVerifier:
    """Finds the calibrated two-view geometry of pairs of views; asked again, it remembers."""

    def __init__(self, settings: SfmConfig) -> None:
        self._settings = settings
        self._known: Once[pycolmap.TwoViewGeometry] = Once(REMEMBERED)

    def verify(
        self, problem: Problem, control: Control, pairs: Iterable[tuple[int, int]] | None = None
    ) -> PairGeometry:
        """Return the geometry of those pairs (all, if none are named) that have one with enough inliers.

        Raises:
            CancelledError, BudgetSpentError: From `control`.
        """
        wanted = [
            pair
            for pair in sorted(problem.matches if pairs is None else pairs)
            if len(problem.matches[pair]) >= self._settings.min_pair_inliers
        ]

        def one(pair: tuple[int, int]) -> pycolmap.TwoViewGeometry:
            control.check()
            return self._geometry(problem, pair, problem.matches[pair])

        with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as pool:
            found = dict(zip(wanted, pool.map(one, wanted), strict=True))
        return {
            pair: geometry
            for pair, geometry in found.items()
            if geometry.config not in NO_GEOMETRY
            and len(geometry.inlier_matches) >= self._settings.min_pair_inliers
        }

    def _geometry(
        self, problem: Problem, pair: tuple[int, int], matches: Indices
    ) -> pycolmap.TwoViewGeometry:
        key = (
            *(problem.views[view].fingerprint for view in pair),
            matches.tobytes(),
            problem.seed,
            problem.focal_px(),
        )
        return self._known.get(key, lambda: self._estimate(problem, pair, matches))

    def _estimate(
        self, problem: Problem, pair: tuple[int, int], matches: Indices
    ) -> pycolmap.TwoViewGeometry:
        focal_px = problem.focal_px()
        camera = ideal_camera(focal_px)
        options = pycolmap.TwoViewGeometryOptions()
        options.detect_watermark = False
        options.compute_relative_pose = True
        options.min_num_inliers = self._settings.min_pair_inliers
        options.ransac.max_error = self._settings.max_error_px
        options.ransac.max_num_trials = MAX_TRIALS
        options.ransac.random_seed = problem.seed % 2**31
        a, b = (problem.features[view].points * focal_px for view in pair)
        return pycolmap.estimate_calibrated_two_view_geometry(
            camera, a, camera, b, matches.astype(np.uint32), options
        )


def support(problem: Problem, geometry: PairGeometry, T_reference_camera: Mapping[int, Array]) -> Array:
    """Whether each verified match lies on the epipolar lines of these cameras: 1, half if a pixel off, (M,).

    In the order of the pairs; a pair with a view that is not among them speaks for nobody.
    """
    spoken = [np.empty(0)]
    for (a, b), found in geometry.items():
        if a in T_reference_camera and b in T_reference_camera:
            T_b_a = rigid.relative(T_reference_camera[b], T_reference_camera[a])
            x_a, x_b = (
                problem.features[view].points[keypoints]
                for view, keypoints in zip((a, b), found.inlier_matches.T, strict=True)
            )
            off = epipolar.sampson_error(epipolar.essential_from_pose(T_b_a), x_a, x_b)
            spoken.append(1.0 / (1.0 + (problem.focal_px() * off / SUPPORT_PX) ** 2))
    return np.concatenate(spoken)


def matrix(pose: pycolmap.Rigid3d) -> NDArray[np.float64]:
    """Return pycolmap's pose as ours, exactly rigid, (4, 4)."""
    return rigid.make(rotations.nearest_rotation(pose.rotation.matrix()), pose.translation)


def ideal_camera(focal_px: float) -> pycolmap.Camera:
    """The camera of all views: keypoints are undistorted, so a focal length is only the unit of pixels."""
    size = round(
        2 * focal_px
    )  # pycolmap silently triangulates nothing where focal length and size do not match
    return pycolmap.Camera(
        model="PINHOLE", width=size, height=size, params=[focal_px, focal_px, 0.0, 0.0], camera_id=1
    )
