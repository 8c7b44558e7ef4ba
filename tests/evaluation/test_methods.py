# SPDX-License-Identifier: Apache-2.0
"""What each method is asked, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation import walks

from pose_bridge.config import Config
from pose_bridge.errors import BadInputError, ConfigError, NoEstimateError
from pose_bridge.estimators.base import Guess
from pose_bridge.evaluation.datasets.base import Scene
from pose_bridge.evaluation.datasets.layouts import opened
from pose_bridge.evaluation.datasets.pairs import Pair, PairRule, draw
from pose_bridge.evaluation.methods import NAMES, NETWORK, VIDEOS, Panel, Said
from pose_bridge.generated import Models
from pose_bridge.generators.base import Take, Video
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.models import configured
from pose_bridge.selection import consensus
from pose_bridge.views import View


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Pair]:
    dataset = opened(walks.write(tmp_path_factory.mktemp("walks")))
    (pair,) = draw(dataset, PairRule(yaw_deg=(17.0, 19.0), count=1, context=1))
    return dataset.scene(pair.scene), pair


class Guesser:
    """Knows the truth, but is off by the first picture's own error; generated ones are named after it."""

    name = "guesser"

    def __init__(self, T_true: np.ndarray) -> None:
        self.T_true = T_true
        self.asked: list[list[str]] = []

    def estimate_many(
        self, sets: Sequence[Sequence[View]], control: object, depth: bool = False
    ) -> list[Guess]:
        guesses = []
        for views in sets:
            names = [view.id for view in views]
            self.asked.append(names)
            off_deg = sum(float(name.split("off ")[1]) for name in names if "off " in name) / max(
                1, len(names) - 2
            )
            off_deg = off_deg if any("off " in name for name in names) else 12.0 - 3.0 * (len(names) - 2)
            turn = rotations.so3_exp(np.radians([0.0, off_deg, 0.0]))
            T = rigid.make(turn @ self.T_true[:3, :3], 5.0 * self.T_true[:3, 3])
            poses = {**dict.fromkeys(names, T), names[0]: np.eye(4)}
            guesses.append(Guess(poses, dict.fromkeys(names, 1.0), {}))
        return guesses


class Generator:
    """Videos whose frames are off by other amounts: the first steadily, the last hardly but unsteadily."""

    name, prompts = "generator", ("walk",)
    off_deg = ((8.0,) * 6, (0.5, 9.0, 0.2, 12.0, 0.1, 0.3), (20.0, 1.0, 30.0, 5.0, 25.0, 3.0))

    def __init__(self, faults: tuple[int, ...] = ()) -> None:
        self._made, self._faults = 0, faults

    def video(self, reference: View, target: View, take: Take, control: object) -> Video:
        number, self._made = self._made, self._made + 1
        views = tuple(
            View(id=f"{number}.{k} off {off}", image=reference.image, camera=reference.camera)
            for k, off in enumerate(self.off_deg[number])
        )
        return Video(views, "it is black" if number in self._faults else "")


LEARNED = configured(
    {
        "vggt": {"weights": "somewhere"},
        "ltx": {"weights": "somewhere"},
        "generated": {"videos": 3, "subsets": 6, "subset_views": 4},
    }
)


def panel(asked: tuple[Scene, Pair], *names: str, faults: tuple[int, ...] = ()) -> tuple[Panel, Guesser]:
    scene, pair = asked
    guesser = Guesser(scene.T_reference_target(pair.reference, pair.target))
    return Panel(LEARNED, names, lambda config: Models(Generator(faults), guesser)), guesser


def answers(panel: Panel, asked: tuple[Scene, Pair]) -> dict[str, Said]:
    scene, pair = asked
    return panel.ask(panel.read(scene, scene, pair, seed=0))


def off_deg(said: object, asked: tuple[Scene, Pair]) -> float:
    scene, pair = asked
    T_true = scene.T_reference_target(pair.reference, pair.target)
    return distances.rotation_error_deg(said.T_reference_target[:3, :3], T_true[:3, :3])


def test_the_bridge_answers_with_a_probability(asked: tuple[Scene, Pair]) -> None:
    said = answers(Panel(Config(), ("context", "direct")), asked)
    assert list(said) == ["context", "direct"]
    assert off_deg(said["context"], asked) < 2.0
    assert 0.8 <= said["context"].score <= 1.0
    assert not said["context"].metric
    for one in said.values():
        assert one.seconds > 0.0
        assert (one.T_reference_target is None) == bool(one.why)


def test_the_network_sees_the_two_or_true_frames_too(asked: tuple[Scene, Pair]) -> None:
    asking, guesser = panel(asked, *NETWORK)
    said = answers(asking, asked)
    scene, pair = asked
    ends = [f"{scene.name}/{name}" for name in (pair.reference, pair.target)]
    assert guesser.asked == [ends, [ends[0], *pair.between, ends[1]]]
    assert len(pair.between) == 2
    assert off_deg(said["pair"], asked) == pytest.approx(12.0, abs=1e-3)
    assert off_deg(said["true-frames"], asked) == pytest.approx(6.0, abs=1e-3)
    assert np.linalg.norm(said["pair"].T_reference_target[:3, 3]) == pytest.approx(1.0)
    assert said["pair"].score is None


def test_all_rules_see_the_same_subsets(asked: tuple[Scene, Pair]) -> None:
    asking, guesser = panel(asked, *VIDEOS)
    said = answers(asking, asked)
    assert len(guesser.asked) == 1 + 3 * 6
    assert off_deg(said["d_med"], asked) == pytest.approx(8.0, abs=1e-3)  # the steadiest
    assert off_deg(said["d_total"], asked) == pytest.approx(8.0, abs=1e-3)
    poses = []
    for names in guesser.asked[1:]:
        guess = guesser.estimate_many([[_named(name) for name in names]], None)[0]
        poses.append(guess.T_reference_camera[names[-1]])
    apart = consensus.distances_deg(np.array(poses), guesser.T_true)
    assert off_deg(said["oracle"], asked) == pytest.approx(apart.min(), abs=1e-3)
    average = consensus.average(np.array(poses))
    np.testing.assert_allclose(
        said["generated-average"].T_reference_target[:3, :3], average[:3, :3], atol=1e-9
    )
    assert said["d_total"].score == pytest.approx(-(12.0 - 8.0), abs=1e-3)
    assert said["d_med"].score == pytest.approx(0.0, abs=1e-3)


class _Name:
    def __init__(self, name: str) -> None:
        self.id = name


def _named(name: str) -> _Name:
    return _Name(name)


def test_videos_with_faults_are_not_looked_at(asked: tuple[Scene, Pair]) -> None:
    asking, guesser = panel(asked, "d_med", faults=(0,))
    answers(asking, asked)
    assert len(guesser.asked) == 1 + 2 * 6
    asking, _ = panel(asked, "d_med", "oracle", faults=(0, 1, 2))
    said = answers(asking, asked)
    for one in said.values():
        assert one.T_reference_target is None
        assert "it is black" in one.why


def test_a_network_without_an_answer(asked: tuple[Scene, Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    asking, guesser = panel(asked, "pair", "d_total")

    def fails(*args: object, **more: object) -> None:
        raise NoEstimateError("no camera")

    monkeypatch.setattr(guesser, "estimate_many", fails)
    said = answers(asking, asked)
    assert [(one.T_reference_target, one.why) for one in said.values()] == [(None, "no camera")] * 2


def test_methods_that_cannot_be_asked() -> None:
    with pytest.raises(BadInputError, match="each once"):
        Panel(Config(), ("direct", "guess"))
    with pytest.raises(BadInputError, match="each once"):
        Panel(Config(), ("direct", "direct"))
    for name in set(NAMES) - {"direct", "context"}:
        with pytest.raises(ConfigError, match="--profile"):
            Panel(Config(), ("direct", name))


def test_of_two_places_only_those_are_asked_who_can_say_no(asked: tuple[Scene, Pair], tmp_path: Path) -> None:
    scene, pair = asked
    dataset = opened(walks.write(tmp_path, (4,)))
    there = dataset.scene("room4")
    elsewhere = replace(pair, target_scene="room4", rotation_deg=None, yaw_deg=None, between=())
    asking, guesser = panel(asked, "direct", "context", "pair", "d_total")
    said = asking.ask(asking.read(scene, there, elsewhere, seed=0))
    assert list(said) == ["direct", "context"]
    assert not guesser.asked
    assert all(one.T_reference_target is None and one.why for one in said.values())


def test_odometry_is_known_within_a_side_where_there_are_metres(asked: tuple[Scene, Pair]) -> None:
    scene, pair = asked
    for metric, known in ((True, 3), (False, 0)):
        place = replace(scene, metric=metric)
        question = Panel(Config(), ("context",), odometry=True).read(place, place, pair, 0).question
        views = [question.reference, *question.reference_context, question.target]
        posed = [view for view in views if view.T_side_camera is not None]
        assert len(posed) == min(known, len(views))


def test_odometry_is_the_truth_and_says_nothing_across(asked: tuple[Scene, Pair]) -> None:
    scene, pair = replace(asked[0], metric=True), asked[1]
    question = Panel(Config(), ("context",), odometry=True).read(scene, scene, pair, 0).question
    for end, near, name, names in (
        (question.reference, question.reference_context, pair.reference, pair.reference_context),
        (question.target, question.target_context, pair.target, pair.target_context),
    ):
        np.testing.assert_allclose(end.T_side_camera, np.eye(4), atol=1e-9)
        for view, other in zip(near, names, strict=True):
            moved = rigid.relative(end.T_side_camera, view.T_side_camera)
            np.testing.assert_allclose(moved, scene.T_reference_target(name, other), atol=1e-9)


def test_metres_are_judged_in_the_picture_too(asked: tuple[Scene, Pair]) -> None:
    scene, pair = replace(asked[0], metric=True), asked[1]
    asking = Panel(Config(), ("context", "direct"), odometry=True)
    said = asking.ask(asking.read(scene, scene, pair, 0))
    assert said["context"].metric
    assert 0.0 < said["context"].drawn_px < 20.0
    assert said["direct"].drawn_px is None


def test_hypotheses_are_told_from_answers(asked: tuple[Scene, Pair]) -> None:
    asking, _ = panel(asked, "generated")
    (said,) = answers(asking, asked).values()
    assert (said.hypothesis, said.score, said.metric) == (True, None, False)
    assert off_deg(said, asked) < 25.0


def test_a_photograph_that_cannot_be_read(tmp_path: Path) -> None:
    dataset = opened(walks.write(tmp_path))
    (pair,) = draw(dataset, PairRule(yaw_deg=(17.0, 19.0), count=1))
    (tmp_path / pair.scene / pair.target).write_bytes(b"no picture")
    with pytest.raises(BadInputError, match=pair.target):
        scene = dataset.scene(pair.scene)
        Panel(Config(), ("direct",)).read(scene, scene, pair, seed=0)
