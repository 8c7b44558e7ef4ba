# SPDX-License-Identifier: Apache-2.0
"""A small autoencoder of LTX-Video's make, taught by rendered walks to pack videos, and single pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn
from torch.nn import functional

from pose_bridge.training import footage, principal
from pose_bridge.training.reel import Reel
from pose_bridge.training.train import Plan

LATENTS = 24
# Frames of a walk differ by many pixels: what packs them further cannot show where things were.
VAE = {
    "latent_channels": LATENTS,
    "block_out_channels": (64,),
    "down_block_types": ("LTXVideoDownBlock3D",),
    "decoder_block_out_channels": (64,),
    "layers_per_block": (1, 0),
    "decoder_layers_per_block": (1, 0),
    "spatio_temporal_scaling": (True,),
    "decoder_spatio_temporal_scaling": (True,),
    "decoder_inject_noise": (False, False),
    "downsample_type": ("conv",),
    "upsample_residual": (False,),
    "upsample_factor": (1,),
    "timestep_conditioning": False,
    "patch_size": 4,
    "patch_size_t": 1,
}
STILL_SHARE = 0.3  # of the batches that are single pictures
KL, EDGES = 1e-6, 0.5  # weights beside the error of the pixels
CLIPS_AT_ONCE = 8
VALIDATION_CLIPS = 64


class Packing(NamedTuple):
    """What the autoencoder is asked.

    Attributes:
        video: In [-1, 1], (B, 3, N, H, W).
        seed: Of the noise on what it packs.
    """

    video: Tensor
    seed: int


class Packer(nn.Module):
    """The autoencoder while it learns.

    Args:
        vae: The learner.
    """

    def __init__(self, vae: AutoencoderKLLTXVideo) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, task: Packing) -> dict[str, Tensor]:
        """Return by how much videos are wrong once packed and unpacked, by kind, weighted."""
        video = task.video
        packed = self.vae.encode(video).latent_dist
        again = self.vae.decode(packed.sample(torch.Generator(video.device).manual_seed(task.seed))).sample
        edges = sum(functional.l1_loss(again.diff(dim=axis), video.diff(dim=axis)) for axis in (-1, -2))
        return {
            "pixels": functional.l1_loss(again, video),
            "edges": EDGES * edges,
            "kl": KL * packed.kl().mean(),
        }


class LtxVaeRecipe:
    """Teaches the autoencoder.

    Args:
        folder: With footage of training and validation.
        steps: Of the optimizer.
        seed: Of everything random.
    """

    def __init__(self, folder: Path, steps: int, seed: int) -> None:
        self.plan = Plan(steps=steps, seed=seed, weight_decay=0.0, learning_rate=5e-5)
        self._reel, self._unseen = (Reel(footage.read(folder / name)) for name in ("train", "validation"))

    def described(self) -> dict[str, Any]:
        """See `train.Recipe`."""
        return {
            "recipe": "ltx-mini-vae",
            "latents": LATENTS,
            "kl": KL,
            "edges": EDGES,
            **self._reel.shot.described(),
        }

    def module(self) -> nn.Module:
        """See `train.Recipe`."""
        vae = AutoencoderKLLTXVideo(**VAE)
        some = self._reel.clips(np.random.default_rng(self.plan.seed), VALIDATION_CLIPS, torch.device("cpu"))
        principal.begin(vae, some.video)
        return Packer(vae)

    def batch(self, rng: np.random.Generator, device: torch.device) -> Packing:
        """See `train.Recipe`."""
        video = self._reel.clips(rng, CLIPS_AT_ONCE, device).video
        if rng.random() < STILL_SHARE:
            video = video.transpose(1, 2).reshape(-1, 3, 1, *video.shape[3:])
        return Packing(video, int(rng.integers(2**62)))

    def validate(self, module: nn.Module) -> dict[str, float]:
        """By how many grey values pictures are off: of videos, single ones, the last of a video."""
        device = next(module.parameters()).device
        video = self._unseen.clips(np.random.default_rng(0), VALIDATION_CLIPS, device).video
        off = {}
        for name, shown in (("video", video), ("single", video[:, :, :1])):
            again = module.vae.decode(module.vae.encode(shown).latent_dist.mean).sample
            off[name] = (again - shown).abs()
        return {name: float(127.5 * some.mean()) for name, some in off.items()} | {
            "last": float(127.5 * off["video"][:, :, -1].mean())
        }

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write it as diffusers has it, with mean and spread of what it packs, in half precision."""
        saved = AutoencoderKLLTXVideo(**VAE)
        saved.load_state_dict(module.vae.state_dict())
        video = self._reel.clips(np.random.default_rng(0), VALIDATION_CLIPS, torch.device("cpu")).video
        with torch.inference_mode():
            mean, std = normalization(saved, video)
        saved.latents_mean.copy_(mean)
        saved.latents_std.copy_(std)
        saved.half().save_pretrained(folder / "vae")


def normalization(vae: AutoencoderKLLTXVideo, video: Tensor) -> tuple[Tensor, Tensor]:
    """What to take from packed videos, and divide them by, before they are made of noise, (LATENTS,) each.

    A channel's spread becomes the square root of what it does to pixels, about 1 on the average: a model that
    makes them should mind what shapes the picture more than the hundredth detail, which a spread of 1 for all
    asks for.
    """
    packed = vae.encode(video).latent_dist.mean
    mean, std = (of(packed, dim=(0, 2, 3, 4)) for of in (torch.mean, torch.std))
    whole = vae.decode(packed).sample
    done = []
    for channel in range(packed.shape[1]):
        without = packed.clone()
        without[:, channel] = mean[channel]
        done.append((vae.decode(without).sample - whole).square().mean().sqrt())
    share = torch.stack(done)
    return mean, std / (share / share.square().mean().sqrt()).sqrt()
