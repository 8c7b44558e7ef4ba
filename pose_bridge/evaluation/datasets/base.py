# SPDX-License-Identifier: Apache-2.0
"""What every data set gives: scenes, and in them photographs with a camera and a pose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadCameraError, BadInputError
from pose_bridge.geometry import rigid
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.photographs import read_image
from pose_bridge.views import View


@dataclass(frozen=True, eq=False)
class Frame:
    """One photograph of a scene.

    Attributes:
        name: In its scene; views are named by it.
        T_world_camera: (4, 4), camera x right, y down, z forward.
        view: Reads it.
        sequence: Of its scene, that it was taken in: others' neither come before it nor after it.
    """

    name: str
    T_world_camera: Array
    view: Callable[[], View]
    sequence: str = ""


@dataclass(frozen=True, eq=False)
class Scene:
    """Photographs of one place, or one thing.

    Attributes:
        name: In its data set.
        frames: In the order in which they were taken, as far as that is known.
        metric: Whether lengths are metres.
        kind: Of scenes that are told apart in reports; empty where none are.
        place: Scenes of one place depend on each other; empty where each is a place of its own.
    """

    name: str
    frames: Sequence[Frame]
    metric: bool
    kind: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        names = [frame.name for frame in self.frames]
        if len(set(names)) < len(names):
            raise BadInputError(f"scene {self.name}: two photographs have one name; give each its own")

    def frame(self, name: str) -> Frame:
        """Return one by its name.

        Raises:
            BadInputError: There is none.
        """
        for frame in self.frames:
            if frame.name == name:
                return frame
        raise BadInputError(f"scene {self.name} has no photograph {name}; draw the pairs anew")

    def T_reference_target(self, reference: str, target: str) -> Array:
        """Return the true pose of one photograph seen from another, (4, 4)."""
        return rigid.relative(self.frame(reference).T_world_camera, self.frame(target).T_world_camera)


class Dataset(Protocol):
    """A folder in one of the layouts."""

    def scenes(self) -> list[str]:
        """Return their names, sorted.

        Raises:
            BadInputError: The folder does not exist, or has none.
        """
        ...

    def scene(self, name: str) -> Scene:
        """Read one: names, cameras and poses, no pictures yet.

        Raises:
            BadInputError: There is none of that name, or its files are not what the layout says.
        """
        ...

    def elsewhere(self, name: str) -> list[str]:
        """Return scenes of other places, the more like this one the better; none where that is not known."""
        ...

    def alike(self, name: str, other: str) -> list[tuple[str, str]]:
        """Return frames of two scenes of different places that look at equal things, as far as is known."""
        ...


def photograph(name: str, path: Path, camera: Camera, T_world_camera: ArrayLike, sequence: str = "") -> Frame:
    """Return a frame that is a file.

    Args:
        name: In its scene.
        path: Of the picture, which is turned as its EXIF says when it is read.
        camera: Its own, of that size.
        T_world_camera: (4, 4), written with however few digits.
        sequence: That it was taken in.

    Raises:
        BadInputError: It is no pose.
    """
    try:
        T = rigid.from_digits(T_world_camera)
    except BadInputError as error:
        raise BadInputError(f"{path}: its pose: {error}") from error
    return Frame(name, T, partial(_read, name, path, camera), sequence)


def _read(name: str, path: Path, camera: Camera) -> View:
    image, mask = read_image(path)
    return View(id=name, image=image, camera=camera, mask=mask)


def pinhole(
    K: ArrayLike, size: tuple[int, int], path: Path, distortion: ArrayLike = (), model: str | None = None
) -> Camera:
    """Return the camera of a layout that counts pixel centres from 0.5.

    Args:
        K: (3, 3), px.
        size: Width and height, px.
        path: Of the file that says so.
        distortion: OpenCV's coefficients, (0,), (4,), (5,) or (8,).
        model: Of the distortion; None to tell it from the coefficients.

    Raises:
        BadInputError: It is impossible.
    """
    K_opencv = np.array(K, np.float64)
    try:
        K_opencv[:2, 2] -= 0.5
        width, height = size
        return Camera.from_opencv(K_opencv, distortion, width=width, height=height, distortion_model=model)
    except (BadCameraError, IndexError) as error:
        raise BadInputError(f"{path}: its camera: {error}") from error


def folders(root: Path, holding: str) -> list[str]:
    """Return the folders below a root, by their way from there, that hold what a pattern says.

    Raises:
        BadInputError: The root does not exist, or no folder holds it.
    """
    if not root.is_dir():
        raise BadInputError(f"{root} is not a folder; give the one that the data set was unpacked into")
    depth = len(Path(holding).parts)
    found = {path.parents[depth - 1].relative_to(root).as_posix() for path in root.rglob(holding)}
    if not found:
        raise BadInputError(f"no folder in {root} holds {holding}; is it another layout?")
    return sorted(found)


def listed(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        BadInputError: Missing, or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: {error}") from error


def numbers(path: Path, shape: tuple[int, ...]) -> Array:
    """Return the numbers in a text file.

    Raises:
        BadInputError: Missing, or not as many.
    """
    try:
        return np.array(path.read_text().split(), np.float64).reshape(shape)
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: must hold {'x'.join(map(str, shape))} numbers: {error}") from error


def rows(path: Path, columns: int) -> Iterator[list[str]]:
    """Return the lines of a text file that hold so many words; headers and empty ones do not.

    Raises:
        BadInputError: It is missing.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BadInputError(f"{path}: {error}") from error
    return (words for line in lines if len(words := line.split()) >= columns)
