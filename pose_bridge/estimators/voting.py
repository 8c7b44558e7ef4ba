# SPDX-License-Identifier: Apache-2.0
"""Alignments of two level sides, by a vote of all matches between them.

Where both sides know what is up and stand on one floor, three numbers are unknown: a turn and a shift. A
match of a point of one side with a ray of the other says, for each turn, on which line segment the shift
lies. True matches meet in one cell, even where they are one in thirty; false ones are spread over all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pose_bridge.control import Control
from pose_bridge.estimators.base import Array
from pose_bridge.geometry import rigid, rotations

TURNS = 120  # that are told apart
CELL_M = 0.2
REACH_M = 8.0  # points farther than this from who sees them do not vote
STEP_M = 0.15  # along a ray
SLACK_M = 0.04  # in height, of odometry and floor
PEAKS = 60  # that are looked at more closely
SAME_TURN_RAD, SAME_SHIFT_M = np.radians(8.0), 0.6
REFINEMENTS = ((4.0, 3), (2.0, 3), (1.0, 3))  # shares of the largest error, and steps with each
SPOT_M = 0.1  # points in one cell of this size are one
THING_M = 0.5
SECTOR_RAD = np.radians(15.0)
ENOUGH = 5  # points in one sector that count
OUTSIDE = 2.0  # percent of the points, on either end of an axis, that do not widen the grid


@dataclass(frozen=True, eq=False)
class Sights:
    """Points of one side that views of the other see.

    Attributes:
        points_m: In the side that the points belong to, z up, (L, 3).
        origins_m: Of the rays, in the other side, z up, (L, 3).
        rays: Unit vectors, in the other side, (L, 3).
        tolerance_rad: That a ray may be off.
    """

    points_m: Array
    origins_m: Array
    rays: Array
    tolerance_rad: float

    def error_rad(self, T_other_own: Array) -> Array:
        """Angle between each ray and where its point is, (L,)."""
        towards = rigid.transform(T_other_own, self.points_m) - self.origins_m
        across = np.linalg.norm(np.cross(towards, self.rays), axis=1)
        return np.asarray(np.arctan2(across, (towards * self.rays).sum(axis=1)))


def alignments(first: Sights, second: Sights, count: int, control: Control) -> list[tuple[Array, int]]:
    """Return T_first_second, level, (4, 4), with how much speaks for it, best first; each only once.

    Args:
        first: Points of the first side, seen by the second.
        second: Points of the second side, seen by the first.
        count: Most to return.
        control: Checked at each turn and each peak.

    Raises:
        CancelledError, BudgetSpentError: From `control`.
    """
    found = []
    for T in _peaks(first, second, control):
        control.check()
        found.append(_refined(first, second, T))
    found.sort(key=lambda pair: -pair[1])
    kept: list[tuple[Array, int]] = []
    for T, support in found:
        if support and len(kept) < count and not any(_same(T, other) for other, _ in kept):
            kept.append((T, support))
    return kept


def _same(T_a: Array, T_b: Array) -> bool:
    turn_rad = rotations.rotation_angle_rad(T_a[:3, :3].T @ T_b[:3, :3])
    return turn_rad < SAME_TURN_RAD and bool(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3]) < SAME_SHIFT_M)


def _peaks(first: Sights, second: Sights, control: Control) -> Iterator[Array]:
    a, b, weight = (
        np.concatenate(both) for both in zip(_places(first, False), _places(second, True), strict=True)
    )
    if not len(a):
        return
    turns_rad = np.arange(TURNS) * (2.0 * np.pi / TURNS)
    low = np.percentile(a, OUTSIDE, axis=0) - REACH_M
    size = np.ceil((np.percentile(a, 100.0 - OUTSIDE, axis=0) + REACH_M - low) / CELL_M).astype(int)
    votes = np.empty((TURNS, size[0] * size[1]))
    for turn, turn_rad in enumerate(turns_rad):
        control.check()
        cell = np.floor((a - b @ _turn(turn_rad).T - low) / CELL_M).astype(np.intp)
        inside = ((cell >= 0) & (cell < size)).all(axis=1)
        flat = cell[inside] @ np.array([size[1], 1])
        votes[turn] = np.bincount(flat, weight[inside], size[0] * size[1])
    kept: list[Array] = []
    best = np.argpartition(-votes.ravel(), min(100 * PEAKS, votes.size - 1))[: 100 * PEAKS]
    for index in best[np.argsort(-votes.ravel()[best], kind="stable")]:
        turn, cell_index = divmod(int(index), votes.shape[1])
        shift = low + CELL_M * (np.array(divmod(cell_index, size[1])) + 0.5)
        turn_rad = float(turns_rad[turn])
        T = _level(turn_rad, np.r_[shift, 0.0])
        if any(_same(T, other) for other in kept):
            continue
        kept.append(T)
        yield T
        if len(kept) == PEAKS:
            return


def _places(sights: Sights, swap: bool) -> tuple[Array, Array, Array]:
    """Where a point may be on its ray, by its height: places on either side's floor plan, and weights."""
    across = np.linalg.norm(sights.rays[:, :2], axis=1)
    slope = sights.rays[:, 2] / np.maximum(across, 1e-6)
    rise_m = sights.points_m[:, 2] - sights.origins_m[:, 2]
    reach_m = np.arange(STEP_M, REACH_M, STEP_M)
    fits = np.abs(reach_m * slope[:, None] - rise_m[:, None]) < reach_m * sights.tolerance_rad + SLACK_M
    link, step = np.nonzero(fits)
    weight = (_say(sights) / np.maximum(fits.sum(axis=1), 1))[link]
    ahead = sights.rays[:, :2] / np.maximum(across, 1e-6)[:, None]
    seen = sights.origins_m[link, :2] + reach_m[step, None] * ahead[link]
    own = sights.points_m[link, :2]
    return (seen, own, weight) if swap else (own, seen, weight)


def _say(sights: Sights) -> Array:
    """How much each match says: those of one thing, seen in one direction, share what one would say, (L,)."""
    direction = np.floor(np.arctan2(sights.rays[:, 1], sights.rays[:, 0]) / SECTOR_RAD)
    thing = np.floor(sights.points_m / THING_M)
    _, which, count = np.unique(np.c_[direction, thing], axis=0, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / count[which.reshape(-1)])


def _refined(first: Sights, second: Sights, T_first_second: Array) -> tuple[Array, int]:
    """The alignment that fits best near a peak, and how many different things speak for it."""
    T = T_first_second
    for share, steps in REFINEMENTS:
        for _ in range(steps):
            rows = [_equations(second, T, share, True), _equations(first, T, share, False)]
            J, residual = (np.concatenate(both) for both in zip(*rows, strict=True))
            if len(J) < 12:
                return T, 0
            dx, dy, turn_rad = -np.linalg.lstsq(J, residual, rcond=None)[0]
            T = _level(float(turn_rad), np.array([dx, dy, 0.0])) @ T
    return T, _support(first, second, T)


def _support(first: Sights, second: Sights, T_first_second: Array) -> int:
    """How many points speak for an alignment; those in one direction count only up to `ENOUGH`.

    A piece of furniture that stands elsewhere too has as many matches as it likes, all in one direction.
    """
    fits = first.error_rad(rigid.inverse(T_first_second)) < first.tolerance_rad
    other = second.error_rad(T_first_second) < second.tolerance_rad
    points = np.concatenate([first.points_m[fits], rigid.transform(T_first_second, second.points_m[other])])
    observers = first.origins_m if len(first.origins_m) else np.zeros((1, 3))
    place = rigid.transform(T_first_second, observers).mean(axis=0)
    ahead = points - place
    sector = np.floor(np.arctan2(ahead[:, 1], ahead[:, 0]) / SECTOR_RAD).astype(int)
    spots = np.unique(np.c_[sector, np.floor(points / SPOT_M).astype(int)], axis=0)
    _, counts = np.unique(spots[:, 0], return_counts=True)
    return int(np.minimum(counts, ENOUGH).sum())


def _equations(sights: Sights, T: Array, share: float, moving: bool) -> tuple[Array, Array]:
    """Linearized errors, (3M, 3) and (3M,), of the rays that are not far off.

    Args:
        sights: Points and rays.
        T: T_other_own; or, if the rays move, T_own_other.
        share: Of the tolerance.
        moving: Whether the points move with (x, y, turn) of the first side, or the rays do.
    """
    T_other_own = T if moving else rigid.inverse(T)
    near = sights.error_rad(T_other_own) < share * sights.tolerance_rad
    rays, points = sights.rays[near], sights.points_m[near]
    there = rigid.transform(T_other_own, points)
    towards = there - sights.origins_m[near]
    far_m = np.linalg.norm(towards, axis=1, keepdims=True)
    x, y = (there if moving else points)[:, :2].T
    zero, one = np.zeros(len(x)), np.ones(len(x))
    motion = np.array([[one, zero, zero], [zero, one, zero], [-y, x, zero]]).transpose(2, 0, 1)
    if not moving:
        motion = -motion @ T_other_own[:3, :3].T
    J = _across(motion / far_m[:, :, None], rays[:, None])
    return J.transpose(0, 2, 1).reshape(-1, 3), _across(towards / far_m - rays, rays).reshape(-1)


def _across(vectors: Array, rays: Array) -> Array:
    """What is left of vectors without their part along rays."""
    return np.asarray(vectors - (vectors * rays).sum(axis=-1, keepdims=True) * rays)


def _turn(turn_rad: float) -> Array:
    return np.array([[np.cos(turn_rad), -np.sin(turn_rad)], [np.sin(turn_rad), np.cos(turn_rad)]])


def _level(turn_rad: float, shift_m: Array) -> Array:
    return rigid.make(rotations.so3_exp(np.array([0.0, 0.0, turn_rad])), shift_m)
