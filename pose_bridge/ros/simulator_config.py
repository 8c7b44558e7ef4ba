# SPDX-License-Identifier: Apache-2.0
"""The parameters of the simulator."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from pose_bridge.config import setting
from pose_bridge.errors import ConfigError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.kidnap import Kind
from pose_bridge.simulation.robot import DEFAULT_BUILD, Build

NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """The parameters.

    Raises:
        ConfigError: Values that do not go together, or a word that is not known.
    """

    style_seed: int = setting(1, "furniture, pictures and paper of the rooms", low=0, high=2**31 - 1)
    room_seed: int = setting(0, "where these are in the room that is mapped", low=0, high=2**31 - 1)
    stranger_seed: int = setting(1, "the same of the room that is never mapped", low=0, high=2**31 - 1)
    seed: int = setting(
        1, "the robot's ways, its wheels' errors and its camera's noise", low=0, high=2**31 - 1
    )
    story: str = setting("tour", "tour: map, then wait for ~/kidnap; kidnap: do both; none: obey cmd_vel")
    kidnap: str = setting("opposite", "where the robot is set down: opposite, or same_side")
    speed: float = setting(1.0, "seconds of the story in one second; not 1 needs `clock`", low=0.1, high=20.0)
    clock: bool = setting(False, "publish /clock, for nodes with use_sim_time; stamps are then the story's")
    listeners: int = setting(0, "begin when so many listen to pictures and odometry", low=0, high=100)
    rate_hz: float = setting(10.0, "pictures per second of the story", low=0.1, high=200.0)
    odometry_hz: float = setting(50.0, "reports of odometry per second of the story", low=5.0, high=200.0)
    width: int = setting(320, "of the pictures, pixels", low=32, high=1920)
    height: int = setting(240, "of the pictures, pixels", low=32, high=1080)
    depth: bool = setting(False, "publish depth with each picture")
    transport: str = setting("raw", "raw: image; compressed: image/compressed; both")
    reliability: str = setting("reliable", "of pictures and odometry: reliable or best_effort")
    queue_depth: int = setting(10, "pictures and odometry that may queue", low=1, high=1000)

    def __post_init__(self) -> None:
        _one_of("story", self.story, ("tour", "kidnap", "none"))
        _one_of("kidnap", self.kidnap, tuple(kind.name.lower() for kind in Kind))
        _one_of("transport", self.transport, ("raw", "compressed", "both"))
        _one_of("reliability", self.reliability, ("reliable", "best_effort"))
        if self.rate_hz > self.odometry_hz:
            raise ConfigError(
                f"rate_hz must not exceed odometry_hz, got {self.rate_hz:g} and {self.odometry_hz:g}"
            )
        if self.speed != 1.0 and not self.clock:
            raise ConfigError(
                f"speed {self.speed:g} needs a clock of its own: set clock to true, "
                "and use_sim_time in every node that listens"
            )

    @property
    def tick_ns(self) -> int:
        """Time between two reports of odometry."""
        return round(NS / self.odometry_hz)

    @property
    def tick_s(self) -> float:
        """The same in seconds."""
        return self.tick_ns / NS

    @property
    def build(self) -> Build:
        """The usual robot with a camera of that size and of the usual angle of view."""
        focal_px = DEFAULT_BUILD.camera.K[0, 0] * self.width / DEFAULT_BUILD.camera.width
        camera = Camera.from_focal_px(float(focal_px), self.width, self.height)
        return dataclasses.replace(DEFAULT_BUILD, camera=camera)


def declared(node: Node) -> SimulatorConfig:
    """Declare the parameters, each with its description and range, and return their values."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(SimulatorConfig):
        descriptor = ParameterDescriptor(description=item.metadata["description"], read_only=True)
        low, high = item.metadata["low"], item.metadata["high"]
        if isinstance(item.default, float):
            descriptor.dynamic_typing = True  # `speed: 4` is a fine number of seconds
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif low is not None:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        values[item.name] = node.declare_parameter(item.name, item.default, descriptor).value
    for name in node._parameter_overrides:  # rclpy tells nobody what was not declared
        if "." not in name and not node.has_parameter(name):
            raise ConfigError(f"unknown parameter {name}; known are {', '.join(values)}")
    return SimulatorConfig(**values)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
