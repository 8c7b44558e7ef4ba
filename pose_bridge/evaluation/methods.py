# SPDX-License-Identifier: Apache-2.0
"""What can be asked about a pair: the bridge's rungs, a network, and InterPose's rules for generated videos.

direct             the two views, matched and judged
context            with the real views around both ends, matched and judged
pair               the network on the two views
true-frames        the network with true frames between the two: what a perfect video would give
generated-average  the network on subsets of generated videos, all poses averaged
d_med              the medoid of the video whose subsets agree best
d_total            the same, and with the two views alone: InterPose
oracle             of all those poses the one nearest to the truth
generated          the bridge's rung of generated views, hypotheses and what agreement makes of them

Only those that can say no are asked about pairs of two places.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pose_bridge import corroboration, generated
from pose_bridge.bridge import Bridge
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import BadInputError, ConfigError, NoEstimateError, OutOfMemoryError
from pose_bridge.estimators.base import Array
from pose_bridge.evaluation import metrics
from pose_bridge.evaluation.datasets.base import Scene
from pose_bridge.evaluation.datasets.pairs import Pair
from pose_bridge.generated import GeneratedRung, Models
from pose_bridge.generators import base as generators
from pose_bridge.geometry import distances
from pose_bridge.geometry.cameras import Camera
from pose_bridge.selection import consensus
from pose_bridge.views import Answer, Question, Require, Stage, Status, Translation, View

BRIDGE = ("direct", "context", "generated")
NETWORK = ("pair", "true-frames")
VIDEOS = ("generated-average", "d_med", "d_total", "oracle")
NAMES = (*BRIDGE, *NETWORK, *VIDEOS)
WITHOUT_MODELS = ("direct", "context")


@dataclass(frozen=True, eq=False)
class Said:
    """What one method says about one pair.

    Attributes:
        T_reference_target: (4, 4); None without an answer.
        directed: Its translation means a direction.
        metric: Its length means metres.
        score: By which its answers are ranked, more being surer; None where it ranks none.
        why: It gave no answer.
        seconds: That it took.
        hypothesis: It says itself that nothing real stands behind it.
        promotable: Enough attempts could agree to make an answer of a hypothesis.
        drawn_px: How far off points are that are drawn into the target's picture by it (Map-free's VCRE);
            None without metres.
    """

    T_reference_target: Array | None
    directed: bool = True
    metric: bool = False
    score: float | None = None
    why: str = ""
    seconds: float = 0.0
    hypothesis: bool = False
    promotable: bool = False
    drawn_px: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether it stands behind its answer: a hypothesis is none."""
        return self.T_reference_target is not None and not self.hypothesis


@dataclass(frozen=True, eq=False)
class Asked:
    """A pair, read.

    Attributes:
        question: About it, with the views around its ends.
        between: True frames between the two.
        T_reference_target: The truth, (4, 4); None for two places.
    """

    question: Question
    between: tuple[View, ...]
    T_reference_target: Array | None


class Panel:
    """Methods that are asked about pairs, one after the other.

    Args:
        config: Settings; those of a profile with models for the methods that need them.
        names: Of the methods.
        loader: Gives the models.
        odometry: Views of a side know how they lie to each other, where the data set has metres.

    Raises:
        BadInputError: A method is unknown or named twice.
        ConfigError: The settings name no weights for a method that needs them.
        ModelError: The weights are missing, or of another model.
    """

    def __init__(
        self,
        config: Config,
        names: Sequence[str],
        loader: Callable[[Config], Models] = generated.load,
        *,
        odometry: bool = False,
    ) -> None:
        for name in names:
            if name not in NAMES or list(names).count(name) > 1:
                raise BadInputError(f"method {name!r}: name some of {', '.join(NAMES)}, each once")
        self._config, self._names, self._odometry = config, tuple(names), odometry
        self._models: Models | None = None
        learned = [name for name in names if name not in WITHOUT_MODELS]
        if learned:
            if not GeneratedRung.configured(config):
                raise ConfigError(f"{', '.join(learned)}: need models; add --profile with some")
            self._models = loader(config)

    def read(self, scene: Scene, there: Scene, pair: Pair, seed: int) -> Asked:
        """Read the photographs of a pair.

        Args:
            scene: Where the reference is.
            there: Where the target is.
            pair: Which.
            seed: Of what is random.

        Raises:
            BadInputError: One cannot be read.
        """
        around = bool({"context", "generated"} & set(self._names))
        sides = (scene, pair.reference, pair.reference_context), (there, pair.target, pair.target_context)
        (reference, *near_reference), (target, *near_target) = (
            self._views(place, end, context if around else ()) for place, end, context in sides
        )
        question = Question(
            reference=reference,
            target=target,
            reference_context=tuple(near_reference),
            target_context=tuple(near_target),
            require=Require.METRIC if self._odometry and scene.metric else Require.DIRECTION,
            seed=(seed + zlib.crc32(pair.id.encode())) % 2**63,
        )
        if there is not scene:
            return Asked(question, (), None)
        between = pair.between if "true-frames" in self._names else ()
        known = scene.T_reference_target(pair.reference, pair.target)
        return Asked(question, tuple(scene.frame(name).view() for name in between), known)

    def _views(self, scene: Scene, end: str, around: Sequence[str]) -> Iterator[View]:
        """The views of one side, the end first, named by their scene too: places may share names."""
        for name in (end, *around):  # each side has a frame of its own, the end's: poses say nothing across
            known = scene.T_reference_target(end, name) if self._odometry and scene.metric else None
            yield replace(scene.frame(name).view(), id=f"{scene.name}/{name}", T_side_camera=known)

    def ask(self, asked: Asked) -> dict[str, Said]:
        """Ask all methods about a pair."""
        T_true = asked.T_reference_target
        found: dict[str, Said] = {}
        for name in self._names:
            if name in BRIDGE:
                found[name] = self._by_bridge(asked.question, name)
            elif name in NETWORK and T_true is not None:
                found[name] = self._by_network(asked, name)
        if set(VIDEOS) & set(self._names) and T_true is not None:
            found |= self._by_videos(asked.question, T_true)
        camera = asked.question.target.camera
        return {name: _drawn(found[name], T_true, camera) for name in self._names if name in found}

    def _by_bridge(self, question: Question, name: str) -> Said:
        if name == "generated":
            return self._by_rung(replace(question, allow_hypothesis=True))
        asked = replace(question, max_stage=Stage.CONTEXT)
        if name == "direct":
            asked = replace(asked, reference_context=(), target_context=(), max_stage=Stage.DIRECT)
        return _of_answer(Bridge(self._config).answer(asked))  # one that remembers nothing: times compare

    def _by_rung(self, question: Question) -> Said:
        models, control, settings = self._models, Control(), self._config.generated
        assert models is not None
        attempts = len(corroboration.split(question, settings, self._config.keyframes))
        promotable = attempts >= settings.agreeing
        answer = GeneratedRung(self._config, lambda _: models).answer(question, control)
        return replace(_of_answer(replace(answer, elapsed_s=control.elapsed_s)), promotable=promotable)

    def _by_network(self, asked: Asked, name: str) -> Said:
        start_s, question = time.monotonic(), asked.question
        between = asked.between if name == "true-frames" else ()
        if name == "true-frames" and not between:
            return Said(None, why="no frame was taken between the two")
        views = [question.reference, *between, question.target]
        try:
            (T,) = self._guessed([views], question)
        except (NoEstimateError, OutOfMemoryError) as error:
            return Said(None, why=str(error), seconds=time.monotonic() - start_s)
        return Said(T, seconds=time.monotonic() - start_s)

    def _guessed(self, sets: Sequence[Sequence[View]], question: Question) -> Iterator[Array]:
        assert self._models is not None
        for guess in self._models.guesser.estimate_many(sets, Control()):
            yield generated.to_unit(guess.T_reference_camera[question.target.id])

    def _by_videos(self, question: Question, T_true: Array) -> dict[str, Said]:
        """All four rules on the same videos and the same subsets, none of them stopped early."""
        assert self._models is not None
        settings, start_s = self._config.generated, time.monotonic()
        generator = self._models.generator
        try:
            (T_pair,) = self._guessed([[question.reference, question.target]], question)
            made = [
                generator.video(question.reference, question.target, take, Control())
                for take in generators.takes(len(generator.prompts), settings.videos, question.seed)
            ]
            videos = [video for video in made if not video.fault]
            if not videos:
                raise NoEstimateError(f"no video bridges the views: {made[0].fault}")
            parts = generated.parts_of(question, videos, settings)
            poses = [np.array(list(self._guessed(sets, question))) for sets in parts]
        except (NoEstimateError, OutOfMemoryError) as error:
            seconds = time.monotonic() - start_s
            return dict.fromkeys(VIDEOS, Said(None, why=str(error), seconds=seconds))
        choice, everything = consensus.choose(poses, T_pair), np.concatenate(poses)
        steady = int(choice.d_med_deg.argmin())
        nearest = int(_off_deg(everything, T_true).argmin())
        chosen: dict[str, tuple[Array, float | None]] = {
            "generated-average": (consensus.average(everything), None),
            "d_med": (choice.medoids[steady], -float(choice.d_med_deg[steady])),
            "d_total": (choice.T_reference_target, -float(choice.d_total_deg[choice.video])),
            "oracle": (everything[nearest], None),
        }
        seconds = time.monotonic() - start_s
        return {name: Said(T, score=score, seconds=seconds) for name, (T, score) in chosen.items()}


def _off_deg(poses: Array, T_true: Array) -> Array:
    """How far poses (N, 4, 4) are off: rotation and direction together, or rotation where there is none."""
    if distances.has_direction(T_true[:3, 3]):
        return consensus.distances_deg(poses, T_true)
    return np.array([distances.rotation_error_deg(T[:3, :3], T_true[:3, :3]) for T in poses])


def _drawn(said: Said, T_true: Array | None, camera: Camera) -> Said:
    if T_true is None or said.T_reference_target is None or not said.metric:
        return said
    error_px = metrics.virtual_correspondence_error_px(said.T_reference_target, T_true, camera)
    return replace(said, drawn_px=error_px)


def _of_answer(answer: Answer) -> Said:
    score = answer.probability if np.isfinite(answer.probability) else None
    hypothesis = answer.status is Status.HYPOTHESIS
    if answer.status is not Status.ACCEPTED and not hypothesis:
        return Said(None, why=answer.reason.name, seconds=answer.elapsed_s)
    directed = answer.translation is not Translation.UNDEFINED
    T = np.eye(4)
    T[:3, :3] = answer.rotation
    if answer.translation is Translation.METRIC:
        T = answer.T_reference_target
    elif directed:
        T[:3, 3] = answer.direction
    metric = answer.translation is Translation.METRIC
    return Said(
        T, directed=directed, metric=metric, score=score, seconds=answer.elapsed_s, hypothesis=hypothesis
    )
