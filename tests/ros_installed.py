# SPDX-License-Identifier: Apache-2.0
"""Whether the tests of pose_bridge.ros can run here; `make test` insists that they do."""

import importlib
import os

import pytest


def require_ros() -> None:
    """Skip a module where ROS or the messages are missing; fail instead if POSE_BRIDGE_TEST_ROS=1."""
    for module in ("rclpy", "pose_bridge.msg"):
        if os.environ.get("POSE_BRIDGE_TEST_ROS") == "1":
            importlib.import_module(module)
        else:
            pytest.importorskip(module, reason="no ROS here: make test installs it")
