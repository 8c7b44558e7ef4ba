# SPDX-License-Identifier: Apache-2.0
"""Short walks through rendered rooms, as photographs with a cameras.json each."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.furnished import Room, planar

CAMERA = Camera.from_focal_px(260.0, 320, 240)
STEPS, STEP_DEG, STEP_M, EYE_M = 5, 6.0, 0.2, 1.0
T_BODY_CAMERA = rigid.make([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], [0.0] * 3)


@cache
def taken(style: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Pictures and T_world_camera, from the place with most room around it, turning and stepping aside."""
    room = Room(style, 0)
    places = room.free_places()
    x, y = places[np.argmin(np.linalg.norm(places - places.mean(axis=0), axis=1))]
    found = []
    for step in range(STEPS):
        yaw = np.radians(STEP_DEG * step)
        aside = STEP_M * step * np.array([-np.sin(yaw), np.cos(yaw)])
        T = planar(x + aside[0], y + aside[1], -yaw, EYE_M) @ T_BODY_CAMERA
        found.append((room.picture(T, CAMERA).image, T))
    return tuple(found)


def write(folder: Path, styles: tuple[int, ...] = (3,)) -> str:
    """Write a walk for each style, and return how the data set is named."""
    for style in styles:
        scene, frames = folder / f"room{style}", []
        scene.mkdir(parents=True)
        for step, (image, T) in enumerate(taken(style)):
            assert cv2.imwrite(str(scene / f"{step}.png"), np.ascontiguousarray(image[..., ::-1]))
            T = rigid.make(rotations.nearest_rotation(T[:3, :3]), T[:3, 3])
            frames.append({"file": f"{step}.png", "T_world_camera": T.tolist()})
        K = CAMERA.to_opencv_K().tolist()
        content = {"width": CAMERA.width, "height": CAMERA.height, "K": K, "frames": frames}
        (scene / "cameras.json").write_text(json.dumps(content))
    return f"photographs:{folder}"
