# SPDX-License-Identifier: Apache-2.0
"""The same views as they might have been: brighter, darker, in a mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pose_bridge.training.sets import Batch

GAIN = 0.3  # by which pictures are brighter or darker, a base 2 logarithm


def brightened(rng: np.random.Generator, batch: Batch, *, together: bool = False) -> Batch:
    """Return every picture as bright as it comes, or every set: its pictures together."""
    sets, frames = batch.images.shape[:2]
    gains = 2.0 ** (rng.uniform(-GAIN, GAIN, (sets, 1 if together else frames, 1, 1, 1)))
    images = (batch.images * torch.from_numpy(gains).to(batch.images)).clamp(0.0, 1.0)
    return batch._replace(images=images)


def perhaps_mirrored(rng: np.random.Generator, batch: Batch) -> Batch:
    """Return half of the batches as a mirror shows them."""
    if rng.random() < 0.5:
        T = batch.T_world_camera
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], device=T.device))
        return batch._replace(
            images=batch.images.flip(-1), depths_m=batch.depths_m.flip(-1), T_world_camera=mirror @ T @ mirror
        )
    return batch
