# SPDX-License-Identifier: Apache-2.0
"""Starts the node, and RViz beside it if asked."""

from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "profile": ("real", "which models to use; `pose_bridge models list` shows them"),
    "params_file": ("", "parameters of the node, as YAML; empty: the defaults"),
    "namespace": ("", "namespace of the node and of its relative topics"),
    "image": ("image", "topic of the camera's pictures; with image.transport compressed, those below it"),
    "camera_info": ("camera_info", "topic of the camera's calibration"),
    "odom": ("odom", "topic of odometry"),
    "depth": ("depth", "topic of depth images, which image.use_depth asks for"),
    "mask": ("mask", "topic of masks, which image.use_mask asks for"),
    "use_sim_time": ("false", "take the time from /clock"),
    "autostart": ("true", "configure and activate the node; false where a lifecycle manager does"),
    "rviz": ("false", "start RViz with a view of keyframes, poses and hypotheses"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
}
TOPICS = ("image", "camera_info", "odom", "depth", "mask")


def profile(folder: Path, name: str) -> dict[str, Any]:
    """Return what a profile sets, as parameters."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in folder.glob("*.yaml")))
        raise RuntimeError(f"no profile is called {name!r}; there are {known}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def nodes(context: LaunchContext) -> list[Node]:
    """Return the nodes, once the arguments are known."""
    share = Path(get_package_share_directory("pose_bridge"))
    settings = profile(share / "config" / "profiles", LaunchConfiguration("profile").perform(context))
    params_file = LaunchConfiguration("params_file").perform(context)
    sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    autostart = {"autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool)}
    return [
        LifecycleNode(
            package="pose_bridge",
            executable="node",
            name="pose_bridge",
            namespace=LaunchConfiguration("namespace"),
            parameters=[settings, *([params_file] if params_file else []), sim_time, autostart],
            remappings=[
                *((topic, LaunchConfiguration(topic)) for topic in TOPICS),
                ("image/compressed", [LaunchConfiguration("image"), "/compressed"]),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
        ),
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=LaunchConfiguration("namespace"),
            parameters=[sim_time],
            arguments=["-d", str(share / "rviz" / "pose_bridge.rviz")],
            condition=IfCondition(LaunchConfiguration("rviz")),
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the nodes."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
