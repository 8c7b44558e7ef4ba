# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks have in common: work in processes that is not done twice, and numbers from rows."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

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
