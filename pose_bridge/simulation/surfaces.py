# SPDX-License-Identifier: Apache-2.0
"""What a simulated room is made of: textured rectangles, and their textures in one image of many scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.geometry.arrays import Array

Image = NDArray[np.uint8]

WHOLE = (0.0, 0.0, 1.0, 1.0)
SIDES = ("front", "back", "left", "right", "top", "bottom")  # front is -y, left is -x
LEVELS = 10
ATLAS_WIDTH = 4096


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Textured rectangles, seen from one side only.

    Attributes:
        corners: Where the texture's top left corner lies, (N, 3), metres.
        across: Along the texture's rows, the whole edge, (N, 3).
        down: Along its columns, (N, 3).
        textures: Index of the texture, (N,).
        windows: What part of it is shown: left, top, width, height, as shares of the texture, (N, 4).
        sheens: How much brighter it gets seen against the light, (N,).
    """

    corners: Array
    across: Array
    down: Array
    textures: NDArray[np.intp]
    windows: Array
    sheens: Array

    @staticmethod
    def join(parts: Iterable[Surfaces]) -> Surfaces:
        """All of them as one."""
        chosen = list(parts)
        return Surfaces(
            np.concatenate([part.corners for part in chosen]),
            np.concatenate([part.across for part in chosen]),
            np.concatenate([part.down for part in chosen]),
            np.concatenate([part.textures for part in chosen]),
            np.concatenate([part.windows for part in chosen]),
            np.concatenate([part.sheens for part in chosen]),
        )

    def moved(self, T_a_b: Array) -> Surfaces:
        """The same in frame a."""
        R, t = T_a_b[:3, :3], T_a_b[:3, 3]
        return Surfaces(
            self.corners @ R.T + t,
            self.across @ R.T,
            self.down @ R.T,
            self.textures,
            self.windows,
            self.sheens,
        )

    def part(self, chosen: NDArray[np.intp]) -> Surfaces:
        """Those with these indices, (M,)."""
        return Surfaces(
            self.corners[chosen],
            self.across[chosen],
            self.down[chosen],
            self.textures[chosen],
            self.windows[chosen],
            self.sheens[chosen],
        )

    @property
    def normals(self) -> Array:
        """Unit vectors towards those who see the surface, (N, 3)."""
        normals = np.cross(self.down, self.across)
        return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True))


def cuboid(
    low: Sequence[float],
    high: Sequence[float],
    textures: Mapping[str, int] | int,
    *,
    windows: Mapping[str, Sequence[float]] | None = None,
    sheen: float = 0.0,
) -> Surfaces:
    """The outside of an upright box.

    Args:
        low: Corner with the smallest coordinates, (3,), metres.
        high: The opposite one.
        textures: Index of the texture of each side in `SIDES` that there is; one number for all.
        windows: What part of it a side shows, where that is not all.
        sheen: See `Surfaces`.
    """
    (x0, y0, z0), (x1, y1, z1) = low, high
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    edges = {
        "front": ((x0, y0, z1), (dx, 0, 0), (0, 0, -dz)),
        "back": ((x1, y1, z1), (-dx, 0, 0), (0, 0, -dz)),
        "left": ((x0, y1, z1), (0, -dy, 0), (0, 0, -dz)),
        "right": ((x1, y0, z1), (0, dy, 0), (0, 0, -dz)),
        "top": ((x0, y1, z1), (dx, 0, 0), (0, -dy, 0)),
        "bottom": ((x0, y0, z0), (dx, 0, 0), (0, dy, 0)),
    }
    chosen = dict.fromkeys(SIDES, textures) if isinstance(textures, int) else dict(textures)
    corners, across, down = np.array([edges[side] for side in chosen], float).transpose(1, 0, 2)
    shown = [(windows or {}).get(side, WHOLE) for side in chosen]
    return Surfaces(
        corners,
        across,
        down,
        np.array(list(chosen.values()), np.intp),
        np.array(shown, float),
        np.full(len(chosen), sheen),
    )


class Atlas:
    """Textures in one image, each at scales of 1, 1/2, 1/4, ..., so that one look-up serves them all.

    Attributes:
        image: RGB.
        places: Left, top, width and height of each texture at each of `LEVELS` scales, px, (T, LEVELS, 4).
    """

    def __init__(self, textures: Sequence[Image]) -> None:
        pyramids = [_pyramid(texture) for texture in textures]
        keys = [(index, level) for index, pyramid in enumerate(pyramids) for level in range(len(pyramid))]
        keys.sort(key=lambda key: -pyramids[key[0]][key[1]].shape[0])
        corners, height = _shelves([pyramids[index][level].shape for index, level in keys])
        self.image = np.zeros((height, ATLAS_WIDTH, 3), np.uint8)
        self.places = np.zeros((len(textures), LEVELS, 4))
        for (index, level), (left, top) in zip(keys, corners, strict=True):
            picture = pyramids[index][level]
            rows, columns = picture.shape[:2]
            framed = cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
            self.image[top : top + rows + 2, left : left + columns + 2] = framed
            self.places[index, level] = (left + 1, top + 1, columns, rows)
        for index, pyramid in enumerate(pyramids):
            self.places[index, len(pyramid) :] = self.places[index, len(pyramid) - 1]


def _pyramid(texture: Image) -> list[Image]:
    levels = [texture]
    while len(levels) < LEVELS and min(levels[-1].shape[:2]) > 2:
        rows, columns = levels[-1].shape[:2]
        smaller = cv2.resize(levels[-1], (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(smaller, np.uint8))
    return levels


def _shelves(shapes: Iterable[tuple[int, ...]]) -> tuple[list[tuple[int, int]], int]:
    """Left and top of framed pictures, given tallest first, in rows of `ATLAS_WIDTH`; and the height."""
    corners, left, top, bottom = [], 0, 0, 0
    for rows, columns, *_ in shapes:
        if left + columns + 2 > ATLAS_WIDTH:
            left, top = 0, bottom
        corners.append((left, top))
        left, bottom = left + columns + 2, max(bottom, top + rows + 2)
    return corners, bottom
