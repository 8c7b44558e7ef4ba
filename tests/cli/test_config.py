# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge config`, and settings that are read back."""

import sys
from pathlib import Path

import pytest

from pose_bridge import models
from pose_bridge.cli import config as settings
from pose_bridge.cli.main import main
from pose_bridge.config import Config, to_yaml
from pose_bridge.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pose_bridge", "config", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_generated_file_is_up_to_date() -> None:
    written = (ROOT / "config" / "default.yaml").read_text(encoding="utf-8")
    assert written == to_yaml(Config()), "run: pose_bridge config --output config/default.yaml --force"


@pytest.mark.parametrize("name", models.PROFILES)
def test_the_profiles_files_are_up_to_date(name: str) -> None:
    path = ROOT / "config" / "profiles" / f"{name}.yaml"
    written = path.read_text(encoding="utf-8")
    assert written == models.to_yaml(name), f"run: pose_bridge config --profile {name} -o {path} --force"
    assert settings.load(path) == settings.load(None, name)


def test_a_profile_and_what_one_changes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("ltx: {num_frames: 33}\nbridge: {budget_s: 5.0}")
    loaded = settings.load(path, "ltx_vggt")
    assert (loaded.ltx.num_frames, loaded.bridge.budget_s) == (33, 5.0)
    assert loaded.ltx.weights == settings.load(None, "ltx_vggt").ltx.weights
    with pytest.raises(ConfigError, match="no profile is called 'none'"):
        settings.load(path, "none")


def test_what_is_printed_is_read_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _run(monkeypatch) == 0
    path = tmp_path / "settings.yaml"
    path.write_text(capsys.readouterr().out)
    assert settings.load(path) == Config()


def test_a_file_is_overwritten_only_by_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    assert _run(monkeypatch, "--output", path) == 0
    path.write_text("mine")
    assert _run(monkeypatch, "--output", path) == 2
    assert "add --force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert _run(monkeypatch, "--output", path, "--force") == 0
    assert path.read_text() == to_yaml(Config())


def test_a_folder_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _run(monkeypatch, "--output", tmp_path / "nowhere" / "settings.yaml") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: cannot write ")


def test_what_is_not_named_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("bridge: {budget_s: 3}\n")
    loaded = settings.load(path)
    assert loaded.bridge.budget_s == 3
    assert loaded.sfm == Config().sfm
    path.write_text("# nothing\n")
    assert settings.load(path) == Config()
    assert settings.load(None) == Config()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("bridge: [", "not valid YAML"),
        ("- 1", "must hold groups of settings"),
        ("bridges: {}", "unknown group: bridges"),
        ("bridge: {budget: 3}", "unknown setting in bridge: budget"),
        ("bridge: {budget_s: fast}", "budget_s must be of type float"),
        ("bridge: {budget_s: -1}", "budget_s must lie in"),
        ("bridge:", "bridge must be a group"),
        ("{1: {}, a: {}}", "settings.yaml: "),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        settings.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        settings.load(tmp_path / "settings.yaml")
