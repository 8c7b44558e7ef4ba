# SPDX-License-Identifier: Apache-2.0
"""Drawing pairs, and keeping them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from synthetic import arc

from pose_bridge.cli.main import main
from pose_bridge.errors import BadInputError
from pose_bridge.evaluation.datasets import pairs
from pose_bridge.evaluation.datasets.base import Frame, Scene
from pose_bridge.evaluation.datasets.pairs import PairList, PairRule, draw, load, save, yaws_deg
from pose_bridge.geometry import rigid, rotations

STEP_DEG = 5.0


class Walks:
    """Scenes with so many photographs, each five degrees farther around."""

    def __init__(self, **lengths: int) -> None:
        self._lengths = lengths
        self.read: set[str] = set()

    def scenes(self) -> list[str]:
        return sorted(self._lengths)

    def scene(self, name: str) -> Scene:
        self.read.add(name)
        poses = arc([STEP_DEG * step for step in range(self._lengths[name])])
        frames = [Frame(f"{index:03d}", T, nobody) for index, T in enumerate(poses)]
        return Scene(name, frames, metric=True)

    def elsewhere(self, name: str) -> list[str]:
        return [other for other in self.scenes() if other != name]

    def alike(self, name: str, other: str) -> list[tuple[str, str]]:
        long = min(self._lengths[name], self._lengths[other]) > 5
        return [("001", "002"), ("003", "004")] if long else []


def nobody() -> None:
    raise AssertionError("drawing reads no picture")


def test_pairs_are_within_the_range_and_once_each() -> None:
    rule = PairRule(yaw_deg=(48.0, 91.0), count=1000)
    drawn = list(draw(Walks(a=20, b=13, c=3), rule))
    steps = {(pair.scene, *sorted((int(pair.reference), int(pair.target)))) for pair in drawn}
    assert len(steps) == len(drawn)
    expected = {
        (scene, first, second)
        for scene, count in (("a", 20), ("b", 13), ("c", 3))
        for first in range(count)
        for second in range(first + 1, count)
        if 48.0 <= STEP_DEG * (second - first) < 91.0
    }
    assert steps == expected
    for pair in drawn:
        assert pair.yaw_deg == pytest.approx(STEP_DEG * abs(int(pair.reference) - int(pair.target)))
        assert pair.rotation_deg == pytest.approx(pair.yaw_deg)
    assert 0.3 < np.mean([pair.reference < pair.target for pair in drawn]) < 0.7


def test_scenes_take_turns_and_have_their_share() -> None:
    walks = Walks(a=40, b=40, c=40, d=12)
    drawn = list(draw(walks, PairRule(yaw_deg=(50.0, 60.0), count=9)))
    assert [len({pair.scene for pair in drawn[at : at + 4]}) for at in (0, 4)] == [4, 4]
    assert walks.read == {"a", "b", "c", "d"}
    few = Walks(a=40, b=40, c=1, d=40)
    assert len(list(draw(few, PairRule(yaw_deg=(50.0, 60.0), count=2)))) == 2
    assert len(few.read) <= 3  # no scene more than it takes
    drawn = list(draw(walks, PairRule(yaw_deg=(50.0, 60.0), count=100, per_scene=2)))
    assert sorted(pair.scene for pair in drawn) == list("aabbccdd")


def test_so_many_of_each_scene() -> None:
    """As papers have it: four of each of some scenes, not one of more; one that has fewer is made up for."""
    walks = Walks(a=40, b=40, c=13, d=40, e=40, f=40)
    drawn = list(draw(walks, PairRule(yaw_deg=(58.0, 62.0), count=12, per_scene=4)))
    count = Counter(pair.scene for pair in drawn)
    assert sum(count.values()) == 12
    assert sorted(count.values()) in ([4, 4, 4], [1, 3, 4, 4])
    assert len(walks.read) <= 4


def test_one_sequence_says_nothing_of_another() -> None:
    """Frames of others are neither between two views nor around one."""

    class Sequences(Walks):
        def scene(self, name: str) -> Scene:
            scene = super().scene(name)
            frames = [
                dataclasses.replace(frame, sequence=f"seq{index // 12}")
                for index, frame in enumerate(scene.frames)
            ]
            return dataclasses.replace(scene, frames=frames)

    across = 0
    for pair in draw(Sequences(a=24), PairRule(yaw_deg=(38.0, 52.0), count=60, context=3)):
        sides = (pair.reference, *pair.reference_context), (pair.target, *pair.target_context)
        own = [{int(name) // 12 for name in side} for side in sides]
        assert [len(numbers) for numbers in own] == [1, 1]
        across += own[0] != own[1]
        assert len(pair.between) == (3 if own[0] == own[1] else 0)
    assert across > 3


def test_the_seed_draws() -> None:
    walks, rule = Walks(a=30, b=30), PairRule(yaw_deg=(50.0, 90.0), count=20, context=2)
    assert list(draw(walks, rule)) == list(draw(walks, rule))
    other = list(draw(walks, dataclasses.replace(rule, seed=1)))
    assert {pair.id for pair in other} != {pair.id for pair in draw(walks, rule)}


def test_each_end_has_its_own_views_around_it() -> None:
    for pair in draw(Walks(a=30), PairRule(yaw_deg=(50.0, 90.0), count=30, context=3)):
        ends = [int(pair.reference), int(pair.target)]
        for end, context in zip(ends, (pair.reference_context, pair.target_context), strict=True):
            assert [int(name) for name in context] == [
                step for step in range(max(0, end - 3), min(29, end + 3) + 1) if step != end
            ]
        between = [int(name) for name in pair.between]
        assert len(between) == 3
        assert between == sorted(between, reverse=ends[0] > ends[1])
        assert min(ends) < min(between) < max(between) < max(ends)


def test_sides_that_meet_share_no_view() -> None:
    for pair in draw(Walks(a=14), PairRule(yaw_deg=(10.0, 16.0), count=30, context=5)):
        assert not set(pair.reference_context) & set(pair.target_context)
        assert not {pair.reference, pair.target} & {*pair.reference_context, *pair.target_context}


def test_yaw_is_about_the_vertical_wherever_that_is() -> None:
    rng = np.random.default_rng(0)
    T_odd_world = rigid.se3_exp(rng.normal(size=6))
    pitch, roll = (rotations.so3_exp(axis) for axis in ([0.3, 0.0, 0.0], [0.0, 0.0, 0.2]))
    level, still = arc([0.0, 20.0, 60.0]), arc([0.0, 0.0, 0.0])
    rolled = [
        T @ rigid.make(turn, [0.0] * 3) for T, turn in zip(still, (np.eye(3), roll, roll.T), strict=True)
    ]
    bowed = [T @ rigid.make(pitch, [0.0] * 3) for T in level]
    for poses, expected in ((level, 60.0), (bowed, 60.0), (rolled, 0.0)):
        frames = [Frame("", T_odd_world @ T, nobody) for T in poses]
        assert yaws_deg(frames)[0, 2] == pytest.approx(expected, abs=1.0)


def test_long_walks_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MOST_FRAMES", 10)
    drawn = list(draw(Walks(a=37), PairRule(yaw_deg=(50.0, 90.0), count=500)))
    assert 10 <= len(drawn) < 45
    assert {int(pair.reference) % 4 for pair in drawn} == {0}


def test_gaps_are_between_the_nearest_views_of_the_sides() -> None:
    (pair,) = draw(Walks(a=21), PairRule(yaw_deg=(99.0, 101.0), count=1, context=3))
    assert pair.rotation_deg == pytest.approx(100.0, abs=1e-2)
    assert pair.gap_deg == pytest.approx(100.0 - 2 * 3 * STEP_DEG, abs=1e-2)


def test_targets_of_other_places_come_after_the_others() -> None:
    rule = PairRule(yaw_deg=(48.0, 91.0), count=30, context=2, elsewhere=70)
    drawn = list(draw(Walks(a=20, b=20, c=20), rule))
    assert [pair.target_scene is None for pair in drawn] == [True] * 30 + [False] * 70
    assert len({pair.id for pair in drawn}) == 100
    assert drawn[:30] == list(draw(Walks(a=20, b=20, c=20), dataclasses.replace(rule, elsewhere=0)))
    alike = [(pair.reference, pair.target) for pair in drawn[30:] if pair.kind == "equal things"]
    assert set(alike) == {("001", "002"), ("003", "004")}
    assert 10 <= len(alike) < 70  # there are twelve at most, as no pair comes twice
    for pair in drawn[30:]:
        assert pair.target_scene != pair.scene
        assert (pair.rotation_deg, pair.yaw_deg, pair.gap_deg, pair.between) == (None, None, None, ())
        for end, around in ((pair.reference, pair.reference_context), (pair.target, pair.target_context)):
            assert 2 <= len(around) <= 4
            assert all(0 < abs(int(name) - int(end)) <= 2 for name in around)


def test_where_other_places_are_unknown_none_are_drawn() -> None:
    class Unknown(Walks):
        def elsewhere(self, name: str) -> list[str]:
            return []

    with pytest.raises(BadInputError, match="other places"):
        list(draw(Unknown(a=20), PairRule(yaw_deg=(48.0, 91.0), count=1, elsewhere=1)))
    with pytest.raises(BadInputError, match="no more than"):
        list(draw(Walks(a=11, b=1), PairRule(yaw_deg=(48.0, 91.0), count=1, elsewhere=1000)))


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    rule = PairRule(yaw_deg=(50.0, 90.0), count=5, context=1, seed=7)
    found = PairList(dataset="scannet:scans", rule=rule, pairs=tuple(draw(Walks(a=30), rule)))
    save(tmp_path / "new" / "pairs.json", found)
    assert load(tmp_path / "new" / "pairs.json") == found
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pairs.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "a", "rule": {}, "pairs": []}'])
def test_what_is_no_list_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match="draw one"):
        load(path)


def test_a_pair_listed_twice_is_refused(tmp_path: Path) -> None:
    path, rule = tmp_path / "pairs.json", PairRule(yaw_deg=(50.0, 90.0), count=1)
    (pair,) = draw(Walks(a=30), rule)
    save(path, PairList(dataset="d", rule=rule, pairs=(pair, pair)))
    with pytest.raises(BadInputError, match="twice"):
        load(path)
    with pytest.raises(BadInputError, match="cannot be written"):
        save(path / "below.json", PairList(dataset="d", rule=rule, pairs=(pair,)))


@pytest.mark.parametrize(
    "given",
    [
        {"yaw_deg": (90.0, 50.0)},
        {"yaw_deg": (-1.0, 5.0)},
        {"count": 0},
        {"per_scene": -1},
        {"context": -1},
        {"elsewhere": -1},
    ],
)
def test_rules_that_cannot_be(given: dict) -> None:
    with pytest.raises(BadInputError):
        PairRule(**{"yaw_deg": (50.0, 90.0), "count": 1, **given})


# --- the command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pose_bridge", "pairs", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def walk(folder: Path) -> Path:
    """A cameras.json of 25 photographs, none of which is there."""
    frames = [
        {"file": f"{index:03d}.jpg", "T_world_camera": T.tolist()}
        for index, T in enumerate(arc([STEP_DEG * step for step in range(25)]))
    ]
    camera = {"width": 64, "height": 48, "K": [[50, 0, 32], [0, 50, 24], [0, 0, 1]]}
    (folder / "walk").mkdir()
    (folder / "walk" / "cameras.json").write_text(json.dumps({**camera, "frames": frames}))
    return folder


def test_the_command_draws_and_saves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, output = f"photographs:{walk(tmp_path)}", tmp_path / "pairs.json"
    assert run(monkeypatch, dataset, "-o", output, "--count", 7, "--context", 2, "--seed", 3) == 0
    found = load(output)
    assert (found.dataset, len(found.pairs)) == (dataset, 7)
    assert found.rule == PairRule(yaw_deg=(50.0, 90.0), count=7, context=2, seed=3)
    assert "7 pairs of one scene" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, dataset, "-o", output) == 2
    assert "--force" in capsys.readouterr().err
    assert run(monkeypatch, dataset, "-o", output, "--yaw", 100, 110, "--force") == 0
    assert "300 were asked for" in " ".join(capsys.readouterr().err.split())


def test_the_command_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pairs.json"
    assert run(monkeypatch, "scans", "-o", output) == 2
    assert "layout:folder" in capsys.readouterr().err
    assert run(monkeypatch, f"photographs:{walk(tmp_path)}", "-o", output, "--yaw", 150, 170) == 1
    assert "150 to 170 degrees" in " ".join(capsys.readouterr().err.split())
    assert not output.exists()
