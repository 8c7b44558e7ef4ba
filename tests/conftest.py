# SPDX-License-Identifier: Apache-2.0
"""What every test may use."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"  # no test talks to another machine

settings.register_profile("local", deadline=None, max_examples=50)
settings.register_profile("repeatable", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("repeatable" if os.environ.get("CI", "").lower() in {"1", "true"} else "local")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where tests run side by side, reports are sent as UTF-8, which cannot hold all that some tests log."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def fox() -> Path:
    """The folder of photographs with camera poses that may lie beside the repository."""
    folder = ROOT.parent / "shared" / "data" / "fox"
    if not (folder / "cameras.json").is_file():
        pytest.skip("no photographs in ../shared/data/fox, beside the repository (see CONTRIBUTING.md)")
    return folder


@pytest.fixture(scope="session")
def vggt_tiny() -> Path:
    """A small VGGT with random weights and what the published network answers with them."""
    folder = ROOT.parent / "shared" / "data" / "vggt_tiny"
    if not (folder / "expected.npz").is_file():
        pytest.skip("no answers of the published network in ../shared/data/vggt_tiny")
    return folder
