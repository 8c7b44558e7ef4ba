# SPDX-License-Identifier: Apache-2.0
import sys
import types

import numpy as np
import pytest
from installed import require_ros
from ros_graph import graph

from pose_bridge.config import Config, ExtrinsicsConfig, FramesConfig, TfConfig
from pose_bridge.errors import BadInputError, ConfigError
from pose_bridge.geometry import rigid, rotations

require_ros()

from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.time import Time  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from pose_bridge.ros import frames, poses  # noqa: E402
from pose_bridge.ros.conversions import End  # noqa: E402
from pose_bridge.ros.frames import Frames, PairTree  # noqa: E402

S = 10**9
T_A = rigid.make(rotations.so3_exp([0.0, 0.0, 0.5]), [1.0, 2.0, 0.0])
T_B = rigid.make(rotations.so3_exp([0.0, 0.3, -1.0]), [0.0, -1.0, 0.5])
T_C = rigid.make(rotations.so3_exp([0.2, 0.0, 2.0]), [4.0, 0.0, 0.0])


class Unknown(Exception):  # noqa: N818 - its name elsewhere is TransformException
    pass


class Buffer:
    """As much of tf2_ros.Buffer as is used, for one step between two frames."""

    made: "Buffer"

    def __init__(self):
        self._static = {}
        self.clear()
        Buffer.made = self

    def clear(self):
        self._moving = {}  # what is static stays, as it is told only once

    def set_transform(self, transform, authority):
        key = transform.header.frame_id, transform.child_frame_id
        self._moving.setdefault(key, []).append(transform)

    def set_transform_static(self, transform, authority):
        self._static[transform.header.frame_id, transform.child_frame_id] = transform

    def can_transform(self, target_frame, source_frame, time):
        try:
            self.lookup_transform(target_frame, source_frame, time)
        except Unknown:
            return False
        return True

    def lookup_transform(self, target_frame, source_frame, time):
        assert isinstance(time, Time)
        if (target_frame, source_frame) in self._static:
            return self._static[target_frame, source_frame]
        known = self._moving.get((target_frame, source_frame))
        if not known:
            raise Unknown("not connected")
        if time.nanoseconds == 0:
            return known[-1]
        for transform in known:
            if poses.from_stamp(transform.header.stamp) == time.nanoseconds:
                return transform
        raise Unknown("extrapolation")


class TransformListener:
    def __init__(self, buffer, node):
        self.unregistered = False

    def unregister(self):
        self.unregistered = True


@pytest.fixture
def ros():
    with graph() as made:
        yield made


@pytest.fixture
def tf(monkeypatch):
    """A tf2_ros in place of the real one, which ROS from wheels does not have."""
    module = types.SimpleNamespace(
        Buffer=Buffer, TransformListener=TransformListener, TransformException=Unknown
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", module)


@pytest.fixture
def no_tf(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)


def tell(parent, child, T, stamp_ns=0):
    transform = poses.to_transform(T, stamp_ns, parent, child)
    if stamp_ns:
        Buffer.made.set_transform(transform, "test")
    else:
        Buffer.made.set_transform_static(transform, "test")


def end(name: str, stamp_ns: int = S) -> End:
    return End(id=name, stamp_ns=stamp_ns, camera_frame_id="camera")


def test_extrinsics_are_of_the_camera_s_body(ros, no_tf):
    numbers = {"x_m": 0.1, "y_m": -0.2, "z_m": 0.5, "yaw_rad": np.pi / 2, "pitch_rad": 0.1}
    known = Config(extrinsics=ExtrinsicsConfig(known=True, **numbers))
    T = Frames(ros.node("a"), known).T_base_camera("camera", S)
    assert T[:3, 3] == pytest.approx([0.1, -0.2, 0.5])
    assert T[:3, 2] == pytest.approx([0.0, np.cos(0.1), -np.sin(0.1)])  # looks left, and a little down
    assert T[:3, 0] == pytest.approx([1.0, 0.0, 0.0])  # its right is ahead of the robot
    assert Frames(ros.node("b"), Config()).T_base_camera("camera", S) is None
    assert Frames(ros.node("c"), known).T_map_odom(S, T_A) is None


def test_roll_pitch_and_yaw_are_about_fixed_axes():
    T = frames._optical(ExtrinsicsConfig(known=True, roll_rad=0.3, pitch_rad=-0.2, yaw_rad=1.1))
    turns = np.diag([0.3, -0.2, 1.1])
    R_base_body = np.linalg.multi_dot([rotations.so3_exp(turn) for turn in turns[::-1]])
    assert T[:3, 2] == pytest.approx(R_base_body[:, 0])
    assert T[:3, 0] == pytest.approx(-R_base_body[:, 1])
    assert T[:3, 1] == pytest.approx(-R_base_body[:, 2])


def test_tf_wins_where_it_has_the_camera(ros, tf):
    frames_ = Frames(ros.node("a"), Config(extrinsics=ExtrinsicsConfig(known=True, x_m=9.0)))
    assert frames_.T_base_camera("camera", S)[0, 3] == 9.0
    tell("base_link", "camera", T_B)
    assert frames_.T_base_camera("camera", S) == pytest.approx(T_B)
    tell("base_link", "arm_camera", T_C, 5 * S)
    assert frames_.T_base_camera("arm_camera", 5 * S) == pytest.approx(T_C)
    assert frames_.T_base_camera("arm_camera", 6 * S) is None  # it moves: where it is then, nobody said
    assert frames_.T_base_camera("base_link", S)[0, 3] == 9.0  # a driver that names no frame of its own
    frames_.forget()
    assert frames_.T_base_camera("arm_camera", 5 * S)[0, 3] == 9.0
    assert frames_.T_base_camera("camera", S) == pytest.approx(T_B)


def test_with_the_real_tf(ros):
    pytest.importorskip("tf2_ros", reason="ROS from wheels has no tf2_ros")
    told = Frames(ros.node("a"), Config())
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = ros.node("b").create_publisher(TFMessage, "/tf_static", latched)
    publisher.publish(poses.to_tf([poses.to_transform(T_B, S, "base_link", "camera")]))
    assert ros.until(lambda: told.T_base_camera("camera", 5 * S) is not None)
    assert told.T_base_camera("camera", 5 * S) == pytest.approx(T_B)
    assert told.T_map_odom(5 * S, T_B) is None
    told.forget()
    assert told.T_base_camera("camera", 5 * S) == pytest.approx(T_B)
    told.close()


def test_map_odom_as_others_publish_it(ros, tf):
    told = Frames(ros.node("a"), Config())
    assert told.T_map_odom(5 * S) is None
    tell("map", "odom", T_A, 5 * S)
    assert told.T_map_odom(5 * S) == pytest.approx(T_A)
    assert told.T_map_odom(5 * S + S // 4) == pytest.approx(T_A)  # the next one has not come yet
    assert told.T_map_odom(6 * S) is None  # nobody publishes it any more
    assert told.T_map_odom(4 * S) is None
    assert told.T_map_odom(0) is None  # tf would take it for the newest


def test_map_odom_from_the_base_in_the_map(ros, tf):
    told = Frames(ros.node("a"), Config())
    tell("map", "base_link", T_A @ T_B, 5 * S)
    assert told.T_map_odom(5 * S, T_B) == pytest.approx(T_A)
    assert told.T_map_odom(5 * S) is None
    assert told.T_map_odom(5 * S + 1, T_B) is None


def test_who_publishes_map_odom_does_not_read_it(ros, tf):
    told = Frames(ros.node("a"), Config(tf=TfConfig(publish_map_odom=True)))
    tell("map", "odom", T_A, 5 * S)
    assert told.T_map_odom(5 * S, T_B) is None


def test_map_odom_is_held(ros, no_tf):
    settings = TfConfig(publish_map_odom=True, tolerance_s=0.2, rate_hz=50.0)
    names = FramesConfig(map="m", odom="o")
    node, heard = ros.node("a"), []
    ros.node("b").create_subscription(TFMessage, "/tf", heard.append, 100)
    told = Frames(node, Config(tf=settings, frames=names))
    assert ros.until(lambda: node.count_subscribers("/tf"))
    with pytest.raises(BadInputError):
        told.publish_map_odom(np.full((4, 4), np.nan))
    told.publish_map_odom(T_A)
    told.publish_map_odom(T_B)
    assert ros.until(lambda: len(heard) >= 5)
    [transform] = heard[-1].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("m", "o")
    assert poses.transform_to_matrix(transform.transform) == pytest.approx(T_B)
    stamps_ns = [poses.from_stamp(message.transforms[0].header.stamp) for message in heard[1:]]
    assert stamps_ns == sorted(set(stamps_ns))
    assert poses.from_stamp(transform.header.stamp) > node.get_clock().now().nanoseconds - S
    told.stop_map_odom()
    ticks = []
    node.create_timer(0.02, lambda: ticks.append(len(heard)))
    assert ros.until(lambda: len(ticks) > 20)
    assert ticks[10] == ticks[-1] >= 5
    told.close()
    told.publish_map_odom(T_A)


def test_what_cannot_be_published_ends_nothing(ros, no_tf, monkeypatch):
    """Neither the node nor the goal that found the robot."""
    failures = []

    def guarded(callback):
        def safe():
            try:
                callback()
            except ZeroDivisionError as error:
                failures.append(error)

        return safe

    node = ros.node("a")
    told = Frames(node, Config(tf=TfConfig(publish_map_odom=True, rate_hz=50.0)), guarded)
    monkeypatch.setattr(frames.poses, "to_tf", lambda transforms: 1 / 0)
    told.publish_map_odom(T_A)
    assert ros.until(lambda: len(failures) > 2)


def test_stamps_lie_ahead_of_now(ros, no_tf, monkeypatch):
    node, sent = ros.node("a"), []
    told = Frames(node, Config(tf=TfConfig(publish_map_odom=True, tolerance_s=2.0)))
    monkeypatch.setattr(frames.poses, "to_tf", lambda transforms: sent.append(transforms) or TFMessage())
    before_ns = node.get_clock().now().nanoseconds
    told.publish_map_odom(T_A)
    after_ns = node.get_clock().now().nanoseconds
    assert before_ns + 2 * S <= poses.from_stamp(sent[0][0].header.stamp) <= after_ns + 2 * S


def test_nothing_is_published_unless_asked_for(ros, no_tf):
    node = ros.node("a")
    told = Frames(node, Config())
    told.publish_map_odom(T_A)
    told.publish_pair(end("a"), end("b"), T_A, T_B, "odom")
    told.forget()
    told.close()
    assert not node.get_publishers_info_by_topic("/tf")
    assert not node.get_publishers_info_by_topic("/tf_static")


def test_late_comers_hear_of_all_pairs(ros, no_tf):
    node, heard = ros.node("a"), []
    told = Frames(node, Config(tf=TfConfig(publish_pairs=True)))
    told.publish_pair(end("7"), end("goal-3", 2 * S), T_A, T_B, "odom")
    told.publish_pair(end("8"), end("goal-4"), T_C, T_B, "map")
    with pytest.raises(BadInputError, match="camera_link"):
        told.publish_pair(end("9"), end("goal-5"), T_A, T_B, "camera_link")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    ros.node("b").create_subscription(TFMessage, "/tf_static", heard.append, latched)
    assert ros.until(lambda: heard)
    found = {(t.header.frame_id, t.child_frame_id): t for t in heard[-1].transforms}
    assert list(found) == [
        ("odom", "pose_bridge/7"),
        ("pose_bridge/7", "pose_bridge/goal-3"),
        ("map", "pose_bridge/8"),
        ("pose_bridge/8", "pose_bridge/goal-4"),
    ]
    answer = found["pose_bridge/7", "pose_bridge/goal-3"]
    assert poses.transform_to_matrix(answer.transform) == pytest.approx(T_B)
    assert poses.from_stamp(answer.header.stamp) == 2 * S
    told.forget()
    assert ros.until(lambda: len(heard) > 1)
    assert heard[-1].transforms == []


def in_parent(tree: PairTree, frame: str) -> tuple[str, np.ndarray]:
    """The root that a frame stands in, and where; walks as tf does, and hangs where tf would."""
    edges = {edge.child_frame_id: edge for edge in tree.transforms}
    assert len(edges) == len(tree.transforms)
    T = np.eye(4)
    for _ in range(len(edges) + 1):
        if frame not in edges:
            return frame, T
        T = poses.transform_to_matrix(edges[frame].transform) @ T
        frame = edges[frame].header.frame_id
    raise AssertionError("frames stand in each other")


def test_chains_of_answers_hold():
    tree = PairTree("p", 100)
    tree.add(end("b"), end("c"), T_C, T_A, "odom")
    tree.add(end("a"), end("b"), T_A, T_B, "odom")
    assert in_parent(tree, "p/c")[1] == pytest.approx(T_A @ T_B @ T_A)
    tree.add(end("c"), end("d"), T_C, T_C, "odom")  # c stays where the answers have it
    parent, T = in_parent(tree, "p/d")
    assert parent == "odom"
    np.testing.assert_allclose(T, T_A @ T_B @ T_A @ T_C)
    assert len(tree.transforms) == 4


def test_frames_never_stand_in_each_other():
    tree, rng = PairTree("p", 7), np.random.default_rng(0)
    for _ in range(300):
        a, b = rng.choice(10, 2, replace=False)
        tree.add(end(str(a)), end(str(b)), T_A, T_B, "odom")
        assert len(tree.transforms) <= 7
        assert {in_parent(tree, edge.child_frame_id)[0] for edge in tree.transforms} == {"odom"}


def test_the_oldest_frames_go_and_the_others_stay_where_they_are():
    tree = PairTree("p", 3)
    tree.add(end("a"), end("b"), T_A, T_B, "map")
    tree.add(end("b"), end("c"), T_A, T_C, "map")
    before = in_parent(tree, "p/c")
    tree.add(end("c"), end("d"), T_A, T_B, "map")
    assert [edge.child_frame_id for edge in tree.transforms] == ["p/b", "p/c", "p/d"]
    assert in_parent(tree, "p/c")[0] == before[0] == "map"
    assert in_parent(tree, "p/c")[1] == pytest.approx(before[1])


def test_a_pair_that_is_no_pair_is_refused_whole():
    tree = PairTree("p", 3)
    bad = T_B.copy()
    bad[0, 0] = 2.0
    for second, T in (("a", T_B), ("b", bad), ("b", np.full((4, 4), np.nan))):
        with pytest.raises(BadInputError):
            tree.add(end("a"), end(second), T_A, T, "map")
    assert tree.transforms == []


@pytest.mark.parametrize("name", ["", "/map", "map/", " map"])
def test_names_of_frames_are_checked(name):
    with pytest.raises(ConfigError, match=r"frames\.map"):
        FramesConfig(map=name)
    with pytest.raises(ConfigError, match=r"tf\.prefix"):
        TfConfig(prefix=name)


def test_frames_differ():
    with pytest.raises(ConfigError, match="differ"):
        FramesConfig(map="odom")
