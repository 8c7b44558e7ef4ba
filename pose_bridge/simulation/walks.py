# SPDX-License-Identifier: Apache-2.0
"""Walks with a camera through houses that nobody else sees: what small models are trained and tested on.

A camera either turns outwards, as on a walk through rooms, or around a thing that it keeps in the middle: the
two kinds of pairs that the papers have. Houses of training, validation and testing are different ones; the
rooms of one house share furniture, pictures, paper and floor, so that another of them is hard to tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array, Mask
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation import optics
from pose_bridge.simulation.furnished import CORRIDOR, ROOM, Room, planar
from pose_bridge.simulation.optics import Optics
from pose_bridge.simulation.questions import anything
from pose_bridge.simulation.robot import R_BODY_OPTICAL, Place
from pose_bridge.simulation.surfaces import Image

FRAMES = 17
ROOMS = 4  # of a house; the last is a corridor
WALKS = 4  # of a room, the two kinds by turns
MOST_HOUSES = 1_000_000  # of a split, at most

FOCAL = (0.75, 1.1)  # of a camera, by its longer side
HEIGHT_M, PITCH_RAD = (0.3, 1.7), (-0.05, 0.2)
SWAY_RAD, TREMBLE_RAD = np.radians(5.0), np.radians(0.7)  # of roll and pitch: over a walk, between frames
SWEEP_RAD = (np.radians(40.0), np.radians(180.0))  # by which a camera turns on a walk
DRIFT_M = 1.5  # at most, that it moves while it turns outwards
RADIUS_M = (0.8, 3.2)  # of the way around a thing
AIM_RAD = np.radians(8.0)  # by which that is off the middle
BEARINGS = 180  # that are looked at for a way around a thing
TRIES = 100


class Split(Enum):
    """Houses that have nothing to do with each other: where the seeds of their styles begin."""

    TRAIN = 2_000_000
    VALIDATION = 3_000_000
    TEST = 4_000_000


class Facing(Enum):
    """Where the camera looks on a walk."""

    OUTWARD = "outward"
    CENTRED = "centred"


@dataclass(frozen=True, eq=False)
class Walk:
    """Where a camera was.

    Attributes:
        room: In which.
        facing: Where it looked.
        seed: Of what its pictures are noisy by.
        focal: Of the camera, by the longer side of its pictures.
        T_world_camera: (FRAMES, 4, 4).
    """

    room: Room
    facing: Facing
    seed: tuple[int, ...]
    focal: float
    T_world_camera: Array

    def camera(self, width: int, height: int) -> Camera:
        """Return it, for pictures of a size."""
        return Camera.from_focal_px(self.focal * max(width, height), width, height)

    def picture(self, frame: int, width: int, height: int) -> tuple[Image, NDArray[np.float32]]:
        """Return what the camera makes of a frame, uint8 RGB (H, W, 3), and its true depth, metres (H, W)."""
        camera = self.camera(width, height)
        seen = self.room.picture(self.T_world_camera[frame], camera)
        lens = Optics(blur_px=0.3 * min(1.0, width / 320))
        return optics.photograph(seen.image, camera, lens, np.zeros(3), [*self.seed, frame]), seen.depth_m


@lru_cache(maxsize=2 * ROOMS)
def room_of(split: Split, house: int, room: int) -> Room:
    """Return a room of a house; the same numbers give the same one.

    Raises:
        BadInputError: There is no such room.
    """
    if not (0 <= house < MOST_HOUSES and 0 <= room < ROOMS):
        raise BadInputError(f"houses are 0 to {MOST_HOUSES - 1}, rooms 0 to {ROOMS - 1}: got {house}, {room}")
    return Room(split.value + house, room, CORRIDOR if room == ROOMS - 1 else ROOM)


def walk(split: Split, house: int, room: int, number: int) -> Walk:
    """Return a walk; the same numbers give the same one.

    Args:
        split: Whose house.
        house: Which.
        room: Of it.
        number: Of the walk there; even ones turn outwards.

    Raises:
        BadInputError: There is no such room, or no way to walk in it.
    """
    here = room_of(split, house, room)
    seed = (11, split.value + house, room, number)
    rng = np.random.default_rng(seed)
    facing = list(Facing)[number % len(Facing)]
    places = _outward(rng, here) if facing is Facing.OUTWARD else _centred(rng, here)
    return Walk(here, facing, seed, float(rng.uniform(*FOCAL)), _held(rng, places))


def _outward(rng: np.random.Generator, room: Room) -> list[Place]:
    """Turning, while it goes straight to a place nearby."""
    free = room.free_places()
    start = free[rng.integers(len(free))]
    near = free[np.linalg.norm(free - start, axis=1) < DRIFT_M]
    steps = np.linspace(0.0, 1.0, FRAMES)[:, None]
    for _ in range(TRIES):
        way = start + steps * (near[rng.integers(len(near))] - start)
        if all(room.is_free(x, y) for x, y in way):
            break
    else:
        way = np.repeat(start[None], FRAMES, axis=0)
    yaws = rng.uniform(-np.pi, np.pi) + _sweep(rng, rng.uniform(*SWEEP_RAD) * rng.choice([-1.0, 1.0]))
    return [Place(float(x), float(y), float(yaw)) for (x, y), yaw in zip(way, yaws, strict=True)]


def _centred(rng: np.random.Generator, room: Room) -> list[Place]:
    """Around a thing, as far as there is floor to walk on."""
    least = int(np.ceil(SWEEP_RAD[0] / (2.0 * np.pi) * BEARINGS))
    for _ in range(TRIES):
        x_m, y_m, _ = anything(rng, room)
        first_m, last_m = rng.uniform(*RADIUS_M) * rng.uniform(0.8, 1.25, 2)
        most = int(rng.uniform(*SWEEP_RAD) / (2.0 * np.pi) * BEARINGS)
        start, sign = int(rng.integers(BEARINGS)), int(rng.choice([-1, 1]))
        bearings = 2.0 * np.pi / BEARINGS * (start + sign * np.arange(most))
        radii_m = np.linspace(first_m, last_m, len(bearings))
        way = np.c_[x_m + radii_m * np.cos(bearings), y_m + radii_m * np.sin(bearings)]
        free: Mask = np.array([room.is_free(x, y) for x, y in way])
        steps = len(free) if free.all() else int(np.argmin(free))
        if steps < least:
            continue
        at = _sweep(rng, float(steps - 1))
        aim_rad = np.pi + rng.normal(0.0, AIM_RAD)
        x, y, bearing = (np.interp(at, np.arange(len(way)), of) for of in (*way.T, bearings))
        return [Place(*place) for place in np.stack([x, y, bearing + aim_rad], axis=1).tolist()]
    raise BadInputError("the room has no way around anything; take another walk")


def _sweep(rng: np.random.Generator, whole: float) -> Array:
    """From 0 to the whole, never back, not at the same pace all along, (FRAMES,)."""
    pace = np.exp(0.4 * rng.standard_normal(FRAMES - 1))
    return np.asarray(whole * np.r_[0.0, np.cumsum(pace)] / pace.sum())


def _held(rng: np.random.Generator, places: list[Place]) -> Array:
    """T_world_camera of a camera in a hand, or on a robot, that goes there, (N, 4, 4)."""
    height_m, pitch_rad = rng.uniform(*HEIGHT_M), rng.uniform(*PITCH_RAD)
    sway = rng.normal(0.0, SWAY_RAD, (2, 2)) * rng.choice([0.0, 1.0])  # a robot's camera does not sway
    poses = []
    for share, (x_m, y_m, yaw_rad) in zip(np.linspace(0.0, 1.0, len(places)), places, strict=True):
        roll_rad, nod_rad = (
            sway[0] + share * (sway[1] - sway[0]) + rng.normal(0.0, TREMBLE_RAD, 2) * sway.any()
        )
        R = rotations.so3_exp(np.array([roll_rad, pitch_rad + nod_rad, 0.0])) @ R_BODY_OPTICAL
        poses.append(planar(x_m, y_m, yaw_rad) @ rigid.make(R, [0.0, 0.0, height_m]))
    return np.array(poses)
