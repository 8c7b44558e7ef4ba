# SPDX-License-Identifier: Apache-2.0
"""Questions with known answers in furnished rooms: views of one thing, past it, of its twin, of another room.

A robot that wanders, or somebody with a camera in the hand, takes the views around either end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadInputError, ConfigError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.driving import turn_to
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.robot import Build, Frame, Place, Robot
from pose_bridge.views import Question, View

Range = tuple[float, float]

IMAGE_SIZES = ((320, 240), (640, 480), (360, 640))  # width, height
REACH_M = (0.8, 3.5)  # from the reference to what it looks at
REACH_RATIO = 1.4  # largest, of the two ends' distances to it
BEARING_RAD = np.radians(5.0)  # by which the target may miss the direction that it should look from
AIM_RAD = np.radians(4.0)
AWAY_RAD = np.radians(95.0)  # at least, between the ends' directions when they look away from each other
ON_FURNITURE = 0.7  # share of what is looked at; the rest is on walls
STRIDE_M = (0.08, 0.4)
ON_THE_SPOT = 0.15  # share of the sides that only turn
STEP_TURN_RAD = np.radians(10.0)
STEP_S, AIM_S = 1.0, 0.2
AGITATION_RADPS = 0.15  # nobody who takes a picture stands perfectly still
TREMOR_RAD, TREMOR_M = np.radians(4.0), 0.05
DEPTH_NOISE, DEPTH_HOLES = 0.01, 0.1
DEPTH_SIGMA = 0.015  # of the factor that all depths of one camera have in common
TRIES = 200


class Kind(Enum):
    """How the two ends of a question lie to each other."""

    SAME_REGION = "same region"
    PARTIAL = "partial"  # the target looks past what the reference looks at
    AWAY = "away"  # the target stands anywhere in the room and looks elsewhere
    TWINS = "twins"  # each end looks at one of two equal pieces of furniture of one room
    OTHER_ROOM = "other room"  # with the same furniture: there is no answer


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSettings:
    """What questions are drawn from; ranges are (low, high).

    Attributes:
        weights: How often each kind comes, in the order of `Kind`.
        gap_deg: Between the directions from which the two ends look.
        context: Views around each end.
        handheld: Share of the questions with a camera in the hand; the others are a robot's.
        odometry: Share of the sides that know how their views lie to each other.
        depth: Share of the sides with registered depth.
    """

    weights: tuple[float, ...] = (0.45, 0.12, 0.06, 0.12, 0.25)
    gap_deg: Range = (10.0, 120.0)
    context: tuple[int, int] = (0, 4)
    handheld: float = 0.4
    odometry: float = 0.7
    depth: float = 0.0

    def __post_init__(self) -> None:
        if len(self.weights) != len(Kind) or min(self.weights) < 0 or not sum(self.weights) > 0:
            raise ConfigError(f"weights must be {len(Kind)} numbers >= 0, not all 0, got {self.weights}")
        for name in ("gap_deg", "context"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ConfigError(f"{name} must be (low, high) with 0 <= low <= high, got {(low, high)}")
        for name in ("handheld", "odometry", "depth"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class DrawnQuestion:
    """A question and its answer.

    Attributes:
        question: As a robot's session would ask it.
        T_reference_target: The truth, metres, (4, 4); None if there is none.
        kind: How the ends lie to each other.
        gap_deg: Rotation between the ends; NaN in another room.
    """

    question: Question
    T_reference_target: Array | None
    kind: Kind
    gap_deg: float


class Thing(NamedTuple):
    """What is looked at, and where the wall is that it has its back to."""

    x_m: float
    y_m: float
    back_rad: float


@dataclass(frozen=True, eq=False)
class _Side:
    """One end of a question: who goes where, and what is known about it."""

    name: str
    room: Room
    place: Place
    views: int
    odometry: bool
    depth: bool


def draw(
    style_seed: int, room_seed: int, seed: int, settings: QuestionSettings | None = None
) -> DrawnQuestion:
    """Draw a question about a room, or about two of its style; the same seeds give the same one.

    Raises:
        BadInputError: The room has no place for such a question; take another seed.
    """
    settings = settings or QuestionSettings()
    rng = np.random.default_rng([9, style_seed, room_seed, seed])
    kind = list(Kind)[rng.choice(len(Kind), p=np.divide(settings.weights, sum(settings.weights)))]
    here = Room(style_seed, room_seed)
    there = Room(style_seed, room_seed + 1) if kind is Kind.OTHER_ROOM else here
    handheld = bool(rng.random() < settings.handheld)
    build = _build(rng, handheld)
    sides = _sides(rng, kind, here, there, settings)
    depth_factor = 1.0 + DEPTH_SIGMA * float(rng.standard_normal())
    frames = [list(_filmed(rng, side, build, handheld)) for side in sides]
    reference, target = (
        [_view(rng, side, index, frame, depth_factor) for index, frame in enumerate(taken)]
        for side, taken in zip(sides, frames, strict=True)
    )
    T = rigid.relative(frames[0][0].T_world_camera, frames[1][0].T_world_camera)
    nowhere = kind is Kind.OTHER_ROOM
    return DrawnQuestion(
        question=Question(
            reference=reference[0],
            target=target[0],
            reference_context=tuple(reference[1:]),
            target_context=tuple(target[1:]),
            upright=True,
            common_ground=True,
            seed=seed,
        ),
        T_reference_target=None if nowhere else T,
        kind=kind,
        gap_deg=float("nan") if nowhere else float(np.degrees(rotations.rotation_angle_rad(T[:3, :3]))),
    )


def twins(here: Room, there: Room) -> Array:
    """Middles of equal pieces of furniture, (N, 2, 3): heights are drawn per kind, so they name it."""
    return np.array(
        [
            (one, other)
            for i, one in enumerate(here.pieces_m)
            for j, other in enumerate(there.pieces_m)
            if one[2] == other[2] and (here is not there or i != j)
        ]
    ).reshape(-1, 2, 3)


def _build(rng: np.random.Generator, handheld: bool) -> Build:
    width, height = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    return Build(
        camera=Camera.from_focal_px(rng.uniform(0.7, 1.1) * max(width, height), width, height),
        camera_height_m=float(rng.uniform(1.1, 1.7) if handheld else rng.uniform(0.3, 1.1)),
        camera_pitch_rad=float(rng.uniform(0.0, 0.25) if handheld else rng.uniform(-0.05, 0.1)),
    )


def _sides(
    rng: np.random.Generator, kind: Kind, here: Room, there: Room, settings: QuestionSettings
) -> list[_Side]:
    low, high = settings.context
    ends = _ends(rng, kind, here, there, settings)
    return [
        _Side(
            name,
            room,
            end,
            views=1 + int(rng.integers(low, high, endpoint=True)),
            odometry=bool(rng.random() < settings.odometry),
            depth=bool(rng.random() < settings.depth),
        )
        for name, room, end in zip(("reference", "target"), (here, there), ends, strict=True)
    ]


def _ends(
    rng: np.random.Generator, kind: Kind, here: Room, there: Room, settings: QuestionSettings
) -> tuple[Place, Place]:
    for _ in range(TRIES):
        thing, other = _things(rng, kind, here, there)
        reference = _looking(rng, here, thing, REACH_M)
        if reference is None:
            continue
        if kind is Kind.AWAY:
            x_m, y_m = there.free_places()[rng.integers(there.free.sum())]
            turn_rad = rng.uniform(AWAY_RAD, 2.0 * np.pi - AWAY_RAD)
            return reference, Place(float(x_m), float(y_m), reference.yaw_rad + turn_rad)
        gap_rad = np.radians(rng.uniform(*settings.gap_deg)) * rng.choice([-1.0, 1.0])
        way_m = np.array(reference[:2]) - thing[:2]
        bearing_rad = float(np.arctan2(way_m[1], way_m[0])) + gap_rad + other.back_rad - thing.back_rad
        reach_m = float(np.hypot(*way_m))
        target = _looking(rng, there, other, (reach_m / REACH_RATIO, reach_m * REACH_RATIO), bearing_rad)
        if target is not None:
            aside_rad = rng.uniform(0.3, 0.8) * rng.choice([-1.0, 1.0]) if kind is Kind.PARTIAL else 0.0
            return reference, target._replace(yaw_rad=target.yaw_rad + aside_rad)
    raise BadInputError(f"the room has no two places for a question of {kind.value}; take another seed")


def _things(rng: np.random.Generator, kind: Kind, here: Room, there: Room) -> tuple[Thing, Thing]:
    """What the reference looks at, and what the target looks at, a twin of it where one is wanted."""
    twins_m = twins(here, there)
    if kind in (Kind.TWINS, Kind.OTHER_ROOM) and len(twins_m):
        one, other = twins_m[rng.integers(len(twins_m))]
        return _thing(here, one), _thing(there, other)
    if kind is Kind.TWINS:
        raise BadInputError("no two pieces of furniture of the room are equal; take another seed")
    things = [anything(rng, room) for room in (here, there)]
    return things[0], things[0] if here is there else things[1]


def anything(rng: np.random.Generator, room: Room) -> Thing:
    """Draw something to look at: a piece of furniture, or a place on a wall."""
    if len(room.pieces_m) and rng.random() < ON_FURNITURE:
        return _thing(room, room.pieces_m[rng.integers(len(room.pieces_m))])
    point_m = rng.uniform(0.1, 0.9, 2) * room.size_m[:2]
    axis = int(rng.integers(2))
    point_m[axis] = rng.choice([0.01, room.size_m[axis] - 0.01])
    return _thing(room, point_m)


def _thing(room: Room, point_m: Array) -> Thing:
    x_m, y_m = float(point_m[0]), float(point_m[1])
    to_walls_m = (room.size_m[0] - x_m, room.size_m[1] - y_m, x_m, y_m)
    return Thing(x_m, y_m, 0.5 * np.pi * int(np.argmin(to_walls_m)))


def _looking(
    rng: np.random.Generator,
    room: Room,
    thing: Thing,
    reach_m: Range,
    bearing_rad: float | None = None,
) -> Place | None:
    """A place that looks at a thing from about a direction (any if None); None if nobody can stand there."""
    places_m = room.free_places()
    ways_m = places_m - thing[:2]
    far_m = np.linalg.norm(ways_m, axis=1)
    fits = (reach_m[0] <= far_m) & (far_m <= reach_m[1])
    if bearing_rad is not None:
        bearings = np.arctan2(ways_m[:, 1], ways_m[:, 0])
        fits &= np.abs((bearings - bearing_rad + np.pi) % (2.0 * np.pi) - np.pi) < BEARING_RAD
    if not fits.any():
        return None
    x_m, y_m = places_m[rng.choice(np.flatnonzero(fits))]
    yaw_rad = np.arctan2(thing.y_m - y_m, thing.x_m - x_m) + rng.normal(0.0, AIM_RAD)
    return Place(float(x_m), float(y_m), float(yaw_rad))


def _filmed(rng: np.random.Generator, side: _Side, build: Build, handheld: bool) -> Iterator[Frame]:
    """The end, then views from around it that look about the same way."""
    robot = Robot(side.room, side.place, int(rng.integers(2**31)), build)
    drives = rng.random() >= ON_THE_SPOT
    for index in range(side.views):
        if index:
            aim_rad = side.place.yaw_rad + rng.normal(0.0, STEP_TURN_RAD)
            if drives:
                robot.step(STEP_S, 0.0, turn_to(robot.place, rng.uniform(-np.pi, np.pi)).turn_rad / STEP_S)
                robot.step(STEP_S, rng.uniform(*STRIDE_M) / STEP_S, 0.0)
            robot.step(STEP_S, 0.0, turn_to(robot.place, aim_rad).turn_rad / STEP_S)
        robot.step(AIM_S, 0.0, rng.normal(0.0, AGITATION_RADPS))
        frame = robot.frame()
        T_steady_held = _tremor(rng) if handheld else np.eye(4)
        yield dataclasses.replace(
            frame,
            T_world_base=frame.T_world_base @ T_steady_held,
            T_odom_base=frame.T_odom_base @ T_steady_held,
        )


def _tremor(rng: np.random.Generator) -> Array:
    """How a hand holds a camera that a robot would carry upright."""
    turn_rad, shift_m = rng.normal(0.0, TREMOR_RAD, 3), rng.normal(0.0, TREMOR_M, 3)
    return rigid.make(rotations.so3_exp(turn_rad), shift_m)


def _view(rng: np.random.Generator, side: _Side, index: int, frame: Frame, depth_factor: float) -> View:
    return View(
        id=f"{side.name} {index}",
        image=frame.image,
        camera=frame.camera,
        stamp_ns=frame.stamp_ns,
        T_side_camera=frame.T_odom_camera if side.odometry else None,
        depth_m=_measured(rng, frame.depth_m, depth_factor) if side.depth else None,
    )


def _measured(rng: np.random.Generator, depth_m: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """What a depth camera makes of it: a common factor, noise that grows with the distance, holes."""
    noisy = depth_m * (factor + DEPTH_NOISE * rng.standard_normal(depth_m.shape))
    return np.where(rng.random(depth_m.shape) < DEPTH_HOLES, np.nan, noisy).astype(np.float32)
