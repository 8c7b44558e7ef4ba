# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from synthetic import arc, cloud, problem

from pose_bridge import scale
from pose_bridge.config import RegisterConfig, ScaleConfig, SfmConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Estimate, Problem
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.estimators.registration import RegistrationEstimator
from pose_bridge.estimators.sfm import SfmEstimator
from pose_bridge.geometry import distances, rigid, rotations

ANGLES_DEG = [0.0, 40.0, 10.0, -10.0]
SIDES = [0, 1, 0, 0]


def estimated(asked: Problem) -> Estimate:
    verifier = PairVerifier(SfmConfig())
    found = RegistrationEstimator(RegisterConfig(), verifier, SfmEstimator(SfmConfig(), verifier))
    return found.estimate(asked, Control())


def assert_right(found: Estimate, T_world: list[np.ndarray]) -> None:
    T, T_true = found.T_reference_target, rigid.relative(*T_world[:2])
    assert distances.rotation_error_deg(T[:3, :3], T_true[:3, :3]) < 0.5
    assert distances.translation_error_deg(T[:3, 3], T_true[:3, 3]) < 0.5


@pytest.mark.parametrize("outliers", [0.0, 0.4])
def test_by_odometry(outliers: float) -> None:
    rng = np.random.default_rng(0)
    T_world = arc(ANGLES_DEG, radius_m=3.0)
    asked = problem(
        T_world, cloud(rng, 200), rng, noise_px=0.5, odometry=True, sides=SIDES, outliers=outliers
    )
    found = estimated(asked)
    assert_right(found, T_world)
    metres = scale.metric_scale(asked, found, ScaleConfig())
    length_m = float(np.linalg.norm(rigid.relative(*T_world[:2])[:3, 3]))
    assert metres.factor == pytest.approx(length_m, rel=0.02)


def test_odometry_that_hardly_moved_gives_no_sure_metres() -> None:
    """A heading error of a third of a degree over a few centimetres: the length is known to be unsure."""
    rng = np.random.default_rng(3)
    T_world = arc([0.0, 14.0, 1.5, -1.5, 0.8], radius_m=2.0)
    asked = problem(T_world, cloud(rng, 200), rng, noise_px=0.5, odometry=True, sides=[0, 1, 0, 0, 0])
    views = list(asked.views)
    for index in (2, 3, 4):
        T = views[index].T_side_camera
        heading = rotations.so3_exp(np.array([0.0, np.radians(0.3 * (-1) ** index), 0.0]))
        views[index] = dataclasses.replace(
            views[index], T_side_camera=rigid.make(heading @ T[:3, :3], T[:3, 3])
        )
    asked = dataclasses.replace(asked, views=views)
    found = estimated(asked)
    length_m = float(np.linalg.norm(rigid.relative(*T_world[:2])[:3, 3]))
    try:
        metres = scale.metric_scale(asked, found, ScaleConfig(min_baseline_m=0.01))
    except scale.NoScaleError:
        return
    assert abs(np.log(metres.factor / length_m)) < 3.5 * metres.sigma


@pytest.mark.parametrize("posed", ["none", "one is missing", "no baseline"])
def test_by_reconstruction(posed: str) -> None:
    rng = np.random.default_rng(1)
    T_world = arc(ANGLES_DEG)
    asked = problem(T_world, cloud(rng, 200), rng, noise_px=0.5, odometry=posed != "none", sides=SIDES)
    if posed == "one is missing":
        views = [dataclasses.replace(view, T_side_camera=None) for view in asked.views[3:]]
        asked = dataclasses.replace(asked, views=[*asked.views[:3], *views])
    elif posed == "no baseline":
        turned = [rigid.make(view.T_side_camera[:3, :3], np.zeros(3)) for view in asked.views]
        views = [dataclasses.replace(v, T_side_camera=T) for v, T in zip(asked.views, turned, strict=True)]
        asked = dataclasses.replace(asked, views=views)
    found = estimated(asked)
    assert_right(found, T_world)
    assert np.linalg.norm(found.T_reference_target[:3, 3]) == pytest.approx(1.0)


def test_odometry_of_the_target_is_not_used() -> None:
    """It is on another side, in another frame."""
    rng = np.random.default_rng(2)
    T_world = arc(ANGLES_DEG)
    asked = problem(T_world, cloud(rng, 200), rng, noise_px=0.3, odometry=True, sides=SIDES)
    elsewhere = dataclasses.replace(asked.views[1], T_side_camera=rigid.make(np.eye(3), [50.0, 0.0, 0.0]))
    asked = dataclasses.replace(asked, views=[asked.views[0], elsewhere, *asked.views[2:]])
    assert_right(estimated(asked), T_world)


def test_a_target_that_sees_something_else_is_no_estimate() -> None:
    rng = np.random.default_rng(3)
    asked = problem(arc(ANGLES_DEG), cloud(rng, 200), rng, odometry=True, sides=SIDES)
    matches = {
        pair: np.c_[np.arange(200), rng.permutation(200)] if 1 in pair else found
        for pair, found in asked.matches.items()
    }
    with pytest.raises(NoEstimateError, match="agree"):
        estimated(dataclasses.replace(asked, matches=matches))
    matches = {pair: found[: 5 if 1 in pair else None] for pair, found in asked.matches.items()}
    with pytest.raises(NoEstimateError, match="sees 5 points"):
        estimated(dataclasses.replace(asked, matches=matches))


def test_odometry_that_does_not_fit_is_not_metric() -> None:
    """Poses that put matches far off their epipolar lines give no points."""
    rng = np.random.default_rng(4)
    T_world = arc(ANGLES_DEG)
    asked = problem(T_world, cloud(rng, 200), rng, noise_px=0.3, odometry=True, sides=SIDES)
    poses = [
        rigid.make(rotations.so3_exp(rng.normal(0.0, 0.3, 3)), rng.normal(0.0, 1.0, 3)) for _ in range(4)
    ]
    views = [dataclasses.replace(v, T_side_camera=T) for v, T in zip(asked.views, poses, strict=True)]
    try:
        found = estimated(dataclasses.replace(asked, views=views))
    except NoEstimateError:
        return
    assert_right(found, T_world)


def test_no_context_is_no_estimate() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(NoEstimateError, match="no context"):
        estimated(problem(arc([0.0, 20.0]), cloud(rng), rng, odometry=True))
