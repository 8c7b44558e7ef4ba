# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of VGGT, from safetensors: the published ones, and any others of the same make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pose_bridge.errors import ModelError
from pose_bridge.estimators.vggt.network import Architecture, Vggt

FILE = "model.safetensors"
UNUSED = ("point_head.", "track_head.", "aggregator.patch_embed.mask_token")
PREFIX_OF = {  # of the blocks that are counted
    "depth": "aggregator.frame_blocks.",
    "dino_depth": "aggregator.patch_embed.blocks.",
    "camera_depth": "camera_head.trunk.",
}

Shape = tuple[int, ...]


def load(folder: Path, device: torch.device, dtype: torch.dtype, overlay: Path | None = None) -> Vggt:
    """Return the network of a checkpoint, ready to answer.

    The heads for points and for tracks are left out by their names; whatever else is missing, unknown or of
    another shape is an error.

    Args:
        folder: With `model.safetensors` in it.
        device: Where the network goes.
        dtype: Of the aggregator's parameters; cameras and depth are read out in float32.
        overlay: Parameters that take the place of the checkpoint's, as a tuning of few of them saves: another
            file of safetensors with some of the same names.

    Raises:
        ModelError: A file is missing, not whole, no safetensors, or of another model.
    """
    state = read(folder / FILE)
    network = built(state, f"{folder / FILE}")
    if overlay is not None:
        changed = read(overlay)
        _refuse_misfits(changed, {name: tuple(state[name].shape) for name in state}, str(overlay))
        state |= changed
    used = {
        name: tensor.to(device, dtype if name.startswith("aggregator.") else torch.float32)
        for name, tensor in state.items()
    }
    network.load_state_dict(used, assign=True)
    return network.eval().requires_grad_(False)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors that are used of a file of safetensors.

    Raises:
        ModelError: It is missing, not whole, or no safetensors.
    """
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*.p*") if p.suffix in (".pt", ".pth", ".pkl"))
        hint = f"; {others[0]} beside it is a pickle, which can run code and is not read" if others else ""
        raise ModelError(f"no weights at {path}{hint}")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if not name.startswith(UNUSED)}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no whole file of safetensors ({error}); fetch it again") from None


def built(state: Mapping[str, Tensor], source: str) -> Vggt:
    """Return a network without values that fits a checkpoint exactly.

    Raises:
        ModelError: It is no checkpoint of VGGT; the message names what does not fit.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        size = architecture(shapes)
        with torch.device("meta"):
            network = Vggt(size)
    except (KeyError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise ModelError(f"{source} holds no VGGT: {error} does not fit") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    _refuse_misfits(state, wanted, source)
    if missing := sorted(wanted.keys() - shapes.keys()):
        raise ModelError(f"{source} lacks {len(missing)} parameters of VGGT, among them {missing[0]}")
    return network


def architecture(shapes: Mapping[str, Shape]) -> Architecture:
    """Read the sizes of a network off the shapes of its parameters.

    Heads are as wide in the patch embedding as in the blocks, and as many in the camera head, as in all that
    were published.

    Raises:
        KeyError, ValueError, ZeroDivisionError: Something that every VGGT has is missing or impossible.
    """
    _, _, _, width = shapes["aggregator.camera_token"]
    (head_width,) = shapes["aggregator.frame_blocks.0.attn.q_norm.weight"]
    _, places, _ = shapes["aggregator.patch_embed.pos_embed"]
    first, second, third, last = (shapes[f"depth_head.projects.{level}.weight"][0] for level in range(4))
    return Architecture(
        patch_px=shapes["aggregator.patch_embed.patch_embed.proj.weight"][-1],
        width=width,
        heads=width // head_width,
        mlp=shapes["aggregator.frame_blocks.0.mlp.fc1.weight"][0],
        registers=shapes["aggregator.register_token"][2],
        dino_heads=width // head_width,
        dino_mlp=shapes["aggregator.patch_embed.blocks.0.mlp.fc1.weight"][0],
        dino_registers=shapes["aggregator.patch_embed.register_tokens"][1],
        dino_grid=round((places - 1) ** 0.5),
        dense_channels=(first, second, third, last),
        dense_features=shapes["depth_head.scratch.layer1_rn.weight"][0],
        **{name: _count(shapes, prefix) for name, prefix in PREFIX_OF.items()},
    )


def _count(shapes: Mapping[str, Shape], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def _refuse_misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Shape], source: str) -> None:
    for name, tensor in sorted(state.items()):
        if name not in wanted:
            raise ModelError(f"{source} holds {name}, which VGGT does not have")
        if tuple(tensor.shape) != wanted[name]:
            raise ModelError(f"{source}: {name} is {tuple(tensor.shape)}, VGGT's is {wanted[name]}")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{source}: {name} holds what is no number; fetch it again")
