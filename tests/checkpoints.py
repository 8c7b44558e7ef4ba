# SPDX-License-Identifier: Apache-2.0
"""Small checkpoints with random weights, in the formats that the large ones are published in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from installed import require_learned

require_learned()

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from pose_bridge.estimators.vggt.network import REFINEMENTS, Architecture, Vggt  # noqa: E402

TINY = Architecture(
    width=32,
    depth=4,
    heads=2,
    mlp=64,
    dino_depth=1,
    dino_heads=2,
    dino_mlp=64,
    dino_grid=4,
    camera_depth=1,
    dense_channels=(16, 16, 32, 32),
    dense_features=16,
)


def vggt_state(seed: int = 0, size: Architecture = TINY) -> dict[str, torch.Tensor]:
    """Random parameters under which cameras differ and every field of view is one."""
    torch.manual_seed(seed)
    state = Vggt(size).state_dict()
    for name, tensor in state.items():
        if name.endswith("gamma"):
            tensor.fill_(0.5)
        elif not tensor.any():
            tensor.copy_(0.2 * torch.randn_like(tensor))
    state["camera_head.pose_branch.fc2.weight"].mul_(0.1)
    state["camera_head.pose_branch.fc2.bias"][3:] = torch.tensor([0.1, 0.2, 0.0, 1.0, 0.9, 0.9]) / REFINEMENTS
    return state


def save_vggt(folder: Path, state: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a checkpoint, heads that are not used among it."""
    folder.mkdir(parents=True, exist_ok=True)
    unused = {"point_head.norm.weight": torch.ones(4), "track_head.tracker.fmap_norm.bias": torch.ones(4)}
    save_file({**(vggt_state() if state is None else state), **unused}, folder / "model.safetensors")
    return folder


def save_ltx(folder: Path, seed: int = 0, prompts: tuple[str, ...] = ("walk around", "turn")) -> Path:
    """Write a small LTX-Video in diffusers' layout, with embedded prompts beside it."""
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

    torch.manual_seed(seed)
    channels, words = 16, 32
    LTXVideoTransformer3DModel(
        in_channels=channels,
        out_channels=channels,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=1,
        caption_channels=words,
    ).save_pretrained(folder / "transformer")
    AutoencoderKLLTXVideo(
        latent_channels=channels,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=True,
        patch_size=4,
    ).save_pretrained(folder / "vae")
    embedded = {}
    for number in range(len(prompts)):
        embedded[f"{number}.embeds"] = torch.randn(1, 6, words)
        embedded[f"{number}.mask"] = torch.ones(1, 6, dtype=torch.bool)
    texts = {str(number): text for number, text in enumerate(prompts)}
    save_file(embedded, folder / "prompts.safetensors", texts)
    return folder


def save_text_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a small T5 and its vocabulary beside an LTX-Video, as they are published."""
    import sentencepiece
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    torch.manual_seed(seed)
    T5EncoderModel(
        T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the camera moves around the room", "walk, turn, look: a quick brown fox"]),
        model_prefix=str(folder / "tokenizer" / "spiece"),
        vocab_size=31,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "tokenizer" / "spiece.vocab").unlink()
    vocabulary = str(folder / "tokenizer" / "spiece.model")
    T5TokenizerFast(vocab_file=vocabulary, extra_ids=0).save_pretrained(folder / "tokenizer")
    return folder


def save_models(folder: Path) -> Path:
    """Write all that the generated rung needs."""
    save_vggt(folder / "vggt")
    save_ltx(folder / "ltx")
    return folder


def small_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """For `save_models`: random weights show no end frames and agree about nothing, and need not."""
    return {
        "vggt": {"weights": str(folder / "vggt"), "gpu": False, "long_side_px": 56},
        "ltx": {
            "weights": str(folder / "ltx"),
            "gpu": False,
            "long_side_px": 128,
            "num_frames": 9,
            "max_end_difference": 100.0,
        },
        "generated": {"videos": 2, "subsets": 4, "max_spread_deg": 270.0, "max_focal_ratio": 10.0},
    }
