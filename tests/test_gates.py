# SPDX-License-Identifier: Apache-2.0
"""Each gate stops a wrong pose that nothing else in the house would stop."""

import dataclasses

import numpy as np
import pytest

from pose_bridge.config import GatesConfig
from pose_bridge.estimators.base import Problem
from pose_bridge.gates import Claim, conflict
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Prior, Question, Reason, Translation, View

CAMERA = Camera.from_focal_px(60.0, 80, 60)
# camera axes in a frame with z up: looking along x
R_SIDE_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
GATES = ("max_side_turn_deg", "max_side_shift_m", "max_tilt_deg", "max_height_m", "max_prior_sigma")
SIGMA = 0.002


def turned(axis: str, angle_deg: float) -> np.ndarray:
    return rigid.make(rotations.so3_exp(np.radians(angle_deg) * np.eye(3)["xyz".index(axis)]), np.zeros(3))


def moved(*t: float) -> np.ndarray:
    return rigid.make(np.eye(3), t)


def standing(x: float, y: float, yaw_deg: float = 0.0, height: float = 0.6) -> np.ndarray:
    """T_side_camera of a camera on a robot."""
    return moved(x, y, height) @ turned("z", yaw_deg) @ rigid.make(R_SIDE_CAMERA, np.zeros(3))


# where the cameras are in the map; the target's side only knows its own odometry
T_MAP = {
    "r": standing(0, 0),
    "t": standing(2, 1, 170),
    "r1": standing(0.4, 0.1, 10),
    "t1": standing(2.1, 1.4, 150),
}
T_MAP_ODOM = moved(1.3, -0.7, 0.0) @ turned("z", 75)
NAMES = ("r", "t", "r1", "t1")
SIDES = (0, 1, 0, 1)


def view(name: str, side: int, index: int) -> View:
    T = T_MAP[name] if side == 0 else rigid.inverse(T_MAP_ODOM) @ T_MAP[name]
    image = np.full((60, 80, 3), index, np.uint8)
    return View(id=name, image=image, camera=CAMERA, T_side_camera=T)


VIEWS = tuple(view(name, side, index) for index, (name, side) in enumerate(zip(NAMES, SIDES, strict=True)))
PROBLEM = Problem(VIEWS, (), {}, SIDES, 0)
T_TRUE = {index: rigid.relative(T_MAP["r"], T_MAP[name]) for index, name in enumerate(NAMES)}
PRIOR = Prior(
    T_reference_target=T_TRUE[1] @ moved(0.05, 0, 0), covariance=np.diag([0.1**2] * 3 + [0.05**2] * 3)
)
QUESTION = Question(
    reference=VIEWS[0],
    target=VIEWS[1],
    reference_context=VIEWS[2:3],
    target_context=VIEWS[3:],
    prior=PRIOR,
    upright=True,
    common_ground=True,
)


def claim(T: dict[int, np.ndarray] = T_TRUE, translation: Translation = Translation.METRIC) -> Claim:
    return Claim(T, SIGMA**2 * np.eye(6), translation)


def target_side(change_in_map: np.ndarray) -> Claim:
    """A claim that has the whole target side elsewhere, so that each side fits itself as well as before."""
    T_map_reference = T_MAP["r"]
    return claim(
        {
            index: rigid.inverse(T_map_reference) @ change_in_map @ T_MAP[name]
            if SIDES[index]
            else T_TRUE[index]
            for index, name in enumerate(NAMES)
        }
    )


def context_view(change: np.ndarray) -> Claim:
    return claim({**T_TRUE, 3: T_TRUE[3] @ change})


WRONG = [
    pytest.param(context_view(turned("y", 9)), "max_side_turn_deg", Reason.ODOMETRY_CONFLICT, id="side turn"),
    pytest.param(
        context_view(moved(0.4, 0, 0)), "max_side_shift_m", Reason.ODOMETRY_CONFLICT, id="side shift"
    ),
    pytest.param(target_side(turned("x", 6)), "max_tilt_deg", Reason.GRAVITY_CONFLICT, id="gravity"),
    pytest.param(
        target_side(moved(0, 0, 0.3)), "max_height_m", Reason.GRAVITY_CONFLICT, id="above the ground"
    ),
    pytest.param(target_side(moved(0, 0, -0.3)), "max_height_m", Reason.GRAVITY_CONFLICT, id="below"),
    pytest.param(
        target_side(moved(0.8, 0, 0)), "max_prior_sigma", Reason.ODOMETRY_CONFLICT, id="prior, place"
    ),
    pytest.param(target_side(turned("z", 40)), "max_prior_sigma", Reason.ODOMETRY_CONFLICT, id="prior, turn"),
]


def widest(name: str) -> float:
    return next(f for f in dataclasses.fields(GatesConfig) if f.name == name).metadata["high"]


def test_the_truth_passes() -> None:
    for translation in Translation:
        assert conflict(claim(translation=translation), QUESTION, PROBLEM, GatesConfig()) is None


@pytest.mark.parametrize(("wrong", "gate", "reason"), WRONG)
def test_only_one_gate_stops_it(wrong: Claim, gate: str, reason: Reason) -> None:
    question = QUESTION if gate == "max_prior_sigma" else dataclasses.replace(QUESTION, prior=None)
    found = conflict(wrong, question, PROBLEM, GatesConfig())
    assert found is not None
    assert found[0] is reason
    assert any(character.isdigit() for character in found[1])
    assert conflict(wrong, question, PROBLEM, GatesConfig(**{gate: widest(gate)})) is None


def test_a_direction_is_checked_against_the_prior_too() -> None:
    wrong = target_side(moved(0, 2.0, 0))
    wrong = dataclasses.replace(wrong, translation=Translation.DIRECTION)
    found = conflict(wrong, QUESTION, PROBLEM, GatesConfig())
    assert found is not None
    assert "direction" in found[1]
    unknown = dataclasses.replace(wrong, translation=Translation.UNDEFINED)
    assert conflict(unknown, QUESTION, PROBLEM, GatesConfig()) is None


def test_what_is_not_known_is_not_checked() -> None:
    """No poses, frames that need not be upright, or no metres: nothing to contradict."""
    without = [dataclasses.replace(v, T_side_camera=None) for v in VIEWS]
    question = dataclasses.replace(
        QUESTION, reference=without[0], target=without[1], reference_context=(), target_context=(), prior=None
    )
    problem = dataclasses.replace(PROBLEM, views=without)
    wrong = target_side(turned("x", 30) @ moved(0, 0, 2))
    assert conflict(wrong, question, problem, GatesConfig()) is None
    handheld = dataclasses.replace(QUESTION, prior=None, upright=False, common_ground=False)
    assert conflict(wrong, handheld, PROBLEM, GatesConfig()) is None
    higher = dataclasses.replace(target_side(moved(0, 0, 2)), translation=Translation.DIRECTION)
    assert conflict(higher, dataclasses.replace(QUESTION, prior=None), PROBLEM, GatesConfig()) is None


def test_an_uncertain_answer_may_miss_by_more() -> None:
    wrong = target_side(turned("x", 6))
    question = dataclasses.replace(QUESTION, prior=None)
    unsure = dataclasses.replace(wrong, covariance=np.diag([0.1**2] * 3 + [np.radians(2) ** 2] * 3))
    assert conflict(wrong, question, PROBLEM, GatesConfig()) is not None
    assert conflict(unsure, question, PROBLEM, GatesConfig()) is None


@pytest.mark.parametrize("gate", ["max_tilt_deg", "max_height_m"])
def test_an_answer_that_was_made_level_is_asked_as_it_would_be_otherwise(gate: str) -> None:
    off = {"max_tilt_deg": turned("x", 12), "max_height_m": moved(0.0, 0.0, 0.5)}[gate]
    T = rigid.inverse(T_MAP["r"]) @ off @ T_MAP["t"]
    covariance = np.diag([SIGMA**2] * 6)
    claim = Claim(T_TRUE, covariance, Translation.METRIC, (T, covariance))
    reason, _ = conflict(claim, QUESTION, PROBLEM, GatesConfig())
    assert reason is Reason.GRAVITY_CONFLICT
    unsure = dataclasses.replace(claim, unleveled=(T, np.diag([0.5**2] * 6)))
    assert conflict(unsure, QUESTION, PROBLEM, GatesConfig()) is None
