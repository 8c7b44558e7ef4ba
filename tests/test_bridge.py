# SPDX-License-Identifier: Apache-2.0
"""The ladder on real photographs: right where it answers, and never a pose where it cannot know."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose_bridge import photographs, verification
from pose_bridge.bridge import Bridge
from pose_bridge.config import Config, ContextConfig, FeaturesConfig, GatesConfig
from pose_bridge.control import Control
from pose_bridge.errors import BadImageError, CancelledError, NoEstimateError
from pose_bridge.estimators.base import Estimate, Estimator, Problem
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import (
    Answer,
    Evidence,
    Prior,
    Question,
    Reason,
    Require,
    ScaleSource,
    Stage,
    Status,
    Translation,
    View,
)

ROOT = Path(__file__).resolve().parents[1]
TRAPS = [("0002", "0031"), ("0001", "0030"), ("0001", "0033")]
GOOD = ("0014", "0031")  # far enough apart that the two views alone do not tell
BRIDGED = ("0006", "0031")
QUICK = Config(  # simulated tilts take most of the time
    context=ContextConfig(wide_pairs=4),
    features=FeaturesConfig(tilt_directions=2, tilt_max_features=300),
)
METRES = 0.7  # per unit of cameras.json, by the odometry that tests make up


class Walk:
    """The photographs in the order of the walk, with their true poses."""

    def __init__(self, folder: Path) -> None:
        cameras = photographs.read_cameras(folder / "cameras.json")
        paths = sorted((folder / "images").glob("*.jpg"))
        self.names = [path.stem for path in paths]
        self.views = {path.stem: photographs.read_view(path, cameras) for path in paths}
        self.poses = {path.stem: cameras.pose(path) for path in paths}

    def T(self, a: str, b: str) -> np.ndarray:
        return rigid.relative(self.poses[a], self.poses[b])

    def around(self, a: str, b: str, count: int) -> tuple[list[str], list[str]]:
        """Names within `count` of either end, each on the side that it is nearer to."""
        at = [self.names.index(name) for name in (a, b)]
        sides: tuple[list[str], list[str]] = ([], [])
        for index, name in enumerate(self.names):
            apart = [abs(index - end) for end in at]
            if 0 < min(apart) <= count:
                sides[int(apart[1] < apart[0])].append(name)
        return sides

    def question(self, a: str, b: str, count: int = 2, **asked: object) -> Question:
        left, right = self.around(a, b, count)
        return Question(
            reference=self.views[a],
            target=self.views[b],
            **{
                "reference_context": tuple(self.views[name] for name in left),
                "target_context": tuple(self.views[name] for name in right),
                "budget_s": 100.0,
                **asked,
            },
        )

    def posed(self, name: str, metres: float = METRES) -> View:
        """The view with odometry, in a frame of its own."""
        T = rigid.relative(self.poses["0008"], self.poses[name])
        return dataclasses.replace(self.views[name], T_side_camera=rigid.make(T[:3, :3], metres * T[:3, 3]))

    def bridged(self, metres: tuple[float, float] = (METRES, METRES), **asked: object) -> Question:
        """Views in between, all on the target's side, so that only one reconstruction ties the ends."""
        left, right = ("0003", "0008"), ("0012", "0018", "0021", "0026")
        return Question(
            reference=self.posed(BRIDGED[0], metres[0]),
            target=self.posed(BRIDGED[1], metres[1]),
            reference_context=tuple(self.posed(name, metres[0]) for name in left),
            target_context=tuple(self.posed(name, metres[1]) for name in right),
            **{"budget_s": 100.0, **asked},
        )


@pytest.fixture(scope="module")
def walk(fox: Path) -> Walk:
    return Walk(fox)


@pytest.fixture(scope="module")
def bridge() -> Bridge:
    """One for all questions: what it remembers must not change an answer."""
    return Bridge(QUICK)


@pytest.fixture(scope="module")
def thorough() -> Bridge:
    return Bridge()


@pytest.fixture(scope="module")
def stock() -> Bridge:
    return Bridge(Config(context=ContextConfig(wide_pairs=0)))


@pytest.fixture(scope="module")
def good(walk: Walk, bridge: Bridge) -> Answer:
    return bridge.answer(walk.question(*GOOD))


def errors_deg(answer: Answer, T_true: np.ndarray) -> tuple[float, float]:
    """Of rotation and signed direction; 0 where the answer gives no direction."""
    rotation = distances.rotation_error_deg(answer.rotation, T_true[:3, :3])
    if answer.translation < Translation.DIRECTION:
        return rotation, 0.0
    return rotation, distances.translation_error_deg(answer.direction, T_true[:3, 3])


def assert_never_wrong(answer: Answer, T_true: np.ndarray) -> None:
    if not answer.accepted:
        return assert_no_pose(answer)
    rotation, direction = errors_deg(answer, T_true)
    assert rotation <= 5.0
    assert direction <= 15.0
    return None


def assert_right(answer: Answer, T_true: np.ndarray, limit_deg: float = 1.5) -> None:
    assert answer.accepted, answer.reason_text
    rotation, direction = errors_deg(answer, T_true)
    assert rotation < limit_deg
    assert direction < limit_deg


def assert_no_pose(answer: Answer) -> None:
    """Rejected, with a reason in words, and not one number of a pose."""
    assert answer.status is Status.REJECTED
    assert answer.reason is not Reason.NONE
    assert answer.reason_text
    assert answer.translation is Translation.UNDEFINED
    assert answer.scale_source is ScaleSource.NONE
    assert np.isnan(answer.scale_sigma)
    assert answer.cameras == {}
    for name in (
        "rotation",
        "rotation_covariance_rad2",
        "direction",
        "direction_sigma_rad",
        "T_reference_target",
        "covariance",
    ):
        with pytest.raises(NoEstimateError):
            getattr(answer, name)


def numbers(answer: Answer) -> list[np.ndarray]:
    assert answer.accepted, answer.reason_text
    return [
        answer.rotation,
        answer.direction,
        answer.rotation_covariance_rad2,
        np.array([answer.direction_sigma_rad, answer.probability]),
        *answer.cameras.values(),
    ]


def assert_positive(covariance: np.ndarray) -> None:
    assert np.isfinite(covariance).all()
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance)[0] >= -1e-12 * np.trace(covariance)


# --- traps: a repeated wallpaper flower ties the two sides with hundreds of tracks


@pytest.mark.parametrize(("a", "b"), TRAPS)
def test_a_repeated_pattern_is_not_believed(walk: Walk, thorough: Bridge, a: str, b: str) -> None:
    assert_never_wrong(thorough.answer(walk.question(a, b, 3)), walk.T(a, b))


@pytest.mark.parametrize(("a", "b"), TRAPS)
def test_nor_with_the_links_of_stock_structure_from_motion(
    walk: Walk, stock: Bridge, monkeypatch: pytest.MonkeyPatch, a: str, b: str
) -> None:
    """Without simulated tilts the flower is nearly all there is across the gap."""
    seen: list[tuple[Problem, list[tuple[Estimate, Evidence]]]] = []
    candidates = verification.candidates

    def listen(estimator: Estimator, problem: Problem, control: Control, *rest: int) -> object:
        found = candidates(estimator, problem, control, *rest)
        seen.append((problem, found))
        return found

    monkeypatch.setattr(verification, "candidates", listen)
    assert_never_wrong(stock.answer(walk.question(a, b, 3)), walk.T(a, b))

    problem, ((first, evidence), (rival, rival_evidence)) = seen[-1]
    T = first.T_reference_target
    assert len(first.T_reference_camera) == len(problem.views)  # nothing is wrong with how it fits,
    assert first.rms_px < 1.0
    assert evidence.tracks >= 100
    assert distances.translation_error_deg(T[:3, 3], walk.T(a, b)[:3, 3]) > 15.0  # and yet it is wrong:
    assert not verification.same_answer(first, rival)  # there is another alignment, and either hears of it
    assert min(e.features["rival_patches"] for e in (evidence, rival_evidence)) > 0.0


# --- good pairs


def test_a_good_pair_is_answered_with_a_direction(walk: Walk, good: Answer) -> None:
    assert_right(good, walk.T(*GOOD), 1.0)
    assert good.translation is Translation.DIRECTION
    assert good.scale_source is ScaleSource.NONE
    assert np.isnan(good.scale_sigma)
    assert_positive(good.rotation_covariance_rad2)
    assert 0.0 < good.direction_sigma_rad < np.radians(5)
    assert np.linalg.norm(good.direction) == pytest.approx(1.0)
    assert good.probability >= 0.8
    for name in ("T_reference_target", "covariance"):
        with pytest.raises(NoEstimateError, match="METRIC"):
            getattr(good, name)


def assert_points_are_where_they_are_seen(question: Question, answer: Answer) -> None:
    """In the unit of the cameras: in the target side's best view, every track is next to a point."""
    evidence = answer.evidence
    assert evidence is not None
    (view,) = (view for view in question.sides[1] if view.id == evidence.target_view_id)
    seen = rigid.transform(rigid.inverse(answer.cameras[view.id]), evidence.points)
    off_px = np.linalg.norm(view.camera.project(seen)[:, None] - evidence.target_points_px, axis=2)
    assert np.median(off_px.min(axis=0)) < 2.0


def test_the_answer_shows_what_it_rests_on(walk: Walk, good: Answer) -> None:
    question = walk.question(*GOOD)
    views = {view.id: view for side in question.sides for view in side}
    assert_points_are_where_they_are_seen(question, good)
    assert set(good.cameras) <= set(views)
    np.testing.assert_allclose(good.cameras[question.reference.id], np.eye(4), atol=1e-12)
    T_target = good.cameras[question.target.id]
    np.testing.assert_allclose(T_target[:3, :3], good.rotation)
    np.testing.assert_allclose(T_target[:3, 3] / np.linalg.norm(T_target[:3, 3]), good.direction, atol=1e-9)
    evidence = good.evidence
    assert evidence is not None
    assert len(evidence.reference_points_px) == len(evidence.target_points_px) <= evidence.tracks
    for name, points in (
        (evidence.reference_view_id, evidence.reference_points_px),
        (evidence.target_view_id, evidence.target_points_px),
    ):
        height, width = views[name].image.shape[:2]
        assert ((points >= 0) & (points <= [width, height])).all()


def test_the_other_way_round_is_the_inverse(walk: Walk, bridge: Bridge) -> None:
    assert_right(bridge.answer(walk.question(*GOOD[::-1])), walk.T(*GOOD[::-1]), 1.0)


@pytest.mark.parametrize("stage", [Stage.REGISTER, Stage.CONTEXT])
def test_same_question_and_seed_same_numbers(walk: Walk, bridge: Bridge, stage: Stage) -> None:
    """Whatever was asked before."""
    question = walk.question(*GOOD) if stage is Stage.REGISTER else walk.bridged()
    fresh = Bridge(QUICK)
    fresh.prepare(question.target)
    first, second = bridge.answer(question), fresh.answer(question)
    assert first.stage is second.stage is stage
    for one, other in zip(numbers(first), numbers(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_order_of_context_does_not_matter(walk: Walk, bridge: Bridge) -> None:
    question = walk.bridged()
    turned = dataclasses.replace(
        question,
        reference_context=question.reference_context[::-1],
        target_context=question.target_context[::-1],
    )
    assert_right(bridge.answer(turned), walk.T(*BRIDGED))


def test_duplicates_in_context_change_nothing(walk: Walk, bridge: Bridge, good: Answer) -> None:
    question = walk.question(*GOOD)

    def again(views: Iterable[View], mark: str) -> tuple[View, ...]:
        return tuple(dataclasses.replace(view, id=f"{view.id} {mark}") for view in views)

    more = dataclasses.replace(
        question,
        reference_context=(
            *question.reference_context,
            *again(question.reference_context, "again"),
            *again([question.reference], "as context"),
        ),
        target_context=(*question.target_context, *again([question.target], "as context")),
    )
    for one, other in zip(numbers(bridge.answer(more)), numbers(good), strict=True):
        np.testing.assert_array_equal(one, other)


# --- metres


def with_odometry(walk: Walk, question: Question, metres: float) -> Question:
    def pose(view: View) -> View:
        return walk.posed(Path(view.id).stem, metres)

    return dataclasses.replace(
        question,
        reference=pose(question.reference),
        reference_context=tuple(map(pose, question.reference_context)),
        require=Require.METRIC,
    )


def assert_length(answer: Answer, T_true: np.ndarray, metres: float = METRES) -> None:
    assert answer.translation is Translation.METRIC
    length = np.linalg.norm(answer.T_reference_target[:3, 3])
    assert length == pytest.approx(metres * np.linalg.norm(T_true[:3, 3]), rel=0.1)
    assert_positive(answer.covariance)
    assert np.linalg.eigvalsh(answer.covariance)[0] > 0
    along = answer.direction
    assert np.sqrt(along @ answer.covariance[:3, :3] @ along) >= 0.9 * answer.scale_sigma * length


def test_odometry_around_the_reference_gives_metres(walk: Walk, bridge: Bridge) -> None:
    question = with_odometry(walk, walk.question(*GOOD), METRES)
    answer = bridge.answer(question)
    assert_right(answer, walk.T(*GOOD))
    assert_points_are_where_they_are_seen(question, answer)
    assert_length(answer, walk.T(*GOOD))
    assert answer.scale_source is ScaleSource.ODOMETRY


def test_odometry_on_both_sides_gives_metres(walk: Walk, bridge: Bridge) -> None:
    question = walk.bridged(require=Require.METRIC)
    answer = bridge.answer(question)
    assert answer.stage is Stage.CONTEXT
    assert answer.estimator == "rigs"
    assert_right(answer, walk.T(*BRIDGED))
    assert_length(answer, walk.T(*BRIDGED))
    assert_points_are_where_they_are_seen(question, answer)


def test_what_may_be_one_thing_with_a_twin_elsewhere_is_no_place(walk: Walk, bridge: Bridge) -> None:
    question = walk.bridged(require=Require.METRIC)
    known = bridge.answer(question)
    reach_m = verification.extent(known.evidence.points)
    assert reach_m > Config().verification.min_extent_m
    larger = dataclasses.replace(question, min_extent_m=1.1 * reach_m)
    answer = bridge.answer(larger)
    assert_no_pose(answer)
    assert answer.reason is Reason.AMBIGUOUS
    assert "another thing like it" in answer.reason_text

    for sigma_m, accepted in ((0.2 * reach_m, True), (0.5 * reach_m, False)):  # a twin may stand 4 sigma away
        prior = Prior(
            T_reference_target=known.T_reference_target,
            covariance=np.diag([sigma_m**2] * 3 + [0.1**2] * 3),
        )
        assert bridge.answer(dataclasses.replace(larger, prior=prior)).accepted == accepted


def test_conflicting_odometry_is_rejected(walk: Walk, bridge: Bridge) -> None:
    question = walk.bridged((METRES, 1.5 * METRES), require=Require.METRIC)
    assert_no_pose(bridge.answer(question))  # rigid rigs of two sizes do not fit
    answer = bridge.answer(loosened(question))
    assert_no_pose(answer)
    assert answer.reason is Reason.SCALE_CONFLICT


def loosened(question: Question) -> Question:
    """The question with a view that has no odometry: its sides are no rigid rigs, pictures alone tie them."""
    *others, last = question.reference_context
    loose = dataclasses.replace(last, T_side_camera=None)
    return dataclasses.replace(question, reference_context=(*others, loose))


def test_a_side_that_only_turned_does_not_veto(walk: Walk, bridge: Bridge) -> None:
    question = loosened(walk.bridged(require=Require.METRIC))
    place = question.target.T_side_camera[:3, 3]
    turned = dataclasses.replace(
        question,
        target_context=tuple(
            dataclasses.replace(view, T_side_camera=rigid.make(view.T_side_camera[:3, :3], place))
            for view in question.target_context
        ),
    )
    assert bridge.answer(turned).reason is Reason.ODOMETRY_CONFLICT  # the pictures say that it moved
    lenient = Bridge(dataclasses.replace(QUICK, gates=GatesConfig(max_side_shift_m=1000.0)))
    answer = lenient.answer(turned)
    assert_right(answer, walk.T(*BRIDGED))
    assert_length(answer, walk.T(*BRIDGED))


# --- gates: what else is known must not be contradicted


def in_frame(question: Question, T_new_old: np.ndarray) -> Question:
    """The question with the target's side in another frame."""

    def moved(view: View) -> View:
        return dataclasses.replace(view, T_side_camera=T_new_old @ view.T_side_camera)

    return dataclasses.replace(
        question, target=moved(question.target), target_context=tuple(map(moved, question.target_context))
    )


@pytest.mark.parametrize(
    ("T_new_old", "reason"),
    [
        (rigid.make(rotations.so3_exp([0.0, 0.0, 2.0]), [3.0, -1.0, 0.0]), Reason.NONE),
        (rigid.make(rotations.so3_exp([0.0, 0.2, 0.0]), np.zeros(3)), Reason.GRAVITY_CONFLICT),
        (rigid.make(np.eye(3), [0.0, 0.0, 1.0]), Reason.GRAVITY_CONFLICT),
    ],
    ids=["turned about the vertical", "tilted", "above the ground"],
)
def test_gravity_and_ground(walk: Walk, bridge: Bridge, T_new_old: np.ndarray, reason: Reason) -> None:
    """A frame of its own is fine for a side, as long as up stays up and the ground stays where it was."""
    question = in_frame(loosened(walk.bridged(require=Require.METRIC)), T_new_old)
    answer = bridge.answer(dataclasses.replace(question, upright=True, common_ground=True))
    assert answer.reason is reason, answer.reason_text
    if reason is Reason.NONE:
        assert_right(answer, walk.T(*BRIDGED))
    else:
        assert_no_pose(answer)
        assert_right(bridge.answer(question), walk.T(*BRIDGED))  # nobody said that the frames are upright


# --- the ladder


class Rungs(Bridge):
    """A bridge whose rungs find these answers."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.answers, self.asked = answers, 0

    def _climb(self, question: Question, control: Control) -> Iterator[Answer]:
        for answer in self.answers:
            self.asked += 1
            yield answer


def with_sigma(answer: Answer, sigma_deg: float, turned_deg: float = 0.0) -> Answer:
    T, covariance = answer._numbers()
    R = rotations.so3_exp(np.radians([0.0, turned_deg, 0.0])) @ T[:3, :3]
    changed = covariance.copy()
    changed[3:, 3:] = np.radians(sigma_deg) ** 2 * np.eye(3)
    return dataclasses.replace(answer, _covariance=changed, _T_reference_target=rigid.make(R, T[:3, 3]))


def test_it_climbs_until_the_rotation_is_known_well(walk: Walk, good: Answer) -> None:
    rough, fine = with_sigma(good, 0.6), with_sigma(good, 0.1)
    for answers, used, sigma_deg in [
        ((fine, rough), 1, 0.1),
        ((rough, fine), 2, 0.1),
        ((rough, with_sigma(good, 0.9)), 2, 0.6),  # a worse one later does not replace it
        ((rough, Answer.rejected(Reason.NO_OVERLAP, "nothing")), 2, 0.6),
    ]:
        rungs = Rungs(*answers)
        answer = rungs.answer(walk.question(*GOOD))
        assert rungs.asked == used
        assert np.degrees(answer.rotation_sigma_rad) == pytest.approx(sigma_deg)


def test_answers_that_are_unsure_of_their_difference_agree(walk: Walk, good: Answer) -> None:
    rough, fine = with_sigma(good, 1.2, turned_deg=3.2), with_sigma(good, 0.1)
    answer = Rungs(rough, fine).answer(walk.question(*GOOD))
    assert np.degrees(answer.rotation_sigma_rad) == pytest.approx(0.1)


def test_two_good_answers_that_differ_are_none(walk: Walk, good: Answer) -> None:
    answer = Rungs(with_sigma(good, 0.6), with_sigma(good, 0.1, turned_deg=8.0)).answer(walk.question(*GOOD))
    assert_no_pose(answer)
    assert answer.reason is Reason.INCONSISTENT


def test_an_answer_without_metres_falls_to_a_later_doubt(walk: Walk, good: Answer) -> None:
    """Two views of a bookcase are told from those of its twin by nothing; with metres it is one thing."""
    rough, fine, other = (with_sigma(good, 0.6), with_sigma(good, 0.1), with_sigma(good, 0.1, turned_deg=8.0))
    twin = Answer.rejected(Reason.AMBIGUOUS, "all that ties them lies within 0.6 m", probability=0.9)
    nothing = Answer.rejected(Reason.NO_OVERLAP, "nothing")
    metric = dataclasses.replace(rough, scale_source=ScaleSource.ODOMETRY)
    for answers, reason in [
        ((rough, twin), Reason.AMBIGUOUS),
        ((rough, twin, nothing), Reason.AMBIGUOUS),
        ((rough, twin, fine), Reason.NONE),  # more ties them than that thing
        ((rough, twin, other), Reason.INCONSISTENT),  # what was taken back still counts against others
        ((twin, rough), Reason.NONE),
        ((metric, twin), Reason.NONE),  # that one was judged by its size
    ]:
        answer = Rungs(*answers).answer(walk.question(*GOOD))
        assert answer.reason is reason
        assert answer.accepted == (reason is Reason.NONE)


# --- never a pose


def with_target(question: Question, image: np.ndarray, **changed: object) -> Question:
    """The question with another picture as its target."""
    return dataclasses.replace(
        question,
        target=dataclasses.replace(question.target, image=np.ascontiguousarray(image, np.uint8)),
        **changed,
    )


def texture(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Blots of all sizes: thousands of keypoints, nothing known."""
    rng = np.random.default_rng(seed)
    total = np.zeros(shape)
    for sigma in (1.0, 2.0, 4.0, 8.0):
        total += sigma * cv2.GaussianBlur(rng.normal(0.0, 1.0, shape), (0, 0), sigma)
    low, high = np.percentile(total, [1, 99])
    return np.clip(255 * (total - low) / (high - low), 0, 255).astype(np.uint8)


SPOILT = {
    "black": lambda image: np.zeros_like(image),
    "white": lambda image: np.full_like(image, 255),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 20.0),
    "saturated": lambda image: np.clip(image.astype(int) * 8 + 200, 0, 255).astype(np.uint8),
    "dark": lambda image: image // 100,
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("which", ["reference", "target"])
def test_a_spoilt_picture_has_no_pose(walk: Walk, bridge: Bridge, how: str, which: str) -> None:
    question = walk.question(*GOOD)
    view = getattr(question, which)
    spoilt = dataclasses.replace(view, image=SPOILT[how](view.image))
    answer = bridge.answer(dataclasses.replace(question, **{which: spoilt}))
    assert_no_pose(answer)
    if how != "saturated":  # which leaves a few outlines
        assert answer.reason is Reason.POOR_VIEWS
        assert view.id in answer.reason_text


def test_spoilt_context_does_no_harm(walk: Walk, bridge: Bridge) -> None:
    question = walk.question(*GOOD)
    spoilt = tuple(
        dataclasses.replace(question.target, id=how, image=spoil(question.target.image))
        for how, spoil in SPOILT.items()
    )
    more = dataclasses.replace(question, reference_context=(*question.reference_context, *spoilt))
    assert_right(bridge.answer(more), walk.T(*GOOD))


def test_identical_pictures_have_no_pose(walk: Walk, bridge: Bridge) -> None:
    question = walk.question(*GOOD)
    answer = bridge.answer(with_target(question, question.reference.image))
    assert_no_pose(answer)
    assert answer.reason is Reason.POOR_VIEWS


def test_a_picture_too_small_is_an_error(walk: Walk, bridge: Bridge) -> None:
    question = walk.question(*GOOD)
    small = View(id="small", image=texture(0, (40, 40, 3)), camera=Camera.from_focal_px(50.0, 40, 40))
    with pytest.raises(BadImageError, match="small"):
        bridge.answer(dataclasses.replace(question, target=small))


@pytest.mark.parametrize("ends", [GOOD, ("0012", "0030")])
@pytest.mark.parametrize("what", ["texture", "mirrored"])
def test_a_target_from_elsewhere_has_no_pose(
    walk: Walk, bridge: Bridge, what: str, ends: tuple[str, str]
) -> None:
    question = walk.question(*ends)
    image = question.target.image
    elsewhere = texture(1, image.shape) if what == "texture" else image[:, ::-1]
    assert_no_pose(bridge.answer(with_target(question, elsewhere)))


def test_a_mirrored_target_with_its_mirrored_context_has_no_pose(walk: Walk, bridge: Bridge) -> None:
    """One side of the question is a mirror image: a scene of its own, with as much texture."""
    question = walk.question(*GOOD)
    mirrored = tuple(
        dataclasses.replace(view, image=np.ascontiguousarray(view.image[:, ::-1]))
        for view in question.target_context
    )
    assert_no_pose(
        bridge.answer(with_target(question, question.target.image[:, ::-1], target_context=mirrored))
    )


def test_context_of_another_scene_does_not_help(walk: Walk, bridge: Bridge) -> None:
    a, b = "0001", "0033"
    view = walk.views[a]
    elsewhere = [
        dataclasses.replace(view, id=f"elsewhere {seed}", image=texture(seed, view.image.shape))
        for seed in range(4)
    ]
    sides = tuple(elsewhere[:2]), tuple(elsewhere[2:])
    question = walk.question(a, b, reference_context=sides[0], target_context=sides[1])
    assert_never_wrong(bridge.answer(question), walk.T(a, b))


@pytest.mark.parametrize("budget_s", [1e-3, 0.05, 0.5])
def test_a_budget_too_small_has_no_pose(walk: Walk, budget_s: float) -> None:
    answer = Bridge(QUICK).answer(walk.question(*GOOD, budget_s=budget_s))
    if answer.accepted:
        assert_right(answer, walk.T(*GOOD))
        assert budget_s > 0.01
    else:
        assert_no_pose(answer)
        assert answer.reason is Reason.BUDGET
        assert "budget" in answer.reason_text


def test_the_best_answer_so_far_is_kept_when_time_runs_out(walk: Walk, bridge: Bridge, good: Answer) -> None:
    """A direction is known when the search for metres is stopped."""
    better: list[Answer] = []

    class Clock(Control):
        def step(self, what: str) -> None:
            if what.startswith("context"):
                self.start(1e-9)
            super().step(what)

    answer = bridge.answer(walk.question(*GOOD, require=Require.METRIC), Clock(on_better=better.append))
    for one, other in zip(numbers(answer), numbers(good), strict=True):
        np.testing.assert_array_equal(one, other)
    assert better[-1].accepted


def test_only_so_many_rungs(walk: Walk, bridge: Bridge) -> None:
    steps: list[str] = []
    answer = bridge.answer(walk.question(*GOOD, max_stage=Stage.DIRECT), Control(on_progress=steps.append))
    assert answer.stage <= Stage.DIRECT
    assert not any(step.startswith(("register", "context")) for step in steps)


# --- a camera that only turned, a flat scene


CAMERA = Camera.from_focal_px(458.0, 360, 640)


def seen(image: np.ndarray, H: np.ndarray, name: str) -> View:
    """The picture warped by a homography of normalized coordinates, inside its outline."""
    K = CAMERA.to_opencv_K()
    pixels = K @ H @ np.linalg.inv(K)
    warped = cv2.warpPerspective(image, pixels, (CAMERA.width, CAMERA.height), flags=cv2.INTER_CUBIC)
    mask = cv2.warpPerspective(np.full(image.shape[:2], 255, np.uint8), pixels, (CAMERA.width, CAMERA.height))
    return View(id=name, image=warped, camera=CAMERA, mask=cv2.erode(mask, np.ones((9, 9), np.uint8)) > 250)


def turn(yaw_deg: float, pitch_deg: float = 0.0) -> np.ndarray:
    return rotations.so3_exp(np.radians([pitch_deg, yaw_deg, 0.0]))


def assert_no_direction(answer: Answer) -> None:
    assert answer.translation is Translation.UNDEFINED
    for name in ("direction", "direction_sigma_rad", "T_reference_target", "covariance"):
        with pytest.raises(NoEstimateError):
            getattr(answer, name)


@pytest.mark.parametrize("require", [Require.ROTATION, Require.DIRECTION])
def test_a_camera_that_only_turned_has_a_rotation_and_no_direction(
    walk: Walk, bridge: Bridge, require: Require
) -> None:
    R_target_reference = turn(20.0, 4.0)
    image = walk.views["0021"].image
    question = Question(
        reference=seen(image, np.eye(3), "before"),
        target=seen(image, R_target_reference, "after"),
        require=require,
        budget_s=100.0,
    )
    answer = bridge.answer(question)
    assert answer.accepted, answer.reason_text
    assert_no_direction(answer)
    assert distances.rotation_error_deg(answer.rotation, R_target_reference.T) < 0.3
    assert_positive(answer.rotation_covariance_rad2)


def test_nor_does_it_with_context_that_turned_too(walk: Walk, bridge: Bridge) -> None:
    """No reconstruction of views from one place may make up a baseline."""
    image = walk.views["0021"].image
    left, right = (
        tuple(seen(image, turn(yaw, pitch), f"{yaw} {pitch}") for yaw, pitch in side)
        for side in (((-6.0, 2.0), (5.0, -3.0)), ((10.0, 3.0), (16.0, -4.0)))
    )
    answer = bridge.answer(
        Question(
            reference=seen(image, np.eye(3), "before"),
            target=seen(image, turn(20.0), "after"),
            reference_context=left,
            target_context=right,
            budget_s=100.0,
        )
    )
    assert_no_direction(answer)
    if answer.accepted:
        assert distances.rotation_error_deg(answer.rotation, turn(20.0).T) < 0.5


@pytest.mark.parametrize("yaw_deg", [12.0, 30.0])
def test_a_poster_has_no_direction(walk: Walk, bridge: Bridge, yaw_deg: float) -> None:
    """A plane seen by two cameras has two explanations; which is true cannot be told."""
    image = walk.views["0021"].image
    poster = seen(image, np.eye(3), "before")
    R_target_reference = turn(yaw_deg)
    t = -R_target_reference @ np.array([0.5, 0.05, 0.1])  # metres; the poster hangs at 1 m
    homography = R_target_reference + np.outer(t, [0.0, 0.0, 1.0])
    question = Question(reference=poster, target=seen(image, homography, "after"), budget_s=100.0)
    answer = bridge.answer(question)
    if answer.accepted:
        assert_no_direction(answer)
        assert distances.rotation_error_deg(answer.rotation, R_target_reference.T) < 5.0
    else:
        assert_no_pose(answer)


# --- cancelling


def test_cancelled_before_it_starts(walk: Walk, bridge: Bridge) -> None:
    cancelled = threading.Event()
    cancelled.set()
    steps: list[str] = []
    with pytest.raises(CancelledError):
        bridge.answer(walk.question(*GOOD), Control(cancelled, steps.append))
    assert steps == []


class Stop:
    """Cancels when it hears of a step, by number."""

    def __init__(self, last: int) -> None:
        self.last, self.cancelled, self.heard = last, threading.Event(), []

    def hear(self, step: str) -> None:
        self.heard.append(step)
        if len(self.heard) > self.last:
            self.cancelled.set()


def test_cancelled_at_every_step(walk: Walk, bridge: Bridge) -> None:
    question = walk.bridged()
    steps: list[str] = []
    before = bridge.answer(question, Control(on_progress=steps.append))
    assert {step.split(":")[0] for step in steps} >= {"direct", "register", "context"}
    for last in range(len(steps)):
        stop = Stop(last)
        with pytest.raises(CancelledError):
            bridge.answer(question, Control(stop.cancelled, stop.hear))
        assert stop.heard == steps[: last + 1]
    for one, other in zip(numbers(bridge.answer(question)), numbers(before), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("step", "delay_s"),
    [
        ("looking at the two views", 0.02),  # features
        ("register: matching", 0.1),
        ("context: estimating", 0.0),
        ("context: estimating", 0.1),
        ("context: estimating", 0.3),  # in mid-reconstruction
    ],
)
def test_cancelled_in_mid_step_by_another_thread(
    walk: Walk, stock: Bridge, step: str, delay_s: float
) -> None:
    asked = Bridge(QUICK) if step != "context: estimating" else stock
    cancelled, since, timers = threading.Event(), [], []

    def cancel() -> None:
        since.append(time.monotonic())
        cancelled.set()

    def hear(what: str) -> None:
        if what == step:
            timers.append(threading.Timer(delay_s, cancel))
            timers[-1].start()

    with pytest.raises(CancelledError):
        asked.answer(walk.question("0001", "0033", 3), Control(cancelled, hear))
    assert time.monotonic() - since[0] < 2.0
    timers[0].join()


# --- processes


def command(walk: Walk, fox: Path, a: str, b: str) -> list[str]:
    arguments = [str(fox / "images" / f"{name}.jpg") for name in (a, b)]
    arguments += ["--cameras", str(fox / "cameras.json"), "--budget", "100", "--json"]
    for option, names in zip(("--reference-context", "--target-context"), walk.around(a, b, 2), strict=True):
        for name in names:
            arguments += [option, str(fox / "images" / f"{name}.jpg")]
    return [sys.executable, "-c", "from pose_bridge.cli.main import main; main()", "estimate", *arguments]


@pytest.mark.parametrize("kind", ["missing", "a file", "read-only"])
def test_a_temporary_directory_that_cannot_be_written_does_not_matter(
    walk: Walk, fox: Path, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "tmp"
    if kind == "a file":
        place.write_text("")
    elif kind == "read-only":
        place.mkdir(mode=0o500)
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(place))}
    done = subprocess.run(
        command(walk, fox, *GOOD), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert '"ACCEPTED"' in done.stdout


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_bridge import GOOD, Walk
from pose_bridge.bridge import Bridge
from pose_bridge.control import Control
walk = Walk(Path({fox!r}))
Bridge().answer(walk.question(*GOOD), Control(on_progress=lambda step: print(step, flush=True)))
"""


def test_nothing_is_left_behind_after_a_kill(fox: Path, tmp_path: Path) -> None:
    code = KILLED.format(tests=str(ROOT / "tests"), fox=str(fox))
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path))}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any(line.strip() == "register: estimating" for line in process.stdout)
        time.sleep(0.05)  # in mid-reconstruction
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
