# SPDX-License-Identifier: Apache-2.0
"""What VGGT's networks are made of; the names of the parameters are those of the published checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

ROPE_BASE = 100.0


class Attention(nn.Module):
    """Self-attention of tokens, (B, N, width).

    Args:
        width: Of a token.
        heads: How many share it.
        normed: Queries and keys are normalized.
    """

    def __init__(self, width: int, heads: int, normed: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = nn.LayerNorm(width // heads) if normed else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if normed else nn.Identity()

    def forward(self, tokens: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Let every token look at every other one of its batch."""
        batch, count, width = tokens.shape
        q, k, v = self.qkv(tokens).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        seen = functional.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype))
        return self.proj(seen.transpose(1, 2).reshape(batch, count, width))


class Rotation:
    """Rotary embedding of places on a grid: half of a head's numbers turn with the row, half with the column.

    Args:
        places: Row and column of each token, (..., N, 2), whole numbers.
        head_width: Of queries and keys.
    """

    def __init__(self, places: Tensor, head_width: int) -> None:
        quarter = head_width // 4
        frequency = ROPE_BASE ** -(torch.arange(quarter, device=places.device) / quarter)
        angle = places.unsqueeze(-3).unsqueeze(-1) * frequency  # (..., 1, N, 2, quarter)
        self._cos, self._sin = angle.cos(), angle.sin()

    def __call__(self, heads: Tensor) -> Tensor:
        """Turn queries or keys, (B, heads, N, head_width)."""
        first, second = heads.unflatten(-1, (2, 2, -1)).unbind(-2)  # (B, heads, N, row or column, quarter)
        cos, sin = self._cos.to(heads.dtype), self._sin.to(heads.dtype)
        turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-2)
        return turned.flatten(-3)


class Scale(nn.Module):
    """One factor per number of a token (LayerScale)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 0.01))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale them."""
        return tokens * self.gamma


class Mlp(nn.Module):
    """Two layers, each token by itself."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., out)."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Attention, then a multilayer perceptron, each added to what came in."""

    def __init__(self, width: int, heads: int, mlp: int, normed: bool = False, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attn = Attention(width, heads, normed)
        self.ls1 = Scale(width)
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, mlp, width)
        self.ls2 = Scale(width)

    def forward(self, tokens: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Return tokens of the same shape."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), rotation))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class Patches(nn.Module):
    """The projection of patches to tokens."""

    def __init__(self, patch_px: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_px, patch_px)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, patches, width) of images, (B, 3, H, W)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Dino(nn.Module):
    """DINOv2 with registers: an image's patches as tokens that know of each other.

    Args:
        patch_px: Side of a patch.
        width: Of a token.
        depth: Blocks.
        heads: Of each.
        mlp: Hidden width.
        registers: Tokens that belong to no patch.
        grid: Patches along a side of the square image that the position embedding was learned on.
    """

    EPSILON = 1e-6

    def __init__(
        self, patch_px: int, width: int, depth: int, heads: int, mlp: int, registers: int, grid: int
    ) -> None:
        super().__init__()
        self._grid, self._patch_px = grid, patch_px
        self.patch_embed = Patches(patch_px, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp, epsilon=self.EPSILON) for _ in range(depth))
        self.norm = nn.LayerNorm(width, self.EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, patches, width) of normalized images, (B, 3, H, W)."""
        rows, columns = (side // self._patch_px for side in images.shape[-2:])
        patches = self.patch_embed(images) + self._places(rows, columns)
        own = self.cls_token + self.pos_embed[:, :1]
        extra = torch.cat((own, self.register_tokens), dim=1).expand(len(images), -1, -1)
        tokens = torch.cat((extra, patches), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, extra.shape[1] :]

    def _places(self, rows: int, columns: int) -> Tensor:
        """The position embedding resampled, (1, rows x columns, width)."""
        learned = self.pos_embed[:, 1:]
        if (rows, columns) == (self._grid, self._grid):
            return learned
        square = learned.float().unflatten(1, (self._grid, self._grid)).permute(0, 3, 1, 2)
        resampled = functional.interpolate(square, (rows, columns), mode="bicubic", antialias=True)
        return resampled.flatten(2).transpose(1, 2).to(learned.dtype)
