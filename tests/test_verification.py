# SPDX-License-Identifier: Apache-2.0
import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CAMERA, all_tracks, arc, cloud, problem
from synthetic import evidence as blank_evidence

from pose_bridge import verification
from pose_bridge.config import Config, VerificationConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Estimate, Problem, Tracks, Witnesses
from pose_bridge.geometry import rigid, rotations
from pose_bridge.training.verification_model import SIGN, WRONG_SHARE
from pose_bridge.verification import (
    extent,
    gather,
    is_flat,
    judge,
    one_thing,
    same_answer,
    weakest_cut,
    without_links,
)
from pose_bridge.views import Evidence, Prior, Question, Reason, Stage, View

ANGLES_DEG = [0.0, 40.0, 10.0, 30.0]
SIDES = [0, 1, 0, 1]
POINTS = 200
AHEAD = np.array([0.0, 0.0, 4.0])


def by_hand(
    T_world: list[np.ndarray],
    points_world: np.ndarray,
    tracks: Tracks,
    unit: float | None = None,
    **known: object,
) -> Estimate:
    """The true cameras and points in units of the baseline."""
    cameras = {k: rigid.relative(T_world[0], T) for k, T in enumerate(T_world)}
    length = unit or float(np.linalg.norm(cameras[1][:3, 3])) or 1.0
    n = len(T_world) - 1
    return Estimate(
        **{
            "stage": Stage.CONTEXT,
            "estimator": "by hand",
            "T_reference_camera": {k: rigid.make(T[:3, :3], T[:3, 3] / length) for k, T in cameras.items()},
            "tracks": tracks,
            "points": rigid.transform(rigid.inverse(T_world[0]), points_world) / length,
            "rms_px": 0.4,
            "joint_covariance": 1e-6 * np.eye(6 * n),
            "covariance_views": tuple(range(1, n + 1)),
            **known,
        }
    )


def some_views(seed: int, views: int, points: int, density: float) -> Estimate:
    """Points that some of the views see."""
    rng = np.random.default_rng(seed)
    seen = rng.random((points, views)) < density
    seen = seen[seen.sum(axis=1) >= 2]
    if not len(seen):
        seen = np.ones((1, views), bool)
    point, view = np.nonzero(seen)
    T_world = arc(list(np.linspace(0, 40, views)))
    return by_hand(T_world, cloud(rng, len(seen)), Tracks(point, view, point))


# --- what may be one thing


def a_view(name: str) -> View:
    return View(id=name, image=np.zeros((480, 640, 3), np.uint8), camera=CAMERA)


def test_how_far_points_reach() -> None:
    line = np.linspace(-2.0, 2.0, 401)[:, None] * np.array([0.6, 0.0, 0.8])
    reach = 4.0 * (1.0 - np.sqrt(0.1))  # of a line
    assert extent(line) == pytest.approx(reach, rel=0.01)
    assert extent(np.repeat(line, 10, axis=0)) == pytest.approx(reach, rel=0.01)
    few = 1000.0 * np.random.default_rng(0).normal(size=(10, 3))
    assert extent(np.vstack([line, few])) < 1.2 * reach  # a few wrong ones make nothing larger
    assert extent(np.zeros((5, 3))) == extent(np.zeros((1, 3))) == extent(np.zeros((0, 3))) == 0.0


@given(seed=st.integers(0, 2**32), length=st.floats(0.1, 10.0))
def test_how_far_points_reach_does_not_depend_on_the_frame(seed: int, length: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(60, 3)) * [3.0, 1.0, 0.5]
    T = rigid.make(rotations.so3_exp(rng.normal(size=3)), rng.normal(size=3))
    assert extent(length * rigid.transform(T, points)) == pytest.approx(length * extent(points), rel=1e-6)


@pytest.mark.parametrize(
    ("depth_m", "wrong", "flat"), ((0.0, 0, True), (0.02, 8, True), (0.02, 30, False), (0.2, 0, False))
)
def test_what_is_flat_must_be_larger_than_a_door(depth_m: float, wrong: int, flat: bool) -> None:
    rng = np.random.default_rng(0)
    door = rng.uniform((-0.45, -1.0, -0.5), (0.45, 1.0, 0.5), (200, 3)) * (1.0, 1.0, depth_m / 0.5)
    door[:wrong, 2] += rng.choice([-1.0, 1.0], wrong)
    T = rigid.make(rotations.so3_exp(rng.normal(size=3)), np.array([0.0, 0.0, 3.0]))
    seen = blank_evidence(points=rigid.transform(T, door))
    question, config = Question(reference=a_view("a"), target=a_view("b")), Config()
    assert is_flat(seen.points) == flat
    doubt = one_thing(seen, 1.0, question, config)
    assert bool(re.search(r"within 1\.\d m and is flat, 2 m are needed", doubt)) == bool(doubt) == flat
    assert one_thing(seen, 2.0, question, config) == ""
    asked = dataclasses.replace(question, min_extent_m=0.5)
    assert one_thing(seen, 1.0, asked, config) == ""  # who asks for less knows why


def test_one_thing_may_have_a_twin_unless_a_prior_leaves_no_room() -> None:
    bent = np.linspace(0.0, 1.0, 201)[:, None] * np.array([0.0, 0.0, 1.0])
    bent[::4, 0], bent[1::4, 1] = 0.2, 0.2
    seen = blank_evidence(points=bent)
    views = {"reference": a_view("a"), "target": a_view("b")}
    question, config = Question(**views), Config()
    assert "0.7 m" in one_thing(seen, 1.0, question, config)
    assert one_thing(seen, 1.8, question, config) == ""  # in metres it is larger
    assert one_thing(seen, 1.0, Question(**views, min_extent_m=0.6), config) == ""
    assert one_thing(seen, 1e-3, Question(**views, min_extent_m=0.0), config) == ""
    for sigma_m, doubted in ((0.15, False), (0.25, True)):
        prior = Prior(
            T_reference_target=np.eye(4), covariance=np.diag([0.01, sigma_m, 0.01, 1.0, 1.0, 1.0]) ** 2
        )
        assert bool(one_thing(seen, 1.0, Question(**views, prior=prior), config)) == doubted


# --- the weakest cut


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("views", "density"), [(2, 0.9), (3, 0.5), (4, 0.4), (5, 0.35), (6, 0.5)])
def test_no_partition_of_the_views_cuts_fewer_tracks(seed: int, views: int, density: float) -> None:
    estimate = some_views(seed, views, 25, density)
    cut = weakest_cut(estimate, [0, 1] + [0] * (views - 2))
    seen = estimate.tracks.visible(views) >= 0

    def crossing(target_side: np.ndarray) -> np.ndarray:
        return seen[:, target_side].any(axis=1) & seen[:, ~target_side].any(axis=1)

    assert (bool(cut.target_side[0]), bool(cut.target_side[1])) == (False, True)
    np.testing.assert_array_equal(cut.points, np.nonzero(crossing(cut.target_side))[0])
    fewest = min(
        crossing(np.array([False, True, *rest])).sum()
        for rest in itertools.product([False, True], repeat=views - 2)
    )
    assert len(cut.points) == fewest


def test_views_that_took_no_part_are_on_no_side() -> None:
    estimate = some_views(0, 4, 25, 0.8)
    left = estimate.tracks.where(estimate.tracks.view != 3)
    cameras = {k: T for k, T in estimate.T_reference_camera.items() if k != 3}
    cut = weakest_cut(dataclasses.replace(estimate, tracks=left, T_reference_camera=cameras), SIDES)
    assert not cut.target_side[3]


def test_a_side_that_fits_well_does_not_make_up_for_a_weak_link() -> None:
    """A hundred tracks on either side, seven between."""
    points = np.arange(207)
    own = [(p, v) for p in points[:100] for v in (0, 2)] + [(p, v) for p in points[100:200] for v in (1, 3)]
    rows = [*own, *((p, v) for p in points[200:] for v in (2, 3))]
    point, view = np.array(rows).T
    estimate = by_hand(arc(ANGLES_DEG), cloud(np.random.default_rng(0), 207), Tracks(point, view, point))
    cut = weakest_cut(estimate, SIDES)
    np.testing.assert_array_equal(cut.points, points[200:])
    np.testing.assert_array_equal(cut.target_side, [False, True, False, True])


# --- evidence


@pytest.fixture(scope="module")
def scene() -> tuple[Problem, Estimate]:
    rng = np.random.default_rng(0)
    points = cloud(rng, POINTS)
    asked = problem(arc(ANGLES_DEG), points, rng, noise_px=0.4, sides=SIDES, outliers=0.3)
    return asked, by_hand(arc(ANGLES_DEG), points, all_tracks(4, POINTS))


def test_evidence_of_a_scene_that_is_known(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    evidence = gather(asked, estimate)
    numbers = evidence.features
    assert evidence.tracks == POINTS
    assert numbers["log_tracks"] == pytest.approx(np.log(POINTS))
    assert 0.68 < numbers["agreement"] < 0.8  # 30 % are wrong, few of them agree by chance
    # a box of 2.4 m at 4 m: 34 to 46 degrees wide, in cells of 3
    assert 11**2 * 0.5 < np.exp(numbers["log_patches"]) < 16**2
    assert numbers["log_rotation_sigma_deg"] == pytest.approx(np.log(np.degrees(1e-3)), abs=1e-6)
    assert 1.0 < numbers["parallax_deg"] < 45.0
    assert numbers["rival_patches"] == 0.0
    assert {evidence.reference_view_id, evidence.target_view_id} <= {"v0", "v1", "v2", "v3"}
    assert len(evidence.reference_points_px) == len(evidence.target_points_px) == POINTS
    assert all(np.isfinite(list(numbers.values())))


def test_links_on_one_spot_are_told_from_links_all_over(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    local = estimate.points
    near = np.linalg.norm(local[:, :2] - np.median(local[:, :2], axis=0), axis=1)
    spot = np.argsort(near)[:40]
    spread_out = np.argsort(near)[::5]
    found = {}
    for name, chosen in (("spot", spot), ("all over", spread_out)):
        across = np.isin(estimate.tracks.point, chosen) | np.isin(estimate.tracks.view, [0, 2])
        kept = estimate.tracks.where(across)  # point indices stay: the reference's side sees them all
        found[name] = gather(asked, dataclasses.replace(estimate, tracks=kept))
    assert found["spot"].tracks == found["all over"].tracks == 40
    patches = {name: np.exp(evidence.features["log_patches"]) for name, evidence in found.items()}
    assert patches["spot"] < 0.75 * patches["all over"]


def test_a_wrong_alignment_agrees_with_few_matches(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    turned = rigid.make(rotations.so3_exp(np.array([0.0, 0.3, 0.2])), np.zeros(3))
    cameras = {k: T @ turned if k in (1, 3) else T for k, T in estimate.T_reference_camera.items()}
    wrong = gather(asked, dataclasses.replace(estimate, T_reference_camera=cameras))
    assert wrong.features["agreement"] < 0.5 * gather(asked, estimate).features["agreement"]


def test_a_turn_has_evidence_too() -> None:
    rng = np.random.default_rng(1)
    T_world = [np.eye(4), rigid.make(rotations.so3_exp(np.array([0.0, 0.15, 0.0])), np.zeros(3))]
    points = cloud(rng, 100) + AHEAD
    asked = problem(T_world, points, rng, noise_px=0.4, outliers=0.2)
    evidence = gather(
        asked, by_hand(T_world, points, all_tracks(2, 100), stage=Stage.DIRECT, translation_defined=False)
    )
    assert 0.75 < evidence.features["agreement"] < 0.9
    assert all(np.isfinite(list(evidence.features.values())))


# --- taking links away


def test_matches_that_agree_are_taken_away_across_the_cut_only(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    rest = without_links(asked, estimate)
    side = weakest_cut(estimate, SIDES).target_side
    for pair, before in asked.matches.items():
        after = rest.matches[pair]
        if side[pair[0]] == side[pair[1]]:
            np.testing.assert_array_equal(after, before)
        else:
            assert len(after) == 0  # every keypoint belongs to a linking track
    assert rest.views == asked.views
    assert rest.seed == asked.seed
    for pair, before in asked.matches.items():
        assert len(before) == POINTS, pair  # the problem that was given stays as it was


def test_what_another_alignment_rests_on_is_left() -> None:
    """Half of the points link the sides, the others are matched to keypoints elsewhere, consistently."""
    rng = np.random.default_rng(2)
    points = cloud(rng, POINTS)
    asked = problem(arc(ANGLES_DEG), points, rng, noise_px=0.3, sides=SIDES)
    half = POINTS // 2
    matches = {}
    for (a, b), pairs in asked.matches.items():
        changed = pairs.copy()
        if SIDES[a] != SIDES[b]:
            changed[half:, 1] = half + (changed[half:, 1] - half + 17) % half
        matches[a, b] = changed
    asked = dataclasses.replace(asked, matches=matches)
    everything = all_tracks(4, POINTS)
    linked = everything.where((everything.point < half) | np.isin(everything.view, [0, 2]))
    estimate = by_hand(arc(ANGLES_DEG), points, linked)
    rest = without_links(asked, estimate)
    for (a, b), after in rest.matches.items():
        if SIDES[a] != SIDES[b]:
            assert (after[:, 0] >= half).all()
            assert len(after) > 0.8 * half  # but for those that agree by chance
        else:
            assert len(after) == POINTS


class Scripted:
    """An estimator that gives these estimates, one after the other."""

    name, stage = "scripted", Stage.CONTEXT

    def __init__(self, *script: Estimate) -> None:
        self.script, self.asked = list(script), []

    def estimate(self, problem: Problem, control: Control) -> Estimate:
        self.asked.append(problem)
        if not self.script:
            raise NoEstimateError("nothing more")
        return self.script.pop(0)


def rival_of(estimate: Estimate) -> Estimate:
    """Another alignment, which rests on a fourth of the points."""
    T = rigid.make(rotations.so3_exp(np.array([0.0, 0.5, 0.0])), [0.0, 1.0, 0.0])
    cameras = {k: T @ camera if k in (1, 3) else camera for k, camera in estimate.T_reference_camera.items()}
    tracks = estimate.tracks
    kept = tracks.where((tracks.point < POINTS // 4) | np.isin(tracks.view, [0, 2]))
    return dataclasses.replace(estimate, T_reference_camera=cameras, tracks=kept)


def test_rivals_are_looked_for_without_the_links(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    rival = rival_of(estimate)
    scripted = Scripted(estimate, rival)
    found = verification.candidates(scripted, asked, Control(), 1)
    assert [one for one, _ in found] == [estimate, rival]
    assert scripted.asked[0] is asked
    assert sum(map(len, scripted.asked[1].matches.values())) < sum(map(len, asked.matches.values()))
    (_, own), (_, other) = found
    assert 0.1 < own.features["rival_patches"] < 1.0
    assert other.features["rival_patches"] == pytest.approx(
        min(1 / own.features["rival_patches"], np.exp(verification.RIVAL_CAP))
    )


def test_the_same_answer_again_is_no_rival(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    for _, evidence in verification.candidates(Scripted(estimate, estimate), asked, Control(), 1):
        assert evidence.features["rival_patches"] == 0.0


def test_no_rival_is_fine_and_no_answer_is_not(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    ((only, evidence),) = verification.candidates(Scripted(estimate), asked, Control(), 3)
    assert only is estimate
    assert evidence.features["rival_patches"] == 0.0
    with pytest.raises(NoEstimateError):
        verification.candidates(Scripted(), asked, Control(), 3)


def test_as_many_rivals_as_asked_for(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    turned = [
        rigid.make(rotations.so3_exp(np.radians([0.0, angle, 0.0])), estimate.T_reference_target[:3, 3])
        for angle in (10.0, 20.0, 30.0)
    ]
    rivals = [dataclasses.replace(estimate, T_reference_camera={0: np.eye(4), 1: T}) for T in turned]
    found = verification.candidates(Scripted(estimate, *rivals), asked, Control(), 2)
    assert len(found) == 3


def test_the_search_for_rivals_goes_past_the_same_answer(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    T = rigid.make(rotations.so3_exp([0.0, 0.5, 0.0]), estimate.T_reference_target[:3, 3])
    rival = dataclasses.replace(estimate, T_reference_camera={0: np.eye(4), 1: T})
    assert len(verification.candidates(Scripted(estimate, estimate, rival), asked, Control(), 1)) == 3
    assert len(verification.candidates(Scripted(*[estimate] * 9), asked, Control(), 1)) == 3  # and it ends


def test_same_answer(scene: tuple[Problem, Estimate]) -> None:
    _, estimate = scene

    def turned(rotvec_deg: list[float], t: np.ndarray | None = None, **known: object) -> Estimate:
        T = estimate.T_reference_target
        R = rotations.so3_exp(np.radians(rotvec_deg)) @ T[:3, :3]
        cameras = {0: np.eye(4), 1: rigid.make(R, T[:3, 3] if t is None else t)}
        return dataclasses.replace(estimate, T_reference_camera=cameras, **known)

    t = estimate.T_reference_target[:3, 3]
    assert same_answer(estimate, estimate)
    assert same_answer(estimate, turned([0.0, 2.5, 0.0]))
    assert not same_answer(estimate, turned([0.0, 3.5, 0.0]))
    assert same_answer(estimate, turned([0.0, 0.0, 0.0], 5.0 * t))  # up to scale
    assert not same_answer(estimate, turned([0.0, 0.0, 0.0], -t))  # the sign counts
    assert same_answer(estimate, turned([0.0, 0.0, 0.0], np.zeros(3), translation_defined=False))


# --- the verdict


def evidence_of(tracks: int = 100, **features: float) -> Evidence:
    return blank_evidence(
        tracks=tracks,
        features={
            "rival_patches": 0.0,
            "agreement": 0.9,
            "log_patches": 3.0,
            "parallax_deg": 20.0,
            **features,
        },
        reference_view_id="v0",
        target_view_id="v1",
    )


@pytest.mark.parametrize(
    ("evidence", "sigma_deg", "believed", "reason"),
    [
        (evidence_of(), 0.1, 0.95, Reason.NONE),
        (evidence_of(), 0.1, 0.9, Reason.NONE),
        (evidence_of(), 0.1, 0.89, Reason.LOW_PROBABILITY),
        (evidence_of(19), 0.1, 1.0, Reason.WEAK_BRIDGE),
        (evidence_of(20), 0.1, 1.0, Reason.NONE),
        (evidence_of(), 2.1, 1.0, Reason.LOW_PARALLAX),
        (evidence_of(), 1.9, 1.0, Reason.NONE),
        (evidence_of(rival_patches=0.7), 0.1, 0.5, Reason.AMBIGUOUS),
        (evidence_of(rival_patches=0.7), 0.1, 0.95, Reason.NONE),
        (evidence_of(agreement=0.3), 0.1, 0.5, Reason.INCONSISTENT),
        (evidence_of(agreement=0.24), 0.1, 0.99, Reason.INCONSISTENT),  # however probable
        (evidence_of(agreement=0.26), 0.1, 0.99, Reason.NONE),
        (evidence_of(parallax_deg=86.0), 0.1, 0.99, Reason.INCONSISTENT),
        (evidence_of(parallax_deg=84.0), 0.1, 0.99, Reason.NONE),
    ],
)
def test_why_an_estimate_is_not_believed(
    scene: tuple[Problem, Estimate],
    monkeypatch: pytest.MonkeyPatch,
    evidence: Evidence,
    sigma_deg: float,
    believed: float,
    reason: Reason,
) -> None:
    monkeypatch.setattr(verification, "probability", lambda evidence, estimator: believed)
    _, estimate = scene
    covariance = np.radians(sigma_deg) ** 2 * np.eye(18)
    verdict = judge(
        dataclasses.replace(estimate, joint_covariance=covariance), evidence, VerificationConfig(), 0.9
    )
    assert verdict.reason is reason
    assert verdict.probability == believed
    assert bool(verdict.text) == (reason is not Reason.NONE)


def test_how_sure_is_the_callers_to_say(
    scene: tuple[Problem, Estimate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "probability", lambda evidence, estimator: 0.8)
    _, estimate = scene
    reasons = [judge(estimate, evidence_of(), VerificationConfig(), asked).reason for asked in (0.7, 0.81)]
    assert reasons == [Reason.NONE, Reason.LOW_PROBABILITY]


# --- the model


@pytest.mark.parametrize("estimator", WRONG_SHARE)
def test_the_model_reads_evidence_that_is_there(scene: tuple[Problem, Estimate], estimator: str) -> None:
    asked, estimate = scene
    evidence = gather(asked, estimate)
    model = json.loads(verification.MODEL_FILE.read_text())["estimators"][estimator]
    assert set(model["weights"]) <= set(evidence.features)
    assert all(model["std"][name] > 0 for name in model["weights"])
    for factor in (-1e6, 0.0, 1.0, 1e6):  # far from all that it was fitted on
        extreme = {name: factor * (value + 1) for name, value in evidence.features.items()}
        unheard_of = dataclasses.replace(evidence, features=extreme)
        assert 0.0 <= verification.probability(unheard_of, estimator) <= 1.0


@pytest.mark.parametrize("estimator", WRONG_SHARE)
@pytest.mark.parametrize(("name", "sign"), SIGN.items())
def test_more_evidence_is_never_held_against_an_answer(
    scene: tuple[Problem, Estimate], estimator: str, name: str, sign: int
) -> None:
    asked, estimate = scene
    evidence = gather(asked, estimate)
    believed = [
        verification.probability(
            dataclasses.replace(evidence, features={**evidence.features, name: value}), estimator
        )
        for value in np.linspace(-3, 10, 14)
    ]
    assert (sign * np.diff(believed) >= 0).all()


def test_nothing_speaks_for_an_answer_with_no_evidence(scene: tuple[Problem, Estimate]) -> None:
    asked, estimate = scene
    evidence = gather(asked, estimate)
    poor = {name: 0.0 if sign > 0 else 5.0 for name, sign in SIGN.items()}
    for estimator in WRONG_SHARE:
        weak = dataclasses.replace(evidence, features={**evidence.features, **poor})
        assert verification.probability(weak, estimator) < 0.5


# --- rigid sides


def test_odometry_leaves_only_the_gap(scene: tuple[Problem, Estimate]) -> None:
    """A side that its own tracks hardly hold together is held by odometry."""
    asked, estimate = scene
    tracks = estimate.tracks
    lonely = tracks.where((tracks.view != 2) | (tracks.point % 20 == 0))
    loose = dataclasses.replace(estimate, tracks=lonely)
    rigid_sides = dataclasses.replace(loose, rigid_sides=True)
    sides = asked.sides
    free, held = weakest_cut(loose, sides), weakest_cut(rigid_sides, sides)
    assert len(held.points) >= len(free.points)
    np.testing.assert_array_equal(held.target_side, np.array(sides) == 1)
    evidence = gather(asked, rigid_sides)
    np.testing.assert_array_equal(evidence.points, estimate.points[held.points])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Witnesses(denied=0, confirmed=0), Reason.NONE),
        (Witnesses(denied=1, confirmed=2), Reason.INCONSISTENT),
        (Witnesses(denied=1, confirmed=3), Reason.NONE),
        (Witnesses(denied=2, confirmed=3), Reason.INCONSISTENT),
    ],
)
def test_pictures_that_should_show_something_and_do_not(
    scene: tuple[Problem, Estimate], monkeypatch: pytest.MonkeyPatch, said: Witnesses, reason: Reason
) -> None:
    monkeypatch.setattr(verification, "probability", lambda evidence, estimator: 0.99)
    _, estimate = scene
    sure = dataclasses.replace(estimate, joint_covariance=1e-8 * np.eye(18), witnesses=said)
    assert judge(sure, evidence_of(), VerificationConfig(), 0.9).reason is reason
