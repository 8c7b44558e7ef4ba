# SPDX-License-Identifier: Apache-2.0
"""How far two poses are apart, in the two angles that papers report."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array, finite

# docs/method.md: correct
CORRECT_ROTATION_DEG = 5.0
CORRECT_DIRECTION_DEG = 15.0
CORRECT_M, CORRECT_SHARE = 0.1, 0.1  # of a place; the share is of the baseline

ROUNDED = 1e-9  # of a translation, in whatever unit: shorter ones are none


def rotation_error_deg(R_a: ArrayLike, R_b: ArrayLike) -> float:
    """Return the angle of the rotation between two rotations, 0 to 180 degrees.

    Raises:
        BadInputError: An input is not a rotation to 1e-6.
    """
    between = rotations.nearest_rotation(rotations.rotation(R_a).T @ rotations.rotation(R_b))
    return float(np.degrees(rotations.rotation_angle_rad(between)))


def has_direction(t: ArrayLike) -> bool:
    """Return whether a translation (3,) is longer than what rounding leaves of none."""
    return bool(np.linalg.norm(np.asarray(t, np.float64)) > ROUNDED)


def translation_error_deg(t_a: ArrayLike, t_b: ArrayLike) -> float:
    """Return the angle between two translations, 0 to 180 degrees: opposite directions are 180 apart.

    Args:
        t_a: (3,), of any length.
        t_b: (3,), of any length.

    Raises:
        BadInputError: Not three finite numbers, or the zero vector, which has no direction.
    """
    a, b = _direction(t_a, "t_a"), _direction(t_b, "t_b")
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def translation_error_unsigned_deg(t_a: ArrayLike, t_b: ArrayLike) -> float:
    """Return the angle between the lines of two translations, 0 to 90 degrees: opposite directions are one.

    Args:
        t_a: (3,), of any length.
        t_b: (3,), of any length.

    Raises:
        BadInputError: Not three finite numbers, or the zero vector, which has no direction.
    """
    signed_deg = translation_error_deg(t_a, t_b)
    return min(signed_deg, 180.0 - signed_deg)


def correct(T: ArrayLike, T_true: ArrayLike, *, directed: bool, metric: bool) -> bool:
    """Return whether an answer is correct in the sense of docs/method.md.

    Args:
        T: The answer, (4, 4).
        T_true: The truth, (4, 4), in metres if the answer is.
        directed: Its translation claims to be a direction.
        metric: And its length to be metres.

    Raises:
        BadInputError: Either is no pose.
    """
    answer, truth = np.asarray(T, np.float64), np.asarray(T_true, np.float64)
    if rotation_error_deg(answer[:3, :3], truth[:3, :3]) > CORRECT_ROTATION_DEG:
        return False
    if metric:
        reach_m = max(CORRECT_M, CORRECT_SHARE * float(np.linalg.norm(truth[:3, 3])))
        return float(np.linalg.norm(answer[:3, 3] - truth[:3, 3])) <= reach_m
    if not directed or not (has_direction(answer[:3, 3]) and has_direction(truth[:3, 3])):
        return not directed
    return translation_error_deg(answer[:3, 3], truth[:3, 3]) <= CORRECT_DIRECTION_DEG


def _direction(t: ArrayLike, name: str) -> Array:
    vector = finite(t, (3,), name)
    largest = float(np.abs(vector).max())
    if largest == 0.0:
        raise BadInputError(f"{name} must not be zero: it has no direction; ask for the rotation alone")
    vector = vector / largest  # first, so that no square underflows
    return np.asarray(vector / np.linalg.norm(vector))
