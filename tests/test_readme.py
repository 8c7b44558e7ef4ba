# SPDX-License-Identifier: Apache-2.0
"""What README.md says to type works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from pose_bridge import photographs
from pose_bridge.views import Answer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
WALK = ("0025", "0042", "0022", "0026", "0029", "0039", "0044")


def test_the_python_block_answers(fox, capsys):
    calibration = photographs.read_cameras(fox / "cameras.json")
    views = [photographs.read_view(fox / "images" / f"{name}.jpg", calibration) for name in WALK]
    camera = views[0].camera
    names = {
        "K": camera.to_opencv_K(),
        "distortion": camera.distortion,
        "images": {view.id: view.image for view in views},
    }
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    # the size of the photographs at hand stands in for the README's
    block = block.replace("width=640, height=480", f"width={camera.width}, height={camera.height}")
    exec(compile(block, "README.md", "exec"), names)
    answer = names["answer"]
    assert isinstance(answer, Answer) and answer.accepted
    assert np.isfinite(answer.direction).all()
    assert capsys.readouterr().out.strip()


def test_the_command_answers(fox, tmp_path):
    command = re.search(r"\.venv/bin/(pose_bridge estimate .*?)\n\n", README, re.DOTALL).group(1)
    words = shlex.split(command.replace("\\\n", " "))
    stand_in = {
        "REF.jpg": str(fox / "images/0025.jpg"),
        "TARGET.jpg": str(fox / "images/0042.jpg"),
        "cameras.json": str(fox / "cameras.json"),
        "a/*.jpg": str(fox / "images/002[269].jpg"),
        "b/*.jpg": str(fox / "images/004[45].jpg"),
        "out.png": str(tmp_path / "out.png"),
    }
    words = [sys.executable, "-m", "pose_bridge.cli.main", *(stand_in.get(word, word) for word in words[1:])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "The target camera is turned" in done.stdout
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^    make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", README)
    assert links and all((ROOT / link).exists() for link in links)
