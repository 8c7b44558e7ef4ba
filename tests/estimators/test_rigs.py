# SPDX-License-Identifier: Apache-2.0
"""Two rigid sides: found from few matches, upright or not, and denied by what is not there."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from synthetic import FOCAL_PX, problem

from pose_bridge import covariance, scale
from pose_bridge.config import RigsConfig, ScaleConfig, VerificationConfig
from pose_bridge.control import Control
from pose_bridge.errors import CancelledError, NoEstimateError
from pose_bridge.estimators import odometry_bundle
from pose_bridge.estimators.base import Estimate, Problem
from pose_bridge.estimators.rigs import RigEstimator
from pose_bridge.estimators.sides import Sides
from pose_bridge.geometry import distances, rigid, rotations, uncertainty
from pose_bridge.views import Question, ScaleSource, Translation

R_BASE_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
T_MAP_ODOM = rigid.make(rotations.so3_exp([0.0, 0.0, 2.2]), [3.0, -1.0, 0.0])
MAPPED = ((-2.0, -0.6, 0.0), (-2.0, 0.0, 5.0), (-1.9, 0.6, -5.0))  # x, y, yaw in degrees; looking along x
SEEN = ((2.6, 0.4, 170.0), (2.4, -0.3, 185.0), (2.7, -0.5, 178.0))


def standing(x_m: float, y_m: float, yaw_deg: float) -> np.ndarray:
    R = rotations.so3_exp([0.0, 0.0, np.radians(yaw_deg)])
    return rigid.make(R @ R_BASE_CAMERA, [x_m, y_m, 0.6])


def asked(
    rng: np.random.Generator,
    wrong: float = 0.0,
    noise_px: float = 0.4,
    points: int = 160,
    level: bool = True,
    seen: Sequence[tuple[float, float, float]] = SEEN,
) -> Problem:
    """Both sides look at what stands between them; a share of the matches across the gap is wrong."""
    places = [MAPPED[0], seen[0], *MAPPED[1:], *seen[1:]]
    sides = [0, 1, 0, 0, 1, 1]
    world = rng.uniform([-0.7, -1.2, 0.0], [0.9, 1.2, 1.4], (points, 3))
    poses = [standing(*place) for place in places]
    made = problem(poses, world, rng, noise_px=noise_px, odometry=True, sides=sides)
    T_odom_map = rigid.inverse(T_MAP_ODOM)
    views = [
        dataclasses.replace(view, T_side_camera=T_odom_map @ T if side else T, stamp_ns=index)
        for index, (view, T, side) in enumerate(zip(made.views, poses, sides, strict=True))
    ]
    matches = {}
    for (a, b), pairs in made.matches.items():
        mixed = pairs.copy()
        if sides[a] != sides[b]:
            lost = rng.permutation(len(pairs))[: int(wrong * len(pairs))]
            mixed[lost, 1] = rng.permutation(len(pairs))[: len(lost)]
        matches[a, b] = mixed
    return dataclasses.replace(made, views=views, matches=matches, level=level)


def error(asked_: Problem, found: Estimate) -> tuple[float, float]:
    """Degrees of the rotation and of the direction."""
    T_map_reference, T_odom_target = (asked_.views[end].T_side_camera for end in (0, 1))
    T_true = rigid.relative(T_map_reference, T_MAP_ODOM @ T_odom_target)
    T = found.T_reference_target
    return (
        distances.rotation_error_deg(T[:3, :3], T_true[:3, :3]),
        distances.translation_error_deg(T[:3, 3], T_true[:3, 3]),
    )


@pytest.mark.parametrize("wrong", [0.0, 0.5, 0.9])
def test_found_among_many_wrong_matches(wrong: float) -> None:
    made = asked(np.random.default_rng(0), wrong)
    found = RigEstimator(RigsConfig()).estimate(made, Control())
    assert max(error(made, found)) < 1.0
    assert found.rigid_sides
    assert set(found.T_reference_camera) == set(range(6))


def test_frames_that_nobody_calls_level() -> None:
    """Six numbers instead of three: fewer wrong matches are borne."""
    made = asked(np.random.default_rng(1), 0.6, level=False)
    T_tilt = rigid.make(rotations.so3_exp([0.5, 0.3, 0.0]), [0.0, 0.0, 2.0])
    tilted = [
        dataclasses.replace(view, T_side_camera=T_tilt @ view.T_side_camera) if side else view
        for view, side in zip(made.views, made.sides, strict=True)
    ]
    found = RigEstimator(RigsConfig()).estimate(dataclasses.replace(made, views=tilted), Control())
    assert max(error(made, found)) < 1.0


def test_odometry_that_errs_is_corrected_by_the_pictures() -> None:
    rng = np.random.default_rng(2)
    made = asked(rng)
    drifted = [
        dataclasses.replace(
            view,
            T_side_camera=view.T_side_camera
            @ rigid.make(rotations.so3_exp([0.0, np.radians(rng.normal(0.0, 0.5)), 0.0]), np.zeros(3)),
        )
        if index > 1
        else view
        for index, view in enumerate(made.views)
    ]
    found = RigEstimator(RigsConfig()).estimate(dataclasses.replace(made, views=drifted), Control())
    assert max(error(made, found)) < 0.7


def test_the_covariance_holds() -> None:
    """Pose of the target, in metres, over many draws of noise, of keypoints and of odometry."""
    squared = []
    for seed in range(15):
        rng = np.random.default_rng(100 + seed)
        made = asked(rng, points=60)
        noisy = [
            dataclasses.replace(
                view,
                T_side_camera=view.T_side_camera
                @ rigid.make(
                    rotations.so3_exp(rng.normal(0.0, np.radians(0.5), 3)), rng.normal(0.0, 0.01, 3)
                ),
            )
            for view in made.views
        ]
        drawn = dataclasses.replace(made, views=noisy)
        found = RigEstimator(RigsConfig()).estimate(drawn, Control())
        T_true = rigid.relative(made.views[0].T_side_camera, T_MAP_ODOM @ made.views[1].T_side_camera)
        off = uncertainty.error_vector(found.T_reference_target, T_true).reshape(2, 3)
        own = found.covariance[:3, :3], found.covariance[3:, 3:]
        squared.append([d @ np.linalg.solve(matrix, d) for d, matrix in zip(off, own, strict=True)])
    middle = np.mean(squared, axis=0)
    assert ((middle > 1.0) & (middle < 7.0)).all()  # 3 if exact; two of the errors are of the ends themselves


def test_next_to_the_reference_the_place_is_known_and_no_direction() -> None:
    """As of a robot that is where it was, and has turned a little."""
    near = ((-2.0, -0.59, 4.0), *((x + 0.3, y, yaw + 3.0) for x, y, yaw in MAPPED[1:]))
    made = asked(np.random.default_rng(3), seen=near)
    found = RigEstimator(RigsConfig()).estimate(made, Control())
    T_true = rigid.relative(made.views[0].T_side_camera, T_MAP_ODOM @ made.views[1].T_side_camera)
    assert np.linalg.norm(T_true[:3, 3]) < 0.02
    metres = scale.metric_scale(made, found, ScaleConfig())
    assert (metres.factor, metres.source) == (1.0, ScaleSource.ODOMETRY)
    T, in_metres = covariance.with_scale(found, metres.factor, metres.sigma)
    assert uncertainty.nees(T, in_metres, T_true) < 20.0
    assert np.sqrt(np.trace(in_metres[:3, :3])) < 0.05
    assert covariance.translation(found, in_metres, VerificationConfig())[0] is Translation.METRIC


@pytest.mark.parametrize("ramp_deg", [0.0, 7.0])
def test_a_floor_that_is_not_level_is_found_out(ramp_deg: float) -> None:
    """The belief in a level floor pulls the answer; what is asked for the gates is not pulled."""
    made = asked(np.random.default_rng(9), points=40)
    poses = [standing(*place) for place in (MAPPED[0], SEEN[0], *MAPPED[1:], *SEEN[1:])]
    T_ramp = rigid.make(rotations.so3_exp([np.radians(ramp_deg), 0.0, 0.0]), np.zeros(3))
    views = [
        dataclasses.replace(view, T_side_camera=T_ramp @ view.T_side_camera) if side else view
        for view, side in zip(made.views, made.sides, strict=True)
    ]
    estimator, sides = RigEstimator(RigsConfig()), Sides(dataclasses.replace(made, views=views), 1.5)
    T_true = rigid.relative(poses[0], poses[1])
    tracks, points = sides.joined(T_true)
    cameras = {**sides.rigs[0].T_rig_camera, **sides.cameras(T_true)}
    found, _ = estimator._adjusted(sides.problem, cameras, points, tracks, Control())
    level = list(estimator._level(sides.problem, set(found.T_reference_camera)))
    T, covariance = odometry_bundle.without(found, level)
    off_deg = distances.rotation_error_deg(T[:3, :3], T_true[:3, :3])
    assert off_deg < 1.0
    up_map = (poses[0][:3, :3] @ T[:3, :3] @ views[1].T_side_camera[:3, :3].T)[2, 2]
    assert np.degrees(np.arccos(np.clip(up_map, -1.0, 1.0))) == pytest.approx(ramp_deg, abs=1.0)
    assert np.degrees(np.sqrt(np.linalg.eigvalsh(covariance[3:, 3:])[-1])) < 1.0


def test_too_few_matches() -> None:
    made = asked(np.random.default_rng(3))
    cut = {
        pair: matches[:3] if made.sides[pair[0]] != made.sides[pair[1]] else matches
        for pair, matches in made.matches.items()
    }
    with pytest.raises(NoEstimateError, match="tie the two sides"):
        RigEstimator(RigsConfig()).estimate(dataclasses.replace(made, matches=cut), Control())


def test_cancelled() -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        RigEstimator(RigsConfig()).estimate(asked(np.random.default_rng(4)), Control(cancelled))


def test_which_questions_it_answers() -> None:
    views = asked(np.random.default_rng(5)).views
    question = Question(
        reference=views[0], target=views[1], reference_context=(views[2],), target_context=(views[4],)
    )
    assert RigEstimator.applies(question)
    lost = dataclasses.replace(views[4], T_side_camera=None)
    assert not RigEstimator.applies(dataclasses.replace(question, target_context=(lost,)))
    still = dataclasses.replace(question, reference_context=(), target_context=())
    assert not RigEstimator.applies(still)  # nobody moved: there are no points


# --- what should be there


def beside(rng: np.random.Generator, linked: bool) -> tuple[Sides, np.ndarray]:
    """The target stands beside the reference and sees all that it saw, or nothing of it."""
    poses = [standing(*place) for place in (MAPPED[0], (-1.9, -0.3, 2.0), *MAPPED[1:])]
    world = rng.uniform([-0.5, -1.0, 0.2], [1.0, 1.0, 1.2], (200, 3))
    made = problem(poses, world, rng, odometry=True, sides=[0, 1, 0, 0])
    matches = {pair: found if linked or 1 not in pair else found[:0] for pair, found in made.matches.items()}
    made = dataclasses.replace(made, matches=matches)
    return Sides(made, 1.5), rigid.relative(poses[0], poses[1])


@pytest.mark.parametrize("linked", [True, False])
def test_a_view_confirms_or_denies(linked: bool) -> None:
    sides, T = beside(np.random.default_rng(6), linked)
    witnesses = sides.witnesses(sides.cameras(T))
    assert (witnesses.confirmed, witnesses.denied) == ((1, 0) if linked else (0, 1))


def test_a_view_that_looks_elsewhere_says_nothing() -> None:
    sides, T = beside(np.random.default_rng(7), False)
    away = rigid.make(T[:3, :3] @ rotations.so3_exp([0.0, np.pi, 0.0]), T[:3, 3])
    witnesses = sides.witnesses(sides.cameras(away))
    assert (witnesses.confirmed, witnesses.denied) == (0, 0)


def test_points_of_both_sides_become_one() -> None:
    made = asked(np.random.default_rng(8), noise_px=0.0)
    sides = Sides(made, 1.5)
    T_map_reference, T_odom_target = (made.views[end].T_side_camera for end in (0, 1))
    T = rigid.relative(T_map_reference, T_MAP_ODOM @ T_odom_target)
    assert all(error.max() * FOCAL_PX < 1e-6 for error in sides.errors(T))
    tracks, points = sides.joined(T)
    assert len(points) == 160
    seen = tracks.visible(6)
    assert (seen >= 0).all()
    np.testing.assert_array_equal(seen, np.repeat(seen[:, :1], 6, axis=1))  # keypoint k shows point k
