# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms against closed forms, round trips and the matrix exponential."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid, rotations

TWISTS = st.tuples(*[st.floats(-5.0, 5.0)] * 3, *[st.floats(-1.7, 1.7)] * 3).map(np.array)


def _generator(twist: np.ndarray) -> np.ndarray:
    matrix = np.zeros((4, 4))
    matrix[:3, :3] = rotations.skew(twist[3:])
    matrix[:3, 3] = twist[:3]
    return matrix


@given(TWISTS)
def test_exp_is_the_matrix_exponential_and_log_inverts_it(twist: np.ndarray) -> None:
    T = rigid.se3_exp(twist)
    np.testing.assert_allclose(T, expm(_generator(twist)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(rigid.se3_log(T), twist, rtol=0, atol=1e-11)


@pytest.mark.parametrize("angle_rad", [0.0, 1e-9, 1e-3, 0.0099, 0.0101, 3.14, np.pi])
def test_exp_and_log_have_no_step_where_the_series_takes_over(angle_rad: float) -> None:
    twist = np.array([1.0, -2.0, 3.0, *(angle_rad * np.array([0.6, 0.0, 0.8]))])
    T = rigid.se3_exp(twist)
    np.testing.assert_allclose(T, expm(_generator(twist)), rtol=0, atol=2e-14)
    np.testing.assert_allclose(rigid.se3_exp(rigid.se3_log(T)), T, rtol=0, atol=2e-14)


def test_relative_is_the_target_seen_from_the_reference() -> None:
    # Reference at (1, 0, 0), turned a quarter about z; target one metre further along the reference's x axis.
    quarter = rotations.so3_exp([0.0, 0.0, np.pi / 2])
    T_world_reference = rigid.make(quarter, [1.0, 0.0, 0.0])
    T_world_target = rigid.make(np.eye(3), [1.0, 1.0, 0.0])
    T_reference_target = rigid.relative(T_world_reference, T_world_target)
    np.testing.assert_allclose(T_reference_target, rigid.make(quarter.T, [1.0, 0.0, 0.0]), rtol=0, atol=1e-15)


@given(TWISTS, TWISTS)
def test_inverse_and_relative_cancel(twist_a: np.ndarray, twist_b: np.ndarray) -> None:
    T_world_a, T_world_b = rigid.se3_exp(twist_a), rigid.se3_exp(twist_b)
    np.testing.assert_allclose(rigid.inverse(T_world_a), np.linalg.inv(T_world_a), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        T_world_a @ rigid.relative(T_world_a, T_world_b), T_world_b, rtol=0, atol=1e-12
    )


def test_transform_takes_points_from_b_to_a_and_keeps_nan_in_its_row() -> None:
    T_a_b = rigid.make(rotations.so3_exp([0.0, 0.0, np.pi / 2]), [10.0, 0.0, 0.0])
    points_a = rigid.transform(T_a_b, [[1.0, 0.0, 5.0], [np.nan, 0.0, 0.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(points_a[[0, 2]], [[10.0, 1.0, 5.0], [9.0, 0.0, 0.0]], rtol=0, atol=1e-15)
    assert np.isnan(points_a[1]).all()
    assert rigid.transform(T_a_b, np.zeros((0, 3))).shape == (0, 3)


def test_interpolate_is_straight_and_even() -> None:
    T_a = rigid.make(np.eye(3), [0.0, 0.0, 0.0])
    T_b = rigid.make(rotations.so3_exp([0.0, 1.2, 0.0]), [4.0, 0.0, 2.0])
    quarter = rigid.interpolate(T_a, T_b, 0.25)
    np.testing.assert_allclose(
        quarter, rigid.make(rotations.so3_exp([0.0, 0.3, 0.0]), [1.0, 0.0, 0.5]), rtol=0, atol=1e-15
    )
    np.testing.assert_allclose(rigid.interpolate(T_a, T_b, 1.0), T_b, rtol=0, atol=1e-15)
    with pytest.raises(BadInputError, match="fraction"):
        rigid.interpolate(T_a, T_b, 1.5)


def test_rigid_gives_float64() -> None:
    assert rigid.rigid(np.eye(4, dtype=np.float32)).dtype == np.float64
    assert rigid.rigid(np.eye(4, dtype=int).tolist()).dtype == np.float64


@pytest.mark.parametrize(
    ("T", "message"),
    [
        (np.diag([1.0, 1.0, -1.0, 1.0]), "reflection"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), "orthonormal"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
        (rigid.make(np.eye(3), [1.0, 2.0, 3.0]).T, "last row"),
        (np.full((4, 4), np.nan), "finite"),
        (np.eye(3), "shape"),
        (np.zeros((4, 4)), "last row"),
    ],
)
def test_what_is_not_rigid_is_refused(T: np.ndarray, message: str) -> None:
    for function in (rigid.rigid, rigid.inverse, rigid.se3_log):
        with pytest.raises(BadInputError, match=message):
            function(T)


def test_make_transform_and_exp_refuse_bad_parts() -> None:
    with pytest.raises(BadInputError, match="translation"):
        rigid.make(np.eye(3), [0.0, np.nan, 0.0])
    with pytest.raises(BadInputError, match="orthonormal"):
        rigid.make(np.zeros((3, 3)), [0.0, 0.0, 0.0])
    with pytest.raises(BadInputError, match="points_b"):
        rigid.transform(np.eye(4), np.zeros((3, 2)))
    with pytest.raises(BadInputError, match="twist"):
        rigid.se3_exp(np.zeros(5))
