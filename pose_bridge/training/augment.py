# SPDX-License-Identifier: Apache-2.0
"""The same views as they might have been: few houses are known by heart otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from pose_bridge.simulation.walks import FOCAL

if TYPE_CHECKING:
    from pose_bridge.training.sets import Batch

GAIN = 0.3  # by which pictures are brighter or darker, a base 2 logarithm
TINT = 0.2  # by which a colour is, likewise
ZOOMED_SHARE = 0.5  # of the sets
LONGEST = FOCAL[1]  # up to which is zoomed


def augmented(rng: np.random.Generator, batch: Batch) -> Batch:
    """Return views with other lenses, tints and brightness, half of the batches as a mirror shows them."""
    return perhaps_mirrored(rng, tinted(rng, zoomed(rng, brightened(rng, batch))))


def brightened(rng: np.random.Generator, batch: Batch, *, together: bool = False) -> Batch:
    """Return every picture as bright as it comes, or every set: its pictures together."""
    sets, frames = batch.images.shape[:2]
    gains = 2.0 ** (rng.uniform(-GAIN, GAIN, (sets, 1 if together else frames, 1, 1, 1)))
    images = (batch.images * torch.from_numpy(gains).to(batch.images)).clamp(0.0, 1.0)
    return batch._replace(images=images)


def tinted(rng: np.random.Generator, batch: Batch) -> Batch:
    """Return every set in another light."""
    gains = 2.0 ** rng.uniform(-TINT, TINT, (len(batch.images), 1, 3, 1, 1))
    images = (batch.images * torch.from_numpy(gains).to(batch.images)).clamp(0.0, 1.0)
    return batch._replace(images=images)


def zoomed(rng: np.random.Generator, batch: Batch) -> Batch:
    """Return some sets as longer lenses see them: the middle of each picture, as large as all of it."""
    sets, frames, _, height, width = batch.images.shape
    focals = batch.focals.cpu().numpy()
    longer = rng.uniform(focals, np.maximum(focals, LONGEST))
    share = np.where(rng.random(sets) < ZOOMED_SHARE, focals / longer, 1.0)
    kept = torch.from_numpy(share).to(batch.images)
    grid = functional.affine_grid(
        kept[:, None, None] * torch.eye(2, 3).to(kept), [sets, 1, height, width], align_corners=False
    )
    images, depths_m = (
        functional.grid_sample(of, grid, mode=mode, padding_mode="border", align_corners=False)
        for of, mode in ((batch.images.flatten(1, 2), "bilinear"), (batch.depths_m, "nearest"))
    )
    return batch._replace(
        images=images.unflatten(1, (frames, 3)), depths_m=depths_m, focals=batch.focals / kept
    )


def perhaps_mirrored(rng: np.random.Generator, batch: Batch) -> Batch:
    """Return half of the batches as a mirror shows them."""
    if rng.random() < 0.5:
        T = batch.T_world_camera
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], device=T.device))
        return batch._replace(
            images=batch.images.flip(-1), depths_m=batch.depths_m.flip(-1), T_world_camera=mirror @ T @ mirror
        )
    return batch
