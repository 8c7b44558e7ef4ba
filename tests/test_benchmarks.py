# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks have in common: work in processes that is not done twice, and numbers from rows."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pose_bridge.evaluation import intervals
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.datasets.pairs import Pair
from pose_bridge.evaluation.methods import Said
from pose_bridge.geometry import rigid, rotations

ROOT = Path(__file__).resolve().parents[1]
JOBS = [(0, 3), (0, 1), (0, 2)]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(importlib.import_module("report"), "commit", lambda: "0000000")
    return importlib.import_module


def arguments(rows: Path, **given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"rows": rows, "full": True, "seed": 0, "workers": 1, **given})


def test_work_is_done_once_for_a_commit_and_a_seed(benchmark, tmp_path: Path) -> None:
    farm: ModuleType = benchmark("farm")
    path = tmp_path / "rows.jsonl"
    assert farm.rows(list, JOBS[:2], arguments(path, workers=2)) == [
        0,
        3,
        0,
        1,
    ]  # a job's numbers are its rows
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(record["rows"] for record in records) == [[0, 1], [0, 3]]
    path.write_text("".join(json.dumps({**r, "rows": ["kept"]}) + "\n" for r in records))
    assert farm.rows(list, JOBS, arguments(path)) == ["kept", "kept", 0, 2]
    assert farm.rows(list, JOBS[:1], arguments(path, seed=1)) == [0, 3]
    assert [json.loads(line)["measured"][1] for line in path.read_text().splitlines()] == [1]


def test_a_sample_leaves_the_rows_of_everything_alone(benchmark, tmp_path: Path) -> None:
    farm: ModuleType = benchmark("farm")
    path = tmp_path / "rows.jsonl"
    path.write_text("precious")
    assert farm.rows(list, JOBS[:1], arguments(path, full=False)) == [0, 3]
    assert path.read_text() == "precious"


def answers(factor: float, count: int = 400) -> list[dict[str, object]]:
    """Rows of answers whose errors are so many times what they claim."""
    rng = np.random.default_rng(0)
    sigmas = np.exp(rng.uniform(-3.0, 0.0, (count, 1))) * [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
    errors = factor * sigmas * rng.standard_normal((count, 6))
    return [
        {"room": k // 8, "stage": "CONTEXT", "error": e.tolist(), "covariance": np.diag(s**2).tolist()}
        for k, (e, s) in enumerate(zip(errors, sigmas, strict=True))
    ]


def test_covariances_that_hold_meet_their_targets_and_others_do_not(benchmark) -> None:
    covariance: ModuleType = benchmark("covariance")
    honest = {target["name"]: target for target in covariance.targets(answers(1.0), 0)}
    assert set(honest) == {"coverage_50", "coverage_90", "coverage_95", "nll_gain_nat"}
    assert all(target["met"] for target in honest.values())
    bold = {target["name"]: target for target in covariance.targets(answers(2.0), 0)}
    assert not any(bold[f"coverage_{level}"]["met"] for level in (50, 90, 95))
    timid = {target["name"]: target for target in covariance.targets(answers(0.5), 0)}
    assert timid["coverage_50"]["value"] > 0.9
    assert not timid["coverage_50"]["met"]


def test_the_part_that_is_farther_off_is_told(benchmark) -> None:
    covariance: ModuleType = benchmark("covariance")
    rows = answers(1.0)
    for row in rows:
        row["error"][:3] = [3.0 * value for value in row["error"][:3]]
    found = covariance.coverage(rows, 0.9, 0)
    assert found["of"] == "translation"
    assert found["value"] < 0.6


def kidnapped(kind: str, room: int, **found: bool) -> dict[str, object]:
    names = ("localized", "false", "register_localized", "two_view_localized")
    return {"kind": kind, "room": room, "seconds": 10.0, **dict.fromkeys(names, False), **found}


def test_the_gain_is_over_the_better_baseline_on_the_opposite_side(benchmark) -> None:
    relocalization: ModuleType = benchmark("relocalization")
    rows = [
        kidnapped(
            "OPPOSITE", room, localized=room != 3, register_localized=room < 2, two_view_localized=room < 4
        )
        for room in range(10)
    ]
    rows += [kidnapped("SAME_SIDE", room, register_localized=True) for room in range(10)]
    found = {target["name"]: target for target in relocalization.targets(rows, 0)}
    assert found["opposite_localized"]["value"] == 0.9
    assert found["opposite_gain"]["value"] == 0.5
    assert found["opposite_gain"]["over"] == "two_view"
    assert found["opposite_gain"]["met"]
    assert found["false_localizations"]["met"]
    rows.append(kidnapped("STRANGER", 0, false=True))
    assert not relocalization.targets(rows, 0)[2]["met"]


def test_a_gain_that_may_be_nothing_is_none(benchmark) -> None:
    relocalization: ModuleType = benchmark("relocalization")
    rows = [kidnapped("OPPOSITE", room, localized=room == 0) for room in range(5)]
    gain = relocalization.targets(rows, 0)[1]
    assert gain["value"] == 0.2
    assert not gain["met"]


def test_numpy_numbers_can_be_written_as_json(benchmark) -> None:
    report: ModuleType = benchmark("report")
    row = report.statistic("n", [1.0, 2.0], [0, 1], np.mean, "<= 2", 0)
    assert json.loads(json.dumps(row))["met"] is True


def bridged(errors_deg: dict[str, float | None], place: int) -> Row:
    """What methods said of a pair, turned too far by so much; None for those without an answer."""
    T_true = rigid.make(rotations.so3_exp(np.radians([0.0, 60.0, 0.0])), [1.0, 0.0, 0.0])
    said = {
        name: Said(None, why="no answer")
        if off is None
        else Said(rigid.make(_turned(off) @ T_true[:3, :3], T_true[:3, 3]))
        for name, off in errors_deg.items()
    }
    house = f"house{place // 2}"
    pair = Pair(scene=f"walk{place}", reference="0", target="9", place=house, rotation_deg=60.0)
    return Row(pair=pair, T_reference_target=T_true, said=said)


def _turned(deg: float) -> np.ndarray:
    return rotations.so3_exp(np.radians([0.0, deg, 0.0]))


def test_what_videos_gain_is_over_all_pairs(benchmark) -> None:
    """Half of the error where they answer, nothing where they do not; and pairs of a house come together."""
    mini: ModuleType = benchmark("mini")
    rows = [bridged({"pair": 40.0, "d_total": None if place < 8 else 20.0}, place) for place in range(16)]
    found = mini.gain("gain", rows, ">= 0.15", 0)
    assert (found["n"], found["value"], found["met"]) == (16, 0.25, True)
    low, high = found["interval95"]
    assert low < 0.25 < high
    assert set(mini.of_places(rows)) == {f"house{number}" for number in range(8)}
    missing = [bridged({"pair": None, "d_total": None}, place) for place in range(9)] + rows
    assert mini.median("median", missing, "pair", "<= 40", 0)["value"] == pytest.approx(40.0, abs=1e-3)
    assert mini.median("median", missing, "d_total", "<= 40", 0)["value"] == 180.0


def stranger(accepted: bool, place: int) -> Row:
    house = f"house{place}"
    pair = Pair(scene=f"{house}/room0", reference="0", target="1", place=house, target_scene=f"{house}/room1")
    said = Said(
        np.eye(4) if accepted else None, score=0.9 if accepted else None, why="" if accepted else "NO"
    )
    return Row(pair=pair, T_reference_target=None, said={"context": said, "generated": said})


@pytest.fixture
def mini(benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, with answers at once: one of 20 targets of other places is taken for this."""
    module: ModuleType = benchmark("mini")
    names = ("context", "generated", *module.VIDEOS.split(","))

    def rows_of(name: str, folder: Path, args: argparse.Namespace) -> list[Row]:
        off_deg = dict.fromkeys(names, 2.0) | {"pair": 40.0 if name.startswith("extreme") else 2.0}
        own = [bridged(off_deg, place) for place in range(16)]
        return [*own, *(stranger(place == 3, place) for place in range(20))]

    monkeypatch.setattr(module, "rows_of", rows_of)
    monkeypatch.setattr(intervals, "DRAWS", 20)  # of which there are thousands otherwise
    monkeypatch.setattr(module, "ANSWERS", tmp_path / "answers")
    return module


def told(mini: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr("sys.argv", ["mini.py", "--runs", str(tmp_path / "runs"), *more])
    mini.main()


def test_targets_of_the_small_models(
    mini: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told(mini, tmp_path, monkeypatch)
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    targets = {target["name"]: (target["value"], target["n"], target["met"]) for target in found["targets"]}
    assert targets == {
        "neighbours_median_rotation_deg": (2.0, 16, True),
        "true_frames_median_rotation_deg": (2.0, 16, True),
        "generated_rotation_gain": (0.95, 16, True),
        "generated_rotation_gain_wide": (0.95, 16, None),
        "false_accepts": (0.05, 20, False),
        "recall_at_default": (1.0, 16, None),
    }
    table = found["results"]["extreme"]
    assert list(table) == mini.VIDEOS.split(",")
    assert table["oracle"]["less the pair"]["mean rotation error"]["value"] == pytest.approx(-38.0)


def test_answers_that_are_kept_are_unpacked_whole_or_not_at_all(
    mini: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        told(mini, tmp_path, monkeypatch, "--full", "--answers", "abc")
    assert "no answers of abc" in capsys.readouterr().err
    (tmp_path / "folder" / "places").mkdir(parents=True)
    (tmp_path / "folder" / "places" / "answers-0.jsonl").write_text("precious")
    shutil.make_archive(str(tmp_path / "answers" / "mini-full-abc-0"), "xztar", tmp_path / "folder")
    half = tmp_path / "runs" / "full-abc-0.part"
    half.mkdir(parents=True)  # left by one that was killed
    told(mini, tmp_path, monkeypatch, "--full", "--answers", "abc")
    assert not half.exists()
    kept = tmp_path / "runs" / "full-abc-0" / "places" / "answers-0.jsonl"
    assert kept.read_text() == "precious"
    kept.write_text("more")
    told(mini, tmp_path, monkeypatch, "--full", "--answers", "abc")
    assert kept.read_text() == "more"


def test_a_command_that_fails_ends_it_in_a_line(
    benchmark, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mini: ModuleType = benchmark("mini")
    with pytest.raises(SystemExit, match=r"pose_bridge pairs ended.*--runs"):
        mini.run(["pairs", "nothing:here", "-o", str(tmp_path / "pairs.json")])
    assert "layout:folder" in capfd.readouterr().err


def test_what_is_no_number_is_null(benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    report: ModuleType = benchmark("report")
    none = report.known("n", {"value": np.nan, "interval95": [np.nan, np.inf]}, 0, "")
    report.finish("some", 0, {"score": np.inf, "more": [{"share": np.nan}]}, [none])
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["results"] == {"score": None, "more": [{"share": None}]}
    assert (found["targets"][0]["value"], found["targets"][0]["met"]) == (None, None)
