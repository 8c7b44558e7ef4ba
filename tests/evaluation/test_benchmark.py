# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, go on, and are shared; and what is reported of them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from synthetic import arc

from pose_bridge.config import Config
from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import benchmark, report
from pose_bridge.evaluation.benchmark import Row, Run
from pose_bridge.evaluation.datasets.base import Frame, Scene
from pose_bridge.evaluation.datasets.pairs import PairList, PairRule, draw
from pose_bridge.evaluation.methods import Said
from pose_bridge.evaluation.summary import summary
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View

CAMERA = Camera.from_focal_px(60.0, 64, 48)
METHODS = ("direct", "pair")
SCENES = [f"scene{number:02d}" for number in range(10)]


def view() -> View:
    return View(id="v", image=np.full((48, 64, 3), 90, np.uint8), camera=CAMERA)


class Walks:
    """Ten scenes of twelve frames, ten degrees apart."""

    def scenes(self) -> list[str]:
        return SCENES

    def scene(self, name: str) -> Scene:
        frames = [
            Frame(f"{step}", T, view) for step, T in enumerate(arc([10.0 * step for step in range(12)]))
        ]
        return Scene(name, frames, metric=True)


RULE = PairRule(yaw_deg=(25.0, 95.0), count=60)
PAIRS = PairList(dataset="walks:here", rule=RULE, pairs=tuple(draw(Walks(), RULE)))
RUN = Run.of("walks:here", PAIRS, METHODS, Config(), 0)


class Told:
    """Answers by rule: `direct` is sure and right but for one in ten, `pair` is 20 degrees off."""

    def __init__(self, die_after: int | None = None, unreadable: str = "") -> None:
        self.asked: list[str] = []
        self._left, self._unreadable = die_after, unreadable

    def read(self, scene: Scene, pair: object, seed: int) -> tuple[Scene, object]:
        if pair.id == self._unreadable:
            raise BadInputError("damaged")
        return scene, pair

    def ask(self, asked: tuple[Scene, object]) -> dict[str, Said]:
        scene, pair = asked
        if self._left is not None and len(self.asked) == self._left:
            raise KeyboardInterrupt
        self.asked.append(pair.id)
        T = scene.T_reference_target(pair.reference, pair.target)
        return {"direct": self._direct(pair, T), "pair": Said(turned(T, 20.0), seconds=2.0)}

    @staticmethod
    def _direct(pair: object, T: np.ndarray) -> Said:
        number = PAIRS.pairs.index(pair)
        if pair.yaw_deg > 65.0:
            return Said(None, why="NO_OVERLAP", seconds=1.0)
        wrong = number % 10 == 0
        return Said(turned(T, 40.0 if wrong else 1.0), score=0.85 if wrong else 0.95, seconds=1.0)


def turned(T: np.ndarray, deg: float) -> np.ndarray:
    turn = rotations.so3_exp(np.radians([0.0, deg, 0.0]))
    return rigid.make(turn @ T[:3, :3], turn @ T[:3, 3])


def asked(folder: Path, told: Told, share: tuple[int, int] = (0, 1)) -> list[Row]:
    benchmark.begin(folder, RUN)
    return list(benchmark.answer(Walks(), PAIRS, told, folder, 0, share))


def test_every_pair_is_asked_once_and_written_down(tmp_path: Path) -> None:
    told = Told()
    answered = asked(tmp_path, told)
    assert sorted(told.asked) == sorted(pair.id for pair in PAIRS.pairs)
    kept = benchmark.rows(tmp_path)
    assert [row.pair for row in kept] == [row.pair for row in answered]
    for row, again in zip(answered, kept, strict=True):
        np.testing.assert_array_equal(row.T_reference_target, again.T_reference_target)
        for name, said in row.said.items():
            other = again.said[name]
            assert (said.score, said.why, said.seconds) == (other.score, other.why, other.seconds)
            assert (said.T_reference_target is None) == (other.T_reference_target is None)
    assert asked(tmp_path, told) == []


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_what_a_kill_leaves_goes_on(cut: int, tmp_path: Path) -> None:
    """The last line may be cut anywhere: its pair is asked again, and nothing else is."""
    first, second = Told(die_after=7), Told()
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path, first)
    path = tmp_path / "answers-0.jsonl"
    path.write_bytes(path.read_bytes()[: -cut or None])
    lost = 1 if cut else 0
    assert len(benchmark.rows(tmp_path)) == 7 - lost
    asked(tmp_path, second)
    assert len(second.asked) == len(PAIRS.pairs) - 7 + lost
    assert sorted(row.pair.id for row in benchmark.rows(tmp_path)) == sorted(pair.id for pair in PAIRS.pairs)


def test_processes_share_the_pairs_and_one_goes_on_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path, Told(die_after=9), (0, 2))
    second = Told()
    asked(tmp_path, second, (1, 2))
    assert len(second.asked) == 30
    alone = Told()
    asked(tmp_path, alone)
    assert len(alone.asked) == 60 - 30 - 9
    assert len(benchmark.rows(tmp_path)) == 60


def test_a_photograph_that_cannot_be_read_is_an_answer_that_is_missing(tmp_path: Path) -> None:
    answered = asked(tmp_path, Told(unreadable=PAIRS.pairs[3].id))
    assert len(answered) == 60
    (row,) = (row for row in benchmark.rows(tmp_path) if row.error)
    assert (row.pair, row.error, row.said) == (PAIRS.pairs[3], "damaged", {})
    numbers = summary(benchmark.rows(tmp_path), METHODS)
    assert (numbers["pairs"], numbers["unreadable"]) == (60, 1)
    assert numbers["methods"]["pair"]["answered"] == 59
    again = Told()  # it can be read by now
    asked(tmp_path, again)
    assert again.asked == [PAIRS.pairs[3].id]
    numbers = summary(benchmark.rows(tmp_path), METHODS)
    assert (numbers["pairs"], numbers["unreadable"]) == (60, 0)


def test_two_do_not_write_into_one_file(tmp_path: Path) -> None:
    benchmark.begin(tmp_path, RUN)
    first = benchmark.answer(Walks(), PAIRS, Told(), tmp_path, 0)
    next(first)
    with pytest.raises(BadInputError, match="another process"):
        asked(tmp_path, Told())
    assert len(list(first)) == 59


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"methods": ("direct",)}, "methods"),
        ({"seed": 1}, "seed"),
        ({"pairs": "others"}, "pairs"),
        ({"settings": "others"}, "settings"),
        ({"dataset": "other:one"}, "dataset"),
    ],
)
def test_a_folder_holds_answers_to_one_thing(change: dict, name: str, tmp_path: Path) -> None:
    benchmark.begin(tmp_path, RUN)
    benchmark.begin(tmp_path, RUN)
    with pytest.raises(BadInputError, match=rf"\({name}\)"):
        benchmark.begin(tmp_path, dataclasses.replace(RUN, **change))


def test_settings_and_pairs_make_another_run() -> None:
    fewer = dataclasses.replace(PAIRS, pairs=PAIRS.pairs[1:])
    assert Run.of("walks:here", fewer, METHODS, Config(), 0).pairs != RUN.pairs
    assert Run.of("walks:here", PAIRS, METHODS, Config(), 0) == RUN
    slower = dataclasses.replace(Config(), bridge=dataclasses.replace(Config().bridge, budget_s=99.0))
    assert Run.of("walks:here", PAIRS, METHODS, slower, 0).settings != RUN.settings


def test_rubbish_in_a_folder_is_named(tmp_path: Path) -> None:
    asked(tmp_path, Told())
    path = tmp_path / "answers-0.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(BadInputError, match="line 1"):
        benchmark.rows(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadInputError, match=r"run\.json"):
        benchmark.begin(tmp_path, RUN)
    with pytest.raises(BadInputError, match="cannot be written to"):
        benchmark.begin(path / "below", RUN)


# --- the report


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return asked(tmp_path_factory.mktemp("run"), Told())


def test_numbers_by_hand(rows: list[Row]) -> None:
    numbers = summary(rows, METHODS)
    near = [pair for pair in PAIRS.pairs if pair.yaw_deg <= 65.0]
    wrong = sum(PAIRS.pairs.index(pair) % 10 == 0 for pair in near)
    direct, pair = (numbers["methods"][name] for name in METHODS)
    assert (numbers["pairs"], numbers["scenes"], numbers["drawn_by"]) == (60, 10, "scene")
    assert (direct["answered"], direct["right"]) == (len(near), len(near) - wrong)
    assert direct["median rotation error"]["value"] == pytest.approx(1.0, abs=1e-3)
    mean = (40.0 * wrong + len(near) - wrong) / len(near)
    assert direct["mean rotation error"]["value"] == pytest.approx(mean, abs=1e-3)
    assert direct["R@5"]["value"] == pytest.approx((len(near) - wrong) / 60)
    low, high = direct["R@5"]["interval95"]
    assert low < direct["R@5"]["value"] < high
    assert (pair["answered"], pair["right"]) == (60, 0)
    assert pair["R@30"]["value"] == 1.0
    assert pair["AUC30"]["value"] == pytest.approx(10 / 30)
    better = numbers["differences"]["pair"]["R@30"]
    assert better["value"] == pytest.approx(1.0 - direct["R@30"]["value"])
    assert better["interval95"][0] > 0.0
    paired = numbers["differences"]["pair"]["median rotation error"]
    assert paired["n"] == len(near)
    assert paired["value"] == pytest.approx(19.0, abs=1e-3)
    bins = numbers["by_rotation_deg"]
    assert sum(of_bin["pairs"] for of_bin in bins.values()) == 60
    assert bins["65-90"]["methods"]["direct"]["answered"] == 0
    decided = numbers["decisions"]["direct"]
    assert list(numbers["decisions"]) == ["direct"]
    assert (decided["accepted"], decided["wrong"]) == (len(near), wrong)
    assert decided["MR@P1"] == pytest.approx((len(near) - wrong) / 60)  # wrong ones have the smaller score
    assert decided["coverage"] == pytest.approx(len(near) / 60)


def test_few_scenes_are_not_drawn_anew(rows: list[Row]) -> None:
    some = [row for row in rows if row.pair.scene in SCENES[:3]]
    numbers = summary(some, METHODS)
    assert numbers["drawn_by"] == "reference view"
    low, high = numbers["methods"]["direct"]["mean rotation error"]["interval95"]
    assert low < high


def test_the_report_is_written(rows: list[Row], tmp_path: Path) -> None:
    page = report.write(rows, METHODS, Walks(), tmp_path).read_text()
    assert "60 pairs, 10 scenes." in page
    assert "## Less direct" in page
    for file in ("errors.png", "bins.png", "risk.png", "examples.png"):
        assert f"({file})" in page
        assert (tmp_path / file).stat().st_size > 5000
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["methods"]["direct"]["answered"] > 0


def test_nothing_answered(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to report"):
        report.write([], METHODS, Walks(), tmp_path)
    nobody = [
        Row(
            pair=pair,
            T_reference_target=np.eye(4),
            said={"direct": Said(None, why="NO_OVERLAP")},
        )
        for pair in PAIRS.pairs[:9]
    ]
    page = report.write(nobody, ("direct",), Walks(), tmp_path).read_text()
    assert "| mean rotation error | – |" in page
    assert math.isnan(summary(nobody, ("direct",))["methods"]["direct"]["mean rotation error"]["value"])
    assert json.loads((tmp_path / "report.json").read_text())["decisions"] == {}
