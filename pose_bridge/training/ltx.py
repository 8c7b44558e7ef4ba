# SPDX-License-Identifier: Apache-2.0
"""A small LTX-Video, taught by rendered walks to fill in between two views up to 110 degrees apart.

It makes packed videos of noise, as `generators.ltx` runs it: the first view takes the place of the first
packed frame, the last one stands beside them as tokens of its own. It is also taught what rendering knows:
where the points are that tokens show, and where either end shows them.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention, apply_rotary_emb
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from pose_bridge import models
from pose_bridge.generators.base import PROMPTS
from pose_bridge.generators.ltx import END_NOISE, FRAME_RATE, loaded
from pose_bridge.training import footage, losses
from pose_bridge.training.ltx_vae import LATENTS
from pose_bridge.training.reel import CLIP, Clips, Reel
from pose_bridge.training.sets import Batch
from pose_bridge.training.train import Plan, coarse
from pose_bridge.training.truth import truth

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
LEVEL_SHIFT, ANYWHERE, ALL_NOISE = 1.0, 0.25, 0.1  # of noise levels: of the logit; shares
GATE = 0.5  # of what a block adds, at the start: a small network learns faster than with next to nothing
POINTS_LAYER, LOOK_LAYERS = 2, (1, 3)  # blocks after which tokens know points, and that look where they are
WEIGHTS = {"velocity": 1.0, "points": 0.5, "look": 0.25}
CLIPS_AT_ONCE = 16
VALIDATION_CLIPS = 64
PACKED_FRAMES = CLIP // 2 + 1  # of a video; the first of them is one frame, the others are two


class Maker(nn.Module):
    """The transformer with what it only needs while it learns.

    Args:
        transformer: The learner.
    """

    def __init__(self, transformer: LTXVideoTransformer3DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.points = nn.Linear(transformer.proj_in.out_features, 3)
        self._looks: list[Tensor] = []
        self._middle: list[Tensor] = []
        blocks = transformer.transformer_blocks
        blocks[POINTS_LAYER].register_forward_hook(self._keep)
        for layer in LOOK_LAYERS:
            blocks[layer].attn1.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, attention: LTXAttention, _: Any, given: dict[str, Any], __: Tensor) -> None:
        """Keep how likely heads are to look at the tokens of either end, logarithms, (B, K, 2, tokens)."""
        tokens, rotation = given["hidden_states"], given["image_rotary_emb"]
        ends = 2 * tokens.shape[1] // (1 + PACKED_FRAMES)
        q, k = (
            apply_rotary_emb(norm(of(tokens)), rotation).unflatten(2, (attention.heads, -1)).transpose(1, 2)
            for norm, of in ((attention.norm_q, attention.to_q), (attention.norm_k, attention.to_k))
        )
        scores = (q @ k[:, :, :ends].transpose(-1, -2)).float() / q.shape[-1] ** 0.5
        by_head = scores.unflatten(-1, (2, -1)).log_softmax(dim=-1)
        self._looks.append(by_head.logsumexp(dim=1) - math.log(attention.heads))

    def _keep(self, _: nn.Module, __: Any, tokens: Tensor) -> None:
        self._middle.append(tokens)

    def forward(self, task: Task) -> dict[str, Tensor]:
        """Return by how much it is wrong, by kind, weighted by `WEIGHTS`.

        `velocity`: squared error of that from packed videos to noise.
        """
        self._looks.clear()
        self._middle.clear()
        with coarse(task.tokens.device):
            said = self.transformer(
                hidden_states=task.tokens,
                encoder_hidden_states=task.prompts,
                timestep=task.timesteps,
                encoder_attention_mask=torch.ones(task.prompts.shape[:2], device=task.prompts.device),
                video_coords=task.places,
                return_dict=False,
            )[0]
        found = {
            "velocity": (said.float() - task.velocity)[task.wanted].square().mean(),
            "points": losses.points(self.points(self._middle[0].float()), task.points),
            "look": torch.stack([losses.look(likely, task.seen) for likely in self._looks]).mean(),
        }
        return {name: WEIGHTS[name] * loss for name, loss in found.items()}


class Task(NamedTuple):
    """What the transformer is asked: K tokens, the last view's first, then those of the video.

    Attributes:
        tokens: Packed frames, noisy where they are to be made, (B, K, LATENTS).
        prompts: Embedded, (B, 1, CAPTION).
        timesteps: Noise levels by a thousand, 0 for what is given, (B, K).
        places: When and where a token is, (B, 3, K).
        velocity: From the packed frames to the noise, (B, K, LATENTS).
        wanted: Tokens that are to be made, bool (B, K).
        points: Seen in the middles of patches, in the first camera's frame, (B, K, 3); NaN where unknown.
        seen: In which patch of the last view, and of the first one, each is seen, (B, K, 2); -1 if in none.
    """

    tokens: Tensor
    prompts: Tensor
    timesteps: Tensor
    places: Tensor
    velocity: Tensor
    wanted: Tensor
    points: Tensor
    seen: Tensor


def task(vae: AutoencoderKLLTXVideo, clips: Clips, rng: np.random.Generator) -> Task:
    """Pack videos and add noise, as the pipeline that runs the model later does.

    Args:
        vae: Has learned.
        clips: In both its ends a view that is given.
        rng: Of the noise.
    """
    frames = clips.video
    device, count = frames.device, len(frames)
    pack = LTXConditionPipeline._pack_latents
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    with torch.no_grad():
        with coarse(device):
            packed = vae.encode(frames).latent_dist.mean
        video = _normal(vae, packed.float())
        ends = torch.cat((frames[:, :, :1], frames[:, :, -1:]))
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
        *_known(clips.batch, vae.spatial_compression_ratio),
    )


def _known(batch: Batch, patch_px: int) -> tuple[Tensor, Tensor]:
    """See `Task.points` and `Task.seen`; a packed frame shows what the last of its frames does."""
    frames = list(range(0, CLIP, 2))
    some = batch.at(frames)
    of_ends = [truth(some, patch_px, [end] * len(frames)) for end in (len(frames) - 1, 0)]
    points, seen = of_ends[0].points, torch.stack([known.in_other for known in of_ends], dim=-1)
    points, seen = (torch.cat((of[:, -1:], of), dim=1) for of in (points, seen))
    seen[:, 0, :, 0] = seen[:, 1, :, 1] = -1  # an end need not look at itself
    return points.flatten(1, 2), seen.flatten(1, 2)


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
        self.plan = Plan(steps=steps, seed=seed, weight_decay=0.01, orthogonal=4.0)
        self._reel, self._unseen = (Reel(footage.read(folder / name)) for name in ("train", "validation"))
        self._vae, self._compiled = loaded(AutoencoderKLLTXVideo, vae, torch.float32), compiled
        self._vae_known_by = models.fingerprint([vae])

    def described(self) -> dict[str, Any]:
        """See `train.Recipe`."""
        return {
            "recipe": "ltx-mini",
            "vae": self._vae_known_by,
            "levels": [LEVEL_SHIFT, ANYWHERE, ALL_NOISE],
            "weights": WEIGHTS,
            **self._reel.shot.described(),
        }

    def module(self) -> nn.Module:
        """See `train.Recipe`."""
        transformer = LTXVideoTransformer3DModel(**TRANSFORMER)
        for block in transformer.transformer_blocks:
            block.scale_shift_table.data[[2, 5]] = GATE  # of the attention, and of what follows
        maker = Maker(transformer)
        if self._compiled:
            transformer.compile()
        return maker

    def batch(self, rng: np.random.Generator, device: torch.device) -> Task:
        """See `train.Recipe`."""
        return task(self._vae.to(device), self._reel.clips(rng, CLIPS_AT_ONCE, device), rng)

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
        copy.deepcopy(self._vae).half().save_pretrained(folder / "vae")
        known = {f"{number}.embeds": one[None] for number, one in enumerate(embedded(torch.device("cpu")))}
        known |= {f"{number}.mask": torch.ones(1, 1, dtype=torch.bool) for number in range(len(PROMPTS))}
        texts = {str(number): text for number, text in enumerate(PROMPTS)}
        save_file(
            {name: tensor.contiguous() for name, tensor in known.items()}, folder / models.PROMPTS, texts
        )
