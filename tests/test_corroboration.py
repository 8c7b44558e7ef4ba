# SPDX-License-Identifier: Apache-2.0
"""Guesses that agree: how a question is split, when agreement is enough, and what it can never be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_generated import PLACES, T_ODOM_MAP, T_TRUE, standing, view

from pose_bridge import corroboration
from pose_bridge.config import GeneratedConfig, KeyframesConfig
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.views import Answer, Question, ScaleSource, Stage, Status, Translation, View

SETTINGS, STEPS = GeneratedConfig(), KeyframesConfig()


def around(name: str, count: int, T_side: np.ndarray) -> tuple[View, ...]:
    """Views around an end, the nearest ones last."""
    end = PLACES[name]
    found = []
    for number in reversed(range(count)):
        T = rigid.make(end[:3, :3], end[:3, 3] + [0.4 * (number + 1), 0.0, 0.0])
        found.append(dataclasses.replace(view(f"{name[0]}_{number}"), T_side_camera=T_side @ T))
    return tuple(found)


def question(reference: int = 5, target: int = 5, **more: object) -> Question:
    return Question(
        reference=view("reference", posed=True),
        target=view("target", posed=True),
        reference_context=around("reference", reference, np.eye(4)),
        target_context=around("target", target, T_ODOM_MAP),
        **more,  # type: ignore[arg-type]
    )


def guess(turned_deg: float = 0.0, moved_m: float = 0.0, sigma: float = 0.02) -> Answer:
    turn = rotations.so3_exp([0.0, np.radians(turned_deg), 0.0])
    T = rigid.make(turn @ T_TRUE[:3, :3], T_TRUE[:3, 3] + [moved_m, 0.0, 0.0])
    return Answer(
        status=Status.HYPOTHESIS,
        stage=Stage.GENERATED,
        translation=Translation.METRIC,
        scale_source=ScaleSource.ODOMETRY,
        scale_sigma=0.1,
        real_frames=4,
        generated_frames=20,
        _T_reference_target=T,
        _covariance=sigma**2 * np.eye(6),
        _direction_sigma_rad=0.05,
    )


def test_no_view_is_in_two_parts() -> None:
    whole = question()
    parts = corroboration.split(whole, SETTINGS, STEPS)
    assert len(parts) == 4
    names = [view.id for part in parts for side in part.sides for view in side]
    assert len(names) == len(set(names))
    assert set(names) <= {view.id for side in whole.sides for view in side}
    assert (parts[0].reference.id, parts[0].target.id) == ("reference", "target")
    assert (parts[1].reference.id, parts[1].target.id) == ("r_0", "t_0")  # the nearest
    for part in parts:
        assert len(part.reference_context) + len(part.target_context) >= 1  # for metres
    assert len({part.seed for part in parts}) == 4


@pytest.mark.parametrize(
    "whole",
    [
        question(1, 1),
        question(0, 8),
        dataclasses.replace(question(), target=view("target")),
        dataclasses.replace(question(), reference_context=(*question().reference_context, view("unposed"))),
    ],
)
def test_what_cannot_be_split(whole: Question) -> None:
    assert corroboration.split(whole, SETTINGS, STEPS) == [whole]


def test_a_picture_of_both_sides_is_used_once() -> None:
    whole = question()
    both = dataclasses.replace(whole.reference_context[0], T_side_camera=standing(9.0, 9.0, 0.0))
    whole = dataclasses.replace(whole, target_context=(*whole.target_context, both))
    parts = corroboration.split(whole, SETTINGS, STEPS)
    names = [view.id for part in parts for side in part.sides for view in side]
    assert len(parts) > 1
    assert len(names) == len(set(names))


def test_depth_needs_no_third_view() -> None:
    depth_m = np.full((72, 96), 3.0, np.float32)

    def deep(side: tuple[View, ...]) -> list[View]:
        return [dataclasses.replace(view, depth_m=depth_m) for view in side]

    whole = question(2, 2)
    assert len(corroboration.split(whole, SETTINGS, STEPS)) == 1
    (reference, *first), (target, *second) = (deep(side) for side in whole.sides)
    whole = dataclasses.replace(
        whole, reference=reference, target=target,
        reference_context=tuple(first), target_context=tuple(second),
    )  # fmt: skip
    assert len(corroboration.split(whole, SETTINGS, STEPS)) == 3


def test_odometry_moves_an_answer_to_another_pair() -> None:
    whole = question()
    asked = whole.between("r_1", "t_2")
    T_first_second = rigid.relative(
        asked.reference.T_side_camera, rigid.inverse(T_ODOM_MAP) @ asked.target.T_side_camera
    )
    answer = dataclasses.replace(guess(), _T_reference_target=T_first_second)
    moved = corroboration.moved(answer, asked, whole)
    np.testing.assert_allclose(moved.T_reference_target, T_TRUE, atol=1e-9)
    np.testing.assert_allclose(moved.cameras["target"], T_TRUE, atol=1e-9)


def test_a_moved_covariance_is_that_of_moved_samples() -> None:
    whole = question()
    asked = whole.between("r_3", "t_4")
    rng = np.random.default_rng(0)
    C = np.diag([0.01, 0.02, 0.03, 0.02, 0.01, 0.03]) ** 2
    answer = dataclasses.replace(guess(), _covariance=C)
    moved = corroboration.moved(answer, asked, whole)
    samples = []
    for error in rng.multivariate_normal(np.zeros(6), C, 4000):
        T = answer.T_reference_target
        true = rigid.make(rotations.so3_exp(error[3:]) @ T[:3, :3], T[:3, 3] + error[:3])
        there = corroboration.moved(dataclasses.replace(answer, _T_reference_target=true), asked, whole)
        T_moved = there.T_reference_target
        turn = T_moved[:3, :3] @ moved.T_reference_target[:3, :3].T
        samples.append(np.r_[T_moved[:3, 3] - moved.T_reference_target[:3, 3], rotations.so3_log(turn)])
    found = np.cov(np.array(samples).T)
    scale = np.sqrt(np.outer(np.diag(moved.covariance), np.diag(moved.covariance)))
    assert np.abs((found - moved.covariance) / scale).max() < 0.1


def test_those_that_agree_are_found_among_others() -> None:
    guesses = [guess(90.0), guess(3.0, sigma=0.02), guess(-2.0, 0.1), guess(0.0, 5.0), guess(1.0)]
    group = corroboration.largest_group(guesses, 6, True, SETTINGS)
    assert [id(g) for g in group.guesses] == [id(guesses[i]) for i in (1, 2, 4)]
    assert group.asked == 6


def test_agreement_by_chance_is_less_probable_than_by_being_right() -> None:
    def probability(agreeing: int, asked: int, upright: bool = True) -> float:
        return corroboration.largest_group(
            [guess() for _ in range(agreeing)], asked, upright, SETTINGS
        ).probability

    assert probability(1, 4) < 0.2
    assert probability(1, 4) < probability(2, 4) < probability(3, 4) < 0.9
    assert probability(3, 20) < probability(3, 4)  # among many, some agree
    assert probability(2, 4, upright=False) > probability(2, 4)  # a turn may be wrong in more ways
    assert 0.85 < probability(20, 20) <= 1.0 - SETTINGS.common_mistakes


@pytest.mark.parametrize("spread_deg", [1.0, 2.0, 4.0, 8.0])
def test_the_probability_is_that_of_being_correct(spread_deg: float) -> None:
    """Of guesses that err at random: of answers that are given, as many are within 5 degrees as they say."""
    rng, said, right = np.random.default_rng(0), [], []
    sigma = np.radians(spread_deg)
    for _ in range(400):
        guesses = []
        for _ in range(4):
            T = guess(sigma=0.01).T_reference_target
            turn = rotations.so3_exp(rng.normal(0.0, sigma, 3)) @ T[:3, :3]
            C = np.diag([0.01**2] * 3 + [sigma**2] * 3)
            guesses.append(
                dataclasses.replace(guess(), _T_reference_target=rigid.make(turn, T[:3, 3]), _covariance=C)
            )
        group = corroboration.largest_group(guesses, 4, True, SETTINGS)
        if len(group.guesses) >= SETTINGS.agreeing and group.probability >= 0.8:
            said.append(group.probability)
            right.append(
                distances.rotation_error_deg(group.T_reference_target[:3, :3], T_TRUE[:3, :3]) <= 5.0
            )
    if spread_deg <= 2.0:
        assert len(right) > 300
    assert not right or np.mean(right) >= np.mean(said) - 0.05


def test_the_chance_is_what_random_guesses_have() -> None:
    """As many agree with a given one as the formula says, lying anywhere in a disc and turned anyhow."""
    rng = np.random.default_rng(0)
    given, radius_m, drawn, agreed = guess(), 0.0, 40000, 0
    t = given.T_reference_target[:3, 3]
    distance_m = float(np.linalg.norm(t))
    reach_m = max(SETTINGS.agree_distance_m, np.radians(SETTINGS.agree_deg) * distance_m)
    radius_m = distance_m + reach_m
    for _ in range(drawn):
        angle, turn = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-180.0, 180.0)
        place = radius_m * np.sqrt(rng.uniform()) * np.array([np.cos(angle), np.sin(angle)])
        near = np.linalg.norm(place - [distance_m - reach_m, 0.0]) <= reach_m  # wholly inside
        agreed += bool(near and abs(turn) <= SETTINGS.agree_deg)
    expected = corroboration._chance([given], True, SETTINGS)
    assert agreed / drawn == pytest.approx(expected, rel=0.25)


def test_an_accepted_group_is_the_mean_and_doubted_as_far_as_they_differ() -> None:
    guesses = [guess(0.0, sigma=0.01), guess(6.0), guess(-6.0, 0.2)]
    group = corroboration.largest_group(guesses, 4, True, SETTINGS)
    answer = corroboration.accepted(group, question())
    assert answer.accepted
    assert answer.agreeing == 3
    assert answer.stage is Stage.GENERATED
    assert answer.probability == group.probability
    assert (answer.real_frames, answer.generated_frames) == (12, 60)
    assert distances.rotation_error_deg(answer.rotation, T_TRUE[:3, :3]) < 1e-4
    assert 0.0 < answer.T_reference_target[0, 3] - T_TRUE[0, 3] < 0.2 / 3.0  # the surest counts most
    assert np.degrees(answer.rotation_sigma_rad) > 1.5 * np.degrees(0.01 / np.sqrt(1.5))
    assert np.linalg.eigvalsh(answer.covariance)[0] > 0.0
