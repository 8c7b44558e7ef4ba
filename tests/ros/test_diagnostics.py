# SPDX-License-Identifier: Apache-2.0
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from installed import require_ros
from robot_world import CAMERA, MAP, SEEN, T_BASE_CAMERA, Oracle, picture
from ros_graph import graph

from pose_bridge.config import Config
from pose_bridge.errors import (
    BadImageError,
    BadInputError,
    CancelledError,
    NotLocalizedError,
    OutOfMemoryError,
    WorkerDiedError,
)
from pose_bridge.geometry.cameras import Camera
from pose_bridge.session import Picture, Session
from pose_bridge.views import Answer, Reason
from pose_bridge.worker.client import ModelsState, WorkerClient, WorkerState

require_ros()

from builtin_interfaces.msg import Time  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Empty  # noqa: E402

from pose_bridge.ros import cameras, images, poses  # noqa: E402
from pose_bridge.ros.diagnostics import NOT_MOVED, RECENT_VERDICTS, Health  # noqa: E402
from pose_bridge.ros.intake import Intake  # noqa: E402

# rclpy's own words about a publisher that does not fit
pytestmark = pytest.mark.filterwarnings("ignore:Deprecated in favor of:DeprecationWarning")

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RELIABLE = QoSProfile(depth=5)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
REJECTED = Answer.rejected(Reason.NO_OVERLAP, "nothing is seen from both sides")


class Robot:
    """A node with its health, and a clock that the test moves."""

    def __init__(self, ros, config=None, **more):
        self.ros = ros
        self.node = ros.node("pose_bridge", namespace="/robot", **more)
        self.config = config or Config()
        self.now_s = 100.0
        self.health = Health(self.node, self.config, now_s=lambda: self.now_s)
        self.session = Session(self.config, Oracle())
        self.worker = SimpleNamespace(
            state=WorkerState.READY,
            restarts=0,
            last_failure="",
            models=ModelsState.NONE,
            models_failure="",
        )
        self.active = True

    def listen(self, kind, topic, qos=RELIABLE):
        subscription = self.node.create_subscription(kind, topic, lambda message: None, qos)
        self.health.watch(topic, subscription)

    def hear(self, topic, hz, seconds, behind_s=0.0):
        for _ in range(round(hz * seconds)):
            self.now_s += 1.0 / hz
            self.health.heard(topic, self.stamp(behind_s))

    def stamp(self, behind_s=0.0) -> Time:
        return poses.to_stamp(self.node.get_clock().now().nanoseconds - round(behind_s * 1e9))

    def report(self) -> dict[str, DiagnosticStatus]:
        message = self.health.report(self.session, self.worker, self.active)
        assert all(status.name.startswith("pose_bridge: ") for status in message.status)
        assert all(status.hardware_id == "/robot/pose_bridge" for status in message.status)
        return {status.name.removeprefix("pose_bridge: "): status for status in message.status}

    def until(self, topic: str, words: str) -> DiagnosticStatus:
        """What is said of a topic once it has certain words in it, or at last."""
        self.ros.until(lambda: words in self.report()[topic].message)
        return self.report()[topic]


@pytest.fixture
def ros():
    with graph() as made:
        yield made


@pytest.fixture
def robot(ros):
    return Robot(ros)


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_nothing_is_well_until_it_is_shown(robot):
    robot.worker = WorkerClient(robot.config)
    for kind, topic in ((Image, "image"), (CameraInfo, "camera_info"), (Odometry, "odom")):
        robot.listen(kind, topic)
    robot.listen(Empty, "~/kidnapped")
    report = robot.report()
    assert list(report) == ["node", "image", "camera_info", "odom", "keyframes", "goals", "worker"]
    assert {name for name, status in report.items() if status.level == OK} == {"node", "goals"}
    assert "nothing publishes on /robot/image;" in report["image"].message
    assert values(report["image"])["silent_s"] == "inf"
    assert values(report["image"])["behind_now_s"] == "nan"


def test_all_is_well(robot):
    for kind, topic in ((Image, "image"), (CameraInfo, "camera_info"), (Odometry, "odom")):
        robot.listen(kind, topic)
    for _ in range(4):
        robot.hear("image", 30.0, 1.0)
        robot.hear("odom", 50.0, 1.0)
        robot.hear("camera_info", 30.0, 1.0)
    robot.health.kept("")
    robot.health.answered(REJECTED)
    report = robot.report()
    assert {status.level for status in report.values()} == {OK}
    assert values(report["image"])["received"] == "120"
    assert report["keyframes"].message == "0 keyframes, 0 with a place in the map"


@pytest.mark.parametrize(
    ("offered", "asked", "named"),
    [
        (BEST_EFFORT, RELIABLE, "reliability is best effort there, and reliable is asked for here"),
        (RELIABLE, LATCHED, "durability is volatile there, and transient local is asked for here"),
    ],
    ids=["reliability", "durability"],
)
def test_the_policy_that_keeps_us_apart_is_named(ros, robot, offered, asked, named):
    driver = ros.stranger("driver", namespace="/robot/front")
    publisher = driver.create_publisher(Image, "/robot/image", offered)
    robot.listen(Image, "image", asked)
    status = robot.until("image", f"/robot/front/driver: {named}")
    assert status.level == ERROR
    assert "QoS" in status.message
    assert named in status.message
    assert values(status)["publishers"] == "0"
    assert not publisher.get_subscription_count()


def test_a_second_publisher_that_does_not_fit_is_named(ros, robot):
    driver = ros.stranger("driver")
    driver.create_publisher(Odometry, "/robot/odom", BEST_EFFORT)
    driver.create_publisher(Odometry, "/robot/odom", RELIABLE)
    robot.listen(Odometry, "odom")
    robot.hear("odom", 50.0, 2.0)
    status = robot.until("odom", "not every publisher is heard: /driver: reliability")
    assert status.level == WARN
    assert "best effort" in status.message


def test_only_the_other_transport_is_published(ros, robot):
    driver = ros.stranger("driver")
    driver.create_publisher(CompressedImage, "/robot/image/compressed", BEST_EFFORT)
    robot.listen(Image, "image", BEST_EFFORT)
    assert "set image.transport to compressed" in robot.until("image", "compressed").message


def test_only_raw_pictures_are_published(ros, robot):
    ros.stranger("driver").create_publisher(Image, "/robot/image", BEST_EFFORT)
    robot.listen(CompressedImage, "image/compressed", BEST_EFFORT)
    assert "set image.transport to raw" in robot.until("image", "raw").message


def test_another_type_is_published(ros, robot):
    ros.stranger("driver").create_publisher(Odometry, "/robot/image", RELIABLE)
    robot.listen(Image, "image")
    status = robot.until("image", "remap to another")
    assert "/robot/image is nav_msgs/msg/Odometry, not sensor_msgs/msg/Image" in status.message


def test_pictures_that_are_lost_on_the_way(ros, robot):
    ros.stranger("driver").create_publisher(Image, "/robot/image", BEST_EFFORT)
    robot.listen(Image, "image", BEST_EFFORT)
    status = robot.until("image", "/driver publishes on /robot/image, and nothing arrives")
    assert status.level == ERROR
    assert "fastdds.xml" in status.message
    robot.hear("image", 0.6, 5.0)
    status = robot.report()["image"]
    assert status.level == WARN
    assert "only 0.6 Hz arrive" in status.message
    assert "fastdds.xml" in status.message


def test_rates_are_of_the_last_seconds(robot):
    robot.listen(Image, "image")
    robot.hear("image", 20.0, 20.0)
    assert float(values(robot.report()["image"])["rate_hz"]) == pytest.approx(20.0, rel=0.05)
    robot.hear("image", 5.0, 6.0)
    assert float(values(robot.report()["image"])["rate_hz"]) == pytest.approx(5.0, rel=0.05)
    robot.now_s += 60.0
    assert values(robot.report()["image"])["rate_hz"] == "0"
    assert values(robot.report()["image"])["silent_s"] == "60"


def test_odometry_may_be_missing_but_not_unheard_of(robot):
    robot.listen(Odometry, "odom")
    status = robot.report()["odom"]
    assert status.level == WARN
    assert "no answer is in metres" in status.message
    robot.hear("odom", 1.0, 5.0)
    assert "only 1.0 Hz" in robot.report()["odom"].message


@pytest.mark.parametrize(("behind_s", "word"), [(-3.2, "after"), (80.0, "before")])
def test_clocks_that_differ_are_named(robot, behind_s, word):
    robot.listen(Image, "image")
    robot.hear("image", 30.0, 1.0, behind_s)
    assert "odometry" not in robot.report()["image"].message
    robot.listen(Odometry, "odom")
    robot.hear("odom", 50.0, 1.0)
    status = robot.report()["image"]
    assert status.level == ERROR
    said = re.search(rf"pictures are stamped ([\d.]+) s {word} odometry", status.message)
    assert said and float(said[1]) == pytest.approx(abs(behind_s), abs=0.05), status.message
    robot.now_s += 60.0
    assert "odometry" not in robot.report()["image"].message


def test_a_recording_without_simulated_time_is_named(robot):
    robot.listen(Image, "image")
    robot.hear("image", 30.0, 1.0, behind_s=1e6)
    status = robot.report()["image"]
    assert status.level == WARN
    assert "before now" in status.message
    assert "use_sim_time" in status.message


def test_simulated_time(ros):
    robot = Robot(ros, parameter_overrides=[Parameter("use_sim_time", value=True)])
    assert robot.report()["node"].level == ERROR
    assert "/clock" in robot.report()["node"].message
    publisher = ros.node("simulator").create_publisher(Clock, "/clock", RELIABLE)
    tick = Clock(clock=Time(sec=7))
    clock = robot.node.get_clock()
    assert ros.until(lambda: clock.now().nanoseconds, meanwhile=lambda: publisher.publish(tick))
    assert robot.report()["node"].level == OK
    robot.now_s += 4.0
    status = robot.report()["node"]
    assert status.level == WARN
    assert "the clock has stood still for 4.0 s" in status.message


def of_size(width: int, height: int) -> CameraInfo:
    return cameras.to_camera_info(Camera.from_focal_px(80.0, width, height))


def test_pictures_without_their_calibration(robot):
    intake = Intake(robot.config.image, robot.session, lambda frame, stamp_ns: None, robot.health)
    robot.listen(Image, "image")
    robot.listen(CameraInfo, "camera_info")

    def bring():
        robot.hear("image", 10.0, 0.1)
        intake.image(images.encode(picture(len(robot.session.keyframes))), robot.now_s)
        intake.flush(robot.now_s + 10.0)

    bring()
    report = robot.report()
    assert (report["image"].level, report["camera_info"].level) == (ERROR, ERROR)
    assert "camera_info" in report["image"].message
    assert "nothing publishes on /robot/camera_info" in report["camera_info"].message
    robot.hear("camera_info", 10.0, 0.1)
    intake.camera_info(of_size(128, 96))
    bring()
    status = robot.report()["image"]
    assert status.level == ERROR
    assert "camera_info is for 128x96 images, the image is 96x72" in status.message
    uncalibrated = CameraInfo(width=96, height=72)
    intake.camera_info(uncalibrated)
    assert robot.report()["camera_info"].level == ERROR
    assert values(robot.report()["camera_info"])["last_error"]
    intake.camera_info(of_size(96, 72))
    bring()
    robot.now_s += robot.config.diagnostics.window_s
    robot.hear("image", 10.0, 1.0)
    report = robot.report()
    assert (report["image"].level, report["camera_info"].level) == (OK, OK)
    assert values(report["image"])["failures"] == "2"
    assert report["keyframes"].level == WARN
    assert "set extrinsics" in report["keyframes"].message


def test_a_few_bad_pictures_are_a_warning(robot):
    robot.listen(Image, "image")
    robot.hear("image", 10.0, 1.0)
    robot.health.failed("image", BadImageError("cut off"))
    assert robot.report()["image"].level == ERROR
    robot.now_s += 0.1
    robot.health.kept(NOT_MOVED)
    status = robot.report()["image"]
    assert (status.level, status.message) == (WARN, "not all could be used: cut off")


def test_failures_elsewhere_are_reported_for_a_while(robot):
    robot.health.failed("kidnapped", ValueError())
    status = robot.report()["node"]
    assert (status.level, status.message) == (WARN, "kidnapped: ValueError")
    robot.now_s += 60.0
    assert robot.report()["node"].level == OK


def see(robot: Robot, image: np.ndarray) -> str:
    return robot.session.see(
        Picture(stamp_ns=1, image=image, camera=CAMERA, camera_id="camera", T_base_camera=T_BASE_CAMERA)
    )


def test_a_robot_that_stands_is_fine_and_one_in_the_dark_is_not(robot):
    see(robot, picture(1))
    for _ in range(RECENT_VERDICTS):
        robot.health.kept(see(robot, picture(1)))  # the policy's own words
    assert robot.report()["keyframes"].level == OK
    for _ in range(RECENT_VERDICTS):
        robot.health.kept(see(robot, np.zeros_like(picture(1))))
    status = robot.report()["keyframes"]
    assert status.level == WARN
    assert "badly exposed" in status.message
    assert values(status) == {
        "keyframes": "1",
        "mapped": "0",
        "pictures": str(2 * RECENT_VERDICTS),
        f"not kept: {NOT_MOVED}": str(RECENT_VERDICTS),
        "not kept: badly exposed": str(RECENT_VERDICTS),
    }


def test_mapped_keyframes_are_counted(robot):
    robot.session.keyframes.replace([*MAP[:3], *SEEN[:2]])
    robot.health.kept("")
    assert robot.report()["keyframes"].message == "5 keyframes, 3 with a place in the map"


def test_goals_are_counted_by_how_they_ended(robot):
    accepted = SimpleNamespace(accepted=True)
    for answer in (accepted, accepted, REJECTED):
        robot.health.answered(answer)
    robot.health.failed_goal(NotLocalizedError("nowhere"))
    robot.health.failed_goal(CancelledError("cancelled"))
    robot.health.localized()
    status = robot.report()["goals"]
    assert status.level == OK
    assert values(status) == {
        "accepted": "2",
        "abstained": "1",
        "localized": "1",
        "ended: NOT_LOCALIZED": "1",
        "ended: CANCELED": "1",
    }


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        (WorkerDiedError("killed"), WARN, "WORKER_DIED: killed"),
        (OutOfMemoryError("too large"), WARN, "OUT_OF_MEMORY: too large"),
        (KeyError("oops"), ERROR, "UNKNOWN: 'oops'"),
    ],
)
def test_what_broke_is_reported_until_a_goal_ends_well(robot, error, level, words):
    robot.health.failed_goal(error)
    robot.health.failed_goal(CancelledError("cancelled"))
    status = robot.report()["goals"]
    assert (status.level, status.message) == (level, f"the last goal failed with {words}")
    robot.health.failed_goal(BadInputError("nonsense"))  # the caller's fault, and the node is well again
    assert robot.report()["goals"].level == OK
    robot.health.failed_goal(error)
    robot.health.answered(REJECTED)
    assert robot.report()["goals"].level == OK


def test_the_worker_s_state_and_why_it_failed(robot):
    def said(state, active=True):
        robot.worker.state, robot.active = state, active
        robot.health.worker_state(state)
        status = robot.report()["worker"]
        return status.level, status.message

    assert said(WorkerState.STARTING) == (WARN, "starting")
    assert said(WorkerState.READY) == (OK, "ready")
    robot.worker.last_failure, robot.worker.restarts = "killed by signal 9", 1
    assert said(WorkerState.RESTARTING) == (ERROR, "restarting: killed by signal 9")
    assert said(WorkerState.BUSY) == (WARN, "busy again after a failure: killed by signal 9")
    robot.now_s += 61.0
    assert said(WorkerState.BUSY) == (OK, "busy")
    assert said(WorkerState.STOPPED) == (ERROR, "stopped: killed by signal 9")
    assert said(WorkerState.STOPPED, active=False) == (OK, "stopped: the node is not active")
    assert values(robot.report()["worker"])["restarts"] == "1"


def test_how_far_it_is_with_its_models(robot):
    robot.worker.models = ModelsState.LOADING
    status = robot.report()["worker"]
    assert (status.level, values(status)["models"]) == (DiagnosticStatus.WARN, "LOADING")
    robot.worker.models, robot.worker.models_failure = ModelsState.FAILED, "no whole file"
    status = robot.report()["worker"]
    assert status.level == DiagnosticStatus.ERROR
    assert "no whole file" in status.message


def test_it_is_published(ros, robot):
    heard = []
    ros.node("aggregator", namespace="/robot").create_subscription(
        DiagnosticArray, "diagnostics", heard.append, RELIABLE
    )
    assert ros.until(lambda: heard, lambda: robot.health.publish(robot.session, robot.worker, True))
    assert [status.name for status in heard[0].status] == [
        f"pose_bridge: {name}" for name in ("node", "keyframes", "goals", "worker")
    ]
    assert poses.from_stamp(heard[0].header.stamp) > 0
    robot.health.close()
    assert robot.node.count_publishers("/robot/diagnostics") == 0


def test_threads_tell_at_the_same_time(robot):
    robot.listen(Image, "image")
    stamp = Time(sec=1)

    def tell():
        for number in range(300):
            robot.health.heard("image", stamp)
            robot.health.failed(f"callback {number % 20}", BadImageError("cut off"))
            robot.health.kept("blurred")
            robot.health.answered(REJECTED)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        robot.report()
    report = robot.report()
    assert values(report["image"])["received"] == "1200"
    assert values(report["keyframes"])["not kept: blurred"] == "1200"
    assert values(report["goals"])["abstained"] == "1200"
