# SPDX-License-Identifier: Apache-2.0
"""The models that ship with the package, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pose_bridge.training.ltx import LtxRecipe, LtxVaeRecipe
from pose_bridge.training.train import Recipe
from pose_bridge.training.vggt import VggtRecipe

# Of a folder with footage, how many steps, a seed, and a folder with an autoencoder.
RECIPES: dict[str, Callable[[Path, int, int, Path], Recipe]] = {
    "vggt-mini": lambda footage, steps, seed, _: VggtRecipe(footage, steps, seed, wide=False),
    "vggt-mini-wide": lambda footage, steps, seed, _: VggtRecipe(footage, steps, seed, wide=True),
    "ltx-mini-vae": lambda footage, steps, seed, _: LtxVaeRecipe(footage, steps, seed),
    "ltx-mini": LtxRecipe,
}
