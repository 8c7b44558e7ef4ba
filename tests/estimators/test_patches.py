# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from synthetic import FOCAL_PX, all_tracks, arc, cloud, problem

from pose_bridge.config import TwoViewConfig
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import bundle, patches
from pose_bridge.estimators.base import Problem, Tracks, scaled_cameras
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.geometry import rigid, uncertainty

NOBODY = TwoViewEstimator(TwoViewConfig())
DRAWS = 60


def cameras(angles_deg: list[float]) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
    """On an arc, in the world and as seen from the first."""
    T_world = arc(angles_deg)
    return T_world, {k: rigid.relative(T_world[0], T) for k, T in enumerate(T_world)}


@pytest.mark.parametrize(
    ("own_px", "common_px", "by_residuals", "by_patches"),
    [
        pytest.param(0.7, 0.0, (0.5, 1.4), (0.35, 2.0), id="each match errs by itself"),
        pytest.param(0.3, 1.0, (0.05, 0.5), (0.35, 2.0), id="those of a patch err together"),
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
    T_world, T_true = cameras([0.0, 40.0, 10.0, 30.0])
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
        adjusted = (found.T_reference_camera, found.points, found.tracks)
        covariance = bundle.covariance_by_patches(asked, *adjusted, np.sqrt(2.0) * found.rms_px)
        errors.append(error[3:])
        said.append([np.trace(C[3:6, 3:6]) for C in (found.covariance, covariance)])
    sampled = np.mean(np.square(errors)) * 3
    for ratio, (low, high) in zip(np.mean(said, axis=0) / sampled, (by_residuals, by_patches), strict=True):
        assert low < ratio < high


def scene(count: int) -> tuple[Problem, dict[int, np.ndarray], np.ndarray, Tracks]:
    """Three cameras and what they see, seen from the first."""
    rng = np.random.default_rng(1)
    (T_world, T_true), points = cameras([0.0, 40.0, 10.0]), cloud(rng, count)
    asked = problem(T_world, points, rng, noise_px=0.5)
    return asked, T_true, rigid.transform(rigid.inverse(T_world[0]), points), all_tracks(3, count)


def test_an_answer_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, T_true, points, tracks = scene(100)
    covariances = []
    for count in (0.0, 2.0, 4.0):
        monkeypatch.setattr(bundle, "PATCHES_COUNT", count)
        found = bundle.adjust(NOBODY, asked, T_true, points, tracks, max_error_px=10.0)
        covariances.append(found.joint_covariance)
    assert np.trace(covariances[1]) > 1.5 * np.trace(covariances[0])
    np.testing.assert_allclose(
        covariances[2] - covariances[1], covariances[1] - covariances[0], rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("factor", [1e-5, 1e4])
def test_the_unit_of_length_is_any(factor: float) -> None:
    asked, T_true, points, tracks = scene(100)
    expected = bundle.covariance_by_patches(asked, T_true, points, tracks, 1.0)
    scaled = (scaled_cameras(T_true, factor), factor * points)
    found = bundle.covariance_by_patches(asked, *scaled, tracks, 1.0)
    unit = np.tile([factor] * 3 + [1.0] * 3, 2)
    np.testing.assert_allclose(found, unit[:, None] * expected * unit, rtol=1e-6, atol=1e-20)


def test_cameras_in_one_place_are_no_estimate() -> None:
    asked, T_true, points, tracks = scene(50)
    together = {**T_true, 1: np.eye(4)}
    with pytest.raises(NoEstimateError, match="no baseline"):
        bundle.covariance_by_patches(asked, together, points, tracks, 1.0)


def test_far_points_are_no_patches_of_their_own() -> None:
    rng = np.random.default_rng(3)
    near, far = cloud(rng, 800), 10.0 * cloud(rng, 200) * rng.uniform(1.0, 1e5, (200, 1))
    alone = patches._patches(near, 0.0).max() + 1
    patch_of = patches._patches(np.vstack([near, far]), 0.0)
    assert len(np.unique(patch_of[:800])) > 0.3 * alone
    assert len(np.unique(patch_of[800:])) < 100
    assert patches._patches(np.ones((5, 3)), 0.0).max() == 0


def test_where_patches_begin_matters_little(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, T_true, points, tracks = scene(100)
    sigmas = []
    for start in np.linspace(0.0, 0.5, 6):
        monkeypatch.setattr(patches, "SHIFTS", (start, start + 0.5))
        covariance = bundle.covariance_by_patches(asked, T_true, points, tracks, 1.0)
        sigmas.append(np.sqrt(np.trace(covariance[3:6, 3:6])))
    assert max(sigmas) < 1.3 * min(sigmas)
