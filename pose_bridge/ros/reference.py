# SPDX-License-Identifier: Apache-2.0
"""Writes docs/ros_interface.md from the interface definitions, errors.py and config.py; needs no ROS.

python -m pose_bridge.ros.reference
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from pose_bridge import errors
from pose_bridge.config import Config
from pose_bridge.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = """## Parameters

Written out with their defaults in `config/default.yaml`. Besides, `autostart` (false) has the node configure
and activate itself when it starts, where no lifecycle manager does."""
DEFINITIONS = (
    "action/EstimateRelativePose.action",
    "action/Relocalize.action",
    "msg/RelativePose.msg",
    "msg/View.msg",
    "msg/Hypothesis.msg",
    "msg/LoopClosureCandidate.msg",
    "srv/SetMapPose.srv",
    "srv/MapFile.srv",
)
HEAD = """\
<!-- Written by `python -m pose_bridge.ros.reference`; a test compares. -->
# The ROS interface

All names are relative: a namespace moves everything. `~` stands for the node's name, `pose_bridge`.

## Topics in

| topic | type | QoS | what for |
|---|---|---|---|
| `image` or `image/compressed` | sensor_msgs/Image, CompressedImage | best effort, 10 | the camera |
| `camera_info` | sensor_msgs/CameraInfo | best effort, 50 | its calibration, of the same size |
| `odom` | nav_msgs/Odometry | best effort, 50 | where the base was at capture; metres |
| `depth` (optional) | sensor_msgs/Image | best effort, 10 \
| registered to the image: 32FC1 in metres or 16UC1 in millimetres |
| `mask` (optional) | sensor_msgs/Image | best effort, 10 \
| mono8, 0 where the picture shows the robot itself |
| `~/loop_closure_candidates` | pose_bridge/LoopClosureCandidate | reliable, 10 \
| pairs to check, from a SLAM system |
| `~/kidnapped` | std_msgs/Empty | reliable, 10 | the robot was carried: its odometry is broken |

## Topics out

| topic | type | QoS | what comes |
|---|---|---|---|
| `~/relative_pose` | pose_bridge/RelativePose | reliable, 10 | accepted answers only |
| `~/relative_pose_audit` | pose_bridge/RelativePose | reliable, 10 | every answer |
| `~/loop_closures` | pose_bridge/RelativePose | reliable, 10 | the answer to each candidate, yes or no |
| `~/pose` | geometry_msgs/PoseWithCovarianceStamped | reliable, 10 | base in map, with the full covariance |
| `initialpose` | geometry_msgs/PoseWithCovarianceStamped | reliable, 10 \
| the same for nav2's AMCL: a diagonal bounds it |
| `~/markers` | visualization_msgs/MarkerArray | reliable, 1, transient local | keyframes and hypotheses |
| `~/bridge_views` | sensor_msgs/Image | reliable, 1 \
| the views that bridged, side by side, while someone looks |
| `/tf` | tf2_msgs/TFMessage | reliable, 100 \
| map -> odom, with `tf.publish_map_odom`, once the robot is localized |
| `/tf_static` | tf2_msgs/TFMessage | reliable, 1, transient local \
| both ends of accepted metric answers, with `tf.publish_pairs` |
| `diagnostics` | diagnostic_msgs/DiagnosticArray | reliable, 10 \
| rates, ages and causes, the worker, what was answered |

## Quality of service

Reliability, depth, and durability where it is not volatile; a test compares them with a node's. Those of
pictures, depth and masks are the defaults of `image.reliability` and `image.depth`. Best effort takes from
any publisher, reliable from reliable ones only; `diagnostics` names those that cannot be heard.

Large pictures do not get through Fast DDS as it comes: with best effort, 5 of 300 of 640x480 (rgb8) at 30 Hz
arrived, but all 240 of 320x240. With 16 MB of shared memory and UDP buffers of 4 MB (`config/fastdds.xml`),
or reliable on both sides, all 240 of 640x480 did. Use that file for the node and for whatever sends pictures:

    profile=$(ros2 pkg prefix --share pose_bridge)/config/fastdds.xml
    export FASTRTPS_DEFAULT_PROFILES_FILE=$profile  # Humble, Jazzy
    export FASTDDS_DEFAULT_PROFILES_FILE=$profile   # newer
    sudo sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304  # for the UDP buffers

## Actions and services

| name | type | |
|---|---|---|
| `~/estimate_relative_pose` | pose_bridge/EstimateRelativePose | a question: "no" is an answer too |
| `~/relocalize` | pose_bridge/Relocalize | a task: succeeds only when the robot is localized |
| `~/set_map_pose` | pose_bridge/SetMapPose | where odometry lies in the map |
| `~/save_map`, `~/load_map` | pose_bridge/MapFile | keyframes to and from disk |
| `~/clear_map`, `~/reset` | std_srvs/Trigger | forget the map; forget everything |

## Rules that the definitions cannot say

- **Numbers are NaN unless they are meant to be used.** Check `status`; a number that is finite may be used.
- A goal is never rejected without a word: it is accepted, then aborted with an error code and a message.
- In goals, 0 means the parameter's value.
- Covariances are row by row (x, y, z, rotation about x, y, z), along the axes of the parent frame:
  `t_true = t + dt`, `R_true = Exp(dr) R`. The information matrix is the inverse.
- An unknown scale is not a large variance: `translation` is then DIRECTION, and `pose.position` NaN.
"""
_WITHOUT_EXCEPTION = {
    ErrorCode.UNKNOWN: "Report it: this is a mistake in the program, and the node's log says more.",
    ErrorCode.MODEL_MISSING: "Fetch the weights with the command that the message names.",
}


def constants(definition: str) -> dict[str, int]:
    """Return the integer constants of an interface definition by name."""
    found = re.findall(r"^u?int\d+ +([A-Z][A-Z0-9_]*) *= *(\d+)", definition, re.MULTILINE)
    return {name: int(value) for name, value in found}


def reference(root: Path = ROOT) -> str:
    """Return the text of docs/ros_interface.md.

    Args:
        root: Of the repository.
    """
    definitions = {name: (root / name).read_text(encoding="utf-8") for name in DEFINITIONS}
    sections = [HEAD, *_error_codes(definitions), *_parameters()]
    for name, text in definitions.items():
        sections.append(f"## {name}\n\n```\n{text.strip()}\n```\n")
    return "\n".join(sections)


def _error_codes(definitions: dict[str, str]) -> Iterator[str]:
    yield "## Error codes\n\n| code | name | remedy | in |\n|---|---|---|---|"
    known = {Path(name).stem: constants(text) for name, text in definitions.items()}
    for code in ErrorCode:
        where = [interface for interface, names in known.items() if names.get(code.name) == code]
        yield f"| {int(code)} | {code.name} | {_remedy(code)} | {', '.join(where)} |"
    yield ""


def _remedy(code: ErrorCode) -> str:
    """Return what the exceptions of a code say to do."""
    raised = (kind for kind in vars(errors).values() if isinstance(kind, type) and "code" in vars(kind))
    summaries = [str(kind.__doc__).splitlines()[0] for kind in raised if vars(kind)["code"] == code]
    return _WITHOUT_EXCEPTION.get(code) or " ".join(summaries)


def _parameters() -> Iterator[str]:
    yield PARAMETERS
    for group in dataclasses.fields(Config):
        settings = getattr(Config(), group.name)
        yield f"\n### {group.name}\n\n{(type(settings).__doc__ or '').strip()}\n"
        yield "| parameter | default | range | |\n|---|---|---|---|"
        for item in dataclasses.fields(settings):
            low, high = item.metadata["low"], item.metadata["high"]
            span = "" if low is None else f"{low} to {high}"
            default = str(getattr(settings, item.name)) or "(empty)"
            yield f"| `{group.name}.{item.name}` | {default} | {span} | {item.metadata['description']} |"
    yield ""


if __name__ == "__main__":
    (ROOT / "docs" / "ros_interface.md").write_text(reference(), encoding="utf-8")
