# SPDX-License-Identifier: Apache-2.0
"""The search for a robot, with a bridge that knows where everything is, and lies where it is told to."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import robot_world
from robot_world import COVARIANCE, MAP, SEEN, T_BASE_CAMERA, T_MAP_ODOM, Oracle, keyframe, standing

from pose_bridge.config import Config, RelocalizeConfig
from pose_bridge.control import Control
from pose_bridge.errors import AmbiguousError, CancelledError, NeedMotionError, NotLocalizedError
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import rigid, rotations, uncertainty
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.retrieval import Retriever
from pose_bridge.relocalization import Advice, Attempt, Search, State, in_map
from pose_bridge.views import Answer, Question, Reason, Require, Stage


def search(bridge: Oracle, views: list[Keyframe] | None = None, **more: object) -> Search:
    config = Config(relocalize=RelocalizeConfig(**more.pop("settings", {})))
    seen = SEEN if views is None else views
    retriever = Retriever(FeatureStore(config.features, config.views), config.keyframes)
    return Search(config=config, bridge=bridge, retriever=retriever, map=MAP, views=lambda: seen, **more)


def assert_right(found: object) -> None:
    np.testing.assert_allclose(found.best.T_map_odom, T_MAP_ODOM, atol=1e-6)
    T_true = T_MAP_ODOM @ found.best.view.T_odom_base
    np.testing.assert_allclose(found.best.T_map_base, T_true, atol=1e-6)


ONE_BY_ONE = {"views": 1}  # each picture is an attempt of its own


def test_all_pictures_are_asked_about_at_once() -> None:
    bridge = Oracle()
    found = search(bridge).run(Control())
    assert_right(found)
    (question,) = bridge.asked
    assert {question.target.id, *(view.id for view in question.target_context)} == {view.id for view in SEEN}
    assert {question.reference.id, *(view.id for view in question.reference_context)} == {p.id for p in MAP}
    assert question.require is Require.METRIC
    assert question.min_stage is Stage.CONTEXT
    assert question.upright
    assert question.common_ground
    assert question.mapped
    assert found.keyframe_ids == tuple(sorted(place.id for place in MAP))


@pytest.mark.parametrize("agreeing", [1, 2, 3])
def test_as_many_things_as_asked_for(agreeing: int) -> None:
    bridge = Oracle()
    found = search(bridge, settings={"min_agreeing": agreeing, **ONE_BY_ONE}).run(Control())
    assert_right(found)
    assert len(found.attempts) == len({question.target.id for question in bridge.asked}) == agreeing
    names = [name for attempt in found.attempts for name in attempt.view_ids]
    assert len(set(names)) == len(names)  # no picture confirms itself


def test_pictures_that_hardly_anything_ties_do_not_count() -> None:
    bridge = Oracle(ties=lambda name: 20 if name == "v0" else 7)
    with pytest.raises(NeedMotionError, match="confirm") as raised:
        search(bridge).run(Control())
    (hypothesis,) = raised.value.hypotheses
    assert hypothesis.agreeing(RelocalizeConfig()) == 1
    assert_right(hypothesis)


def test_asked_again_from_where_the_sides_are_tied_best() -> None:
    """What odometry adds up on the way from there may be more than an answer may be uncertain."""

    class Far(Oracle):
        def answer(self, question: Question, control: Control | None = None) -> Answer:
            found = super().answer(question, control)
            if question.target.id == "v5":
                return found
            tied = dataclasses.replace(found.evidence, target_view_id="v5", reference_view_id="m3")
            return Answer.rejected(Reason.LOW_PARALLAX, "far from v5", stage=Stage.CONTEXT, evidence=tied)

    bridge = Far()
    found = search(bridge).run(Control())
    assert_right(found)
    first, second = bridge.asked
    assert (second.reference.id, second.target.id) == ("m3", "v5")
    for side in ("reference", "target"):
        views = [
            {getattr(asked, side).id, *(view.id for view in getattr(asked, f"{side}_context"))}
            for asked in (first, second)
        ]
        assert views[0] == views[1]


def test_one_is_not_enough() -> None:
    with pytest.raises(NeedMotionError, match="confirm") as raised:
        search(Oracle(), SEEN[:1]).run(Control())
    assert len(raised.value.hypotheses) == 1
    assert_right(raised.value.hypotheses[0])


def test_nothing_found() -> None:
    bridge = Oracle(blind=lambda _: True)
    with pytest.raises(NotLocalizedError) as raised:
        search(bridge).run(Control())
    assert not isinstance(raised.value, NeedMotionError | AmbiguousError)
    assert raised.value.hypotheses == ()
    (question,) = bridge.asked
    assert len(question.target_context) == len(SEEN) - 1  # all had a turn


def test_a_picture_that_no_place_looks_like_does_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Oracle()
    searching = search(bridge, settings=ONE_BY_ONE)
    newest, places = SEEN[0].id, searching._places
    monkeypatch.setattr(
        searching, "_places", lambda views, c: [] if views[0].id == newest else places(views, c)
    )
    assert_right(searching.run(Control()))
    assert newest not in {question.target.id for question in bridge.asked}


AWAY = rigid.make(np.eye(3), [2.0, 0.0, 0.0])


def test_one_lie_is_outvoted() -> None:
    searching = search(Oracle(), settings=ONE_BY_ONE)
    searching.attempts.append(lie("v0"))
    found = searching.run(Control())
    assert_right(found)
    assert len(found.attempts) == 3  # a rival asks for one more
    assert len(searching.hypotheses()) == 2


def lie(name: str, T_away: np.ndarray = AWAY) -> Attempt:
    """An attempt that is wrong, made before the search begins."""
    view = next(view for view in SEEN if view.id == name)
    wrong = search(Oracle({name: T_away}), [view], settings={"min_agreeing": 1}).run(Control())
    return wrong.best


def test_places_that_contradict_each_other_are_never_averaged() -> None:
    searching = search(Oracle(blind=lambda _: True))
    searching.attempts += [lie("v0"), lie("v1", np.eye(4))]
    with pytest.raises(AmbiguousError) as raised:
        searching.run(Control())
    first, second = raised.value.hypotheses
    assert len(first.attempts) == len(second.attempts) == 1
    for T in (T_MAP_ODOM, AWAY @ T_MAP_ODOM):
        assert min(np.abs(h.best.T_map_odom - T).max() for h in (first, second)) < 1e-6


def test_agreement_is_where_the_robot_is_not_at_the_origin_of_odometry() -> None:
    """A small turn far away from the origin is no small shift."""
    T = rigid.make(rotations.so3_exp([0.0, 0.0, np.radians(4.0)]), np.zeros(3))
    about = T_MAP_ODOM @ SEEN[3].T_odom_base
    slightly = about @ T @ rigid.inverse(about)
    found = search(Oracle({f"v{i}": slightly for i in range(4)}), settings=ONE_BY_ONE).run(Control())
    assert len(found.attempts) >= 2


def test_pictures_of_the_same_thing_do_not_confirm_each_other() -> None:
    """All of them would take a piece of furniture for its twin."""
    staring = [keyframe(f"s{i}", 40 + i, 1, standing(2.0, 2.0 + 0.1 * i, 4.0 * i), False) for i in range(6)]
    for settings in (ONE_BY_ONE, {}):  # one after the other, and all at once
        with pytest.raises(NeedMotionError, match="confirm") as raised:
            search(Oracle(), staring, settings=settings).run(Control())
        (hypothesis,) = raised.value.hypotheses
        assert hypothesis.agreeing(RelocalizeConfig()) == 1
        elsewhere = keyframe("e", 50, 1, standing(2.0, 2.0, 60.0), False)
        found = search(Oracle(), [*staring, elsewhere], settings=settings).run(Control())
        assert found.agreeing(RelocalizeConfig()) == 2


@pytest.mark.parametrize(("agreeing", "extent_m"), [(1, None), (2, 0.0)])
def test_only_who_asks_for_two_things_takes_one_that_may_have_a_twin(
    agreeing: int, extent_m: float | None
) -> None:
    question = search(Oracle(), settings={"min_agreeing": agreeing}).next_question(Control())
    assert question is not None
    assert question.min_extent_m == extent_m


def test_a_place_that_is_hardly_known_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot_world, "COVARIANCE", np.diag([0.6**2] * 3 + [0.005**2] * 3))
    with pytest.raises(NotLocalizedError):
        search(Oracle()).run(Control())


def test_the_next_attempt_is_where_the_first_one_says() -> None:
    """Places that the pictures would show if the first attempt were right."""
    bridge = Oracle()
    search(bridge, settings={"min_agreeing": 3, "places": 3, **ONE_BY_ONE}).run(Control())
    first, again, second, *_ = bridge.asked
    assert again.target.id == first.target.id  # for more, once
    T_map_target = T_MAP_ODOM @ second.target.T_side_camera
    ahead = {place.id: place.T_map_camera[:3, 2] @ T_map_target[:3, 2] for place in MAP}
    assert len(second.reference_context) == 2
    assert ahead[second.reference.id] > np.median(list(ahead.values()))


def test_pictures_that_are_too_small_are_no_search() -> None:
    small = [
        dataclasses.replace(view, image=view.image[:16, :16], camera=view.camera.resize(16, 16))
        for view in SEEN
    ]
    bridge = Oracle()
    with pytest.raises(NotLocalizedError, match="every picture was tried"):
        search(bridge, small, settings={"places": 2}).run(Control())
    assert bridge.asked == []


def test_the_answer_is_about_the_picture_that_is_tied_best() -> None:
    """Odometry may err by degrees on the way to the newest one, even where that was settled at once."""

    class Drifted(Oracle):
        def answer(self, question: Question, control: Control | None = None) -> Answer:
            found = super().answer(question, control)
            tied = dataclasses.replace(found.evidence, target_view_id="v5", reference_view_id="m3")
            return dataclasses.replace(found, evidence=tied)

    bridge = Drifted()
    best = search(bridge).run(Control()).best
    assert (best.view.id, best.question.target.id, best.keyframe.id) == ("v5", "v5", "m0")
    np.testing.assert_allclose(best.T_map_base, T_MAP_ODOM @ best.view.T_odom_base, atol=1e-6)
    T = rigid.relative(best.keyframe.T_map_camera, T_MAP_ODOM @ best.view.T_odom_camera)
    np.testing.assert_allclose(best.answer.T_reference_target, T, atol=1e-6)
    assert len(bridge.asked) == 1


def test_things_count_not_attempts() -> None:
    """Two pictures of one thing do not outvote one picture of two things."""
    searching = search(Oracle())
    right = search(Oracle()).run(Control()).best
    searching.attempts += [lie("v0"), lie("v1"), right]
    first, second = searching.hypotheses()
    assert (len(first.attempts), len(second.attempts)) == (1, 2)
    assert_right(first)


def test_waiting_for_motion() -> None:
    views, said = [SEEN[0]], []

    def wait(seconds: float) -> bool:
        views.insert(0, SEEN[len(views)])
        return True

    found = search(Oracle(), views, wait=wait, on_progress=said.append).run(Control())
    assert_right(found)
    waiting = [progress for progress in said if progress.state is State.WAITING_FOR_MOTION]
    assert waiting
    assert waiting[0].advice is Advice.TURN
    done = [progress.done for progress in said]
    assert done == sorted(done)
    assert all(progress.done <= progress.total or not progress.total for progress in said)


def test_the_budget_ends_waiting() -> None:
    control = Control()
    control.start(3.0)
    pause = threading.Event()
    with pytest.raises(NeedMotionError, match="budget"):
        search(Oracle(), SEEN[:1], wait=lambda s: pause.wait(s)).run(control)


def test_cancel_while_waiting() -> None:
    cancelled = threading.Event()

    def wait(seconds: float) -> bool:
        cancelled.set()
        return False

    with pytest.raises(CancelledError):
        search(Oracle(), SEEN[:1], wait=wait).run(Control(cancelled))


@pytest.mark.parametrize(
    ("yaws_deg", "dark", "advice"),
    [
        ([0], False, Advice.TURN),
        ([0, 30, 60, 90], False, Advice.TURN),
        (range(0, 360, 45), False, Advice.MOVE),
        (range(0, 360, 45), True, Advice.MORE_LIGHT),
        ([], False, Advice.TURN),
    ],
)
def test_advice(yaws_deg: list[int], dark: bool, advice: Advice) -> None:
    views = [keyframe(f"v{yaw}", 1, 1, standing(0, 0, yaw), False) for yaw in yaws_deg]
    assert search(Oracle(), views, poor_light=lambda: dark).advice() is advice


def test_a_prior_says_where_to_look_and_checks() -> None:
    near = SEEN[0]  # the newest, as `views` gives them
    T_map_base = T_MAP_ODOM @ near.T_odom_base
    bridge = Oracle()
    settings = {"prior_reach_m": 2.5, **ONE_BY_ONE}
    found = search(bridge, prior=(T_map_base, COVARIANCE), settings=settings).run(Control())
    assert_right(found)
    for question in bridge.asked:
        names = [question.reference.id, *(view.id for view in question.reference_context)]
        near_m = [np.linalg.norm((p.T_map_base - T_map_base)[:3, 3]) for p in MAP if p.id in names]
        assert max(near_m) < 2.5 + 0.1
        T_true = rigid.relative(question.reference.T_side_camera, T_MAP_ODOM @ question.target.T_side_camera)
        np.testing.assert_allclose(question.prior.T_reference_target, T_true, atol=1e-9)


def test_covariance_of_the_base_in_the_map() -> None:
    """Against Monte Carlo of the house's error model."""
    rng = np.random.default_rng(0)
    covariance = np.diag([0.05, 0.02, 0.03, 0.02, 0.01, 0.03]) ** 2
    T = rigid.relative(MAP[1].T_map_camera, T_MAP_ODOM @ SEEN[2].T_odom_camera)
    answer = dataclasses.replace(
        Oracle().answer(
            Question(reference=MAP[1].view(MAP[1].T_map_camera), target=SEEN[2].view(SEEN[2].T_odom_camera))
        ),
        _T_reference_target=T,
        _covariance=covariance,
    )
    T_map_base, found = in_map(answer, MAP[1], SEEN[2])
    errors = []
    for _ in range(4000):
        dt, dr = np.split(rng.multivariate_normal(np.zeros(6), covariance), 2)
        T_other = rigid.make(rotations.so3_exp(dr) @ T[:3, :3], T[:3, 3] + dt)
        T_base = MAP[1].T_map_camera @ T_other @ rigid.inverse(T_BASE_CAMERA)
        errors.append(uncertainty.error_vector(T_map_base, T_base))
    np.testing.assert_allclose(np.cov(np.array(errors).T), found, atol=0.08 * np.diag(found).max())


class Guesser(Oracle):
    """No real picture ties anything, but guesses say where the robot is."""

    def __init__(self, agreeing: int, lies: dict[str, np.ndarray] | None = None, ties_there: bool = False):
        super().__init__(lies)
        self._agreeing, self._ties_there = agreeing, ties_there

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        found = super().answer(question, control)
        if question.max_stage is Stage.CONTEXT:
            return found if self._ties_there else Answer.rejected(Reason.NO_OVERLAP, "nothing")
        return dataclasses.replace(
            found,
            stage=Stage.GENERATED,
            agreeing=self._agreeing,
            evidence=None,
        )


def test_guesses_that_agree_are_a_place() -> None:
    bridge = Guesser(3)
    found = search(bridge).run(Control())
    assert_right(found)
    assert (found.agreeing(RelocalizeConfig()), found.guesses) == (3, 3)
    assert len(bridge.asked) == 1  # the whole map was looked at already


def test_guesses_say_where_to_look_for_what_really_ties() -> None:
    bridge = Guesser(3, ties_there=True)
    found = search(bridge, settings={"places": 3, "views": 4}).run(Control())
    assert_right(found)
    assert found.best.answer.stage is Stage.CONTEXT  # though guesses may think that they are surer
    assert {attempt.answer.stage for attempt in found.attempts} == {Stage.CONTEXT, Stage.GENERATED}
    guessed, there = bridge.asked[:2]
    assert there.max_stage is Stage.CONTEXT
    assert there.target.id == guessed.target.id
    places = {view.id for view in guessed.sides[0]}
    assert {view.id for view in there.sides[0]} != places


def test_guesses_do_not_deny_what_real_pictures_say() -> None:
    searching = search(Oracle())
    guess = search(Guesser(9, {view.id: AWAY for view in SEEN})).run(Control()).best
    searching.attempts.append(guess)
    assert_right(searching.run(Control()))
    first, second = searching.hypotheses()
    assert (first.guesses, second.guesses) == (0, 9)


def test_guesses_do_not_count_against_the_little_that_was_seen() -> None:
    """Tracks so scattered that they are no thing."""
    searching = search(Oracle(ties=lambda _: 7), settings=ONE_BY_ONE)
    searching.attempts.append(search(Guesser(3, {view.id: AWAY for view in SEEN})).run(Control()).best)
    with pytest.raises(AmbiguousError) as raised:
        searching.run(Control())
    first, second = raised.value.hypotheses[:2]
    assert first.seen
    assert not second.seen
    assert first.agreeing(RelocalizeConfig()) == 0


def test_guesses_deny_guesses() -> None:
    searching = search(Guesser(3))
    searching.attempts.append(search(Guesser(3, {view.id: AWAY for view in SEEN})).run(Control()).best)
    with pytest.raises(AmbiguousError):
        searching.run(Control())
