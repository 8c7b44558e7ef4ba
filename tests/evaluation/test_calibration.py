# SPDX-License-Identifier: Apache-2.0
"""Statistics of covariances against samples that were drawn from them, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import calibration

D, N = 6, 20000


def claimed(count: int, seed: int = 0) -> np.ndarray:
    """Covariances of all sizes and shapes, (count, D, D)."""
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.normal(size=(count, D, D))) + 2.0 * np.eye(D)
    return np.exp(rng.uniform(-6.0, 0.0, count))[:, None, None] * lower @ lower.transpose(0, 2, 1)


def drawn(covariances: np.ndarray, seed: int = 1) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal((len(covariances), D, 1))
    return (np.linalg.cholesky(covariances) @ normal)[:, :, 0]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_what_is_drawn_from_the_claim_is_covered_as_claimed(level: float) -> None:
    covariances = claimed(N)
    errors = drawn(covariances)
    assert calibration.inside(errors, covariances, level).mean() == pytest.approx(level, abs=0.012)
    part = errors[:, 3:], covariances[:, 3:, 3:]
    assert calibration.inside(*part, level).mean() == pytest.approx(level, abs=0.012)
    assert calibration.nees(*part).mean() == pytest.approx(3.0, abs=0.07)
    assert calibration.inside(2.0 * errors, covariances, level).mean() < level - 0.2  # overconfident
    assert calibration.inside(0.5 * errors, covariances, level).mean() > min(level + 0.04, 0.9)


def test_nees_of_a_diagonal_is_the_sum_of_squared_ratios() -> None:
    errors = np.array([[1.0, 0.0, -4.0]])
    covariances = np.diag([1.0, 9.0, 4.0])[None]
    np.testing.assert_allclose(calibration.nees(errors, covariances), [1.0 + 4.0])


def test_likelihood_is_that_of_the_normal_distribution() -> None:
    covariances = claimed(20)
    errors = drawn(covariances)
    expected = [
        -multivariate_normal(np.zeros(D), C).logpdf(e) for e, C in zip(errors, covariances, strict=True)
    ]
    np.testing.assert_allclose(calibration.negative_log_likelihood(errors, covariances), expected)


def test_scaling_all_errors_and_claims_costs_both_claims_the_same() -> None:
    covariances = claimed(500)
    errors = drawn(covariances)
    units = np.array([100.0] * 3 + [57.3] * 3)

    def gain(errors: np.ndarray, covariances: np.ndarray) -> float:
        constant = np.broadcast_to(calibration.best_constant(errors), covariances.shape)
        nll = calibration.negative_log_likelihood
        return float((nll(errors, constant) - nll(errors, covariances)).mean())

    honest = gain(errors, covariances)
    assert honest == pytest.approx(gain(units * errors, np.outer(units, units) * covariances))
    assert honest > 1.0  # the claims vary, and a constant cannot
    same = np.broadcast_to(covariances[0], covariances.shape)
    assert gain(drawn(same), same) == pytest.approx(-D * (D + 1) / 4 / 500, abs=0.03)  # it only overfits


def test_no_constant_fits_better_than_the_best() -> None:
    errors = drawn(claimed(300))
    best = calibration.best_constant(errors)
    nll = calibration.negative_log_likelihood
    least = nll(errors, np.broadcast_to(best, (300, D, D))).mean()
    for factor in (0.8, 1.25):
        assert nll(errors, np.broadcast_to(factor * best, (300, D, D))).mean() > least
    # at the best one, the mean NEES is the dimension
    assert calibration.nees(errors, np.broadcast_to(best, (300, D, D))).mean() == pytest.approx(D)


@pytest.mark.parametrize(
    ("errors", "covariances"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3, 3))),
        (np.zeros((2, 3)), -np.eye(3)[None].repeat(2, axis=0)),
        (np.zeros((2, 3)), np.eye(3)[None]),
        (np.zeros(3), np.eye(3)),
    ],
)
def test_what_is_no_covariance_is_refused(errors: np.ndarray, covariances: np.ndarray) -> None:
    with pytest.raises(BadInputError):
        calibration.nees(errors, covariances)


def test_too_few_errors_fit_no_constant() -> None:
    with pytest.raises(BadInputError):
        calibration.best_constant(np.ones((D - 1, D)))
