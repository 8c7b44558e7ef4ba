# SPDX-License-Identifier: Apache-2.0
"""What belongs to one picture comes in any order, late, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from installed import require_ros
from robot_world import CAMERA, T_BASE_CAMERA, picture

require_ros()

from sensor_msgs.msg import Image  # noqa: E402

from pose_bridge.config import Config, ImageConfig  # noqa: E402
from pose_bridge.geometry.cameras import Camera  # noqa: E402
from pose_bridge.ros import cameras, images, poses  # noqa: E402
from pose_bridge.ros.intake import MOST_WAITING, Intake  # noqa: E402
from pose_bridge.session import Picture, Session  # noqa: E402

S = 10**9
PATIENCE_S = 0.5
SIZE = (CAMERA.height, CAMERA.width)


class Eye(Session):
    """A session that only remembers what it is shown."""

    def __init__(self) -> None:
        super().__init__(Config(), bridge=None)
        self.seen: list[Picture] = []

    def see(self, picture: Picture) -> str:
        self.seen.append(picture)
        return ""


class Robot:
    """Brings messages to an intake, and hears what became of them."""

    def __init__(self, **settings: Any) -> None:
        self.session, self.failures, self.kept_count = Eye(), [], 0
        self.intake = Intake(
            ImageConfig(patience_s=PATIENCE_S, **settings),
            self.session,
            lambda frame, stamp_ns: T_BASE_CAMERA if frame == "camera" else None,
            self,
        )
        self.intake.camera_info(cameras.to_camera_info(CAMERA))

    def kept(self, why_not: str) -> None:
        self.kept_count += 1

    def failed(self, topic: str, error: Exception) -> None:
        self.failures.append((topic, str(error)))

    def image(self, seed: int, now_s: float, frame: str = "camera") -> None:
        self.intake.image(stamped(images.encode(picture(seed)), seed, frame), now_s)

    def depth(self, seed: int, late_s: float = 0.0) -> None:
        message = stamped(images.encode_depth(np.full(SIZE, 1.0 + seed, np.float32)), seed)
        message.header.stamp = poses.to_stamp(seed * S + int(late_s * S))
        self.intake.depth(message)

    def odom(self, until_s: float) -> None:
        self.session.move(int(until_s * S), np.eye(4))

    @property
    def seen(self) -> list[int]:
        return [picture.stamp_ns // S for picture in self.session.seen]


def stamped(message: Image, seconds: int, frame: str = "camera") -> Image:
    message.header.stamp, message.header.frame_id = poses.to_stamp(seconds * S), frame
    return message


def test_a_picture_waits_for_odometry_of_its_moment() -> None:
    robot = Robot()
    robot.image(1, now_s=0.0)
    robot.odom(0.9)
    robot.intake.flush(0.1)
    assert robot.seen == []
    robot.odom(1.1)
    robot.intake.flush(0.2)
    (seen,) = robot.session.seen
    np.testing.assert_array_equal(seen.image, picture(1))
    np.testing.assert_array_equal(seen.T_base_camera, T_BASE_CAMERA)
    assert (seen.stamp_ns, seen.camera_id, seen.mask, seen.depth_m) == (S, "camera", None, None)
    assert (robot.kept_count, robot.failures) == (1, [])


def test_but_not_for_ever() -> None:
    robot = Robot()
    robot.image(1, now_s=0.0, frame="elsewhere")
    robot.intake.flush(PATIENCE_S - 0.01)
    assert robot.seen == []
    robot.intake.flush(PATIENCE_S)
    assert robot.seen == [1]
    assert robot.session.seen[0].T_base_camera is None


def test_pictures_keep_their_order_and_do_not_pile_up() -> None:
    robot = Robot()
    for seed in range(1, MOST_WAITING + 6):
        robot.image(seed, now_s=0.0)
    assert robot.seen == [1, 2, 3, 4, 5, 6]  # to make room
    robot.odom(1000.0)
    robot.intake.flush(0.0)
    assert robot.seen == list(range(1, MOST_WAITING + 6))


def test_a_jump_of_the_clock_drops_what_waits() -> None:
    robot = Robot()
    robot.image(1, now_s=0.0)
    robot.intake.clear()
    robot.intake.flush(10.0)
    assert robot.seen == []


@pytest.mark.parametrize(("late_s", "fits"), [(0.0, True), (0.015, True), (-0.015, True), (0.1, False)])
def test_depth_of_the_same_moment(late_s: float, fits: bool) -> None:
    robot = Robot(use_depth=True)
    robot.odom(5.0)
    robot.image(2, now_s=0.0)
    assert robot.seen == []
    robot.depth(1)
    robot.depth(2, late_s)
    robot.intake.flush(0.1)
    assert robot.seen == ([2] if fits else [])
    robot.intake.flush(PATIENCE_S)
    (seen,) = robot.session.seen
    assert (seen.depth_m is not None) == fits
    if fits:
        np.testing.assert_array_equal(seen.depth_m, 3.0)


def test_a_mask_is_for_all_that_follow() -> None:
    robot = Robot(use_mask=True)
    robot.odom(5.0)
    robot.image(1, now_s=0.0)
    assert robot.seen == []
    usable = np.zeros(SIZE, np.uint8)
    usable[:30] = 255
    message = Image(height=SIZE[0], width=SIZE[1], encoding="mono8", step=SIZE[1], data=usable.tobytes())
    robot.intake.mask(message)
    robot.intake.flush(0.1)
    robot.image(2, now_s=0.2)
    assert robot.seen == [1, 2]
    for seen in robot.session.seen:
        np.testing.assert_array_equal(seen.mask, usable > 0)


def test_a_mask_of_another_size_is_no_mask() -> None:
    """The robot's own body must not be taken for the room."""
    robot = Robot(use_mask=True)
    robot.odom(5.0)
    robot.intake.mask(Image(height=2, width=3, encoding="mono8", step=3, data=bytes(6)))
    robot.image(1, now_s=0.0)
    assert robot.seen == []
    assert robot.failures == [("image", f"the mask is 3x2, pictures are {SIZE[1]}x{SIZE[0]}")]


@pytest.mark.parametrize("topic", ["image", "camera_info", "depth", "mask"])
def test_what_cannot_be_used_is_told_and_left_out(topic: str) -> None:
    robot = Robot(use_depth=True, use_mask=True)
    robot.odom(5.0)
    bad = stamped(Image(height=4, width=4, encoding="rgb5", step=4, data=bytes(16)), 1)
    if topic == "camera_info":
        info = cameras.to_camera_info(CAMERA)
        info.k = [float("nan")] * 9
        robot.intake.camera_info(info)
    elif topic == "image":
        robot.intake.image(bad, 0.0)
        robot.intake.flush(PATIENCE_S)
    else:
        getattr(robot.intake, topic)(bad)
    assert [name for name, _ in robot.failures] == [topic]
    assert robot.seen == []


def test_a_camera_that_is_not_known_or_of_another_size() -> None:
    robot = Robot()
    robot.odom(5.0)
    info = cameras.to_camera_info(Camera.from_focal_px(80.0, 640, 480))
    robot.intake.camera_info(info)
    robot.image(1, now_s=0.0)
    info.k = [float("nan")] * 9
    robot.intake.camera_info(info)
    robot.image(2, now_s=0.0)
    assert robot.seen == []
    (size, nan, none) = (text for _, text in robot.failures)
    assert "640" in size
    assert "K" in nan
    assert none == "no usable camera_info came yet"
    robot.intake.camera_info(cameras.to_camera_info(CAMERA))
    robot.image(3, now_s=0.0)
    assert robot.seen == [3]
