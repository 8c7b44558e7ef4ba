# SPDX-License-Identifier: Apache-2.0
"""The simulator as a real process over real DDS."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from installed import require_ros

require_ros()

import rclpy  # noqa: E402
from geometry_msgs.msg import PoseStamped, Twist  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Empty, String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from pose_bridge.geometry import rigid  # noqa: E402
from pose_bridge.ros import cameras, images, poses  # noqa: E402
from pose_bridge.ros.simulator_config import SimulatorConfig  # noqa: E402

DOMAIN = free_domain()
SMALL = {"width": 64, "height": 48}
RATE_HZ = 10.0
PERIOD_NS = round(1e9 / RATE_HZ)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MANY = QoSProfile(depth=500)
LONG_S = 60.0


@contextmanager
def simulator(**parameters: Any) -> Iterator[subprocess.Popen]:
    pairs = [f"{name}:={str(value).lower()}" for name, value in parameters.items()]
    arguments = [argument for pair in pairs for argument in ("-p", pair)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pose_bridge.ros.simulator_node", "--ros-args", *arguments],
        env={
            **os.environ,
            "ROS_DOMAIN_ID": str(DOMAIN),
            "PYTHONWARNINGS": "ignore",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and what it said on stderr."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LONG_S)
    return process.returncode, said


class Listener:
    """Keeps everything that comes, by topic."""

    TOPICS = (
        (Image, "image", MANY),
        (CompressedImage, "image/compressed", MANY),
        (CameraInfo, "camera_info", MANY),
        (Image, "depth", MANY),
        (Odometry, "odom", MANY),
        (PoseStamped, "simulator/truth", MANY),
        (String, "simulator/act", LATCHED),
        (Empty, "pose_bridge/kidnapped", MANY),
        (Clock, "/clock", MANY),
        (TFMessage, "/tf", MANY),
        (TFMessage, "/tf_static", LATCHED),
    )

    def __init__(self, node: rclpy.node.Node, executor: SingleThreadedExecutor) -> None:
        self.node, self._executor = node, executor
        self.heard: dict[str, list[Any]] = {name: [] for _, name, _ in self.TOPICS}
        for kind, name, qos in self.TOPICS:
            node.create_subscription(kind, name, self.heard[name].append, qos)

    def until(self, done: Callable[[], Any], process: subprocess.Popen) -> Any:
        end_s = time.monotonic() + LONG_S
        while not (value := done()):
            assert time.monotonic() < end_s, {name: len(messages) for name, messages in self.heard.items()}
            assert process.poll() is None, process.communicate()[1]
            self._executor.spin_once(timeout_sec=0.1)
        return value

    def ask(self, service: str, process: subprocess.Popen) -> Trigger.Response:
        client = self.node.create_client(Trigger, service)
        self.until(client.service_is_ready, process)
        future = client.call_async(Trigger.Request())
        return self.until(future.result, process)

    def acts(self) -> list[str]:
        return [message.data for message in self.heard["simulator/act"]]

    def by_stamp(self, topic: str) -> dict[int, Any]:
        return {poses.from_stamp(m.header.stamp): m for m in self.heard[topic]}


@pytest.fixture
def listener() -> Iterator[Listener]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield Listener(node, executor)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_what_a_mapping_robot_sends_fits_together_until_it_is_kidnapped(listener: Listener) -> None:
    config = SimulatorConfig(**SMALL, kidnap="same_side", clock=True)
    with simulator(
        **SMALL, kidnap="same_side", clock=True, listeners=1, depth=True, transport="both", rate_hz=RATE_HZ
    ) as process:
        pictures = listener.until(
            lambda: listener.heard["image"][14:] and listener.heard["image"][:14], process
        )
        stamps = [poses.from_stamp(message.header.stamp) for message in pictures]
        assert set(np.diff(stamps)) == {PERIOD_NS}  # one picture per stamp, at the rate, none left out
        for name in ("camera_info", "depth", "image/compressed", "simulator/truth"):
            listener.until(lambda name=name: set(stamps) <= set(listener.by_stamp(name)), process)
        around = {stamp + offset for stamp in stamps for offset in (0, config.tick_ns)}
        listener.until(lambda: around <= set(listener.by_stamp("odom")), process)
        before = {name: list(messages) for name, messages in listener.heard.items()}
        images_by, info_by, odom_by, truth_by = (
            listener.by_stamp(name) for name in ("image", "camera_info", "odom", "simulator/truth")
        )
        assert set(np.diff(sorted(odom_by))) == {config.tick_ns}
        for stamp in stamps:
            assert cameras.to_camera(info_by[stamp]) == config.build.camera
        assert {m.header.frame_id for m in before["image"] + before["camera_info"]} == {
            "camera_optical_frame"
        }

        first, last = stamps[0], stamps[-1]
        T_world_odom = [
            poses.to_matrix(truth_by[stamp].pose) @ rigid.inverse(poses.to_matrix(odom_by[stamp].pose.pose))
            for stamp in (first, last)
        ]
        sigma = np.sqrt(np.reshape(odom_by[last].pose.covariance, (6, 6)).diagonal())
        drift = rigid.relative(*T_world_odom)
        assert np.abs(drift[:2, 3]).max() < 5.0 * sigma[0]
        assert abs(drift[1, 0]) < 5.0 * sigma[5]
        moved = rigid.relative(*(poses.to_matrix(truth_by[stamp].pose) for stamp in (first, last)))
        assert not np.allclose(moved, np.eye(4), atol=1e-3)
        assert odom_by[last].twist.twist.linear.x or odom_by[last].twist.twist.angular.z

        raw, small = images.decode(images_by[first]), listener.by_stamp("image/compressed")[first]
        assert np.abs(images.decode_compressed(small).astype(float) - raw).mean() < 12.0
        assert raw.std() > 5.0
        depth_m = images.decode_depth(listener.by_stamp("depth")[first])
        assert depth_m.shape == raw.shape[:2]
        assert 0.1 < np.nanmedian(depth_m) < 12.0

        mount = before["/tf_static"][0].transforms[0]
        assert (mount.header.frame_id, mount.child_frame_id) == ("base_link", "camera_optical_frame")
        assert poses.transform_to_matrix(mount.transform) == pytest.approx(config.build.T_base_camera)
        moving = {poses.from_stamp(m.transforms[0].header.stamp): m.transforms[0] for m in before["/tf"]}
        assert poses.transform_to_matrix(moving[last].transform) == pytest.approx(
            poses.to_matrix(odom_by[last].pose.pose)
        )
        clock = {poses.from_stamp(m.clock) for m in before["/clock"]}
        assert clock >= set(stamps[:-1])
        assert before["pose_bridge/kidnapped"] == []

        assert listener.ask("simulator/kidnap", process).success
        listener.until(lambda: listener.heard["pose_bridge/kidnapped"], process)
        newest = max(listener.by_stamp("image"))  # what was sent before has arrived by then
        after = listener.until(lambda: [s for s in listener.by_stamp("image") if s > newest], process)
        assert len(listener.heard["pose_bridge/kidnapped"]) == 1
        assert listener.acts()[-1] == "kidnapped"
        anew = listener.until(lambda: listener.by_stamp("odom").get(min(after)), process)
        anew = poses.to_matrix(anew.pose.pose)
        assert np.linalg.norm(anew[:2, 3]) < 0.1  # odometry begins anew
        code, said = stopped(process)
        assert code == 0, said
        assert "Traceback" not in said


def test_it_is_driven_and_rests_when_nobody_commands(listener: Listener) -> None:
    with simulator(**SMALL, story="none", rate_hz=2.0) as process:
        wheel = listener.node.create_publisher(Twist, "cmd_vel", 10)
        turn = Twist()
        turn.angular.z = 1.0

        def turning() -> bool:
            wheel.publish(turn)
            return any(abs(message.twist.twist.angular.z - 1.0) < 0.5 for message in listener.heard["odom"])

        listener.until(turning, process)
        listener.until(lambda: abs(listener.heard["odom"][-1].twist.twist.angular.z) < 1e-6, process)
        assert listener.acts() == ["driven"]
        assert not listener.heard["/clock"]
        assert abs(time.time() - poses.from_stamp(listener.heard["odom"][-1].header.stamp) / 1e9) < 5.0
        assert stopped(process)[0] == 0


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"speed": 4.0}, "needs a clock of its own"),
        ({"rate_hz": 60.0}, "rate_hz must not exceed odometry_hz, got 60 and 50"),
        ({"story": "odyssey"}, "story must be one of tour, kidnap, none"),
        ({"sped": 2.0}, "unknown parameter sped"),
    ],
)
def test_it_says_what_is_wrong_and_ends(parameters: dict[str, Any], complaint: str) -> None:
    with simulator(**parameters) as process:
        _, said = process.communicate(timeout=LONG_S)
    assert process.returncode == 2
    assert complaint in said
    assert "Traceback" not in said
