# SPDX-License-Identifier: Apache-2.0
"""Checks at the door of every geometric function: the right shape, in float64, finite where it must be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pose_bridge.errors import BadInputError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def shaped(
    value: ArrayLike, shape: tuple[int, ...], name: str, error: type[BadInputError] = BadInputError
) -> Array:
    """Return `value` as float64 of a shape, where -1 stands for any length; NaN is let through.

    Raises:
        BadInputError: Not numbers, or of another shape; `error` names a subclass to raise.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise error(f"{name} must be an array of numbers, got {value!r}") from cause
    fits = array.ndim == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if want == -1 else str(want) for want in shape)
        raise error(f"{name} must have shape ({wanted}), got {array.shape}")
    return array


def finite(
    value: ArrayLike, shape: tuple[int, ...], name: str, error: type[BadInputError] = BadInputError
) -> Array:
    """Return `value` as float64 of a shape, where -1 stands for any length.

    Raises:
        BadInputError: Not numbers, of another shape, NaN or infinite; `error` names a subclass to raise.
    """
    array = shaped(value, shape, name, error)
    if not np.isfinite(array).all():
        raise error(f"{name} must be finite, got {array.tolist()}")
    return array


def fraction_of_one(value: float, name: str = "fraction") -> float:
    """Return `value` if it lies in [0, 1].

    Raises:
        BadInputError: It does not: to interpolate is not to extrapolate.
    """
    if not 0.0 <= value <= 1.0:
        raise BadInputError(f"{name} must be in [0, 1], got {value}")
    return float(value)
