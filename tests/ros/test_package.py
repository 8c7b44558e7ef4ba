# SPDX-License-Identifier: Apache-2.0
"""The ROS package as colcon sees it, and as it is installed."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import types
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from installed import require_ros
from ros_graph import free_domain

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch" / "pose_bridge.launch.py"
BIN = Path(sys.executable).parent


def test_colcon_takes_it_for_a_ros_package():
    require_ros()
    colcon = shutil.which("colcon", path=f"{BIN}:{os.environ['PATH']}")
    if colcon is None:
        pytest.skip("no colcon")
    command = [colcon, "--log-base", os.devnull, "list", "--base-paths", str(ROOT), str(ROOT / "wheels")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    kinds = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()}
    assert kinds == {"pose_bridge": "(ros.ament_cmake)", "tf2_msgs": "(ros.ament_cmake)"}


def test_the_scripts_start_what_exists():
    for script in (ROOT / "scripts").iterdir():
        assert os.access(script, os.X_OK)
        assert script.read_text().startswith("#!/usr/bin/env python3\n# SPDX")
        module = next(
            node.module for node in ast.walk(ast.parse(script.read_text())) if hasattr(node, "module")
        )
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file()


INSTALLED = """
import json, pose_bridge.views, pose_bridge.msg, pose_bridge.action, pose_bridge.srv
from rclpy.serialization import serialize_message
serialize_message(pose_bridge.msg.RelativePose())
print(json.dumps([pose_bridge.views.__file__, pose_bridge.msg.__file__]))
"""


def test_installed_the_library_lies_beside_its_messages(tmp_path):
    require_ros()
    installed = Path(sys.prefix, "lib", "interfaces", "pose_bridge")
    if not installed.is_dir():
        pytest.skip("the messages were not built by make")
    shutil.copytree(installed, tmp_path / "pose_bridge")
    path = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", INSTALLED]
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(Path(found).is_relative_to(tmp_path) for found in json.loads(done.stdout))


def test_what_ros_looks_for_is_installed():
    require_ros()
    if not Path(sys.prefix, "lib", "interfaces").is_dir():
        pytest.skip("the messages were not built by make")
    for name in ("lib/pose_bridge/node", "lib/pose_bridge/simulator"):
        assert os.access(Path(sys.prefix, name), os.X_OK)
    for name in (
        "launch/pose_bridge.launch.py",
        "rviz/pose_bridge.rviz",
        "config/fastdds.xml",
        "package.xml",
    ):
        assert Path(sys.prefix, "share", "pose_bridge", name).is_file()


def test_a_checkout_uses_its_own_library(tmp_path):
    require_ros()
    if not Path(sys.prefix, "lib", "interfaces").is_dir():
        pytest.skip("the messages were not built by make")
    command = [sys.executable, "-W", "ignore", "-c", INSTALLED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    library, messages = json.loads(done.stdout)
    assert Path(library).is_relative_to(ROOT)
    assert not Path(messages).is_relative_to(ROOT / "pose_bridge")


class Asked:
    """A launch argument; a context holds what was asked for."""

    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context[self.name]


@pytest.fixture
def launch_file(monkeypatch):
    """What the launch file defines; ROS from wheels has no launch, so what it makes are dictionaries."""
    stand_ins = {
        "ament_index_python.packages": {"get_package_share_directory": lambda package: str(ROOT)},
        "launch": {"LaunchContext": dict, "LaunchDescription": list},
        "launch.actions": {"DeclareLaunchArgument": lambda name, **more: name, "OpaqueFunction": dict},
        "launch.conditions": {"IfCondition": Asked},
        "launch.substitutions": {"LaunchConfiguration": Asked},
        "launch_ros.actions": {"LifecycleNode": dict, "Node": dict},
        "launch_ros.parameter_descriptions": {"ParameterValue": lambda value, value_type: value},
    }
    for name, contents in stand_ins.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(LAUNCH))


def rules(launch_file, **asked):
    """The node's remappings, by topic."""
    asked = {name: default for name, (default, _) in launch_file["ARGUMENTS"].items()} | asked
    node, _ = launch_file["nodes"](asked)
    parts = {topic: to if isinstance(to, list) else [to] for topic, to in node["remappings"]}
    return {
        topic: "".join(part if isinstance(part, str) else part.perform(asked) for part in to)
        for topic, to in parts.items()
    }


def test_the_launch_file_describes_its_arguments(launch_file):
    arguments = launch_file["ARGUMENTS"]
    assert set(arguments) == {
        "profile",
        "params_file",
        "namespace",
        "image",
        "camera_info",
        "odom",
        "depth",
        "mask",
        "use_sim_time",
        "autostart",
        "rviz",
        "log_level",
    }
    assert all(len(description) > 10 for _, description in arguments.values())
    *declared, _ = launch_file["generate_launch_description"]()
    assert declared == list(arguments)
    assert len(LAUNCH.read_text().splitlines()) <= 80


def test_a_camera_is_connected_by_launch_arguments(launch_file):
    names = {"image", "camera_info", "odom", "depth", "mask"}
    assert rules(launch_file) == {name: name for name in names | {"image/compressed"}}
    asked = {name: f"/robot/{name}_raw" for name in names}
    assert rules(launch_file, **asked) == {**asked, "image/compressed": "/robot/image_raw/compressed"}


@contextmanager
def configured(*arguments, **settings):
    """The node in this process, with its topics open; every optional one besides."""
    import rclpy
    from rclpy.context import Context
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter

    from pose_bridge.ros.node import PoseBridgeNode

    optional = ("image.use_depth", "image.use_mask", "tf.publish_map_odom", "tf.publish_pairs")
    settings = dict.fromkeys(optional, True) | settings
    overrides = [Parameter(name, value=value) for name, value in settings.items()]
    context = Context()
    rclpy.init(context=context, domain_id=free_domain(), args=["--ros-args", *arguments])
    node = PoseBridgeNode(context=context, parameter_overrides=overrides)
    try:
        assert node.trigger_configure() is TransitionCallbackReturn.SUCCESS
        yield node
    finally:
        node.close()
        node.destroy_node()
        context.shutdown()


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_node_hears_what_the_launch_file_connects(launch_file, transport):
    require_ros()
    asked = {name: f"/robot/{name}_raw" for name in ("image", "camera_info", "odom", "depth", "mask")}
    remap = [word for topic, to in rules(launch_file, **asked).items() for word in ("-r", f"{topic}:={to}")]
    with configured(*remap, **{"image.transport": transport}) as node:
        heard = {subscription.topic_name for subscription in node.subscriptions}
    if transport == "compressed":
        asked["image"] += "/compressed"
    assert set(asked.values()) <= heard


def test_the_documented_qos_is_the_nodes():
    require_ros()
    documented = (ROOT / "docs" / "ros_interface.md").read_text()
    rows = re.findall(r"^\| `(\S+)`[^|]*\| [^|]+/[^|]+ \| ([a-z ]+, \d+[^|]*) \|", documented, re.MULTILINE)
    assert len(rows) == 17
    with configured() as node:
        found = {
            node.resolve_topic_name(end.topic_name): end.qos_profile
            for end in [*node.subscriptions, *node.publishers]
        }
        for topic, words in rows:
            qos = found[node.resolve_topic_name(topic)]
            said = [qos.reliability.name, str(qos.depth), qos.durability.name]
            expected = ", ".join(said).replace("_", " ").lower().removesuffix(", volatile")
            assert words == expected, topic


def test_the_view_shows_what_the_interface_names():
    view = yaml.safe_load((ROOT / "rviz" / "pose_bridge.rviz").read_text())
    topics = [
        display["Topic"]["Value"]
        for display in view["Visualization Manager"]["Displays"]
        if "Topic" in display
    ]
    documented = (ROOT / "docs" / "ros_interface.md").read_text()
    assert len(topics) == 3
    assert all(f"`{topic.replace('pose_bridge/', '~/')}`" in documented for topic in topics)


SEGMENTS = """
import os, rclpy
sizes = lambda: {name: os.stat(f"/dev/shm/{name}").st_size for name in os.listdir("/dev/shm")}
before = sizes()
rclpy.init()
node = rclpy.create_node("pictures")
print(max(size for name, size in sizes().items() if name not in before))
rclpy.shutdown()
"""


def test_fast_dds_takes_the_profile():
    require_ros()
    profile = ROOT / "config" / "fastdds.xml"
    sizes = {element.tag.split("}")[-1]: element.text for element in ET.parse(profile).iter()}
    assert sizes["segment_size"] == str(16 * 2**20)
    assert sizes["sendBufferSize"] == sizes["receiveBufferSize"] == str(4 * 2**20)
    environment = {
        **os.environ,
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-c", SEGMENTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 16 * 2**20
