# SPDX-License-Identifier: Apache-2.0
"""Epipolar geometry against closed forms, exact matches and definitions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from pose_bridge.errors import BadInputError, NoEstimateError
from pose_bridge.geometry import epipolar, rigid, rotations

SIDEWAYS = rigid.make(np.eye(3), [-1.0, 0.0, 0.0])  # camera b one unit to the right of camera a
TWISTS = st.tuples(*[st.floats(-1.0, 1.0)] * 3, *[st.floats(-0.3, 0.3)] * 3).map(np.array)


def _scene(T_b_a: np.ndarray, count: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points well in front of both cameras, in frame a, and where each camera sees them."""
    points_a = np.random.default_rng(seed).uniform((-2.0, -2.0, 4.0), (2.0, 2.0, 8.0), size=(count, 3))
    points_b = rigid.transform(T_b_a, points_a)
    assert (points_b[:, 2] > 0.0).all()
    return points_a, points_a[:, :2] / points_a[:, 2:], points_b[:, :2] / points_b[:, 2:]


def _moving(twist: np.ndarray) -> bool:
    return bool(np.linalg.norm(twist[:3]) > 0.2)


@given(TWISTS.filter(_moving))
def test_exact_matches_satisfy_the_constraint_and_give_their_pose_back(twist: np.ndarray) -> None:
    T_b_a = rigid.se3_exp(twist)
    points_a, x_a, x_b = _scene(T_b_a)
    E = epipolar.essential_from_pose(T_b_a)
    assert np.abs(np.sum(np.c_[x_b, np.ones(30)] * (np.c_[x_a, np.ones(30)] @ E.T), axis=1)).max() < 1e-14
    assert epipolar.sampson_error(E, x_a, x_b).max() < 1e-13
    np.testing.assert_allclose(epipolar.triangulate(T_b_a, x_a, x_b), points_a, rtol=0, atol=1e-6)
    assert epipolar.in_front(T_b_a, x_a, x_b).all()
    found, mask = epipolar.pose_from_essential(-3.0 * E, x_a, x_b)
    assert mask.all()
    unit = rigid.make(T_b_a[:3, :3], T_b_a[:3, 3] / np.linalg.norm(T_b_a[:3, 3]))
    np.testing.assert_allclose(found, unit, rtol=0, atol=1e-9)


def test_essential_of_a_sideways_step_compares_rows() -> None:
    E = epipolar.essential_from_pose(rigid.make(np.eye(3), [-5.0, 0.0, 0.0]))
    np.testing.assert_allclose(E, [[0, 0, 0], [0, 0, 1], [0, -1, 0]], rtol=0, atol=1e-15)
    # Two rows apart by d: each point moves half of it, d / 2 each way, together d / sqrt(2).
    error = epipolar.sampson_error(E, [[0.1, 0.2], [0.0, 0.0]], [[0.3, 0.2], [0.5, 0.02]])
    np.testing.assert_allclose(error, [0.0, 0.02 / np.sqrt(2.0)], rtol=0, atol=1e-15)


def test_sampson_error_is_the_way_to_the_nearest_exact_match() -> None:
    T_b_a = rigid.se3_exp([1.0, 0.3, -0.4, 0.1, -0.2, 0.15])
    E = epipolar.essential_from_pose(T_b_a)
    _, x_a, x_b = _scene(T_b_a, count=5)
    x_b = x_b + np.random.default_rng(1).normal(scale=2e-3, size=x_b.shape)
    for a, b, error in zip(x_a, x_b, epipolar.sampson_error(E, x_a, x_b), strict=True):
        nearest = minimize(
            lambda step: step @ step * 1e6,
            np.zeros(4),
            constraints={
                "type": "eq",
                "fun": lambda step, a=a, b=b: 1e3 * np.r_[b + step[2:], 1.0] @ E @ np.r_[a + step[:2], 1.0],
            },
        )
        assert nearest.success
        assert error == pytest.approx(np.linalg.norm(nearest.x), rel=0.01)


def test_sampson_error_does_not_depend_on_the_scale_of_E() -> None:
    E = epipolar.essential_from_pose(SIDEWAYS)
    x_a, x_b = np.array([[0.1, 0.2]]), np.array([[0.1, 0.25]])
    np.testing.assert_allclose(
        epipolar.sampson_error(-1e-7 * E, x_a, x_b), epipolar.sampson_error(E, x_a, x_b)
    )


def test_sampson_error_of_two_epipoles_is_nan() -> None:
    E = epipolar.essential_from_pose(rigid.make(np.eye(3), [0.0, 0.0, 1.0]))
    assert np.isnan(epipolar.sampson_error(E, [[0.0, 0.0]], [[0.0, 0.0]])).all()


@given(TWISTS.filter(_moving))
def test_the_four_poses_share_one_essential_matrix_and_hold_the_true_one(twist: np.ndarray) -> None:
    T_b_a = rigid.se3_exp(twist)
    E = epipolar.essential_from_pose(T_b_a)
    poses = epipolar.decompose_essential(E)
    assert poses.shape == (4, 4, 4)
    for pose in poses:
        rebuilt = epipolar.essential_from_pose(pose)
        assert min(np.abs(rebuilt - E).max(), np.abs(rebuilt + E).max()) < 1e-12
    assert len({tuple(np.round(pose, 6).ravel() + 0.0) for pose in poses}) == 4
    unit = rigid.make(T_b_a[:3, :3], T_b_a[:3, 3] / np.linalg.norm(T_b_a[:3, 3]))
    assert min(np.abs(pose - unit).max() for pose in poses) < 1e-12


def test_triangulation_agrees_with_opencv_on_noisy_matches() -> None:
    points_a, x_a, x_b = _scene(SIDEWAYS)
    x_b = x_b + np.random.default_rng(2).normal(scale=1e-4, size=x_b.shape)
    expected = cv2.triangulatePoints(np.eye(3, 4), SIDEWAYS[:3], x_a.T.copy(), x_b.T.copy())
    found = epipolar.triangulate(SIDEWAYS, x_a, x_b)
    # Both depart from the truth by depth^2 * noise, 6e-3 a sigma; from each other in how they split the rest.
    np.testing.assert_allclose(found, (expected[:3] / expected[3]).T, rtol=0, atol=2e-3)
    assert np.abs(found - points_a).max() < 4e-2


def test_triangulation_takes_the_middle_of_skew_rays() -> None:
    # Straight ahead from a; from b, one unit to the right, towards (0, 0.2, 2): the rays miss in y.
    point = epipolar.triangulate(SIDEWAYS, [[0.0, 0.0]], [[-0.5, 0.1]])[0]
    ray_a, ray_b = np.array([0.0, 0.0, 1.0]), np.array([-0.5, 0.1, 1.0])
    depths = np.linalg.lstsq(np.c_[ray_a, -ray_b], np.array([1.0, 0.0, 0.0]), rcond=None)[0]
    middle = 0.5 * (depths[0] * ray_a + depths[1] * ray_b + np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(point, middle, rtol=0, atol=1e-14)


def test_parallel_rays_meet_nowhere() -> None:
    x = np.array([[0.0, 0.0], [0.3, -0.2]])
    for x_b in (x, x - (5e-7, 0.0)):
        assert np.isnan(epipolar.triangulate(SIDEWAYS, x, x_b)).all()
        assert not epipolar.in_front(SIDEWAYS, x, x_b).any()
    np.testing.assert_allclose(epipolar.parallax_rad(SIDEWAYS, x, x), 0.0, rtol=0, atol=1e-15)


def test_rays_that_part_are_not_in_front() -> None:
    x_a, x_b = np.array([[0.1, 0.0], [-0.1, 0.0]]), np.array([[-0.1, 0.0], [0.1, 0.0]])
    np.testing.assert_array_equal(epipolar.in_front(SIDEWAYS, x_a, x_b), [True, False])
    np.testing.assert_allclose(epipolar.triangulate(SIDEWAYS, x_a, x_b), [[0.5, 0, 5.0], [0.5, 0, -5.0]])


def test_in_front_means_both_cameras() -> None:
    # Camera b ten units ahead of a: a point between them is behind b.
    ahead = rigid.make(np.eye(3), [0.0, 0.0, -10.0])
    points_a = np.array([[1.0, 0.0, 5.0], [1.0, 0.0, 15.0]])
    points_b = rigid.transform(ahead, points_a)
    x_a, x_b = points_a[:, :2] / points_a[:, 2:], points_b[:, :2] / points_b[:, 2:]
    np.testing.assert_array_equal(epipolar.in_front(ahead, x_a, x_b), [False, True])


def test_parallax_is_the_angle_at_the_point() -> None:
    T_b_a = rigid.make(rotations.so3_exp([0.0, 0.4, 0.1]), [-1.0, 0.2, 0.1])
    points_a, x_a, x_b = _scene(T_b_a)
    origin_b = rigid.inverse(T_b_a)[:3, 3]
    to_a, to_b = -points_a, origin_b - points_a
    cosine = np.sum(to_a * to_b, axis=1) / np.linalg.norm(to_a, axis=1) / np.linalg.norm(to_b, axis=1)
    np.testing.assert_allclose(epipolar.parallax_rad(T_b_a, x_a, x_b), np.arccos(cosine), rtol=0, atol=1e-9)


def test_rays_that_the_lens_does_not_have_stay_nan() -> None:
    _, x_a, x_b = _scene(SIDEWAYS)
    x_a[3], x_b[5] = np.nan, np.nan
    lost = np.isin(np.arange(30), [3, 5])
    E = epipolar.essential_from_pose(SIDEWAYS)
    np.testing.assert_array_equal(np.isnan(epipolar.sampson_error(E, x_a, x_b)), lost)
    np.testing.assert_array_equal(np.isnan(epipolar.triangulate(SIDEWAYS, x_a, x_b)).all(axis=1), lost)
    np.testing.assert_array_equal(np.isnan(epipolar.parallax_rad(SIDEWAYS, x_a, x_b)), lost)
    np.testing.assert_array_equal(epipolar.in_front(SIDEWAYS, x_a, x_b), ~lost)
    np.testing.assert_array_equal(epipolar.pose_from_essential(E, x_a, x_b)[1], ~lost)


def test_an_unclear_vote_is_no_pose() -> None:
    E = epipolar.essential_from_pose(SIDEWAYS)
    _, x_a, x_b = _scene(SIDEWAYS, count=20)
    with pytest.raises(NoEstimateError, match="not clear"):
        epipolar.pose_from_essential(E, np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(NoEstimateError, match="not clear"):
        epipolar.pose_from_essential(E, x_a, x_a)  # no parallax at all
    # A match with its sides swapped lies in front of the mirrored pose: 10 against 10, then 13 against 7.
    swapped_a, swapped_b = np.r_[x_a[:10], x_b[10:]], np.r_[x_b[:10], x_a[10:]]
    with pytest.raises(NoEstimateError, match="not clear"):
        epipolar.pose_from_essential(E, swapped_a, swapped_b)
    swapped_a, swapped_b = np.r_[x_a[:13], x_b[13:]], np.r_[x_b[:13], x_a[13:]]
    found, mask = epipolar.pose_from_essential(E, swapped_a, swapped_b)
    np.testing.assert_allclose(found, SIDEWAYS, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(mask, np.arange(20) < 13)


@pytest.mark.parametrize(
    "E",
    [
        np.zeros((3, 3)),
        np.eye(3),
        np.diag([1.0, 0.1, 0.0]),
        np.diag([1.0, 1.0, 0.9]),
        np.full((3, 3), np.nan),
        np.eye(2),
    ],
)
def test_what_is_no_essential_matrix_is_refused(E: np.ndarray) -> None:
    with pytest.raises(BadInputError):
        epipolar.decompose_essential(E)


def test_poses_and_matches_are_checked() -> None:
    with pytest.raises(BadInputError, match="translation"):
        epipolar.essential_from_pose(np.eye(4))
    with pytest.raises(BadInputError, match="finite"):
        epipolar.sampson_error(np.full((3, 3), np.nan), np.zeros((1, 2)), np.zeros((1, 2)))
    for function in (epipolar.triangulate, epipolar.in_front, epipolar.parallax_rad):
        with pytest.raises(BadInputError, match="orthonormal"):
            function(np.diag([2.0, 2.0, 2.0, 1.0]), np.zeros((1, 2)), np.zeros((1, 2)))
        with pytest.raises(BadInputError, match="pairs"):
            function(SIDEWAYS, np.zeros((2, 2)), np.zeros((1, 2)))
        with pytest.raises(BadInputError, match="x_b"):
            function(SIDEWAYS, np.zeros((2, 2)), np.zeros((2, 3)))
