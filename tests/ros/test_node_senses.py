# SPDX-License-Identifier: Apache-2.0
"""A node that takes compressed pictures, depth and a mask: what comes with a picture is kept with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import require_ros

require_ros()

from robot_world import CAMERA, picture, standing  # noqa: E402
from ros_graph import free_domain  # noqa: E402
from ros_node import Caller, NodeProcess, Robot, calling, pair, until  # noqa: E402
from ros_room import are_kept, drive_until_kept, set_map_pose  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from pose_bridge.errors import ErrorCode  # noqa: E402
from pose_bridge.keyframes import store  # noqa: E402
from pose_bridge.keyframes.keyframe import Keyframe  # noqa: E402
from pose_bridge.ros import images  # noqa: E402
from pose_bridge.srv import MapFile  # noqa: E402

SIZE = CAMERA.height, CAMERA.width
DEPTH_M = np.linspace(1.0, 4.0, CAMERA.height * CAMERA.width, dtype=np.float32).reshape(SIZE)
USABLE = np.arange(CAMERA.width) >= 10 * np.ones((CAMERA.height, 1))


def mask(usable: np.ndarray) -> Image:
    height, width = usable.shape
    data = (255 * usable.astype(np.uint8)).tobytes()
    return Image(height=height, width=width, encoding="mono8", step=width, data=data)


class SensingRobot(Robot):
    """Sends its pictures compressed, with depth and a mask.

    Attributes:
        instead: What it sends in place of something good, by topic.
    """

    topics = (*Robot.topics, "depth", "mask")

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller)
        self.instead: dict[str, Any] = {}
        for kind, topic in ((CompressedImage, "image/compressed"), (Image, "depth"), (Image, "mask")):
            caller.speak(kind, topic)

    def show(self, seen: Image) -> None:
        good = {
            "image/compressed": images.encode_compressed(images.decode(seen)),
            "depth": images.encode_depth(DEPTH_M),
            "mask": mask(USABLE),
        }
        for topic, message in {**good, **self.instead}.items():
            message.header = seen.header
            self._caller.say(topic, message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def caller(folder: Path) -> Iterator[Caller]:
    settings = {
        "image.transport": "compressed",
        "image.use_depth": True,
        "image.use_mask": True,
        "image.reliability": "reliable",
        "diagnostics.silence_s": 30.0,
    }
    node = NodeProcess(folder, free_domain(), settings)
    with calling(node) as caller:
        yield caller
    assert node.end() == 0


@pytest.fixture(scope="module")
def robot(caller: Caller) -> SensingRobot:
    robot = SensingRobot(caller)
    robot.greet()
    return robot


def saved(caller: Caller, folder: Path, stamp_ns: int) -> Keyframe:
    """What became of a picture."""
    assert set_map_pose(caller, np.eye(4)).error_code == 0  # only what has a place in the map is saved
    assert caller.call("save_map", MapFile.Request(name="room")).error_code == ErrorCode.NONE
    (keyframe,) = (k for k in store.load_map(folder / "maps", "room") if k.stamp_ns == stamp_ns)
    return keyframe


def assert_whole(keyframe: Keyframe) -> None:
    np.testing.assert_array_equal(keyframe.depth_m, DEPTH_M)
    np.testing.assert_array_equal(keyframe.mask, USABLE)


def test_a_keyframe_has_depth_and_a_mask(caller: Caller, folder: Path, robot: SensingRobot) -> None:
    (stamp_ns,) = are_kept(caller, [robot.step(standing(0.3, 0.0, 0.0), 1)])
    keyframe = saved(caller, folder, stamp_ns)
    assert_whole(keyframe)
    assert np.abs(keyframe.image - picture(1).astype(float)).mean() < 3.0  # but for the compression


@pytest.mark.parametrize(
    ("topic", "damaged", "said"),
    [
        ("image/compressed", CompressedImage(format="jpeg", data=b"\xff\xd8" + bytes(50)), "too early"),
        ("depth", Image(height=2, width=2, encoding="32FC1", step=8, data=bytes(7)), "cut off"),
        ("mask", Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12)), "mono8"),
    ],
)
def test_what_is_damaged_is_named_and_left_out(
    caller: Caller, folder: Path, robot: SensingRobot, topic: str, damaged: Any, said: str
) -> None:
    name = topic.partition("/")[0]
    robot.instead = {topic: damaged}
    robot.step(standing(0.0, 0.0, 0.0), 2)
    robot.instead = {}
    assert until(lambda: said in caller.status(name).message)
    assert_whole(saved(caller, folder, drive_until_kept(caller, robot)))
    assert caller.ask(pair()).code is ErrorCode.NONE
