# SPDX-License-Identifier: Apache-2.0
"""Whether tests of what is not always installed can run here; `make test` insists that they do."""

import importlib
import os

import pytest


def require_ros() -> None:
    """Skip a module where ROS or the messages are missing; fail instead if POSE_BRIDGE_TEST_ALL=1."""
    _require("rclpy", "pose_bridge.msg")


def require_learned() -> None:
    """Skip a module where torch or what belongs to it is missing; fail instead if POSE_BRIDGE_TEST_ALL=1."""
    _require("torch", "diffusers", "transformers", "huggingface_hub", "sentencepiece")


def _require(*modules: str) -> None:
    for module in modules:
        if os.environ.get("POSE_BRIDGE_TEST_ALL") == "1":
            importlib.import_module(module)
        else:
            pytest.importorskip(module, reason="not installed here: make test installs it")
