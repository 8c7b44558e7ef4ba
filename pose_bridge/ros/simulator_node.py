# SPDX-License-Identifier: Apache-2.0
"""A simulated robot in a furnished room, on real topics: `ros2 run pose_bridge simulator`."""

from __future__ import annotations

import dataclasses
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
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

from pose_bridge.config import setting
from pose_bridge.errors import ConfigError, PoseBridgeError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.ros import cameras, images, poses
from pose_bridge.simulation import kidnap, playback
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.kidnap import Kind
from pose_bridge.simulation.playback import Drift, Tick
from pose_bridge.simulation.robot import DEFAULT_BUILD, Build, Frame, Place, Robot

NAME = "simulator"
WORLD, ODOM, BASE, CAMERA = "world", "odom", "base_link", "camera_optical_frame"
NS = 1_000_000_000
AHEAD_S = 2.0  # by which a story is rendered ahead of its time
AHEAD_DRIVEN_S = 0.2  # the same when somebody drives, who would not like to wait
CARRY_S = 1.0  # without odometry and pictures, while the robot is carried; it says so half-way
COMMAND_S = 0.5  # for which a command holds
SHORTEST_TIMER_S = 0.005


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


class Moment(NamedTuple):
    """One tick with what the camera delivered, if anything."""

    tick: Tick
    image: NDArray[np.uint8] | None
    depth_m: NDArray[np.float32] | None


class Film:
    """Renders moments in a thread, ahead of their time.

    Args:
        ticks: One for each `tick_s`.
        config: Of the simulator.
        ahead_s: How far ahead.
    """

    def __init__(self, ticks: Iterator[Tick], config: SimulatorConfig, ahead_s: float) -> None:
        self._ticks, self._config = ticks, config
        self._ready: queue.Queue[Moment | Exception] = queue.Queue(math.ceil(ahead_s / config.tick_s))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> Moment | None:
        """Return the next moment, None if it is not ready.

        Raises:
            PoseBridgeError: The story cannot go on.
        """
        try:
            moment = self._ready.get_nowait()
        except queue.Empty:
            return None
        if isinstance(moment, Exception):
            raise moment
        return moment

    def stop(self) -> None:
        """Render no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for index, tick in enumerate(self._ticks):
                self._put(self._rendered(index, tick))
                if self._stopped.is_set():
                    return
        except Exception as error:
            self._put(error)

    def _rendered(self, index: int, tick: Tick) -> Moment:
        share = self._config.rate_hz * self._config.tick_s
        due = math.floor(index * share) > math.floor((index - 1) * share)
        if not due or not tick.seen:
            return Moment(tick, None, None)
        return Moment(tick, tick.frame.image, tick.frame.depth_m if self._config.depth else None)

    def _put(self, moment: Moment | Exception) -> None:
        while not self._stopped.is_set():
            try:
                return self._ready.put(moment, timeout=0.1)
            except queue.Full:
                continue


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
        self.config = config = _declared(self)
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
    finally:
        rclpy.try_shutdown()


def _declared(node: Node) -> SimulatorConfig:
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


def _with_header(message: Any, header: Header) -> Any:
    message.header = header
    return message


if __name__ == "__main__":
    main()
