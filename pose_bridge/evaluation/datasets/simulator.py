# SPDX-License-Identifier: Apache-2.0
"""Walks through simulated houses as a data set that needs no files: `simulator:test`."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation.datasets.base import Frame, Scene
from pose_bridge.geometry.arrays import Array, Mask
from pose_bridge.simulation import walks
from pose_bridge.simulation.questions import twins
from pose_bridge.simulation.walks import ROOMS, WALKS, Facing, Split, Walk
from pose_bridge.views import View

SIZE = (320, 240)
HOUSES = 100
NEAR_M = (0.4, 3.5)  # to a thing that is looked at


class Simulator:
    """The houses of a split; each walk is a scene.

    Args:
        root: Name of the split.

    Raises:
        BadInputError: There is none of that name.
    """

    def __init__(self, root: Path) -> None:
        if root.name.upper() not in Split.__members__:
            names = ", ".join(split.name.lower() for split in Split)
            raise BadInputError(f"the simulator has {names}, not {root.name!r}: say simulator:test")
        self._split = Split[root.name.upper()]
        every = itertools.product(range(HOUSES), range(ROOMS), range(WALKS))
        self._names = {_name(*numbers): numbers for numbers in every}

    def scenes(self) -> list[str]:
        """See `Dataset`."""
        return list(self._names)

    def scene(self, name: str) -> Scene:
        """See `Dataset`. A walk that found no way has no frames."""
        house, room, number = self._place(name)
        try:
            walk = walks.walk(self._split, house, room, number)
        except BadInputError:
            return Scene(name, [], metric=True)
        frames = [
            Frame(f"{index:02d}", T, partial(_view, f"{index:02d}", walk, index))
            for index, T in enumerate(walk.T_world_camera)
        ]
        return Scene(name, frames, metric=True, kind=walk.facing.value, place=f"house{house:03d}")

    def elsewhere(self, name: str) -> list[str]:
        """See `Dataset`: the other rooms of the house, which share its furniture, pictures and papers."""
        house, room, _ = self._place(name)
        others = (other for other in range(ROOMS) if other != room)
        return [_name(house, other, walk) for other in others for walk in range(WALKS)]

    def alike(self, name: str, other: str) -> list[tuple[str, str]]:
        """See `Dataset`: both look at a piece of furniture of one kind, whatever stands before it."""
        here, there = (walks.walk(self._split, *self._place(one)) for one in (name, other))
        twins_m = twins(here.room, there.room)
        if not len(twins_m):
            return []
        seen = [_looks_at(one, twins_m[:, side]) for side, one in enumerate((here, there))]
        both = (seen[0].astype(int) @ seen[1].T.astype(int)) > 0
        return [(f"{a:02d}", f"{b:02d}") for a, b in np.argwhere(both).tolist()]

    def _place(self, name: str) -> tuple[int, int, int]:
        """House, room and number of a walk."""
        if name not in self._names:
            raise BadInputError(f"the simulator has no scene {name!r}; draw the pairs anew")
        return self._names[name]


def _name(house: int, room: int, walk: int) -> str:
    return f"house{house:03d}/room{room}/{list(Facing)[walk % len(Facing)].value}{walk}"


def _looks_at(walk: Walk, points_m: Array) -> Mask:
    """Which points, (N, 3), are in the picture of each frame, and near, (FRAMES, N)."""
    camera = walk.camera(*SIZE)
    points = np.einsum(
        "fij,nj->fni", np.linalg.inv(walk.T_world_camera), np.c_[points_m, np.ones(len(points_m))]
    )
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    near = (z > NEAR_M[0]) & (z < NEAR_M[1])
    pixels = np.stack([x, y], axis=-1) / np.where(near, z, 1.0)[..., None] * camera.K[[0, 1], [0, 1]]
    return np.asarray(near & (np.abs(pixels) < np.array(SIZE) / 2).all(axis=-1))


def _view(name: str, walk: Walk, frame: int) -> View:
    image, _ = walk.picture(frame, *SIZE)
    return View(id=name, image=image, camera=walk.camera(*SIZE))
