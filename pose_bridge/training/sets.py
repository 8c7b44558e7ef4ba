# SPDX-License-Identifier: Apache-2.0
"""Sets of views from rendered walks, as a network is shown them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pose_bridge.training.augment import brightened, perhaps_mirrored
from pose_bridge.training.footage import Footage

NEIGHBOURS_DEG, EXTREME_DEG = 40.0, (50.0, 110.0)
TRIES = 8
SET_SIZES = (2, 2, 3, 4, 4, 5, 6, 8)  # of which one is drawn for each batch
SHUFFLED_SHARE = 0.25  # of the sets: the others are in the order of the walk, from either end
WIDE_SHARE = 0.5  # of the batches of pairs


class Batch(NamedTuple):
    """B sets of S frames.

    Attributes:
        images: In [0, 1], (B, S, 3, H, W).
        depths_m: (B, S, H, W); NaN where unknown.
        T_world_camera: (B, S, 4, 4).
        focals: By the longer side of the pictures, (B,).
    """

    images: Tensor
    depths_m: Tensor
    T_world_camera: Tensor
    focals: Tensor

    def at(self, frames: Sequence[int]) -> Batch:
        """Return some frames of each set."""
        some = list(frames)
        return Batch(self.images[:, some], self.depths_m[:, some], self.T_world_camera[:, some], self.focals)


class Sets:
    """Draws sets of views from walks.

    Args:
        shot: The walks.
        wide: Pairs across 50 to 110 degrees too.
    """

    def __init__(self, shot: Footage, *, wide: bool) -> None:
        self.footage, self._wide = shot, wide
        self.turns_deg = shot.turns_deg()

    def batch(self, rng: np.random.Generator, frames: int, device: torch.device) -> Batch:
        """Draw sets of one size.

        Args:
            rng: Decides everything.
            frames: Of all sets together, about.
            device: Where they go.
        """
        size = int(rng.choice(SET_SIZES))
        count = max(1, frames // size)
        extreme = self._wide and size == 2 and rng.random() < WIDE_SHARE
        drawn = [self._extreme(rng) if extreme else self._walked(rng, size) for _ in range(count)]
        walks = np.array([walk for walk, _ in drawn])
        chosen = np.array([frames for _, frames in drawn])
        batch = brightened(rng, gathered(self.footage, walks, chosen, device))
        return perhaps_mirrored(rng, batch)

    def _walked(self, rng: np.random.Generator, size: int) -> tuple[int, NDArray[np.intp]]:
        """Frames of which each is turned by at most 40 degrees from the one before."""
        walk, count = int(rng.integers(len(self.turns_deg))), self.turns_deg.shape[1]
        turns = self.turns_deg[walk]
        for _ in range(TRIES):
            span = int(rng.integers(size - 1, count))
            inner = rng.permutation(np.arange(1, span))[: size - 2]
            frames = rng.integers(count - span) + np.sort(np.r_[0, inner, span])
            if turns[frames[:-1], frames[1:]].max() <= NEIGHBOURS_DEG:
                break
        else:
            frames = rng.integers(count - size + 1) + np.arange(size)
        if rng.random() < SHUFFLED_SHARE:
            return walk, rng.permutation(frames)
        return walk, frames[::-1] if rng.random() < 0.5 else frames

    def _extreme(self, rng: np.random.Generator) -> tuple[int, NDArray[np.intp]]:
        """Two frames that are turned by 50 to 110 degrees."""
        low, high = EXTREME_DEG
        while True:
            walk = int(rng.integers(len(self.turns_deg)))
            turns = self.turns_deg[walk]
            pairs = np.argwhere((turns >= low) & (turns <= high))
            if len(pairs):
                return walk, pairs[rng.integers(len(pairs))]


def gathered(
    footage: Footage, walks: NDArray[np.intp], frames: NDArray[np.intp], device: torch.device
) -> Batch:
    """Return frames of walks as tensors.

    Args:
        footage: Of them.
        walks: (B,).
        frames: (B, S).
        device: Where they go.
    """
    at = (walks[:, None], frames)
    return Batch(
        torch.from_numpy(footage.images[at]).to(device).permute(0, 1, 4, 2, 3) / 255.0,
        torch.from_numpy(footage.depths_m[at]).to(device).float(),
        torch.from_numpy(footage.T_world_camera[at]).to(device).float(),
        torch.from_numpy(footage.focals[walks]).to(device).float(),
    )
