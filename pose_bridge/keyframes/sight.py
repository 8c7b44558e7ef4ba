# SPDX-License-Identifier: Apache-2.0
"""Which keyframes are near each other, and which see the same things, as far as poses can tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import KeyframesConfig
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.views import View

SCENE_DEPTHS_M = (1.0, 2.0, 4.0)  # where, for want of a model of it, the scene is assumed
GRID = 6  # rays per side of the image that stand for what a view sees

_UNKNOWN = np.full((4, 4), np.nan)


def stacked(poses: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64]:
    """Return poses as one array, (N, 4, 4), NaN where one is None."""
    return np.array([_UNKNOWN if T is None else T for T in poses]).reshape(-1, 4, 4)


def relative_poses(keyframe: Keyframe, others: Sequence[Keyframe]) -> NDArray[np.float64]:
    """Return T_camera_other by odometry within the epoch, else through the map, (N, 4, 4).

    NaN where neither tells.
    """
    found = stacked([None] * len(others))
    if keyframe.T_map_camera is not None:
        found = np.linalg.inv(keyframe.T_map_camera) @ stacked([other.T_map_camera for other in others])
    if keyframe.T_odom_camera is not None:
        in_epoch = [other.T_odom_camera if other.epoch == keyframe.epoch else None for other in others]
        by_odometry = np.linalg.inv(keyframe.T_odom_camera) @ stacked(in_epoch)
        found = np.where(np.isnan(by_odometry), found, by_odometry)
    return found


def steps(
    T_frame_a: NDArray[np.float64], T_frame_b: NDArray[np.float64], settings: KeyframesConfig
) -> NDArray[np.float64]:
    """Return how far cameras are apart, in position and viewing direction together.

    Args:
        T_frame_a: (N, 4, 4), NaN where unknown.
        T_frame_b: (M, 4, 4), in the same frame.
        settings: One step is `min_distance_m` or `min_turn_deg`.

    Returns:
        (N, M), infinite where unknown.
    """
    apart_m = np.linalg.norm(T_frame_a[:, None, :3, 3] - T_frame_b[None, :, :3, 3], axis=2)
    cosine = np.clip(T_frame_a[:, :3, 2] @ T_frame_b[:, :3, 2].T, -1.0, 1.0)
    total = np.hypot(apart_m / settings.min_distance_m, np.degrees(np.arccos(cosine)) / settings.min_turn_deg)
    return np.where(np.isnan(total), np.inf, total)


def steps_between(
    a: Sequence[Keyframe], b: Sequence[Keyframe], settings: KeyframesConfig
) -> NDArray[np.float64]:
    """Return `steps` between keyframes, by odometry within an epoch, else through the map, (N, M)."""
    through_map = steps(
        stacked([keyframe.T_map_camera for keyframe in a]),
        stacked([keyframe.T_map_camera for keyframe in b]),
        settings,
    )
    by_odometry = steps(
        stacked([keyframe.T_odom_camera for keyframe in a]),
        stacked([keyframe.T_odom_camera for keyframe in b]),
        settings,
    )
    epochs_a, epochs_b = (np.array([keyframe.epoch for keyframe in side]) for side in (a, b))
    comparable = (epochs_a[:, None] == epochs_b[None]) & np.isfinite(by_odometry)
    return np.where(comparable, by_odometry, through_map)


def seen_alike(
    keyframe: Keyframe | View,
    others: Sequence[Keyframe | View],
    T_camera_other: NDArray[np.float64],
    within_deg: float,
) -> NDArray[np.float64]:
    """Return the share of what the keyframe shows that others show too, from a similar direction.

    Args:
        keyframe: Its scene is assumed at SCENE_DEPTHS_M.
        others: N keyframes, whose lens distortion is ignored.
        T_camera_other: Their poses seen from the keyframe, (N, 4, 4), NaN where unknown.
        within_deg: A point counts less the more the two views of it differ, and nothing from here on.

    Returns:
        (N,), 0 to 1; 0 where the pose is unknown.
    """
    points = _scene(keyframe)
    if not len(others) or not len(points):
        return np.zeros(len(others))
    rays = points[None] - T_camera_other[:, None, :3, 3]
    p_other = rays @ T_camera_other[:, :3, :3]
    K = np.array([other.camera.K for other in others])
    sizes = np.array([(other.camera.width, other.camera.height) for other in others])
    with np.errstate(invalid="ignore", divide="ignore"):
        homogeneous = p_other @ K.transpose(0, 2, 1)
        pixels = homogeneous[..., :2] / homogeneous[..., 2:]
        seen = (p_other[..., 2] > 0.0) & ((pixels >= 0.0) & (pixels <= sizes[:, None])).all(axis=2)
        cosine = (rays * points).sum(axis=2) / np.linalg.norm(rays, axis=2) / np.linalg.norm(points, axis=1)
        alike = np.clip(1.0 - np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))) / within_deg, 0.0, 1.0)
    return np.asarray(np.where(seen, alike, 0.0).mean(axis=1))


def _scene(keyframe: Keyframe | View) -> NDArray[np.float64]:
    """Points that stand for what the keyframe shows, in its camera's frame, (N, 3)."""
    camera = keyframe.camera
    across = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(across * camera.width, across * camera.height)
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    if keyframe.mask is not None:
        columns, rows = pixels.astype(int).T
        pixels = pixels[keyframe.mask[rows, columns]]
    rays = camera.normalize(pixels)
    rays = rays[np.isfinite(rays).all(axis=1)]
    return np.concatenate([depth * np.c_[rays, np.ones(len(rays))] for depth in SCENE_DEPTHS_M])
