# SPDX-License-Identifier: Apache-2.0
"""The generated rung: a video model fills the gap, a network guesses cameras, and self-consistency decides.

No correspondence between real pictures stands behind what comes out: it is a hypothesis, somewhere to look.
What real pictures, odometry and gravity say against it rejects it. Where odometry holds both sides together,
guesses from other real views may come to the same: then it is an answer.

Source: Cai et al., Can Generative Video Models Help Pose Estimation?, CVPR 2025.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pose_bridge import corroboration, gates, scale
from pose_bridge.config import Config, GeneratedConfig
from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, ModelError, NoEstimateError, OutOfMemoryError
from pose_bridge.estimators.base import Array, Guess, Guesser, Problem
from pose_bridge.generators import base as generators
from pose_bridge.generators.base import Generator, Video
from pose_bridge.geometry import distances, rigid, uncertainty
from pose_bridge.selection import consensus
from pose_bridge.views import Answer, Question, Reason, Require, Stage, Status, Translation, View

log = logging.getLogger(__name__)

LEAST_SIGMA_RAD = np.radians(1.0)  # of a hypothesis, however well the subsets agree
MOST_OPPOSITE = 0.2  # of a video's parts may have the target on the other side
SPARE_TIME = 1.2  # times the slowest video so far must be left to begin another
WAIT_S = 0.05


@dataclass(frozen=True)
class Models:
    """What the rung rests on.

    Attributes:
        generator: Makes videos.
        guesser: Guesses cameras.
    """

    generator: Generator
    guesser: Guesser


def load(config: Config) -> Models:
    """Load the models that the settings name.

    Raises:
        ModelError: Weights are missing, not whole, or of another model.
    """
    from pose_bridge.estimators.vggt.estimator import VggtEstimator
    from pose_bridge.generators.ltx import LtxGenerator

    guesser = VggtEstimator(config.vggt)  # the smaller one first: if it cannot be used, no time is lost
    return Models(LtxGenerator(config.ltx), guesser)


class GeneratedRung:
    """Guesses, several times where that proves something; models are loaded once, by whoever needs them.

    Args:
        config: Settings.
        loader: Gives the models.
    """

    stage = Stage.GENERATED

    def __init__(self, config: Config, loader: Callable[[Config], Models] = load) -> None:
        self._config = config
        self._loader = loader
        self._models: Models | None = None
        self._failure: ModelError | None = None  # files do not mend themselves
        self._loading = threading.Lock()

    @staticmethod
    def configured(config: Config) -> bool:
        """Whether the settings name weights for it."""
        return bool(config.vggt.weights and config.ltx.weights)

    def serves(self, question: Question) -> bool:
        """Whether somebody wants a hypothesis; or the models are at hand, and several guesses may be more."""
        if not question.min_stage <= self.stage <= question.max_stage:
            return False
        return question.allow_hypothesis or (self._models is not None and len(self._split(question)) > 1)

    def load(self, control: Control | None = None) -> Models:
        """Return the models, loading them, or waiting while another thread does.

        Raises:
            ModelError: Weights are missing, not whole, or of another model.
            CancelledError, BudgetSpentError: From `control`, while waiting.
        """
        while not self._loading.acquire(timeout=WAIT_S):
            if control is not None:
                control.check()
        try:
            if self._failure is not None:
                raise self._failure
            if self._models is None:
                self._models = self._loader(self._config)
            return self._models
        except ModelError as error:
            self._failure = error
            raise
        finally:
            self._loading.release()

    def answer(self, question: Question, control: Control) -> Answer:
        """Return what guesses agree on, else a hypothesis if one is wanted, or why there is neither.

        Raises:
            ModelError: Weights are missing, not whole, or of another model.
            CancelledError: From `control`.
            BudgetSpentError: From `control`, before the first guess is made.
        """
        control.step("generated: loading the models")
        models = self.load(control)
        parts = self._split(question)
        answers: list[Answer] = []
        slowest_s = 0.0
        for number, part in enumerate(parts):
            if answers and control.remaining_s < SPARE_TIME * slowest_s:
                break
            start_s = time.monotonic()
            try:
                answers.append(self._guess(models, part, control))
            except BudgetSpentError:
                if not answers:
                    raise
                break
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            log.info("guess %d of %d: %s", number + 1, len(parts), answers[-1].reason_text)
            group = self._largest_group(question, parts, answers)
            if group is not None and (found := self._agreed(question, group)):
                return found
            if self._decided(question, len(parts) - len(answers), answers[0], group):
                break
        return self._one_of(question, parts, answers, group)

    def _split(self, question: Question) -> list[Question]:
        return corroboration.split(question, self._config.generated, self._config.keyframes)

    def _largest_group(
        self, question: Question, parts: Sequence[Question], answers: Sequence[Answer]
    ) -> corroboration.Group | None:
        """The guesses that say the same of the pair that the question asks about; None if there is none."""
        guesses = self._moved(question, parts, answers) if len(parts) > 1 else []
        if not guesses:
            return None
        return corroboration.largest_group(guesses, len(answers), question.upright, self._config.generated)

    def _one_of(
        self,
        question: Question,
        parts: Sequence[Question],
        answers: Sequence[Answer],
        group: corroboration.Group | None,
    ) -> Answer:
        """The hypothesis about the pair itself, or else the surest about another, if one is wanted."""
        first, *_ = answers
        if group is None or (question.allow_hypothesis and first.status is Status.HYPOTHESIS):
            return first
        if question.allow_hypothesis:
            guesses = self._moved(question, parts, answers)
            return min(guesses, key=lambda guess: guess.rotation_sigma_rad)
        text = f"{len(group.guesses)} of {group.asked} guesses from different real views agree"
        odds = f", to a probability of {group.probability:.2f}"
        return Answer.rejected(Reason.WEAK_BRIDGE, text + odds, stage=self.stage)

    def _agreed(self, question: Question, group: corroboration.Group) -> Answer | None:
        """The answer that enough guesses have in common, if it contradicts nothing else that is known."""
        asked = question.min_probability
        wanted = self._config.verification.min_probability if asked is None else asked
        if len(group.guesses) < self._config.generated.agreeing or group.probability < wanted:
            return None
        answer = corroboration.accepted(group, question)
        T, covariance = answer.T_reference_target, answer.covariance
        if found := self._conflict(question, T, covariance, Translation.METRIC):
            return Answer.rejected(*found, stage=self.stage)
        return answer

    def _decided(
        self, question: Question, left: int, first: Answer, group: corroboration.Group | None
    ) -> bool:
        """Whether the guesses that are left can no longer agree, and what was asked for is there without."""
        if question.allow_hypothesis and group is None and first.status is not Status.HYPOTHESIS:
            return False
        agreeing = 0 if group is None else len(group.guesses)
        return agreeing + left < self._config.generated.agreeing

    @staticmethod
    def _moved(question: Question, parts: Sequence[Question], answers: Sequence[Answer]) -> list[Answer]:
        """Those with metres, about the pair that the question asks about."""
        return [
            corroboration.moved(answer, part, question)
            for answer, part in zip(answers, parts, strict=False)
            if answer.status is Status.HYPOTHESIS and answer.translation is Translation.METRIC
        ]

    def _conflict(
        self, question: Question, T: Array, covariance: Array, translation: Translation
    ) -> tuple[Reason, str] | None:
        """What a guess contradicts of all else that is known."""
        claim = gates.Claim({0: np.eye(4), 1: T}, covariance, translation)
        problem = Problem((question.reference, question.target), (), {}, (0, 1), question.seed)
        return gates.conflict(claim, question, problem, self._config.gates)

    def _guess(self, models: Models, question: Question, control: Control) -> Answer:
        """A hypothesis about one pair of views, or why there is none."""
        settings = self._config.generated
        try:
            control.step("generated: guessing from the two views")
            start_s = time.monotonic()
            pair = models.guesser.estimate_many([[question.reference, question.target]], control)[0]
            spare_s = settings.subsets * (time.monotonic() - start_s)  # about what a video's parts will take
            videos, faults = self._videos(models.generator, question, spare_s, control)
            known: dict[str, Any] = {
                "stage": self.stage,
                "estimator": models.guesser.name,
                "generator": models.generator.name,
                "real_frames": 2,
                "generated_frames": sum(len(video.views) for video in videos),
            }
            if not videos:
                return Answer.rejected(
                    Reason.WEAK_BRIDGE, f"no video bridges the views: {faults[0]}", **known
                )
            control.step("generated: looking for agreement")
            agreed = agreement(models.guesser, question, pair, videos, settings, control)
            return self._checked(models.guesser, question, agreed, known, control)
        except (NoEstimateError, OutOfMemoryError) as error:
            return Answer.rejected(Reason.WEAK_BRIDGE, str(error), stage=self.stage)

    def _videos(
        self, generator: Generator, question: Question, spare_s: float, control: Control
    ) -> tuple[list[Video], list[str]]:
        """As many as time and memory allow, and what was wrong with others.

        Args:
            generator: Makes them.
            question: About their ends.
            spare_s: For each, to look at it afterwards.
            control: Budget and cancellation.
        """
        videos: list[Video] = []
        faults: list[str] = []
        slowest_s = 0.0
        plan = generators.takes(len(generator.prompts), self._config.generated.videos, question.seed)
        for number, take in enumerate(plan):
            later_s = slowest_s + (len(videos) + 1) * spare_s
            if videos and control.remaining_s < SPARE_TIME * later_s:
                faults.append(f"there was time for {number} of {len(plan)} videos")
                break
            control.step(f"generated: video {number + 1} of {len(plan)}")
            start_s = time.monotonic()
            try:
                video = generator.video(question.reference, question.target, take, control)
            except OutOfMemoryError as error:
                faults.append(str(error))
                break  # the others are as large
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            if video.fault:
                faults.append(video.fault)
                log.info("video %d is not looked at: %s", number + 1, video.fault)
            else:
                videos.append(video)
        return videos, faults

    def _checked(
        self,
        guesser: Guesser,
        question: Question,
        agreed: Agreement,
        known: dict[str, Any],
        control: Control,
    ) -> Answer:
        """Look once more, with real views around the ends too, and ask whether they speak against it."""
        settings = self._config.generated
        if agreed.spread_deg > settings.max_spread_deg:
            text = f"parts of the best video disagree by {agreed.spread_deg:.0f} degrees about the pose"
            return Answer.rejected(Reason.INCONSISTENT, text, **known)
        around = [
            view
            for _, *context in question.sides
            for view in [v for v in context if v.T_side_camera is not None][: settings.context_views]
        ]
        ends = [question.reference, question.target]
        shown = [*ends, *around, *agreed.views]
        guess = guesser.estimate_many([shown], control, depth=any(v.depth_m is not None for v in shown))[0]
        known["real_frames"] = len(ends) + len(around)
        if doubt := self._doubt(question, guess, agreed):
            return Answer.rejected(*doubt, **known)
        try:
            metres = scale.guessed_scale(question, guess, self._config.scale)
        except scale.NoScaleError as error:
            if error.reason is Reason.SCALE_CONFLICT:
                return Answer.rejected(error.reason, str(error), **known)
            metres = scale.unknown(str(error))
        baseline = np.linalg.norm(guess.T_reference_camera[question.target.id][:3, 3])
        factor = float(metres.factor * baseline) if metres.known else 1.0
        covariance = uncertainty.scaled(agreed.T_reference_target, agreed.covariance, factor, metres.sigma)
        T = rigid.make(agreed.T_reference_target[:3, :3], factor * agreed.T_reference_target[:3, 3])
        translation = Translation.METRIC if metres.known else Translation.DIRECTION
        if found := self._conflict(question, T, covariance, translation):
            return Answer.rejected(*found, **known)
        lacking = "" if metres.known else f"; {metres.name}"
        short = question.require is Require.METRIC and not metres.known
        return Answer(
            status=Status.HYPOTHESIS,
            reason=Reason.NO_SCALE if short else Reason.NONE,
            reason_text=f"{agreed.text}; no match between real pictures stands behind it{lacking}",
            translation=translation,
            scale_source=metres.source,
            scale_sigma=metres.sigma if metres.known else float("nan"),
            cameras={question.reference.id: np.eye(4), question.target.id: T},
            covariances={question.target.id: covariance} if metres.known else {},
            _T_reference_target=T,
            _covariance=covariance,
            _direction_sigma_rad=uncertainty.direction_sigma_rad(T, covariance),
            **known,
        )

    def _doubt(self, question: Question, guess: Guess, agreed: Agreement) -> tuple[Reason, str] | None:
        """What real views, and what is known of their cameras, say against a guess."""
        settings = self._config.generated
        ends = (question.reference.id, question.target.id)
        for name in ends:
            ratio = guess.focal_ratio[name]
            if not 1.0 / settings.max_focal_ratio <= ratio <= settings.max_focal_ratio:
                with_ = (
                    f"{ratio:.2f} times its focal length"
                    if ratio > 0
                    else "a field of view that no camera has"
                )
                return Reason.INCONSISTENT, f"the network sees view {name} with {with_}"
        for views in question.sides:
            turned = [v for v in views if v.id in guess.T_reference_camera and v.T_side_camera is not None]
            for a, b in combinations(turned, 2):
                T_guessed = rigid.relative(guess.T_reference_camera[a.id], guess.T_reference_camera[b.id])
                T_driven = rigid.relative(a.T_side_camera, b.T_side_camera)  # type: ignore[arg-type]
                off_deg = distances.rotation_error_deg(T_guessed[:3, :3], T_driven[:3, :3])
                if off_deg > settings.max_side_turn_deg:
                    return (
                        Reason.ODOMETRY_CONFLICT,
                        f"odometry turns view {b.id} from {a.id} otherwise than the network, by "
                        f"{off_deg:.0f} degrees",
                    )
        T_with_all = guess.T_reference_camera[ends[1]]
        off_deg = distances.rotation_error_deg(T_with_all[:3, :3], agreed.T_reference_target[:3, :3])
        off_deg += distances.translation_error_deg(T_with_all[:3, 3], agreed.T_reference_target[:3, 3])
        if off_deg > settings.max_spread_deg:
            return (
                Reason.INCONSISTENT,
                f"with the real views around it, the network has the target {off_deg:.0f} degrees elsewhere",
            )
        return None


@dataclass(frozen=True, eq=False)
class Agreement:
    """What most parts of the best video say.

    Attributes:
        T_reference_target: With a baseline of 1, (4, 4).
        covariance: By how far the parts are from it, (6, 6): no error model, and no less than a degree.
        spread_deg: Their mean distance to it.
        views: The generated ones behind it.
        text: For people.
    """

    T_reference_target: Array
    covariance: Array
    spread_deg: float
    views: tuple[View, ...]
    text: str


def agreement(
    guesser: Guesser,
    question: Question,
    pair: Guess,
    videos: Sequence[Video],
    settings: GeneratedConfig,
    control: Control,
) -> Agreement:
    """Ask about parts of the videos until it is clear which of them to believe, and what it says.

    Raises:
        NoEstimateError: The guesser answers with no cameras, or one place for both.
        CancelledError, BudgetSpentError: From `control`.
    """
    target = question.target.id
    parts = parts_of(question, videos, settings)
    said: list[list[Array]] = [[] for _ in videos]

    def ask(video: int, numbers: Sequence[int]) -> Array:
        guesses = guesser.estimate_many([parts[video][number] for number in numbers], control)
        poses = [to_unit(guess.T_reference_camera[target]) for guess in guesses]
        said[video] += poses
        return np.array(poses)

    T_pair = to_unit(pair.T_reference_camera[target])
    choice = consensus.race(ask, len(videos), settings.subsets, T_pair, settings.within_deg)
    T, best = choice.T_reference_target, said[choice.video]
    opposite = sum(float(T[:3, 3] @ other[:3, 3]) < 0.0 for other in best)
    if opposite > MOST_OPPOSITE * len(best):  # the consensus takes them for the same
        raise NoEstimateError(
            f"{opposite} of {len(best)} parts of the best video have the target the opposite way"
        )
    errors = np.array([uncertainty.error_vector(T, other) for other in best])
    covariance = errors.T @ errors / (len(errors) - 1) + LEAST_SIGMA_RAD**2 * np.eye(6)
    return Agreement(
        T_reference_target=T,
        covariance=covariance,
        spread_deg=float(choice.d_med_deg[choice.video]),
        views=parts[choice.video][choice.subset][1:-1],
        text=f"video {choice.video + 1} of {len(videos)} agrees with itself to "
        f"{choice.d_med_deg[choice.video]:.1f} degrees, and with the two views alone to "
        f"{choice.d_bias_deg[choice.video]:.1f} ({choice.asked} parts asked)",
    )


def parts_of(
    question: Question, videos: Sequence[Video], settings: GeneratedConfig
) -> list[list[tuple[View, ...]]]:
    """Return the subsets of each video's frames, both ends with them, that a guesser is asked about."""
    parts = []
    for index, video in enumerate(videos):
        film, seed = (question.reference, *video.views, question.target), (question.seed + index) % 2**63
        drawn = consensus.subsets(len(film), settings.subset_views, settings.subsets, seed)
        parts.append([tuple(film[frame] for frame in some) for some in drawn])
    return parts


def to_unit(T: Array) -> Array:
    """The pose with a baseline of 1.

    Raises:
        NoEstimateError: There is none.
    """
    baseline = float(np.linalg.norm(T[:3, 3]))
    if baseline == 0.0:
        raise NoEstimateError("the network has both views in one place")
    return rigid.make(T[:3, :3], T[:3, 3] / baseline)
