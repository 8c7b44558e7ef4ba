# SPDX-License-Identifier: Apache-2.0
"""What the node bears: a camera at full rate, goals back to back, and cancels at any moment.

    python benchmarks/node_load.py [--full] [--seed 0]

A process of its own publishes 640x480 pictures at 30 Hz with odometry, first best effort and then reliable,
with config/fastdds.xml on both sides. Meanwhile the node, in another process, is asked about pictures that a
goal brings along and about keyframes named by their time, and every second goal is cancelled at a random
moment. Counted are pictures that the node received of those that were published, the time from a cancel to
CANCELED, memory once the buffer of keyframes is full, what a goal takes beside its bridge, and what the node
takes of a core where nobody asks. Needs ROS.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rclpy
import report
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import Odometry
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from pose_bridge.action import EstimateRelativePose
from pose_bridge.geometry.cameras import Camera
from pose_bridge.msg import View
from pose_bridge.ros import cameras, images, poses
from pose_bridge.simulation.furnished import Room, planar
from pose_bridge.simulation.robot import DEFAULT_BUILD

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "config" / "fastdds.xml"
WIDTH, HEIGHT, RATE_HZ = 640, 480, 30.0
CAMERA: Camera = DEFAULT_BUILD.camera.resize(WIDTH, HEIGHT)
PICTURES = 36
TURN_DEG_S = 40.0
KEYFRAMES = 40
BUDGET_S = 1.0
WARM_S = 20.0  # after which memory counts: rclpy keeps goals that ended for 10 s
STARTS = 3  # beside those of the two runs
SETTLE_S = 2.0  # for what is on its way
LISTEN_S = 10.0  # without a goal
PATIENCE_S = 60.0
NS = 10**9
RELIABILITIES = ("best_effort", "reliable")
SETTINGS = {
    "autostart": "true",
    "keyframes.max_count": KEYFRAMES,
    "keyframes.min_sharpness": 0.0,
    "keyframes.stamp_tolerance_s": 2.0,
    "bridge.budget_s": BUDGET_S,
}


# --- the camera, a process of its own


def render(folder: Path, seed: int) -> None:
    """Write what a robot sees that turns on the spot."""
    room = Room(style_seed=seed, room_seed=0)
    places = room.free_places()
    x_m, y_m = places[np.argmin(np.linalg.norm(places - room.size_m[:2] / 2.0, axis=1))]
    for index in range(PICTURES):
        T_world_base = planar(x_m, y_m, 2.0 * np.pi * index / PICTURES)
        picture = room.picture(T_world_base @ DEFAULT_BUILD.T_base_camera, CAMERA)
        np.save(folder / f"{index}.npy", picture.image)
        report.progress(index + 1, PICTURES, "rendering")


def load(folder: Path) -> list[Image]:
    """The pictures as messages."""
    messages = [images.encode(np.load(folder / f"{index}.npy")) for index in range(PICTURES)]
    for message in messages:
        message.header.frame_id = "camera"
    return messages


def publish(folder: Path, reliability: str) -> None:
    """Be the camera and the wheels until SIGTERM; print how many pictures were published."""
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    node = Node("camera")
    qos = quality(reliability)
    pictures = node.create_publisher(Image, "image", qos)
    infos = node.create_publisher(CameraInfo, "camera_info", qos)
    wheels = node.create_publisher(Odometry, "odom", 50)
    messages, info = load(folder), cameras.to_camera_info(CAMERA)
    while not all(p.get_subscription_count() for p in (pictures, infos, wheels)) and not ended.is_set():
        time.sleep(0.05)
    time.sleep(SETTLE_S)
    start_s = time.monotonic()
    for count in itertools.count():
        if ended.wait(max(0.0, start_s + count / RATE_HZ - time.monotonic())):
            break
        yaw_deg = TURN_DEG_S * count / RATE_HZ
        message = messages[int(yaw_deg * PICTURES / 360.0) % PICTURES]
        stamp = node.get_clock().now().to_msg()
        message.header.stamp = info.header.stamp = stamp
        infos.publish(info)
        pictures.publish(message)
        odometry = Odometry()
        odometry.header.stamp, odometry.header.frame_id = stamp, "odom"
        odometry.pose.pose = poses.to_pose(planar(0.0, 0.0, np.radians(yaw_deg)))
        wheels.publish(odometry)
    print(count, flush=True)
    time.sleep(SETTLE_S)


def quality(reliability: str) -> QoSProfile:
    """Of pictures."""
    return QoSProfile(depth=10, reliability=getattr(ReliabilityPolicy, reliability.upper()))


# --- the node, and who asks it


@contextlib.contextmanager
def process(*command: object, **more: Any) -> Iterator[subprocess.Popen]:
    """Run something beside this; it ends with the block."""
    started = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, text=True, **more)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        try:
            started.wait(10.0)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def start_node(folder: Path, reliability: str) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """The node, with the profile and that reliability."""
    settings = {**SETTINGS, "image.reliability": reliability, "map.directory": folder}
    options = [option for name, value in settings.items() for option in ("-p", f"{name}:={value}")]
    log = log_of(folder, reliability).open("w")
    return process(
        sys.executable, "-m", "pose_bridge.ros.node", "--ros-args", *options, stdout=log, stderr=log
    )


def log_of(folder: Path, reliability: str) -> Path:
    """What a node prints."""
    return folder / f"node_{reliability}.log"


@dataclass
class Measured:
    """What came out of one run, or of all together."""

    starts_s: list[float] = field(default_factory=list)  # until the node says so itself
    found_active_s: list[float] = field(default_factory=list)  # until a client has heard it
    cancels_s: list[float] = field(default_factory=list)
    overheads_s: list[float] = field(default_factory=list)
    goals_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    frames: dict[str, tuple[int, int]] = field(default_factory=dict)  # received, published
    listening_cores: float = 0.0


class Client:
    """Asks the node, and hears what it says of itself."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = Node("client")
        self._action = ActionClient(self.node, EstimateRelativePose, "pose_bridge/estimate_relative_pose")
        self._state = self.node.create_client(GetState, "pose_bridge/get_state")
        self._diagnostics: DiagnosticArray | None = None
        self.node.create_subscription(DiagnosticArray, "diagnostics", self._hear, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        threading.Thread(target=self._spin, daemon=True).start()

    def now_ns(self) -> int:
        """By the clock that pictures are stamped with."""
        return int(self.node.get_clock().now().nanoseconds)

    def wait_until_active(self) -> None:
        """Ask as a lifecycle manager would."""

        def active() -> bool:
            if not self._state.service_is_ready():
                return False
            asked = self._state.call_async(GetState.Request())
            wait(asked.done, 0.1)  # answers get lost right after discovery
            return bool(asked.done() and asked.result().current_state.label == "active")

        assert wait(active), "the node did not become active"
        self._diagnostics = None

    def said(self, status: str, value: str) -> float:
        """A number from /diagnostics, from now on."""
        self._diagnostics = None
        assert wait(lambda: self._diagnostics), "no diagnostics"
        (found,) = (each for each in self._diagnostics.status if each.name.endswith(f": {status}"))
        return float({pair.key: pair.value for pair in found.values}[value])

    def ask(self, goal: EstimateRelativePose.Goal, cancel_after_s: float, out: Measured) -> None:
        """Ask, and cancel after that time if there is no answer by then."""
        assert wait(self._action.server_is_ready)
        start_s = time.monotonic()
        sent = self._action.send_goal_async(goal)
        assert wait(sent.done)
        result = sent.result().get_result_async()
        ended_s: list[float] = []
        result.add_done_callback(lambda _: ended_s.append(time.monotonic()))
        cancelled_s = None
        if not wait(result.done, cancel_after_s):
            cancelled_s = time.monotonic()
            sent.result().cancel_goal_async()
        assert wait(lambda: ended_s), "a goal did not end"
        self._count(result.result(), start_s, cancelled_s, ended_s[0], out)

    def _count(
        self, reply: Any, start_s: float, cancelled_s: float | None, ended_s: float, out: Measured
    ) -> None:
        if reply.status == GoalStatus.STATUS_CANCELED and cancelled_s is not None:
            out.ends["canceled"] += 1
            out.cancels_s.append(ended_s - cancelled_s)
            return
        if cancelled_s is not None:
            out.ends["answered before the cancel came"] += 1
        if reply.status != GoalStatus.STATUS_SUCCEEDED:
            out.ends[f"failed: {reply.result.error_code} {reply.result.error_msg}"] += 1
            return
        out.ends["answered"] += 1
        out.goals_s.append(ended_s - start_s)
        out.overheads_s.append(ended_s - start_s - reply.result.relative_pose.processing_time_s)

    def _hear(self, message: DiagnosticArray) -> None:
        self._diagnostics = message

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()


def wait(true: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Wait until something is true, or in vain."""
    end_s = time.monotonic() + within_s
    while not (value := true()) and time.monotonic() < end_s:
        time.sleep(0.002)
    return value


class Questions:
    """Goals in turn: two pictures of the goal's own, then two keyframes by their time."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._pictures = load(folder)
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def next(self, now_ns: int) -> EstimateRelativePose.Goal:
        """Return a goal that was not asked before."""
        self._count += 1
        goal = EstimateRelativePose.Goal(seed=self._count)
        if self._count % 2:
            first = int(self._rng.integers(PICTURES))
            second = (first + int(self._rng.integers(1, 4))) % PICTURES
            goal.reference, goal.target = (self._picture(index, now_ns) for index in (first, second))
        else:
            apart_ns = int(NS * self._rng.uniform(1.0, 4.0))
            goal.reference, goal.target = captured(now_ns - 2 * NS - apart_ns), captured(now_ns - 2 * NS)
        return goal

    def _picture(self, index: int, now_ns: int) -> View:
        message = self._pictures[index]
        message.header.stamp = poses.to_stamp(now_ns)
        return View(image=message, camera_info=cameras.to_camera_info(CAMERA))


def captured(stamp_ns: int) -> View:
    """The keyframe nearest to a time."""
    view = View()
    view.camera_info.header.stamp = poses.to_stamp(stamp_ns)
    return view


def load_it(client: Client, folder: Path, reliability: str, pairs: int, seed: int, out: Measured) -> None:
    """One run: start, camera on, so many goals that are answered and that are cancelled, camera off."""
    rng, questions = np.random.default_rng([seed, 1]), Questions(folder, seed)
    with started(client, folder, reliability, out) as node:
        before = client.said("image", "received")
        camera = (sys.executable, __file__, "--publish", folder, "--reliability", reliability)
        with process(*camera, stdout=subprocess.PIPE) as publisher:
            assert wait(lambda: client.said("keyframes", "keyframes") >= KEYFRAMES), "the buffer did not fill"
            used_s, listening_s = cpu_s(node.pid), time.monotonic()
            time.sleep(LISTEN_S)
            out.listening_cores = (cpu_s(node.pid) - used_s) / (time.monotonic() - listening_s)
            full_s = time.monotonic()
            while out.ends["canceled"] < pairs or time.monotonic() < full_s + WARM_S:
                phase_s = float(rng.uniform(0.0, median(out.goals_s[-20:] or [0.5])))
                for after_s in rng.permutation((PATIENCE_S, phase_s)):
                    client.ask(questions.next(client.now_ns()), after_s, out)
                if time.monotonic() > full_s + WARM_S:
                    out.memory_mib.append(anonymous_mib(node.pid))
                report.progress(out.ends["canceled"], pairs, f"{reliability}: {dict(out.ends)}")
            publisher.send_signal(signal.SIGTERM)
            published = int(publisher.stdout.readline())
            time.sleep(SETTLE_S)
            out.frames[reliability] = (int(client.said("image", "received") - before), published)


@contextlib.contextmanager
def started(
    client: Client, folder: Path, reliability: str, out: Measured
) -> Iterator[subprocess.Popen[bytes]]:
    """A node that is active, and how long that took."""
    start_s = time.monotonic()
    with start_node(folder, reliability) as node:
        assert wait(lambda: "active: " in log_of(folder, reliability).read_text()), "it did not become active"
        out.starts_s.append(time.monotonic() - start_s)
        client.wait_until_active()
        out.found_active_s.append(time.monotonic() - start_s)
        yield node


def anonymous_mib(pid: int) -> float:
    """Memory of a process that is its own: no files, nothing shared with DDS."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024.0


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_again(client: Client, folder: Path, out: Measured) -> None:
    """Only start it, and wait until it is active."""
    with started(client, folder, RELIABILITIES[0], out):
        pass
    wait(lambda: not client.node.get_publishers_info_by_topic("diagnostics"), 10.0)


# --- what is reported


def targets(runs: dict[str, Measured], seed: int) -> list[dict[str, Any]]:
    """All that is wanted."""
    everything = list(runs.values())
    frames = [measured for run in everything for measured in run.frames.values()]
    worst = min(frames, key=lambda counted: counted[0] / counted[1])
    cancels, overheads, starts = (
        [value for run in everything for value in getattr(run, name)]
        for name in ("cancels_s", "overheads_s", "starts_s")
    )
    return [
        report.share("frames_received_share", *worst, ">= 0.99"),
        report.statistic("cancel_max_s", cancels, range(len(cancels)), largest, "<= 0.5", seed),
        slope(runs[RELIABILITIES[-1]].memory_mib, seed),
        report.statistic("overhead_median_s", overheads, range(len(overheads)), middle, "<= 0.03", seed),
        report.statistic("start_to_active_s", starts, range(len(starts)), largest, "<= 3", seed),
    ]


def largest(sample: np.ndarray) -> float:
    """Of all."""
    return float(sample.max())


def middle(sample: np.ndarray) -> float:
    """Of all."""
    return float(np.median(sample))


def slope(memory_mib: list[float], seed: int) -> dict[str, Any]:
    """Growth per goal over the last 200 goals; not above zero if the interval reaches zero."""
    lately = np.array(memory_mib[-100:])  # noted after every second goal
    goals = np.arange(len(lately))

    def per_goal(sample: np.ndarray) -> float:
        chosen = sample.astype(int)
        return float(np.polyfit(chosen, lately[chosen], 1)[0]) / 2.0 if np.ptp(chosen) else 0.0

    row = report.statistic("memory_slope_mib_per_goal", goals, goals // 5, per_goal, "<= 0", seed)
    return {**row, "met": len(lately) == 100 and row["interval95"][0] <= 0.0}


def main() -> None:
    """Load it, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="400 cancels instead of 160")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--reliability", choices=RELIABILITIES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish:
        publish(args.publish, args.reliability)
        return
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        os.environ[name] = str(PROFILE)
    os.environ |= {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    pairs = dict(zip(RELIABILITIES, (150, 250) if args.full else (30, 130), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        render(Path(folder), args.seed)
        client = Client()
        runs = {reliability: Measured() for reliability in RELIABILITIES}
        for _ in range(STARTS):
            start_again(client, Path(folder), runs[RELIABILITIES[0]])
        for reliability, out in runs.items():
            load_it(client, Path(folder), reliability, pairs[reliability], args.seed, out)
        rclpy.shutdown()
    results = {
        "transport": "Fast DDS with config/fastdds.xml on both sides",
        "pictures": f"{WIDTH}x{HEIGHT} rgb8 at {RATE_HZ:g} Hz, queues of 10",
        "keyframes_in_the_buffer": KEYFRAMES,
        "cores_while_it_only_listens": {name: round(run.listening_cores, 3) for name, run in runs.items()},
        "frames_received_of_published": {name: run.frames[name] for name, run in runs.items()},
        "found_active_by_a_client_s": np.round(
            [s for run in runs.values() for s in run.found_active_s], 2
        ).tolist(),
        "goals": {name: dict(run.ends) for name, run in runs.items()},
        "goal_median_s": {name: round(median(run.goals_s), 3) for name, run in runs.items()},
        "memory_mib": {name: np.round(run.memory_mib[::10], 1).tolist() for name, run in runs.items()},
    }
    report.finish("node_load", args.seed, results, targets(runs, args.seed))


if __name__ == "__main__":
    main()
