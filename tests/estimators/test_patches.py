# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from synthetic import FOCAL_PX, all_tracks, arc, cloud, problem

from pose_bridge.config import TwoViewConfig
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import bundle, patches
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.geometry import rigid, uncertainty

NOBODY = TwoViewEstimator(TwoViewConfig())
DRAWS = 60


@pytest.mark.parametrize(
    ("own_px", "common_px", "by_residuals", "by_patches"),
    [
        pytest.param(0.7, 0.0, (0.5, 1.4), (0.5, 2.0), id="each match errs by itself"),
        pytest.param(0.3, 1.0, (0.05, 0.5), (0.5, 2.0), id="those of a patch err together"),
    ],
)
def test_what_a_patch_errs_by_is_seen(
    own_px: float,
    common_px: float,
    by_residuals: tuple[float, float],
    by_patches: tuple[float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Variance of the rotation that either says, by the one that is."""
    monkeypatch.setattr(bundle, "PATCHES_COUNT", 0.0)
    rng = np.random.default_rng(0)
    T_world = arc([0.0, 40.0, 10.0, 30.0])
    T_true = {k: rigid.relative(T_world[0], T) for k, T in enumerate(T_world)}
    patch_of = np.repeat(np.arange(20), 10)
    points, tracks = cloud(rng, 20)[patch_of] + rng.normal(0.0, 0.03, (200, 3)), all_tracks(4, 200)
    start = rigid.transform(rigid.inverse(T_world[0]), points)
    errors, said = [], []
    for _ in range(DRAWS):
        asked = problem(T_world, points, rng, noise_px=own_px)
        for features in asked.features:
            common = rng.normal(0.0, common_px / FOCAL_PX, (20, 2))
            features.points[:] += common[patch_of]
        found = bundle.adjust(NOBODY, asked, T_true, start, tracks, max_error_px=20.0)
        error = uncertainty.error_vector(found.T_reference_target, T_true[1])
        cameras, half_px = found.T_reference_camera, np.sqrt(2.0) * found.rms_px
        error_px = bundle.reprojection_error_px(asked, cameras, found.points, found.tracks)
        covariance = patches.covariance(asked, cameras, found.points, found.tracks, error_px, half_px)
        errors.append(error[3:])
        said.append([np.trace(C[3:6, 3:6]) for C in (found.covariance, covariance)])
    sampled = np.mean(np.square(errors)) * 3
    for ratio, (low, high) in zip(np.mean(said, axis=0) / sampled, (by_residuals, by_patches), strict=True):
        assert low < ratio < high


def test_an_answer_that_hangs_on_one_patch_is_unsure() -> None:
    """The same matches with the same residuals; in the second scene nearly all lie in one place."""
    rng = np.random.default_rng(1)
    T_world = arc([0.0, 40.0, 10.0])
    T_true = {k: rigid.relative(T_world[0], T) for k, T in enumerate(T_world)}
    sigmas = []
    for crowded in (0, 190):
        points = cloud(rng, 200)
        points[:crowded] = 0.1 * points[:crowded] + 0.8
        asked = problem(T_world, points, rng, noise_px=0.5)
        start = rigid.transform(rigid.inverse(T_world[0]), points)
        found = bundle.adjust(NOBODY, asked, T_true, start, all_tracks(3, 200), max_error_px=10.0)
        sigmas.append(np.sqrt(np.trace(found.covariance[3:, 3:])))
    assert sigmas[1] > 3.0 * sigmas[0]


def test_cameras_in_one_place_are_no_estimate() -> None:
    rng = np.random.default_rng(2)
    T_world = arc([0.0, 0.0, 10.0])
    T_true = {k: rigid.relative(T_world[0], T) for k, T in enumerate(T_world)}
    points, tracks = cloud(rng, 50), all_tracks(3, 50)
    asked = problem(T_world, points, rng, noise_px=0.5)
    seen = rigid.transform(rigid.inverse(T_world[0]), points)
    with pytest.raises(NoEstimateError, match="not determined"):
        patches.covariance(asked, T_true, seen, tracks, np.ones(150), 1.0)


def test_far_points_are_no_patches_of_their_own() -> None:
    rng = np.random.default_rng(3)
    points = cloud(rng, 1000)
    points[::5] *= rng.uniform(10.0, 1e6, (200, 1))
    assert patches._patches(points).max() < 600
    assert patches._patches(np.ones((5, 3))).max() == 0
