# SPDX-License-Identifier: Apache-2.0
"""When guesses become an answer: several, with real views that no two of them share, say the same.

Odometry moves them all to one pair. What they have in common besides are the models; a mistake that these
make whatever they look at is as likely as `generated.common_mistakes` says, and agreement cannot rule it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pose_bridge.config import GeneratedConfig, KeyframesConfig
from pose_bridge.estimators.base import Array
from pose_bridge.geometry import distances, rigid, rotations, uncertainty
from pose_bridge.keyframes import sight
from pose_bridge.views import Answer, Question, Status, Translation, View

VIEWS_EACH = 3  # two ends, and one more that tells metres
RIGHT = 0.3  # share of guesses that are right, before anything is known of these
DRAWS = 4000  # of errors, to see how many of them would be correct


@dataclass(frozen=True, eq=False)
class Group:
    """Guesses that agree with one of them, which comes first.

    Attributes:
        guesses: About one pair.
        T_reference_target: Their mean, (4, 4).
        covariance: Of it, by how far they are apart and what each says of itself, (6, 6).
        asked: How many there were in all.
        probability: That the mean is correct: they do not agree by chance, and it is near enough.
    """

    guesses: tuple[Answer, ...]
    T_reference_target: Array
    covariance: Array
    asked: int
    probability: float


def split(question: Question, settings: GeneratedConfig, steps: KeyframesConfig) -> list[Question]:
    """Return the question about as many pairs of views as can be asked about with no view in two of them.

    The first is about the given ends. The question as it is, where odometry does not hold its sides together,
    or they have too few views for `generated.agreeing` guesses.

    Args:
        question: The views of its sides are divided.
        settings: How many guesses are wanted, and how many must agree.
        steps: What makes views near each other.
    """
    sides = _distinct(question)
    posed = all(view.T_side_camera is not None for side in sides for view in side)
    if not posed:
        return [question]
    views_each = 2 if all(view.depth_m is not None for side in sides for view in side) else VIEWS_EACH
    ends = [_ends(side, settings.guesses, steps) for side in sides]
    count = min(*map(len, ends), sum(map(len, sides)) // views_each)
    if count < settings.agreeing:
        return [question]
    references, targets = (some[:count] for some in ends)
    others = [
        [v for v in side if all(v is not end for end in some[:count])]
        for side, some in zip(sides, ends, strict=True)
    ]
    # Scarce views go to the first pairs on the one side and to the last on the other, so that each has one.
    around_references = _dealt(references, others[0], settings.context_views, steps)
    around_targets = _dealt(targets[::-1], others[1], settings.context_views, steps)[::-1]
    return [
        replace(
            question.between(references[number].id, targets[number].id) if number else question,
            reference_context=around_references[number],
            target_context=around_targets[number],
            seed=(question.seed + number) % 2**64,
        )
        for number in range(count)
    ]


def moved(answer: Answer, asked: Question, question: Question) -> Answer:
    """Return a metric answer about one pair of views as an answer about another of the same sides.

    Odometry's own errors are small beside a guess's, and left out.

    Args:
        answer: To `asked`.
        asked: Its ends are views of the question's sides.
        question: About the pair that is wanted.
    """
    T_reference_first, T_second_target = (
        rigid.relative(_pose(a), _pose(b))
        for a, b in ((question.reference, asked.reference), (asked.target, question.target))
    )
    T_first_target = answer.T_reference_target @ T_second_target
    covariance = uncertainty.compose_left(
        T_reference_first,
        uncertainty.compose_right(answer.T_reference_target, answer.covariance, T_second_target),
    )
    T = T_reference_first @ T_first_target
    ends = (question.reference.id, question.target.id)
    return replace(
        answer,
        cameras=dict(zip(ends, (np.eye(4), T), strict=True)),
        covariances={ends[1]: covariance},
        _T_reference_target=T,
        _covariance=covariance,
        _direction_sigma_rad=uncertainty.direction_sigma_rad(T, covariance),
    )


def largest_group(guesses: Sequence[Answer], asked: int, upright: bool, settings: GeneratedConfig) -> Group:
    """Return the guesses that most others agree with, which may be one.

    Args:
        guesses: Metric ones, about one pair.
        asked: How many were asked for.
        upright: All can only be wrong in the turn about one axis.
        settings: What agreement is.
    """
    surest_first = sorted(guesses, key=lambda guess: uncertainty.largest_sigma(guess.covariance[:3, :3]))
    groups = [
        [one, *(other for other in surest_first if other is not one and _agree(one, other, settings))]
        for one in surest_first
    ]
    largest = max(groups, key=lambda group: len(group))
    T, covariance = _mean(largest)
    chance = _chance(guesses, upright, settings)
    probability = _not_by_chance(len(largest), asked, chance) * (1.0 - settings.common_mistakes)
    probability *= _near_enough(T, covariance)
    return Group(tuple(largest), T, covariance, asked, probability)


def accepted(group: Group, question: Question) -> Answer:
    """Return the answer that the group gives; somebody must have found that it is enough."""
    T, covariance = group.T_reference_target, group.covariance
    return replace(
        group.guesses[0],
        status=Status.ACCEPTED,
        reason_text=f"{len(group.guesses)} of {group.asked} guesses from different real views agree",
        probability=group.probability,
        translation=Translation.METRIC,
        agreeing=len(group.guesses),
        real_frames=sum(guess.real_frames for guess in group.guesses),
        generated_frames=sum(guess.generated_frames for guess in group.guesses),
        cameras={question.reference.id: np.eye(4), question.target.id: T},
        covariances={question.target.id: covariance},
        _T_reference_target=T,
        _covariance=covariance,
        _direction_sigma_rad=uncertainty.direction_sigma_rad(T, covariance),
    )


def _agree(a: Answer, b: Answer, settings: GeneratedConfig) -> bool:
    """Whether the target turns and moves alike: the place may err by as large an angle as the turn."""
    if distances.rotation_error_deg(a.rotation, b.rotation) > settings.agree_deg:
        return False
    t_a, t_b = a.T_reference_target[:3, 3], b.T_reference_target[:3, 3]
    return bool(np.linalg.norm(t_a - t_b) <= _reach_m(t_a, t_b, settings))


def _reach_m(t_a: Array, t_b: Array, settings: GeneratedConfig) -> float:
    farther_m = float(max(np.linalg.norm(t_a), np.linalg.norm(t_b)))
    return max(settings.agree_distance_m, math.radians(settings.agree_deg) * farther_m)


def _chance(guesses: Sequence[Answer], upright: bool, settings: GeneratedConfig) -> float:
    """That a wrong guess, which turns anyhow and lies as far away as any of them, agrees with a given one."""
    theta_rad = math.radians(settings.agree_deg)
    turn = theta_rad / math.pi if upright else (theta_rad - math.sin(theta_rad)) / math.pi
    farthest_m = max((guess.T_reference_target[:3, 3] for guess in guesses), key=np.linalg.norm)
    reach_m = _reach_m(farthest_m, farthest_m, settings)
    return turn * (reach_m / (reach_m + float(np.linalg.norm(farthest_m)))) ** (2 if upright else 3)


def _not_by_chance(agreeing: int, asked: int, chance: float) -> float:
    """That guesses agree because they are right: Bayes' rule, for any choice of them among those asked."""
    wrong = math.comb(asked, agreeing) * ((1.0 - RIGHT) / RIGHT) ** agreeing * chance ** (agreeing - 1)
    return 1.0 / (1.0 + wrong)


def _mean(guesses: Sequence[Answer]) -> tuple[Array, Array]:
    """The mean pose by what each says of itself; its covariance is wider if they differ by more than that.

    Source: Birge, The calculation of errors by the method of least squares, Physical Review 40, 1932.
    """
    T = guesses[0].T_reference_target
    errors = np.array([uncertainty.error_vector(T, other.T_reference_target) for other in guesses])
    weights = np.linalg.inv([guess.covariance for guess in guesses])
    covariance = np.linalg.inv(weights.sum(axis=0))
    mean = covariance @ np.einsum("nij,nj->i", weights, errors)
    chi2 = float(np.einsum("ni,nij,nj->", errors - mean, weights, errors - mean))
    covariance *= max(1.0, chi2 / max(errors.size - mean.size, 1))
    R = rotations.so3_exp(mean[3:]) @ T[:3, :3]
    return rigid.make(R, T[:3, 3] + mean[:3]), (covariance + covariance.T) / 2.0


def _near_enough(T: Array, covariance: Array) -> float:
    """The share of errors, as the covariance has them, with which the pose is still correct."""
    errors = np.random.default_rng(0).multivariate_normal(np.zeros(6), covariance, DRAWS)
    reach_m = max(distances.CORRECT_M, distances.CORRECT_SHARE * float(np.linalg.norm(T[:3, 3])))
    turn_rad = math.radians(distances.CORRECT_ROTATION_DEG)
    near = np.linalg.norm(errors[:, :3], axis=1) <= reach_m
    return float((near & (np.linalg.norm(errors[:, 3:], axis=1) <= turn_rad)).mean())


def _distinct(question: Question) -> tuple[list[View], list[View]]:
    """The views of both sides, ends first, no picture twice."""
    sides: tuple[list[View], list[View]] = ([], [])
    seen: set[str] = set()
    ends = ((question.reference,), (question.target,))
    for own, views in zip(
        (*sides, *sides), (*ends, question.reference_context, question.target_context), strict=True
    ):
        for view in views:
            if view.fingerprint not in seen:
                seen.add(view.fingerprint)
                own.append(view)
    return sides


def _ends(views: Sequence[View], most: int, steps: KeyframesConfig) -> list[View]:
    """The first view, and those nearest to it that are at least a step from each other."""
    if not views:
        return []
    chosen = [views[0]]
    from_first = sight.steps(_poses(views[:1]), _poses(views), steps)[0]
    for index in np.argsort(from_first, kind="stable"):
        if len(chosen) < most and sight.steps(_poses([views[index]]), _poses(chosen), steps).min() >= 1.0:
            chosen.append(views[index])
    return chosen


def _dealt(
    ends: Sequence[View], others: Sequence[View], most: int, steps: KeyframesConfig
) -> list[tuple[View, ...]]:
    """To each end, in turn, the view among the others that is nearest to it, until all have the most."""
    dealt: list[list[View]] = [[] for _ in ends]
    left = list(others)
    for _ in range(most):
        for end, own in zip(ends, dealt, strict=True):
            if left:
                nearest = int(sight.steps(_poses([end]), _poses(left), steps)[0].argmin())
                own.append(left.pop(nearest))
    return [tuple(own) for own in dealt]


def _poses(views: Sequence[View]) -> Array:
    return sight.stacked([view.T_side_camera for view in views])


def _pose(view: View) -> Array:
    assert view.T_side_camera is not None
    return view.T_side_camera
