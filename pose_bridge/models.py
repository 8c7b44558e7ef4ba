# SPDX-License-Identifier: Apache-2.0
"""Weights: which a profile needs, where they lie, whether they are whole; and fetching them, by command only.

A fetched folder holds `fetched.json`: from where, which commit, which licence, and the hash of each file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pose_bridge import config
from pose_bridge.config import Config
from pose_bridge.errors import ConfigError, ModelError, StorageError

RECORD = "fetched.json"
PROMPTS = "prompts.safetensors"  # embedded, beside a video model
PARTS = {  # what must lie in a folder before anything is loaded from it
    "vggt": ("model.safetensors",),
    "ltx": ("transformer/config.json", "vae/config.json", PROMPTS),
}
HARMLESS = (".safetensors", ".json", ".txt", ".model", ".md")  # a pickle can run code
CHUNK = 2**22
SAMPLES, SAMPLE_BYTES = 64, 2**16  # of a file, by which it is known from others
FOLDER = "~/.local/share/pose_bridge"
SHIPPED = "shipped:"  # before the name of weights that come with the package
SHELF = Path(__file__).with_name("weights")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A published model.

    Attributes:
        group: Of the settings that name its folder.
        repository: On the Hugging Face hub.
        folder: Where it goes.
        patterns: Of the files that are needed.
        once: Of those that are only needed until prompts are embedded.
        licence: For people.
        size_gb: About.
        gated: It is only given to those who asked its authors.
    """

    group: str
    repository: str
    folder: str
    patterns: tuple[str, ...]
    licence: str
    size_gb: float
    gated: bool = False
    once: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A choice of models.

    Attributes:
        description: For people.
        weights: What is to be fetched for it.
        settings: By group; what is not named keeps its default.
    """

    description: str
    weights: tuple[Weights, ...]
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def shipped(self) -> tuple[str, ...]:
        """Names of the weights of its that come with the package."""
        named = (str(values.get("weights", "")) for values in self.settings.values())
        return tuple(name.removeprefix(SHIPPED) for name in named if name.startswith(SHIPPED))


_VGGT = Weights(
    group="vggt",
    repository="facebook/VGGT-1B",
    folder=f"{FOLDER}/vggt_1b",
    patterns=("model.safetensors",),
    licence="CC BY-NC 4.0: not for commercial use",
    size_gb=5.0,
)
_VGGT_COMMERCIAL = Weights(
    group="vggt",
    repository="facebook/VGGT-1B-Commercial",
    folder=f"{FOLDER}/vggt_1b_commercial",
    patterns=("model.safetensors",),
    licence="VGGT licence: commercial use allowed, military use not",
    size_gb=5.0,
    gated=True,
)
_LTX = Weights(
    group="ltx",
    repository="Lightricks/LTX-Video-0.9.8-13B-distilled",
    folder=f"{FOLDER}/ltx_video_13b_distilled",
    patterns=("transformer/*", "vae/*"),
    once=("text_encoder/*", "tokenizer/*"),
    licence="LTX-Video Open Weights License: commercial use up to a revenue that it names",
    size_gb=48.0,
)


def _profile(description: str, *weights: Weights) -> Profile:
    settings: dict[str, dict[str, Any]] = {some.group: {"weights": some.folder} for some in weights}
    if weights:  # a GPU's driver reserves more than the worker may have otherwise, and videos take their time
        settings |= {"worker": {"memory_gib": 0.0}, "bridge": {"budget_s": 60.0}}
    return Profile(description=description, weights=weights, settings=settings)


PROFILES = {
    "real": _profile("real views only: no weights, no GPU; the default"),
    "mini": Profile(
        description="hypotheses by small models that come with the package, on any processor: to try it out",
        weights=(),
        settings={
            "vggt": {"weights": f"{SHIPPED}vggt-mini", "long_side_px": 64},
            "ltx": {
                "weights": f"{SHIPPED}ltx-mini",
                "long_side_px": 64,
                "num_frames": 9,
                "schedule": "1000 950 900 850 800 750 700 600 500 400 300 200 100",
                "max_end_difference": 0.6,  # it packs coarsely: dim rooms come back with a third of it
            },
            "generated": {"common_mistakes": 0.5},  # what its guesses agreed on was wrong (docs/results.md)
            "bridge": {"budget_s": 30.0},  # two cores make a guess in 3 to 7 s; four may be wanted
        },
    ),
    "ltx_vggt": _profile(
        "hypotheses by LTX-Video and VGGT, on a large GPU; not for commercial use", _VGGT, _LTX
    ),
    "ltx_vggt_commercial": _profile(
        "the same with VGGT's commercial weights, which its authors give on request", _VGGT_COMMERCIAL, _LTX
    ),
}


def profile(name: str) -> Profile:
    """Return a profile.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PROFILES:
        raise ConfigError(f"no profile is called {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]


def to_yaml(name: str) -> str:
    """Return what a profile sets, as YAML.

    Raises:
        ConfigError: There is none of that name.
    """
    chosen = profile(name)
    title = f"Written by `pose_bridge config --profile {name}`: {chosen.description}."
    text = config.to_yaml(configured(chosen.settings), title, chosen.settings)
    return text if chosen.settings else text + "\n{}  # every setting has its default\n"


def configured(*settings: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return the configuration of settings by group, the later ones over the earlier.

    Raises:
        ConfigError: As `Config.from_dict`.
    """
    merged: dict[str, Any] = {}
    for some in settings:
        for group, values in some.items():
            is_group = isinstance(values, Mapping)
            merged[group] = {**merged.get(group, {}), **values} if is_group else values
    return Config.from_dict(merged)


def folder_of(weights: Weights | str) -> Path:
    """Where weights lie, or settings say that they do."""
    named = weights if isinstance(weights, str) else weights.folder
    if named.startswith(SHIPPED):
        return SHELF / named.removeprefix(SHIPPED)
    return Path(named).expanduser()


def fingerprint(folders: Iterable[Path]) -> str:
    """Return what tells the networks in some folders from others: samples of them, as all takes a minute.

    Args:
        folders: With files of safetensors, at any depth.
    """
    digest = hashlib.blake2b(digest_size=6)
    for folder in folders:
        for path in sorted(folder.rglob("*.safetensors")):
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder.parent)} {size}".encode())
            with path.open("rb") as file:
                for place in range(SAMPLES):
                    file.seek(max(size - SAMPLE_BYTES, 0) * place // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def check(settings: Config) -> None:
    """Look whether the weights that the settings name are there, without reading them.

    Raises:
        ModelError: They are not; the message has the command that fetches them.
    """
    for group, parts in PARTS.items():
        named = str(getattr(settings, group).weights)
        lacking = [part for part in parts if named and not (folder_of(named) / part).is_file()]
        if lacking:
            raise ModelError(
                f"{group}.weights is {named}, and there is no {lacking[0]} in it; {_how_to_get(named)}"
            )


def _how_to_get(named: str) -> str:
    if named.startswith(SHIPPED):
        return f"the package comes with {', '.join(sorted(folder.name for folder in SHELF.iterdir()))}"
    for name, some in PROFILES.items():
        if any(folder_of(weights) == folder_of(named) for weights in some.weights):
            return f"run: pose_bridge models fetch {name}"
    return "put the weights there, or name another folder"


def fetch(weights: Weights, say: Callable[[str, int], None]) -> None:
    """Bring weights to their folder; files that are there and whole are not fetched again.

    Args:
        weights: Which.
        say: Told each file's name and size before it is fetched.

    Raises:
        ModelError: Not reachable, not given to us, not whole, or with a file that can run code.
        StorageError: They cannot be written.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    network_error = HfHubHTTPError.__bases__[0]  # of its HTTP library, another one from version to version
    folder, repository = folder_of(weights), weights.repository
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))  # as it is now, not as it was at the import
    try:
        info = hub.model_info(repository, files_metadata=True)
        files = _needed(weights, info.siblings or [])
        before = _record(folder).get("files", {})
        for name, known in files.items():
            say(name, known["size"])
            if not _whole(folder / name, known, before.get(name)):
                url = hf_hub_url(repository, name, revision=info.sha, endpoint=hub.endpoint)
                _download(url, folder / name, known["size"])
            known["sha256"] = _sha256(folder / name, known["sha256"])
    except GatedRepoError as error:
        raise ModelError(
            f"{repository} is given on request: ask for it on its page, then run `hf auth login`"
        ) from error
    except (network_error, LocalEntryNotFoundError) as error:
        first, *_ = [*str(error).splitlines(), ""]
        raise ModelError(f"{repository} cannot be fetched ({first}); try again, it goes on") from error
    except OSError as error:
        raise StorageError(f"{repository} cannot be brought to {folder} ({error})") from error
    _write_record(
        folder, {"repository": repository, "commit": info.sha, "licence": weights.licence, "files": files}
    )


def _whole(path: Path, known: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Whether a file is there as the hub has it; small ones, of which it has no hash, are fetched again."""
    if known["sha256"] is None or _size(path) != known["size"]:
        return False
    return before == known or _digest(path) == known["sha256"]


def _download(url: str, path: Path, size: int) -> None:
    """Bring a file, going on where it was cut off, even by another process."""
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    found = get_hf_file_metadata(url)
    headers = build_hf_headers()
    if urlparse(found.location).netloc != urlparse(url).netloc:
        headers.pop("authorization", None)  # not for whoever stores files for the hub
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{str(found.etag)[:16]}.part")
    with part.open("ab") as file:
        http_get(found.location, file, resume_size=file.tell(), headers=headers, expected_size=size)
    part.replace(path)


def _needed(weights: Weights, offered: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Size and hash, where the hub has one, of each file to fetch."""
    embedded = (folder_of(weights) / PROMPTS).is_file()
    patterns = weights.patterns if embedded else weights.patterns + weights.once
    files = {
        item.rfilename: {"size": item.size, "sha256": None if item.lfs is None else item.lfs.sha256}
        for item in offered
        if any(fnmatch.fnmatch(item.rfilename, pattern) for pattern in patterns)
    }
    if not files:
        raise ModelError(f"{weights.repository} holds none of {', '.join(patterns)}")
    for name in files:
        if not name.endswith(HARMLESS):
            raise ModelError(f"{weights.repository} holds {name}, which may run code; nothing is fetched")
    return files


def verify(weights: Weights) -> Iterator[tuple[str, str]]:
    """Yield each file of fetched weights with what is wrong with it, empty if nothing.

    Raises:
        ModelError: They were not fetched.
    """
    folder = folder_of(weights)
    record = _record(folder)
    if not record:
        raise ModelError(f"{folder} was not fetched, or not to the end; {_how_to_get(weights.folder)}")
    for name, known in record["files"].items():
        size = _size(folder / name)
        if size is None:
            yield name, "is missing"
        elif size != known["size"]:
            yield name, f"has {size} bytes of {known['size']}"
        elif _digest(folder / name) != known["sha256"]:
            yield name, "is not what was fetched"
        else:
            yield name, ""


def drop(folder: Path, part: str) -> None:
    """Delete a part of fetched weights that is not needed any more; `verify` does not miss it then."""
    shutil.rmtree(folder / part, ignore_errors=True)
    record = _record(folder)
    record["files"] = {
        name: known for name, known in record["files"].items() if not name.startswith(f"{part}/")
    }
    _write_record(folder, record)


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _record(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _sha256(path: Path, wanted: str | None) -> str:
    """Of a file that was just fetched.

    Raises:
        ModelError: It is another one than the hub says.
    """
    found = _digest(path)
    if wanted is not None and found != wanted:
        path.unlink()
        raise ModelError(
            f"{path} came with another hash than it has on the hub; it was deleted, fetch it again"
        )
    return found


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
