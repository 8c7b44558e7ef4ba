# SPDX-License-Identifier: Apache-2.0
"""Where a robot is in its map: bridges from places in the map to what it sees, until enough of them agree.

An attempt bridges one place of the map, with its neighbours, to one picture of the robot, with others around
it. It counts only together with attempts that used other pictures and agree with it through odometry. What
disagrees is kept as another hypothesis and never averaged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import Config
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
from pose_bridge.keyframes.neighbours import neighbours
from pose_bridge.keyframes.retrieval import Retriever
from pose_bridge.views import Answer, Prior, Question, Require

log = logging.getLogger(__name__)

CERTAIN_SIGMA = 2.0
PREDICTED_WITHIN_DEG = 90.0  # views of one thing from directions farther apart prove nothing
BASELINE_M = 0.3  # from which a distance by odometry is worth something
UNSEEN_DEG = 60.0  # between two views; more is a part of the surroundings that nobody looked at
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
        question: To the bridge.
        answer: Of the bridge.
        keyframe: The place in the map, reference of the answer.
        view: The robot's picture, target of the answer.
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
    def ahead(self) -> Array:
        """Where the robot's picture looks, a unit vector in the map, (3,)."""
        return np.asarray((self.T_map_base @ _known(self.view.T_base_camera))[:3, 2])

    @property
    def sigma_m(self) -> float:
        """Largest standard deviation of the place."""
        return float(np.sqrt(np.linalg.eigvalsh(self.covariance[:3, :3])[-1]))


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One place where the robot may be: attempts that agree, the surest first."""

    attempts: tuple[Attempt, ...]

    @property
    def best(self) -> Attempt:
        """The attempt whose numbers stand for all."""
        return self.attempts[0]

    def agreeing(self, apart_deg: float) -> int:
        """How many of its attempts look at different things.

        A piece of furniture that stands elsewhere too is taken for its twin by every picture that shows it,
        and all of them agree.

        Args:
            apart_deg: Between the directions of two attempts that count as two.
        """
        counted: list[Array] = []
        for attempt in self.attempts:
            if all(_angle_deg(attempt.ahead, other) >= apart_deg for other in counted):
                counted.append(attempt.ahead)
        return len(counted)

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
    _asked: set[str] = field(default_factory=set)  # pictures that were targets already
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
                self._say(State.RETRIEVING)
                plan = self._predicted() or self._plan(control)
                for place, view in plan:
                    if found := self._step(place, view, len(plan), control):
                        return found
                    if self.attempts and view.id in self.attempts[-1].view_ids:
                        break  # something new is known: plan again
                if not plan:
                    self._wait_for_motion(control)
        except BudgetSpentError as error:
            raise self._failure(str(error)) from None

    def hypotheses(self) -> list[Hypothesis]:
        """Group the attempts that agree with one of them, the largest group first."""
        left, found = sorted(self.attempts, key=lambda attempt: attempt.sigma_m), []
        while left:
            groups = [[b for b in left if a is b or self._agree(a, b)] for a in left]
            largest = max(groups, key=len)
            found.append(Hypothesis(tuple(largest)))
            left = [attempt for attempt in left if all(attempt is not other for other in largest)]
        return sorted(found, key=lambda h: (-len(h.attempts), -h.probability))

    def _step(self, place: Keyframe, view: Keyframe, planned: int, control: Control) -> Hypothesis | None:
        control.check()
        self._asked.add(view.id)
        self._say(State.BRIDGING, planned)
        self._attempt(place, view, control)
        self._done += 1
        self._say(State.CHECKING, planned)
        found = self.hypotheses()
        settings = self.config.relocalize
        counts = [hypothesis.agreeing(settings.apart_deg) for hypothesis in found] + [0, 0]
        return found[0] if found and counts[0] >= settings.min_agreeing + counts[1] else None

    def _plan(self, control: Control) -> list[tuple[Keyframe, Keyframe]]:
        """Places in the map with the picture of the robot that looks most like each, best first."""
        fresh = {view.id: view for view in self._spread(view for view in self._free() if self._may_ask(view))}
        if not fresh:
            return []
        found = self.retriever.candidates(
            [view.view() for view in fresh.values()],
            self._reachable(),
            self.config.relocalize.candidates,
            control.check,
        )
        return [(candidate.keyframe, fresh[candidate.view_id]) for candidate in found]

    def _may_ask(self, view: Keyframe) -> bool:
        return view.id not in self._asked and self.retriever.shows_enough(
            view.view(), self.config.verification.min_tracks
        )

    def _spread(self, views: Iterable[Keyframe]) -> list[Keyframe]:
        """As many pictures as are looked for at a time: the newest, then what is farthest from those."""
        left = list(views)
        chosen = left[:1]
        apart = sight.steps_between(left, chosen, self.config.keyframes)[:, 0] if left else np.zeros(0)
        while len(chosen) < min(self.config.relocalize.views, len(left)):
            chosen.append(left[int(apart.argmax())])
            apart = np.minimum(apart, sight.steps_between(left, chosen[-1:], self.config.keyframes)[:, 0])
        return chosen

    def _predicted(self) -> list[tuple[Keyframe, Keyframe]]:
        """What must work if the best hypothesis is true: pictures with the places that they would show.

        Of other things than it rests on, so that they count.
        """
        if not self.attempts:
            return []
        hypothesis = self.hypotheses()[0]
        T_map_odom = hypothesis.best.T_map_odom
        T_map_other = sight.stacked([place.T_map_camera for place in self.map])
        found = []
        for view in self._free():
            if not self._may_ask(view) or view.T_odom_camera is None:
                continue
            T_map_camera = T_map_odom @ view.T_odom_camera
            apart_deg = min(_angle_deg(T_map_camera[:3, 2], a.ahead) for a in hypothesis.attempts)
            if apart_deg < self.config.relocalize.apart_deg:
                continue
            T_camera_other = rigid.inverse(T_map_camera) @ T_map_other
            alike = sight.seen_alike(view, self.map, T_camera_other, PREDICTED_WITHIN_DEG)
            found.append((float(alike.max()), self.map[int(alike.argmax())], view))
        best = sorted(found, key=lambda f: -f[0])[: self.config.relocalize.candidates]
        return [(place, view) for alike, place, view in best if alike > 0.0]

    def _reachable(self) -> Sequence[Keyframe]:
        """The map's keyframes near enough to the prior to show what the robot sees."""
        if self.prior is None:
            return self.map
        T_map_base, covariance = self.prior
        sigma_m = float(np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1]))
        reach_m = self.config.relocalize.prior_reach_m + 3.0 * sigma_m
        places_m = sight.stacked([place.T_map_base for place in self.map])[:, :3, 3]
        near = np.linalg.norm(places_m - T_map_base[:3, 3], axis=1) <= reach_m
        return [place for place, is_near in zip(self.map, near, strict=True) if is_near] or self.map

    def _attempt(self, place: Keyframe, view: Keyframe, control: Control) -> None:
        question = self._question(place, view, control)
        answer = self.bridge.answer(question, control.inner())
        log.info("%s to %s: %s %s", place.id, view.id, answer.status.name, answer.reason_text)
        if not answer.meets(Require.METRIC):
            return
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

    def _question(self, place: Keyframe, view: Keyframe, control: Control) -> Question:
        settings = self.config.relocalize
        free = [other for other in self._free() if other.id != view.id]
        # What one attempt uses, the next may not: leave enough for those that have yet to agree.
        missing = max(1, settings.min_agreeing - len(self.attempts))
        around_view = self._around(view, free, min(settings.neighbours, (len(free) + 1) // missing - 1))
        around_place = self._around(place, self.map, settings.neighbours)
        return Question(
            reference=place.view(place.T_map_camera),
            target=view.view(view.T_odom_camera),
            reference_context=tuple(other.view(other.T_map_camera) for other in around_place),
            target_context=tuple(other.view(other.T_odom_camera) for other in around_view),
            prior=self._prior_of(place, view),
            upright=True,
            common_ground=settings.common_ground,
            require=Require.METRIC,
            budget_s=min(settings.attempt_budget_s, max(control.remaining_s, 1e-3)),
            min_probability=self.min_probability,
            seed=self.seed,
        )

    def _around(self, keyframe: Keyframe, others: Sequence[Keyframe], count: int) -> list[Keyframe]:
        """What else shows the same; half of it from another place, where that is: a turn has no metres."""
        if count <= 0:
            return []
        apart_m = np.linalg.norm(sight.relative_poses(keyframe, others)[:, :3, 3], axis=1)
        moved = [other for other, far_m in zip(others, apart_m, strict=True) if far_m >= BASELINE_M]
        settings = self.config.keyframes
        found = neighbours(keyframe, moved, (count + 1) // 2, settings)
        known = {other.id for other in found}
        rest = [other for other in others if other.id not in known]
        return found + neighbours(keyframe, rest, count - len(found), settings)

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

    def _free(self) -> list[Keyframe]:
        """Pictures of the robot that no attempt has used yet."""
        used = {name for attempt in self.attempts for name in attempt.view_ids}
        return [view for view in self.views() if view.id not in used]

    def _agree(self, a: Attempt, b: Attempt) -> bool:
        """Whether two attempts have the robot in one place, once odometry has moved one to the other."""
        settings = self.config.relocalize
        if a.view.epoch != b.view.epoch:
            return False
        T_map_base = a.T_map_odom @ _known(b.view.T_odom_base)
        apart_m = float(np.linalg.norm(T_map_base[:3, 3] - b.T_map_base[:3, 3]))
        apart_deg = distances.rotation_error_deg(T_map_base[:3, :3], b.T_map_base[:3, :3])
        slack_m = CERTAIN_SIGMA * float(np.hypot(a.sigma_m, b.sigma_m))
        return apart_m <= settings.agree_distance_m + slack_m and apart_deg <= settings.agree_angle_deg

    def _wait_for_motion(self, control: Control) -> None:
        if self.wait is None:
            raise self._failure("every place in the map was tried with every picture")
        self._say(State.WAITING_FOR_MOTION)
        while not self.wait(WAIT_S):
            control.check()

    def _say(self, state: State, planned: int = 0) -> None:
        advice = self.advice() if state is State.WAITING_FOR_MOTION else Advice.NONE
        self.on_progress(Progress(state, advice, self._done, max(self._done, planned)))

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


def in_map(answer: Answer, place: Keyframe, view: Keyframe) -> tuple[Array, Array]:
    """Return T_map_base at capture of the robot's picture, and its covariance, axes of the map, (6, 6)."""
    T_map_camera, T_camera_base = _known(place.T_map_camera), rigid.inverse(_known(view.T_base_camera))
    covariance = uncertainty.compose_right(answer.T_reference_target, answer.covariance, T_camera_base)
    T_map_base = T_map_camera @ answer.T_reference_target @ T_camera_base
    return T_map_base, uncertainty.compose_left(T_map_camera, covariance)


def _known(T: Array | None) -> Array:
    """A pose without which a keyframe would not take part in a search."""
    assert T is not None
    return T


def _angle_deg(a: Array, b: Array) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1.0, 1.0))))


def _yaw_deg(view: Keyframe) -> float:
    ahead = _known(view.T_odom_camera)[:3, 2]
    return float(np.degrees(np.arctan2(ahead[1], ahead[0])))
