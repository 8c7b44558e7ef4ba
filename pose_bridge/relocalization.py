# SPDX-License-Identifier: Apache-2.0
"""Where a robot is in its map: bridges from the map to what it sees, until enough of it agrees.

An attempt bridges many places of the map to many pictures of the robot at once, each side held together by
its poses. What counts is how many things tie the two, far apart from each other: a piece of furniture that
stands elsewhere too is one. Attempts with other pictures agree through odometry, or are kept as another
hypothesis; they are never averaged.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import Config, RelocalizeConfig
from pose_bridge.control import Control
from pose_bridge.errors import (
    AmbiguousError,
    BudgetSpentError,
    NeedMotionError,
    NotLocalizedError,
    PoseBridgeError,
)
from pose_bridge.geometry import distances, rigid, uncertainty
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.retrieval import Retriever
from pose_bridge.views import Answer, Prior, Question, Reason, Require, Stage

log = logging.getLogger(__name__)

CERTAIN_SIGMA = 2.0
PREDICTED_WITHIN_DEG = 90.0  # views of one thing from directions farther apart prove nothing
UNSEEN_DEG = 60.0  # between two views; more is a part of the surroundings that nobody looked at
VAGUE_DEG = 1.5  # of the rotation's standard deviation; with less, no further rung is asked
THING_M = 0.5  # around the middle of a thing, where its tracks are
WAIT_S = 0.1

Array = NDArray[np.float64]


class Answerer(Protocol):
    """What answers questions: the bridge in this process, or the worker that runs one."""

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        """See `bridge.Bridge.answer`."""
        ...


class State(IntEnum):
    """What the search does."""

    RETRIEVING = 0
    BRIDGING = 1
    CHECKING = 2
    WAITING_FOR_MOTION = 3


class Advice(IntEnum):
    """What would help."""

    NONE = 0
    TURN = 1
    MOVE = 2
    MORE_LIGHT = 3


@dataclass(frozen=True)
class Progress:
    """How far the search is; `total` grows when new pictures come."""

    state: State
    advice: Advice = Advice.NONE
    done: int = 0
    total: int = 0


@dataclass(frozen=True, eq=False)
class Attempt:
    """One bridge between map and robot that was accepted with metres.

    Attributes:
        question: About `keyframe` and `view`, with all that took part around them.
        answer: To it.
        keyframe: The place in the map, reference of the answer.
        view: The robot's picture that is tied best, target of the answer.
        T_map_base: At capture of `view`, (4, 4).
        covariance: Of (dt, dr) of T_map_base in the axes of the map, (6, 6).
        map_ids: Map keyframes that took part.
        view_ids: Pictures of the robot that took part.
    """

    question: Question
    answer: Answer
    keyframe: Keyframe
    view: Keyframe
    T_map_base: Array
    covariance: Array
    map_ids: tuple[str, ...]
    view_ids: tuple[str, ...]

    @property
    def T_map_odom(self) -> Array:
        """Where odometry lies in the map; stays valid as long as odometry does not break, (4, 4)."""
        return np.asarray(self.T_map_base @ rigid.inverse(_known(self.view.T_odom_base)))

    @property
    def newest_ns(self) -> int:
        """When the newest picture that took part was taken."""
        return max(view.stamp_ns for view in (self.question.target, *self.question.target_context))

    @property
    def tied_m(self) -> Array:
        """What ties the robot to the map: points in the map, (N, 3)."""
        evidence = self.answer.evidence
        if evidence is None:
            return np.empty((0, 3))
        return rigid.transform(_known(self.keyframe.T_map_camera), evidence.points)

    @property
    def sigma_m(self) -> float:
        """Largest standard deviation of the place."""
        return uncertainty.largest_sigma(self.covariance[:3, :3])


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One place where the robot may be: attempts that agree, the surest first."""

    attempts: tuple[Attempt, ...]

    @property
    def best(self) -> Attempt:
        """The attempt whose numbers stand for all."""
        return self.attempts[0]

    @property
    def seen(self) -> bool:
        """Whether real pictures say so, and not only guesses."""
        return any(attempt.answer.stage is not Stage.GENERATED for attempt in self.attempts)

    @property
    def guesses(self) -> int:
        """How many guesses from different real views came to this."""
        return sum(attempt.answer.agreeing for attempt in self.attempts)

    @property
    def independent(self) -> int:
        """How many attempts with different pictures of the robot say so; guesses may be several each."""
        found: dict[frozenset[str], int] = {}
        for attempt in self.attempts:
            pictures = frozenset(view.id for view in attempt.question.sides[1])
            found[pictures] = max(found.get(pictures, 1), attempt.answer.agreeing)
        return sum(found.values())

    def agreeing(self, settings: RelocalizeConfig) -> int:
        """How much speaks for it: things that tie the robot to the map, and guesses."""
        return self.things(settings) + self.guesses

    def things(self, settings: RelocalizeConfig) -> int:
        """How many things tie the robot to the map: groups of tracks that lie apart.

        A piece of furniture that stands elsewhere too is taken for its twin by every picture that shows it,
        and all of them agree; but it is only one thing.

        Args:
            settings: How many tracks make a thing, and how far apart two of them lie.
        """
        tied_m = np.concatenate([attempt.tied_m for attempt in self.attempts])[:, :2]
        apart_m = np.linalg.norm(tied_m[:, None] - tied_m[None], axis=2)
        middles = (apart_m < THING_M).sum(axis=1) >= settings.min_links
        apart_m = apart_m[np.ix_(middles, middles)]
        if not len(apart_m):
            return 0
        things, nearest_m = 1, apart_m[int(apart_m.max(axis=1).argmax())]
        while nearest_m.max() >= settings.apart_m:
            things += 1
            nearest_m = np.minimum(nearest_m, apart_m[int(nearest_m.argmax())])
        return things

    @property
    def probability(self) -> float:
        """Of its best attempt: those that agree share the map, so they do not multiply."""
        return max(attempt.answer.probability for attempt in self.attempts)

    @property
    def keyframe_ids(self) -> tuple[str, ...]:
        """Map keyframes that the attempts used."""
        return tuple(sorted({name for attempt in self.attempts for name in attempt.map_ids}))


@dataclass(eq=False)
class Search:
    """One search for the robot.

    Attributes:
        config: Settings; `relocalize` are this search's own.
        bridge: Answers each attempt's question.
        retriever: Tells which places of the map look like what the robot sees.
        map: Keyframes with a place in the map.
        views: Gives what the robot has seen since its odometry last broke, newest first, each time it is
            asked; all with odometry and extrinsics.
        wait: Waits for a new picture, for so many seconds; False when none came. None: the robot stays put.
        poor_light: Says whether pictures are being refused as badly exposed.
        prior: T_map_base at the newest view, and its covariance.
        min_probability: Of each attempt; None takes the setting.
        seed: Of each attempt.
        on_progress: Told what the search does.
    """

    config: Config
    bridge: Answerer
    retriever: Retriever
    map: Sequence[Keyframe]
    views: Callable[[], Sequence[Keyframe]]
    wait: Callable[[float], bool] | None = None
    poor_light: Callable[[], bool] = lambda: False
    prior: tuple[Array, Array] | None = None
    min_probability: float | None = None
    seed: int = 0
    on_progress: Callable[[Progress], None] = lambda progress: None
    attempts: list[Attempt] = field(default_factory=list)
    _asked: dict[str, Keyframe] = field(default_factory=dict)  # pictures that an attempt has used
    _done: int = 0

    def run(self, control: Control) -> Hypothesis:
        """Search until enough attempts agree.

        Raises:
            NotLocalizedError, AmbiguousError, NeedMotionError: Not found, or the time is up; with what was.
            CancelledError: From `control`.
        """
        try:
            while True:
                control.check()
                question = self.next_question(control)
                if question is None:
                    self._wait_for_motion(control)
                    continue
                self._say(State.BRIDGING)
                self._attempt(question, control)
                self._done += 1
                self._say(State.CHECKING)
                if found := self._settled():
                    return found
        except BudgetSpentError as error:
            raise self._failure(str(error)) from None

    def _settled(self) -> Hypothesis | None:
        """The hypothesis that enough speaks for, more than for others; guesses deny nothing that was seen."""
        settings = self.config.relocalize
        found = self.hypotheses()
        if not found:
            return None
        best, *others = found
        against = max(
            (other.agreeing(settings) for other in others if other.seen or not best.seen), default=0
        )
        return best if best.agreeing(settings) >= settings.min_agreeing + against else None

    def hypotheses(self) -> list[Hypothesis]:
        """Group the attempts that agree with one of them; the group first that most things speak for.

        What real pictures say goes before guesses, among the attempts of a group too.
        """
        order = sorted(self.attempts, key=lambda a: (a.answer.stage is Stage.GENERATED, a.sigma_m))
        left, found = order, []
        while left:
            groups = [[b for b in left if a is b or self._agree(a, b)] for a in left]
            largest = max(groups, key=len)
            found.append(Hypothesis(tuple(largest)))
            left = [attempt for attempt in left if all(attempt is not other for other in largest)]
        return sorted(found, key=lambda h: (not h.seen, -h.agreeing(self.config.relocalize), -h.probability))

    def next_question(self, control: Control) -> Question | None:
        """Pictures that no attempt has used, and the places to try them on; None if there are none left."""
        places: list[Keyframe] = []
        while not places:
            views = self._next_views()
            if not views:
                return None
            self._asked |= {view.id: view for view in views}
            self._say(State.RETRIEVING)
            places = self._places(views, control)
        return self._question(places, views)

    def _question(self, places: Sequence[Keyframe], views: Sequence[Keyframe]) -> Question:
        """Where the pictures are, seen from the places; the first of each are the ends."""
        return Question(
            reference=places[0].view(places[0].T_map_camera),
            target=views[0].view(views[0].T_odom_camera),
            reference_context=tuple(place.view(place.T_map_camera) for place in places[1:]),
            target_context=tuple(view.view(view.T_odom_camera) for view in views[1:]),
            upright=True,
            common_ground=self.config.relocalize.common_ground,
            mapped=True,
            require=Require.METRIC,
            min_stage=Stage.CONTEXT,
            min_probability=self.min_probability,
            min_extent_m=0.0 if self.config.relocalize.min_agreeing > 1 else None,  # of things apart
            seed=self.seed,
        )

    def _next_views(self) -> list[Keyframe]:
        """Pictures that no attempt has used: the newest, then those farthest from all that were."""
        left = [view for view in self.views() if view.id not in self._asked]
        known = list(self._asked.values()) or left[:1]
        chosen = [] if self._asked else left[:1]
        apart = sight.steps_between(left, known, self.config.keyframes).min(axis=1) if left else np.zeros(0)
        while len(chosen) < min(self.config.relocalize.views, len(left)):
            apart[[view in chosen for view in left]] = -1.0
            chosen.append(left[int(apart.argmax())])
            apart = np.minimum(apart, sight.steps_between(left, chosen[-1:], self.config.keyframes)[:, 0])
        return chosen

    def _places(self, views: Sequence[Keyframe], control: Control) -> list[Keyframe]:
        """The map's keyframes to try: by the best hypothesis, else those that look like the pictures."""
        count = self.config.relocalize.places
        reachable = self._reachable()
        if self.attempts:
            return self._predicted(views, reachable, self.hypotheses()[0].best.T_map_odom)
        if len(reachable) <= count:
            return list(reachable)
        found = self.retriever.candidates([view.view() for view in views], reachable, count, control.check)
        return [candidate.keyframe for candidate in found]

    def _predicted(
        self, views: Sequence[Keyframe], places: Sequence[Keyframe], T_map_odom: Array
    ) -> list[Keyframe]:
        """Those that show what the pictures do, if odometry lies there."""
        T_map_place = sight.stacked([place.T_map_camera for place in places])
        alike = np.zeros(len(places))
        for view in views:
            T_camera_place = rigid.inverse(T_map_odom @ _known(view.T_odom_camera)) @ T_map_place
            alike = np.maximum(alike, sight.seen_alike(view, places, T_camera_place, PREDICTED_WITHIN_DEG))
        best = np.argsort(-alike, kind="stable")[: self.config.relocalize.places]
        return [places[index] for index in best]

    def _reachable(self) -> Sequence[Keyframe]:
        """The map's keyframes near enough to the prior to show what the robot sees."""
        if self.prior is None:
            return self.map
        T_map_base, covariance = self.prior
        sigma_m = uncertainty.largest_sigma(covariance[:3, :3])
        reach_m = self.config.relocalize.prior_reach_m + 3.0 * sigma_m
        places_m = sight.stacked([place.T_map_base for place in self.map])[:, :3, 3]
        near = np.linalg.norm(places_m - T_map_base[:3, 3], axis=1) <= reach_m
        return [place for place, is_near in zip(self.map, near, strict=True) if is_near] or self.map

    def _attempt(self, question: Question, control: Control) -> None:
        """Ask; if too little ties the sides, once more, from where they are tied best, and for more."""
        answer = self._ask(dataclasses.replace(question, enough_rotation_sigma_deg=VAGUE_DEG), control)
        if answer.accepted and answer.stage is Stage.GENERATED:
            self._follow(question, answer, control)
            return
        first, tied = None, answer.evidence
        if answer.meets(Require.METRIC):
            first = self._taken(question, answer)
            if self._settled():
                return
        elif answer.reason is not Reason.LOW_PARALLAX:
            return
        if tied is not None:
            question = question.between(tied.reference_view_id, tied.target_view_id)
        better = self._ask(_exactly(question), control)
        if better.meets(Require.METRIC):
            self.attempts = [attempt for attempt in self.attempts if attempt is not first]
            self._taken(question, better)

    def _follow(self, question: Question, guess: Answer, control: Control) -> None:
        """Count what guesses agree on, and look for what really ties the sides where they point to."""
        attempt = self._taken(question, guess)
        views = [self._asked[view.id] for view in question.sides[1]]
        places = self._predicted(views, self._reachable(), attempt.T_map_odom)
        if {place.id for place in places} <= {view.id for view in question.sides[0]}:
            return  # they were looked at
        there = _exactly(self._question(places, views))
        answer = self._ask(there, control)
        if answer.meets(Require.METRIC):
            self._taken(there, answer)

    def _ask(self, question: Question, control: Control) -> Answer:
        """With the time that is left for it, and what the prior says of its ends."""
        place, view = self._ends(question)
        bounded = dataclasses.replace(
            question,
            prior=self._prior_of(place, view),
            budget_s=min(self.config.relocalize.attempt_budget_s, max(control.remaining_s, 1e-3)),
        )
        answer = self.bridge.answer(bounded, control.inner())
        log.info("%s to %s: %s %s", place.id, view.id, answer.status.name, answer.reason_text)
        return answer

    def _taken(self, question: Question, answer: Answer) -> Attempt:
        """What an accepted answer says of the robot at the picture that is tied best; counts if that is sure.

        On the way from there to the target, odometry's errors would add up.
        """
        tied = answer.evidence
        if tied is not None and tied.target_view_id in answer.covariances:
            answer = answer.about(tied.target_view_id)
            question = question.between(question.reference.id, tied.target_view_id)
        place, view = self._ends(question)
        T_map_base, covariance = in_map(answer, place, view)
        robots = {view.id, *(other.id for other in question.target_context)}
        attempt = Attempt(
            question=question,
            answer=answer,
            keyframe=place,
            view=view,
            T_map_base=T_map_base,
            covariance=covariance,
            map_ids=tuple(sorted(answer.cameras.keys() - robots)),
            view_ids=tuple(sorted(answer.cameras.keys() & robots)),
        )
        if attempt.sigma_m <= self.config.relocalize.max_sigma_m:
            self.attempts.append(attempt)
        return attempt

    def _ends(self, question: Question) -> tuple[Keyframe, Keyframe]:
        """The place and the picture that a question is about."""
        place = next(place for place in self.map if place.id == question.reference.id)
        return place, self._asked[question.target.id]

    def _prior_of(self, place: Keyframe, view: Keyframe) -> Prior | None:
        newest = next(iter(self.views()), None)
        if self.prior is None or newest is None or newest.epoch != view.epoch:
            return None
        T_map_base, covariance = self.prior
        T_base_camera = rigid.relative(_known(newest.T_odom_base), _known(view.T_odom_camera))
        T_camera_map = rigid.inverse(_known(place.T_map_camera))
        moved = uncertainty.compose_right(T_map_base, covariance, T_base_camera)
        return Prior(
            T_reference_target=T_camera_map @ T_map_base @ T_base_camera,
            covariance=uncertainty.compose_left(T_camera_map, moved),
        )

    def _agree(self, a: Attempt, b: Attempt) -> bool:
        """Whether two attempts have the robot in one place, once odometry has moved one to the other."""
        settings = self.config.relocalize
        if a.view.epoch != b.view.epoch:
            return False
        T_map_base = a.T_map_odom @ _known(b.view.T_odom_base)
        slack_m = CERTAIN_SIGMA * float(np.hypot(a.sigma_m, b.sigma_m))
        return is_one_place(T_map_base, b.T_map_base, settings, slack_m)

    def _wait_for_motion(self, control: Control) -> None:
        if self.wait is None:
            raise self._failure("every picture was tried")
        self._say(State.WAITING_FOR_MOTION)
        while not self.wait(WAIT_S):
            control.check()

    def _say(self, state: State) -> None:
        advice = self.advice() if state is State.WAITING_FOR_MOTION else Advice.NONE
        left = sum(view.id not in self._asked for view in self.views())
        rounds = -(-left // self.config.relocalize.views) + (state is State.BRIDGING)
        self.on_progress(Progress(state, advice, self._done, self._done + rounds))

    def advice(self) -> Advice:
        """What would help: light, then a turn until all around was seen, then another place."""
        if self.poor_light():
            return Advice.MORE_LIGHT
        yaws_deg = np.sort([_yaw_deg(view) for view in self.views()])
        if not len(yaws_deg):
            return Advice.TURN
        gaps_deg = np.diff(np.append(yaws_deg, yaws_deg[0] + 360.0))
        return Advice.TURN if gaps_deg.max() > UNSEEN_DEG else Advice.MOVE

    def _failure(self, why: str) -> PoseBridgeError:
        found = self.hypotheses()
        if len(found) > 1:
            return AmbiguousError(f"{len(found)} places are possible; {why}", found)
        help_ = {Advice.TURN: "turn on the spot", Advice.MOVE: "move", Advice.MORE_LIGHT: "bring more light"}
        advice = self.advice()
        if found:
            return NeedMotionError(
                f"one place was found, and no other pictures confirm it; {help_[advice]}; {why}", found
            )
        if self.wait is None and len(self.views()) < 2 * self.config.relocalize.min_agreeing:
            return NeedMotionError(f"the robot has seen too little; {help_[advice]}; {why}")
        return NotLocalizedError(f"no place in the map could be tied to what the robot sees; {why}")


def is_one_place(T_a: Array, T_b: Array, settings: RelocalizeConfig, slack_m: float = 0.0) -> bool:
    """Return whether two places of the base in the map, (4, 4), agree; `slack_m` is allowed on top."""
    apart_m = float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3]))
    apart_deg = distances.rotation_error_deg(T_a[:3, :3], T_b[:3, :3])
    return apart_m <= settings.agree_distance_m + slack_m and apart_deg <= settings.agree_angle_deg


def in_map(answer: Answer, place: Keyframe, view: Keyframe) -> tuple[Array, Array]:
    """Return T_map_base at capture of the robot's picture, and its covariance, axes of the map, (6, 6)."""
    T_map_camera, T_camera_base = _known(place.T_map_camera), rigid.inverse(_known(view.T_base_camera))
    covariance = uncertainty.compose_right(answer.T_reference_target, answer.covariance, T_camera_base)
    T_map_base = T_map_camera @ answer.T_reference_target @ T_camera_base
    return T_map_base, uncertainty.compose_left(T_map_camera, covariance)


def _exactly(question: Question) -> Question:
    """The question for all that real pictures say."""
    return dataclasses.replace(question, max_stage=Stage.CONTEXT, enough_rotation_sigma_deg=0.0)


def _known(T: Array | None) -> Array:
    """A pose without which a keyframe would not take part in a search."""
    assert T is not None
    return T


def _yaw_deg(view: Keyframe) -> float:
    ahead = _known(view.T_odom_camera)[:3, 2]
    return float(np.degrees(np.arctan2(ahead[1], ahead[0])))
