# SPDX-License-Identifier: Apache-2.0
"""Where a robot drives: moves, ways around the furniture, and tours of a room."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array
from pose_bridge.simulation.furnished import CELL_M, Room
from pose_bridge.simulation.robot import Place

SPEED_MPS = 0.5
TURN_RADPS = 0.8
NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True, slots=True)
class Move:
    """Straight ahead, or a turn on the spot to the left; either may be negative."""

    distance_m: float = 0.0
    turn_rad: float = 0.0


def commands(moves: Iterable[Move], dt_s: float) -> Iterator[tuple[float, float]]:
    """Yield metres and radians per second, each for one step of that time; every move is made exactly."""
    for move in moves:
        duration_s = max(abs(move.distance_m) / SPEED_MPS, abs(move.turn_rad) / TURN_RADPS)
        steps = max(1, int(np.ceil(duration_s / dt_s - 1e-9)))
        for _ in range(steps):
            yield move.distance_m / (steps * dt_s), move.turn_rad / (steps * dt_s)


def after(place: Place, moves: Iterable[Move]) -> Place:
    """Where the robot then is."""
    for move in moves:
        place = place.moved(move.distance_m, move.turn_rad)
    return place


def turn_to(place: Place, yaw_rad: float) -> Move:
    """The shorter turn to a direction."""
    return Move(turn_rad=float((yaw_rad - place.yaw_rad + np.pi) % (2.0 * np.pi) - np.pi))


def go(room: Room, place: Place, goal_m: Array) -> list[Move]:
    """Turns and straight stretches to a place, (2,), around the furniture.

    Raises:
        BadInputError: It cannot be reached.
    """
    moves: list[Move] = []
    for x_m, y_m in _corners(room, _way(room, place, goal_m)):
        here = after(place, moves)
        moves.append(turn_to(here, float(np.arctan2(y_m - here.y_m, x_m - here.x_m))))
        moves.append(Move(distance_m=float(np.hypot(x_m - here.x_m, y_m - here.y_m))))
    return moves


def clear(room: Room, start_m: Sequence[float] | Array, end_m: Sequence[float] | Array) -> bool:
    """Whether nothing is in the way of a straight drive."""
    length_m = float(np.hypot(end_m[0] - start_m[0], end_m[1] - start_m[1]))
    count = int(length_m / (0.25 * CELL_M)) + 2
    return all(room.is_free(x, y) for x, y in np.linspace(start_m[:2], end_m[:2], count))


def spread(places_m: Array, count: int, rng: np.random.Generator) -> Array:
    """As many of the places, (N, 2), far from each other, (count, 2)."""
    chosen = [places_m[rng.integers(len(places_m))]]
    for _ in range(count - 1):
        gaps = np.linalg.norm(places_m[:, None] - np.array(chosen), axis=2).min(axis=1)
        chosen.append(places_m[int(np.argmax(gaps))])
    return np.array(chosen)


def nearest_first(places_m: Array) -> Array:
    """The places, (N, 2), from the first one always on to the nearest that is left."""
    left, order = list(range(1, len(places_m))), [0]
    while left:
        gaps = [float(np.linalg.norm(places_m[k] - places_m[order[-1]])) for k in left]
        order.append(left.pop(int(np.argmin(gaps))))
    return places_m[order]


def _way(room: Room, place: Place, goal_m: Array) -> list[Array]:
    """Middles of cells from here to the goal, by the fewest steps; the ends as given."""
    start, goal = _cell(place[:2]), _cell(goal_m)
    came_from: dict[tuple[int, int], tuple[int, int]] = {goal: goal}
    waiting = deque([goal])
    while waiting and start not in came_from:
        row, column = waiting.popleft()
        for dr, dc in NEIGHBOURS:
            cell = (row + dr, column + dc)
            if cell not in came_from and room.is_free((cell[1] + 0.5) * CELL_M, (cell[0] + 0.5) * CELL_M):
                came_from[cell] = (row, column)
                waiting.append(cell)
    if start not in came_from:
        raise BadInputError(f"no way to {goal_m[0]:.2f}, {goal_m[1]:.2f} m")
    cells = [start]
    while cells[-1] != goal:
        cells.append(came_from[cells[-1]])
    middles = [(np.array([column, row]) + 0.5) * CELL_M for row, column in cells]
    return [np.array(place[:2]), *middles[1:-1], np.asarray(goal_m, float)]


def _corners(room: Room, way: list[Array]) -> Iterator[Array]:
    """The places of a way where a robot has to turn."""
    here = 0
    while here < len(way) - 1:
        ahead = len(way) - 1
        while ahead > here + 1 and not clear(room, way[here], way[ahead]):
            ahead -= 1
        yield way[ahead]
        here = ahead


def _cell(point_m: Sequence[float] | Array) -> tuple[int, int]:
    return int(point_m[1] // CELL_M), int(point_m[0] // CELL_M)
