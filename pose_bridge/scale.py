# SPDX-License-Identifier: Apache-2.0
"""Metres for an estimate: from odometry on either side and from registered depth, which must agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pose_bridge.config import ScaleConfig
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Array, DepthGuess, Estimate, Guess, Problem, log_depth_ratios
from pose_bridge.views import Question, Reason, ScaleSource, View

LEAST_VARIANCE = 1e-12  # relative, of what a source errs by alone


@dataclass(frozen=True)
class Scale:
    """Metres per unit of an estimate.

    Attributes:
        source: Where it comes from; the more certain one where several agree.
        factor: Multiplies the estimate's lengths.
        sigma: Relative standard deviation.
        name: For people: which side or view said so.
    """

    source: ScaleSource
    factor: float
    sigma: float
    name: str

    @property
    def known(self) -> bool:
        """Whether lengths are metres."""
        return self.source is not ScaleSource.NONE


def unknown(why: str) -> Scale:
    """Lengths stay in the estimate's unit."""
    return Scale(ScaleSource.NONE, 1.0, 0.0, why)


class NoScaleError(NoEstimateError):
    """Accept an answer without metres, or give odometry with a baseline, or depth.

    Attributes:
        reason: NO_SCALE or SCALE_CONFLICT.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def metric_scale(problem: Problem, estimate: Estimate, settings: ScaleConfig) -> Scale:
    """Combine all that is known about metres.

    Raises:
        NoScaleError: Nothing says anything about scale, it is too uncertain, or sources contradict each
            other.
    """
    if not estimate.translation_defined:
        raise NoScaleError(Reason.NO_SCALE, "the translation is not defined, so it has no length")
    return _agreed(list(_sources(problem, estimate, settings)), settings)


def guessed_scale(question: Question, guess: Guess, settings: ScaleConfig) -> Scale:
    """Return metres per unit of a network's guess.

    Raises:
        NoScaleError: As `metric_scale`.
    """
    return _agreed(list(_guessed(question, guess, settings)), settings)


def _agreed(sources: list[Scale], settings: ScaleConfig) -> Scale:
    if not sources:
        raise NoScaleError(
            Reason.NO_SCALE,
            f"no side moved {settings.min_baseline_m} m by odometry, and there is no depth",
        )
    for a, b in combinations(sources, 2):
        apart = abs(np.log(a.factor / b.factor)) / np.hypot(a.sigma, b.sigma)
        if apart > settings.max_disagreement_sigma:
            raise NoScaleError(
                Reason.SCALE_CONFLICT,
                f"scale by {a.name} and by {b.name} differ by a factor of {a.factor / b.factor:.3f} "
                f"({apart:.1f} standard deviations)",
            )
    factor, sigma = _combined(sources, settings)
    if sigma > settings.max_scale_sigma:
        raise NoScaleError(Reason.NO_SCALE, f"the scale is only known to {100 * sigma:.0f} %")
    best = min(sources, key=lambda source: source.sigma)
    return Scale(best.source, factor, sigma, " and ".join(source.name for source in sources))


def _combined(sources: list[Scale], settings: ScaleConfig) -> tuple[float, float]:
    """Best linear estimate of the logarithm of the factor: (factor, relative standard deviation).

    One robot's wheels, and one camera's depths, err by a factor that all their scales have in common.
    """
    shared = {ScaleSource.ODOMETRY: settings.odometry_sigma, ScaleSource.DEPTH: settings.depth_sigma}
    covariance = np.diag([source.sigma**2 for source in sources]) + LEAST_VARIANCE * np.eye(len(sources))
    for i, j in combinations(range(len(sources)), 2):
        if sources[i].source is sources[j].source:
            covariance[i, j] = covariance[j, i] = shared[sources[i].source] ** 2
    weights = np.linalg.solve(covariance, np.ones(len(sources)))
    mean = weights @ np.log([source.factor for source in sources]) / weights.sum()
    return float(np.exp(mean)), float(1.0 / np.sqrt(weights.sum()))


def _sources(problem: Problem, estimate: Estimate, settings: ScaleConfig) -> Iterator[Scale]:
    if estimate.rigid_sides:
        yield Scale(ScaleSource.ODOMETRY, 1.0, settings.odometry_sigma, "odometry")
    else:
        for side, name in enumerate(("reference", "target")):
            yield from _by_odometry(problem, estimate, side, name, settings)
    yield from _by_depth(problem, estimate, settings)


def _by_odometry(
    problem: Problem, estimate: Estimate, side: int, name: str, settings: ScaleConfig
) -> Iterator[Scale]:
    """The pair of views of one side whose distance is known best; a side that only turned says nothing."""
    found = []
    views = [view for view in estimate.T_reference_camera if problem.sides[view] == side]
    for a, b in combinations(sorted(views), 2):
        T_side_a, T_side_b = problem.views[a].T_side_camera, problem.views[b].T_side_camera
        if T_side_a is None or T_side_b is None:
            continue
        moved_m = float(np.linalg.norm(T_side_a[:3, 3] - T_side_b[:3, 3]))
        gradient, length = _log_distance(estimate, a, b)
        if moved_m < settings.min_baseline_m or length == 0.0:
            continue
        own_variance = float(gradient @ estimate.joint_covariance @ gradient)
        sigma = float(np.sqrt(settings.odometry_sigma**2 + max(own_variance, 0.0)))
        found.append(Scale(ScaleSource.ODOMETRY, moved_m / length, sigma, f"odometry on the {name} side"))
    if found:
        yield min(found, key=lambda scale: scale.sigma)


def _guessed(question: Question, guess: Guess, settings: ScaleConfig) -> Iterator[Scale]:
    """By the distances between views of one side, and by the depths of each view."""
    for views, name in zip(question.sides, ("reference", "target"), strict=True):
        ratios = []
        for a, b in combinations([view for view in views if view.id in guess.T_reference_camera], 2):
            if a.T_side_camera is None or b.T_side_camera is None:
                continue
            moved_m = float(np.linalg.norm(a.T_side_camera[:3, 3] - b.T_side_camera[:3, 3]))
            apart = guess.T_reference_camera[a.id][:3, 3] - guess.T_reference_camera[b.id][:3, 3]
            if moved_m >= settings.min_baseline_m and apart.any():
                ratios.append(np.log(moved_m / np.linalg.norm(apart)))
        if ratios:
            sigma = float(np.hypot(settings.guess_sigma, np.std(ratios)))
            yield Scale(
                ScaleSource.ODOMETRY, float(np.exp(np.median(ratios))), sigma, f"odometry on the {name} side"
            )
        for view in views:
            if view.depth_m is not None and view.id in guess.depths:
                yield from _by_guessed_depth(view, guess.depths[view.id], settings)


def _by_guessed_depth(view: View, guess: DepthGuess, settings: ScaleConfig) -> Iterator[Scale]:
    """Median of measured over guessed depth, where the guess is surer than half of it is."""
    assert view.depth_m is not None
    inside = np.isfinite(guess.depth_up_to_scale) & (guess.depth_up_to_scale > 0)
    sure = inside & (guess.confidence >= np.median(guess.confidence[inside])) if inside.any() else inside
    row, column = np.nonzero(sure)
    rays = guess.camera.normalize(np.c_[column, row] + 0.5)
    px = view.camera.project(np.c_[rays, np.ones(len(rays))])
    height, width = view.depth_m.shape
    with np.errstate(invalid="ignore"):
        seen = ((px >= 0) & (px < [width, height])).all(axis=1)
    x, y = px[seen].astype(int).T
    measured = view.depth_m[y, x].astype(float)
    guessed = guess.depth_up_to_scale[row[seen], column[seen]].astype(float)
    good = np.isfinite(measured) & (measured > 0)
    if good.sum() < settings.min_depth_points:
        return
    ratios = np.log(measured[good] / guessed[good])
    middle = float(np.median(ratios))
    sigma = float(np.hypot(settings.guess_sigma, 1.4826 * np.median(np.abs(ratios - middle))))
    yield Scale(ScaleSource.DEPTH, float(np.exp(middle)), sigma, f"depth of view {view.id}")


def _log_distance(estimate: Estimate, a: int, b: int) -> tuple[Array, float]:
    """Gradient of the logarithm of two cameras' distance by the estimate's joint error, and the distance."""
    apart = estimate.T_reference_camera[b][:3, 3] - estimate.T_reference_camera[a][:3, 3]
    length = float(np.linalg.norm(apart))
    gradient = np.zeros(len(estimate.joint_covariance))
    for view, sign in ((a, -1.0), (b, 1.0)):
        if view in estimate.covariance_views and length > 0.0:
            start = 6 * estimate.covariance_views.index(view)
            gradient[start : start + 3] = sign * apart / length**2
    return gradient, length


def _by_depth(problem: Problem, estimate: Estimate, settings: ScaleConfig) -> Iterator[Scale]:
    """One scale per view with depth: median of measured over estimated depth of the points that it sees."""
    for view, T_reference_camera in estimate.T_reference_camera.items():
        ratios = log_depth_ratios(problem, view, T_reference_camera, estimate.points, estimate.tracks)
        if len(ratios) < settings.min_depth_points:
            continue
        middle = float(np.median(ratios))
        spread = 1.4826 * float(np.median(np.abs(ratios - middle)))
        sigma = float(np.hypot(settings.depth_sigma, 1.2533 * spread / np.sqrt(len(ratios))))
        yield Scale(
            ScaleSource.DEPTH, float(np.exp(middle)), sigma, f"depth of view {problem.views[view].id}"
        )
