# SPDX-License-Identifier: Apache-2.0
"""The story of a kidnapped robot: it maps a room, is carried elsewhere, looks around and drives a little."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array
from pose_bridge.simulation import driving
from pose_bridge.simulation.driving import Move
from pose_bridge.simulation.furnished import CELL_M, Room
from pose_bridge.simulation.robot import DEFAULT_BUILD, Build, Frame, Place, Robot

FRAME_S = 0.2
CARRY_S = 2.0  # that it is carried for
STOPS = 5  # of the tour on which the room is mapped
SECTOR_RAD = np.radians(40.0)  # on either side of the direction in which one side of a room is mapped
BEHIND_RAD = np.radians(100.0)  # from that direction at least, the robot looks when it is set down opposite
NEAR_SIDE, FAR_SIDE = 0.45, 0.55  # shares of the room's width that are mapped, and where it is set down then
NEAR_M, NEAR_RAD = 1.2, np.radians(40.0)  # to a mapped view, when set down on the same side
DRIVE_M = 2.0
DIRECTIONS = 24  # that are looked into for a way
TRIES = 500


class Kind(Enum):
    """From where the robot sees what it mapped, when it is set down."""

    SAME_SIDE = "same side"  # it mapped all round, and is set down near a place from which it looked that way
    OPPOSITE = "opposite"  # it mapped one half looking across; from the other half, it looks back or aside


@dataclass(frozen=True, eq=False)
class Kidnapping:
    """What the robot saw.

    Attributes:
        mapping: Frames of the tour, in odometry frame 0; of `OPPOSITE` those that look across from one half.
        kidnapped: From being set down on, in odometry frame 1.
    """

    room: Room
    kind: Kind
    mapping: list[Frame]
    kidnapped: list[Frame]


def kidnap(room: Room, seed: int, kind: Kind, build: Build = DEFAULT_BUILD) -> Kidnapping:
    """Map a room, carry the robot elsewhere; there it spins once around and drives 2 m.

    Raises:
        BadInputError: The room has no place for it; take another seed.
    """
    rng = np.random.default_rng([4, seed])
    across = int(rng.integers(4))
    stops = _stops(room, rng, kind, across)
    start = Place(stops[0, 0], stops[0, 1], float(rng.uniform(-np.pi, np.pi)))
    robot = Robot(room, start, seed, build)
    mapping = _filmed(robot, _tour(room, start, stops, kind, across))
    if kind is Kind.OPPOSITE:
        mapping = [frame for frame in mapping if _looks_across(frame, room, across)]
    robot.put(_set_down(room, rng, kind, across, mapping))
    robot.step(CARRY_S, 0.0, 0.0)
    return Kidnapping(room, kind, mapping, _filmed(robot, _look_around(room, rng, robot.place, kind, across)))


def stranger(room: Room, seed: int, build: Build = DEFAULT_BUILD) -> list[Frame]:
    """What a robot sees that is set down somewhere in a room, spins and drives: a question without a map."""
    rng = np.random.default_rng([5, seed])
    places = room.free_places()
    place = _anywhere(places, rng)
    return _filmed(Robot(room, place, seed, build), _look_around(room, rng, place, Kind.SAME_SIDE, across=0))


def _filmed(robot: Robot, moves: Iterable[Move]) -> list[Frame]:
    """A frame before and after each step."""
    frames = [robot.frame()]
    for speed_mps, turn_radps in driving.commands(moves, FRAME_S):
        robot.step(FRAME_S, speed_mps, turn_radps)
        frames.append(robot.frame())
    return frames


def _anywhere(places_m: Array, rng: np.random.Generator) -> Place:
    x_m, y_m = places_m[rng.integers(len(places_m))]
    return Place(float(x_m), float(y_m), float(rng.uniform(-np.pi, np.pi)))


def _direction(across: int) -> float:
    """Yaw of the direction across the room: along x, y, or back."""
    return across * np.pi / 2.0


def _depth(room: Room, places_m: Array, across: int) -> Array:
    """How far across the room places, (N, 2), are, from 0 to 1."""
    share = places_m[:, across % 2] / room.size_m[across % 2]
    return np.asarray(share if across < 2 else 1.0 - share)


def _stops(room: Room, rng: np.random.Generator, kind: Kind, across: int) -> Array:
    places = room.free_places()
    if kind is Kind.OPPOSITE:
        places = places[_depth(room, places, across) < NEAR_SIDE]
    if len(places) < STOPS:
        raise BadInputError("the robot finds no place on that side of the room; take another seed")
    return driving.nearest_first(driving.spread(places, STOPS, rng))


def _tour(room: Room, start: Place, stops: Array, kind: Kind, across: int) -> list[Move]:
    """To every stop; there it looks all around, or across the room only."""
    moves: list[Move] = []
    for stop in stops:
        here = driving.after(start, moves)
        if np.hypot(*(stop - here[:2])) > 1e-6:
            moves += driving.go(room, here, stop)
        if kind is Kind.OPPOSITE:
            here = driving.after(start, moves)
            moves.append(driving.turn_to(here, _direction(across) - SECTOR_RAD))
            moves.append(Move(turn_rad=2.0 * SECTOR_RAD))
        else:
            moves.append(Move(turn_rad=2.0 * np.pi))
    return moves


def _looks_across(frame: Frame, room: Room, across: int) -> bool:
    place_m = frame.T_world_base[None, :2, 3]
    on_this_side = bool(_depth(room, place_m, across)[0] < NEAR_SIDE)
    return on_this_side and _apart(_yaw(frame), _direction(across)) < SECTOR_RAD + 1e-6


def _set_down(room: Room, rng: np.random.Generator, kind: Kind, across: int, mapping: list[Frame]) -> Place:
    places = room.free_places()
    seen_m = np.array([frame.T_world_base[:2, 3] for frame in mapping])
    seen_yaw = np.array([_yaw(frame) for frame in mapping])
    for _ in range(TRIES):
        place = _anywhere(places, rng)
        if kind is Kind.OPPOSITE:
            behind = _apart(place.yaw_rad, _direction(across)) > BEHIND_RAD
            fits = behind and _depth(room, np.array([place[:2]]), across)[0] > FAR_SIDE
        else:
            near = np.linalg.norm(seen_m - place[:2], axis=1) < NEAR_M
            fits = bool((near & (_apart(seen_yaw, place.yaw_rad) < NEAR_RAD)).any())
        if fits:
            return place
    raise BadInputError("the robot finds no place on the other side of the room; take another seed")


def _look_around(room: Room, rng: np.random.Generator, place: Place, kind: Kind, across: int) -> list[Move]:
    """Once around, then straight on towards where there is most room, as often as it takes for `DRIVE_M`."""
    moves, left_m = [Move(turn_rad=2.0 * np.pi)], DRIVE_M
    while left_m > CELL_M:
        here = driving.after(place, moves)
        ways = [
            (_free_m(room, here, float(yaw_rad), left_m, kind, across), float(yaw_rad))
            for yaw_rad in rng.permutation(np.linspace(-np.pi, np.pi, DIRECTIONS, endpoint=False))
        ]
        way_m, yaw_rad = max(ways, key=lambda way: way[0])
        if way_m == 0.0:
            raise BadInputError("the robot cannot move where it was set down; take another seed")
        moves += [driving.turn_to(here, yaw_rad), Move(distance_m=way_m)]
        left_m -= way_m
    return moves


def _free_m(room: Room, place: Place, yaw_rad: float, most_m: float, kind: Kind, across: int) -> float:
    """How far the robot gets without leaving its side of the room, in steps of a cell."""
    for distance_m in np.arange(most_m, 0.0, -CELL_M):
        end = place[:2] + distance_m * np.array([np.cos(yaw_rad), np.sin(yaw_rad)])
        stays = kind is not Kind.OPPOSITE or _depth(room, end[None], across)[0] > FAR_SIDE
        if stays and driving.clear(room, place[:2], end):
            return float(distance_m)
    return 0.0


def _yaw(frame: Frame) -> float:
    return float(np.arctan2(frame.T_world_base[1, 0], frame.T_world_base[0, 0]))


def _apart(yaw_rad: Array | float, other_rad: float) -> Array:
    """The angle between directions, 0 to pi."""
    return np.abs((np.asarray(yaw_rad) - other_rad + np.pi) % (2.0 * np.pi) - np.pi)
