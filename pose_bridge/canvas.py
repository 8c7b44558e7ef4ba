# SPDX-License-Identifier: Apache-2.0
"""Views as networks want them: of one size, pinholes with the principal point in the middle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View

log = logging.getLogger(__name__)

WIDEST_TAN = np.tan(np.radians(65.0))  # of half the angle; beyond, a pinhole stretches pictures too far
BORDER_STEPS = 33
BLANK = 255  # what lies around a view

Size = tuple[int, int]  # width, height, px


@dataclass(frozen=True, eq=False)
class Canvas:
    """One view.

    Attributes:
        image: uint8 RGB, (H, W, 3).
        camera: Of the image; its axes are those of the view's own camera.
        inside: bool (H, W), True where the view's picture lies, and not its mask.
    """

    image: NDArray[np.uint8]
    camera: Camera
    inside: NDArray[np.bool_]


def canvases(views: Sequence[View], long_side_px: int, patch_px: int) -> list[Canvas]:
    """Draw views on canvases of one size, none of them cropped; see `common_size`."""
    size = common_size(views, long_side_px, patch_px)
    return [draw(view, long_side_px, size) for view in views]


def common_size(views: Sequence[View], long_side_px: int, patch_px: int) -> Size:
    """Return the size of the canvas on which each of the views has room.

    Args:
        views: Any cameras.
        long_side_px: Of a canvas, before it is rounded up to whole patches.
        patch_px: Side of a patch.
    """
    reaches = np.array([_reach(view) for view in views])
    needed_px = (long_side_px * reaches / reaches.max(axis=1, keepdims=True)).max(axis=0)
    width, height = (int(patch_px * np.ceil(side / patch_px - 1e-6)) for side in needed_px)
    return width, height


def draw(view: View, long_side_px: int, size: Size) -> Canvas:
    """Draw a view on a canvas that has room for it, its longer side as long as was asked for."""
    scale = long_side_px / (2.0 * max(_reach(view)))
    camera = Camera.from_focal_px(scale, *size)
    shrink = min(1.0, scale / view.camera.mean_focal_px)
    small = max(1, round(shrink * view.camera.width)), max(1, round(shrink * view.camera.height))
    image = cv2.resize(view.image, small, interpolation=cv2.INTER_AREA) if shrink < 1.0 else view.image
    usable = np.full(view.image.shape[:2], 255, np.uint8)
    if view.mask is not None:
        usable *= view.mask
    maps = _maps(view.camera.resize(image.shape[1], image.shape[0]), camera)
    drawn = cv2.remap(image, *maps, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, (BLANK,) * 3)
    inside = cv2.remap(usable, *_maps(view.camera, camera), cv2.INTER_NEAREST, None, cv2.BORDER_CONSTANT, 0)
    if view.mask is not None:  # what must not be used is not shown: a robot's own body never moves
        drawn[inside == 0] = BLANK
    return Canvas(np.asarray(drawn, np.uint8), camera, np.asarray(inside) > 0)


def _reach(view: View) -> tuple[float, float]:
    """How far from the axis the picture reaches to the sides, and up or down, on the plane z = 1."""
    camera = view.camera
    x, y = np.linspace(0.0, camera.width, BORDER_STEPS), np.linspace(0.0, camera.height, BORDER_STEPS)
    border = np.concatenate(
        [np.c_[x, np.full_like(x, edge)] for edge in (0.0, camera.height)]
        + [np.c_[np.full_like(y, edge), y] for edge in (0.0, camera.width)]
    )
    rays = np.abs(camera.normalize(border))
    across, along = np.nanmax(np.where(np.isnan(rays), WIDEST_TAN, rays), axis=0)
    if max(across, along) >= WIDEST_TAN:
        log.warning("%s: what its lens sees 65 degrees or more off its axis is left out", view.id)
    return min(float(across), WIDEST_TAN), min(float(along), WIDEST_TAN)


def _maps(source: Camera, target: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where in the source each pixel of the target is seen, as cv2.remap wants it."""
    fisheye = source.distortion_model == "equidistant"
    make = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
    size = target.width, target.height
    coefficients = source.distortion.copy() if len(source.distortion) else np.zeros(4)
    maps = make(source.to_opencv_K(), coefficients, np.eye(3), target.to_opencv_K(), size, cv2.CV_32FC1)
    return np.asarray(maps[0], np.float32), np.asarray(maps[1], np.float32)
