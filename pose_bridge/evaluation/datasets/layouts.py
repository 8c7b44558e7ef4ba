# SPDX-License-Identifier: Apache-2.0
"""The layouts in which data sets come, one class each: where files lie, and whose axes their poses have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation.datasets.base import (
    Dataset,
    Frame,
    Scene,
    folders,
    listed,
    numbers,
    photograph,
    pinhole,
    rows,
)
from pose_bridge.evaluation.datasets.simulator import Simulator
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.photographs import read_cameras, read_size
from pose_bridge.photographs.reading import natural

FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's camera looks along -z, y up
PICTURES = (".jpg", ".jpeg", ".png")
REDUCED = ("images", "images_2", "images_4", "images_8")
NAVI_MM = 1e-3
STRETCH = 0.01  # by which pictures may be other than the calibration's in shape
OFF_CENTRE = 0.1  # of the width; a principal point farther from the middle is of other pixels
_RADIAL = ("k1", "k2", "p1", "p2", "k3")
LENSES = {
    "OPENCV": ("plumb_bob", _RADIAL),
    "PINHOLE": ("plumb_bob", _RADIAL),
    "SIMPLE_PINHOLE": ("plumb_bob", _RADIAL),
    "SIMPLE_RADIAL": ("plumb_bob", _RADIAL),
    "RADIAL": ("plumb_bob", _RADIAL),
    "OPENCV_FISHEYE": ("equidistant", ("k1", "k2", "k3", "k4")),
}


class Layout:
    """A folder whose scenes are those folders below it that hold a certain file.

    Attributes:
        holding: That file.
    """

    holding: str

    def __init__(self, root: Path) -> None:
        self._root = root

    def scenes(self) -> list[str]:
        """See `Dataset`."""
        return folders(self._root, self.holding)

    def elsewhere(self, name: str) -> list[str]:
        """See `Dataset`. Two folders may well show one place."""
        return []

    def alike(self, name: str, other: str) -> list[tuple[str, str]]:
        """See `Dataset`."""
        return []


class Photographs(Layout):
    """Folders with a cameras.json: `<scene>/cameras.json`, and the photographs that it names."""

    holding = "cameras.json"

    def scene(self, name: str) -> Scene:
        """See `Dataset`. Photographs without a pose are left out."""
        path = self._root / name / "cameras.json"
        calibration = read_cameras(path)
        frames = []
        for place, listed_frame in calibration.frames.items():
            if listed_frame.T_world_camera is not None:
                camera = calibration.camera(place)
                frames.append(photograph(listed_frame.file, place, camera, listed_frame.T_world_camera))
        return Scene(name, frames, metric=False)


class Nerfstudio(Layout):
    """Nerfstudio's layout, and DL3DV's: `<...>/transforms.json` with OpenGL's camera-to-world.

    DL3DV ships reduced pictures: of `images`, `images_2`, `images_4` and `images_8` the first that is there.
    """

    holding = "transforms.json"

    def scene(self, name: str) -> Scene:
        """See `Dataset`."""
        path = self._root / name / "transforms.json"
        content = listed(path)
        if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
            raise BadInputError(f"{path}: holds no list of frames")
        if not all(isinstance(entry, dict) for entry in content["frames"]):
            raise BadInputError(f"{path}: a frame is no mapping")
        frames = [self._frame(path, {**content, **entry}) for entry in content["frames"]]
        return Scene(name, sorted(frames, key=lambda frame: natural(Path(frame.name))), metric=False)

    def _frame(self, path: Path, entry: Mapping[str, Any]) -> Frame:
        try:
            file, T = Path(entry["file_path"]), np.asarray(entry["transform_matrix"], np.float64)
            picture = _existing(path.parent / folder / file.name for folder in (file.parent, *REDUCED))
            size = read_size(picture)
            share = np.array(size) / [entry["w"], entry["h"]]  # of the pixels that the calibration is for
            focal = np.array([entry["fl_x"], entry.get("fl_y", entry["fl_x"])]) * share
            middle = np.array([entry["cx"], entry["cy"]]) * share
            model, names = LENSES[entry.get("camera_model", "OPENCV")]
            lens = [float(entry.get(key, 0.0)) for key in names]
            unknown = [key for key in ("k4", "k5", "k6") if key not in names and float(entry.get(key, 0.0))]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(f"{path}: a frame lacks, misspells or does not know {error}") from error
        if unknown:
            raise BadInputError(
                f"{path}: {file} has a lens with {', '.join(unknown)}; undistort the pictures"
            )
        if abs(share[0] / share[1] - 1.0) > STRETCH:
            raise BadInputError(
                f"{picture} is {size[0]}x{size[1]}, its calibration for {entry['w']}x{entry['h']}: cropped, "
                "or turned by its EXIF; give the calibration of these pixels"
            )
        K = [[focal[0], 0.0, middle[0]], [0.0, focal[1], middle[1]], [0.0, 0.0, 1.0]]
        camera = pinhole(K, size, path, lens if any(lens) else (), model if any(lens) else None)
        if T.shape != (4, 4):
            raise BadInputError(f"{path}: transform_matrix of {file} must be 4 x 4, got {T.shape}")
        return photograph(file.as_posix(), picture, camera, T @ FLIP_YZ)


class ScanNet(Layout):
    """ScanNet's: `<scene>/{color/N.jpg, pose/N.txt, intrinsic/intrinsic_color.txt}`, camera-to-world."""

    holding = "intrinsic/intrinsic_color.txt"

    def scene(self, name: str) -> Scene:
        """See `Dataset`. Frames whose tracking was lost (infinite poses) are left out."""
        folder = self._root / name
        K = numbers(folder / "intrinsic" / "intrinsic_color.txt", (4, 4))[:3, :3]
        taken = (path for path in (folder / "color").glob("*.jpg") if path.stem.isdecimal())
        pictures = sorted(taken, key=lambda path: int(path.stem))
        if not pictures:
            raise BadInputError(f"{folder / 'color'} holds no N.jpg; export the colour frames first")
        size = read_size(pictures[0])
        if np.abs(K[:2, 2] / size - 0.5).max() > OFF_CENTRE:
            raise BadInputError(
                f"{folder}: {pictures[0].name} is {size[0]}x{size[1]}, intrinsic_color.txt is for other "
                "pixels; if the frames were reduced, reduce it too"
            )
        camera = Camera.from_opencv(K, width=size[0], height=size[1])
        frames = []
        for path in pictures:
            T = numbers(folder / "pose" / f"{path.stem}.txt", (4, 4))
            if np.isfinite(T).all():
                frames.append(photograph(path.stem, path, camera, T))
        return Scene(name, frames, metric=True, place=name.rpartition("_")[0])  # scene0707_00, _01: one room


class Cambridge(Layout):
    """Cambridge Landmarks': `<scene>/{seqN/frame00001.png, dataset_*.txt, reconstruction.nvm}`.

    Places and world-to-camera rotations stand in the text files, focal lengths in the reconstruction.
    """

    holding = "dataset_test.txt"

    def scene(self, name: str) -> Scene:
        """See `Dataset`. Training and test photographs together, by sequence."""
        folder = self._root / name
        focals_px = self._focals_px(folder / "reconstruction.nvm")
        frames = []
        for path in sorted(folder.glob("dataset_*.txt")):
            for file, *written in rows(path, 8):
                if Path(file).suffix.lower() not in PICTURES:
                    continue  # the header
                try:
                    x, y, z, qw, qx, qy, qz = map(float, written[:7])
                except ValueError as error:
                    raise BadInputError(f"{path}: the pose of {file}: {error}") from error
                picture, key = folder / file, _stem(file)
                if key not in focals_px:
                    raise BadInputError(f"{folder / 'reconstruction.nvm'}: no focal length of {file}")
                R_camera_world = rotations.rotation_from_quat_xyzw(_unit([qx, qy, qz, qw]))
                T_world_camera = rigid.make(R_camera_world.T, [x, y, z])
                camera = Camera.from_focal_px(focals_px[key], *read_size(picture))
                frames.append(photograph(key, picture, camera, T_world_camera, Path(file).parent.as_posix()))
        return Scene(name, sorted(frames, key=lambda frame: frame.name), metric=True)

    @staticmethod
    def _focals_px(path: Path) -> dict[str, float]:
        """Of each photograph; lines are file, focal length, quaternion, place, distortion; points follow."""
        found = {}
        for file, focal_px, *_ in rows(path, 11):
            if Path(file).suffix.lower() not in PICTURES:
                break
            try:
                found[_stem(file)] = float(focal_px)
            except ValueError as error:
                raise BadInputError(f"{path}: the focal length of {file}: {error}") from error
        return found


class Navi(Layout):
    """NAVI's: `<object>/{multiview-*, video-*, wild_set}/{annotations.json, images/}`.

    Poses take the object's points, in millimetres, to the camera (x right, y down, z forward).
    """

    holding = "annotations.json"

    def scene(self, name: str) -> Scene:
        """See `Dataset`."""
        path = self._root / name / "annotations.json"
        entries = listed(path)
        if not isinstance(entries, list):
            raise BadInputError(f"{path}: holds no list of photographs")
        one_by_one = Path(name).name.startswith("video")  # others were taken in no order
        frames = [self._frame(path, entry, one_by_one) for entry in entries]
        return Scene(name, frames, metric=True, place=name.split("/")[0])

    @staticmethod
    def _frame(path: Path, entry: Mapping[str, Any], one_by_one: bool) -> Frame:
        try:
            qw, qx, qy, qz = entry["camera"]["q"]
            t_m = NAVI_MM * np.asarray(entry["camera"]["t"], np.float64)
            height, width = entry["image_size"]
            focal_px, file = float(entry["camera"]["focal_length"]), str(entry["filename"])
            T_camera_object = rigid.make(rotations.rotation_from_quat_xyzw(_unit([qx, qy, qz, qw])), t_m)
            camera = Camera.from_focal_px(focal_px, int(width), int(height))
        except (KeyError, TypeError, ValueError, BadInputError) as error:
            raise BadInputError(f"{path}: a photograph lacks or misspells {error}") from error
        picture = path.parent / "images" / file
        sequence = "" if one_by_one else file
        return photograph(file, picture, camera, rigid.inverse(T_camera_object), sequence)


LAYOUTS: dict[str, type] = {
    "photographs": Photographs,
    "nerfstudio": Nerfstudio,
    "dl3dv": Nerfstudio,
    "scannet": ScanNet,
    "cambridge": Cambridge,
    "navi": Navi,
    "simulator": Simulator,
}


def opened(spec: str) -> Dataset:
    """Return the data set that `layout:folder` names; the simulator's folders are its splits.

    Raises:
        BadInputError: The layout is unknown.
    """
    layout, colon, folder = spec.partition(":")
    if not colon or layout not in LAYOUTS:
        raise BadInputError(f"{spec!r}: name a data set as layout:folder, layout being {', '.join(LAYOUTS)}")
    dataset: Dataset = LAYOUTS[layout](Path(folder).expanduser())
    return dataset


def _existing(paths: Iterator[Path]) -> Path:
    tried = list(paths)
    for path in tried:
        if path.is_file():
            return path
    raise BadInputError(f"{tried[0]} does not exist, nor a reduced copy of it")


def _stem(file: str) -> str:
    """A file's way without its ending: the reconstruction names photographs that became PNG since."""
    return Path(file).with_suffix("").as_posix()


def _unit(quat_xyzw: list[float]) -> Array:
    quat = np.asarray(quat_xyzw, np.float64)
    norm = float(np.linalg.norm(quat))
    if not 0.9 < norm < 1.1:
        raise BadInputError(f"a quaternion of length {norm:g} is no rotation")
    return quat / norm
