# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge evaluate`: in this process, killed in another, and in two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from evaluation import walks

from pose_bridge.cli.main import main
from pose_bridge.evaluation.datasets import pairs as lists
from pose_bridge.selection import consensus

LIMIT_S = 100.0


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pose_bridge", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of four pairs in two rooms."""
    path, dataset = tmp_path / "pairs.json", walks.write(tmp_path / "walks", (3, 4))
    rule = ("--yaw", 11, 19, "--count", 4, "--context", 1)
    assert run(monkeypatch, "pairs", dataset, "-o", path, *rule) == 0
    return path


def answered(out: Path) -> list[dict]:
    return [
        json.loads(line)
        for path in sorted(out.glob("answers-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_methods_side_by_side(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, asking = tmp_path / "out", ("evaluate", "--pairs", pairs, "--budget", 60)
    assert run(monkeypatch, *asking, "--out", out) == 0
    rows = answered(out)
    assert len(rows) == 4
    assert all(list(row["said"]) == ["direct", "context"] for row in rows)
    assert sum(row["said"]["context"]["T_reference_target"] is not None for row in rows) >= 3
    page = (out / "report.md").read_text()
    assert "4 pairs, 2 scenes." in page
    assert f"\n{out / 'report.md'} and its figures are written\n" in capsys.readouterr().err
    (out / "report.md").unlink()
    assert run(monkeypatch, *asking, "--out", out) == 0  # only the report is made anew
    assert answered(out) == rows
    assert (out / "report.md").read_text() == page
    assert run(monkeypatch, *asking, "--out", out, "--method", "direct") == 2
    assert "choose another --out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "direct,guess"), "generated-average"),
        (("--method", "d_total"), "--profile"),
        (("--dataset", "photographs:nowhere"), "cameras.json"),
        (("--profile", "none"), "none"),
    ],
)
def test_what_cannot_be_asked_is_said(
    arguments: tuple[str, ...],
    message: str,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "evaluate", "--pairs", pairs, "--out", tmp_path / "out", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def command(pairs: Path, out: Path) -> list[str]:
    asking = ("-m", "pose_bridge.cli.main", "evaluate", "--method", "direct", "--pairs", pairs, "--out", out)
    return [str(word) for word in asking]


def test_killed_it_goes_on(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, *command(pairs, out)], stderr=subprocess.DEVNULL)
    end_s = time.monotonic() + LIMIT_S
    while not answered(out) and time.monotonic() < end_s:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = answered(out)
    assert before
    done = subprocess.run([sys.executable, *command(pairs, out)], timeout=LIMIT_S, check=False)
    assert done.returncode == 0
    rows = answered(out)
    assert rows[: len(before)] == before
    assert len({json.dumps(row["pair"]) for row in rows}) == len(rows) == 4
    assert (out / "report.md").exists()


def test_two_processes_share_it(pairs: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    out = tmp_path / "out"
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    launch += ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*launch, *command(pairs, out)], env=environment, timeout=LIMIT_S, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    counts = [len(path.read_text().splitlines()) for path in sorted(out.glob("answers-*.jsonl"))]
    assert counts == [2, 2]
    assert len({json.dumps(row["pair"]) for row in answered(out)}) == 4
    assert "4 pairs, 2 scenes." in (out / "report.md").read_text()


def test_with_models(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the published formats, through the code that loads the large ones."""
    from checkpoints import save_models, small_settings

    settings, out = tmp_path / "settings.yaml", tmp_path / "out"
    settings.write_text(yaml.safe_dump(small_settings(save_models(tmp_path / "weights"))))
    listed = lists.load(pairs)
    lists.save(pairs, replace(listed, pairs=listed.pairs[:1]))
    methods = "pair,true-frames,generated-average,d_med,d_total,oracle"
    asking = ("--pairs", pairs, "--out", out, "--config", settings, "--method", methods)
    assert run(monkeypatch, "evaluate", *asking) == 0
    for row in answered(out):
        assert list(row["said"]) == methods.split(",")
        assert all(said["T_reference_target"] is not None for said in row["said"].values())
    numbers = json.loads((out / "report.json").read_text())
    assert set(numbers["decisions"]) == {"d_med", "d_total"}

    (row,) = answered(out)
    T_true = np.array(row["T_reference_target"])

    def off_deg(name: str) -> float:
        return float(consensus.distances_deg(np.array(row["said"][name]["T_reference_target"]), T_true))

    assert off_deg("oracle") <= min(off_deg("d_med"), off_deg("d_total"))


@pytest.mark.timeout(200)
def test_rendered_houses_need_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the README has it, with fewer pairs."""
    listed, out = tmp_path / "rooms.json", tmp_path / "rooms"
    drawing = ["pairs", "simulator:test", "-o", listed, "--count", "2", "--elsewhere", "2", "--context", "1"]
    asking = ["evaluate", "--pairs", listed, "--out", out, "--odometry", "--method", "context"]
    for words in (drawing, asking):
        monkeypatch.setattr(sys, "argv", ["pose_bridge", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    page = (out / "report.md").read_text()
    assert "2 pairs" in page
    assert "2 pairs of two places" in page
    assert "## Targets of other places" in page
