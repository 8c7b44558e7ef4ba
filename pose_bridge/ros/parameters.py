# SPDX-License-Identifier: Apache-2.0
"""The settings of config.py as parameters of a node."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from pose_bridge.config import Config
from pose_bridge.errors import ConfigError

AUTOSTART = "autostart"


def declare(node: Node) -> None:
    """Declare every setting as `group.name`, with its description, range and default, and `autostart`.

    Raises:
        ConfigError: The parameters that the node was started with hold an unknown name in one of our groups,
            or a value of the wrong type or outside its range.
    """
    _refuse_unknown(node)
    for name, kind, item in _settings():
        # `budget_s: 10` is a whole number to ROS, and a fine number of seconds
        descriptor = ParameterDescriptor(
            description=item.metadata["description"], dynamic_typing=kind is float
        )
        low, high = item.metadata["low"], item.metadata["high"]
        if low is not None and kind is float:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        elif low is not None:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        _declare(node, name, item.default, descriptor)
    at_once = "configure and activate at the start; false where a lifecycle manager does"
    _declare(node, AUTOSTART, False, ParameterDescriptor(description=at_once, read_only=True))


def read(node: Node) -> Config:
    """Return the settings as they are now.

    Raises:
        ConfigError: A value of the wrong type, outside its range, or that does not go with another.
    """
    values: dict[str, dict[str, Any]] = {}
    for name, _, _ in _settings():
        group, key = name.split(".")
        values.setdefault(group, {})[key] = node.get_parameter(name).value
    return Config.from_dict(values)


def check(parameters: Sequence[Parameter], may_change: bool) -> SetParametersResult:
    """Say whether settings may be set; they are read when the node is configured."""
    ours = [parameter.name for parameter in parameters if parameter.name in _names()]
    if ours and not may_change:
        reason = f"{', '.join(ours)}: settings are read when the node is configured; clean it up first"
        return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def _declare(node: Node, name: str, default: Any, descriptor: ParameterDescriptor) -> None:
    try:
        node.declare_parameter(name, default, descriptor)
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise ConfigError(str(error)) from error


def _settings() -> Iterator[tuple[str, type, dataclasses.Field[Any]]]:
    """Name, type and declaration of each setting."""
    for group, kind in typing.get_type_hints(Config).items():
        types = typing.get_type_hints(kind)
        for item in dataclasses.fields(kind):
            yield f"{group}.{item.name}", types[item.name], item


def _names() -> set[str]:
    return {name for name, _, _ in _settings()}


def _refuse_unknown(node: Node) -> None:
    """A shared parameter file may hold what is for other nodes, but not in our groups."""
    names = _names()
    groups = {name.split(".")[0] for name in names}
    for name in node._parameter_overrides:  # rclpy tells nobody what was not declared
        if name in names or "." not in name:
            continue
        if name.split(".")[0] in groups:
            raise ConfigError(f"unknown parameter {name}; `pose_bridge config` lists what there is")
        node.get_logger().warning(f"parameter {name} is none of this node's")
