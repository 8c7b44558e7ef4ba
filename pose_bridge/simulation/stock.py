# SPDX-License-Identifier: Apache-2.0
"""A style: the furniture, pictures, papers and floors that all rooms of a house have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pose_bridge.geometry.arrays import Array
from pose_bridge.simulation import textures
from pose_bridge.simulation.surfaces import Image, Surfaces, cuboid
from pose_bridge.simulation.textures import Rng

BOARD_M = 0.02
WALL_GAP_M = 0.004  # what hangs on a wall stands off by this much

Floor = Callable[[Rng, float, float, Array], Image]


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of furniture around the origin, standing on z = 0, its front towards -y.

    Attributes:
        half_m: Half its width and depth on the floor, (2,).
        height_m: Of its top; things may stand on it.
        by_wall: Whether its back belongs to a wall.
    """

    surfaces: Surfaces
    half_m: Array
    height_m: float
    by_wall: bool


@dataclass(frozen=True, eq=False)
class Style:
    """What rooms are furnished from; the same seed gives the same.

    Attributes:
        textures: Of all that follows.
        furniture: Pieces that stand on the floor.
        trinkets: Small things that stand on furniture.
        pictures: Around x = 0 of a wall at y = 0, at their height over the floor.
        windows: The same.
        door: The same.
        rugs: On the floor, around the origin.
        roughness: Of painted walls, grey values.
        wall: Colour of the walls.
        motif: What the wallpaper repeats; None where walls are plain.
        floor: Draws a floor of a width and height in a colour.
        floor_colour: That colour.
    """

    textures: list[Image]
    furniture: list[Piece]
    trinkets: list[Piece]
    pictures: list[Surfaces]
    windows: list[Surfaces]
    door: Surfaces
    rugs: list[Surfaces]
    roughness: float
    wall: Array
    motif: Image | None
    floor: Floor
    floor_colour: Array


def style(seed: int) -> Style:
    """Draw a style."""
    return _Maker(np.random.default_rng([0, seed])).style()


class _Maker:
    """Draws pieces one after the other, and collects their textures."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._textures: list[Image] = []
        self._woods = [self._wood() for _ in range(3)]

    def style(self) -> Style:
        rng = self._rng
        makers = [self._shelf, self._cabinet, self._table, self._sofa, self._chair, self._carton, self._bed]
        furniture = [make() for make in makers] + [
            makers[k]() for k in rng.choice(len(makers) - 1, int(rng.integers(4, 8)))
        ]
        return Style(
            textures=self._textures,
            furniture=furniture,
            trinkets=[self._trinket() for _ in range(24)],
            pictures=[self._picture() for _ in range(rng.integers(6, 13))],
            windows=[self._window() for _ in range(2)],
            door=self._door(),
            roughness=float(rng.uniform(1.0, 8.0)),
            wall=textures.colour(rng, (0.02, 0.2), (0.72, 0.93)),
            motif=textures.motif(rng) if rng.random() < 0.5 else None,
            floor=(textures.parquet, textures.carpet, textures.tiles)[rng.integers(3)],
            floor_colour=textures.brown(rng) if rng.random() < 0.6 else textures.colour(rng, (0.0, 0.3)),
            rugs=[self._rug() for _ in range(4)],
        )

    def _keep(self, texture: Image) -> int:
        self._textures.append(texture)
        return len(self._textures) - 1

    def _wood(self) -> tuple[Array, int]:
        """A colour, and boards of it."""
        base = (
            textures.brown(self._rng) if self._rng.random() < 0.7 else textures.colour(self._rng, (0.0, 0.2))
        )
        return base, self._keep(textures.wood(self._rng, 1.6, 0.8, base))

    def _board(self, low: tuple[float, ...], high: tuple[float, ...], wood: int) -> Surfaces:
        """A wooden box, each of its sides another part of the same board."""
        dx, dy, dz = np.subtract(high, low)
        sizes = {"front": (dx, dz), "back": (dx, dz), "left": (dy, dz), "right": (dy, dz)}
        sizes |= {"top": (dx, dy), "bottom": (dx, dy)}
        windows = {}
        for side, (wide, tall) in sizes.items():
            share = np.minimum([wide / 1.6, tall / 0.8], 1.0)
            windows[side] = (*(self._rng.random(2) * (1.0 - share)), *share)
        return cuboid(low, high, wood, windows=windows, sheen=0.15)

    def _shelf(self) -> Piece:
        rng, (_, wood) = self._rng, self._woods[self._rng.integers(3)]
        half, deep, tall = rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.2), rng.uniform(0.9, 2.0)
        parts = [
            self._board((-half, -deep, 0.0), (-half + BOARD_M, deep, tall), wood),
            self._board((half - BOARD_M, -deep, 0.0), (half, deep, tall), wood),
            self._board((-half, deep - BOARD_M, 0.0), (half, deep, tall), wood),
        ]
        levels = np.linspace(0.05, tall - BOARD_M, max(3, round(tall / 0.36)))
        for low, high in itertools.pairwise(levels):
            parts.append(self._board((-half, -deep, low), (half, deep, low + BOARD_M), wood))
            room = high - low - BOARD_M
            if rng.random() < 0.8:
                wide, tall_books = rng.uniform(0.3, 0.95) * 2 * (half - BOARD_M), rng.uniform(0.6, 0.9) * room
                face = self._keep(textures.books(rng, wide, tall_books))
                left = rng.uniform(-half + BOARD_M, half - BOARD_M - wide)
                front = -deep + rng.uniform(0.02, 0.08)
                base = low + BOARD_M
                parts.append(
                    cuboid(
                        (left, front, base),
                        (left + wide, deep - BOARD_M, base + tall_books),
                        {"front": face, "left": wood, "right": wood, "top": wood},
                    )
                )
        parts.append(self._board((-half, -deep, levels[-1]), (half, deep, tall), wood))
        return Piece(Surfaces.join(parts), np.array([half, deep]), tall, True)

    def _cabinet(self) -> Piece:
        rng, (base, wood) = self._rng, self._woods[self._rng.integers(3)]
        half, deep, tall = rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.3), rng.uniform(0.5, 1.9)
        columns, rows = max(1, round(2 * half / 0.5)), int(rng.integers(1, 4))
        front = self._keep(textures.doors(rng, 2 * half, tall, base, columns, rows))
        body = self._board((-half, -deep, 0.0), (half, deep, tall), wood)
        face = cuboid((-half, -deep - 0.005, 0.03), (half, -deep, tall - 0.01), {"front": front}, sheen=0.2)
        return Piece(Surfaces.join([body, face]), np.array([half, deep]), tall, True)

    def _table(self) -> Piece:
        rng, (_, wood) = self._rng, self._woods[self._rng.integers(3)]
        half, deep, tall = rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.45), rng.choice([0.45, 0.74])
        parts = [self._board((-half, -deep, tall - 0.035), (half, deep, tall), wood)]
        for x in (-half + 0.05, half - 0.1):
            parts += [
                self._board((x, y, 0.0), (x + 0.05, y + 0.05, tall - 0.035), wood)
                for y in (-deep + 0.05, deep - 0.1)
            ]
        return Piece(Surfaces.join(parts), np.array([half, deep]), tall, False)

    def _sofa(self) -> Piece:
        rng = self._rng
        cloth = self._keep(textures.fabric(rng, 1.2, 0.6, textures.colour(rng)))
        half, deep, seat, back = (
            rng.uniform(0.5, 1.0),
            rng.uniform(0.38, 0.48),
            rng.uniform(0.35, 0.45),
            rng.uniform(0.65, 0.95),
        )
        arm = rng.uniform(0.1, 0.2)
        parts = [
            cuboid((-half + arm, -deep, 0.06), (half - arm, deep - 0.2, seat), cloth),
            cuboid((-half, deep - 0.2, 0.06), (half, deep, back), cloth),
            cuboid((-half, -deep, 0.06), (-half + arm, deep - 0.2, seat + 0.17), cloth),
            cuboid((half - arm, -deep, 0.06), (half, deep - 0.2, seat + 0.17), cloth),
        ]
        if rng.random() < 0.7:
            cushion = self._keep(textures.picture(rng, 0.4, 0.4))
            parts.append(
                cuboid(
                    (-half + arm, deep - 0.34, seat), (-half + arm + 0.4, deep - 0.2, seat + 0.36), cushion
                )
            )
        return Piece(Surfaces.join(parts), np.array([half, deep]), back, True)

    def _chair(self) -> Piece:
        rng, (_, wood) = self._rng, self._woods[self._rng.integers(3)]
        half, seat, back = rng.uniform(0.2, 0.24), 0.45, rng.uniform(0.8, 1.0)
        cloth = self._keep(textures.fabric(rng, 0.4, 0.4, textures.colour(rng)))
        parts = [cuboid((-half, -half, seat - 0.04), (half, half, seat), cloth)]
        parts.append(cuboid((-half, half - 0.03, seat + 0.1), (half, half, back), cloth))
        for x in (-half, half - 0.035):
            parts.append(self._board((x, -half, 0.0), (x + 0.035, -half + 0.035, seat - 0.04), wood))
            parts.append(self._board((x, half - 0.035, 0.0), (x + 0.035, half, back), wood))
        return Piece(Surfaces.join(parts), np.array([half, half]), seat, False)

    def _bed(self) -> Piece:
        rng, (_, wood) = self._rng, self._woods[self._rng.integers(3)]
        half, deep = rng.uniform(0.45, 0.7), 1.0
        cover = self._keep(
            textures.picture(rng, 1.4, 2.0)
            if rng.random() < 0.3
            else textures.fabric(rng, 1.4, 2.0, textures.colour(rng))
        )
        parts = [
            self._board((-half, -deep, 0.0), (half, deep, 0.28), wood),
            cuboid((-half + 0.02, -deep + 0.02, 0.28), (half - 0.02, deep - 0.05, 0.48), cover),
            self._board((-half, deep - 0.04, 0.28), (half, deep, rng.uniform(0.6, 1.0)), wood),
        ]
        return Piece(Surfaces.join(parts), np.array([half, deep]), 0.48, True)

    def _carton(self) -> Piece:
        rng = self._rng
        x, y, z = rng.uniform(0.12, 0.3, 3)
        faces = {side: self._keep(textures.carton(rng, 0.5, 0.5)) for side in ("front", "left", "top")}
        faces |= {"back": faces["front"], "right": faces["left"]}
        return Piece(cuboid((-x, -y, 0.0), (x, y, 2 * z), faces), np.array([x, y]), 2 * z, False)

    def _trinket(self) -> Piece:
        rng = self._rng
        x, y, z = rng.uniform(0.03, 0.15), rng.uniform(0.03, 0.12), rng.uniform(0.04, 0.35)
        face = self._keep(textures.picture(rng, 2 * x, z))
        side = self._keep(textures.picture(rng, 2 * y, z)) if rng.random() < 0.5 else face
        faces = {"front": face, "back": face, "left": side, "right": side, "top": side}
        return Piece(cuboid((-x, -y, 0.0), (x, y, z), faces), np.array([x, y]), z, False)

    def _picture(self) -> Surfaces:
        rng = self._rng
        wide, tall = rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.8)
        deep, middle = rng.choice([0.006, 0.03]), rng.uniform(1.0, 1.6)
        face, edge = self._keep(textures.picture(rng, wide, tall)), self._woods[rng.integers(3)][1]
        faces = {"front": face, "left": edge, "right": edge, "top": edge, "bottom": edge}
        low, high = (-wide / 2, -deep, middle - tall / 2), (wide / 2, -WALL_GAP_M, middle + tall / 2)
        return cuboid(low, high, faces, sheen=0.2)

    def _rug(self) -> Surfaces:
        rng = self._rng
        half, deep = rng.uniform(0.5, 1.1), rng.uniform(0.4, 0.8)
        face = self._keep(textures.rug(rng, 2 * half, 2 * deep))
        return cuboid((-half, -deep, 0.0), (half, deep, 0.006), {"top": face})

    def _window(self) -> Surfaces:
        rng = self._rng
        wide, low, high = rng.uniform(0.9, 1.8), rng.uniform(0.7, 1.0), rng.uniform(1.9, 2.2)
        face, sill = self._keep(textures.window(rng, wide, high - low)), self._woods[0][1]
        pane = cuboid((-wide / 2, -0.01, low), (wide / 2, -WALL_GAP_M, high), {"front": face}, sheen=0.1)
        board = self._board((-wide / 2 - 0.05, -0.06, low - 0.03), (wide / 2 + 0.05, -WALL_GAP_M, low), sill)
        return Surfaces.join([pane, board])

    def _door(self) -> Surfaces:
        rng = self._rng
        face = self._keep(textures.doors(rng, 0.9, 2.0, textures.colour(rng, (0.0, 0.4), (0.5, 0.95)), 1, 2))
        frame = self._woods[rng.integers(3)][1]
        parts = [cuboid((-0.45, -0.015, 0.0), (0.45, -WALL_GAP_M, 2.0), {"front": face}, sheen=0.2)]
        for left, right in ((-0.52, -0.45), (0.45, 0.52)):
            parts.append(self._board((left, -0.03, 0.0), (right, -WALL_GAP_M, 2.07), frame))
        parts.append(self._board((-0.45, -0.03, 2.0), (0.45, -WALL_GAP_M, 2.07), frame))
        return Surfaces.join(parts)
