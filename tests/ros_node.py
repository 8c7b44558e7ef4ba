# SPDX-License-Identifier: Apache-2.0
"""The node as a real process, and all who talk to it over real DDS."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Log
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot_world import CAMERA, picture
from ros_numbers import finite_numbers, undue_numbers
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Empty
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from pose_bridge.action import EstimateRelativePose, Relocalize
from pose_bridge.errors import ErrorCode
from pose_bridge.msg import LoopClosureCandidate, RelativePose
from pose_bridge.msg import View as ViewMessage
from pose_bridge.ros import cameras, images, poses
from pose_bridge.ros.executor import NodeExecutor
from pose_bridge.srv import MapFile, SetMapPose

TESTS = Path(__file__).parent
MOODY = TESTS / "ros" / "moody_worker.py"
LONG_S = 45.0  # for what must come, on a machine that is busy
SLACK_S = 2.0  # half a second is promised and measured by benchmarks/node_load.py; the machine may be busy
S = 10**9
MANY = QoSProfile(depth=200)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# Quick to restart and to give up; patient with a busy machine.
QUICK = {
    "worker.restart_delay_s": 0.05,
    "worker.heartbeat_s": 0.1,
    "worker.nice": 0,
    "worker.threads": 1,
    "keyframes.min_sharpness": 0.0,
    "extrinsics.known": True,
    "extrinsics.x_m": 0.1,
    "extrinsics.z_m": 0.5,
}


MEETING_S = 0.3  # until both ends of a service know each other; an answer before that is lost


def until(true: Callable[[], Any], within_s: float = LONG_S, every_s: float = 0.01) -> Any:
    """Wait until something is true and return it; what it was, if it takes too long."""
    end_s = time.monotonic() + within_s
    while not (value := true()) and time.monotonic() < end_s:
        time.sleep(every_s)
    return value


class NodeProcess:
    """The node in a process of its own, with a worker that does what `mood` says.

    Args:
        folder: For its files.
        domain: Of DDS.
        parameters: By name, over QUICK.
        arguments: Further ones after --ros-args.
        real: With the worker that a robot has.
    """

    def __init__(
        self,
        folder: Path,
        domain: int,
        parameters: dict[str, object] | None = None,
        arguments: tuple[str, ...] = (),
        real: bool = False,
    ) -> None:
        self.domain = domain
        self._mood, self._log = folder / "mood", folder / "node.log"
        self.mood("at_once")
        given = {**QUICK, "map.directory": str(folder / "maps"), **(parameters or {})}
        if not real:
            given["worker.python_executable"] = str(_moody_python(folder, self._mood))
        pairs = [f"{name}:={_yaml(value)}" for name, value in given.items()]
        options = [option for pair in pairs for option in ("-p", pair)]
        environment = {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_LOG_DIR": str(folder / "log"),
            "PYTHONWARNINGS": "ignore",
            "PYTHONFAULTHANDLER": "1",
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pose_bridge.ros.node", "--ros-args", *options, *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def mood(self, mood: str) -> None:
        """Say what the worker does to the next questions."""
        written = self._mood.with_suffix(".new")
        written.write_text(mood)
        written.replace(self._mood)  # at no time is there half a mood

    def said(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """Processes that it started and that are alive."""
        return [pid for pid, parent, state in _processes() if parent == self.pid and state != "Z"]

    def end(self, how: int = signal.SIGINT) -> int:
        """Tell it to end, and return its exit code."""
        self.process.send_signal(how)
        try:
            return self.process.wait(LONG_S)
        finally:
            self.process.kill()


def is_gone(pid: int) -> bool:
    return all(pid != other or state == "Z" for other, _, state in _processes())


def _processes() -> Iterator[tuple[int, int, str]]:
    """Number, parent and state of each process."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            yield int(entry.parent.name), int(fields[1]), fields[0]


def _moody_python(folder: Path, mood: Path) -> Path:
    """An interpreter that runs the moody worker, whatever it is told to run."""
    script = folder / "python"
    path = f"{TESTS.parent}:{TESTS}"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" "{MOODY}" "{mood}" "$2"\n')
    script.chmod(0o755)
    return script


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Outcome:
    """How a goal ended."""

    status: int
    result: Any
    feedback: list[Any]

    @property
    def code(self) -> ErrorCode:
        return ErrorCode(self.result.error_code)


class Goal:
    """One that was accepted."""

    def __init__(self, caller: Caller, client: ActionClient, request: Any) -> None:
        self._caller = caller
        self.feedback: list[Any] = []
        sent = client.send_goal_async(request, lambda message: self.feedback.append(message.feedback))
        self.handle = caller.wait(sent)
        assert self.handle.accepted
        self._result = self.handle.get_result_async()

    def runs(self) -> bool:
        """Whether the worker has begun with it."""
        return bool(until(lambda: self.feedback or self._result.done()))

    def cancel(self) -> None:
        self._caller.wait(self.handle.cancel_goal_async())

    @property
    def done(self) -> bool:
        return bool(self._result.done())

    def outcome(self) -> Outcome:
        """Wait for the end; no number of the result or of the feedback is one that it must not hold."""
        reply = self._caller.wait(self._result)
        for message in (reply.result, *self.feedback):
            assert undue_numbers(message) == [], message
        if reply.result.error_code:
            assert reply.result.error_msg
        elif isinstance(reply.result, Relocalize.Result):
            self._caller.accepted["pose_bridge/pose"] += 1
        elif reply.result.relative_pose.status == RelativePose.STATUS_ACCEPTED:
            self._caller.accepted["pose_bridge/relative_pose"] += 1
        return Outcome(reply.status, reply.result, self.feedback)


class Caller:
    """Everybody else in the graph: hears all that the node says, and keeps it.

    Attributes:
        heard: Messages by topic.
        accepted: How many of them there must be, by what goals were told.
    """

    TOPICS = (
        (RelativePose, "pose_bridge/relative_pose", MANY),
        (RelativePose, "pose_bridge/relative_pose_audit", MANY),
        (RelativePose, "pose_bridge/loop_closures", MANY),
        (PoseWithCovarianceStamped, "pose_bridge/pose", MANY),
        (PoseWithCovarianceStamped, "initialpose", MANY),
        (DiagnosticArray, "diagnostics", MANY),
        (TFMessage, "/tf", MANY),
        (TFMessage, "/tf_static", LATCHED),
        (Log, "/rosout", MANY),
    )
    POSES = ("pose_bridge/relative_pose", "pose_bridge/pose", "initialpose", "/tf", "/tf_static")

    def __init__(self, domain: int, namespace: str = "", node: str = "pose_bridge") -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = Node("caller", context=self._context, namespace=namespace, enable_rosout=False)
        self.heard: dict[str, list[Any]] = {}
        self.accepted: Counter[str] = Counter()
        for kind, topic, qos in self.TOPICS:
            self.hear(kind, topic.replace("pose_bridge/", f"{node}/"), qos, topic)
        self._estimate = ActionClient(self.node, EstimateRelativePose, f"{node}/estimate_relative_pose")
        self._relocalize = ActionClient(self.node, Relocalize, f"{node}/relocalize")
        services = {
            "change_state": ChangeState,
            "get_state": GetState,
            "set_map_pose": SetMapPose,
            "save_map": MapFile,
            "load_map": MapFile,
            "clear_map": Trigger,
            "reset": Trigger,
        }
        self._services = {n: self.node.create_client(kind, f"{node}/{n}") for n, kind in services.items()}
        self._publishers = {
            topic: self.node.create_publisher(kind, topic.replace("pose_bridge/", f"{node}/"), MANY)
            for kind, topic in (
                (Image, "image"),
                (CameraInfo, "camera_info"),
                (Odometry, "odom"),
                (Empty, "pose_bridge/kidnapped"),
                (LoopClosureCandidate, "pose_bridge/loop_closure_candidates"),
            )
        }
        self._met: set[str] = set()
        self._executor = NodeExecutor(1, context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def hear(self, kind: type, topic: str, qos: QoSProfile = MANY, name: str = "") -> list[Any]:
        """Keep what comes on a topic."""
        kept = self.heard.setdefault(name or topic, [])
        self.node.create_subscription(kind, topic, kept.append, qos)
        return kept

    def speak(self, kind: type, topic: str) -> None:
        """Be able to say something on one more topic."""
        self._publishers[topic] = self.node.create_publisher(kind, topic, MANY)

    def wait(self, future: Any) -> Any:
        """Return what a future becomes."""
        assert until(future.done), "no answer from the node"
        return future.result()

    def call(self, service: str, request: Any = None) -> Any:
        client = self._services[service]
        assert until(client.service_is_ready), service
        if service not in self._met:  # the server may see the client later than the client sees the server
            time.sleep(MEETING_S)
            self._met.add(service)
        return self.wait(client.call_async(request or client.srv_type.Request()))

    def transition(self, number: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call("change_state", request).success)

    def activate(self) -> None:
        assert self.transition(Transition.TRANSITION_CONFIGURE)
        assert self.transition(Transition.TRANSITION_ACTIVATE)

    def state(self) -> str:
        return str(self.call("get_state").current_state.label)

    def send(self, request: Any) -> Goal:
        client = self._estimate if isinstance(request, EstimateRelativePose.Goal) else self._relocalize
        assert until(client.server_is_ready)
        return Goal(self, client, request)

    def ask(self, request: Any) -> Outcome:
        return self.send(request).outcome()

    def say(self, topic: str, message: Any) -> None:
        """Publish a message, once somebody listens."""
        publisher = self._publishers[topic]
        assert until(publisher.get_subscription_count), topic
        publisher.publish(message)

    def settled(self) -> bool:
        """Whether the topics hold what goals were told was accepted, and nothing else."""
        expected = {**dict.fromkeys(self.POSES, 0), **self.accepted}
        return bool(until(lambda: {topic: len(self.heard[topic]) for topic in self.POSES} == expected))

    def status(self, name: str) -> Any:
        """What /diagnostics said last of one part of the node; None before it said anything."""
        messages = self.heard["diagnostics"]
        for each in messages[-1].status if messages else ():
            if each.name.endswith(f": {name}"):
                return each
        return None

    def check(self) -> None:
        """No message that was heard holds a number that it must not hold."""
        for topic in ("relative_pose", "relative_pose_audit", "loop_closures"):
            for message in self.heard[f"pose_bridge/{topic}"]:
                assert undue_numbers(message) == []
        for message in self.heard["pose_bridge/relative_pose"]:
            assert message.status == RelativePose.STATUS_ACCEPTED
        for message in self.heard["initialpose"]:
            assert poses.amcl_refusal(message) == ""
        for message in self.heard["pose_bridge/pose"]:
            assert message.header.frame_id
            assert len(finite_numbers(message)) == 3 + 4 + 36

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(LONG_S)
        self.node.destroy_node()
        self._context.shutdown()


@contextlib.contextmanager
def calling(node: NodeProcess) -> Iterator[Caller]:
    """Who calls a node, which is active by then; what it published holds afterwards."""
    caller = Caller(node.domain)
    caller.activate()
    yield caller
    caller.check()
    caller.close()


def image(seed: int = 0, stamp_ns: int = S, frame_id: str = "camera") -> Image:
    message = images.encode(picture(seed))
    message.header.stamp, message.header.frame_id = poses.to_stamp(stamp_ns), frame_id
    return message


def view(seed: int = 0, stamp_ns: int = S) -> ViewMessage:
    """A picture with its camera."""
    return ViewMessage(image=image(seed, stamp_ns), camera_info=cameras.to_camera_info(CAMERA))


def pair(**known: Any) -> EstimateRelativePose.Goal:
    """A question about two pictures."""
    return EstimateRelativePose.Goal(reference=view(1), target=view(2, 2 * S), **known)


def odometry(T_odom_base: np.ndarray, stamp_ns: int) -> Odometry:
    message = Odometry()
    message.header.stamp, message.header.frame_id = poses.to_stamp(stamp_ns), "odom"
    message.child_frame_id = "base_link"
    message.pose.pose = poses.to_pose(T_odom_base)
    return message


class Robot:
    """Drives, and tells what it sees and where it is by odometry; its clock runs ahead of nobody's.

    Attributes:
        topics: On which it talks.
        stamp_ns: Of its last picture.
    """

    topics: tuple[str, ...] = ("image", "camera_info", "odom")

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.stamp_ns = time.time_ns() - 100 * S
        self.info = cameras.to_camera_info(CAMERA)

    def greet(self) -> None:
        """Go on until it is heard: best effort loses what comes before both sides have met."""

        def received(topic: str) -> float:
            status = self._caller.status(topic)
            return 0.0 if status is None else float({v.key: v.value for v in status.values}["received"])

        assert until(lambda: self.step(np.eye(4), 0) and all(map(received, self.topics)), every_s=0.1)

    def step(self, T_odom_base: np.ndarray, seed: int, picture: Image | None = None) -> int:
        """Half a second later: a picture amid reports of odometry, as one may be lost; returns its stamp."""
        self.stamp_ns += S // 2
        self.move(T_odom_base, self.stamp_ns - S // 10)
        self.move(T_odom_base, self.stamp_ns - S // 20)
        self._caller.say("camera_info", self.info)
        seen = image(seed) if picture is None else picture
        seen.header.stamp = poses.to_stamp(self.stamp_ns)
        self.show(seen)
        self.move(T_odom_base, self.stamp_ns + S // 20)
        self.move(T_odom_base, self.stamp_ns + S // 10)
        return self.stamp_ns

    def show(self, seen: Image) -> None:
        self._caller.say("image", seen)

    def move(self, T_odom_base: np.ndarray, stamp_ns: int) -> None:
        self._caller.say("odom", odometry(T_odom_base, stamp_ns))
