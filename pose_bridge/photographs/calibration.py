# SPDX-License-Identifier: Apache-2.0
"""Where a photograph's camera comes from: a cameras.json, or the focal length that the camera noted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import ExifTags

from pose_bridge.errors import BadCameraError, BadInputError
from pose_bridge.geometry import rigid
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.photographs import images

_CAMERA_KEYS = {"width", "height", "K", "distortion", "distortion_model"}
_FILE_KEYS = _CAMERA_KEYS | {"frames", "note"}
_FRAME_KEYS = _CAMERA_KEYS | {"file", "T_world_camera", "note"}

_FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)  # what CIPA DC-008 means by "35 mm film"
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit
_MAX_ASPECT_CHANGE = 0.01
_ASK = "give its calibration with --cameras, or its focal length in pixels with --focal-px"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One photograph that a cameras.json lists.

    Attributes:
        file: As written there.
        camera: Its own or the shared one; None where the file holds neither.
        T_world_camera: Camera-to-world, (4, 4), in the file's unit of length; None where not given.
    """

    file: str
    camera: Camera | None
    T_world_camera: Array | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What a cameras.json says.

    Attributes:
        path: Of the file.
        shared: Camera of every photograph without one of its own; None where there is none.
        frames: By the absolute path that each photograph has if it lies where the file says.
    """

    path: Path
    shared: Camera | None
    frames: Mapping[Path, Frame]

    def frame(self, path: str | os.PathLike[str]) -> Frame | None:
        """Return what is listed for a photograph; for one that was moved, by the end of its path.

        Raises:
            BadCameraError: Several photographs are listed that it may be.
        """
        exact = self.frames.get(Path(path).resolve())
        if exact is not None:
            return exact
        parts = Path(os.path.abspath(path)).parts
        alike = {file: _common_end(parts, PurePosixPath(file.file).parts) for file in self.frames.values()}
        longest = max(alike.values(), default=0)
        found = [frame for frame, length in alike.items() if length == longest > 0]
        if len(found) > 1:
            names = ", ".join(frame.file for frame in found[:3])
            raise BadCameraError(
                f"{path}: {self.path} lists several photographs that it may be ({names}); "
                "put it where the file says"
            )
        return found[0] if found else None

    def camera(self, path: str | os.PathLike[str]) -> Camera:
        """Return a photograph's camera: its own, or the shared one.

        Raises:
            BadCameraError: There is neither, or `frame` cannot tell.
        """
        frame = self.frame(path)
        camera = self.shared if frame is None or frame.camera is None else frame.camera
        if camera is None:
            raise BadCameraError(f"{path}: not listed in {self.path}, which has no shared K; add it there")
        return camera

    def pose(self, path: str | os.PathLike[str]) -> Array | None:
        """Return T_world_camera of a photograph; None where the file holds none."""
        frame = self.frame(path)
        return None if frame is None else frame.T_world_camera

    def refuse_shared_frames(self, paths: Iterable[Path]) -> None:
        """Check that no two photographs are taken for the same listed one.

        Raises:
            BadCameraError: Two are, so one of them would get the other's calibration.
        """
        taken: dict[str, Path] = {}
        for path in paths:
            frame = self.frame(path)
            if frame is not None and taken.setdefault(frame.file, path) != path:
                raise BadCameraError(
                    f"{path} and {taken[frame.file]} are both taken for {frame.file} of {self.path}; "
                    "put them where the file says, or list both"
                )


def read_cameras(path: str | os.PathLike[str]) -> Calibration:
    """Read a cameras.json.

    It holds `width`, `height`, `K` (3 x 3, OpenCV's whole-numbered pixel centres) and optionally `distortion`
    (none if missing) and `distortion_model`, for all photographs. `frames` is a list of `file` (relative to
    the cameras.json) with, optionally, `T_world_camera` and any of the former where a photograph differs.

    Raises:
        BadCameraError: Missing, no JSON, an unknown or missing key, or an impossible number.
    """
    path = Path(path)
    values = _mapping(_json(path), _FILE_KEYS, str(path))
    entries = values.get("frames", [])
    if not isinstance(entries, list):
        raise BadCameraError(f"{path}: frames must be a list, got {type(entries).__name__}")
    common = {key: values[key] for key in _CAMERA_KEYS if key in values}
    shared = _camera(common, str(path)) if "K" in common or not entries else None
    frames: dict[Path, Frame] = {}
    for number, entry in enumerate(entries):
        frame = _frame(entry, common, shared, f"{path}, frame {number}")
        place = (path.parent / frame.file).resolve()
        if place in frames:
            raise BadCameraError(f"{path}: {frame.file} is listed twice; remove one")
        frames[place] = frame
    return Calibration(path=path, shared=shared, frames=frames)


def camera_from_exif(path: str | os.PathLike[str], width: int, height: int) -> Camera:
    """Return the camera that a photograph's own notes describe: focal length, centred, no distortion.

    Args:
        path: Of the photograph.
        width: Of the upright image, px.
        height: Of the upright image, px.

    Raises:
        BadCameraError: The notes do not say it, or do not fit the size: the photograph was cropped.

    Source: Exif 2.32 (CIPA DC-008-2019), FocalLengthIn35mmFilm, by diagonals, and FocalPlaneXResolution.
    """
    return camera_from_notes(path, images.load(path).exif, width, height)


def camera_from_notes(
    path: str | os.PathLike[str], exif: Mapping[int, Any], width: int, height: int
) -> Camera:
    """Return what `camera_from_exif` does, for one that is read already; the path is for messages."""
    width_taken, height_taken = _exif_number(exif, "ExifImageWidth"), _exif_number(exif, "ExifImageHeight")
    if width_taken and height_taken:
        aspect = max(width, height) / min(width, height)
        aspect_taken = max(width_taken, height_taken) / min(width_taken, height_taken)
        if abs(aspect / aspect_taken - 1.0) > _MAX_ASPECT_CHANGE:
            raise BadCameraError(
                f"{path}: cropped from {width_taken:g}x{height_taken:g} to {width}x{height}, "
                f"so that its focal length is unknown; {_ASK}"
            )
    focal_px = _focal_px(exif, width, height)
    if focal_px is None:
        raise BadCameraError(f"{path}: the photograph does not say its focal length; {_ASK}")
    return Camera.from_focal_px(focal_px, width, height)


def _focal_px(exif: Mapping[int, Any], width: int, height: int) -> float | None:
    full_frame_mm = _exif_number(exif, "FocalLengthIn35mmFilm")
    if full_frame_mm is not None:
        return full_frame_mm / _FULL_FRAME_DIAGONAL_MM * math.hypot(width, height)
    focal_mm, density = _exif_number(exif, "FocalLength"), _exif_number(exif, "FocalPlaneXResolution")
    width_taken, height_taken = _exif_number(exif, "ExifImageWidth"), _exif_number(exif, "ExifImageHeight")
    mm_per_unit = _MM_PER_UNIT.get(int(_exif_number(exif, "FocalPlaneResolutionUnit") or 2))
    if not (focal_mm and density and width_taken and height_taken and mm_per_unit):
        return None
    # The density belongs to the size at which the photograph was taken, which may have been reduced since.
    return focal_mm * density / mm_per_unit * max(width, height) / max(width_taken, height_taken)


_TAG_OF = {name: tag for tag, name in ExifTags.TAGS.items()}


def _exif_number(exif: Mapping[int, Any], name: str) -> float | None:
    """Return a positive number of the notes; EXIF writes 0 for unknown, and some cameras 0/0."""
    try:
        number = float(exif[_TAG_OF[name]])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadCameraError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise BadCameraError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BadCameraError(f"{path}: not valid JSON ({error})") from error


def _mapping(value: Any, known: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadCameraError(f"{where}: must be an object {{...}}, got {type(value).__name__}")
    unknown = sorted(set(value) - known)
    if unknown:
        raise BadCameraError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return value


def _frame(entry: Any, common: Mapping[str, Any], shared: Camera | None, where: str) -> Frame:
    values = _mapping(entry, _FRAME_KEYS, where)
    file = values.get("file")
    if not isinstance(file, str) or not file:
        raise BadCameraError(f"{where}: file must name a photograph, got {file!r}")
    where = f"{where} ({file})"
    own = {key: values[key] for key in _CAMERA_KEYS if key in values}
    camera = _camera({**common, **own}, where) if own else shared
    T_world_camera = values.get("T_world_camera")
    if T_world_camera is not None:
        try:
            T_world_camera = rigid.from_digits(T_world_camera)
        except BadInputError as error:
            raise BadCameraError(f"{where}: T_world_camera: {error}") from error
    return Frame(file=file, camera=camera, T_world_camera=T_world_camera)


def _camera(values: Mapping[str, Any], where: str) -> Camera:
    missing = sorted({"width", "height", "K"} - set(values))
    if missing:
        raise BadCameraError(f"{where}: {', '.join(missing)} missing; give the size, px, and the 3 x 3 K")
    try:
        return Camera.from_opencv(
            values["K"],
            values.get("distortion", ()),
            width=values["width"],
            height=values["height"],
            distortion_model=values.get("distortion_model"),
        )
    except BadCameraError as error:
        raise BadCameraError(f"{where}: {error}") from error


def _common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Count the parts that two paths end with alike."""
    pairs = list(zip(reversed(a), reversed(b)))  # noqa: B905
    return next((n for n, (x, y) in enumerate(pairs) if x != y), len(pairs))
