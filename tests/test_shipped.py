# SPDX-License-Identifier: Apache-2.0
"""The models that come with the package do what their cards say: files that were cut or swapped do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("diffusers")

from pose_bridge.config import VggtConfig
from pose_bridge.control import Control
from pose_bridge.estimators.vggt.estimator import VggtEstimator
from pose_bridge.evaluation.datasets.base import Scene
from pose_bridge.evaluation.datasets.simulator import Simulator
from pose_bridge.geometry import distances

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def walk() -> Scene:
    """Through a house that no model has learned from."""
    return Simulator(Path("validation")).scene("house092/room0/centred3")


@pytest.mark.parametrize("name", ["vggt-mini", "vggt-mini-wide"])
def test_a_small_network_knows_neighbours(name: str, walk: Scene) -> None:
    network = VggtEstimator(VggtConfig(weights=f"shipped:{name}", long_side_px=64))
    views = [frame.view() for frame in walk.frames]
    off_deg, turns_deg = [], []
    for reference, target in zip(views[:-4:2], views[4::2], strict=True):
        guess = network.estimate_many([[reference, target]], Control())[0]
        R_true = walk.T_reference_target(reference.id, target.id)[:3, :3]
        off_deg.append(distances.rotation_error_deg(guess.T_reference_camera[target.id][:3, :3], R_true))
        turns_deg.append(distances.rotation_error_deg(np.eye(3), R_true))
    assert np.median(off_deg) < 0.4 * np.median(turns_deg)


def test_the_demo_bridges_two_views(tmp_path: Path) -> None:
    command = [sys.executable, "demo/mini.py", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["status"] == "HYPOTHESIS"
    (pair_deg, _), (believed_deg, _) = found["errors_deg"]["pair"], found["errors_deg"]["believed"]
    assert believed_deg < 15.0 < pair_deg
    figure = cv2.imread(str(tmp_path / "mini.png"))
    assert min(figure.shape[:2]) > 500
    assert figure.std() > 30.0
    nowhere = subprocess.run([*command, "--views", "02", "02"], cwd=ROOT, capture_output=True, text=True)
    assert nowhere.returncode == 1
    assert "one place" in nowhere.stdout
