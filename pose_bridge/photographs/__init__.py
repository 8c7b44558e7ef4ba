# SPDX-License-Identifier: Apache-2.0
"""Photographs on disk and their calibration, read into views."""

from pose_bridge.photographs.calibration import Calibration, camera_from_exif, read_cameras
from pose_bridge.photographs.images import read_image, read_size
from pose_bridge.photographs.reading import Side, Sides, find_context, read_context, read_sides, read_view

__all__ = [
    "Calibration",
    "Side",
    "Sides",
    "camera_from_exif",
    "find_context",
    "read_cameras",
    "read_context",
    "read_image",
    "read_sides",
    "read_size",
    "read_view",
]
