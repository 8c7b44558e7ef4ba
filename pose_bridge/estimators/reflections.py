# SPDX-License-Identifier: Apache-2.0
"""Scenes turned inside out in depth: seen from narrow angles, or flat, they fit as the true one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from pose_bridge.estimators.base import Array, Problem, Tracks, log_depth_ratios
from pose_bridge.geometry import distances, rigid, rotations

TURN_DEG, DIRECTION_DEG = 1.0, 5.0  # odometry's standard deviations, roughly
LOG_DEPTH = 0.05  # that of a depth, by others of the same view
MOVED_M = 0.03  # less has no direction
SAME_DEG, SAME_SHARE = 3.0, 0.2  # two reconstructions may be off each other; of how far views are


def inside_out(T_reference_camera: Mapping[int, Array], points: Array) -> tuple[dict[int, Array], Array]:
    """Mirror cameras and points in depth: cameras far away would see just the same (Necker's cube).

    The mirror stands in the middle of the points, across the mean line of sight. Each camera's own depth is
    mirrored too, which keeps it a camera, and it goes where it sees the middle as it did.

    Args:
        T_reference_camera: By view; view 0 is the identity.
        points: (P, 3), in the frame of view 0.

    Returns:
        The same of the other scene.
    """
    middle = np.median(points, axis=0)
    poses = T_reference_camera.values()
    sights = [(middle - T[:3, 3]) / np.linalg.norm(middle - T[:3, 3]) for T in poses]
    normal = np.mean(sights, axis=0) / np.linalg.norm(np.mean(sights, axis=0))
    mirror, flip = np.eye(3) - 2.0 * np.outer(normal, normal), np.diag([1.0, 1.0, -1.0])
    mirrored = {}
    for view, T in T_reference_camera.items():
        R = rotations.nearest_rotation(mirror @ T[:3, :3] @ flip)
        mirrored[view] = rigid.make(R, middle - R @ T[:3, :3].T @ (middle - T[:3, 3]))
    cameras = {view: rigid.relative(mirrored[0], T) for view, T in mirrored.items()}
    return cameras, rigid.transform(rigid.inverse(mirrored[0]), middle + (points - middle) @ mirror)


def apart(a: Mapping[int, Array], b: Mapping[int, Array]) -> bool:
    """Whether two reconstructions of the same views, each of any scale, differ.

    Args:
        a: T_reference_camera by view; view 0 is the identity.
        b: The same views.
    """
    views = sorted(set(a) - {0})
    turned_deg = [distances.rotation_error_deg(a[view][:3, :3], b[view][:3, :3]) for view in views]
    places = [np.array([T[view][:3, 3] for view in views]) for T in (a, b)]
    places = [place / max(float(np.linalg.norm(place)), 1e-12) for place in places]
    return bool(max(turned_deg) > SAME_DEG or np.linalg.norm(places[0] - places[1]) > SAME_SHARE)


def contradiction(
    problem: Problem, T_reference_camera: Mapping[int, Array], points: Array, tracks: Tracks
) -> float:
    """How far a reconstruction, of any scale, is from what odometry and depth say, in standard deviations.

    Root mean square over pairs of one side's views and over views with depth; 0 where nothing is known.
    """
    departures = [*_by_odometry(problem, T_reference_camera)]
    for view, T in T_reference_camera.items():
        ratios = log_depth_ratios(problem, view, T, points, tracks)
        if len(ratios):
            departures.append(float(np.median(np.abs(ratios - np.median(ratios)))) / LOG_DEPTH)
    return float(np.sqrt(np.mean(np.square(departures)))) if departures else 0.0


def _by_odometry(problem: Problem, T_reference_camera: Mapping[int, Array]) -> Iterator[float]:
    for a, b in combinations(sorted(T_reference_camera), 2):
        T_side_a, T_side_b = problem.views[a].T_side_camera, problem.views[b].T_side_camera
        if problem.sides[a] != problem.sides[b] or T_side_a is None or T_side_b is None:
            continue
        told, found = (
            rigid.relative(T_side_a, T_side_b),
            rigid.relative(T_reference_camera[a], T_reference_camera[b]),
        )
        yield distances.rotation_error_deg(found[:3, :3], told[:3, :3]) / TURN_DEG
        if np.linalg.norm(told[:3, 3]) > MOVED_M:
            yield distances.translation_error_deg(found[:3, 3], told[:3, 3]) / DIRECTION_DEG
