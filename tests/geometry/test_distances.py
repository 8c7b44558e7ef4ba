# SPDX-License-Identifier: Apache-2.0
"""Pose distances against closed forms, down to angles where arccos is blind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import distances, rotations


@pytest.mark.parametrize("angle_deg", [0.0, 1e-10, 1e-5, 30.0, 90.0, 179.99999, 180.0])
def test_errors_are_the_angle_that_was_put_in(angle_deg: float) -> None:
    turn = rotations.so3_exp([0.0, 0.0, np.radians(angle_deg)])
    R = rotations.so3_exp([0.3, 0.2, -1.0])
    assert distances.rotation_error_deg(R, turn @ R) == pytest.approx(angle_deg, rel=1e-4, abs=1e-13)
    t = np.array([3.0, 0.0, 0.0])
    assert distances.translation_error_deg(t, 0.1 * turn @ t) == pytest.approx(
        angle_deg, rel=1e-12, abs=1e-13
    )


@given(st.floats(0.0, 180.0), st.floats(-300.0, 300.0))
def test_unsigned_error_is_the_angle_between_lines_at_any_length(angle_deg: float, exponent: float) -> None:
    t_b = 10.0**exponent * np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg)), 0.0])
    assert distances.translation_error_deg([1.0, 0.0, 0.0], t_b) == pytest.approx(angle_deg, abs=1e-12)
    expected_deg = min(angle_deg, 180.0 - angle_deg)
    assert distances.translation_error_unsigned_deg([1.0, 0.0, 0.0], t_b) == pytest.approx(
        expected_deg, abs=1e-12
    )


def test_what_has_no_direction_or_is_no_rotation_is_refused() -> None:
    for function in (distances.translation_error_deg, distances.translation_error_unsigned_deg):
        with pytest.raises(BadInputError, match="zero"):
            function([0.0, 0.0, 0.0], [1.0, 0.0, 0.0])
        with pytest.raises(BadInputError, match="t_b must be finite"):
            function([1.0, 0.0, 0.0], [np.nan, 0.0, 0.0])
    with pytest.raises(BadInputError, match="orthonormal"):
        distances.rotation_error_deg(np.zeros((3, 3)), np.eye(3))
