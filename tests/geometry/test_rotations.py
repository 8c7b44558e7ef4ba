# SPDX-License-Identifier: Apache-2.0
"""Rotations against closed forms, round trips and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rotations

DIRECTIONS = (
    st.tuples(*[st.floats(-1.0, 1.0)] * 3)
    .map(np.array)
    .filter(lambda v: np.linalg.norm(v) > 0.1)
    .map(lambda v: v / np.linalg.norm(v))
)
# Log-uniform near both ends, where formulas lose digits, and uniform between.
ANGLES = st.one_of(
    st.floats(0.0, np.pi),
    st.floats(-14.0, 0.0).map(lambda exponent: 10.0**exponent),
    st.floats(-14.0, 0.0).map(lambda exponent: np.pi - 10.0**exponent),
)


def test_skew_is_the_cross_product() -> None:
    v, w = np.array([1.0, -2.0, 3.0]), np.array([0.5, 4.0, -1.0])
    np.testing.assert_allclose(rotations.skew(v) @ w, np.cross(v, w))


def test_exp_of_a_quarter_turn_about_z_takes_x_to_y() -> None:
    R = rotations.so3_exp([0.0, 0.0, np.pi / 2])
    np.testing.assert_allclose(R @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], rtol=0, atol=1e-15)


@given(DIRECTIONS, ANGLES)
def test_log_inverts_exp_at_every_angle(axis: np.ndarray, angle_rad: float) -> None:
    rotvec_rad = rotations.so3_log(rotations.so3_exp(axis * angle_rad))
    # Near pi the axis may come back with the other sign: exp of both must agree, and the angle must be kept.
    error = min(
        np.linalg.norm(rotvec_rad - axis * angle_rad),
        np.linalg.norm(rotvec_rad + axis * (2 * np.pi - angle_rad)),
    )
    assert error < 2e-15 + 4e-15 * angle_rad


@given(DIRECTIONS, st.floats(-14.0, -1.0))
def test_log_keeps_the_digits_of_small_angles(axis: np.ndarray, exponent: float) -> None:
    rotvec_rad = axis * 10.0**exponent
    np.testing.assert_allclose(
        rotations.so3_log(rotations.so3_exp(rotvec_rad)),
        rotvec_rad,
        rtol=0,
        atol=1e-14 * 10.0**exponent + 1e-17,
    )


@pytest.mark.parametrize("axis", [*np.eye(3).tolist(), [0.6, 0.8, 0.0], [0.6, 0.0, -0.8]])
def test_log_of_exactly_half_a_turn_has_length_pi(axis: list[float]) -> None:
    half_turn = 2.0 * np.outer(axis, axis) - np.eye(3)
    rotvec_rad = rotations.so3_log(half_turn)
    assert np.linalg.norm(rotvec_rad) == pytest.approx(np.pi, abs=1e-14)
    np.testing.assert_allclose(np.abs(rotvec_rad) / np.pi, np.abs(axis), rtol=0, atol=1e-14)


def test_log_of_identity_is_zero() -> None:
    np.testing.assert_array_equal(rotations.so3_log(np.eye(3)), np.zeros(3))
    assert rotations.rotation_angle_rad(np.eye(3)) == 0.0


@given(st.tuples(*[st.floats(-10.0, 10.0)] * 3))
def test_exp_and_quaternion_agree_with_scipy(rotvec_rad: tuple[float, ...]) -> None:
    R = rotations.so3_exp(rotvec_rad)
    np.testing.assert_allclose(R, Rotation.from_rotvec(rotvec_rad).as_matrix(), rtol=0, atol=1e-13)
    quat_xyzw = rotations.quat_xyzw_from_rotation(R)
    assert quat_xyzw[3] >= 0.0
    assert abs(quat_xyzw @ Rotation.from_rotvec(rotvec_rad).as_quat()) == pytest.approx(1.0, abs=1e-13)
    np.testing.assert_allclose(rotations.rotation_from_quat_xyzw(quat_xyzw), R, rtol=0, atol=1e-13)
    expected_rad = Rotation.from_rotvec(rotvec_rad).magnitude()
    assert rotations.rotation_angle_rad(R) == pytest.approx(expected_rad, abs=1e-13)


def test_a_quaternion_and_its_negative_are_one_rotation() -> None:
    quat_xyzw = Rotation.from_rotvec([0.3, -1.0, 0.7]).as_quat()
    R = rotations.rotation_from_quat_xyzw(quat_xyzw)
    np.testing.assert_array_equal(R, rotations.rotation_from_quat_xyzw(-quat_xyzw))
    np.testing.assert_allclose(R, Rotation.from_quat(quat_xyzw).as_matrix(), rtol=0, atol=1e-15)


def test_a_slightly_rounded_quaternion_gives_an_orthonormal_matrix() -> None:
    R = rotations.rotation_from_quat_xyzw(1.0009 * Rotation.from_rotvec([1.0, 2.0, 0.5]).as_quat())
    np.testing.assert_allclose(R.T @ R, np.eye(3), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "quat_xyzw", [[0, 0, 0, 0], [0, 0, 0, 1.002], [0, 0, 0, 0.998], [np.nan, 0, 0, 1], [0, 0, 1]]
)
def test_a_quaternion_that_is_none_is_refused(quat_xyzw: list[float]) -> None:
    with pytest.raises(BadInputError):
        rotations.rotation_from_quat_xyzw(quat_xyzw)


@given(DIRECTIONS, DIRECTIONS, st.floats(0.0, 3.0), st.floats(0.0, 1.0))
def test_slerp_agrees_with_scipy(a: np.ndarray, b: np.ndarray, angle_rad: float, fraction: float) -> None:
    R_a = rotations.so3_exp(2.0 * a)
    R_b = R_a @ rotations.so3_exp(angle_rad * b)
    expected = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([R_a, R_b])))(fraction).as_matrix()
    np.testing.assert_allclose(rotations.slerp(R_a, R_b, fraction), expected, rtol=0, atol=1e-12)


def test_slerp_starts_and_ends_where_it_says() -> None:
    R_a, R_b = rotations.so3_exp([0.1, 0.2, 0.3]), rotations.so3_exp([-1.0, 0.5, 2.0])
    np.testing.assert_allclose(rotations.slerp(R_a, R_b, 0.0), R_a, rtol=0, atol=1e-15)
    np.testing.assert_allclose(rotations.slerp(R_a, R_b, 1.0), R_b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("fraction", [-0.01, 1.01, np.nan])
def test_slerp_does_not_extrapolate(fraction: float) -> None:
    with pytest.raises(BadInputError, match="fraction"):
        rotations.slerp(np.eye(3), np.eye(3), fraction)


def test_nearest_rotation_keeps_a_rotation_and_ignores_its_scale() -> None:
    R = rotations.so3_exp([0.4, -0.2, 1.9])
    np.testing.assert_allclose(rotations.nearest_rotation(R), R, rtol=0, atol=1e-15)
    np.testing.assert_allclose(rotations.nearest_rotation(1e-6 * R), R, rtol=0, atol=1e-14)


def test_nearest_rotation_beats_its_neighbours() -> None:
    generator = np.random.default_rng(1)
    M = generator.normal(size=(3, 3))  # of either sign of determinant
    for matrix in (M, -M):
        R = rotations.nearest_rotation(matrix)
        assert np.linalg.det(R) == pytest.approx(1.0)
        for step_rad in generator.normal(scale=0.1, size=(50, 3)):
            neighbour = rotations.so3_exp(step_rad) @ R
            assert np.linalg.norm(matrix - R) < np.linalg.norm(matrix - neighbour)


@pytest.mark.parametrize(
    "M", [np.zeros((3, 3)), np.diag([1.0, 0.0, 0.0]), -np.eye(3), np.full((3, 3), np.nan), np.eye(2)]
)
def test_no_nearest_rotation_is_made_up(M: np.ndarray) -> None:
    with pytest.raises(BadInputError):
        rotations.nearest_rotation(M)


@pytest.mark.parametrize(
    ("R", "message"),
    [
        (np.diag([1.0, 1.0, -1.0]), "reflection"),
        (1.00001 * np.eye(3), "orthonormal"),
        (np.full((3, 3), np.inf), "finite"),
        (np.eye(4), "shape"),
        ([["a"]], "numbers"),
        ([[1.0, 0.0], [1.0]], "numbers"),
    ],
)
def test_a_matrix_that_is_no_rotation_is_refused(R: object, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        rotations.so3_log(R)  # type: ignore[arg-type]


def test_exp_refuses_nan() -> None:
    with pytest.raises(BadInputError, match="finite"):
        rotations.so3_exp([0.0, np.nan, 0.0])
