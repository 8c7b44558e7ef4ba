# SPDX-License-Identifier: Apache-2.0
"""LTX-Video (Lightricks) through diffusers: the two views are the first and the last frame of a video.

The transformer was trained on noise levels that are its timesteps by a thousand, as the schedules here give
them. A scheduler as it comes with some checkpoints shifts the levels, and not the timesteps: so it is made
anew, without shifts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline, LTXVideoCondition
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pose_bridge import models
from pose_bridge.canvas import Canvas, canvases
from pose_bridge.config import LtxConfig
from pose_bridge.control import Control
from pose_bridge.errors import ModelError
from pose_bridge.generators.base import Frames, Take, Video, fault, views
from pose_bridge.memory import guarded
from pose_bridge.views import View

# It warns of levels that are not the timesteps, and cannot know that here they are.
logging.getLogger("diffusers.schedulers.scheduling_flow_match_euler_discrete").setLevel(logging.ERROR)

TRAIN_STEPS = 1000
FRAME_RATE = 25  # that places of frames in time are by
END_NOISE = 0.15  # that is added to both ends, by the noise level squared


class _Pipeline(LTXConditionPipeline):
    """The same for autoencoders that pack by less than 32, which it refuses."""

    def check_inputs(self, *_: Any, **__: Any) -> None:
        """All that is given is made here, and fits."""


class LtxGenerator:
    """Makes videos with a local folder in diffusers' layout, and prompts that were embedded beforehand.

    Args:
        settings: Where the weights are, and how to run them.

    Raises:
        ModelError: The weights, or the embedded prompts, cannot be used.
    """

    name = "ltx"

    def __init__(self, settings: LtxConfig) -> None:
        self._settings = settings
        folder = models.folder_of(settings.weights)
        on_gpu = settings.gpu and torch.cuda.is_available()
        self._device = torch.device("cuda" if on_gpu else "cpu")
        precision = torch.bfloat16 if on_gpu else torch.float32
        self._embedded = _prompts(folder / models.PROMPTS)
        self._pipeline = _Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS),
            vae=loaded(AutoencoderKLLTXVideo, folder / "vae", precision),
            text_encoder=None,
            tokenizer=None,
            transformer=loaded(LTXVideoTransformer3DModel, folder / "transformer", precision),
        )
        self.model = f"ltx {models.fingerprint(folder / part for part in ('transformer', 'vae'))}"
        width = self._pipeline.transformer.config.caption_channels
        for prompt, parts in self._embedded.items():
            if parts["embeds"].shape[-1] != width:
                raise ModelError(
                    f"the prompts in {folder} were embedded for another model ({prompt!r}); "
                    f"run: pose_bridge models embed {folder}"
                )
        self._pipeline.set_progress_bar_config(disable=True)
        if on_gpu and settings.offload:
            self._pipeline.enable_model_cpu_offload()
        else:
            self._pipeline.to(self._device)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Those that were embedded, in their order."""
        return tuple(self._embedded)

    def video(self, reference: View, target: View, take: Take, control: Control) -> Video:
        """See `base.Generator`."""
        first, last = canvases(
            [reference, target], self._settings.long_side_px, self._pipeline.vae_spatial_compression_ratio
        )
        ends = (last, first) if take.reversed else (first, last)
        prompt = self.prompts[take.prompt]
        frames = self._frames(ends, self._embedded[prompt], take.seed, control)
        if take.reversed:
            frames = frames[::-1]
        wrong = fault(frames, (first.image, last.image), self._settings.max_end_difference)
        return Video(() if wrong else views(frames, first.camera, self.model, prompt, take), wrong)

    def _frames(
        self, ends: tuple[Canvas, Canvas], embedded: Mapping[str, Tensor], seed: int, control: Control
    ) -> Frames:
        """The whole video, both ends among it, (N, H, W, 3), 0 to 255."""
        settings = self._settings
        height, width = ends[0].image.shape[:2]
        count = settings.num_frames
        conditions = [
            LTXVideoCondition(image=Image.fromarray(end.image), frame_index=frame)
            for end, frame in zip(ends, (0, count - 1), strict=True)
        ]
        timesteps = list(settings.timesteps)

        def after(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            control.step(f"generated: step {step + 1} of {len(timesteps)}")
            return {}

        control.check()
        lacking = (
            f"LTX-Video does not fit into memory with {count} frames of {width}x{height}; "
            "try ltx.offload, or a smaller ltx.long_side_px"
        )
        with guarded(lacking):
            made = self._pipeline(
                conditions=conditions,
                height=height,
                width=width,
                num_frames=count,
                timesteps=timesteps,
                guidance_scale=1.0,
                frame_rate=FRAME_RATE,
                image_cond_noise_scale=END_NOISE,
                prompt_embeds=embedded["embeds"].to(self._device, self._pipeline.transformer.dtype),
                prompt_attention_mask=embedded["mask"].to(self._device),
                generator=torch.Generator(self._device).manual_seed(seed),
                decode_timestep=settings.decode_timestep,
                decode_noise_scale=settings.decode_noise,
                output_type="np",
                callback_on_step_end=after,
            )
        return np.asarray(made.frames[0] * 255.0, np.float32)


def embed(folder: Path, prompts: Sequence[str]) -> None:
    """Write prompts beside the weights as the text encoder there has them: a robot need not load it.

    Args:
        folder: In diffusers' layout, with `text_encoder` and `tokenizer`.
        prompts: In the order of their numbers.

    Raises:
        ModelError: There is no text encoder that can be used.
    """
    from transformers import AutoTokenizer, T5EncoderModel

    try:
        pipeline = LTXConditionPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS),
            vae=None,
            text_encoder=T5EncoderModel.from_pretrained(
                folder / "text_encoder", dtype=torch.bfloat16, use_safetensors=True, local_files_only=True
            ),
            tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            transformer=None,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} holds no text encoder that can be used ({error})") from None
    tensors: dict[str, Tensor] = {}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.to(device)
    with torch.inference_mode():
        for number, prompt in enumerate(prompts):
            embeds, mask, _, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
            tensors |= {
                f"{number}.embeds": embeds.cpu().contiguous(),
                f"{number}.mask": mask.cpu().contiguous(),
            }
    path = folder / models.PROMPTS
    part = path.with_suffix(".part")  # who finds the file takes it for whole
    save_file(tensors, part, {str(number): prompt for number, prompt in enumerate(prompts)})
    part.replace(path)


def loaded(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Return a network of diffusers', every parameter of it from a local file.

    Raises:
        ModelError: It is missing, not whole, or of another make.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"no {kind.__name__} at {folder}")
    try:
        model, said = kind.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} holds no {kind.__name__} that can be used ({error})") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if said[what]:
            first = min(map(str, said[what]))
            raise ModelError(f"{folder} does not fit {kind.__name__}: {what}, among them {first}")
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"{folder}: {name} holds what is no number; fetch it again")
    return model.eval().requires_grad_(False)


def _prompts(path: Path) -> dict[str, dict[str, Tensor]]:
    """Embedded prompts by their texts, in the order of their numbers."""
    if not path.is_file():
        raise ModelError(f"no embedded prompts at {path}")
    try:
        with safe_open(path, "pt") as file:
            texts: Mapping[str, str] = file.metadata() or {}
            numbers = sorted((name for name in texts if name.isdigit()), key=int)
            if not numbers:
                raise ValueError("its metadata names none")
            return {
                texts[number]: {part: file.get_tensor(f"{number}.{part}") for part in ("embeds", "mask")}
                for number in numbers
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} holds no embedded prompts ({error}); make it again") from None
