# SPDX-License-Identifier: Apache-2.0
"""The bridge in a process of its own, which may die without taking the robot's node with it."""

from pose_bridge.worker.client import ModelsState, WorkerClient, WorkerState

__all__ = ["ModelsState", "WorkerClient", "WorkerState"]
