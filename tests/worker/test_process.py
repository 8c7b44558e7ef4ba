# SPDX-License-Identifier: Apache-2.0
"""How the worker's process is started: in which environment, with which library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pose_bridge.config import Config, WorkerConfig
from pose_bridge.errors import WorkerDiedError
from pose_bridge.worker import WorkerClient, process

PARENT = {
    "HOME": "/opt/robot",
    "PYTHONPATH": "/opt/ros/jazzy/lib/python3.12/site-packages",
    "PYTHONHOME": "/usr",
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    "AMENT_PREFIX_PATH": "/opt/robot/install:/opt/ros/jazzy",
    "LD_LIBRARY_PATH": "/opt/ros/jazzy/lib:/opt/cuda/lib64:/opt/robot/install/lib::/opt/ros/jazzy2/lib",
    "OMP_NUM_THREADS": "64",
}


def test_another_interpreter_gets_nothing_of_ros() -> None:
    found = process.environment(PARENT, WorkerConfig(python_executable="/opt/torch/bin/python", threads=3))
    assert found["LD_LIBRARY_PATH"] == "/opt/cuda/lib64:/opt/ros/jazzy2/lib"
    assert not {"PYTHONPATH", "PYTHONHOME", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"} & set(found)
    assert found["HOME"] == "/opt/robot"
    assert {found[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"3"}


def test_where_no_library_is_left_the_variable_goes() -> None:
    parent = PARENT | {"LD_LIBRARY_PATH": "/opt/ros/jazzy/lib"}
    assert "LD_LIBRARY_PATH" not in process.environment(parent, WorkerConfig(python_executable="python3"))


@pytest.mark.parametrize("executable", ["", sys.executable])
def test_the_same_interpreter_keeps_its_environment(executable: str) -> None:
    found = process.environment(PARENT, WorkerConfig(python_executable=executable, threads=2))
    assert found["OMP_NUM_THREADS"] == "2"
    for name in set(PARENT) - {"OMP_NUM_THREADS"}:
        assert found[name] == PARENT[name]


def test_one_core_is_left_to_others() -> None:
    cores = len(os.sched_getaffinity(0))
    assert process.thread_count(WorkerConfig()) == max(1, cores - 1)
    assert process.thread_count(WorkerConfig(threads=7)) == 7


def test_the_worker_takes_its_parents_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its interpreter calls pose_bridge, and whatever lies in the folder where it starts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong one')")
    other = tmp_path / "other"
    other.mkdir()
    (other / "pose_bridge.py").write_text("raise SystemExit('the wrong one')")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{other}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    asked = [str(python), "-c", "import pose_bridge"]
    assert "wrong" in subprocess.run(asked, capture_output=True, text=True).stderr
    with WorkerClient(Config(worker=WorkerConfig(python_executable=str(python)))) as client:
        assert client.pid is not None


def test_an_interpreter_without_what_the_bridge_needs_is_told(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without its packages
    python.chmod(0o755)
    client = WorkerClient(Config(worker=WorkerConfig(python_executable=str(python))))
    with pytest.raises(WorkerDiedError, match=r"exit code 1.*ModuleNotFoundError.*worker\.python_executable"):
        client.start()
