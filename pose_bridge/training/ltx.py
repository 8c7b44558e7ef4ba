# SPDX-License-Identifier: Apache-2.0
"""A small LTX-Video, taught by rendered walks to fill in between two views up to 110 degrees apart.

First the autoencoder learns to pack videos, and single pictures, then the transformer to make packed videos
of noise, as `generators.ltx` runs it: the first view takes the place of the first packed frame, the last one
stands beside them as tokens of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pose_bridge import models
from pose_bridge.generators.base import PROMPTS
from pose_bridge.generators.ltx import loaded
from pose_bridge.training import footage, principal
from pose_bridge.training.footage import Footage
from pose_bridge.training.sets import GAIN
from pose_bridge.training.train import Plan, coarse

CLIP = 9  # frames of a video, both ends included
MOST_DEG = 110.0  # between the ends of one
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
CAPTION = 8  # width of an embedded prompt: there are two, and no language
TRANSFORMER = {
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "num_attention_heads": 5,
    "attention_head_dim": 32,
    "cross_attention_dim": 160,
    "num_layers": 5,
    "caption_channels": CAPTION,
}
FRAME_RATE = 25  # what the pipeline takes for granted
END_NOISE = 0.15  # that the pipeline adds to the ends, by the noise level squared
STILL_SHARE = 0.3  # of the batches of the autoencoder that are single pictures
KL, EDGES = 1e-6, 0.5  # weights beside the error of the pixels
LEVEL_SHIFT, ANYWHERE, ALL_NOISE = 0.5, 0.25, 0.1  # of noise levels: of the logit; shares
CLIPS_AT_ONCE = {"vae": 8, "transformer": 16}
VALIDATION_CLIPS = 64


class Clips(NamedTuple):
    """B videos.

    Attributes:
        frames: In [-1, 1], (B, 3, N, H, W).
        outward: Which of the prompts tells what the camera does, bool (B,).
    """

    frames: Tensor
    outward: Tensor


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
        images = torch.from_numpy(self.shot.images[walks[:, None], frames]).to(device)
        gains = 2.0 ** (rng.uniform(-GAIN, GAIN, (count, 1, 1, 1, 1)))
        video = (images.permute(0, 4, 1, 2, 3) / 127.5 * torch.from_numpy(gains).to(device).float()).clamp(
            max=2.0
        ) - 1.0
        if rng.random() < 0.5:
            video = video.flip(-1)
        return Clips(video, torch.from_numpy(self.shot.outward[walks]).to(device))


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
        principal.begin(vae, some.frames)
        return Packer(vae)

    def batch(self, rng: np.random.Generator, device: torch.device) -> Packing:
        """See `train.Recipe`."""
        video = self._reel.clips(rng, CLIPS_AT_ONCE["vae"], device).frames
        if rng.random() < STILL_SHARE:
            video = video.transpose(1, 2).reshape(-1, 3, 1, *video.shape[3:])
        return Packing(video, int(rng.integers(2**62)))

    def validate(self, module: nn.Module) -> dict[str, float]:
        """By how many grey values pictures are off: of videos, single ones, the last of a video."""
        device = next(module.parameters()).device
        video = self._unseen.clips(np.random.default_rng(0), VALIDATION_CLIPS, device).frames
        off = {}
        for name, shown in (("video", video), ("single", video[:, :, :1])):
            again = module.vae.decode(module.vae.encode(shown).latent_dist.mean).sample
            off[name] = (again - shown).abs()
        return {name: float(127.5 * some.mean()) for name, some in off.items()} | {
            "last": float(127.5 * off["video"][:, :, -1].mean())
        }

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write it as diffusers has it, with mean and spread of what it packs, in half precision."""
        device = next(module.parameters()).device
        with torch.inference_mode():
            rng = np.random.default_rng(0)
            clips = self._reel.clips(rng, VALIDATION_CLIPS, device).frames
            packed = module.vae.encode(clips).latent_dist.mean.transpose(0, 1).flatten(1)
        saved = AutoencoderKLLTXVideo(**VAE)
        saved.load_state_dict(module.vae.state_dict())
        saved.latents_mean.copy_(packed.mean(dim=1))
        saved.latents_std.copy_(packed.std(dim=1))
        saved.half().save_pretrained(folder / "vae")


class Maker(nn.Module):
    """The transformer while it learns.

    Args:
        transformer: The learner.
    """

    def __init__(self, transformer: LTXVideoTransformer3DModel) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, task: Task) -> dict[str, Tensor]:
        """Return the squared error of the velocity from packed videos to noise."""
        with coarse(task.tokens.device):
            said = self.transformer(
                hidden_states=task.tokens,
                encoder_hidden_states=task.prompts,
                timestep=task.timesteps,
                encoder_attention_mask=torch.ones(task.prompts.shape[:2], device=task.prompts.device),
                video_coords=task.places,
                return_dict=False,
            )[0]
        return {"velocity": (said.float() - task.velocity)[task.wanted].square().mean()}


class Task(NamedTuple):
    """What the transformer is asked: K tokens, the last view's first, then those of the video.

    Attributes:
        tokens: Packed frames, noisy where they are to be made, (B, K, LATENTS).
        prompts: Embedded, (B, 1, CAPTION).
        timesteps: Noise levels by a thousand, 0 for what is given, (B, K).
        places: When and where a token is, (B, 3, K).
        velocity: From the packed frames to the noise, (B, K, LATENTS).
        wanted: Tokens that are to be made, bool (B, K).
    """

    tokens: Tensor
    prompts: Tensor
    timesteps: Tensor
    places: Tensor
    velocity: Tensor
    wanted: Tensor


def task(vae: AutoencoderKLLTXVideo, clips: Clips, rng: np.random.Generator) -> Task:
    """Pack videos and add noise, as the pipeline that runs the model later does.

    Args:
        vae: Has learned.
        clips: In both its ends a view that is given.
        rng: Of the noise.
    """
    device, count = clips.frames.device, len(clips.frames)
    pack = LTXConditionPipeline._pack_latents
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    with torch.no_grad():
        video = _normal(vae, vae.encode(clips.frames).latent_dist.mean)
        ends = torch.cat((clips.frames[:, :, :1], clips.frames[:, :, -1:]))
        drawn = vae.encode(ends).latent_dist.sample(generator)  # the pipeline draws them too
        first, last = _normal(vae, drawn).chunk(2)
    video = torch.cat((first, video[:, :, 1:]), dim=2)
    clean = torch.cat((pack(last), pack(video)), dim=1)
    noise = torch.randn(clean.shape, generator=generator, device=device)
    level = _levels(count, generator, device)[:, None, None]
    each = video.shape[3] * video.shape[4]
    wanted = torch.ones(clean.shape[:2], dtype=torch.bool, device=device)
    wanted[:, : 2 * each] = False
    given = clean + END_NOISE * level**2 * noise
    tokens = torch.where(wanted[..., None], torch.lerp(clean, noise, level), given)
    return Task(
        tokens,
        embedded(device)[clips.outward.long()],
        torch.where(wanted, 1000.0 * level[..., 0], 0.0),
        _places(vae, video, CLIP - 1),
        noise - clean,
        wanted,
    )


def _levels(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Noise levels, (count,): most in the middle, some anywhere, some all noise: the pipeline begins so."""
    middle = torch.sigmoid(torch.randn(count, generator=generator, device=device) + LEVEL_SHIFT)
    anywhere = torch.rand(count, generator=generator, device=device)
    which = torch.rand(count, generator=generator, device=device)
    level = torch.where(which < ANYWHERE, anywhere, middle)
    return torch.where(which > 1.0 - ALL_NOISE, 1.0, level)


def embedded(device: torch.device) -> Tensor:
    """Return the prompts as the transformer is told them, around a thing and outwards, (2, 1, CAPTION)."""
    return torch.eye(2, CAPTION, device=device)[:, None]


def _normal(vae: AutoencoderKLLTXVideo, packed: Tensor) -> Tensor:
    return LTXConditionPipeline._normalize_latents(packed, vae.latents_mean, vae.latents_std)


def _places(vae: AutoencoderKLLTXVideo, video: Tensor, last: int) -> Tensor:
    """Seconds, row and column in pixels of the last view's tokens and the video's, (B, 3, K)."""
    count, _, frames, rows, columns = video.shape
    found = []
    for number, at in ((1, last), (frames, 0)):
        ids = LTXConditionPipeline._prepare_video_ids(count, number, rows, columns, device=video.device)
        ratios = (vae.spatial_compression_ratio, vae.temporal_compression_ratio)
        found.append(LTXConditionPipeline._scale_video_ids(ids, *ratios, at, video.device))
    places = torch.cat(found, dim=2).float()
    places[:, 0] /= FRAME_RATE
    return places


class LtxRecipe:
    """Teaches the transformer.

    Args:
        folder: With footage of training and validation.
        steps: Of the optimizer.
        seed: Of everything random.
        vae: Folder of an autoencoder that has learned.
        compiled: Compile the transformer first, which takes a compiler and minutes: steps are faster then.
    """

    def __init__(self, folder: Path, steps: int, seed: int, vae: Path, *, compiled: bool = False) -> None:
        self.plan = Plan(steps=steps, seed=seed, weight_decay=0.01, learning_rate=1e-3)
        self._reel, self._unseen = (Reel(footage.read(folder / name)) for name in ("train", "validation"))
        self._vae, self._compiled = loaded(AutoencoderKLLTXVideo, vae, torch.float32), compiled

    def described(self) -> dict[str, Any]:
        """See `train.Recipe`."""
        return {
            "recipe": "ltx-mini",
            "levels": [LEVEL_SHIFT, ANYWHERE, ALL_NOISE],
            **self._reel.shot.described(),
        }

    def module(self) -> nn.Module:
        """See `train.Recipe`."""
        transformer = LTXVideoTransformer3DModel(**TRANSFORMER)
        if self._compiled:
            transformer.compile()
        return Maker(transformer)

    def batch(self, rng: np.random.Generator, device: torch.device) -> Task:
        """See `train.Recipe`."""
        return task(self._vae.to(device), self._reel.clips(rng, CLIPS_AT_ONCE["transformer"], device), rng)

    def validate(self, module: nn.Module) -> dict[str, float]:
        """The loss on videos of other houses."""
        device, rng = next(module.parameters()).device, np.random.default_rng(0)
        clips = self._unseen.clips(rng, VALIDATION_CLIPS, device)
        return {name: float(value) for name, value in module(task(self._vae.to(device), clips, rng)).items()}

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write it as diffusers has it, in half precision, with the autoencoder and the prompts beside it."""
        saved = LTXVideoTransformer3DModel(**TRANSFORMER)
        saved.load_state_dict(module.transformer.state_dict())
        saved.half().save_pretrained(folder / "transformer")
        self._vae.half().save_pretrained(folder / "vae")
        self._vae.float()
        known = {f"{number}.embeds": one[None] for number, one in enumerate(embedded(torch.device("cpu")))}
        known |= {f"{number}.mask": torch.ones(1, 1, dtype=torch.bool) for number in range(len(PROMPTS))}
        texts = {str(number): text for number, text in enumerate(PROMPTS)}
        save_file(
            {name: tensor.contiguous() for name, tensor in known.items()}, folder / models.PROMPTS, texts
        )
