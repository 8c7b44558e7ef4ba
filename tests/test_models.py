# SPDX-License-Identifier: Apache-2.0
"""Weights are fetched from a hub (one of our own, over HTTP), whole, by command only, and never a pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from installed import require_learned

from pose_bridge import models
from pose_bridge.config import Config
from pose_bridge.errors import ConfigError, ModelError, StorageError
from pose_bridge.models import Weights

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "someone/model"
LARGE = 40_000_000  # several of the pieces that the hub's library writes


class Hub:
    """As much of the hub's protocol as fetching takes."""

    def __init__(self) -> None:
        self.commit = "c" * 40
        self.files: dict[str, bytes] = {}
        self.gated = self.missing = False
        self.told_hash: dict[str, str] = {}
        self.served: list[tuple[str, str]] = []  # name, range
        self.cuts: list[int] = []  # of answers to come: so many bytes, and no more
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                if hub.missing:
                    self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
                elif path.startswith("/api/models/"):
                    self.reply(200, json.dumps(hub.info()).encode(), {"Content-Type": "application/json"})
                elif hub.gated:
                    self.reply(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask"})
                else:
                    self.serve(path.split(f"/resolve/{hub.commit}/")[1])

            def serve(self, name: str) -> None:
                content, wanted = hub.files[name], self.headers.get("Range", "")
                etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": hub.commit}
                if self.command == "GET":
                    hub.served.append((name, wanted))
                start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
                ranged = (
                    {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if wanted else {}
                )
                self.reply(
                    206 if wanted else 200, content[start:], {**etag, **ranged, "Accept-Ranges": "bytes"}
                )

            def reply(self, code: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    cut = hub.cuts.pop(0) if hub.cuts and len(body) > hub.cuts[0] + 10_000 else None
                    self.wfile.write(body[:cut])
                    self.close_connection = cut is not None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def info(self) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                **(
                    {"lfs": {"sha256": self.hash_of(name), "size": len(content), "pointerSize": 100}}
                    if name.endswith((".safetensors", ".bin"))
                    else {}
                ),
            }
            for name, content in self.files.items()
        ]
        return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": self.commit, "siblings": siblings, "tags": []}

    def hash_of(self, name: str) -> str:
        return self.told_hash.get(name) or hashlib.sha256(self.files[name]).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    require_learned()
    made = Hub()
    made.files = {"model.safetensors": os.urandom(LARGE), "vae/config.json": b"{}", "README.md": b"read me"}
    endpoint = f"http://127.0.0.1:{made.server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    return Weights(
        group="vggt",
        repository=REPOSITORY,
        folder=str(tmp_path / "weights"),
        patterns=("model.safetensors", "vae/*"),
        licence="free",
        size_gb=0.0,
    )


def fetched(weights: Weights) -> list[str]:
    said: list[str] = []
    models.fetch(weights, lambda name, size: said.append(name))
    return said


def test_what_is_fetched_is_whole(hub: Hub, weights: Weights) -> None:
    assert fetched(weights) == ["model.safetensors", "vae/config.json"]
    folder = models.folder_of(weights)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert not (folder / "README.md").exists()
    record = json.loads((folder / models.RECORD).read_text())
    assert (record["repository"], record["commit"], record["licence"]) == (REPOSITORY, hub.commit, "free")
    assert dict(models.verify(weights)) == {"model.safetensors": "", "vae/config.json": ""}


def test_what_is_there_is_not_fetched_again(hub: Hub, weights: Weights) -> None:
    fetched(weights)
    hub.served.clear()
    fetched(weights)
    assert "model.safetensors" not in {name for name, _ in hub.served}
    hub.files["model.safetensors"], hub.commit = os.urandom(LARGE), "d" * 40
    fetched(weights)
    assert (models.folder_of(weights) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_what_was_cut_off_goes_on(hub: Hub, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.cuts = [LARGE // 3] + 10 * [0]  # the network goes, and does not come back for a while
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(ModelError, match="cannot be fetched"):
        fetched(weights)
    assert not (models.folder_of(weights) / models.RECORD).exists()
    with pytest.raises(ModelError, match="not to the end"):
        list(models.verify(weights))
    hub.cuts.clear()
    hub.served.clear()
    fetched(weights)
    assert any(name == "model.safetensors" and wanted for name, wanted in hub.served)
    assert set(dict(models.verify(weights)).values()) == {""}


def test_files_that_came_before_it_was_cut_off_stay(
    hub: Hub, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["vae/second.safetensors"] = os.urandom(1000)
    download = models._download

    def fails(url: str, path: Path, size: int) -> None:
        if path.name == "second.safetensors":
            raise OSError("the disk is gone")
        download(url, path, size)

    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(models, "_download", fails)
        fetched(weights)
    hub.served.clear()
    fetched(weights)
    assert "model.safetensors" not in {name for name, _ in hub.served}
    assert set(dict(models.verify(weights)).values()) == {""}


def test_spoilt_files_are_found(hub: Hub, weights: Weights) -> None:
    fetched(weights)
    folder = models.folder_of(weights)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (folder / "vae/config.json").unlink()
    found = dict(models.verify(weights))
    assert "not what was fetched" in found["model.safetensors"]
    assert found["vae/config.json"] == "is missing"
    path.write_bytes(b"short")
    assert f"has 5 bytes of {LARGE}" in dict(models.verify(weights))["model.safetensors"]


def test_a_file_with_another_hash_is_not_kept(hub: Hub, weights: Weights) -> None:
    hub.told_hash["model.safetensors"] = "0" * 64
    with pytest.raises(ModelError, match="another hash"):
        fetched(weights)
    assert not (models.folder_of(weights) / "model.safetensors").exists()


def test_no_pickle_comes_into_the_house(hub: Hub, weights: Weights) -> None:
    hub.files["vae/diffusion_pytorch_model.bin"] = b"evil"
    with pytest.raises(ModelError, match="may run code"):
        fetched(weights)
    assert not models.folder_of(weights).exists()


def test_nothing_of_the_kind(hub: Hub, weights: Weights) -> None:
    with pytest.raises(ModelError, match="holds none of nothing"):
        fetched(dataclasses.replace(weights, patterns=("nothing*",)))


def test_given_on_request_only(hub: Hub, weights: Weights) -> None:
    hub.gated = True
    with pytest.raises(ModelError, match="hf auth login"):
        fetched(weights)


def test_no_such_repository(hub: Hub, weights: Weights) -> None:
    hub.missing = True
    with pytest.raises(ModelError, match="cannot be fetched"):
        fetched(weights)


def test_a_folder_that_cannot_be_written(hub: Hub, weights: Weights, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        fetched(dataclasses.replace(weights, folder=str(tmp_path / "file" / "below")))


def test_what_is_only_needed_until_prompts_are_embedded(hub: Hub, weights: Weights) -> None:
    hub.files["text_encoder/model.safetensors"] = b"large"
    once = dataclasses.replace(weights, once=("text_encoder/*",))
    assert "text_encoder/model.safetensors" in fetched(once)
    folder = models.folder_of(weights)
    (folder / models.PROMPTS).write_bytes(b"")
    models.drop(folder, "text_encoder")
    assert not (folder / "text_encoder").exists()
    assert set(dict(models.verify(once))) == {"model.safetensors", "vae/config.json"}
    assert "text_encoder/model.safetensors" not in fetched(once)


# --- settings


def test_every_profile_is_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, profile in models.PROFILES.items():
        config = Config.from_dict({group: dict(values) for group, values in profile.settings.items()})
        assert bool(config.vggt.weights) == bool(profile.weights or profile.shipped), name
    assert Config.from_dict(dict(models.profile("real").settings)) == Config()
    with pytest.raises(ConfigError, match="ltx_vggt"):
        models.profile("nonsense")


def test_what_comes_with_the_package_is_there_and_small() -> None:
    mini = models.profile("mini")
    assert mini.shipped == ("vggt-mini", "ltx-mini")
    models.check(models.configured(mini.settings))
    files = [path for path in models.SHELF.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24 * 2**20
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md"}
    for folder in models.SHELF.iterdir():
        card = (folder / "README.md").read_text()
        for said in ("## Data", "## Command", "## Hours", "## Limits"):
            assert said in card, folder
    with pytest.raises(ModelError, match="comes with ltx-mini, vggt-mini"):
        models.check(Config.from_dict({"vggt": {"weights": "shipped:vggt-1b"}}))


def test_missing_weights_name_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    models.check(Config())
    settings = {group: dict(values) for group, values in models.profile("ltx_vggt").settings.items()}
    with pytest.raises(ModelError, match=r"run: pose_bridge models fetch ltx_vggt$"):
        models.check(Config.from_dict(settings))
    folder = tmp_path / ".local/share/pose_bridge/vggt_1b"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"ltx.weights is .*no transformer/config.json"):
        models.check(Config.from_dict(settings))
    with pytest.raises(ModelError, match="put the weights there"):
        models.check(Config.from_dict({"vggt": {"weights": str(tmp_path / "nowhere")}}))


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    code = "from pose_bridge.cli.main import main; main()"
    known = {"HOME": str(home), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code, "models", *arguments],
        env=known,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_lists_what_there_is(tmp_path: Path) -> None:
    said = run("list", home=tmp_path)
    assert said.returncode == 0
    for words in (*models.PROFILES, "facebook/VGGT-1B", "not for commercial use", "GB", "on request"):
        assert words in said.stdout


def test_the_command_verifies(tmp_path: Path) -> None:
    said = run("verify", "ltx_vggt", home=tmp_path)
    assert said.returncode == 2
    assert "pose_bridge models fetch ltx_vggt" in said.stderr
    assert run("verify", "nonsense", home=tmp_path).returncode == 2
    assert run("verify", "real", home=tmp_path).returncode == 0
