# SPDX-License-Identifier: Apache-2.0
"""A simulated robot in a furnished room, on real topics: `ros2 run pose_bridge simulator`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry
from rclpy.clock import Clock as NodeClock
from rclpy.clock import ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.timer import Timer
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Empty, Header, String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from pose_bridge.errors import PoseBridgeError
from pose_bridge.ros import cameras, images, poses
from pose_bridge.ros.film import Film, Moment
from pose_bridge.ros.simulator_config import declared
from pose_bridge.simulation import kidnap, playback
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.kidnap import Kind
from pose_bridge.simulation.playback import Drift, Tick
from pose_bridge.simulation.robot import Frame, Place, Robot

NAME = "simulator"
WORLD, ODOM, BASE, CAMERA = "world", "odom", "base_link", "camera_optical_frame"
NS = 1_000_000_000
AHEAD_S = 2.0  # by which a story is rendered ahead of its time
AHEAD_DRIVEN_S = 0.2  # the same when somebody drives, who would not like to wait
CARRY_S = 1.0  # without odometry and pictures, while the robot is carried; it says so half-way
COMMAND_S = 0.5  # for which a command holds
SHORTEST_TIMER_S = 0.005


class Simulator(Node):
    """Publishes what a robot senses while it lives through a story, and the truth beside it.

    Stamps are those of the story, which begins now and goes on at `speed`; where rendering does not keep up,
    it waits. Then `/clock` waits, too; without it, stamps keep to the wall clock and leave a gap.

    Raises:
        PoseBridgeError: Unknown parameters, some that do not go together, or no place for the robot.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        self._film: Film | None = None
        self.config = config = declared(self)
        self._build = config.build
        self._room = Room(config.style_seed, config.room_seed)
        self._drift = Drift(self._build)
        self._command = (0.0, 0.0, 0.0)  # metres and radians per second, until when
        self._kidnapping: kidnap.Kidnapping | None = None
        self._pending: Moment | None = None
        self._pending_ns = 0
        self._begun, self._resume_s = False, 0.0
        self._half_way: Timer | None = None
        self._act = ""
        self._advertise()
        film = self._first_film()
        self._start_s, self._start_ns = time.monotonic(), time.time_ns()
        self._stamp_ns = self._start_ns
        self._play(film)
        self._in_steady_time(max(self.config.tick_s / config.speed, SHORTEST_TIMER_S), self._go_on)

    def destroy_node(self) -> None:
        """Stop rendering, too."""
        if self._film is not None:
            self._film.stop()
        super().destroy_node()

    # --- topics

    def _advertise(self) -> None:
        config = self.config
        sensed = QoSProfile(
            depth=config.queue_depth, reliability=ReliabilityPolicy[config.reliability.upper()]
        )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        raw, compressed = config.transport in {"raw", "both"}, config.transport in {"compressed", "both"}
        self._image = self.create_publisher(Image, "image", sensed) if raw else None
        self._compressed = (
            self.create_publisher(CompressedImage, "image/compressed", sensed) if compressed else None
        )
        self._info = self.create_publisher(CameraInfo, "camera_info", sensed)
        self._depth = self.create_publisher(Image, "depth", sensed) if config.depth else None
        self._odom = self.create_publisher(Odometry, "odom", sensed)
        self._kidnapped = self.create_publisher(Empty, "pose_bridge/kidnapped", 10)
        self._truth = self.create_publisher(PoseStamped, "~/truth", 10)
        self._acts = self.create_publisher(String, "~/act", latched)
        self._clock_out = self.create_publisher(Clock, "/clock", 10) if config.clock else None
        self._tf = self.create_publisher(TFMessage, "/tf", 100)
        self._tf_static = self.create_publisher(TFMessage, "/tf_static", latched)
        mount = poses.to_transform(self._build.T_base_camera, 0, BASE, CAMERA)
        self._tf_static.publish(poses.to_tf([mount]))
        self.create_service(Trigger, "~/kidnap", self._on_kidnap)
        self.create_service(Trigger, "~/stranger", self._on_stranger)
        if config.story == "none":
            self.create_subscription(Twist, "cmd_vel", self._on_command, 10)

    # --- the story

    def _first_film(self) -> Film:
        config = self.config
        if config.story == "none":
            return self._driven(self._room, config.seed)
        self._kidnapping = kidnap.kidnap(self._room, config.seed, Kind[config.kidnap.upper()], self._build)
        return Film(playback.told(self._kidnapping.mapping, self.config.tick_s), config, AHEAD_S)

    def _driven(self, room: Room, seed: int) -> Film:
        places = room.free_places()
        rng = np.random.default_rng([9, seed])
        x_m, y_m = places[rng.integers(len(places))]
        place = Place(float(x_m), float(y_m), float(rng.uniform(-np.pi, np.pi)))
        robot = Robot(room, place, seed, self._build)
        return Film(playback.driven(robot, self.config.tick_s, self._commanded), self.config, AHEAD_DRIVEN_S)

    def _stranger(self) -> Iterator[Tick]:
        """Furnishes the room when the first moment is asked for: in the thread that renders."""
        room = Room(self.config.style_seed, self.config.stranger_seed)
        yield from playback.told(kidnap.stranger(room, self.config.seed, self._build), self.config.tick_s)

    def _on_kidnap(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._kidnap()
        response.success, response.message = True, "it is being carried to another place"
        return response

    def _on_stranger(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._carry(Film(self._stranger(), self.config, AHEAD_S), "stranger")
        response.success, response.message = True, "it is being carried to a room that it never saw"
        return response

    def _kidnap(self) -> None:
        if self._kidnapping is None:
            self._carry(self._driven(self._room, int(time.time_ns() % 2**31)), "kidnapped")
        else:
            frames = self._kidnapping.kidnapped
            self._carry(Film(playback.told(frames, self.config.tick_s), self.config, AHEAD_S), "kidnapped")

    def _carry(self, film: Film, act: str) -> None:
        assert self._film is not None
        self._film.stop()
        self._resume_s = time.monotonic() + CARRY_S
        self._play(film, act)
        if self._half_way is None:
            self._half_way = self._in_steady_time(CARRY_S / 2.0, self._tell)

    def _tell(self) -> None:
        """What was sent before has arrived by now, and what comes later has yet to be sent."""
        self.destroy_timer(self._half_way)
        self._half_way = None
        self._kidnapped.publish(Empty())

    def _play(self, film: Film, act: str = "") -> None:
        self._film, self._pending = film, None
        self._drift = Drift(self._build)
        self._say(act or ("driven" if self._kidnapping is None else "tour"))

    def _say(self, act: str) -> None:
        if act != self._act:
            self._act = act
            self._acts.publish(String(data=act))
            self.get_logger().info(act)

    # --- driving

    def _on_command(self, message: Twist) -> None:
        self._command = (message.linear.x, message.angular.z, time.monotonic() + COMMAND_S)

    def _commanded(self) -> tuple[float, float]:
        speed_mps, turn_radps, until_s = self._command
        return (speed_mps, turn_radps) if time.monotonic() < until_s else (0.0, 0.0)

    # --- time

    def _in_steady_time(self, period_s: float, callback: Callable[[], None]) -> Timer:
        return self.create_timer(period_s, callback, clock=NodeClock(clock_type=ClockType.STEADY_TIME))

    def _now_ns(self) -> int:
        return self._start_ns + int((time.monotonic() - self._start_s) * self.config.speed * NS)

    def _go_on(self) -> None:
        """Publish the moments whose time has come."""
        while (late_ns := self._now_ns() - self._stamp_ns - self.config.tick_ns) >= 0:
            moment = self._film.take() if self._film is not None and self._may_go_on() else None
            if moment is None:
                self._wait(late_ns)
                return
            self._stamp_ns += self.config.tick_ns
            self._publish(moment)

    def _may_go_on(self) -> bool:
        """Whether the robot is not being carried, and its listeners have come; they may leave again."""
        if not self._begun:
            topics = [topic for topic in (self._image, self._compressed, self._odom) if topic is not None]
            counts = [topic.get_subscription_count() for topic in topics]
            self._begun = max(counts[:-1]) >= self.config.listeners <= counts[-1]
        return self._begun and time.monotonic() >= self._resume_s

    def _wait(self, late_ns: int) -> None:
        """Nothing can be published yet."""
        if self._clock_out is None or (self._begun and time.monotonic() < self._resume_s):
            self._stamp_ns += late_ns
        else:
            self._start_ns -= late_ns

    def _publish(self, moment: Moment) -> None:
        header = Header(stamp=poses.to_stamp(self._stamp_ns), frame_id=ODOM)
        if self._clock_out is not None:
            self._clock_out.publish(Clock(clock=header.stamp))
        self._publish_odometry(moment.tick.frame, header)
        if self._pending is not None:  # its picture has odometry before and after it now
            self._publish_picture(self._pending)
        self._pending = moment if moment.image is not None else None
        self._pending_ns = self._stamp_ns
        if moment.tick.over:
            self._end()

    def _end(self) -> None:
        self._say(f"{self._act.removesuffix(', done')}, done")
        if self.config.story == "kidnap" and self._act == "tour, done":
            self._kidnap()

    def _publish_odometry(self, frame: Frame, header: Header) -> None:
        ahead_m, turn_rad = self._drift.add(frame)
        message = Odometry(header=header, child_frame_id=BASE)
        message.pose = poses.to_pose_with_covariance(frame.T_odom_base, self._drift.covariance())
        message.twist.twist.linear.x = ahead_m / self.config.tick_s
        message.twist.twist.angular.z = turn_rad / self.config.tick_s
        self._odom.publish(message)
        self._tf.publish(poses.to_tf([poses.to_transform(frame.T_odom_base, self._stamp_ns, ODOM, BASE)]))

    def _publish_picture(self, moment: Moment) -> None:
        assert moment.image is not None
        stamp = poses.to_stamp(self._pending_ns)
        seen = Header(stamp=stamp, frame_id=CAMERA)
        truth = PoseStamped(header=Header(stamp=stamp, frame_id=WORLD))
        truth.pose = poses.to_pose(moment.tick.frame.T_world_base)
        self._truth.publish(truth)
        self._info.publish(_with_header(cameras.to_camera_info(self._build.camera), seen))
        if self._depth is not None and moment.depth_m is not None:
            self._depth.publish(_with_header(images.encode_depth(moment.depth_m), seen))
        if self._image is not None:
            self._image.publish(_with_header(images.encode(moment.image), seen))
        if self._compressed is not None:
            self._compressed.publish(_with_header(images.encode_compressed(moment.image), seen))


def main() -> None:
    """Run until told to stop; the exit code is 2 if something does not go."""
    rclpy.init()
    try:
        node = Simulator()
        try:
            rclpy.spin(node)
        finally:
            node.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except PoseBridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError:
        if rclpy.ok():
            raise  # else a signal took the context away in the middle of publishing
    finally:
        rclpy.try_shutdown()


def _with_header(message: Any, header: Header) -> Any:
    message.header = header
    return message


if __name__ == "__main__":
    main()
