# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from synthetic import all_tracks

from pose_bridge import covariance
from pose_bridge.config import VerificationConfig
from pose_bridge.estimators.base import Estimate, scaled_cameras
from pose_bridge.geometry import rigid, rotations
from pose_bridge.views import Stage, Translation

R = rotations.so3_exp(np.array([0.2, -0.5, 0.1]))
DIRECTION = np.array([2.0, -1.0, 2.0]) / 3.0
SETTINGS = VerificationConfig()


def made(sigma_rad: float = 0.01, defined: bool = True) -> Estimate:
    """An estimate whose direction has this standard deviation, in unit baselines."""
    across = np.eye(3) - np.outer(DIRECTION, DIRECTION)
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = sigma_rad**2 * across
    matrix[3:, 3:] = 0.002**2 * np.eye(3)
    matrix[:3, 3:] = matrix[3:, :3] = 0.3 * sigma_rad * 0.002 * across
    return Estimate(
        stage=Stage.CONTEXT,
        estimator="by hand",
        T_reference_camera={0: np.eye(4), 1: rigid.make(R, DIRECTION if defined else np.zeros(3))},
        tracks=all_tracks(2, 3),
        points=np.ones((3, 3)),
        rms_px=0.5,
        joint_covariance=matrix,
        covariance_views=(1,),
        translation_defined=defined,
    )


def test_without_a_scale_nothing_changes() -> None:
    T, matrix = covariance.with_scale(made(), 1.0, 0.0)
    np.testing.assert_allclose(T, made().T_reference_target)
    np.testing.assert_allclose(matrix, made().covariance, atol=1e-15)


@pytest.mark.parametrize("factor", [0.2, 7.0])
def test_the_scale_adds_its_error_along_the_translation_only(factor: float) -> None:
    T, matrix = covariance.with_scale(made(), factor, 0.05)
    np.testing.assert_allclose(T[:3, 3], factor * DIRECTION)
    np.testing.assert_allclose(T[:3, :3], R)
    assert np.sqrt(DIRECTION @ matrix[:3, :3] @ DIRECTION) == pytest.approx(0.05 * factor)
    across = np.cross(DIRECTION, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    assert np.sqrt(across @ matrix[:3, :3] @ across) == pytest.approx(0.01 * factor)
    np.testing.assert_allclose(matrix[3:, 3:], made().covariance[3:, 3:])
    np.testing.assert_allclose(matrix[:3, 3:], factor * made().covariance[:3, 3:])
    assert np.linalg.eigvalsh(matrix)[0] > 0


def test_with_scale_matches_monte_carlo() -> None:
    rng = np.random.default_rng(0)
    factor, sigma = 3.0, 0.04
    _, predicted = covariance.with_scale(made(), factor, sigma)
    errors = rng.multivariate_normal(np.zeros(6), made().covariance, 40000)
    scales = factor * (1 + rng.normal(0.0, sigma, 40000))
    t = scales[:, None] * (DIRECTION + errors[:, :3])
    sampled = np.cov(np.c_[t - factor * DIRECTION, errors[:, 3:]].T)
    scale = np.sqrt(np.outer(np.diag(predicted), np.diag(predicted)))
    np.testing.assert_allclose(sampled / scale, predicted / scale, atol=0.03)


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_the_direction_is_as_sure_whatever_the_scale(factor: float) -> None:
    assert covariance.direction_sigma_rad(made(0.02)) == pytest.approx(0.02)
    T, matrix = covariance.with_scale(made(0.02), factor, 0.1)
    across = np.eye(3) - np.outer(DIRECTION, DIRECTION)
    largest = np.linalg.eigvalsh(across @ matrix[:3, :3] @ across)[-1]
    assert np.sqrt(largest) / np.linalg.norm(T[:3, 3]) == pytest.approx(0.02)


def test_a_turn_has_no_direction() -> None:
    turned = made(defined=False)
    assert np.isnan(covariance.direction_sigma_rad(turned))
    for in_metres in (None, 1e-6 * np.eye(6)):
        known, why = covariance.translation(turned, in_metres, SETTINGS)
        assert known is Translation.UNDEFINED
        assert why


@pytest.mark.parametrize("metric", [False, True])
def test_a_direction_too_unsure_is_none(metric: bool) -> None:
    limit_rad = np.radians(SETTINGS.max_direction_sigma_deg)
    in_metres = np.eye(6) if metric else None
    known, why = covariance.translation(made(1.01 * limit_rad), in_metres, SETTINGS)
    assert known is Translation.UNDEFINED
    assert "degrees" in why
    known, why = covariance.translation(made(0.99 * limit_rad), in_metres, SETTINGS)
    assert known is (Translation.METRIC if metric else Translation.DIRECTION)
    assert not why


def test_a_place_known_well_needs_no_direction() -> None:
    vague = made(2.0 * np.radians(SETTINGS.max_direction_sigma_deg))
    for share, expected in ((0.99, Translation.METRIC), (1.01, Translation.UNDEFINED)):
        in_metres = (share * SETTINGS.max_translation_sigma_m) ** 2 * np.eye(6)
        assert covariance.translation(vague, in_metres, SETTINGS)[0] is expected


def test_cameras_get_the_same_scale() -> None:
    cameras = scaled_cameras(made().T_reference_camera, 4.0)
    np.testing.assert_array_equal(cameras[0], np.eye(4))
    np.testing.assert_allclose(cameras[1], rigid.make(R, 4.0 * DIRECTION))
