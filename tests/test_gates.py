# SPDX-License-Identifier: Apache-2.0
"""Each gate stops a wrong pose that nothing else in the house would stop."""

import dataclasses

import numpy as np
import pytest
import synthetic

from pose_bridge.bridge import Bridge, Rung
from pose_bridge.config import Config, GatesConfig
from pose_bridge.control import Control
from pose_bridge.estimators.base import Estimate, Problem, scaled_cameras
from pose_bridge.gates import Claim, conflict
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Answer, Prior, Question, Reason, Stage, Status, Translation, View

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


# --- through the bridge: the pictures agree with the answer, and only what else is known speaks against it

UNIT_M = 1.7  # of the estimate's lengths
CENTRE = moved(0.0, 0.0, 0.6) @ rigid.make(R_SIDE_CAMERA, np.zeros(3))
T_DRIVEN = dict(zip(NAMES, (CENTRE @ T for T in synthetic.arc([0.0, 40.0, 10.0, 30.0])), strict=True))


class Told:
    """An estimator that finds what it was told to find."""

    name, stage = "sfm", Stage.CONTEXT

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate

    def estimate(self, problem: Problem, control: Control) -> Estimate:
        return self._estimate


def in_place(T: np.ndarray, change: np.ndarray) -> np.ndarray:
    """A change of the map that leaves a camera where it is."""
    place = moved(*T[:3, 3])
    return place @ change @ rigid.inverse(place)


def seen_elsewhere(change_in_map: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    return {name: change_in_map @ T if name in names else T for name, T in T_DRIVEN.items()}


def answered(
    T_seen: dict[str, np.ndarray],
    gates: GatesConfig,
    T_prior: np.ndarray | None = None,
    T_unleveled: np.ndarray | None = None,
) -> Answer:
    """What the bridge says where pictures show the cameras, and odometry has them on `T_DRIVEN`."""
    rng = np.random.default_rng(0)
    points = rigid.transform(CENTRE, synthetic.cloud(rng, 200))
    shown = synthetic.problem(list(T_seen.values()), points, rng, noise_px=0.3, sides=list(SIDES))
    views = [
        dataclasses.replace(view, T_side_camera=rigid.inverse(T_MAP_ODOM) @ T if side else T)
        for view, T, side in zip(shown.views, T_DRIVEN.values(), SIDES, strict=True)
    ]
    problem = dataclasses.replace(shown, views=views)
    T_reference_camera = {index: rigid.relative(T_seen["r"], T) for index, T in enumerate(T_seen.values())}
    estimate = Estimate(
        stage=Stage.CONTEXT,
        estimator="sfm",
        T_reference_camera=scaled_cameras(T_reference_camera, 1.0 / UNIT_M),
        tracks=synthetic.all_tracks(len(NAMES), len(points)),
        points=rigid.transform(rigid.inverse(T_seen["r"]), points) / UNIT_M,
        rms_px=0.4,
        joint_covariance=SIGMA**2 * np.eye(18),
        covariance_views=(1, 2, 3),
        unleveled=None if T_unleveled is None else (T_unleveled, SIGMA**2 * np.eye(6)),
    )
    bridge = Bridge(Config(gates=gates))
    bridge._rungs = (Rung(lambda *_: problem, Told(estimate)),)
    question = Question(
        reference=views[0],
        target=views[1],
        reference_context=(views[2],),
        target_context=(views[3],),
        prior=None if T_prior is None else dataclasses.replace(PRIOR, T_reference_target=T_prior),
        upright=True,
        common_ground=True,
        min_stage=Stage.CONTEXT,
    )
    return bridge.answer(question)


T_TARGET = rigid.relative(T_DRIVEN["r"], T_DRIVEN["t"])
TILTED = in_place(T_DRIVEN["t"], turned("x", 8))
CONTRADICTED = {
    "tilt": ("max_tilt_deg", Reason.GRAVITY_CONFLICT, "tilted", (TILTED, "t", "t1"), {}),
    "height": ("max_height_m", Reason.GRAVITY_CONFLICT, "above", (moved(0, 0, 0.5), "t", "t1"), {}),
    "side turn": (
        "max_side_turn_deg",
        Reason.ODOMETRY_CONFLICT,
        "turns view v3",
        (in_place(T_DRIVEN["t1"], turned("z", 9)), "t1"),
        {},
    ),
    "side shift": (
        "max_side_shift_m",
        Reason.ODOMETRY_CONFLICT,
        "view v3 0.36 m elsewhere",
        (in_place(T_DRIVEN["t"], turned("z", 30)) @ in_place(T_DRIVEN["t1"], turned("z", -30)), "t1"),
        {},
    ),
    "prior": (
        "max_prior_sigma",
        Reason.ODOMETRY_CONFLICT,
        "prior",
        (moved(0.8, 0, 0), "t", "t1"),
        {"T_prior": T_TARGET},
    ),
    "tilt, were it not made level": (
        "max_tilt_deg",
        Reason.GRAVITY_CONFLICT,
        "tilted",
        (np.eye(4),),
        {"T_unleveled": rigid.relative(T_DRIVEN["r"], TILTED @ T_DRIVEN["t"])},
    ),
}


def test_the_bridge_accepts_what_nothing_contradicts() -> None:
    answer = answered(T_DRIVEN, GatesConfig(), T_TARGET, T_TARGET)
    assert answer.accepted, answer.reason_text
    np.testing.assert_allclose(answer.T_reference_target, T_TARGET, atol=1e-9)


@pytest.mark.parametrize("what", CONTRADICTED)
def test_one_gate_of_the_bridge_stops_a_good_estimate(what: str) -> None:
    gate, reason, text, elsewhere, known = CONTRADICTED[what]
    stopped = answered(seen_elsewhere(*elsewhere), GatesConfig(), **known)
    assert (stopped.status, stopped.reason) == (Status.REJECTED, reason), stopped.reason_text
    assert text in stopped.reason_text
    assert stopped.evidence is not None
    let_through = answered(seen_elsewhere(*elsewhere), GatesConfig(**{gate: widest(gate)}), **known)
    assert let_through.accepted, let_through.reason_text
    assert let_through.translation is Translation.METRIC
