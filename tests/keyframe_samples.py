# SPDX-License-Identifier: Apache-2.0
"""Keyframes of a small robot: one camera, looking ahead, half a metre above the floor."""

from typing import Any

import cv2
import numpy as np

from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.keyframes.keyframe import Keyframe

CAMERA = Camera.from_focal_px(80.0, 96, 72)
T_BASE_CAMERA = rigid.make(
    np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.array([0.1, 0.0, 0.5])
)
BLANK = np.zeros((72, 96, 3), np.uint8)
SECOND_NS = 10**9


def planar(x_m: float, y_m: float, yaw_deg: float = 0.0) -> np.ndarray:
    """T_world_base on the floor."""
    return rigid.make(rotations.so3_exp(np.radians([0.0, 0.0, yaw_deg])), np.array([x_m, y_m, 0.0]))


def keyframe(name: object, T_odom_base: np.ndarray | None = None, **known: Any) -> Keyframe:
    number = int(name) if isinstance(name, int) else 0
    return Keyframe(
        **{
            "id": str(name),
            "stamp_ns": number * SECOND_NS,
            "image": BLANK,
            "camera": CAMERA,
            "camera_id": "camera_optical_frame",
            "epoch": 0,
            "T_odom_base": T_odom_base,
            "T_base_camera": T_BASE_CAMERA,
            **known,
        }
    )


def ids(keyframes: list[Keyframe]) -> list[str]:
    return [keyframe.id for keyframe in keyframes]


def texture(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Blots of all sizes, RGB."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for sigma in (0.8, 1.5, 3.0, 6.0, 12.0):
        total += sigma * cv2.GaussianBlur(rng.normal(0.0, 1.0, (height, width)), (0, 0), sigma)
    total = 127 + 50 * total / total.std()
    return np.repeat(np.clip(total, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
