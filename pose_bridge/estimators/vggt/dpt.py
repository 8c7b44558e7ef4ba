# SPDX-License-Identifier: Apache-2.0
"""VGGT's dense head (DPT): tokens of four depths of the network, fused from coarse to fine.

The names of the parameters are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

PLACE_WEIGHT, PLACE_BASE = 0.1, 100.0


class Residual(nn.Module):
    """Two convolutions beside what came in; all of it rectified first, as the checkpoints were trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        maps = functional.relu(maps)
        return maps + self.conv2(functional.relu(self.conv1(maps)))


class Fusion(nn.Module):
    """Adds a finer level to what the coarser ones say, and enlarges."""

    def __init__(self, width: int, coarsest: bool) -> None:
        super().__init__()
        if not coarsest:
            self.resConfUnit1 = Residual(width)
        self.resConfUnit2 = Residual(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, coarse: Tensor, fine: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Return (B, width, *size)."""
        if fine is not None:
            coarse = coarse + self.resConfUnit1(fine)
        return self.out_conv(_enlarged(self.resConfUnit2(coarse), size))


class Scratch(nn.Module):
    """The levels brought to one width, fused, and read out."""

    def __init__(self, channels: Sequence[int], width: int, out: int) -> None:
        super().__init__()
        for level, own in enumerate(channels, 1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(own, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{level}", Fusion(width, coarsest=level == len(channels)))
        self.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(width // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, out, 1)
        )


class DenseHead(nn.Module):
    """A number and a confidence for every pixel.

    Args:
        patch_px: Side of a patch.
        width: Of a token.
        layers: Which of the network's outputs it reads, the first ones first.
        channels: Of each level.
        features: Width in common.
    """

    def __init__(
        self, patch_px: int, width: int, layers: Sequence[int], channels: Sequence[int], features: int
    ) -> None:
        super().__init__()
        self.layers, self._patch_px = tuple(layers), patch_px
        self.norm = nn.LayerNorm(width)
        self.projects = nn.ModuleList(nn.Conv2d(width, own, 1) for own in channels)
        first, second, _, last = channels
        self.resize_layers = nn.ModuleList(
            (
                nn.ConvTranspose2d(first, first, 4, 4),
                nn.ConvTranspose2d(second, second, 2, 2),
                nn.Identity(),
                nn.Conv2d(last, last, 3, 2, 1),
            )
        )
        self.scratch = Scratch(channels, features, out=2)

    def forward(self, tokens: Sequence[Tensor], size_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return depth and its confidence, each (B, H, W).

        Args:
            tokens: Of `layers`, each (B, patches, width).
            size_px: Height and width of the images.
        """
        height, width = size_px
        grid, aspect = (height // self._patch_px, width // self._patch_px), width / height
        levels = []
        for index, (own, project, resize) in enumerate(
            zip(tokens, self.projects, self.resize_layers, strict=True), 1
        ):
            maps = project(self.norm(own).transpose(1, 2).unflatten(2, grid))
            levels.append(getattr(self.scratch, f"layer{index}_rn")(resize(_placed(maps, aspect))))
        fused: Tensor = levels[-1]
        for index in range(len(levels), 0, -1):
            fine = None if index == len(levels) else levels[index - 1]
            rows, columns = levels[index - 2].shape[-2:] if index > 1 else (2 * s for s in fused.shape[-2:])
            fused = getattr(self.scratch, f"refinenet{index}")(fused, fine, (rows, columns))
        maps = _placed(_enlarged(self.scratch.output_conv1(fused), size_px), aspect)
        depth, confidence = self.scratch.output_conv2(maps).unbind(1)
        return depth.exp(), 1.0 + confidence.exp()


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size, mode="bilinear", align_corners=True)


def _placed(maps: Tensor, aspect: float) -> Tensor:
    """Add to maps, (B, C, H, W), where in the image they are: sines and cosines of column and row."""
    channels, height, width = maps.shape[1:]
    diagonal = (aspect**2 + 1.0) ** 0.5
    x, y = (
        torch.linspace(-1.0, 1.0, count, dtype=torch.float64, device=maps.device)
        * (span / diagonal * (count - 1) / count)
        for count, span in ((width, aspect), (height, 1.0))
    )
    quarter = channels // 4
    omega = PLACE_BASE ** -(torch.arange(quarter, dtype=torch.float64, device=maps.device) / quarter)
    waves = (axis * omega[:, None] for axis in (x, y))
    columns, rows = (torch.cat((wave.sin(), wave.cos())) for wave in waves)
    half = (channels // 2, height, width)
    places = torch.cat((columns[:, None].expand(half), rows[:, :, None].expand(half)))
    return maps + PLACE_WEIGHT * places.to(maps.dtype)
