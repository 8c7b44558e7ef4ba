# SPDX-License-Identifier: Apache-2.0
"""What no answer may contradict, however well its pictures agree: odometry, gravity, the ground, a prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pose_bridge.config import GatesConfig
from pose_bridge.estimators.base import Array, Problem
from pose_bridge.geometry import distances, rigid, uncertainty
from pose_bridge.views import Question, Reason, Translation

CERTAIN_SIGMA = 3.0  # an answer may miss by this many of its own standard deviations besides


@dataclass(frozen=True, eq=False)
class Claim:
    """An answer that is about to be given.

    Attributes:
        T_reference_camera: By index into the problem's views, in metres if `translation` is METRIC.
        covariance: Of (dt, dr) of T_reference_target, the same unit, (6, 6).
        translation: How much of it means something.
        unleveled: T_reference_target in metres, and its covariance, without the belief that all is level, if
            the answer rests on that: it cannot be asked whether it is.
    """

    T_reference_camera: Mapping[int, Array]
    covariance: Array
    translation: Translation
    unleveled: tuple[Array, Array] | None = None

    @property
    def T_reference_target(self) -> Array:
        """The pair's pose, (4, 4)."""
        return self.T_reference_camera[1]

    @property
    def metric(self) -> bool:
        """Whether distances are metres."""
        return self.translation is Translation.METRIC


def conflict(
    claim: Claim, question: Question, problem: Problem, settings: GatesConfig
) -> tuple[Reason, str] | None:
    """Return what the claim contradicts, and by how much; None if nothing."""
    by_itself = claim
    if claim.unleveled is not None:
        T, covariance = claim.unleveled
        cameras = {**claim.T_reference_camera, 1: T}
        by_itself = replace(claim, T_reference_camera=cameras, covariance=covariance)
    return (
        _odometry(claim, problem, settings)
        or _gravity(by_itself, question, settings)
        or _ground(by_itself, question, settings)
        or _prior(claim, question, settings)
    )


def _odometry(claim: Claim, problem: Problem, settings: GatesConfig) -> tuple[Reason, str] | None:
    """Whether the robot's odometry leads from each picture of a side to the next, as the answer has it."""
    for side in (0, 1):
        driven = [
            (view, T)
            for view in problem.way(side)
            if view in claim.T_reference_camera and (T := problem.views[view].T_side_camera) is not None
        ]
        for (origin, T_side_origin), (view, T_side_view) in pairwise(driven):
            T_claimed = rigid.relative(claim.T_reference_camera[origin], claim.T_reference_camera[view])
            T_driven = rigid.relative(T_side_origin, T_side_view)
            turn_deg = distances.rotation_error_deg(T_claimed[:3, :3], T_driven[:3, :3])
            name = problem.views[view].id
            if turn_deg > settings.max_side_turn_deg:
                return (
                    Reason.ODOMETRY_CONFLICT,
                    f"odometry turns view {name} otherwise, by {turn_deg:.1f} degrees",
                )
            shift_m = float(np.linalg.norm(T_claimed[:3, 3] - T_driven[:3, 3]))
            if claim.metric and shift_m > settings.max_side_shift_m:
                return Reason.ODOMETRY_CONFLICT, f"odometry has view {name} {shift_m:.2f} m elsewhere"
    return None


def _gravity(claim: Claim, question: Question, settings: GatesConfig) -> tuple[Reason, str] | None:
    """Whether up is up on both sides."""
    T_sides = _T_reference_side_target_side(claim, question)
    if not question.upright or T_sides is None:
        return None
    tilt_deg = float(np.degrees(np.arccos(np.clip(T_sides[2, 2], -1.0, 1.0))))
    sigma_deg = float(np.degrees(uncertainty.largest_sigma(claim.covariance[3:, 3:])))
    if tilt_deg > settings.max_tilt_deg + CERTAIN_SIGMA * sigma_deg:
        return Reason.GRAVITY_CONFLICT, f"the target's up would be tilted by {tilt_deg:.1f} degrees"
    return None


def _ground(claim: Claim, question: Question, settings: GatesConfig) -> tuple[Reason, str] | None:
    """Whether the target camera is as high above the ground as its own side has it."""
    reference, target = question.reference.T_side_camera, question.target.T_side_camera
    if not (question.common_ground and claim.metric) or reference is None or target is None:
        return None
    height_m = float((reference @ claim.T_reference_target)[2, 3] - target[2, 3])
    up = reference[2, :3]
    sigma_m = float(np.sqrt(up @ claim.covariance[:3, :3] @ up))
    if abs(height_m) > settings.max_height_m + CERTAIN_SIGMA * sigma_m:
        return Reason.GRAVITY_CONFLICT, (
            f"the target would be {abs(height_m):.2f} m {'above' if height_m > 0 else 'below'} the ground "
            "that both stand on"
        )
    return None


def _prior(claim: Claim, question: Question, settings: GatesConfig) -> tuple[Reason, str] | None:
    """Whether the answer lies where the caller's guess allows it."""
    if question.prior is None:
        return None
    T_prior, prior_covariance = question.prior.T_reference_target, question.prior.covariance
    error = uncertainty.error_vector(claim.T_reference_target, T_prior)
    both = claim.covariance + prior_covariance
    sigmas = {"turn": _distance(error[3:], both[3:, 3:])}
    if claim.metric:
        sigmas["place"] = _distance(error[:3], both[:3, :3])
    elif claim.translation is Translation.DIRECTION and np.linalg.norm(T_prior[:3, 3]) > 0:
        apart_rad = math.radians(
            distances.translation_error_deg(claim.T_reference_target[:3, 3], T_prior[:3, 3])
        )
        known_rad = math.hypot(
            uncertainty.direction_sigma_rad(claim.T_reference_target, claim.covariance),
            uncertainty.direction_sigma_rad(T_prior, prior_covariance),
        )
        sigmas["direction"] = apart_rad / max(known_rad, 1e-9)
    worst = max(sigmas, key=lambda name: sigmas[name])
    if sigmas[worst] > settings.max_prior_sigma:
        return Reason.ODOMETRY_CONFLICT, (
            f"the {worst} is {sigmas[worst]:.1f} standard deviations away from the prior"
        )
    return None


def _T_reference_side_target_side(claim: Claim, question: Question) -> Array | None:
    reference, target = question.reference.T_side_camera, question.target.T_side_camera
    if reference is None or target is None:
        return None
    return np.asarray(reference @ claim.T_reference_target @ rigid.inverse(target))


def _distance(error: Array, covariance: Array) -> float:
    """Mahalanobis distance."""
    squared = float(error @ np.linalg.pinv(covariance, hermitian=True) @ error)
    return math.sqrt(max(squared, 0.0))
