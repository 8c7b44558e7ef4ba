# SPDX-License-Identifier: Apache-2.0
"""What is written twice says the same twice: definitions, enums, documentation. Needs no ROS."""

import re
from enum import IntEnum
from pathlib import Path

import pytest

from pose_bridge import views
from pose_bridge.errors import ErrorCode
from pose_bridge.ros import reference

ROOT = Path(__file__).resolve().parents[2]
ACTIONS = sorted((ROOT / "action").glob("*.action"))
ENUMS = {
    "STATUS": views.Status,
    "REASON": views.Reason,
    "TRANSLATION": views.Translation,
    "SCALE": views.ScaleSource,
    "STAGE": views.Stage,
}


def in_file(path: str) -> dict[str, int]:
    return reference.constants((ROOT / path).read_text())


def named(enum: type[IntEnum], prefix: str = "") -> dict[str, int]:
    return {f"{prefix}{item.name}": int(item) for item in enum}


def test_the_message_has_the_constants_of_the_library():
    library = {}
    for prefix, enum in ENUMS.items():
        library |= named(enum, f"{prefix}_")
    assert in_file("msg/RelativePose.msg") == library


def test_the_actions_have_the_codes_of_the_library():
    assert len(ACTIONS) == 2
    everywhere = {}
    for action in ACTIONS:
        codes = {name: code for name, code in in_file(action).items() if code >= 10000 or name == "NONE"}
        assert codes.items() <= named(ErrorCode).items()
        everywhere |= codes
    assert everywhere == named(ErrorCode)


def test_a_goal_asks_for_what_the_library_knows():
    goal = in_file("action/EstimateRelativePose.action")
    assert {name: value for name, value in goal.items() if name.startswith("REQUIRE_")} == named(
        views.Require, "REQUIRE_"
    )


def test_every_definition_is_built_and_documented():
    files = {
        str(path.relative_to(ROOT)) for kind in ("msg", "action", "srv") for path in (ROOT / kind).iterdir()
    }
    built = re.findall(r"^ +((?:msg|action|srv)/\S+)$", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert set(built) == files
    assert set(reference.DEFINITIONS) == files


def test_the_documentation_is_up_to_date():
    written = (ROOT / "docs" / "ros_interface.md").read_text(encoding="utf-8")
    assert written == reference.reference(ROOT), "run python -m pose_bridge.ros.reference"


def test_every_error_code_has_a_remedy():
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.*?) \| (.*?) \|$", reference.reference(ROOT), re.MULTILINE)
    assert {name: int(code) for code, name, _, _ in rows} == named(ErrorCode)
    assert [name for _, name, remedy, _ in rows if len(remedy) < 15] == ["NONE"]
    assert all(where for _, _, _, where in rows)


def test_no_module_of_the_library_hides_the_messages():
    assert not {"msg", "action", "srv"} & {path.stem for path in (ROOT / "pose_bridge").iterdir()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("uint8 A_B=3\nuint16 CODE=10000", {"A_B": 3, "CODE": 10000}),
        ("uint8 require 1\n# uint8 NOT=1\nfloat32 budget_s 0.0\nbool use_prior false", {}),
    ],
)
def test_constants_are_found(text, found):
    assert reference.constants(text) == found
