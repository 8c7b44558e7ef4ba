# SPDX-License-Identifier: Apache-2.0
import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyframe_samples import keyframe

from pose_bridge.errors import BadInputError, StorageError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import COEFFICIENTS, Camera
from pose_bridge.keyframes import store
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.store import list_maps, load_map, save_map

TESTS = Path(__file__).resolve().parents[1]
FIELDS = ("id", "stamp_ns", "camera", "camera_id", "epoch")
ARRAYS = ("image", "mask", "depth_m", "T_odom_base", "T_base_camera", "T_map_base")


def any_keyframe(seed: int) -> Keyframe:
    """Of any size and lens, with or without everything that may be missing."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 40, 2))
    model = sorted(COEFFICIENTS)[seed % len(COEFFICIENTS)]

    def pose() -> np.ndarray:
        return rigid.make(rotations.so3_exp(rng.uniform(-2, 2, 3)), rng.normal(0, 1e3, 3))

    def maybe(value: object) -> object:
        return value if rng.random() < 0.7 else None

    depth_m = rng.uniform(0, 10, (height, width)).astype(np.float32)
    depth_m[0, 0] = np.nan
    return Keyframe(
        id=f"keyframe {seed} / é",
        stamp_ns=int(rng.integers(2**62)),
        image=rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        camera=Camera(
            width=width,
            height=height,
            K=np.array([[rng.uniform(10, 900), 0, width / 3], [0, 500 / 3, height / 3], [0, 0, 1]]),
            distortion_model=model,
            distortion=rng.normal(0, 0.01, COEFFICIENTS[model]),
        ),
        camera_id="front/optical",
        epoch=int(rng.integers(-5, 5)),
        T_odom_base=maybe(pose()),
        T_base_camera=maybe(pose()),
        T_map_base=maybe(pose()),
        mask=maybe(rng.random((height, width)) < 0.5),
        depth_m=maybe(depth_m),
    )


def assert_same(a: Keyframe, b: Keyframe) -> None:
    for name in FIELDS:
        assert getattr(a, name) == getattr(b, name), name
    for name in ARRAYS:
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype, name
            np.testing.assert_array_equal(one, other, name)


SOME = [any_keyframe(seed) for seed in range(3)]
OTHERS = [any_keyframe(seed) for seed in range(10, 12)]


def saved(folder: Path, name: str = "map") -> Path:
    save_map(folder, name, SOME)
    return folder / f"{name}.zip"


def holds(folder: Path, keyframes: list[Keyframe], name: str = "map") -> bool:
    found = load_map(folder, name)
    for one, other in zip(found, keyframes, strict=True):
        assert_same(one, other)
    return True


# --- round trip


@given(st.lists(st.integers(0, 10**6), max_size=4, unique=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_everything_comes_back(tmp_path: Path, seeds: list[int]) -> None:
    keyframes = [any_keyframe(seed) for seed in seeds]
    save_map(tmp_path, "map", keyframes)
    assert holds(tmp_path, keyframes)


def test_into_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert list_maps(folder) == []
    saved(folder, "ground floor")
    saved(folder, "attic-2")
    assert list_maps(folder) == ["attic-2", "ground floor"]
    assert sorted(os.listdir(folder)) == ["attic-2.zip", "ground floor.zip"]


def test_the_new_one_in_place_of_the_old_one(tmp_path: Path) -> None:
    saved(tmp_path)
    save_map(tmp_path, "map", OTHERS)
    assert holds(tmp_path, OTHERS)


def test_loaded_pictures_are_as_good_as_new(tmp_path: Path) -> None:
    saved(tmp_path)
    for one in load_map(tmp_path, "map"):
        assert one.image.flags.c_contiguous
        assert one.view().fingerprint


# --- names


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "/etc/passwd", "../map", "a\\b", ".hidden", "a..b", " ", "a ", "a.", "-rf"),
        *("a\n", "a\0b", "~", "a" * 201, "é" * 150, "*"),
    ],
)
def test_only_plain_names(tmp_path: Path, name: str) -> None:
    for act in (lambda: save_map(tmp_path, name, SOME), lambda: load_map(tmp_path, name)):
        with pytest.raises(BadInputError, match="plain name"):
            act()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "Küche 2", "2026-11-21_10.30", "_", "a.zip", "a" * 200])
def test_plain_names(tmp_path: Path, name: str) -> None:
    saved(tmp_path, name)
    assert list_maps(tmp_path) == [name]
    assert holds(tmp_path, SOME, name)


def test_no_such_map(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there are: none"):
        load_map(tmp_path / "nowhere", "map")
    saved(tmp_path, "kitchen")
    with pytest.raises(BadInputError, match="there are: kitchen"):
        load_map(tmp_path, "map")


# --- damaged, or something else


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_damaged_map_is_an_error_or_whole(tmp_path: Path, data: st.DataObject) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        assert holds(tmp_path, SOME)
    except StorageError as error:
        assert str(path) in str(error)


def rewritten(path: Path, change: dict[str, bytes | None]) -> None:
    """Replace members of the archive, checksums and all."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **change}.items():
            if content is not None:
                archive.writestr(name, content)


def listing(path: Path, **change: object) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return json.dumps({**json.loads(archive.read("map.json")), **change}).encode()


def entry(path: Path, **change: object) -> bytes:
    with zipfile.ZipFile(path) as archive:
        known = json.loads(archive.read("map.json"))
    known["keyframes"][0].update(change)
    return json.dumps(known).encode()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: {"map.json": None}, "map.json"),
        (lambda path: {"map.json": b"[" * 100_000}, "damaged"),
        (lambda path: {"map.json": b"[]"}, "damaged"),
        (lambda path: {"map.json": b"\xff"}, "damaged"),
        (lambda path: {"map.json": listing(path, format="tiles")}, "tiles"),
        (lambda path: {"map.json": listing(path, version=2)}, "version 2"),
        (lambda path: {"map.json": listing(path, keyframes=[None])}, "damaged"),
        (lambda path: {"map.json": listing(path, keyframes={"a": 1})}, "damaged"),
        (lambda path: {"map.json": entry(path, T_base_camera=[[1.0]])}, "T_base_camera"),
        (lambda path: {"map.json": entry(path, T_base_camera="x")}, "damaged"),
        (lambda path: {"map.json": entry(path, camera={})}, "damaged"),
        (lambda path: {"map.json": entry(path, stamp_ns=None)}, "damaged"),
        (lambda path: {"map.json": entry(path, stamp_ns=float("inf"))}, "damaged"),
        (lambda path: {"image/000000.png": None}, "image/000000.png"),
        (lambda path: {"image/000000.png": b"\x89PNG nonsense"}, "decoded"),
        (lambda path: {"image/000000.png": b""}, "damaged"),
    ],
)
def test_a_foreign_map_is_refused(tmp_path: Path, change: object, says: str) -> None:
    path = saved(tmp_path)
    rewritten(path, change(path))
    with pytest.raises(StorageError, match=says) as caught:
        load_map(tmp_path, "map")
    assert str(path) in str(caught.value)


class Trap:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("trapped",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_map(tmp_path, "map", [keyframe("k", depth_m=np.ones((72, 96), np.float32))])
    np.save(tmp_path / "trap.npy", np.array([Trap()], object), allow_pickle=True)
    for content in ((tmp_path / "trap.npy").read_bytes(), pickle.dumps(Trap())):
        rewritten(tmp_path / "map.zip", {"depth/000000.npy": content})
        with pytest.raises(StorageError):
            load_map(tmp_path, "map")
    assert not (tmp_path / "trapped").exists()


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "map.zip").mkdir()
    with pytest.raises(StorageError, match=r"map\.zip"):
        load_map(tmp_path, "map")
    with pytest.raises(StorageError, match=r"map\.zip"):
        saved(tmp_path)
    assert os.listdir(tmp_path) == ["map.zip"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        saved(tmp_path / "file")


# --- disk full, killed


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_the_old_map_outlives_a_disk_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    saved(tmp_path)

    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(store.os, function, fail)
        with pytest.raises(StorageError, match=os.strerror(code)):
            save_map(tmp_path, "map", OTHERS)
    assert holds(tmp_path, SOME)
    assert os.listdir(tmp_path) == ["map.zip"]
    save_map(tmp_path, "map", OTHERS)
    assert holds(tmp_path, OTHERS)


SAVING = """
import os, sys
import numpy as np
from keyframe_samples import keyframe
from pose_bridge.errors import StorageError
from pose_bridge.keyframes.store import save_map
noise = np.random.default_rng(0).integers(0, 256, (72, 96, 3)).astype(np.uint8)

def endless():
    for number in range(int(sys.argv[2])):
        yield keyframe(number, image=noise)

print("begins", flush=True)
try:
    save_map(sys.argv[1], "map", endless())
except StorageError as error:
    print("refused", error)
"""


def saving(folder: Path, count: int, **options: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", SAVING, str(folder), str(count)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_no_room_for_the_whole_map(tmp_path: Path) -> None:
    saved(tmp_path)
    said, _ = saving(tmp_path, 50, preexec_fn=limited).communicate(timeout=60)
    assert "refused" in said
    assert "free space" in said
    assert holds(tmp_path, SOME)
    assert os.listdir(tmp_path) == ["map.zip"]


def test_killed_while_it_saves(tmp_path: Path) -> None:
    path = saved(tmp_path)
    process = saving(tmp_path, 3000)
    try:
        until = time.monotonic() + 60
        while not (parts := list(tmp_path.glob(".map.zip.*.part"))) or not parts[0].stat().st_size:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert holds(tmp_path, SOME)
    assert list_maps(tmp_path) == ["map"]
    save_map(tmp_path, "map", OTHERS)
    assert parts[0].exists()  # somebody may be writing it
    os.utime(parts[0], (time.time() - 3600,) * 2)
    save_map(tmp_path, "map", OTHERS)
    assert sorted(os.listdir(tmp_path)) == [path.name]
