# SPDX-License-Identifier: Apache-2.0
"""Rooms of textured points: walls and boxes, painted from one stock of motifs and furniture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array

MARGIN_M = 0.3  # between cameras and walls or boxes
MOST_BOX_M = 1.8
UP = np.array([0.0, 0.0, 1.0])  # of a room: z; its corner is the origin
MOST_MOTIFS = 40  # in stock; few of them fill a view with copies, which cannot be matched, many mislead


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points on surfaces.

    Attributes:
        points: (N, 3).
        frames: Along the surface, along the surface, outward: columns, (N, 3, 3).
        textures: What each looks like: row of the descriptor model's tables, (N,).
    """

    points: Array
    frames: Array
    textures: NDArray[np.intp]

    @classmethod
    def join(cls, clouds: Iterable[Cloud]) -> Cloud:
        """Return the points of all clouds, in their order."""
        points, frames, textures = zip(*((c.points, c.frames, c.textures) for c in clouds), strict=True)
        return cls(np.concatenate(points), np.concatenate(frames), np.concatenate(textures))

    def moved(self, R: Array, t: Array) -> Cloud:
        """Return the same points turned by R and then shifted by t."""
        return Cloud(self.points @ R.T + t, R @ self.frames, self.textures)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Upright boxes: centres (B, 3), R_world_box (B, 3, 3), half sizes (B, 3)."""

    centres: Array
    rotations: Array
    halves: Array

    def hide(self, eye: Array, points: Array) -> NDArray[np.bool_]:
        """Return which points, (N, 3), some box stands before."""
        start = np.einsum("bji,bj->bi", self.rotations, eye - self.centres)
        way = np.einsum("bji,nj->nbi", self.rotations, points - eye)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings = np.stack([(-self.halves - start) / way, (self.halves - start) / way])
        enter = crossings.min(axis=0).max(axis=2)
        leave = crossings.max(axis=0).min(axis=2)
        # a point of the box itself is entered at 1
        return np.asarray(((enter < leave) & (enter > 0.0) & (enter < 0.99)).any(axis=1))


@dataclass(frozen=True, eq=False)
class Place:
    """A furnished room: its points, of which the first has the id `first_id`, and what hides them."""

    cloud: Cloud
    boxes: Boxes
    first_id: int


class Decorator:
    """Fills rooms from one stock of motifs and furniture; `PointSceneConfig` says what its arguments are."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        repetition: tuple[float, float],
        texture_per_m2: tuple[float, float],
        furniture_per_m2: tuple[float, float],
        boxes: tuple[int, int],
        twins: float,
    ) -> None:
        self._rng = rng
        self._boxes = boxes
        self.textures = 0  # distinct ones so far
        self.repetition = float(np.clip(rng.uniform(*repetition), 0.0, 1.0))
        self._texture_per_m2 = np.exp(rng.uniform(*np.log(texture_per_m2)))
        self._motifs = [self._motif() for _ in range(round(np.exp(rng.uniform(0.0, np.log(MOST_MOTIFS)))))]
        self._bricks = [(np.zeros((1, 2)), self._new(1)) for _ in range(rng.integers(2, 30))]
        self._papered = rng.random()  # how much of what repeats does so on a lattice
        self._models = [
            self._box_model(
                0.5 * self.repetition * rng.random(),
                0.5,
                rng.uniform(*furniture_per_m2),
                symmetric=rng.random() < 0.4,
            )
            for _ in range(rng.integers(1, 7))
        ]
        self._same_furniture = rng.random() ** 2
        self._twins = rng.random() < twins

    def place(self, room_m: Array, T_world_camera: list[Array], first_id: int) -> Place:
        """Furnish a room of this size around the cameras, of which the first two are the ends."""
        rng, clouds = self._rng, self._shell(room_m)
        boxes: list[tuple[Array, Array, Array]] = []
        eyes = np.array([T[:3, 3] for T in T_world_camera])

        def stand(model: tuple[Array, Cloud], spot: Array, yaw_rad: float) -> None:
            half, cloud = model
            R = rotations.so3_exp(yaw_rad * UP)
            centre = np.array(
                [*spot[:2], half[2] if rng.random() < 0.7 else rng.uniform(half[2], room_m[2] - half[2])]
            )
            if ((np.abs((eyes - centre) @ R) - half).max(axis=1) > MARGIN_M).all():
                clouds.append(cloud.moved(R, centre))
                boxes.append((centre, R, half))

        distance_m = rng.uniform(1.3, 2.5)
        for T in T_world_camera[:2] if self._twins else []:
            ahead = T[:3, 3] + distance_m * rng.uniform(0.85, 1.2) * T[:3, 2]
            yaw_rad = np.arctan2(T[1, 2], T[0, 2]) + rng.normal(0.0, 0.2)
            stand(self._models[0], np.clip(ahead, 0.0, room_m), yaw_rad)
        for _ in range(rng.integers(*self._boxes, endpoint=True)):
            model = self._box_model(
                self.repetition, 0.2, rng.uniform(0.4, 3.0) * self._texture_per_m2, symmetric=False
            )
            if rng.random() < self._same_furniture:
                model = self._models[rng.integers(len(self._models))]
            stand(
                model,
                rng.uniform(0.0, 1.0, 3) * room_m,
                rng.choice([0.0, 0.5 * np.pi, rng.uniform(-np.pi, np.pi)]),
            )
        centres, turns, halves = zip(*boxes, strict=True) if boxes else ((), (), ())
        standing = Boxes(
            np.array(centres).reshape(-1, 3),
            np.array(turns).reshape(-1, 3, 3),
            np.array(halves).reshape(-1, 3),
        )
        return Place(Cloud.join(clouds), standing, first_id)

    def _shell(self, room_m: Array) -> list[Cloud]:
        """Walls, floor and ceiling, some of them bare."""
        rng, half = self._rng, 0.5 * room_m
        clouds = []
        for axis, sign in itertools.product(range(3), (-1.0, 1.0)):
            density = 0.1 * rng.random() if rng.random() < 0.25 else rng.uniform(0.3, 1.5)
            if axis == 2:
                density *= 0.4 if sign < 0 else 0.1
            clouds.append(
                self._face(
                    half, axis, sign, density * self._texture_per_m2, self.repetition, outward=-1.0
                ).moved(np.eye(3), half)
            )
        return clouds

    def _box_model(
        self, repetition: float, least_m: float, per_m2: float, *, symmetric: bool
    ) -> tuple[Array, Cloud]:
        """Half sizes, (3,), and points on all faces but the lowest; if symmetric, the same from behind."""
        half = 0.5 * np.exp(self._rng.uniform(np.log(least_m), np.log(MOST_BOX_M), 3))
        sides, top = [(0, 1.0), (1, 1.0), (0, -1.0), (1, -1.0)], (2, 1.0)
        faces = [
            self._face(half, axis, sign, per_m2, repetition, outward=1.0)
            for axis, sign in [*(sides[:2] if symmetric else sides), top]
        ]
        if symmetric:
            faces += [face.moved(np.diag([-1.0, -1.0, 1.0]), np.zeros(3)) for face in faces[:2]]
        return half, Cloud.join(faces)

    def _face(
        self, half: Array, axis: int, sign: float, per_m2: float, repetition: float, *, outward: float
    ) -> Cloud:
        """One painted face of a box around the origin."""
        normal = outward * sign * np.eye(3)[axis]
        along = np.eye(3)[1] if axis == 2 else UP
        frame = np.stack([np.cross(along, normal), along, normal], axis=1)
        size = 2.0 * np.abs(half @ frame[:, :2])
        spots, turns_rad, textures = self._paint(size, per_m2, repetition)
        cos, sin, zero = np.cos(turns_rad), np.sin(turns_rad), np.zeros(len(turns_rad))
        turned = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1.0], axis=1).reshape(-1, 3, 3)
        return Cloud(spots @ frame[:, :2].T + sign * half * np.eye(3)[axis], frame @ turned, textures)

    def _paint(self, size: Array, per_m2: float, repetition: float) -> tuple[Array, Array, NDArray[np.intp]]:
        """Return spots on a face, (N, 2), from its middle, their turns (N,), and their textures (N,)."""
        rng, count = self._rng, per_m2 * float(np.prod(size))
        single = rng.poisson(count * (1.0 - repetition))
        spots, turns, textures = (
            [rng.uniform(-0.5, 0.5, (single, 2)) * size],
            [np.zeros(single)],
            [self._new(single)],
        )
        bricks = rng.random() < 0.2
        outline, ids = self._motifs[rng.integers(len(self._motifs))]
        copies = rng.poisson(count * repetition / (8 if bricks else len(outline)))
        papered = rng.random() < self._papered
        lattice = self._lattice(size, copies)
        lattice = lattice[rng.random(len(lattice)) < rng.choice([1.0, rng.random()])]
        hung = rng.permutation(max(copies, len(self._motifs))) % len(self._motifs)
        for copy in range(len(lattice) if papered else copies):
            if bricks:
                outline, ids = self._bricks[copy % len(self._bricks)]
            elif not papered:
                outline, ids = self._motifs[hung[copy]]
            turn = 0.0 if papered or rng.random() < 0.7 else rng.uniform(0.0, 2.0 * np.pi)
            R = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            middle = lattice[copy] if papered else rng.uniform(-0.5, 0.5, 2) * size
            spots.append(outline @ R.T + middle)
            turns.append(np.full(len(outline), turn))
            textures.append(ids)
        all_spots = np.concatenate(spots)
        inside = (np.abs(all_spots) <= 0.5 * size).all(axis=1)
        return all_spots[inside], np.concatenate(turns)[inside], np.concatenate(textures)[inside]

    def _lattice(self, size: Array, copies: int) -> Array:
        """Return about as many evenly spaced places on a face, (N, 2)."""
        spacing = np.sqrt(np.prod(size) / max(copies, 1))
        steps = [np.arange(-0.5 * length + 0.5 * spacing, 0.5 * length, spacing) for length in size]
        return np.stack(np.meshgrid(*steps), axis=2).reshape(-1, 2)

    def _motif(self) -> tuple[Array, NDArray[np.intp]]:
        size = np.exp(self._rng.uniform(np.log(0.1), np.log(1.0)))
        count = int(20 + 100 * size * self._rng.random())
        return self._rng.uniform(-0.5, 0.5, (count, 2)) * size * self._rng.uniform(0.5, 1.0, 2), self._new(
            count
        )

    def _new(self, count: int) -> NDArray[np.intp]:
        self.textures += count
        return np.arange(self.textures - count, self.textures, dtype=np.intp)
