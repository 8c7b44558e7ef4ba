# SPDX-License-Identifier: Apache-2.0
"""What the recipes have in common of being wrong about what rendering knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def counted_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of some values, 0 of none; the others do not reach the gradient."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp_min(1)


def known_mean(wrong: Callable[[Tensor, Tensor], Tensor], said: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean where it is known what is wanted; the rest must not reach the gradient either."""
    known = wanted.isfinite()
    values = wrong(said, torch.where(known, wanted, 0.0))
    return counted_mean(values, known if values.shape == known.shape else known.all(dim=-1))


def points(said: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean distance of points, (..., 3), to those that are wanted; NaN where unknown."""
    return known_mean(lambda said, wanted: (said - wanted).norm(dim=-1), said, wanted)


def look(likely: Tensor, shown_in: Tensor) -> Tensor:
    """Return how unlikely it is to look at the patches that show the same.

    Args:
        likely: To look at each patch, logarithms, (..., P).
        shown_in: Which does, (...); -1 if none.
    """
    return counted_mean(-likely.gather(-1, shown_in.clamp_min(0)[..., None])[..., 0], shown_in >= 0)
