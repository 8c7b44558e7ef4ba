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
from pose_bridge.geometry import distances, rigid, uncertainty
from pose_bridge.keyframes import sight
from pose_bridge.views import Answer, Question, Status, Translation, View

VIEWS_EACH = 3  # two ends, and one more that tells metres
RIGHT = 0.3  # share of guesses that are right, before anything is known of these


@dataclass(frozen=True, eq=False)
class Group:
    """Guesses that agree, the surest first.

    Attributes:
        guesses: About one pair.
        asked: How many there were in all.
        probability: That they are right, and do not agree by chance.
    """

    guesses: tuple[Answer, ...]
    asked: int
    probability: float

    @property
    def numbers(self) -> tuple[Array, Array]:
        """T_reference_target of the surest, (4, 4), and its covariance with the others' distance, (6, 6)."""
        best = self.guesses[0]
        T = best.T_reference_target
        errors = [uncertainty.error_vector(T, other.T_reference_target) for other in self.guesses]
        return T, best.covariance + np.mean([np.outer(error, error) for error in errors], axis=0)


def split(question: Question, settings: GeneratedConfig, steps: KeyframesConfig) -> list[Question]:
    """Return the question about as many pairs of views as can be asked about with no view in two of them.

    The first is about the given ends. The question as it is, where odometry does not hold its sides together,
    or they have too few views for `generated.agreeing` guesses.

    Args:
        question: The views of its sides are divided.
        settings: How many guesses are wanted, and how many must agree.
        steps: What makes views near each other.
    """
    reference_side, target_side = question.sides
    known = {view.fingerprint for view in reference_side}
    target_side = (target_side[0], *(v for v in target_side[1:] if v.fingerprint not in known))
    sides = [_nearest_first(views, steps) for views in (reference_side, target_side)]
    views_each = 2 if all(view.depth_m is not None for side in sides for view in side) else VIEWS_EACH
    count = min(settings.guesses, *map(len, sides), sum(map(len, sides)) // views_each)
    posed = all(view.T_side_camera is not None for side in sides for view in side)
    if count < settings.agreeing or not posed:
        return [question]
    references, targets = (side[:count] for side in sides)
    # Scarce views go to the first pairs on the one side and to the last on the other, so that each has one.
    around_references = _dealt(references, sides[0][count:], settings.context_views, steps)
    around_targets = _dealt(targets[::-1], sides[1][count:], settings.context_views, steps)[::-1]
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
    groups = [[other for other in surest_first if _agree(one, other, settings)] for one in surest_first]
    largest = max(groups, key=lambda group: len(group))
    chance = _chance(guesses, upright, settings)
    return Group(tuple(largest), asked, _probability(len(largest), asked, chance, settings.common_mistakes))


def accepted(group: Group, question: Question) -> Answer:
    """Return the answer that the group gives; somebody must have found that it is enough."""
    T, covariance = group.numbers
    best = group.guesses[0]
    return replace(
        best,
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


def _probability(agreeing: int, asked: int, chance: float, common_mistakes: float) -> float:
    """That guesses agree because they are right: Bayes' rule, for any choice of them among those asked."""
    wrong = math.comb(asked, agreeing) * ((1.0 - RIGHT) / RIGHT) ** agreeing * chance ** (agreeing - 1)
    return (1.0 - common_mistakes) / (1.0 + wrong)


def _nearest_first(views: Sequence[View], steps: KeyframesConfig) -> list[View]:
    """The views of a side by how far they are from the first, which is its end."""
    apart = sight.steps(_poses(views[:1]), _poses(views), steps)[0]
    apart[0] = -1.0
    return [views[index] for index in np.argsort(apart, kind="stable")]


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
