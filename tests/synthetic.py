# SPDX-License-Identifier: Apache-2.0
"""Problems with a known answer: points, cameras on an arc, and perfect matches."""

from pathlib import Path

import numpy as np

from pose_bridge.estimators.base import Problem, Tracks
from pose_bridge.features import Features
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Evidence, View

FOCAL_PX = 400.0
CAMERA = Camera.from_focal_px(FOCAL_PX, 640, 480)


def arc(angles_deg: list[float], radius_m: float = 4.0) -> list[np.ndarray]:
    """T_world_camera on a circle around the origin, looking at it; the first one first."""
    poses = []
    for angle in np.radians(angles_deg):
        R = rotations.so3_exp(np.array([0.0, angle, 0.0]))
        poses.append(rigid.make(R, R @ np.array([0.0, 0.0, -radius_m])))
    return poses


def cloud(rng: np.random.Generator, count: int = 150, flat: bool = False) -> np.ndarray:
    points = rng.uniform(-1.2, 1.2, (count, 3))
    if flat:
        points[:, 2] = 0.0
    return points


def problem(
    T_world_camera: list[np.ndarray],
    points_world: np.ndarray,
    rng: np.random.Generator,
    noise_px: float = 0.0,
    odometry: bool = False,
    sides: list[int] | None = None,
    outliers: float = 0.0,
) -> Problem:
    """Keypoint k of every view shows point k; a share of the matches may be shuffled."""
    views, features = [], []
    image = np.zeros((480, 640, 3), np.uint8)
    for index, T in enumerate(T_world_camera):
        px = CAMERA.project(rigid.transform(rigid.inverse(T), points_world))
        px = px + rng.normal(0.0, noise_px, px.shape)
        mask = np.ones((480, 640), bool)
        mask[0, index] = False  # a picture of its own: results are remembered by what the picture is
        views.append(
            View(id=f"v{index}", image=image, camera=CAMERA, mask=mask, T_side_camera=T if odometry else None)
        )
        features.append(_features(px, CAMERA))
    everything = np.stack([np.arange(len(points_world))] * 2, axis=1)
    matches = {}
    for a in range(len(views)):
        for b in range(a + 1, len(views)):
            pairs = everything.copy()
            wrong = rng.permutation(len(pairs))[: int(outliers * len(pairs))]
            pairs[wrong, 1] = pairs[np.roll(wrong, 1), 1]
            matches[a, b] = pairs
    return Problem(
        views, features, matches, sides or [0, 1] + [0] * (len(views) - 2), int(rng.integers(2**31))
    )


def stored(path: Path, name: str) -> tuple[Problem, np.ndarray]:
    """A problem from a file, and T_reference_target."""
    with np.load(path) as file:
        part = {key.removeprefix(f"{name}_"): file[key] for key in file.files if key.startswith(f"{name}_")}
    width, height = part["size_px"].tolist()
    camera = Camera.from_focal_px(float(part["focal_px"]), width, height)
    views, features = [], []
    for index, px in enumerate(np.split(part["points_px"].astype(float), np.cumsum(part["counts"])[:-1])):
        mask = np.ones((height, width), bool)
        mask[0, index] = False
        image = np.zeros((height, width, 3), np.uint8)
        views.append(View(id=f"v{index}", image=image, camera=camera, mask=mask))
        features.append(_features(px, camera))
    matches = np.split(part["matches"].astype(np.intp), np.cumsum(part["match_counts"])[:-1])
    pairs = [(a, b) for a, b in part["pairs"].tolist()]
    sides = part["sides"].tolist()
    found = Problem(views, features, dict(zip(pairs, matches, strict=True)), sides, int(part["seed"]))
    return found, part["T_reference_target"]


def _features(px: np.ndarray, camera: Camera) -> Features:
    empty = np.zeros((len(px), 128), np.float32)
    return Features(px, camera.normalize(px), empty, np.arange(len(px)), len(px), len(px))


def all_tracks(views: int, points: int) -> Tracks:
    point, view = np.meshgrid(np.arange(points), np.arange(views))
    return Tracks(point.reshape(-1), view.reshape(-1), point.reshape(-1))


def evidence(**known: object) -> Evidence:
    """Of no points at all, but for what is given."""
    nothing = {
        "tracks": 0,
        "features": {},
        "reference_view_id": "r",
        "target_view_id": "t",
        "reference_points_px": np.empty((0, 2)),
        "target_points_px": np.empty((0, 2)),
        "points": np.empty((0, 3)),
    }
    return Evidence(**{**nothing, **known})
