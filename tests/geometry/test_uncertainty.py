# SPDX-License-Identifier: Apache-2.0
"""Each covariance rule against Monte Carlo under the error model of the house."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations, uncertainty

SAMPLES = 20_000
T_A_B = rigid.se3_exp([1.0, -2.0, 0.5, 0.8, -0.4, 1.1])
T_B_C = rigid.se3_exp([-0.7, 0.9, 2.0, -0.3, 1.2, 0.2])


def _covariance(seed: int, sigma: float = 0.01) -> np.ndarray:
    """Correlated, anisotropic; so small that second-order terms, 1e-4 of the first, drown in the noise."""
    factor = np.random.default_rng(seed).normal(size=(6, 6)) * ([1.0], [2.0], [0.5], [1.0], [0.3], [0.7])
    return np.asarray(sigma**2 * factor @ factor.T / 6.0)


def _samples(T: np.ndarray, covariance: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True rotations (N, 3, 3) and translations (N, 3) around an estimate."""
    errors = np.random.default_rng(seed).multivariate_normal(np.zeros(6), covariance, size=SAMPLES)
    return Rotation.from_rotvec(errors[:, 3:]).as_matrix() @ T[:3, :3], T[:3, 3] + errors[:, :3]


def _assert_sampled(R: np.ndarray, t: np.ndarray, estimate: np.ndarray, covariance: np.ndarray) -> None:
    """Compare with the samples: an entry's standard error is sqrt((c_ii c_jj + c_ij^2) / N); allow five."""
    errors = np.hstack([t - estimate[:3, 3], Rotation.from_matrix(R @ estimate[:3, :3].T).as_rotvec()])
    variances = np.diag(covariance)
    standard_error = np.sqrt((np.outer(variances, variances) + covariance**2) / SAMPLES)
    sampled = errors.T @ errors / SAMPLES
    assert np.abs((sampled - covariance) / standard_error).max() < 5.0


def test_compose_left_moves_an_uncertain_pose_by_a_known_one() -> None:
    covariance = _covariance(1)
    R, t = _samples(T_B_C, covariance, seed=11)
    R_a_c, t_a_c = T_A_B[:3, :3] @ R, t @ T_A_B[:3, :3].T + T_A_B[:3, 3]
    _assert_sampled(R_a_c, t_a_c, T_A_B @ T_B_C, uncertainty.compose_left(T_A_B, covariance))


def test_compose_right_gives_an_uncertain_rotation_a_lever() -> None:
    covariance = _covariance(2)
    R, t = _samples(T_A_B, covariance, seed=12)
    composed = uncertainty.compose_right(T_A_B, covariance, T_B_C)
    _assert_sampled(R @ T_B_C[:3, :3], t + R @ T_B_C[:3, 3], T_A_B @ T_B_C, composed)


def test_compose_adds_independent_errors() -> None:
    covariance_a_b, covariance_b_c = _covariance(3), _covariance(4)
    R_a_b, t_a_b = _samples(T_A_B, covariance_a_b, seed=13)
    R_b_c, t_b_c = _samples(T_B_C, covariance_b_c, seed=14)
    t_a_c = t_a_b + np.einsum("nij,nj->ni", R_a_b, t_b_c)
    composed = uncertainty.compose(T_A_B, covariance_a_b, T_B_C, covariance_b_c)
    _assert_sampled(R_a_b @ R_b_c, t_a_c, T_A_B @ T_B_C, composed)


def test_invert_swaps_the_frames_of_the_error() -> None:
    covariance = _covariance(5)
    R, t = _samples(T_A_B, covariance, seed=15)
    R_b_a = R.transpose(0, 2, 1)
    inverted = uncertainty.invert(T_A_B, covariance)
    _assert_sampled(R_b_a, -np.einsum("nij,nj->ni", R_b_a, t), rigid.inverse(T_A_B), inverted)
    np.testing.assert_allclose(
        uncertainty.invert(rigid.inverse(T_A_B), inverted), covariance, rtol=0, atol=1e-16
    )


def test_scaled_adds_the_scale_along_the_translation() -> None:
    covariance, scale, sigma = _covariance(6), 2.5, 0.03
    R, t = _samples(T_A_B, covariance, seed=16)
    scales = scale * (1.0 + sigma * np.random.default_rng(17).normal(size=(SAMPLES, 1)))
    estimate = rigid.make(T_A_B[:3, :3], scale * T_A_B[:3, 3])
    _assert_sampled(R, scales * t, estimate, uncertainty.scaled(T_A_B, covariance, scale, sigma))


def test_scaled_by_hand() -> None:
    T = rigid.make(np.eye(3), [0.0, 0.0, 1.0])
    covariance = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    covariance[0, 3] = covariance[3, 0] = 0.5
    result = uncertainty.scaled(T, covariance, 2.0, 0.1)
    np.testing.assert_allclose(np.diag(result), [4.0, 8.0, 12.0 + 4.0 * 0.01, 4.0, 5.0, 6.0])
    assert result[0, 3] == 1.0


@pytest.mark.parametrize(
    ("scale", "sigma"), [(0.0, 0.1), (-1.0, 0.1), (np.nan, 0.1), (np.inf, 0.1), (1.0, -0.1), (1.0, np.nan)]
)
def test_an_impossible_scale_is_refused(scale: float, sigma: float) -> None:
    with pytest.raises(BadInputError, match="scale"):
        uncertainty.scaled(T_A_B, np.eye(6), scale, sigma)


def test_error_vector_and_nees_by_hand() -> None:
    T_true = rigid.make(rotations.so3_exp([0.0, 0.0, 0.2]) @ T_A_B[:3, :3], T_A_B[:3, 3] + (0.1, 0.0, 0.0))
    np.testing.assert_allclose(
        uncertainty.error_vector(T_A_B, T_true), [0.1, 0, 0, 0, 0, 0.2], rtol=0, atol=1e-14
    )
    covariance = np.diag([0.1**2, 1.0, 1.0, 1.0, 1.0, 0.1**2])
    assert uncertainty.nees(T_A_B, covariance, T_true) == pytest.approx(1.0 + 4.0)


def test_nees_of_an_honest_covariance_averages_six() -> None:
    covariance = _covariance(7)
    R, t = _samples(T_A_B, covariance, seed=18)
    values = [
        uncertainty.nees(T_A_B, covariance, rigid.make(R[i], t[i])) for i in range(1000)
    ]  # chi-square of six degrees: standard deviation sqrt(12), of the mean 0.11
    assert np.mean(values) == pytest.approx(6.0, abs=0.5)


def test_nees_does_not_care_about_units() -> None:
    covariance = np.diag([1e8, 1e8, 1e8, 1e-12, 1e-12, 1e-12])
    T_true = rigid.make(rotations.so3_exp([1e-6, 0.0, 0.0]), [1e4, 0.0, 0.0])
    assert uncertainty.nees(np.eye(4), covariance, T_true) == pytest.approx(2.0)


@pytest.mark.parametrize("covariance", [np.zeros((6, 6)), np.diag([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])])
def test_nees_refuses_certainty(covariance: np.ndarray) -> None:
    with pytest.raises(BadInputError, match="no inverse"):
        uncertainty.nees(T_A_B, covariance, T_A_B)


def test_direction_sigma_is_the_largest_one_across_the_translation() -> None:
    T = rigid.make(np.eye(3), [0.0, 0.0, 4.0])
    covariance = np.diag([0.04, 0.16, 100.0, 1.0, 1.0, 1.0])  # along the translation it does not count
    assert uncertainty.direction_sigma_rad(T, covariance) == pytest.approx(0.4 / 4.0)
    known_direction = np.diag([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert uncertainty.direction_sigma_rad(T, known_direction) == 0.0
    with pytest.raises(BadInputError, match="direction"):
        uncertainty.direction_sigma_rad(np.eye(4), covariance)


def test_direction_sigma_against_monte_carlo() -> None:
    covariance = _covariance(8)
    _, t = _samples(T_A_B, covariance, seed=19)
    directions = t / np.linalg.norm(t, axis=1, keepdims=True)
    mean = T_A_B[:3, 3] / np.linalg.norm(T_A_B[:3, 3])
    errors = directions - mean
    largest = np.linalg.eigvalsh(errors.T @ errors / SAMPLES)[-1]
    # The relative standard error of a standard deviation is 1 / sqrt(2 N) = 0.5 %.
    assert uncertainty.direction_sigma_rad(T_A_B, covariance) == pytest.approx(np.sqrt(largest), rel=0.025)


def test_a_semidefinite_covariance_survives_every_rule() -> None:
    # Known along a slanted axis: rounding makes its zero eigenvalue slightly negative.
    across = np.eye(3) - np.outer([0.6, 0.64, 0.48], [0.6, 0.64, 0.48])
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = across
    moved = uncertainty.compose_right(T_A_B, uncertainty.invert(T_A_B, covariance), T_B_C)
    np.testing.assert_allclose(uncertainty.checked(uncertainty.compose_left(T_A_B, moved)).trace(), 2.0)


def _with(row: int, column: int, value: float) -> np.ndarray:
    covariance = np.eye(6)
    covariance[row, column] = value
    return covariance


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.eye(5), "shape"),
        (_with(0, 0, np.nan), "finite"),
        (_with(0, 1, 0.5), "symmetric"),
        (_with(2, 2, -0.5), "semidefinite"),
        (-np.eye(6), "semidefinite"),
        (_with(1, 2, 2.0) + _with(2, 1, 2.0) - np.eye(6), "semidefinite"),
        (np.diag([1e6, 1e6, 1e6, -1e-6, 1e-6, 1e-6]), "semidefinite"),
    ],
)
@pytest.mark.parametrize(
    "rule",
    [
        uncertainty.checked,
        lambda covariance: uncertainty.compose_left(T_A_B, covariance),
        lambda covariance: uncertainty.compose_right(T_A_B, covariance, T_B_C),
        lambda covariance: uncertainty.compose(T_A_B, np.eye(6), T_B_C, covariance),
        lambda covariance: uncertainty.invert(T_A_B, covariance),
        lambda covariance: uncertainty.scaled(T_A_B, covariance, 1.0, 0.1),
        lambda covariance: uncertainty.nees(T_A_B, covariance, T_A_B),
        lambda covariance: uncertainty.direction_sigma_rad(T_A_B, covariance),
    ],
)
def test_what_is_no_covariance_is_refused(
    rule: Callable[[np.ndarray], object], covariance: np.ndarray, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        rule(covariance)
