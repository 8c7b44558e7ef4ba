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
from pose_bridge.evaluation import benchmark, intervals, report, verdicts
from pose_bridge.evaluation.benchmark import Row, Run
from pose_bridge.evaluation.datasets.base import Frame, Scene
from pose_bridge.evaluation.datasets.pairs import PairList, PairRule, draw
from pose_bridge.evaluation.methods import Said
from pose_bridge.evaluation.summary import summary
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.models import configured
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
        return Scene(name, frames, metric=True, kind="left" if name < "scene05" else "right")

    def elsewhere(self, name: str) -> list[str]:
        return [other for other in SCENES if other != name]

    def alike(self, name: str, other: str) -> list[tuple[str, str]]:
        return []


RULE = PairRule(yaw_deg=(25.0, 95.0), count=60)
PAIRS = PairList(dataset="walks:here", rule=RULE, pairs=tuple(draw(Walks(), RULE)))
NEGATIVES = PairList(
    dataset="walks:here",
    rule=dataclasses.replace(RULE, elsewhere=40),
    pairs=tuple(draw(Walks(), dataclasses.replace(RULE, elsewhere=40)))[60:],
)
RUN = Run.of("walks:here", PAIRS, METHODS, Config(), 0)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as it takes to see that an interval is there; what one is worth, test_intervals says."""
    monkeypatch.setattr(intervals, "DRAWS", 200)


class Told:
    """Answers by rule: `direct` is sure and right but for one in ten, `pair` is 20 degrees off."""

    def __init__(self, die_after: int | None = None, unreadable: str = "") -> None:
        self.asked: list[str] = []
        self._left, self._unreadable = die_after, unreadable

    def read(self, scene: Scene, there: Scene, pair: object, seed: int) -> tuple[Scene, object]:
        if pair.id == self._unreadable:
            raise BadInputError("damaged")
        assert there.name == (pair.target_scene or scene.name)
        return scene, pair

    def ask(self, asked: tuple[Scene, object]) -> dict[str, Said]:
        scene, pair = asked
        if self._left is not None and len(self.asked) == self._left:
            raise KeyboardInterrupt
        self.asked.append(pair.id)
        if pair.target_scene is not None:
            return {"direct": self._of_two_places(pair)}
        T = scene.T_reference_target(pair.reference, pair.target)
        return {"direct": self._direct(pair, T), "pair": Said(turned(T, 19.5), seconds=2.0)}

    @staticmethod
    def _of_two_places(pair: object) -> Said:
        """One in twenty is taken for the same place, as surely as half of the true ones."""
        if NEGATIVES.pairs.index(pair) % 20:
            return Said(None, why="NO_OVERLAP", seconds=1.0)
        return Said(np.eye(4), score=0.95, seconds=1.0)

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


def test_a_photograph_that_methods_refuse_stops_nothing(tmp_path: Path) -> None:
    class Picky(Told):
        def ask(self, asked: tuple[Scene, object]) -> dict[str, Said]:
            if asked[1] == PAIRS.pairs[3]:
                raise BadInputError("too small")
            return super().ask(asked)

    assert len(asked(tmp_path, Picky())) == 60
    (row,) = (row for row in benchmark.rows(tmp_path) if row.error)
    assert (row.pair, row.error) == (PAIRS.pairs[3], "too small")


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
        ({"odometry": True}, "odometry"),
    ],
)
def test_a_folder_holds_answers_to_one_thing(change: dict, name: str, tmp_path: Path) -> None:
    benchmark.begin(tmp_path, RUN)
    benchmark.begin(tmp_path, RUN)
    with pytest.raises(BadInputError, match=rf"\({name}\)"):
        benchmark.begin(tmp_path, dataclasses.replace(RUN, **change))


def test_answers_to_nobody_knows_what_are_left_alone(tmp_path: Path) -> None:
    asked(tmp_path, Told())
    (tmp_path / "run.json").unlink()
    with pytest.raises(BadInputError, match=r"no run\.json"):
        benchmark.begin(tmp_path, RUN)
    assert not (tmp_path / "run.json").exists()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadInputError, match="choose another --out"):
        benchmark.begin(tmp_path, RUN)


def test_settings_and_pairs_make_another_run() -> None:
    fewer = dataclasses.replace(PAIRS, pairs=PAIRS.pairs[1:])
    assert Run.of("walks:here", fewer, METHODS, Config(), 0).pairs != RUN.pairs
    assert Run.of("walks:here", PAIRS, METHODS, Config(), 0) == RUN
    slower = dataclasses.replace(Config(), bridge=dataclasses.replace(Config().bridge, budget_s=99.0))
    assert Run.of("walks:here", PAIRS, METHODS, slower, 0).settings != RUN.settings


def test_other_weights_in_the_same_place_make_another_run(tmp_path: Path) -> None:
    settings = configured({"vggt": {"weights": str(tmp_path)}})
    runs = []
    for content in (b"one", b"other"):
        (tmp_path / "model.safetensors").write_bytes(content)
        runs.append(Run.of("walks:here", PAIRS, METHODS, settings, 0).settings)
    assert runs[0] != runs[1]


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
    assert pair["AUC30"]["value"] == pytest.approx(11 / 30)
    better = numbers["differences"]["pair"]["R@30"]
    assert better["value"] == pytest.approx(1.0 - direct["R@30"]["value"])
    assert better["interval95"][0] > 0.0
    paired = numbers["differences"]["pair"]["median rotation error"]
    assert paired["n"] == len(near)
    assert paired["value"] == pytest.approx(18.5, abs=1e-3)
    bins = numbers["by_rotation_deg"]
    assert sum(of_bin["pairs"] for of_bin in bins.values()) == 60
    assert bins["65-90"]["methods"]["direct"]["answered"] == 0
    decided = numbers["decisions"]["direct"]
    assert list(numbers["decisions"]) == ["direct"]
    assert (decided["accepted"], decided["wrong"]) == (len(near), wrong)
    most = (len(near) - wrong) / 60  # wrong ones have the smaller score
    assert decided["MR@P1"]["value"] == pytest.approx(most)
    low, high = decided["MR@P1"]["interval95"]
    assert low < most < high
    off = abs(0.95 - 1.0) * (len(near) - wrong) + 0.85 * wrong
    assert decided["calibration error"]["value"] == pytest.approx(off / len(near))
    assert decided["coverage"] == pytest.approx(len(near) / 60)


def of_two_places(folder: Path) -> list[Row]:
    benchmark.begin(folder, Run.of("walks:here", NEGATIVES, METHODS, Config(), 0))
    list(benchmark.answer(Walks(), NEGATIVES, Told(), folder, 0))
    return benchmark.rows(folder)


def test_targets_of_other_places(rows: list[Row], tmp_path: Path) -> None:
    """They stand beside the recall at the same threshold; to them every answer is wrong."""
    strangers = of_two_places(tmp_path)
    assert {row.T_reference_target for row in strangers} == {None}
    assert len({row.pair.id for row in strangers}) == 40
    both = summary([*strangers, *rows], METHODS)
    alone = summary(rows, METHODS)
    assert (both["pairs"], both["elsewhere"], alone["elsewhere"]) == (60, 40, 0)
    for name in ("methods", "differences", "by_rotation_deg"):
        assert json.dumps(both[name]) == json.dumps(alone[name])
    found = both["other_places"]["direct"]
    assert (found["pairs"], found["accepted"], found["hypotheses"]) == (40, 2, 0)
    assert found["share accepted"]["value"] == pytest.approx(2 / 40)
    assert found["share accepted"]["interval95"][0] < 0.05 < found["share accepted"]["interval95"][1]
    assert (found["places"], found["places with one"]) == (10, 2)
    low, high = found["share of places with one"]["interval95"]
    assert low < 0.05 < 0.2 < 0.5 < high  # of ten
    assert found["recall"]["value"] == pytest.approx(both["methods"]["direct"]["right"] / 60)
    assert found["accepted by kind"] == {"anything": [2, 40]}
    low, high = found["recall"]["interval95"]
    assert low < found["recall"]["value"] < high
    assert "recall at 0.1 %" not in found  # of 40
    assert "pair" not in both["other_places"]
    decided, of_one_place = (numbers["decisions"]["direct"] for numbers in (both, alone))
    assert decided["wrong"] == of_one_place["wrong"] + 2
    assert decided["recall"]["value"] == of_one_place["recall"]["value"]
    assert of_one_place["MR@P1"]["value"] > decided["MR@P1"]["value"] == 0.0  # they are as sure as the best
    assert decided["coverage"] == pytest.approx(decided["accepted"] / 100)
    page = report.write([*strangers, *rows], METHODS, Walks(), tmp_path).read_text()
    assert "60 pairs, 10 scenes, and 40 pairs of two places." in page
    assert "## Targets of other places" in page
    with pytest.raises(BadInputError, match="nothing to report"):
        summary(strangers, METHODS)


def test_who_was_not_asked_about_two_places_is_not_judged_by_them(rows: list[Row], tmp_path: Path) -> None:
    """A rule for videos has no way to say no."""
    scored = [
        dataclasses.replace(row, said={**row.said, "d_total": Said(row.T_reference_target, score=-1.0)})
        for row in rows
    ]
    with_strangers = summary([*of_two_places(tmp_path), *scored], (*METHODS, "d_total"))
    decided = with_strangers["decisions"]["d_total"]
    assert decided == summary(scored, (*METHODS, "d_total"))["decisions"]["d_total"]
    assert (decided["accepted"], decided["coverage"]) == (60, 1.0)


def test_the_edges_of_bins(rows: list[Row]) -> None:
    angles = [0.0, 29.9, 30.0, 50.0, 64.9, 65.0, 90.0, 180.0]
    some = [
        dataclasses.replace(row, pair=dataclasses.replace(row.pair, rotation_deg=angle))
        for row, angle in zip(rows, angles, strict=False)
    ]
    found = summary(some, METHODS)["by_rotation_deg"]
    pairs = {name: of_bin["pairs"] for name, of_bin in found.items()}
    assert pairs == {"0-30": 2, "30-50": 1, "50-65": 2, "65-90": 1, "90-180": 2}


def test_a_rate_of_a_thousandth_takes_a_thousand(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "FEWEST_NEGATIVES", 40)
    found = summary([*of_two_places(tmp_path), *rows], METHODS)["other_places"]["direct"]
    assert found["recall at 0.1 %"]["value"] == 0.0
    monkeypatch.setattr(verdicts, "FALSE_POSITIVE_RATE", 0.05)
    found = summary([*of_two_places(tmp_path), *rows], METHODS)["other_places"]["direct"]
    assert found["recall at 0.1 %"] == found["recall"]
    assert found["score at 0.1 %"] == pytest.approx(0.85)


def test_what_became_of_guesses(rows: list[Row], tmp_path: Path) -> None:
    """Those that agreement made answers, and those that stayed guesses."""
    guessed = []
    for number, row in enumerate(rows):
        T = turned(row.T_reference_target, 30.0 * (number % 3 == 0))
        said = Said(T, hypothesis=number % 4 > 0, promotable=number % 2 == 0)
        guessed.append(dataclasses.replace(row, said={"generated": said}))
    for number, row in enumerate(of_two_places(tmp_path)):
        said = Said(np.eye(4), score=0.9, hypothesis=number > 3, promotable=True)
        guessed.append(dataclasses.replace(row, said={"generated": said}))
    found = summary(guessed, ("generated",))["hypotheses"]["generated"]
    counts = {"guesses": 45, "right guesses": 30, "promotable": 30, "promoted": 15}
    assert {name: found[name] for name in counts} == counts
    assert found["of two places"] == {"promotable": 40, "guesses": 36, "promoted": 4}
    assert found["wrongly promoted"] == 5 + 4
    assert found["share promoted"]["value"] == pytest.approx(15 / 30)
    assert found["share wrongly promoted"]["value"] == pytest.approx(9 / 19)
    low, high = found["share wrongly promoted"]["interval95"]
    assert low < 9 / 19 < high
    page = report.write(guessed, ("generated",), Walks(), tmp_path).read_text()
    assert "| of two places, promoted | 4 |" in page


def test_hypotheses_are_no_answers_where_it_counts(rows: list[Row], tmp_path: Path) -> None:
    """Neither among true places nor among others, neither accepted nor found."""
    answered = {True: 0, False: 0}
    some = []
    for number, row in enumerate([*rows, *of_two_places(tmp_path)]):
        T, sure = row.T_reference_target, number % 2 == 0
        said = Said(np.eye(4) if T is None else T, score=0.9 if sure else None, hypothesis=not sure)
        answered[T is None] += sure
        some.append(dataclasses.replace(row, said={"generated": said}))
    numbers = summary(some, ("generated",))
    found = numbers["other_places"]["generated"]
    assert (found["accepted"], found["hypotheses"]) == (answered[True], 40 - answered[True])
    assert found["recall"]["value"] == pytest.approx(answered[False] / 60)
    assert numbers["decisions"]["generated"]["accepted"] == answered[False] + answered[True]
    assert numbers["decisions"]["generated"]["wrong"] == answered[True]


def test_an_answer_without_a_score_counts_where_there_is_none(rows: list[Row], tmp_path: Path) -> None:
    some = list(rows)
    for row in of_two_places(tmp_path):
        some.append(dataclasses.replace(row, said={"direct": Said(np.eye(4))}))
    numbers = summary(some, ("direct",))
    assert numbers["other_places"]["direct"]["accepted"] == 40
    assert numbers["decisions"]["direct"]["MR@P1"]["value"] == 0.0


def test_other_poses_than_when_pairs_were_drawn_are_refused(tmp_path: Path) -> None:
    moved = [dataclasses.replace(pair, rotation_deg=pair.rotation_deg + 0.5) for pair in PAIRS.pairs]
    benchmark.begin(tmp_path, RUN)
    with pytest.raises(BadInputError, match="draw the pairs anew"):
        list(benchmark.answer(Walks(), dataclasses.replace(PAIRS, pairs=tuple(moved)), Told(), tmp_path, 0))


def test_kinds_and_gaps_have_tables_of_their_own(rows: list[Row], tmp_path: Path) -> None:
    numbers = summary(rows, METHODS)
    assert {name: one["pairs"] for name, one in numbers["by_kind"].items()} == {"left": 30, "right": 30}
    assert numbers["by_gap_deg"] == {}  # without views around the ends it is the rotation
    nearer = [
        dataclasses.replace(row, pair=dataclasses.replace(row.pair, gap_deg=row.pair.rotation_deg - 20.0))
        for row in rows
    ]
    by_gap = summary(nearer, METHODS)["by_gap_deg"]
    assert sum(one["pairs"] for one in by_gap.values()) == 60
    assert "30-50, gap 15-30" in by_gap
    page = report.write(nearer, METHODS, Walks(), tmp_path).read_text()
    assert "gap between the sides" in page
    assert "## By kind of walk" in page


def test_places_in_metres(rows: list[Row]) -> None:
    """Map-free's shares, of methods that have metres only."""
    off_m = [0.1, 0.3]
    metric = []
    for number, row in enumerate(rows):
        T = row.T_reference_target.copy()
        T[0, 3] += off_m[number % 2]
        said = Said(T, metric=True, drawn_px=50.0 + 100.0 * (number % 3 == 0))
        metric.append(dataclasses.replace(row, said={"context": said, "pair": row.said["pair"]}))
    numbers = summary(metric, ("context", "pair"))["methods"]
    assert numbers["context"]["placed within 0.25 m and 5°"]["value"] == pytest.approx(0.5)
    assert numbers["context"]["drawn within 90 px"]["value"] == pytest.approx(2 / 3)
    assert math.isnan(numbers["pair"]["placed within 0.25 m and 5°"]["value"])


def test_precision_of_places_is_ranked_by_confidence(rows: list[Row]) -> None:
    """Map-free's: every second one is well placed, and these are the surer."""
    metric = []
    for number, row in enumerate(rows):
        T = row.T_reference_target.copy()
        T[0, 3] += 0.5 * (number % 2)
        said = Said(T, metric=True, drawn_px=200.0, score=0.9 - 0.1 * (number % 2))
        metric.append(dataclasses.replace(row, said={"context": said}))
    found = summary(metric, ("context",))["decisions"]["context"]
    assert found["average precision, placed within 0.25 m and 5°"]["value"] == pytest.approx(0.5)
    assert found["average precision, drawn within 90 px"]["value"] == 0.0


def test_differences_are_of_what_both_have(rows: list[Row]) -> None:
    """Equal where both have a direction; where only one has, and is worse, nothing is compared."""
    compared = []
    for number, row in enumerate(rows):
        off = turned(row.T_reference_target, 5.0 + 40.0 * (number % 2))
        one, other = Said(off, directed=number % 2 == 0), Said(off)
        compared.append(dataclasses.replace(row, said={"direct": one, "pair": other}))
    found = summary(compared, METHODS)["differences"]["pair"]["mean direction error"]
    assert (found["value"], found["n"]) == (0.0, 30)


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
    assert "- direct: NO_OVERLAP (9)" in page
    assert "| mean rotation error | – |" in page
    assert math.isnan(summary(nobody, ("direct",))["methods"]["direct"]["mean rotation error"]["value"])
    assert json.loads((tmp_path / "report.json").read_text())["decisions"] == {}
