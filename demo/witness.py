# SPDX-License-Identifier: Apache-2.0
"""The demo's own ROS node: it sees what the robot really does, and asks pose_bridge where it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import Empty, String
from std_srvs.srv import Trigger

from pose_bridge.action import Relocalize
from pose_bridge.geometry import rigid
from pose_bridge.ros import images, poses
from pose_bridge.ros.executor import NodeExecutor
from pose_bridge.srv import MapFile, SetMapPose

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MANY = QoSProfile(depth=200)


class Witness(Node):
    """Remembers everything by its stamp in nanoseconds; spins in a thread of its own.

    Attributes:
        truth: T_world_base of every picture, (4, 4).
        odometry: T_odom_base, (4, 4).
        pictures: RGB, (H, W, 3).
        carried_ns: Newest stamp when the robot was carried away, each time.
        acts: What the simulator said of its story, in order.
        strips: Views that bridged, as pose_bridge shows them, RGB.
        mapping: Whether to tell the node where odometry lies in the map, as a SLAM system does that maps.
        placed: The node's answers to that, to come.
    """

    def __init__(self) -> None:
        super().__init__("witness")
        self.truth: dict[int, np.ndarray] = {}
        self.odometry: dict[int, np.ndarray] = {}
        self.pictures: dict[int, np.ndarray] = {}
        self.carried_ns: list[int] = []
        self.acts: list[str] = []
        self.strips: dict[int, np.ndarray] = {}
        self.mapping = False
        self.placed: list[Future] = []
        self._unplaced: list[int] = []
        self._hear(PoseStamped, "simulator/truth", self._on_truth)
        self._hear(Odometry, "odom", self._on_odometry)
        self._hear(Image, "image", lambda m: self.pictures.update({_stamp_ns(m): images.decode(m)}))
        self._hear(Image, "pose_bridge/bridge_views", self._on_strip)
        self._hear(Empty, "pose_bridge/kidnapped", lambda m: self.carried_ns.append(max(self.truth)))
        self._hear(String, "simulator/act", lambda m: self.acts.append(m.data), LATCHED)
        self.kidnap = self.create_client(Trigger, "simulator/kidnap")
        self.stranger = self.create_client(Trigger, "simulator/stranger")
        self.set_map_pose = self.create_client(SetMapPose, "pose_bridge/set_map_pose")
        self.save_map = self.create_client(MapFile, "pose_bridge/save_map")
        self.relocalize = ActionClient(self, Relocalize, "pose_bridge/relocalize")
        self._executor = NodeExecutor(1)
        self._executor.add_node(self)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def ask_where(self, budget_s: float, on_feedback: Callable[[Any], None]) -> Future:
        """Ask where the robot is; the future holds the goal's handle."""
        goal = Relocalize.Goal(budget_s=budget_s, wait_for_motion=True)
        return self.relocalize.send_goal_async(goal, lambda message: on_feedback(message.feedback))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join(2.0)
        self.destroy_node()

    def _hear(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile = MANY) -> None:
        self.create_subscription(kind, topic, callback, qos)

    def _on_odometry(self, message: Odometry) -> None:
        self.odometry[_stamp_ns(message)] = poses.to_matrix(message.pose.pose)

    def _on_truth(self, message: PoseStamped) -> None:
        stamp_ns = _stamp_ns(message)
        self.truth[stamp_ns] = poses.to_matrix(message.pose)
        if self.mapping and self.set_map_pose.service_is_ready():
            self._unplaced.append(stamp_ns)
            self._place()

    def _place(self) -> None:
        """Odometry of the newest picture may be on its way; that of an older one is there, or was lost."""
        known = [stamp_ns for stamp_ns in self._unplaced if stamp_ns in self.odometry]
        if not known:
            return
        stamp_ns = known[-1]
        self._unplaced = [later_ns for later_ns in self._unplaced if later_ns > stamp_ns]
        T_map_odom = self.truth[stamp_ns] @ rigid.inverse(self.odometry[stamp_ns])
        transform = poses.to_transform(T_map_odom, stamp_ns, "map", "odom")
        self.placed.append(self.set_map_pose.call_async(SetMapPose.Request(map_odom=transform)))

    def _on_strip(self, message: Image) -> None:
        self.strips[_stamp_ns(message)] = images.decode(message)


def _stamp_ns(message: Any) -> int:
    return poses.from_stamp(message.header.stamp)


def start() -> Witness:
    """Join the graph; Ctrl-C stays with the demo."""
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    return Witness()
