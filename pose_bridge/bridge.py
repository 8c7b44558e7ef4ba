# SPDX-License-Identifier: Apache-2.0
"""The ladder: rungs from cheap to dear, each answer verified, until as much is known as was asked.

direct     the two views alone
register   the target against the views around the reference
context    all real views around both ends: where odometry holds each side together, the two aligned as rigid
           rigs, first with plain matches, then with simulated tilts; else one reconstruction
generated  videos between two views, and a network's guess: a hypothesis if somebody wants one, and an answer
           where guesses from other real views agree through odometry
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pose_bridge import covariance, gates, scale, verification
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, NoEstimateError
from pose_bridge.estimators import bundle
from pose_bridge.estimators.base import Estimate, Estimator, Problem, scaled_cameras
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.estimators.registration import RegistrationEstimator
from pose_bridge.estimators.rigs import RigEstimator
from pose_bridge.estimators.sfm import SfmEstimator
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.features import FeatureStore
from pose_bridge.generated import GeneratedRung
from pose_bridge.geometry import rigid
from pose_bridge.linking import Linker
from pose_bridge.views import (
    Answer,
    Evidence,
    Question,
    Reason,
    Require,
    ScaleSource,
    Stage,
    Status,
    Translation,
    View,
)

log = logging.getLogger(__name__)

CERTAIN_SIGMA = 4.0  # answers of two rungs that differ by more standard deviations contradict each other


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: which views it uses, and what turns them into cameras.

    Attributes:
        problem: Makes the estimator's problem of a question.
        estimator: Gives cameras.
        applies: To which questions.
        rivals_save: A rival can save a doubtful answer; not where the estimator has chosen among many itself.
        min_probability: An answer less probable than this is left to the next rung, whatever was asked for.
    """

    problem: Callable[[Question, Control], Problem]
    estimator: Estimator
    applies: Callable[[Question], bool] = lambda question: True
    rivals_save: bool = True
    min_probability: float = 0.0

    def serves(self, question: Question) -> bool:
        """Whether the question may be, and can be, put to it."""
        return question.min_stage <= self.estimator.stage <= question.max_stage and self.applies(question)


def ladder(config: Config, store: FeatureStore) -> tuple[Rung, ...]:
    """The rungs, cheapest first; those of one ladder remember two-view geometries together."""
    verifier = PairVerifier(config.sfm)
    linker = Linker(config, store, verifier)
    sfm, rigs = SfmEstimator(config.sfm, verifier), RigEstimator(config.rigs)
    return (
        Rung(linker.pair, TwoViewEstimator(config.two_view)),
        Rung(
            linker.reference_side,
            RegistrationEstimator(config.register, verifier, sfm),
            lambda question: bool(question.reference_context),
        ),
        Rung(linker.rigs, rigs, rigs.applies, rivals_save=False, min_probability=config.rigs.sure),
        Rung(linker.rigs_wide, rigs, rigs.applies, rivals_save=False),
        Rung(
            linker.context,
            sfm,
            lambda question: (
                bool(question.reference_context or question.target_context) and not rigs.applies(question)
            ),
        ),
    )


class Bridge:
    """Answers questions; features, matches and two-view geometries of views seen before are remembered."""

    def __init__(self, config: Config | None = None) -> None:
        self._config = config = config or Config()
        self._store = FeatureStore(config.features, config.views)
        self._rungs = ladder(config, self._store)
        self._generated = GeneratedRung(config) if GeneratedRung.configured(config) else None

    @property
    def needs_models(self) -> bool:
        """Whether the settings name weights."""
        return self._generated is not None

    def load(self) -> None:
        """Load what models there are ahead of any question.

        Raises:
            ModelError: Weights are missing, not whole, or of another model.
        """
        if self._generated is not None:
            self._generated.load()

    def prepare(self, view: View) -> None:
        """Extract a view's features ahead of any question about it.

        Raises:
            BadImageError: The view is too small.
        """
        self._store.features(view, wide=True)

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        """Say where the target camera is, seen from the reference camera, or why that is not known.

        Climbs until `question.require` is met and the rotation is known well enough. When the budget is
        spent, the best answer so far is the answer.

        Raises:
            BadInputError: A view cannot be used at all (too small).
            ModelError: A guess was needed, and the models for it cannot be loaded.
            CancelledError: The caller cancelled.
        """
        control = control or Control()
        control.start(self._config.bridge.budget_s if question.budget_s is None else question.budget_s)
        asked_deg = question.enough_rotation_sigma_deg
        enough_deg = self._config.bridge.enough_rotation_sigma_deg if asked_deg is None else asked_deg
        best = Answer.rejected(Reason.NO_OVERLAP, "nothing ties the two views together")
        accepted: list[Answer] = []
        try:
            for answer in self._climb(question, control):
                log.info("%s: %s %s", answer.stage.name, answer.status.name, answer.reason_text)
                if answer.accepted:
                    if other := next((one for one in accepted if not _agree(one, answer)), None):
                        best = _contradiction(other, answer)
                        break
                    accepted.append(answer)
                if _worth(answer) >= _worth(best) or _takes_back(answer, best):
                    best = answer
                    control.better(best)
                if best.meets(question.require) and np.degrees(best.rotation_sigma_rad) <= enough_deg:
                    break
            else:
                if self._generated is not None and self._generated.serves(question) and _open(best):
                    best = _guessed(best, self._generated.answer(question, control))
        except BudgetSpentError as error:
            if not best.accepted:
                best = dataclasses.replace(
                    best, reason=Reason.BUDGET, reason_text=f"{error}; {best.reason_text}"
                )
        return dataclasses.replace(best, elapsed_s=control.elapsed_s)

    def _climb(self, question: Question, control: Control) -> Iterator[Answer]:
        """One answer per rung, accepted or not."""
        control.step("looking at the two views")
        poor = self._poor_views(question)
        if poor:
            yield Answer.rejected(Reason.POOR_VIEWS, poor)
            return
        rungs = [rung for rung in self._rungs if rung.serves(question)]
        for rung in rungs:
            stage = rung.estimator.stage
            control.step(f"{stage.name.lower()}: matching")
            problem = rung.problem(question, control)
            control.step(f"{stage.name.lower()}: estimating")
            # Where a rung is left, that one has more to go by than a doubtful answer's rival.
            wanted = max(rung.min_probability, self._min_probability(question))
            needed = 0.0 if rung is rungs[-1] and rung.rivals_save else wanted
            try:
                found = verification.candidates(
                    rung.estimator, problem, control, self._config.context.alternatives, needed
                )
                best = max(found, key=lambda pair: verification.probability(pair[1], rung.estimator.name))
                yield self._judged(question, problem, *best, wanted)
            except NoEstimateError as error:
                yield Answer.rejected(
                    Reason.NO_OVERLAP, str(error), stage=stage, real_frames=len(problem.views)
                )

    def _min_probability(self, question: Question) -> float:
        asked = question.min_probability
        return self._config.verification.min_probability if asked is None else asked

    def _judged(
        self,
        question: Question,
        problem: Problem,
        estimate: Estimate,
        evidence: Evidence,
        min_probability: float,
    ) -> Answer:
        settings = self._config.verification
        verdict = verification.judge(estimate, evidence, settings, min_probability)
        known: dict[str, Any] = {
            "stage": estimate.stage,
            "estimator": estimate.estimator,
            "probability": verdict.probability,
            "real_frames": len(estimate.T_reference_camera),
            "evidence": evidence,
        }
        if verdict.reason is not Reason.NONE:
            return Answer.rejected(verdict.reason, verdict.text, **known)
        try:
            metres = scale.metric_scale(problem, estimate, self._config.scale)
        except scale.NoScaleError as error:
            if error.reason is Reason.SCALE_CONFLICT:
                return Answer.rejected(error.reason, str(error), **known)
            metres = scale.unknown(str(error))
        twin = verification.one_thing(evidence, metres.factor, question, self._config) if metres.known else ""
        if twin:
            return Answer.rejected(Reason.AMBIGUOUS, twin, **known)
        T, matrix = covariance.with_scale(estimate, metres.factor, metres.sigma)
        translation, doubt = covariance.translation(estimate, matrix if metres.known else None, settings)
        cameras = scaled_cameras(estimate.T_reference_camera, metres.factor)
        known["evidence"] = dataclasses.replace(evidence, points=metres.factor * evidence.points)
        claim = gates.Claim(cameras, matrix, translation, estimate.unleveled)
        if found := gates.conflict(claim, question, problem, self._config.gates):
            return Answer.rejected(*found, **known)
        return Answer(
            status=Status.ACCEPTED,
            reason=_shortfall(translation, question.require),
            reason_text=doubt or ("" if metres.known else metres.name),
            translation=translation,
            scale_source=metres.source,
            scale_sigma=metres.sigma if translation is Translation.METRIC else float("nan"),
            cameras={problem.views[view].id: camera for view, camera in cameras.items()},
            covariances=self._covariances(problem, estimate, evidence, metres),
            _T_reference_target=T,
            _covariance=matrix,
            _direction_sigma_rad=covariance.direction_sigma_rad(estimate),
            **known,
        )

    def _covariances(
        self, problem: Problem, estimate: Estimate, evidence: Evidence, metres: scale.Scale
    ) -> dict[str, NDArray[np.float64]]:
        """Of the target, and of the view of its side that is tied best.

        Where distances are the unit, each has its own: with the target's, how far that one is would be in the
        other one's covariance, and in the scale's.
        """
        if not metres.known:
            return {}
        names = [view.id for view in problem.views]
        found = {names[1]: covariance.with_scale(estimate, metres.factor, metres.sigma)[1]}
        tied = names.index(evidence.target_view_id)
        if tied == 1:
            return found
        own, sigma = estimate, metres.sigma
        if not estimate.rigid_sides:
            joint = bundle.with_fixed_baseline(
                estimate.joint_covariance, estimate.covariance_views, estimate.T_reference_camera, (0, tied)
            )
            own = dataclasses.replace(estimate, joint_covariance=joint)
            try:
                sigma = scale.metric_scale(problem, own, self._config.scale).sigma
            except scale.NoScaleError:
                return found
        return {**found, names[tied]: covariance.with_scale(own, metres.factor, sigma, tied)[1]}

    def _poor_views(self, question: Question) -> str:
        """Why the two views cannot be used, or nothing."""
        if question.min_stage > Stage.REGISTER:
            return ""  # others see for them
        if np.array_equal(question.reference.image, question.target.image):
            return "reference and target are the same picture"
        needed = self._config.verification.min_tracks
        for view in (question.reference, question.target):
            found = self._store.features(view).plain_points
            if found < needed:
                return (
                    f"view {view.id} shows {found} points that can be told apart, {needed} are needed: "
                    "is it dark, blurred or blank?"
                )
        return ""


def _shortfall(translation: Translation, require: Require) -> Reason:
    """Why an accepted answer holds less than was asked for."""
    if int(translation) >= int(require):
        return Reason.NONE
    return Reason.LOW_PARALLAX if translation is Translation.UNDEFINED else Reason.NO_SCALE


def _worth(answer: Answer) -> tuple[bool, int, float]:
    """What makes one answer better than another: accepted, how much it says, and how exactly or surely."""
    if answer.accepted:
        return True, int(answer.translation), -answer.rotation_sigma_rad
    return False, int(answer.translation), float(np.nan_to_num(answer.probability, nan=-1.0))


def _takes_back(answer: Answer, best: Answer) -> bool:
    """Whether a later rung, which sees more, doubts what had no metres to be judged by."""
    return best.accepted and best.scale_source is ScaleSource.NONE and answer.reason is Reason.AMBIGUOUS


def _open(best: Answer) -> bool:
    """Whether guessing may help: nothing is known, and not because a picture shows nothing."""
    return not best.accepted and best.reason is not Reason.POOR_VIEWS


def _guessed(best: Answer, guess: Answer) -> Answer:
    """What comes of a guess, after no real rung had an answer."""
    log.info("%s: %s %s", guess.stage.name, guess.status.name, guess.reason_text)
    if guess.status > Status.REJECTED:
        return guess
    return dataclasses.replace(best, reason_text=f"{best.reason_text}; no guess either: {guess.reason_text}")


def _agree(a: Answer, b: Answer) -> bool:
    """Whether two accepted answers differ by no more than they are uncertain."""
    known = Translation.UNDEFINED not in (a.translation, b.translation)
    T_a, T_b = (rigid.make(x.rotation, x.direction if known else np.zeros(3)) for x in (a, b))
    turn_deg = np.degrees(CERTAIN_SIGMA * np.hypot(a.rotation_sigma_rad, b.rotation_sigma_rad))
    shift_deg = (
        np.degrees(CERTAIN_SIGMA * np.hypot(a.direction_sigma_rad, b.direction_sigma_rad)) if known else 0.0
    )
    return verification.same_pose(
        T_a,
        T_b,
        known,
        max(turn_deg, verification.SAME_ROTATION_DEG),
        max(shift_deg, verification.SAME_DIRECTION_DEG),
    )


def _contradiction(a: Answer, b: Answer) -> Answer:
    """One of two accepted answers is wrong, and which is not known."""
    return Answer.rejected(
        Reason.INCONSISTENT,
        f"{a.stage.name.lower()} and {b.stage.name.lower()} each found a good answer, but not the same one",
        stage=b.stage,
        evidence=b.evidence,
        real_frames=b.real_frames,
    )
