# SPDX-License-Identifier: Apache-2.0
"""Puts together what belongs to one picture: calibration, odometry, depth, mask, the camera's place."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from pose_bridge.config import ImageConfig
from pose_bridge.errors import BadCameraError, BadImageError, PoseBridgeError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.ros import cameras, images, poses
from pose_bridge.session import Picture, Session

MOST_WAITING = 60
MOST_DEPTHS = 10
NS = 1e9


class Listener(Protocol):
    """Who wants to know what became of pictures (`diagnostics.Health`)."""

    def kept(self, why_not: str) -> None:
        """A picture became a keyframe, or why it did not."""
        ...

    def failed(self, topic: str, error: Exception) -> None:
        """A message could not be used."""
        ...


@dataclass(frozen=True)
class _Waiting:
    message: Image | CompressedImage
    stamp_ns: int
    until_s: float


class Intake:
    """Pictures wait here until odometry reaches their moment; for as many threads as like to bring something.

    Args:
        settings: Topics and patience.
        session: Gets the pictures.
        T_base_camera: Where a camera sits at a time, by its frame: (4, 4) or None.
        listener: Is told what became of each.
    """

    def __init__(
        self,
        settings: ImageConfig,
        session: Session,
        T_base_camera: Callable[[str, int], NDArray[np.float64] | None],
        listener: Listener,
    ) -> None:
        self._settings = settings
        self._session = session
        self._T_base_camera = T_base_camera
        self._listener = listener
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque(maxlen=MOST_WAITING)
        self._depths: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=MOST_DEPTHS)
        self._mask: NDArray[np.bool_] | None = None
        self._info: CameraInfo | None = None
        self._camera: Camera | None = None

    def image(self, message: Image | CompressedImage, now_s: float) -> None:
        """Take a picture."""
        stamp_ns = poses.from_stamp(message.header.stamp)
        with self._lock:
            self._waiting.append(_Waiting(message, stamp_ns, now_s + self._settings.patience_s))
        self.flush(now_s)

    def camera_info(self, message: CameraInfo) -> None:
        """Take a calibration; it is for all pictures from now on."""
        with self._lock:
            if self._info is not None and _same(message, self._info):
                return
            self._info, self._camera = message, None
        try:
            camera = cameras.to_camera(message, rectified=self._settings.rectified)
        except PoseBridgeError as error:
            self._listener.failed("camera_info", error)
            return
        with self._lock:
            self._camera = camera

    def depth(self, message: Image) -> None:
        """Take a depth image."""
        try:
            depth_m = images.decode_depth(message)
        except PoseBridgeError as error:
            self._listener.failed("depth", error)
            return
        with self._lock:
            self._depths.append((poses.from_stamp(message.header.stamp), depth_m))

    def mask(self, message: Image) -> None:
        """Take a mask; it is for all pictures from now on."""
        try:
            usable = images.decode_mask(message)
        except PoseBridgeError as error:
            self._listener.failed("mask", error)
            return
        with self._lock:
            self._mask = usable

    def clear(self) -> None:
        """Drop what waits: the clock jumped."""
        with self._lock:
            self._waiting.clear()
            self._depths.clear()

    def flush(self, now_s: float) -> None:
        """Hand on the pictures that are complete, or have waited long enough."""
        while (ready := self._next(now_s)) is not None:
            try:
                self._listener.kept(self._session.see(self._picture(ready)))
            except PoseBridgeError as error:
                self._listener.failed("image", error)

    def _next(self, now_s: float) -> _Waiting | None:
        newest = self._session.odometry.newest
        with self._lock:
            if not self._waiting:
                return None
            first = self._waiting[0]
            complete = newest is not None and newest[0] >= first.stamp_ns
            complete = complete and (
                not self._settings.use_depth or self._depth_at(first.stamp_ns) is not None
            )
            complete = complete and (not self._settings.use_mask or self._mask is not None)
            if complete or now_s >= first.until_s or len(self._waiting) == MOST_WAITING:
                return self._waiting.popleft()
        return None

    def _picture(self, ready: _Waiting) -> Picture:
        compressed = self._settings.transport == "compressed"
        image = images.decode_compressed(ready.message) if compressed else images.decode(ready.message)
        with self._lock:
            camera, mask, depth_m = self._camera, self._mask, self._depth_at(ready.stamp_ns)
        if camera is None:
            raise BadCameraError("no usable camera_info came yet")
        cameras.refuse_size(image, camera)
        if mask is not None and mask.shape != image.shape[:2]:
            (rows, columns), (height, width) = mask.shape, image.shape[:2]
            raise BadImageError(f"the mask is {columns}x{rows}, pictures are {width}x{height}")
        frame = ready.message.header.frame_id
        return Picture(
            stamp_ns=ready.stamp_ns,
            image=image,
            camera=camera,
            camera_id=frame,
            T_base_camera=self._T_base_camera(frame, ready.stamp_ns),
            mask=mask,
            depth_m=depth_m,
        )

    def _depth_at(self, stamp_ns: int) -> NDArray[np.float32] | None:
        if not self._settings.use_depth or not self._depths:
            return None
        apart_ns, depth_m = min(
            ((abs(at_ns - stamp_ns), depth) for at_ns, depth in self._depths), key=lambda d: d[0]
        )
        return depth_m if apart_ns <= self._settings.sync_tolerance_s * NS else None


def _same(a: CameraInfo, b: CameraInfo) -> bool:
    """Whether two calibrations are the same but for their time."""
    names = ("width", "height", "distortion_model", "binning_x", "binning_y", "roi", "d")
    arrays = ("k", "p")
    return all(getattr(a, name) == getattr(b, name) for name in names) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays
    )
