# SPDX-License-Identifier: Apache-2.0
"""From paths and patterns to the views of both sides of a question."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pose_bridge.errors import BadCameraError, BadInputError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.photographs import images
from pose_bridge.photographs.calibration import Calibration, camera_from_notes
from pose_bridge.photographs.images import Photograph
from pose_bridge.views import View


class Side(Enum):
    """The two sides of a question."""

    REFERENCE = "reference"
    TARGET = "target"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sides:
    """The two photographs of a question and those around each."""

    reference: View
    target: View
    reference_context: tuple[View, ...]
    target_context: tuple[View, ...]


def read_sides(
    reference: Path,
    target: Path,
    reference_patterns: Sequence[str] = (),
    target_patterns: Sequence[str] = (),
    *,
    calibration: Calibration | None = None,
    focal_px: float | None = None,
    posed: Collection[Side] = (),
) -> Sides:
    """Read the photographs of a question.

    Args:
        reference: The one end.
        target: The other.
        reference_patterns: Paths or globs of photographs around the reference.
        target_patterns: The same for the target.
        calibration: Where the cameras come from.
        focal_px: The focal length of every photograph, instead.
        posed: Sides on which the calibration's poses, which must be metric, become `View.T_side_camera`.

    Raises:
        BadInputError, BadImageError, BadCameraError: A photograph, a camera, or the combination is no good.
    """
    if reference.resolve() == target.resolve():
        raise BadInputError(f"reference and target are the same photograph, {reference}; name two")
    if calibration is not None and focal_px is not None:
        raise BadInputError("both a calibration and a focal length are given; give one of them")
    ends = (reference, target)
    context = {
        Side.REFERENCE: find_context(reference_patterns, ends),
        Side.TARGET: find_context(target_patterns, ends),
    }
    of_target = {path.resolve() for path in context[Side.TARGET]}
    for path in context[Side.REFERENCE]:
        if path.resolve() in of_target:
            raise BadInputError(f"{path} is around both ends; name it on one side only")
    sides = {
        Side.REFERENCE: [reference, *context[Side.REFERENCE]],
        Side.TARGET: [target, *context[Side.TARGET]],
    }
    ids = view_ids([*sides[Side.REFERENCE], *sides[Side.TARGET]])
    if calibration is not None:
        calibration.refuse_shared_frames(ids)
    views = {
        side: read_context(paths, calibration, focal_px, ids=ids, with_poses=side in posed)
        for side, paths in sides.items()
    }
    for side in posed:
        if all(view.T_side_camera is None for view in views[side]):
            raise BadInputError(
                f"no photograph of the {side.value} side has a pose; give them T_world_camera"
            )
    if focal_px is not None:
        _refuse_sizes(focal_px, [view for side in views.values() for view in side])
    return Sides(
        reference=views[Side.REFERENCE][0],
        target=views[Side.TARGET][0],
        reference_context=views[Side.REFERENCE][1:],
        target_context=views[Side.TARGET][1:],
    )


def read_context(
    paths: Iterable[Path],
    calibration: Calibration | None = None,
    focal_px: float | None = None,
    *,
    ids: Mapping[Path, str] | None = None,
    with_poses: bool = False,
) -> tuple[View, ...]:
    """Read several photographs, in the given order.

    Raises:
        BadImageError, BadCameraError: As `read_view`.
    """
    paths = list(paths)
    ids = view_ids(paths) if ids is None else ids
    return tuple(
        read_view(path, calibration, focal_px, view_id=ids[path], with_pose=with_poses) for path in paths
    )


def read_view(
    path: Path,
    calibration: Calibration | None = None,
    focal_px: float | None = None,
    *,
    view_id: str | None = None,
    with_pose: bool = False,
) -> View:
    """Read one photograph with its camera: by calibration, by focal length, or else by what the file says.

    The calibration decides whether the photograph stands upright: where its size fits the upright image, that
    is taken; where it fits only the pixels as stored, those are. Nothing is scaled.

    Args:
        path: Of the photograph.
        calibration: A cameras.json.
        focal_px: For square pixels, a centred principal point and no distortion.
        view_id: None for the file's name without its ending.
        with_pose: Whether the calibration's pose becomes `View.T_side_camera`.

    Raises:
        BadImageError: The photograph cannot be read.
        BadCameraError: The camera is not known, or not of this size.
    """
    photograph = images.load(path)
    if calibration is not None:
        camera = calibration.camera(path)
        photograph = _fitting(photograph, camera, path, calibration)
    else:
        photograph = photograph.upright()
        camera = (
            camera_from_notes(path, photograph.exif, *photograph.size)
            if focal_px is None
            else Camera.from_focal_px(focal_px, *photograph.size)
        )
    return View(
        id=path.stem if view_id is None else view_id,
        image=photograph.image,
        camera=camera,
        mask=photograph.mask,
        T_side_camera=calibration.pose(path) if calibration is not None and with_pose else None,
    )


def find_context(patterns: Sequence[str], ends: Collection[Path] = ()) -> list[Path]:
    """Return the photographs that patterns name, in natural order within each, every one once.

    Args:
        patterns: Paths, or globs with * ? [] and **.
        ends: Left out.

    Raises:
        BadInputError: A pattern matches nothing.
    """
    seen = {path.resolve() for path in ends}
    found = []
    for pattern in patterns:
        expanded = os.path.expanduser(pattern)
        matches = [expanded] if os.path.isfile(expanded) else glob.glob(expanded, recursive=True)
        if not matches:
            raise BadInputError(f"no photograph matches {pattern!r}; check the folder, and quote the pattern")
        for path in sorted(map(Path, matches), key=natural):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                found.append(path)
    return found


def view_ids(paths: Iterable[Path]) -> dict[Path, str]:
    """Name photographs by as much of the end of their paths as tells them apart, without the ending."""
    paths = list(paths)
    parts = {path: Path(os.path.abspath(path)).parts for path in paths}
    for keep_suffix in (False, True):
        for length in range(1, max((len(p) for p in parts.values()), default=1) + 1):
            ids = {path: str(Path(*parts[path][-length:])) for path in paths}
            if not keep_suffix:
                ids = {path: str(Path(name).with_suffix("")) for path, name in ids.items()}
            if len(set(ids.values())) == len(ids):
                return ids
    raise AssertionError("two photographs have one path")


def _fitting(photograph: Photograph, camera: Camera, path: Path, calibration: Calibration) -> Photograph:
    size = (camera.width, camera.height)
    if size == photograph.upright_size:
        return photograph.upright()
    if size == photograph.size and photograph.quarter_turned:
        return photograph
    width, height = photograph.upright_size
    remedy = (
        f"resize it to {size[0]}x{size[1]}, or give width, height and K at its own size"
        if abs(width * size[1] - height * size[0]) <= max(width, height, *size)
        else "it was cropped, or taken with another camera; give its own width, height and K"
    )
    raise BadCameraError(
        f"{path}: the photograph is {width}x{height}, its calibration in {calibration.path} is for "
        f"{size[0]}x{size[1]}; {remedy}"
    )


def _refuse_sizes(focal_px: float, views: Sequence[View]) -> None:
    sizes = {tuple(sorted((view.camera.width, view.camera.height))): view.id for view in views}
    if len(sizes) > 1:
        named = ", ".join(f"{long}x{short} ({name})" for (short, long), name in sizes.items())
        raise BadCameraError(
            f"one focal length, {focal_px:g} px, cannot fit photographs of several sizes: {named}; "
            "give a cameras.json"
        )


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Key that orders 9.jpg before 10.jpg."""
    pieces = re.findall(r"\d+|\D+", str(path))
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces]
