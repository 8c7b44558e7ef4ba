# SPDX-License-Identifier: Apache-2.0
"""A robot in a furnished room: a camera, wheels whose odometry drifts, and the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation import optics
from pose_bridge.simulation.furnished import Room, planar
from pose_bridge.simulation.optics import Optics
from pose_bridge.simulation.render import Picture
from pose_bridge.simulation.surfaces import Image

# optical axes (x right, y down, z forward) in a body's (x forward, y left, z up)
R_BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
DEFAULT_OPTICS = Optics()


class Place(NamedTuple):
    """Where the base is on the floor."""

    x_m: float
    y_m: float
    yaw_rad: float

    def moved(self, distance_m: float, turn_rad: float) -> Place:
        """After an arc of that length and turn."""
        chord_m = distance_m * np.sinc(turn_rad / (2.0 * np.pi))
        heading_rad = self.yaw_rad + turn_rad / 2.0
        return Place(
            float(self.x_m + chord_m * np.cos(heading_rad)),
            float(self.y_m + chord_m * np.sin(heading_rad)),
            float(self.yaw_rad + turn_rad),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How the robot is made.

    Attributes:
        camera: Intrinsics.
        optics: How good the camera is.
        camera_forward_m: Of the base's middle.
        camera_height_m: Over the floor.
        camera_pitch_rad: Positive looks down.
        distance_sigma: Relative error of all distances together: wheels of another size.
        turn_sigma: The same of turns.
        distance_noise_m: Standard deviation of the distance after one metre; it grows with the root.
        yaw_noise_rad: The same of the yaw.
        turn_noise_rad: Standard deviation of the yaw after a turn of one radian; it grows with the root.
    """

    camera: Camera
    optics: Optics = DEFAULT_OPTICS
    camera_forward_m: float = 0.1
    camera_height_m: float = 0.7
    camera_pitch_rad: float = 0.05
    distance_sigma: float = 0.01
    turn_sigma: float = 0.01
    distance_noise_m: float = 0.01
    yaw_noise_rad: float = 0.01
    turn_noise_rad: float = 0.01

    @property
    def T_base_camera(self) -> Array:
        """Base x forward, y left, z up on the floor; camera optical, (4, 4)."""
        R = rotations.so3_exp(np.array([0.0, self.camera_pitch_rad, 0.0])) @ R_BODY_OPTICAL
        return rigid.make(R, np.array([self.camera_forward_m, 0.0, self.camera_height_m]))


DEFAULT_BUILD = Build(camera=Camera.from_focal_px(277.0, 320, 240))


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of the robot; what the camera sees is rendered when it is first asked for.

    Attributes:
        stamp_ns: Time of capture.
        room: Where it was taken.
        build: Of the robot.
        T_world_base: The truth, (4, 4).
        T_odom_base: By odometry, (4, 4).
        odometry: Counts the odometry's frames; poses of two frames are not comparable.
        turn_radps: Of the base, to the left.
        seed: Of the camera's noise.
    """

    stamp_ns: int
    room: Room
    build: Build
    T_world_base: Array
    T_odom_base: Array
    odometry: int
    turn_radps: float
    seed: tuple[int, ...]

    @property
    def camera(self) -> Camera:
        """Intrinsics of the image."""
        return self.build.camera

    @property
    def T_base_camera(self) -> Array:
        """Where the camera sits, (4, 4)."""
        return self.build.T_base_camera

    @property
    def T_world_camera(self) -> Array:
        """The truth, (4, 4)."""
        return self.T_world_base @ self.T_base_camera

    @property
    def T_odom_camera(self) -> Array:
        """By odometry, (4, 4)."""
        return self.T_odom_base @ self.T_base_camera

    @property
    def depth_m(self) -> NDArray[np.float32]:
        """The true depth, float32 (H, W)."""
        return self._perfect.depth_m

    @cached_property
    def image(self) -> Image:
        """uint8 RGB, (H, W, 3)."""
        turn = self.T_base_camera[:3, :3].T @ np.array([0.0, 0.0, self.turn_radps])
        seed = list(self.seed)
        return optics.photograph(self._perfect.image, self.camera, self.build.optics, turn, seed)

    @cached_property
    def _perfect(self) -> Picture:
        if self.camera.distortion_model == "none":
            return self.room.picture(self.T_world_camera, self.camera)
        ideal = self.room.picture(self.T_world_camera, optics.pinhole(self.camera))
        return optics.distorted(ideal, self.camera)


class Robot:
    """Drives where it is told to, unless something is in the way.

    Args:
        room: Where it is.
        place: Where it stands there.
        seed: Of its odometry and its camera.
        build: How it is made.
        stamp_ns: The time.

    Raises:
        BadInputError: Something else stands there.
    """

    def __init__(
        self,
        room: Room,
        place: Place,
        seed: int,
        build: Build = DEFAULT_BUILD,
        stamp_ns: int = 0,
    ) -> None:
        self._room, self._build, self._seed = room, build, seed
        self._rng = np.random.default_rng([2, seed])
        errors = self._rng.standard_normal(2) * (build.distance_sigma, build.turn_sigma)
        self._distance_scale, self._turn_scale = 1.0 + errors
        self._stamp_ns = stamp_ns
        self._odometry = -1
        self.put(place)

    @property
    def place(self) -> Place:
        """Where it really is."""
        return self._place

    @property
    def blocked(self) -> bool:
        """Whether something was in the way of the last step."""
        return self._blocked

    def put(self, place: Place) -> None:
        """Carry it elsewhere; its odometry starts anew.

        Raises:
            BadInputError: Something else stands there.
        """
        if not self._room.is_free(place.x_m, place.y_m):
            raise BadInputError(f"no place for a robot at {place.x_m:.2f}, {place.y_m:.2f} m")
        self._place, self._estimate = place, Place(0.0, 0.0, 0.0)
        self._odometry += 1
        self._turn_radps, self._blocked = 0.0, False

    def step(self, dt_s: float, speed_mps: float, turn_radps: float) -> None:
        """Drive an arc; where something is in the way it only turns."""
        distance_m, turn_rad = dt_s * speed_mps, dt_s * turn_radps
        there = self._place.moved(distance_m, turn_rad)
        self._blocked = not self._room.is_free(there.x_m, there.y_m)
        if self._blocked:
            distance_m = 0.0
        self._place = self._place.moved(distance_m, turn_rad)
        self._estimate = self._estimate.moved(*self._measured(distance_m, turn_rad))
        self._turn_radps = turn_radps
        self._stamp_ns += round(dt_s * 1e9)

    def frame(self) -> Frame:
        """What it sees and believes now."""
        return Frame(
            stamp_ns=self._stamp_ns,
            room=self._room,
            build=self._build,
            T_world_base=planar(*self._place),
            T_odom_base=planar(*self._estimate),
            odometry=self._odometry,
            turn_radps=self._turn_radps,
            seed=(3, self._seed, self._stamp_ns),
        )

    def _measured(self, distance_m: float, turn_rad: float) -> tuple[float, float]:
        """What the wheels say of a step."""
        build, noise = self._build, self._rng.standard_normal(3)
        length, angle = abs(distance_m) ** 0.5, abs(turn_rad) ** 0.5
        return (
            self._distance_scale * distance_m + noise[0] * build.distance_noise_m * length,
            self._turn_scale * turn_rad
            + noise[1] * build.turn_noise_rad * angle
            + noise[2] * build.yaw_noise_rad * length,
        )
