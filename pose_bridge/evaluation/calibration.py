# SPDX-License-Identifier: Apache-2.0
"""Whether covariances hold: errors of many answers against what was claimed of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array, Mask


def nees(errors: ArrayLike, covariances: ArrayLike) -> Array:
    """Return each normalized estimation error squared, D on average if the covariances are honest, (N,).

    Args:
        errors: (N, D).
        covariances: Of each, (N, D, D).

    Raises:
        BadInputError: Shapes do not fit, or a covariance is not positive definite.

    Source: Bar-Shalom, Li, Kirubarajan, Estimation with Applications to Tracking and Navigation, section 5.4.
    """
    whitened, _ = _whitened(errors, covariances)
    return np.asarray(np.square(whitened).sum(axis=1))


def inside(errors: ArrayLike, covariances: ArrayLike, level: float) -> Mask:
    """Return which errors lie inside the ellipsoids that should hold that share of them, (N,).

    Args:
        errors: (N, D).
        covariances: Of each, (N, D, D).
        level: Between 0 and 1.

    Raises:
        BadInputError: As `nees`.
    """
    found = nees(errors, covariances)
    return np.asarray(found <= chi2.ppf(level, np.shape(errors)[1]))


def negative_log_likelihood(errors: ArrayLike, covariances: ArrayLike) -> Array:
    """Return the negative log-likelihood of each error under a normal distribution, nats, (N,).

    Differences between two claims about the same errors do not depend on the units.

    Raises:
        BadInputError: As `nees`.
    """
    whitened, log_determinant = _whitened(errors, covariances)
    constant = whitened.shape[1] * np.log(2.0 * np.pi)
    return np.asarray(0.5 * (np.square(whitened).sum(axis=1) + log_determinant + constant))


def best_constant(errors: ArrayLike) -> Array:
    """Return the one covariance under which these errors are most likely, (D, D).

    Raises:
        BadInputError: Fewer errors than they have dimensions.
    """
    array = np.asarray(errors, np.float64)
    if array.ndim != 2 or len(array) < array.shape[1]:
        raise BadInputError(f"errors must be (N, D) with N >= D, got {array.shape}")
    return np.asarray(array.T @ array / len(array))


def _whitened(errors: ArrayLike, covariances: ArrayLike) -> tuple[Array, Array]:
    """Errors in units of what was claimed, (N, D), and each covariance's log determinant, (N,)."""
    e, C = np.asarray(errors, np.float64), np.asarray(covariances, np.float64)
    if e.ndim != 2 or C.shape != (*e.shape, e.shape[1]):
        raise BadInputError(f"errors must be (N, D) and covariances (N, D, D), got {e.shape} and {C.shape}")
    try:
        lower = np.linalg.cholesky(C)
    except np.linalg.LinAlgError as error:
        raise BadInputError(f"a covariance is not positive definite: {error}") from error
    diagonal = np.diagonal(lower, axis1=1, axis2=2)
    return np.linalg.solve(lower, e[:, :, None])[:, :, 0], 2.0 * np.log(diagonal).sum(axis=1)
