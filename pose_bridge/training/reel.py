# SPDX-License-Identifier: Apache-2.0
"""Videos from rendered walks, as a video model is shown them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pose_bridge.training.augment import brightened, perhaps_mirrored
from pose_bridge.training.footage import Footage
from pose_bridge.training.sets import Batch, gathered

CLIP = 9  # frames of a video, both ends included
MOST_DEG = 110.0  # between the ends of one


class Clips(NamedTuple):
    """B videos.

    Attributes:
        batch: Their N frames, with all that rendering knows.
        outward: Which of the prompts tells what the camera does, bool (B,).
    """

    batch: Batch
    outward: Tensor

    @property
    def video(self) -> Tensor:
        """In [-1, 1], (B, 3, N, H, W)."""
        return 2.0 * self.batch.images.transpose(1, 2) - 1.0


class Reel:
    """Draws videos from walks.

    Args:
        shot: The walks.
    """

    def __init__(self, shot: Footage) -> None:
        self.shot = shot
        turned = shot.turns_deg()
        apart = np.subtract.outer(np.arange(turned.shape[1]), np.arange(turned.shape[1])).T >= CLIP - 1
        self._ends = np.argwhere(apart & (turned <= MOST_DEG))

    def clips(self, rng: np.random.Generator, count: int, device: torch.device) -> Clips:
        """Draw some, either end first, half of the batches as a mirror shows them."""
        walks, first, last = self._ends[rng.integers(len(self._ends), size=count)].T
        swap = rng.random(count) < 0.5
        first, last = np.where(swap, last, first), np.where(swap, first, last)
        frames = np.linspace(first, last, CLIP, axis=1).round().astype(int)
        batch = brightened(rng, gathered(self.shot, walks, frames, device), together=True)
        outward = torch.from_numpy(self.shot.outward[walks]).to(device)
        return Clips(perhaps_mirrored(rng, batch), outward)
