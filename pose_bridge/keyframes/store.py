# SPDX-License-Identifier: Apache-2.0
"""Maps on disk: one zip archive each, whole or not there at all.

A map holds `map.json` and, per keyframe, its image (PNG), mask (PNG) and depth (npy). Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadInputError, StorageError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.keyframes.keyframe import Keyframe

FORMAT = "pose_bridge map"
VERSION = 1

_SUFFIX = ".zip"
_LISTING = "map.json"
_LEFTOVER_S = 600.0  # an unfinished file that nobody wrote to for so long belongs to a process that died
_MAX_NAME_BYTES = 200
_POSES = ("T_odom_base", "T_base_camera", "T_map_base")
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    cv2.error,
    BadInputError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # an encrypted or unknown kind of archive
    TypeError,
    ValueError,
    struct.error,
)


def list_maps(directory: str | os.PathLike[str]) -> list[str]:
    """Return the names of the maps in a folder, in alphabetical order; none if there is no such folder."""
    names = (path.name.removesuffix(_SUFFIX) for path in Path(directory).glob(f"*{_SUFFIX}"))
    return sorted(name for name in names if _is_plain(name))


def save_map(directory: str | os.PathLike[str], name: str, keyframes: Iterable[Keyframe]) -> None:
    """Write a map; one of the same name is replaced once the new one is complete.

    Raises:
        BadInputError: The name is not a plain one.
        StorageError: The folder cannot be written or the disk is full; what was there is there still.
    """
    path = _path(directory, name)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            _write(file, list(keyframes))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: the map cannot be saved ({error.strerror or error}); "
            "free space on the disk, or set a folder that can be written"
        ) from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):  # usually: it has become the map
                os.unlink(part)


def load_map(directory: str | os.PathLike[str], name: str) -> list[Keyframe]:
    """Read a map, with everything as it was saved.

    Raises:
        BadInputError: The name is not a plain one, or there is no such map.
        StorageError: The file cannot be read, is damaged, or is no map.
    """
    path = _path(directory, name)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except FileNotFoundError as error:
        known = ", ".join(list_maps(directory)) or "none"
        raise BadInputError(f"there is no map {name!r} in {directory}; there are: {known}") from error
    except OSError as error:
        raise StorageError(f"{path}: the map cannot be read ({error.strerror or error})") from error
    except _DAMAGE as error:
        raise StorageError(
            f"{path}: damaged, or not a map ({error}); delete it, or load another one"
        ) from error


def _is_plain(name: str) -> bool:
    plain = re.fullmatch(r"\w([\w. -]*[\w-])?", name) is not None and ".." not in name
    return plain and len(os.fsencode(name)) <= _MAX_NAME_BYTES


def _path(directory: str | os.PathLike[str], name: str) -> Path:
    if not _is_plain(name):
        raise BadInputError(
            f"a map needs a plain name of letters, digits, '_', '-', '.' or blanks, got {name!r}"
        )
    return Path(directory) / (name + _SUFFIX)


def _remove_leftovers(path: Path) -> None:
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _LEFTOVER_S:
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a renaming last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(file: Any, keyframes: list[Keyframe]) -> None:
    listing = {"format": FORMAT, "version": VERSION, "keyframes": [_to_json(k) for k in keyframes]}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_LISTING, json.dumps(listing, allow_nan=False), zipfile.ZIP_DEFLATED)
        for index, keyframe in enumerate(keyframes):
            archive.writestr(_member("image", index), _png(keyframe.image[..., ::-1]))
            if keyframe.mask is not None:
                archive.writestr(_member("mask", index), _png(keyframe.mask.astype(np.uint8)))
            if keyframe.depth_m is not None:
                archive.writestr(_member("depth", index), _npy(keyframe.depth_m), zipfile.ZIP_DEFLATED)


def _read(archive: zipfile.ZipFile) -> list[Keyframe]:
    listing = json.loads(archive.read(_LISTING))
    if listing["format"] != FORMAT:
        raise ValueError(f"its format is {listing['format']!r}")
    if listing["version"] != VERSION:
        raise ValueError(f"its format has version {listing['version']!r}, this program reads {VERSION}")
    return [_keyframe(archive, index, entry) for index, entry in enumerate(listing["keyframes"])]


def _to_json(keyframe: Keyframe) -> dict[str, Any]:
    camera = keyframe.camera
    poses = {name: getattr(keyframe, name) for name in _POSES}
    return {
        "id": keyframe.id,
        "stamp_ns": int(keyframe.stamp_ns),
        "camera_id": keyframe.camera_id,
        "epoch": int(keyframe.epoch),
        "camera": {
            "width": camera.width,
            "height": camera.height,
            "K": camera.K.tolist(),
            "distortion_model": camera.distortion_model,
            "distortion": camera.distortion.tolist(),
        },
        "has_mask": keyframe.mask is not None,
        "has_depth": keyframe.depth_m is not None,
        **{name: None if T is None else T.tolist() for name, T in poses.items()},
    }


def _keyframe(archive: zipfile.ZipFile, index: int, entry: dict[str, Any]) -> Keyframe:
    image = _picture(archive.read(_member("image", index)), cv2.IMREAD_COLOR)
    mask = depth_m = None
    if entry["has_mask"]:
        mask = _picture(archive.read(_member("mask", index)), cv2.IMREAD_GRAYSCALE).astype(bool)
    if entry["has_depth"]:
        depth_m = np.load(io.BytesIO(archive.read(_member("depth", index))), allow_pickle=False)
    camera = entry["camera"]
    return Keyframe(
        id=str(entry["id"]),
        stamp_ns=int(entry["stamp_ns"]),
        image=np.ascontiguousarray(image[..., ::-1]),
        camera=Camera(**{**camera, "K": np.array(camera["K"]), "distortion": np.array(camera["distortion"])}),
        camera_id=str(entry["camera_id"]),
        epoch=int(entry["epoch"]),
        mask=mask,
        depth_m=depth_m,
        **{name: None if entry[name] is None else np.array(entry[name]) for name in _POSES},
    )


def _member(kind: str, index: int) -> str:
    return f"{kind}/{index:06d}.{'npy' if kind == 'depth' else 'png'}"


def _png(image: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(image))
    if not done:
        raise OSError("an image cannot be encoded as PNG")
    return encoded.tobytes()


def _picture(encoded: bytes, kind: int) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), kind)
    if image is None:
        raise ValueError("an image cannot be decoded")
    return np.asarray(image, np.uint8)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
