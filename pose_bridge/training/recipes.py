# SPDX-License-Identifier: Apache-2.0
"""The models that ship with the package, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pose_bridge.training.train import Recipe
from pose_bridge.training.vggt import VggtRecipe

RECIPES: dict[str, Callable[[Path, int, int], Recipe]] = {
    "vggt-mini": partial(VggtRecipe, wide=False),
    "vggt-mini-wide": partial(VggtRecipe, wide=True),
}
