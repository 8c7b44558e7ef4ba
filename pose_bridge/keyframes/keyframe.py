# SPDX-License-Identifier: Apache-2.0
"""A picture that the robot kept, and where it was when it took it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View


@dataclass(frozen=True, kw_only=True, eq=False)
class Keyframe:
    """One kept picture; nobody writes into its arrays.

    Attributes:
        id: Unique among the keyframes that are held together.
        stamp_ns: Time of capture.
        image: uint8 RGB, (H, W, 3).
        camera: Intrinsics of exactly this image.
        camera_id: The camera's own tf frame.
        epoch: Poses by odometry are comparable only within one; a break of odometry starts the next.
        T_odom_base: By odometry at capture, metric, (4, 4); None where there was none.
        way: Metres driven and radians turned by then since odometry last broke, (2,); None where unknown.
        T_base_camera: Where the camera sits on the robot, (4, 4); None where nobody said.
        mask: bool (H, W), True where the picture may be used; None for everywhere.
        depth_m: float32 (H, W), registered to the image; NaN or 0 where unknown.
        T_map_base: (4, 4); None where the robot's place in the map was not known.

    Raises:
        BadImageError, BadCameraError, BadInputError: Something does not fit; the message names the keyframe.
    """

    id: str
    stamp_ns: int
    image: NDArray[np.uint8]
    camera: Camera
    camera_id: str
    epoch: int
    T_odom_base: NDArray[np.float64] | None = None
    way: NDArray[np.float64] | None = None
    T_base_camera: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None
    depth_m: NDArray[np.float32] | None = None
    T_map_base: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        self.view()
        for name in ("T_odom_base", "T_base_camera", "T_map_base"):
            T = getattr(self, name)
            try:
                object.__setattr__(self, name, None if T is None else rigid.rigid(T))
            except BadInputError as error:
                raise BadInputError(f"keyframe {self.id}: {name}: {error}") from error

    @cached_property
    def T_odom_camera(self) -> NDArray[np.float64] | None:
        """By odometry at capture, comparable within the epoch, (4, 4); None where unknown."""
        return _chained(self.T_odom_base, self.T_base_camera)

    @cached_property
    def T_map_camera(self) -> NDArray[np.float64] | None:
        """Camera in the map, (4, 4); None where unknown."""
        return _chained(self.T_map_base, self.T_base_camera)

    def view(self, T_side_camera: NDArray[np.float64] | None = None) -> View:
        """Return the picture as a view of the same id, with the pose that its side of a question uses."""
        return View(
            id=self.id,
            image=self.image,
            camera=self.camera,
            mask=self.mask,
            stamp_ns=self.stamp_ns,
            T_side_camera=T_side_camera,
            depth_m=self.depth_m,
        )


def _chained(
    T_parent_base: NDArray[np.float64] | None, T_base_camera: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    return None if T_parent_base is None or T_base_camera is None else T_parent_base @ T_base_camera
