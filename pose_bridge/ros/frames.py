# SPDX-License-Identifier: Apache-2.0
"""What tf tells us, and what we tell tf."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import ArrayLike, NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from pose_bridge.config import Config, ExtrinsicsConfig, TfConfig
from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations
from pose_bridge.ros import poses
from pose_bridge.ros.conversions import End

log = logging.getLogger(__name__)

Matrix = NDArray[np.float64]
Guard = Callable[[Callable[[], None]], Callable[[], None]]

# REP-103: a body looks along x with z up, a camera's optical frame along z with y down.
R_BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class Frames:
    """Reads from tf where the camera sits and where odometry lies in the map; publishes what is asked for.

    Nothing here waits, and every method may be called from any thread.

    Args:
        node: Listens and publishes.
        config: The groups `frames`, `tf` and `extrinsics`.
        guarded: Makes a timer's callback one that raises nothing.
    """

    def __init__(self, node: Node, config: Config, guarded: Guard = lambda callback: callback) -> None:
        self._names = config.frames
        self._settings = config.tf
        self._T_base_camera = _optical(config.extrinsics) if config.extrinsics.known else None
        self._tf = _listener(node)
        self._map_odom = _MapOdom(node, config, guarded) if config.tf.publish_map_odom else None
        self._pairs = _Pairs(node, config.tf) if config.tf.publish_pairs else None

    def T_base_camera(self, camera_frame: str, stamp_ns: int) -> Matrix | None:
        """Return where a camera sits on the robot at a time, (4, 4), of its optical frame; None if unknown.

        Once tf has the frame, the parameters do not stand in for a moment that tf does not know.
        """
        base = self._names.base
        if self._tf is None or camera_frame == base or not self._tf.connects(base, camera_frame):
            return self._T_base_camera
        return self._tf.lookup(base, camera_frame, stamp_ns)

    def T_map_odom(self, stamp_ns: int, T_odom_base: Matrix | None = None) -> Matrix | None:
        """Return where odometry lies in the map at a time, (4, 4), as others publish it; None if unknown.

        Args:
            stamp_ns: Of a picture.
            T_odom_base: By odometry at that time, where tf has the base in the map but not odometry.
        """
        if self._tf is None or self._map_odom is not None:  # what we published ourselves is no news
            return None
        if self._tf.connects(self._names.map, self._names.odom):
            return self._tf.lookup(self._names.map, self._names.odom, stamp_ns, self._settings.max_age_s)
        T_map_base = self._tf.lookup(self._names.map, self._names.base, stamp_ns)
        if T_map_base is None or T_odom_base is None:
            return None
        return np.asarray(T_map_base @ rigid.inverse(T_odom_base))

    def publish_map_odom(self, T_map_odom: ArrayLike) -> None:
        """Hold map -> odom from now on, if we are to publish it at all.

        Raises:
            BadInputError: Not rigid to 1e-6.
        """
        if self._map_odom is not None:
            self._map_odom.hold(rigid.rigid(T_map_odom))

    def stop_map_odom(self) -> None:
        """Publish map -> odom no longer: odometry broke, or the robot is being looked for."""
        if self._map_odom is not None:
            self._map_odom.hold(None)

    def publish_pair(
        self,
        reference: End,
        target: End,
        T_parent_reference: ArrayLike,
        T_reference_target: ArrayLike,
        parent_frame: str,
    ) -> None:
        """Publish both ends of an accepted answer as frames, fixed at their capture, if that is asked for.

        Args:
            reference: One end.
            target: The other.
            T_parent_reference: The reference camera at capture, by odometry or in the map, (4, 4).
            T_reference_target: The answer, (4, 4), metres.
            parent_frame: Of T_parent_reference: the map's or odometry's.

        Raises:
            BadInputError: Not rigid to 1e-6, or another parent: below the camera's own frame, which moves on
                with the robot, the pair would drive off.
        """
        if self._pairs is None:
            return
        if parent_frame not in {self._names.map, self._names.odom}:
            raise BadInputError(
                f"a pair stands in {self._names.map} or {self._names.odom}, not in {parent_frame!r}"
            )
        self._pairs.publish(reference, target, T_parent_reference, T_reference_target, parent_frame)

    def forget(self) -> None:
        """Forget what tf told and what we told it: the clock jumped, or everything is to be reset."""
        self.stop_map_odom()
        if self._tf is not None:
            self._tf.clear()
        if self._pairs is not None:
            self._pairs.clear()

    def close(self) -> None:
        """Listen and publish no longer."""
        for part in (self._tf, self._map_odom, self._pairs):
            if part is not None:
                part.close()


class _Listener:
    """What tf2_ros hears."""

    def __init__(self, node: Node, tf2_ros: ModuleType) -> None:
        self._unknown: type[Exception] = tf2_ros.TransformException
        self._buffer: Any = tf2_ros.Buffer()
        self._subscriptions: Any = tf2_ros.TransformListener(self._buffer, node)

    def connects(self, parent: str, child: str) -> bool:
        """Whether there was ever a way from one frame to the other."""
        return bool(self._buffer.can_transform(parent, child, Time()))

    def lookup(self, parent: str, child: str, stamp_ns: int, max_age_s: float = 0.0) -> Matrix | None:
        """Return T_parent_child at a time, (4, 4); None where tf does not know it.

        Args:
            parent: One frame.
            child: The other.
            stamp_ns: When.
            max_age_s: How much older than that the newest transform may be that stands in for it.
        """
        if stamp_ns <= 0:  # to tf, this would mean the newest
            return None
        try:
            found = self._buffer.lookup_transform(parent, child, Time(nanoseconds=stamp_ns))
        except self._unknown:
            found = self._newest(parent, child, stamp_ns, max_age_s)
        return None if found is None else poses.transform_to_matrix(found.transform)

    def _newest(self, parent: str, child: str, stamp_ns: int, max_age_s: float) -> TransformStamped | None:
        try:
            newest = self._buffer.lookup_transform(parent, child, Time())
        except self._unknown:
            return None
        age_ns = stamp_ns - poses.from_stamp(newest.header.stamp)
        return newest if 0 <= age_ns <= max_age_s * 1e9 else None

    def clear(self) -> None:
        self._buffer.clear()

    def close(self) -> None:
        self._subscriptions.unregister()


class _MapOdom:
    """Publishes map -> odom again and again, as tf needs it, while there is one to hold."""

    def __init__(self, node: Node, config: Config, guarded: Guard) -> None:
        self._node = node
        self._tell = guarded(self._publish)
        self._names = config.frames
        self._tolerance = Duration(seconds=config.tf.tolerance_s)
        self._lock = threading.Lock()
        self._T_map_odom: Matrix | None = None
        self._publisher: Publisher | None = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
        self._timer = node.create_timer(1.0 / config.tf.rate_hz, self._tell)

    def hold(self, T_map_odom: Matrix | None) -> None:
        with self._lock:
            self._T_map_odom = T_map_odom
        self._tell()

    def close(self) -> None:
        with self._lock:
            self._node.destroy_timer(self._timer)
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    def _publish(self) -> None:
        stamp_ns = (self._node.get_clock().now() + self._tolerance).nanoseconds
        with self._lock:
            if self._publisher is not None and self._T_map_odom is not None:
                transform = poses.to_transform(self._T_map_odom, stamp_ns, self._names.map, self._names.odom)
                self._publisher.publish(poses.to_tf([transform]))


class PairTree:
    """Frames of pairs, each with one parent, as tf demands.

    Args:
        prefix: Frames are called PREFIX/ID.
        max_frames: Beyond it the oldest go; what stands in them then stands in their parent.
    """

    def __init__(self, prefix: str, max_frames: int) -> None:
        self._prefix = prefix
        self._max_frames = max_frames
        self._edges: dict[str, TransformStamped] = {}  # by child, oldest first

    def add(
        self,
        reference: End,
        target: End,
        T_parent_reference: ArrayLike,
        T_reference_target: ArrayLike,
        parent_frame: str,
    ) -> None:
        """Add a pair; a reference that is there already stays where it is, so that chains of answers hold.

        A target that its reference stands in already stays as well: frames cannot stand in each other.

        Raises:
            BadInputError: Not rigid to 1e-6, or both ends are one.
        """
        first, second = (f"{self._prefix}/{end.id}" for end in (reference, target))
        to_first = poses.to_transform(T_parent_reference, reference.stamp_ns, parent_frame, first)
        to_second = poses.to_transform(T_reference_target, target.stamp_ns, first, second)
        self._edges.setdefault(first, to_first)
        if second not in self._above(first):
            self._edges[second] = to_second
        while len(self._edges) > self._max_frames:
            self._drop(next(iter(self._edges)))

    def clear(self) -> None:
        """Forget all."""
        self._edges = {}

    @property
    def transforms(self) -> list[TransformStamped]:
        """Every frame in its parent."""
        return list(self._edges.values())

    def _above(self, frame: str) -> set[str]:
        found = set()
        while frame in self._edges:
            frame = self._edges[frame].header.frame_id
            found.add(frame)
        return found

    def _drop(self, frame: str) -> None:
        gone = self._edges.pop(frame)
        T_parent_gone, parent = poses.transform_to_matrix(gone.transform), gone.header.frame_id
        for name, edge in self._edges.items():
            if edge.header.frame_id == frame:
                T_parent_child = T_parent_gone @ poses.transform_to_matrix(edge.transform)
                stamp_ns = poses.from_stamp(edge.header.stamp)
                self._edges[name] = poses.to_transform(T_parent_child, stamp_ns, parent, name)


class _Pairs:
    """Publishes all pairs that are known with each new one: late comers hear only the last message."""

    def __init__(self, node: Node, settings: TfConfig) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._tree = PairTree(settings.prefix, settings.max_frames)
        self._publisher: Publisher | None = node.create_publisher(
            TFMessage, "/tf_static", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )

    def publish(self, *pair: Any) -> None:
        with self._lock:
            self._tree.add(*pair)
            self._tell()

    def clear(self) -> None:
        with self._lock:
            self._tree.clear()
            self._tell()

    def close(self) -> None:
        with self._lock:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    def _tell(self) -> None:
        if self._publisher is not None:
            self._publisher.publish(poses.to_tf(self._tree.transforms))


def _listener(node: Node) -> _Listener | None:
    try:
        import tf2_ros
    except ImportError:  # not in every environment: ROS from wheels has none
        log.info("no tf2_ros here: nothing is read from tf")
        return None
    return _Listener(node, tf2_ros)


def _optical(extrinsics: ExtrinsicsConfig) -> Matrix:
    """Return T_base_camera of the optical frame, (4, 4)."""
    turns_rad = np.diag([extrinsics.roll_rad, extrinsics.pitch_rad, extrinsics.yaw_rad])
    about_x, about_y, about_z = (rotations.so3_exp(turn) for turn in turns_rad)
    return rigid.make(
        about_z @ about_y @ about_x @ R_BODY_OPTICAL, [extrinsics.x_m, extrinsics.y_m, extrinsics.z_m]
    )
