# SPDX-License-Identifier: Apache-2.0
"""Where the cameras of a question are: how its sides lie to each other, and views around both ends."""

from __future__ import annotations

from enum import Enum

import numpy as np
from point_scenes.rooms import MARGIN_M, UP

from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera

BETWEEN_VIEWS = (3, 8)


class Kind(Enum):
    """How the two sides of a question lie to each other."""

    SAME_REGION = "same region"
    PARTIAL = "partial"  # the target looks past what the reference looks at
    OPPOSITE = "opposite"  # the same objects from behind
    BETWEEN = "between"  # with views all the way from one end to the other
    PAN = "pan"  # hardly any way between the sides
    OTHER_WALL = "other wall"  # looking away from each other
    OTHER_ROOM = "other room"  # with the same motifs and furniture: there is no answer


def walk(
    rng: np.random.Generator,
    kind: Kind,
    room_m: Array,
    camera: Camera,
    *,
    gap_deg: tuple[float, float],
    context: tuple[int, int],
) -> tuple[list[Array], list[int]]:
    """Return T_world_camera and the side of each view: both ends first."""
    focus, eyes = min(
        (_ends(rng, kind, room_m, gap_deg) for _ in range(20)), key=lambda e: _outside(e[1], room_m)
    )
    eyes = np.clip(eyes, MARGIN_M, room_m - MARGIN_M)
    targets = np.array([focus, focus])
    if kind in (Kind.OTHER_WALL, Kind.PAN):  # outward
        targets = 2.0 * eyes - focus
        targets[:, 2] = focus[2]
    elif kind is Kind.PARTIAL:
        way = focus - eyes[1]
        aside = rng.choice([-1.0, 1.0]) * np.cross(way, UP) * camera.width / (2.0 * camera.mean_focal_px)
        targets[1] += rng.uniform(0.5, 1.7) * aside
    tremor_rad = np.radians(rng.uniform(1.0, 7.0))
    ends = [_looking(eye, at, rng.normal(0.0, tremor_rad, 3)) for eye, at in zip(eyes, targets, strict=True)]
    views, sides = list(ends), [0, 1]
    if kind is Kind.BETWEEN:
        count = int(rng.integers(*BETWEEN_VIEWS, endpoint=True))
        for fraction in np.linspace(0.0, 1.0, count + 2)[1:-1]:
            views.append(_looking(_on_the_way(focus, eyes, fraction), focus, rng.normal(0.0, tremor_rad, 3)))
            sides.append(int(fraction > 0.5))
        return views, sides
    for side, end in enumerate(ends):
        around_end = _steps(rng, end, int(rng.integers(*context, endpoint=True)), room_m)
        views += around_end
        sides += [side] * len(around_end)
    return views, sides


def _on_the_way(focus: Array, eyes: Array, fraction: float) -> Array:
    """Return the place at a fraction of the way between two, (2, 3), on an arc around the focus."""
    around = eyes - focus
    angles = np.unwrap(np.arctan2(around[:, 1], around[:, 0]))
    radii = np.linalg.norm(around[:, :2], axis=1)
    angle, radius, height = np.stack([angles, radii, around[:, 2]]) @ (1.0 - fraction, fraction)
    return np.asarray(focus + np.array([radius * np.cos(angle), radius * np.sin(angle), height]))


def _ends(
    rng: np.random.Generator, kind: Kind, room_m: Array, gap_range_deg: tuple[float, float]
) -> tuple[Array, Array]:
    """Return a point (3,), and two places around it, (2, 3), perhaps outside the room."""
    gap_deg = gap_range_deg[0] + np.ptp(gap_range_deg) * rng.random() ** 2  # narrow ones more often
    if kind is Kind.OPPOSITE:
        gap_deg = rng.uniform(110.0, 180.0)
    elif kind is Kind.OTHER_WALL:
        gap_deg = rng.uniform(95.0, 180.0)
    elif kind is Kind.PAN:
        gap_deg = rng.uniform(10.0, 60.0)
    focus = rng.uniform(0.0, 1.0, 3) * room_m
    if kind not in (Kind.SAME_REGION, Kind.PARTIAL, Kind.BETWEEN):
        focus = rng.uniform(0.35, 0.65, 3) * room_m
    focus[2] = rng.uniform(0.4, 1.8)
    angles = rng.uniform(0.0, 2.0 * np.pi) + np.radians([0.0, gap_deg * rng.choice([-1.0, 1.0])])
    reach_m = rng.uniform(1.2, 4.0)
    if kind in (Kind.OTHER_WALL, Kind.PAN):
        reach_m = 0.1 if kind is Kind.PAN else rng.uniform(0.1, 0.8)
    radii = reach_m * rng.uniform(0.75, 1.33, 2)
    eyes = focus + np.stack([radii * np.cos(angles), radii * np.sin(angles), np.zeros(2)], axis=1)
    eyes[:, 2] = rng.uniform(1.0, 1.8) + rng.normal(0.0, 0.1, 2)
    return focus, eyes


def _outside(eyes: Array, room_m: Array) -> float:
    return float(np.abs(eyes - np.clip(eyes, MARGIN_M, room_m - MARGIN_M)).sum())


def _looking(eye: Array, at: Array, shake_rad: Array) -> Array:
    forward = at - eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, UP)
    right = right / np.linalg.norm(right)
    R_world_camera = np.stack([right, np.cross(forward, right), forward], axis=1)
    return rigid.make(R_world_camera @ rotations.so3_exp(shake_rad), eye)


def _steps(rng: np.random.Generator, end: Array, count: int, room_m: Array) -> list[Array]:
    """Return poses of a handheld camera around one end: small steps, at times on the spot."""
    stride = rng.choice([1.0, 0.05, 0.0], p=[0.75, 0.15, 0.1])
    views = [end]
    for _ in range(count):
        last = end if rng.random() < 0.4 else views[-1]
        axis = rng.normal(size=3) * (0.4, 1.0, 0.2)  # mostly turning left or right
        turn_rad = np.radians(rng.uniform(0.5, 12.0)) * axis / np.linalg.norm(axis)
        way = rng.normal(size=3) * (1.0, 1.0, 0.3)
        way_m = stride * rng.uniform(0.05, 0.4) * way / np.linalg.norm(way)
        eye = np.clip(last[:3, 3] + way_m, MARGIN_M, room_m - MARGIN_M)
        views.append(rigid.make(last[:3, :3] @ rotations.so3_exp(turn_rad), eye))
    return views[1:]
