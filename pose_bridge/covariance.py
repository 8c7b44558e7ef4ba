# SPDX-License-Identifier: Apache-2.0
"""The pose and covariance of an answer, from an estimate and what is known of its scale."""

from __future__ import annotations

import math

from pose_bridge.config import VerificationConfig
from pose_bridge.estimators.base import Array, Estimate
from pose_bridge.geometry import rigid, uncertainty
from pose_bridge.views import Translation


def with_scale(estimate: Estimate, factor: float, sigma: float, view: int = 1) -> tuple[Array, Array]:
    """Return the metric pose of a camera and its covariance, the scale's uncertainty included.

    Args:
        estimate: Its baseline is the unit of length.
        factor: Metres per unit of the estimate.
        sigma: Relative standard deviation of the factor.
        view: One of the estimate's `covariance_views`; the target unless said.

    Returns:
        T_reference_camera in metres, (4, 4), and the covariance of (dt, dr), (6, 6); docs/method.md has the
        model.
    """
    T = estimate.T_reference_camera[view]
    covariance = uncertainty.scaled(T, estimate.covariance_of(view), factor, sigma)
    return rigid.make(T[:3, :3], factor * T[:3, 3]), covariance


def direction_sigma_rad(estimate: Estimate) -> float:
    """Largest standard deviation of the direction to the target; NaN where it is undefined."""
    if not estimate.translation_defined:
        return math.nan
    return uncertainty.direction_sigma_rad(estimate.T_reference_target, estimate.covariance)


def translation(
    estimate: Estimate, in_metres: Array | None, settings: VerificationConfig
) -> tuple[Translation, str]:
    """Return how much of the translation is known, and why not more.

    From next to the reference no direction may be known, but a place within centimetres.

    Args:
        estimate: Of the target.
        in_metres: The covariance `with_scale`, (6, 6); None where metres are not known.
        settings: The largest standard deviations.
    """
    if not estimate.translation_defined:
        return (
            Translation.UNDEFINED,
            "the views show a turn, or a flat scene: where to the camera moved is not defined",
        )
    sigma_deg = math.degrees(direction_sigma_rad(estimate))
    directed = sigma_deg <= settings.max_direction_sigma_deg
    if in_metres is None and directed:
        return Translation.DIRECTION, ""
    if in_metres is not None:
        sigma_m = uncertainty.largest_sigma(in_metres[:3, :3])
        if directed or sigma_m <= settings.max_translation_sigma_m:
            return Translation.METRIC, ""
    return Translation.UNDEFINED, f"the direction is only known to {sigma_deg:.1f} degrees"
