# SPDX-License-Identifier: Apache-2.0
"""Cameras in and out of sensor_msgs/CameraInfo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from pose_bridge.errors import BadCameraError
from pose_bridge.geometry.cameras import COEFFICIENTS, Camera


def to_camera(message: CameraInfo, *, rectified: bool = False) -> Camera:
    """Return the camera of the images that a sensor_msgs/CameraInfo is sent with, binning and ROI applied.

    Args:
        message: Raw images have K and D, rectified ones P.
        rectified: Whether the images are.

    Raises:
        BadCameraError: Not calibrated, not finite, or of a distortion model that is not understood.

    Source: the comments in sensor_msgs/CameraInfo: offsets are in full-resolution pixels, before binning.
    """
    K = np.reshape(message.p, (3, 4))[:, :3] if rectified else np.reshape(message.k, (3, 3))
    model, distortion = ("none", np.zeros(0)) if rectified else _distortion(message)
    full = Camera.from_opencv(
        K, distortion, width=message.width, height=message.height, distortion_model=model
    )
    x, y = max(1, message.binning_x), max(1, message.binning_y)
    roi = message.roi
    width, height = (roi.width or full.width) // x, (roi.height or full.height) // y
    return full.crop(roi.x_offset, roi.y_offset, width * x, height * y).resize(width, height)


def to_camera_info(camera: Camera) -> CameraInfo:
    """Return a camera as a message without a header, for raw images."""
    K = camera.to_opencv_K()
    model = "plumb_bob" if camera.distortion_model == "none" else camera.distortion_model
    distortion = np.zeros(5) if camera.distortion_model == "none" else camera.distortion
    P = np.hstack([K, np.zeros((3, 1))])
    return CameraInfo(
        width=camera.width,
        height=camera.height,
        distortion_model=model,
        d=distortion.tolist(),
        k=K.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=P.ravel().tolist(),
    )


def refuse_size(image: NDArray[np.uint8], camera: Camera) -> None:
    """Check that a camera_info belongs to images of this size.

    Raises:
        BadCameraError: It does not.
    """
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise BadCameraError(
            f"camera_info is for {camera.width}x{camera.height} images, the image is {width}x{height}; "
            "send the camera_info of this very topic (an image that was resized has one of its own)"
        )


def _distortion(message: CameraInfo) -> tuple[str, NDArray[np.float64]]:
    """Return the model and as many coefficients as it has; drivers add zeros, or send nothing but zeros."""
    model, coefficients = message.distortion_model, np.asarray(message.d, dtype=np.float64)
    if model != "equidistant" and not coefficients.any():
        return "none", np.zeros(0)
    wanted = COEFFICIENTS.get(model, len(coefficients))
    return model, coefficients if coefficients[wanted:].any() else coefficients[:wanted]
