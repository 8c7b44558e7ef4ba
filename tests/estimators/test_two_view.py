# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from synthetic import arc, cloud, problem

from pose_bridge.config import TwoViewConfig
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.base import Estimate, Problem
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.geometry import distances, rigid, rotations, uncertainty

AHEAD = np.array([0.0, 0.0, 4.0])


def estimated(asked: Problem, **settings: float) -> Estimate:
    return TwoViewEstimator(TwoViewConfig(**settings)).estimate(asked, Control())


def errors_deg(found: Estimate, T_world: list[np.ndarray]) -> tuple[float, float]:
    T, T_true = found.T_reference_target, rigid.relative(*T_world[:2])
    return (
        distances.rotation_error_deg(T[:3, :3], T_true[:3, :3]),
        distances.translation_error_deg(T[:3, 3], T_true[:3, 3]),
    )


@pytest.mark.parametrize("outliers", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("angle_deg", [-25.0, 8.0, 50.0])
def test_right_in_noise_among_outliers(angle_deg: float, outliers: float) -> None:
    rng = np.random.default_rng(0)
    T_world = arc([0.0, angle_deg])
    found = estimated(problem(T_world, cloud(rng, 250), rng, noise_px=0.5, outliers=outliers))
    rotation, direction = errors_deg(found, T_world)
    assert found.translation_defined
    assert rotation < 1.0
    assert direction < 4.0
    sigma_deg = np.degrees(uncertainty.direction_sigma_rad(found.T_reference_target, found.covariance))
    assert outliers > 0 or direction < 4 * sigma_deg  # some outliers lie on their epipolar lines
    assert found.rms_px == pytest.approx(0.25, rel=0.2)  # of 4 residuals a point, 3 go to the point itself


@pytest.mark.parametrize("seed", range(4))
def test_few_good_matches_are_enough_whatever_was_wrong_besides(seed: int) -> None:
    """What is dropped takes the unknowns of its points along."""
    rng = np.random.default_rng(seed)
    poses = arc([0.0, 20.0])
    made = problem(poses, cloud(rng, 34), rng, noise_px=0.3, outliers=0.3)
    found = TwoViewEstimator(TwoViewConfig()).estimate(made, Control())
    T_true = rigid.relative(*poses)
    assert distances.rotation_error_deg(found.T_reference_target[:3, :3], T_true[:3, :3]) < 3.0


def test_the_direction_has_a_sign() -> None:
    """Forward and backward differ by cheirality only."""
    for depth_m in (0.8, -0.8):
        rng = np.random.default_rng(1)
        T_world = [np.eye(4), rigid.make(np.eye(3), [0.0, 0.0, depth_m])]
        points = cloud(rng, 250) * 2 + 1.25 * AHEAD
        found = estimated(problem(T_world, points, rng, noise_px=0.3))
        assert errors_deg(found, T_world)[1] < 2.0


def test_matches_at_random_are_no_estimate() -> None:
    rng = np.random.default_rng(2)
    asked = problem(arc([0.0, 30.0]), cloud(rng, 150), rng)
    shuffled = np.c_[np.arange(150), rng.permutation(150)]
    with pytest.raises(NoEstimateError, match="agree"):
        estimated(dataclasses.replace(asked, matches={(0, 1): shuffled}))


@pytest.mark.parametrize("count", [0, 5, 19])
def test_few_matches_are_no_estimate(count: int) -> None:
    rng = np.random.default_rng(3)
    asked = problem(arc([0.0, 30.0]), cloud(rng), rng)
    with pytest.raises(NoEstimateError, match=f"{count} matches .* 20 needed"):
        estimated(dataclasses.replace(asked, matches={(0, 1): asked.matches[0, 1][:count]}))


@pytest.mark.parametrize("noise_px", [0.0, 0.5])
@pytest.mark.parametrize("outliers", [0.0, 0.3])
def test_a_camera_that_only_turned(noise_px: float, outliers: float) -> None:
    rng = np.random.default_rng(4)
    R = rotations.so3_exp(np.array([0.05, 0.2, -0.1]))
    points = cloud(rng, 200) + AHEAD
    asked = problem(
        [np.eye(4), rigid.make(R, np.zeros(3))], points, rng, noise_px=noise_px, outliers=outliers
    )
    found = estimated(asked)
    assert not found.translation_defined
    assert distances.rotation_error_deg(found.T_reference_target[:3, :3], R) < 0.2
    np.testing.assert_array_equal(found.T_reference_target[:3, 3], 0.0)


def test_the_covariance_of_a_turn_is_no_promise_too_much() -> None:
    rng = np.random.default_rng(5)
    R = rotations.so3_exp(np.array([0.05, 0.2, -0.1]))
    points = cloud(rng, 100) + AHEAD
    squares = []
    for _ in range(80):
        asked = problem([np.eye(4), rigid.make(R, np.zeros(3))], points, rng, noise_px=0.3)
        found = estimated(asked)
        error = rotations.so3_log(R @ found.T_reference_target[:3, :3].T)
        squares.append(error @ np.linalg.solve(found.covariance[3:, 3:], error))
    assert 1.0 < np.mean(squares) < 3.6  # 3 degrees of freedom; a factor of 2 on the safe side is allowed


def test_hardly_any_parallax_gives_no_direction() -> None:
    rng = np.random.default_rng(6)
    T_world = [np.eye(4), rigid.make(np.eye(3), [0.02, 0.0, 0.0])]  # 0.3 degrees at 4 m
    found = estimated(problem(T_world, cloud(rng) + AHEAD, rng, noise_px=0.3))
    assert not found.translation_defined
    assert distances.rotation_error_deg(found.T_reference_target[:3, :3], np.eye(3)) < 0.5


@pytest.mark.parametrize("angle_deg", [5.0, 15.0, 30.0, 50.0])
@pytest.mark.parametrize("outliers", [0.0, 0.3])
def test_a_plane_gives_no_direction(angle_deg: float, outliers: float) -> None:
    """And a rotation only if it is the true one."""
    rng = np.random.default_rng(7)
    T_world = arc([0.0, angle_deg])
    asked = problem(T_world, cloud(rng, 250, flat=True), rng, noise_px=0.4, outliers=outliers)
    try:
        found = estimated(asked)
    except NoEstimateError as error:
        assert "rotation" in str(error)
        return
    assert not found.translation_defined
    R_true = rigid.relative(*T_world)[:3, :3]
    sigma_deg = np.degrees(np.sqrt(np.linalg.eigvalsh(found.covariance[3:, 3:])[-1]))
    assert distances.rotation_error_deg(found.T_reference_target[:3, :3], R_true) < max(2.0, 3 * sigma_deg)


def test_a_plane_with_some_relief_has_a_direction() -> None:
    rng = np.random.default_rng(8)
    T_world = arc([0.0, 25.0])
    points = np.vstack([cloud(rng, 120, flat=True), cloud(rng, 120)])
    found = estimated(problem(T_world, points, rng, noise_px=0.3))
    assert found.translation_defined
    assert errors_deg(found, T_world)[1] < 2.0


def test_units_of_pixels_do_not_matter() -> None:
    """Whatever the focal length, a plane is a plane: solvers are sensitive to the size of coordinates."""
    rng = np.random.default_rng(9)
    asked = problem(arc([0.0, 12.0]), cloud(rng, 300, flat=True), rng, noise_px=0.3)
    for factor in (1.0, 0.25):  # nearer to the middle of the picture
        features = [dataclasses.replace(found, points=factor * found.points) for found in asked.features]
        squeezed = dataclasses.replace(asked, features=features)
        try:
            assert not estimated(squeezed).translation_defined
        except NoEstimateError as error:
            assert "rotation" in str(error)
