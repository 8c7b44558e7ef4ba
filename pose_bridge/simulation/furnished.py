# SPDX-License-Identifier: Apache-2.0
"""Furnished rooms: what stands and hangs where, and where a robot can drive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array, Mask
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation import render, textures
from pose_bridge.simulation.stock import Piece, Style, style
from pose_bridge.simulation.surfaces import Atlas, Image, Surfaces, cuboid
from pose_bridge.simulation.textures import Rng

CELL_M = 0.05
ROBOT_RADIUS_M = 0.22
MIN_FREE = 0.3  # share of the floor that a robot must be able to reach
TRIES = 30
SHADOW_M = 0.12
CORNERS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How large a room is, and how full; ranges are (low, high), of counts without the high itself.

    Attributes:
        width_m: Along x.
        depth_m: Along y.
        doors: How many.
        windows: How many.
        furniture_per_m2: Pieces on the floor.
        pictures_per_m2: On the walls, by the floor's area.
        rugs: How many.
    """

    width_m: Range = (4.0, 8.0)
    depth_m: Range = (3.0, 6.0)
    doors: tuple[int, int] = (1, 2)
    windows: tuple[int, int] = (1, 3)
    furniture_per_m2: Range = (0.35, 0.55)
    pictures_per_m2: Range = (0.7, 1.2)
    rugs: tuple[int, int] = (2, 6)


ROOM = Plan()
CORRIDOR = Plan(
    width_m=(5.0, 12.0),
    depth_m=(1.7, 2.6),
    doors=(3, 8),
    windows=(0, 2),
    furniture_per_m2=(0.1, 0.3),
    pictures_per_m2=(0.2, 0.7),
    rugs=(0, 1),  # they are wider than a corridor
)


class Room:
    """A furnished room; x and y from 0 to its size, z up from the floor.

    Rooms of one style have their furniture, pictures, paper and floor in common; where these are, and what
    else tells one wall from the other, differs.

    Attributes:
        size_m: Width, depth, height, (3,).
        surfaces: All that can be seen.
        lights: Its lamps.
        pieces_m: Middles of the furniture that stands on the floor, (P, 3).
        free: Where the robot's middle may be, cells of `CELL_M`: rows along y, columns along x. In one piece.
    """

    def __init__(self, style_seed: int, room_seed: int, plan: Plan = ROOM) -> None:
        self.seeds = (style_seed, room_seed)
        rng = np.random.default_rng([1, style_seed, room_seed])
        stock = _style(style_seed)
        self.size_m = np.array(
            [rng.uniform(*plan.width_m), rng.uniform(*plan.depth_m), rng.uniform(2.4, 3.0)]
        )
        furnisher = _Furnisher(rng, stock, plan, self.size_m)
        self.free = furnisher.furnish()
        self.pieces_m = np.array(furnisher.pieces_m).reshape(-1, 3)
        own, shell = _shell(rng, stock, self.size_m, furnisher.taken)
        self.surfaces = Surfaces.join([shell, *furnisher.parts])
        self._textures = [*stock.textures, *own]
        self.lights = _lights(rng, self.size_m)

    @cached_property
    def atlas(self) -> Atlas:
        """The textures of all surfaces, made when somebody looks: not where pairs are only drawn."""
        return Atlas(self._textures)

    def picture(self, T_world_camera: Array, camera: Camera) -> render.Picture:
        """What a perfect camera sees there."""
        return render.render(self.surfaces, self.atlas, self.lights, T_world_camera, camera)

    def is_free(self, x_m: float, y_m: float) -> bool:
        """Whether the robot's middle may be there."""
        column, row = int(x_m // CELL_M), int(y_m // CELL_M)
        rows, columns = self.free.shape
        return 0 <= row < rows and 0 <= column < columns and bool(self.free[row, column])

    def free_places(self) -> Array:
        """Middles of the free cells, (N, 2), metres."""
        rows, columns = np.nonzero(self.free)
        return np.asarray((np.stack([columns, rows], axis=1) + 0.5) * CELL_M, np.float64)


@lru_cache(maxsize=4)
def _style(seed: int) -> Style:
    return style(seed)


def planar(x_m: float, y_m: float, yaw_rad: float, z_m: float = 0.0) -> Array:
    """T_world_thing of a thing that stands upright, (4, 4)."""
    return rigid.make(rotations.so3_exp(np.array([0.0, 0.0, yaw_rad])), np.array([x_m, y_m, z_m]))


class _Furnisher:
    """Puts pieces where there is room for them."""

    def __init__(self, rng: Rng, stock: Style, plan: Plan, size_m: Array) -> None:
        self._rng, self._stock, self._plan, self._size_m = rng, stock, plan, size_m
        self.parts: list[Surfaces] = []
        self.pieces_m: list[tuple[float, float, float]] = []
        shape = tuple(np.ceil(size_m[1::-1] / CELL_M).astype(int))
        self.taken = np.zeros(shape, bool)
        y, x = np.indices(shape)
        self._cells = (np.stack([x, y], axis=2) + 0.5) * CELL_M
        self._rugs = 0
        self._hung: list[tuple[int, float, float]] = []  # wall, where along it, half width

    def furnish(self) -> Mask:
        """Return where a robot can drive."""
        rng, stock, plan = self._rng, self._stock, self._plan
        area_m2 = float(np.prod(self._size_m[:2]))
        doors, windows = rng.integers(*plan.doors), rng.integers(*plan.windows)
        for count, hanging in ((doors, [stock.door]), (windows, stock.windows)):
            for _ in range(count):
                self._hang(hanging[rng.integers(len(hanging))])
        for _ in range(round(area_m2 * rng.uniform(*plan.furniture_per_m2))):
            self._stand(stock.furniture[rng.integers(len(stock.furniture))])
        for _ in range(round(area_m2 * rng.uniform(*plan.pictures_per_m2))):
            self._hang(stock.pictures[rng.integers(len(stock.pictures))])
        for _ in range(rng.integers(*plan.rugs)):
            self._lay(stock.rugs[rng.integers(len(stock.rugs))])
        return self._reachable(self.taken)

    def _stand(self, piece: Piece) -> None:
        """On the floor, by a wall or anywhere, as long as a robot can still get about."""
        rng, size = self._rng, self._size_m
        for _ in range(TRIES):
            if piece.by_wall and rng.random() < 0.85:
                x, y, yaw = self._at_wall(int(rng.integers(4)), rng.random(), piece.half_m[1] + 0.02)
                yaw += rng.normal(0.0, 0.02)
            else:
                x, y = rng.uniform(0.3, size[:2] - 0.3)
                yaw = rng.uniform(-np.pi, np.pi)
            covered = self._covered(x, y, yaw, piece.half_m)
            taken = self.taken | covered
            corners = planar(x, y, yaw)[:2, :2] @ (CORNERS * piece.half_m).T + [[x], [y]]
            inside = ((corners > 0.0) & (corners < size[:2, None])).all()
            if inside and not (self.taken & covered).any() and self._reachable(taken).mean() > MIN_FREE:
                self.taken = taken
                self.parts.append(piece.surfaces.moved(planar(x, y, yaw)))
                self.pieces_m.append((x, y, 0.5 * piece.height_m))
                self._put_on(piece, x, y, yaw)
                return

    def _put_on(self, piece: Piece, x: float, y: float, yaw: float) -> None:
        """Small things on top of a piece."""
        rng = self._rng
        for _ in range(rng.integers(1, 10) if piece.height_m < 1.5 else 0):
            trinket = self._stock.trinkets[rng.integers(len(self._stock.trinkets))]
            room = np.maximum(piece.half_m - np.linalg.norm(trinket.half_m), 0.0)
            place = rng.uniform(-room, room)
            T = planar(x, y, yaw) @ planar(place[0], place[1], rng.uniform(-np.pi, np.pi), piece.height_m)
            self.parts.append(trinket.surfaces.moved(T))

    def _lay(self, rug: Surfaces) -> None:
        """On the floor, under the furniture; one that lies on another a little higher."""
        reach_m = float(np.linalg.norm(rug.corners[0, :2]))
        x, y = self._rng.uniform(reach_m, self._size_m[:2] - reach_m)
        self._rugs += 1
        yaw = self._rng.choice([0.0, np.pi / 2]) + self._rng.normal(0.0, 0.1)
        self.parts.append(rug.moved(planar(x, y, yaw, 0.002 * self._rugs)))

    def _hang(self, hanging: Surfaces) -> None:
        """On a wall, where nothing else hangs."""
        rng = self._rng
        corners = np.concatenate([hanging.corners, hanging.corners + hanging.across])
        half = float(np.abs(corners[:, 0]).max())
        for _ in range(TRIES):
            wall = int(rng.integers(4))
            length = self._size_m[wall % 2]
            along = rng.random()
            middle = half + along * (length - 2 * half)
            if all(w != wall or abs(m - middle) > h + half + 0.05 for w, m, h in self._hung):
                self._hung.append((wall, middle, half))
                x, y, yaw = self._at_wall(wall, middle / length, 0.0)
                self.parts.append(hanging.moved(planar(x, y, yaw)))
                return

    def _at_wall(self, wall: int, share: float, off_m: float) -> tuple[float, float, float]:
        """Place and yaw of what has its back (+y) to a wall: the one at the largest y, then clockwise."""
        width, depth = self._size_m[:2]
        places = (
            (share * width, depth - off_m, 0.0),
            (width - off_m, share * depth, -np.pi / 2),
            (share * width, off_m, np.pi),
            (off_m, share * depth, np.pi / 2),
        )
        return places[wall]

    def _covered(self, x: float, y: float, yaw: float, half_m: Array) -> Mask:
        R = planar(x, y, yaw)[:2, :2]
        return np.asarray((np.abs((self._cells - (x, y)) @ R) <= half_m + CELL_M / 2).all(axis=2))

    def _reachable(self, taken: Mask) -> Mask:
        """The largest piece of floor on which a robot touches nothing."""
        framed = np.pad(taken, 1, constant_values=True)
        distance = cv2.distanceTransform((~framed).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        free = (distance - 0.5) * CELL_M > ROBOT_RADIUS_M
        count, labels = cv2.connectedComponents(free.astype(np.uint8), connectivity=4)
        if count < 2:
            return np.zeros_like(taken)
        sizes = np.bincount(labels.reshape(-1))[1:]
        return np.asarray(labels == 1 + int(np.argmax(sizes)))


def _shell(rng: Rng, stock: Style, size_m: Array, taken: NDArray[np.bool_]) -> tuple[list[Image], Surfaces]:
    """Walls, floor and ceiling, seen from inside, and their textures."""
    width, depth, height = size_m
    walls = [_wall(rng, stock, length, height) for length in (width, depth, width, depth)]
    floor = stock.floor(rng, width, depth, stock.floor_colour)
    ceiling = textures.plaster(rng, width, depth, np.full(3, 232.0))
    own = [*walls, _shadowed(floor, taken), ceiling]
    first = len(stock.textures)
    far = (0.0, depth, 0.0), (width, depth, height)
    parts = [
        cuboid(*far, {"front": first}),
        cuboid((width, 0.0, 0.0), size_m.tolist(), {"left": first + 1}),
        cuboid((0.0, 0.0, 0.0), (width, 0.0, height), {"back": first + 2}),
        cuboid((0.0, 0.0, 0.0), (0.0, depth, height), {"right": first + 3}),
        cuboid((0.0, 0.0, 0.0), (width, depth, 0.0), {"top": first + 4}, sheen=0.3),
        cuboid((0.0, 0.0, height), size_m.tolist(), {"bottom": first + 5}),
    ]
    return own, Surfaces.join(parts)


def _wall(rng: Rng, stock: Style, length_m: float, height_m: float) -> Image:
    """Papered or painted, darker towards the floor, with a skirting board."""
    papered = stock.motif is not None and rng.random() < 0.6
    base = np.clip(stock.wall + rng.normal(0.0, 3.0), 0.0, 250.0)
    if papered and stock.motif is not None:
        wall = textures.wallpaper(rng, length_m, height_m, base, stock.motif)
    else:
        wall = textures.plaster(rng, length_m, height_m, base, stock.roughness)
    rows = len(wall)
    shade = 1.0 - 0.15 * np.exp(-np.arange(rows)[::-1] * textures.TEXEL_M / 0.3)
    wall = (wall * shade[:, None, None]).astype(np.uint8)
    skirting = round(0.07 / textures.TEXEL_M)
    wall[-skirting:] = (0.8 * stock.wall).astype(np.uint8)
    wall[-skirting : -skirting + 1] = (0.5 * stock.wall).astype(np.uint8)
    return wall


def _shadowed(floor: Image, taken: Mask) -> Image:
    """The floor, darker around what stands on it."""
    shadow = cv2.GaussianBlur(taken.astype(np.float32), (0, 0), SHADOW_M / CELL_M)
    upright = cv2.resize(shadow, floor.shape[1::-1], interpolation=cv2.INTER_LINEAR)[::-1]
    return np.asarray(floor * (1.0 - 0.45 * upright[:, :, None]), np.uint8)


def _lights(rng: Rng, size_m: Array) -> render.Lights:
    """One or two lamps, and a bright side."""
    count = int(rng.integers(1, 3))
    places = [rng.uniform(0.25, 0.75, 3) * size_m for _ in range(count)]
    for place in places:
        place[2] = size_m[2] - 0.25
    side = rng.uniform(0.1, 0.9, 3) * size_m
    axis = int(rng.integers(2))
    side[axis] = 0.05 if rng.random() < 0.5 else size_m[axis] - 0.05
    side[2] = 1.5
    strengths = np.append(rng.uniform(0.35, 0.6, count) / count**0.5, rng.uniform(0.2, 0.5))
    return render.Lights(np.array([*places, side]), strengths, float(rng.uniform(0.4, 0.55)))
