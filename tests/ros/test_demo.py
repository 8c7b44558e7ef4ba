# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a kidnapped robot, the real node, search, worker and bridge, over real DDS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from installed import require_ros

require_ros()

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(240)
def test_a_kidnapped_robot_is_found_and_a_stranger_is_not(tmp_path: Path) -> None:
    """Slower than the demo promises to be: other tests run beside it."""
    command = [
        sys.executable,
        str(ROOT / "demo" / "kidnapped_robot.py"),
        "--out",
        str(tmp_path),
        "--budget",
        "90",
    ]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["passed"]
    picture = cv2.imread(str(tmp_path / "kidnapped_robot.png"))
    assert picture.std() > 20.0
