# SPDX-License-Identifier: Apache-2.0
"""Small VGGTs, taught by rendered walks: cameras, depth, points, and which patches show the same.

`vggt-mini` sees what foundation models are trained on: views that overlap, neighbours turned by 40 degrees at
most. `vggt-mini-wide` also sees pairs of 50 to 110 degrees, as many as others, for as long.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pose_bridge.estimators.vggt.layers import Attention, Rotation
from pose_bridge.estimators.vggt.network import REFINEMENTS, Architecture, Vggt
from pose_bridge.estimators.vggt.weights import FILE
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.training import footage, losses
from pose_bridge.training.sets import SET_SIZES, Batch, Sets, gathered
from pose_bridge.training.train import Plan, coarse
from pose_bridge.training.truth import truth

MINI = Architecture(
    patch_px=8,
    width=128,
    depth=6,
    heads=4,
    mlp=512,
    registers=2,
    dino_depth=3,
    dino_heads=4,
    dino_mlp=512,
    dino_registers=2,
    dino_grid=8,
    camera_depth=1,
    dense_channels=(16, 16, 32, 32),
    dense_features=16,
)

LAYER_SCALE = 0.5  # at the start: a small network learns faster than with the 0.01 of large ones
CAMERA_START = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.8, 1.0)
MATCH_WIDTH, TEMPERATURE = 64, 0.1
MATCH_LAYER = 2  # pair of blocks after which patches should know what they match
LOOK_LAYERS = (1, 3)  # global blocks whose first head is shown where to look
FRAMES_AT_ONCE = 48  # in a step
VALIDATED = {
    "0-30": (0.0, 30.0, 0),
    "30-50": (30.0, 50.0, 0),
    "50-90": (50.0, 90.0, 0),
    "50-90 with 3": (50.0, 90.0, 3),
}
VALIDATION_PAIRS, VALIDATION_BATCH = 256, 32
WEIGHTS = {"camera": 1.0, "points": 2.0, "depth": 0.5, "match": 1.0, "look": 1.0}
ROTATION = 20.0  # weight of a quaternion's error in that of a camera: its numbers are small
EARLIER = 0.6  # weight of a refinement, by the next one's
DEPTH_SHARE = 0.25  # of the sets, of which depth is asked: the dense head costs as much as all else
DOUBT = 0.1  # what a little confidence in depth costs


class Taught(nn.Module):
    """A VGGT with what it only needs while it learns.

    Args:
        network: The learner.
    """

    def __init__(self, network: Vggt) -> None:
        super().__init__()
        self.network = network
        width = network.size.width
        self.points = nn.Linear(2 * width, 3)
        self.alone = nn.Linear(width, MATCH_WIDTH)
        self.together = nn.Linear(2 * width, MATCH_WIDTH)
        self._looks: list[Tensor] = []
        for layer in LOOK_LAYERS:
            network.aggregator.global_blocks[layer].attn.register_forward_hook(self._look)

    def compile_blocks(self) -> None:
        """Compile blocks, but not those whose attention is looked at: that would lose its hook."""
        aggregator = self.network.aggregator
        hooked = {aggregator.global_blocks[layer] for layer in LOOK_LAYERS}
        for block in {*aggregator.frame_blocks, *aggregator.global_blocks} - hooked:
            block.compile(dynamic=False)

    def _look(self, attention: Attention, given: tuple[Tensor, Rotation], _: Tensor) -> None:
        """Keep how likely a head is to look from each token at each other one, logarithms, (B, N, N)."""
        if not self.training:
            return
        tokens, rotation = given
        q, k, _ = attention.qkv(tokens).unflatten(-1, (3, attention.heads, -1)).unbind(-3)
        q, k = (
            rotation(norm(of[:, :, :1].transpose(1, 2)))[:, 0]
            for norm, of in ((attention.q_norm, q), (attention.k_norm, k))
        )
        self._looks.append(((q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5).log_softmax(dim=-1))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return by how much the network is wrong, by kind, weighted by `WEIGHTS`."""
        network, size_px = self.network, batch.images.shape[-2:]
        self._looks.clear()
        known = truth(batch, network.size.patch_px)
        sets, frames = batch.images.shape[:2]
        layers = (*network.size.dense_layers, MATCH_LAYER, network.size.depth - 1)
        grid = tuple(side // network.size.patch_px for side in size_px)
        with coarse(batch.images.device):
            patches = network.embed(batch.images.flatten(0, 1)).unflatten(0, (sets, frames))
            *dense, middle, last = network.aggregator(patches, grid, layers)
        some = math.ceil(DEPTH_SHARE * sets)
        first = network.aggregator.first_patch
        encodings = network.camera_head.refined(last[:, :, 0].float())
        with_depth = [tokens[:some, :, first:].flatten(0, 1).float() for tokens in dense]
        depth, confidence = network.depth_head(with_depth, size_px)
        said = self.points(last[:, :, first:].float())
        found = {
            "camera": _camera_loss(encodings, known.encoding),
            "points": losses.points(said, known.points),
            "depth": _depth_loss(depth, confidence, known.depth[:some].flatten(0, 1)),
            "match": 0.5
            * (
                _match_loss(self.alone(patches.float()), known.in_other)
                + _match_loss(self.together(middle[:, :, first:].float()), known.in_other)
            ),
        }
        looks = [_look_loss(likely, known.in_other, first) for likely in self._looks]
        found["look"] = torch.stack(looks).mean()
        return {name: WEIGHTS[name] * loss for name, loss in found.items()}


def _camera_loss(encodings: list[Tensor], wanted: Tensor) -> Tensor:
    """L1 of all refinements, the later ones more."""
    total = wanted.new_zeros(())
    for number, encoding in enumerate(encodings):
        off = (encoding - wanted).abs()
        loss = off[..., :3].mean() + ROTATION * off[..., 3:7].mean() + off[..., 7:].mean()
        total = total + EARLIER ** (len(encodings) - 1 - number) * loss
    return total


def _depth_loss(depth: Tensor, confidence: Tensor, wanted: Tensor) -> Tensor:
    """Of what is sure the more, and sureness has its price where it is lacking."""

    def wrong(depth: Tensor, wanted: Tensor) -> Tensor:
        return confidence * (depth - wanted).abs() - DOUBT * confidence.log()

    return losses.known_mean(wrong, depth, wanted)


def _match_loss(features: Tensor, in_other: Tensor) -> Tensor:
    """How surely the patches of the next frame that show the same are told from its others (InfoNCE)."""
    own = functional.normalize(features, dim=-1)
    likeness = own @ torch.roll(own, -1, dims=1).transpose(-1, -2) / TEMPERATURE
    return functional.cross_entropy(likeness.flatten(0, 2), in_other.flatten(), ignore_index=-1)


def _look_loss(likely: Tensor, in_other: Tensor, first: int) -> Tensor:
    """How unlikely a head is to look from a patch at the patch of the next frame that shows the same.

    Args:
        likely: Logarithms, (B, S tokens, S tokens).
        in_other: See `Truth`.
        first: Where a frame's patches begin among its tokens.
    """
    sets, frames, _ = in_other.shape
    by_frame = likely.view(sets, frames, likely.shape[1] // frames, frames, -1)[:, :, first:, :, first:]
    following = torch.stack([by_frame[:, own, :, (own + 1) % frames] for own in range(frames)], dim=1)
    return losses.look(following, in_other)


def fresh(size: Architecture = MINI) -> Vggt:
    """Return a network that has learned nothing."""
    network = Vggt(size)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, LAYER_SCALE)
        elif name.endswith(("_token", "_tokens", "pos_embed")):
            nn.init.normal_(parameter, std=0.02)
    last = network.camera_head.pose_branch.fc2
    nn.init.normal_(last.weight, std=0.01)
    last.bias.data.copy_(torch.tensor(CAMERA_START) / REFINEMENTS)
    return network


class VggtRecipe:
    """Teaches a small VGGT.

    Args:
        folder: With footage of training and validation.
        steps: Of the optimizer.
        seed: Of everything random.
        wide: Pairs across 50 to 110 degrees too.
        compiled: Compile its blocks first, which takes a compiler and minutes: steps are faster then.
    """

    def __init__(self, folder: Path, steps: int, seed: int, *, wide: bool, compiled: bool = False) -> None:
        self.plan = Plan(steps=steps, seed=seed, cooldown=0.35)
        self._wide, self._compiled = wide, compiled
        self._sets = Sets(footage.read(folder / "train"), wide=wide)
        self._unseen = Sets(footage.read(folder / "validation"), wide=True)

    def described(self) -> dict[str, Any]:
        """See `train.Recipe`."""
        return {
            "recipe": "vggt-mini-wide" if self._wide else "vggt-mini",
            "weights": WEIGHTS,
            "rotation": ROTATION,
            "frames": FRAMES_AT_ONCE,
            "sizes": SET_SIZES,
            **self._sets.footage.described(),
        }

    def module(self) -> nn.Module:
        """See `train.Recipe`."""
        taught = Taught(fresh())
        if self._compiled:
            taught.compile_blocks()
        return taught

    def batch(self, rng: np.random.Generator, device: torch.device) -> Batch:
        """See `train.Recipe`."""
        return self._sets.batch(rng, FRAMES_AT_ONCE, device)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Median rotation error in degrees: of pairs by their angle, and with three true views between."""
        network: Vggt = module.network
        return {name: _median_error_deg(network, self._unseen, *of) for name, of in VALIDATED.items()}

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write the network as it was published, in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            name: tensor.half().contiguous().cpu() for name, tensor in module.network.state_dict().items()
        }
        save_file(state, folder / FILE)


def _median_error_deg(network: Vggt, unseen: Sets, low_deg: float, high_deg: float, between: int) -> float:
    walks, first, last = np.nonzero(
        np.triu((unseen.turns_deg >= low_deg) & (unseen.turns_deg < high_deg), k=1)
    )
    chosen = np.random.default_rng(0).permutation(len(walks))[:VALIDATION_PAIRS]
    frames = np.linspace(first[chosen], last[chosen], between + 2, axis=1).round().astype(int)
    device = next(network.parameters()).device
    errors_deg: list[float] = []
    for start in range(0, len(chosen), VALIDATION_BATCH):
        part = slice(start, start + VALIDATION_BATCH)
        batch = gathered(unseen.footage, walks[chosen][part], frames[part], device)
        patches = network.embed(batch.images.flatten(0, 1)).unflatten(0, batch.images.shape[:2])
        said = network(patches, batch.images.shape[-2:]).encoding[:, [0, -1], 3:7].double().cpu().numpy()
        ends = unseen.footage.T_world_camera[walks[chosen][part, None], frames[part][:, [0, -1]]]
        for quaternions, (T_world_first, T_world_last) in zip(said, ends, strict=True):
            unit = quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)
            R_first_world, R_last_world = map(rotations.rotation_from_quat_xyzw, unit)
            R_true = rigid.relative(T_world_first, T_world_last)[:3, :3]
            errors_deg.append(distances.rotation_error_deg(R_first_world @ R_last_world.T, R_true))
    return float(np.median(errors_deg))
