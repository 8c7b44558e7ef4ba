# SPDX-License-Identifier: Apache-2.0
"""VGGT (Wang et al., CVPR 2025): from the pictures of one scene to their cameras and depth, in one pass.

Every image becomes tokens by itself (DINOv2). Then they look at each other, by turns within their frame and
across all frames. A camera token of each frame is read out as its camera, the other tokens as depth. The
names of the parameters are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pose_bridge.estimators.vggt.dpt import DenseHead
from pose_bridge.estimators.vggt.layers import Block, Dino, Mlp, Rotation

COLOUR_MEAN, COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENCODING = 9  # of a camera: translation, quaternion xyzw, vertical and horizontal field of view
REFINEMENTS = 4
UNLIKE_OTHERS_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How large everything is; `weights.architecture` reads it off a checkpoint.

    Attributes:
        patch_px: Side of a patch.
        width: Of a token.
        depth: Pairs of blocks that alternate.
        heads: Of every attention, also the camera head's.
        mlp: Hidden width of the blocks.
        registers: Tokens of a frame that belong to no patch.
        dino_depth: Blocks of the patch embedding.
        dino_heads: Of each.
        dino_mlp: Hidden width.
        dino_registers: Of the patch embedding.
        dino_grid: Patches along a side of the image that its position embedding was learned on.
        camera_depth: Blocks of the camera head.
        dense_channels: Of the depth head's levels.
        dense_features: Their width in common.
    """

    patch_px: int = 14
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp: int = 4096
    registers: int = 4
    dino_depth: int = 24
    dino_heads: int = 16
    dino_mlp: int = 4096
    dino_registers: int = 4
    dino_grid: int = 37
    camera_depth: int = 4
    dense_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    dense_features: int = 256

    @property
    def dense_layers(self) -> tuple[int, int, int, int]:
        """Which pairs of blocks the depth head reads: 4, 11, 17 and 23 of 24."""
        first, second, third, last = (round(self.depth * share / 24) - 1 for share in (5, 12, 18, 24))
        return first, second, third, last


class Prediction(NamedTuple):
    """Of B sets of S images.

    Attributes:
        encoding: Of the cameras, (B, S, 9): translation, quaternion xyzw, vertical and horizontal field of
            view in radians; world to camera, the world being the first camera.
        depth: (B, S, H, W), up to scale; None unless asked for.
        confidence: Of the depth, above 1, (B, S, H, W).
    """

    encoding: Tensor
    depth: Tensor | None
    confidence: Tensor | None


class Aggregator(nn.Module):
    """Images to tokens that know of all frames of their set."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self._size = size
        self.patch_embed = Dino(
            size.patch_px,
            size.width,
            size.dino_depth,
            size.dino_heads,
            size.dino_mlp,
            size.dino_registers,
            size.dino_grid,
        )
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, size.width))  # of the first frame, of others
        self.register_token = nn.Parameter(torch.zeros(1, 2, size.registers, size.width))
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(Block(size.width, size.heads, size.mlp, normed=True) for _ in range(size.depth))
            for _ in range(2)
        )

    def embed(self, images: Tensor) -> Tensor:
        """Return the patches of images in [0, 1], (N, 3, H, W), each by itself: (N, patches, width)."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (COLOUR_MEAN, COLOUR_STD))
        patches: Tensor = self.patch_embed(((images - mean) / std).to(self.camera_token.dtype))
        return patches

    def forward(self, patches: Tensor, grid: tuple[int, int], layers: Sequence[int]) -> list[Tensor]:
        """Return what some pairs of blocks put out, frame and global side by side, (B, S, tokens, 2 width).

        Args:
            patches: Of B sets of S frames, (B, S, patches, width).
            grid: Rows and columns of patches.
            layers: Which pairs of blocks.
        """
        batch, frames = patches.shape[:2]
        extra = torch.cat((self.camera_token, self.register_token), dim=2)
        extra = torch.cat((extra[:, :1], extra[:, 1:].expand(-1, frames - 1, -1, -1)), dim=1)
        tokens = torch.cat((extra.expand(batch, -1, -1, -1), patches), dim=2)
        count, head_width = tokens.shape[2], self._size.width // self._size.heads
        places = self._places(grid, tokens.device)
        in_frame = Rotation(places[None], head_width)
        in_set = Rotation(places.repeat(frames, 1)[None], head_width)
        found: dict[int, Tensor] = {}
        for index, (own, across) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            tokens = own(tokens.reshape(batch * frames, count, -1), in_frame)
            framed = tokens.view(batch, frames, count, -1)
            tokens = across(tokens.view(batch, frames * count, -1), in_set)
            if index in layers:
                found[index] = torch.cat((framed, tokens.view(batch, frames, count, -1)), dim=-1)
        return [found[layer] for layer in layers]

    @property
    def first_patch(self) -> int:
        """Where a frame's patches begin among its tokens."""
        return 1 + self._size.registers

    def _places(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Row and column of each token of a frame, from 1; 0 for what belongs to no patch, (tokens, 2)."""
        rows, columns = (torch.arange(1, count + 1, device=device) for count in grid)
        patches = torch.cartesian_prod(rows, columns)
        return torch.cat((patches.new_zeros(self.first_patch, 2), patches))


class CameraHead(nn.Module):
    """Camera tokens to cameras, refined a few times."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.trunk = nn.Sequential(*(Block(width, heads, 4 * width) for _ in range(depth)))
        self.trunk_norm = nn.LayerNorm(width)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, ENCODING))
        self.embed_pose = nn.Linear(ENCODING, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.pose_branch = Mlp(width, width // 2, ENCODING)

    def forward(self, camera_tokens: Tensor) -> Tensor:
        """Return the encodings of cameras, (B, S, 9), by their tokens, (B, S, width)."""
        return self.refined(camera_tokens)[-1]

    def refined(self, camera_tokens: Tensor) -> list[Tensor]:
        """Return the encodings after each refinement."""
        found: list[Tensor] = []
        tokens = self.token_norm(camera_tokens)
        plain = functional.layer_norm(tokens, tokens.shape[-1:], eps=UNLIKE_OTHERS_EPSILON)
        encoding = self.empty_pose_tokens.expand(*tokens.shape[:2], -1)
        for refinement in range(REFINEMENTS):
            known = self.embed_pose(encoding.detach() if refinement else encoding)
            shift, scale, gate = self.poseLN_modulation(known).chunk(3, dim=-1)
            modulated = tokens + gate * (plain * (1.0 + scale) + shift)
            change = self.pose_branch(self.trunk_norm(self.trunk(modulated)))
            encoding = encoding + change if refinement else change
            found.append(torch.cat((encoding[..., :7], functional.relu(encoding[..., 7:])), dim=-1))
        return found


class Vggt(nn.Module):
    """The whole network; see the module's docstring."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.size = size
        self.aggregator = Aggregator(size)
        self.camera_head = CameraHead(2 * size.width, size.heads, size.camera_depth)
        self.depth_head = DenseHead(
            size.patch_px, 2 * size.width, size.dense_layers, size.dense_channels, size.dense_features
        )

    def embed(self, images: Tensor) -> Tensor:
        """See `Aggregator.embed`."""
        return self.aggregator.embed(images)

    def forward(self, patches: Tensor, size_px: tuple[int, int], depth: bool = False) -> Prediction:
        """Predict cameras, and depth if asked for.

        Args:
            patches: From `embed`, of B sets of S frames, (B, S, patches, width).
            size_px: Height and width of the images.
            depth: Whether to.
        """
        last = self.size.depth - 1
        layers = (*self.depth_head.layers, last) if depth else (last,)
        grid = (size_px[0] // self.size.patch_px, size_px[1] // self.size.patch_px)
        *dense, final = self.aggregator(patches, grid, layers)
        encoding = self.camera_head(final[:, :, 0].float())
        if not depth:
            return Prediction(encoding, None, None)
        own = [tokens[:, :, self.aggregator.first_patch :].flatten(0, 1).float() for tokens in dense]
        maps = self.depth_head(own, size_px)
        return Prediction(encoding, *(found.unflatten(0, patches.shape[:2]) for found in maps))
