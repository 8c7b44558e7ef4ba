# SPDX-License-Identifier: Apache-2.0
"""The generated rung: what becomes a hypothesis, and what speaks against one; with models that are told."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pose_bridge.config import Config, GeneratedConfig, LtxConfig, VggtConfig
from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, CancelledError, ModelError, NoEstimateError, OutOfMemoryError
from pose_bridge.estimators.base import DepthGuess, Guess
from pose_bridge.generated import GeneratedRung, Models
from pose_bridge.generators.base import Take, Video
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import (
    Answer,
    Origin,
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

CAMERA = Camera.from_focal_px(60.0, 96, 72)
FRAMES = 7
UNIT_M = 2.5  # of the network's
R_BASE_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
T_ODOM_MAP = rigid.make(rotations.so3_exp([0.0, 0.0, 0.7]), [4.0, 1.0, 0.0])


def standing(x_m: float, y_m: float, yaw_deg: float) -> np.ndarray:
    return rigid.make(rotations.so3_exp([0.0, 0.0, np.radians(yaw_deg)]) @ R_BASE_CAMERA, [x_m, y_m, 0.6])


PLACES = {
    "reference": standing(0.0, 0.0, 0.0),
    "target": standing(1.5, 0.8, 75.0),
    "r1": standing(-0.4, 0.1, 5.0),
    "r2": standing(0.1, -0.5, -6.0),
    "t1": standing(1.9, 0.7, 80.0),
}
T_TRUE = rigid.relative(PLACES["reference"], PLACES["target"])


def view(name: str, seed: int = 0, posed: bool = False, **known: object) -> View:
    image = np.random.default_rng([seed, *name.encode()]).integers(0, 256, (72, 96, 3)).astype(np.uint8)
    T_side = T_ODOM_MAP if name.startswith("t") else np.eye(4)
    pose = {"T_side_camera": T_side @ PLACES[name]} if posed else {}
    return View(id=name, image=image, camera=CAMERA, **{**pose, **known})


def question(posed: bool = False, **more: object) -> Question:
    asked: dict[str, object] = {
        "reference": view("reference", posed=posed),
        "target": view("target", posed=posed),
        "allow_hypothesis": True,
    }
    if posed:
        asked |= {
            "reference_context": (view("r1", posed=True), view("r2", posed=True)),
            "target_context": (view("t1", posed=True),),
            "upright": True,
            "common_ground": True,
        }
    return Question(**{**asked, **more})  # type: ignore[arg-type]


class Film:
    """Makes videos at once; tells what it was asked for."""

    name = "film"
    prompts = ("walk", "turn")

    def __init__(self, happens: Callable[[int], str] = lambda number: "") -> None:
        self.takes: list[Take] = []
        self._happens = happens

    def video(self, reference: View, target: View, take: Take, control: Control) -> Video:
        control.check()
        self.takes.append(take)
        number = len(self.takes)
        happens = self._happens(number)
        if happens == "memory":
            raise OutOfMemoryError("too large")
        if happens:
            return Video((), happens)
        views = tuple(
            dataclasses.replace(
                view(f"g{number}_{frame}"),
                generated=Origin(
                    model="film", prompt="walk", seed=take.seed, reversed=take.reversed, frame=frame
                ),
            )
            for frame in range(1, FRAMES - 1)
        )
        return Video(views)


class Oracle:
    """Knows where real views are, in a unit of its own, and errs as it is told."""

    name = "oracle"

    def __init__(
        self,
        off_deg: Callable[[Sequence[View]], float] = lambda views: 0.0,
        ratio: float = 1.0,
        turned: str = "",
    ) -> None:
        self.sets: list[tuple[str, ...]] = []
        self._off_deg, self._ratio, self._turned = off_deg, ratio, turned

    def estimate_many(
        self, sets: Sequence[Sequence[View]], control: Control, depth: bool = False
    ) -> list[Guess]:
        control.check()
        self.sets += [tuple(view.id for view in views) for views in sets]
        return [self._guess(views, depth) for views in sets]

    def _guess(self, views: Sequence[View], depth: bool) -> Guess:
        off = rotations.so3_exp([0.0, np.radians(self._off_deg(views)), 0.0])
        cameras = {}
        for seen in views:
            T = rigid.relative(PLACES[views[0].id], PLACES.get(seen.id, PLACES["reference"]))
            R = off @ T[:3, :3] if seen.id.startswith("t") else T[:3, :3]
            if seen.id == self._turned:
                R = rotations.so3_exp([0.0, 0.5, 0.0]) @ R
            cameras[seen.id] = rigid.make(R, T[:3, 3] / UNIT_M)
        depths = {
            seen.id: DepthGuess(
                CAMERA, np.full((72, 96), 3.0 / UNIT_M, np.float32), np.ones((72, 96), np.float32)
            )
            for seen in views
        }
        return Guess(cameras, {seen.id: self._ratio for seen in views}, depths if depth else {})


def rung(film: Film | None = None, oracle: Oracle | None = None, **settings: object) -> GeneratedRung:
    config = Config(generated=GeneratedConfig(**settings))  # type: ignore[arg-type]
    return GeneratedRung(config, lambda _: Models(film or Film(), oracle or Oracle()))


def assert_none(answer: Answer, reason: Reason, words: str) -> None:
    assert (answer.status, answer.reason, answer.stage) == (Status.REJECTED, reason, Stage.GENERATED)
    assert words in answer.reason_text
    with pytest.raises(NoEstimateError):
        _ = answer.rotation


def test_agreement_is_a_hypothesis_and_never_more() -> None:
    film, oracle = Film(), Oracle()
    answer = rung(film, oracle).answer(question(), Control())
    assert answer.status is Status.HYPOTHESIS
    assert not answer.accepted
    assert np.isnan(answer.probability)
    assert (answer.stage, answer.estimator, answer.generator) == (Stage.GENERATED, "oracle", "film")
    assert (answer.real_frames, answer.generated_frames) == (2, 4 * (FRAMES - 2))
    assert answer.translation is Translation.DIRECTION
    assert answer.scale_source is ScaleSource.NONE
    assert distances.rotation_error_deg(answer.rotation, T_TRUE[:3, :3]) < 1e-5
    assert distances.translation_error_deg(answer.direction, T_TRUE[:3, 3]) < 1e-5
    assert "no match between real pictures" in answer.reason_text
    assert [(take.prompt, take.reversed) for take in film.takes] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    assert oracle.sets[0] == ("reference", "target")
    assert all(names[0] == "reference" and names[-1] == "target" for names in oracle.sets[1:-1])
    assert {len(names) for names in oracle.sets[1:]} == {5}


def test_odometry_gives_metres() -> None:
    oracle = Oracle()
    answer = rung(oracle=oracle).answer(question(posed=True), Control())
    assert answer.status is Status.HYPOTHESIS
    assert answer.translation is Translation.METRIC
    assert answer.scale_source is ScaleSource.ODOMETRY
    np.testing.assert_allclose(answer.T_reference_target, T_TRUE, atol=1e-6)
    assert np.linalg.eigvalsh(answer.covariance)[0] > 0
    assert 0.05 < answer.scale_sigma < 0.2
    assert answer.real_frames == 5
    assert {"r1", "r2", "t1"} <= set(oracle.sets[-1])


def test_so_does_depth() -> None:
    depth_m = np.full((72, 96), 3.0, np.float32)
    answer = rung().answer(question(target=view("target", depth_m=depth_m)), Control())
    assert answer.scale_source is ScaleSource.DEPTH
    np.testing.assert_allclose(answer.T_reference_target, T_TRUE, atol=1e-6)


def test_the_same_seed_asks_the_same() -> None:
    def asked(seed: int) -> tuple[list[Take], list[tuple[str, ...]]]:
        film, oracle = Film(), Oracle()
        rung(film, oracle).answer(question(seed=seed), Control())
        return film.takes, oracle.sets

    assert asked(3) == asked(3)
    assert asked(3) != asked(4)
    assert asked(2**64 - 1)


def test_the_covariance_is_how_far_parts_are_apart() -> None:
    """In the chosen video: the answer itself moves by no more than it says."""
    rng = np.random.default_rng(0)
    answer = rung(oracle=Oracle(lambda views: rng.normal(0.0, 5.0) if len(views) == 5 else 0.0)).answer(
        question(), Control()
    )
    assert answer.status is Status.HYPOTHESIS
    assert 2.0 < np.degrees(answer.rotation_sigma_rad) < 12.0


def test_videos_that_disagree_with_themselves() -> None:
    rng = np.random.default_rng(0)
    wild = Oracle(lambda views: rng.uniform(-90.0, 90.0) if len(views) == 5 else 0.0)
    assert_none(rung(oracle=wild).answer(question(), Control()), Reason.INCONSISTENT, "disagree by")


def test_a_video_with_a_fault_is_dropped() -> None:
    answer = rung(Film(lambda number: "blank" if number < 4 else "")).answer(question(), Control())
    assert answer.status is Status.HYPOTHESIS
    assert answer.generated_frames == FRAMES - 2
    assert "video 1 of 1" in answer.reason_text


def test_no_video_at_all() -> None:
    answer = rung(Film(lambda number: f"fault {number}")).answer(question(), Control())
    assert_none(answer, Reason.WEAK_BRIDGE, "fault 1")


def test_out_of_memory_leaves_fewer_videos() -> None:
    film = Film(lambda number: "memory" if number == 3 else "")
    answer = rung(film).answer(question(), Control())
    assert answer.status is Status.HYPOTHESIS
    assert len(film.takes) == 3
    assert answer.generated_frames == 2 * (FRAMES - 2)
    assert_none(rung(Film(lambda _: "memory")).answer(question(), Control()), Reason.WEAK_BRIDGE, "too large")


def test_no_video_is_begun_that_there_is_no_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = iter(np.arange(0.0, 1e6, 10.0))
    monkeypatch.setattr("pose_bridge.generated.time.monotonic", lambda: next(clock_s))
    monkeypatch.setattr(Control, "remaining_s", 11.0)
    film = Film()
    answer = rung(film).answer(question(), Control())
    assert answer.status is Status.HYPOTHESIS
    assert len(film.takes) == 1  # it seemed to take 10 s


def test_a_focal_length_that_nobody_has() -> None:
    assert_none(
        rung(oracle=Oracle(ratio=1.6)).answer(question(), Control()), Reason.INCONSISTENT, "1.60 times"
    )


@pytest.mark.parametrize("turned", ["r1", "t1"])
def test_odometry_objects(turned: str) -> None:
    answer = rung(oracle=Oracle(turned=turned)).answer(question(posed=True), Control())
    assert_none(answer, Reason.ODOMETRY_CONFLICT, turned)


def test_real_views_around_the_target_object() -> None:
    moved = Oracle(lambda views: 40.0 if len(views) == 8 else 0.0)
    assert_none(rung(oracle=moved).answer(question(posed=True), Control()), Reason.INCONSISTENT, "elsewhere")


def test_gravity_and_prior_object() -> None:
    fallen = question(posed=True)
    tilted = dataclasses.replace(
        fallen.target,
        T_side_camera=rigid.make(rotations.so3_exp([0.6, 0.0, 0.0]), np.zeros(3))
        @ fallen.target.T_side_camera,
    )
    asked = dataclasses.replace(fallen, target=tilted, target_context=())
    assert_none(rung().answer(asked, Control()), Reason.GRAVITY_CONFLICT, "tilted")
    elsewhere = Prior(T_reference_target=np.linalg.inv(T_TRUE), covariance=1e-4 * np.eye(6))
    answer = rung().answer(question(prior=elsewhere), Control())
    assert_none(answer, Reason.ODOMETRY_CONFLICT, "prior")


def test_sources_of_metres_that_contradict_each_other() -> None:
    far = question(posed=True)
    T_long = far.target_context[0].T_side_camera.copy()
    T_long[:3, 3] = far.target.T_side_camera[:3, 3] + 9.0 * (T_long[:3, 3] - far.target.T_side_camera[:3, 3])
    stretched = dataclasses.replace(far.target_context[0], T_side_camera=T_long)
    answer = rung().answer(dataclasses.replace(far, target_context=(stretched,)), Control())
    assert_none(answer, Reason.SCALE_CONFLICT, "differ by a factor")


def test_a_guesser_that_gives_up() -> None:
    class Mute(Oracle):
        def estimate_many(self, *_: object, **__: object) -> list[Guess]:
            raise NoEstimateError("a field of view of 0 degrees")

    assert_none(rung(oracle=Mute()).answer(question(), Control()), Reason.WEAK_BRIDGE, "field of view")


def test_whom_it_serves() -> None:
    served = rung()
    assert served.serves(question())
    assert not served.serves(question(allow_hypothesis=False))
    assert not served.serves(question(max_stage=Stage.CONTEXT))
    assert not served.serves(crowd(allow_hypothesis=False))  # nobody waits for models who did not ask
    served.load()
    assert served.serves(crowd(allow_hypothesis=False))
    assert not rung(guesses=1).serves(crowd(allow_hypothesis=False))
    assert not GeneratedRung.configured(Config())
    assert not GeneratedRung.configured(Config(vggt=VggtConfig(weights="w")))
    assert GeneratedRung.configured(Config(vggt=VggtConfig(weights="w"), ltx=LtxConfig(weights="w")))


def test_models_are_loaded_once_and_waited_for() -> None:
    begun, go_on = threading.Event(), threading.Event()
    loads = []

    def slowly(config: Config) -> Models:
        loads.append(config)
        begun.set()
        assert go_on.wait(10.0)
        return Models(Film(), Oracle())

    waits = GeneratedRung(Config(), slowly)
    loading = threading.Thread(target=waits.load)
    loading.start()
    assert begun.wait(10.0)
    late, gone = Control(), threading.Event()
    late.start(0.2)
    with pytest.raises(BudgetSpentError):
        waits.answer(question(), late)
    gone.set()
    with pytest.raises(CancelledError):
        waits.answer(question(), Control(gone))
    go_on.set()
    loading.join(10.0)
    assert waits.answer(question(), Control()).status is Status.HYPOTHESIS
    assert len(loads) == 1


def test_missing_weights_are_an_error_each_time_and_looked_for_once() -> None:
    loads = []

    def nothing(config: Config) -> Models:
        loads.append(config)
        raise ModelError("no weights")

    missing = GeneratedRung(Config(), nothing)
    for _ in range(2):
        with pytest.raises(ModelError, match="no weights"):
            missing.answer(question(), Control())
    assert len(loads) == 1


class Mirrored(Oracle):
    """Has the target on the other side in every second part of a video."""

    parts = 0

    def _guess(self, views: Sequence[View], depth: bool) -> Guess:
        found = super()._guess(views, depth)
        self.parts += len(views) == 5
        if len(views) == 5 and self.parts % 2:
            found.T_reference_camera["target"][:3, 3] *= -1.0
        return found


def test_the_opposite_way_is_not_the_same_way() -> None:
    """Though the paper's distance takes it for that."""
    answer = rung(oracle=Mirrored()).answer(question(), Control())
    assert_none(answer, Reason.WEAK_BRIDGE, "the opposite way")


def test_time_that_runs_out_leaves_what_is_done() -> None:
    """The second of several guesses is cut off."""

    class Slow(Film):
        def video(self, reference: View, target: View, take: Take, control: Control) -> Video:
            if reference.id != "reference":
                raise BudgetSpentError("the time is up")
            return super().video(reference, target, take, control)

    answer = rung(Slow()).answer(crowd(), Control())
    assert answer.status is Status.HYPOTHESIS
    refused = rung(Slow()).answer(crowd(allow_hypothesis=False), Control())
    assert_none(refused, Reason.WEAK_BRIDGE, "1 of 1 guesses from different real views agree")


def test_a_guess_about_another_pair_is_better_than_none() -> None:
    class Blind(Film):
        def video(self, reference: View, target: View, take: Take, control: Control) -> Video:
            if reference.id == "reference":
                return Video((), "blank")
            return super().video(reference, target, take, control)

    answer = rung(Blind(), guesses=3).answer(crowd(), Control())
    assert answer.status is Status.HYPOTHESIS
    np.testing.assert_allclose(answer.T_reference_target[:3, 3], T_TRUE[:3, 3], atol=0.05)


def test_metres_that_were_asked_for_and_are_not_there() -> None:
    answer = rung().answer(question(require=Require.METRIC), Control())
    assert (answer.status, answer.reason) == (Status.HYPOTHESIS, Reason.NO_SCALE)
    assert "there is no depth" in answer.reason_text


def crowd(**more: object) -> Question:
    """Ten posed views on either side."""
    asked = question(posed=True)
    for side, name, end in (("reference", "r", "reference"), ("target", "t", "target")):
        T_side = T_ODOM_MAP if name == "t" else np.eye(4)
        context = []
        for number in range(3, 12):
            T = PLACES[end] @ rigid.make(np.eye(3), [0.3 * number, 0.0, 0.1])
            PLACES.setdefault(f"{name}{number}", T)
            context.append(dataclasses.replace(view(f"{name}{number}"), T_side_camera=T_side @ T))
        asked = dataclasses.replace(asked, **{f"{side}_context": tuple(context)})
    return dataclasses.replace(asked, **more)


def assert_disjoint(oracle: Oracle, guesses: int) -> None:
    pairs = [set(names) for names in oracle.sets if len(names) == 2]
    assert len(pairs) == guesses
    assert len(set.union(*pairs)) == 2 * guesses


@pytest.mark.parametrize("allow_hypothesis", [True, False])
def test_guesses_from_different_views_that_agree_are_an_answer(allow_hypothesis: bool) -> None:
    oracle = Oracle()
    answer = rung(oracle=oracle).answer(crowd(allow_hypothesis=allow_hypothesis), Control())
    assert answer.accepted
    assert (answer.stage, answer.agreeing) == (Stage.GENERATED, 3)
    assert 0.8 < answer.probability < 0.9
    assert distances.rotation_error_deg(answer.rotation, T_TRUE[:3, :3]) < 1e-4
    np.testing.assert_allclose(answer.T_reference_target[:3, 3], T_TRUE[:3, 3], atol=0.05)
    assert_disjoint(oracle, 3)


def by_target(*off_deg: float) -> Callable[[Sequence[View]], float]:
    """How far a guess is off, by the target it is about, in the order in which they come."""
    seen: list[str] = []

    def off(views: Sequence[View]) -> float:
        target = next(v.id for v in views if v.id.startswith("t"))
        if target not in seen:
            seen.append(target)
        return off_deg[seen.index(target) % len(off_deg)]

    return off


def test_guesses_that_do_not_agree_are_none() -> None:
    scattered = by_target(0.0, 50.0, 100.0, 150.0)
    answer = rung(oracle=Oracle(scattered)).answer(crowd(allow_hypothesis=False), Control())
    assert_none(answer, Reason.WEAK_BRIDGE, "1 of 3 guesses from different real views agree")
    oracle = Oracle(by_target(0.0, 50.0, 100.0, 150.0))
    answer = rung(oracle=oracle).answer(crowd(), Control())
    assert answer.status is Status.HYPOTHESIS
    assert answer.agreeing == 0
    assert_disjoint(oracle, 3)  # the fourth could not have made three


def test_guesses_go_on_where_one_is_wanted_and_none_came_yet() -> None:
    class Blind(Film):
        def video(self, reference: View, target: View, take: Take, control: Control) -> Video:
            if len(oracle.sets) <= 3:  # each guess begins with the two views
                return Video((), "blank")
            return super().video(reference, target, take, control)

    oracle = Oracle()
    answer = rung(Blind(), oracle=oracle).answer(crowd(), Control())
    assert answer.status is Status.HYPOTHESIS
    assert_disjoint(oracle, 4)
    oracle = Oracle()
    refused = rung(Blind(), oracle=oracle).answer(crowd(allow_hypothesis=False), Control())
    assert refused.reason is Reason.WEAK_BRIDGE
    assert_disjoint(oracle, 2)


def test_three_of_four_are_enough_if_probability_allows() -> None:
    answer = rung(oracle=Oracle(by_target(0.0, 70.0, 0.0, 0.0))).answer(crowd(), Control())
    assert (answer.status, answer.agreeing) == (Status.ACCEPTED, 3)
    surer = crowd(min_probability=0.95)
    assert rung().answer(surer, Control()).status is Status.HYPOTHESIS


def test_what_guesses_agree_on_may_not_contradict_a_prior() -> None:
    elsewhere = Prior(T_reference_target=np.linalg.inv(T_TRUE), covariance=1e-4 * np.eye(6))
    answer = rung().answer(crowd(prior=elsewhere, min_probability=0.5), Control())
    assert_none(answer, Reason.ODOMETRY_CONFLICT, "prior")


def test_no_guess_is_begun_that_there_is_no_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = iter(np.arange(0.0, 1e6, 1.0))
    monkeypatch.setattr("pose_bridge.generated.time.monotonic", lambda: next(clock_s))
    monkeypatch.setattr(Control, "remaining_s", 5.0)
    oracle = Oracle()
    answer = rung(oracle=oracle).answer(crowd(), Control())
    assert answer.status is Status.HYPOTHESIS
    assert_disjoint(oracle, 1)
