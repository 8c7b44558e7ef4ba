# SPDX-License-Identifier: Apache-2.0
"""What a network should say of a set of views, from what rendering knows: cameras, depth, points, matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pose_bridge.training.sets import Batch

SAME_DEPTH = 0.07  # what is farther behind what is seen there, relative, is hidden


class Truth(NamedTuple):
    """What a network should say of a batch, lengths by the mean distance of all points from the first camera.

    Attributes:
        encoding: (B, S, 9).
        depth: (B, S, H, W).
        points: Seen in the middles of patches, in the first camera's frame, (B, S, P, 3); NaN where unknown.
        in_other: In which patch of another frame each is seen, (B, S, P); -1 if in none.
    """

    encoding: Tensor
    depth: Tensor
    points: Tensor
    in_other: Tensor


def truth(batch: Batch, patch_px: int, others: Sequence[int] | None = None) -> Truth:
    """Work out what a network should say; in double precision, whatever the network computes in.

    Args:
        batch: What it is shown.
        patch_px: Side of a patch.
        others: In which frame the points of each are looked for; None for the next, the first for the last.
    """
    frames = batch.images.shape[1]
    others = [*range(1, frames), 0] if others is None else list(others)
    height, width = batch.images.shape[-2:]
    focal_px, depths_m = batch.focals.double() * max(height, width), batch.depths_m.double()
    T_world_camera = batch.T_world_camera.double()
    T_camera_first = torch.linalg.inv(T_world_camera) @ T_world_camera[:, :1]
    middles = (
        torch.arange(patch_px // 2, side, patch_px, device=batch.images.device) for side in (height, width)
    )
    rows, columns = (grid.flatten() for grid in torch.meshgrid(*middles, indexing="ij"))
    z = depths_m[..., rows, columns]
    rays = torch.stack(
        [
            (columns + 0.5 - width / 2) / focal_px[:, None],
            (rows + 0.5 - height / 2) / focal_px[:, None],
            torch.ones_like(z[:, 0]),
        ],
        dim=-1,
    )
    points = _moved(torch.linalg.inv(T_camera_first), z[..., None] * rays[:, None])
    unit = torch.nanmean(points.norm(dim=-1).flatten(1), dim=1)
    there = _moved(T_camera_first[:, others], points)
    angles = [2.0 * torch.atan(side / 2.0 / focal_px) for side in (height, width)]
    encoding = torch.cat(
        (
            T_camera_first[..., :3, 3] / unit[:, None, None],
            _quaternions(T_camera_first[..., :3, :3]),
            torch.stack(angles, dim=-1)[:, None].expand(-1, z.shape[1], -1),
        ),
        dim=-1,
    )
    return Truth(
        encoding.float(),
        (depths_m / unit[:, None, None, None]).float(),
        (points / unit[:, None, None, None]).float(),
        _patches_of(there, depths_m[:, others], focal_px, patch_px),
    )


def _moved(T_a_b: Tensor, points_b: Tensor) -> Tensor:
    """Points of each frame, (B, S, P, 3), by its transform, (B, S, 4, 4)."""
    return points_b @ T_a_b[..., :3, :3].transpose(-1, -2) + T_a_b[..., None, :3, 3]


def _patches_of(points: Tensor, depths_m: Tensor, focal_px: Tensor, patch_px: int) -> Tensor:
    """In which patch of a frame points in its camera's frame, (B, S, P, 3), are seen; -1: in none."""
    height, width = depths_m.shape[-2:]
    x, y, z = points.unbind(-1)
    ahead = z > 0.0
    z = torch.where(ahead, z, 1.0)
    column = (x / z * focal_px[:, None, None] + width / 2).floor()
    row = (y / z * focal_px[:, None, None] + height / 2).floor()
    inside = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = (torch.where(inside, value, 0.0).long() for value in (column, row))
    there_m = depths_m.flatten(2).gather(2, row * width + column)
    visible = inside & ((z - there_m).abs() < SAME_DEPTH * there_m)
    return torch.where(visible, row // patch_px * (width // patch_px) + column // patch_px, -1)


def _quaternions(R: Tensor) -> Tensor:
    """Unit quaternions xyzw with w >= 0 of rotations, (..., 3, 3): of the largest of the four ways to one."""
    m = R.flatten(-2).unbind(-1)
    trace = m[0] + m[4] + m[8]
    four = torch.stack(
        [
            torch.stack([1 + 2 * m[0] - trace, m[1] + m[3], m[2] + m[6], m[7] - m[5]], -1),
            torch.stack([m[1] + m[3], 1 + 2 * m[4] - trace, m[5] + m[7], m[2] - m[6]], -1),
            torch.stack([m[2] + m[6], m[5] + m[7], 1 + 2 * m[8] - trace, m[3] - m[1]], -1),
            torch.stack([m[7] - m[5], m[2] - m[6], m[3] - m[1], 1 + trace], -1),
        ],
        -2,
    )
    best = torch.diagonal(four, dim1=-2, dim2=-1).argmax(dim=-1)
    chosen = four.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    unit = functional.normalize(chosen, dim=-1)
    return torch.where(unit[..., 3:] < 0.0, -unit, unit)
