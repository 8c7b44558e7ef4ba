# SPDX-License-Identifier: Apache-2.0
"""VGGT answers as the published network does, and takes no checkpoint for another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from installed import require_learned

require_learned()

import torch  # noqa: E402
from checkpoints import TINY, save_vggt, vggt_state  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from pose_bridge.errors import ErrorCode, ModelError  # noqa: E402
from pose_bridge.estimators.vggt import weights  # noqa: E402
from pose_bridge.estimators.vggt.network import Architecture, Vggt  # noqa: E402

CPU = torch.device("cpu")


def loaded(folder: Path, overlay: Path | None = None) -> Vggt:
    return weights.load(folder, CPU, torch.float32, overlay)


@torch.inference_mode()
def test_as_the_published_network(vggt_tiny: Path) -> None:
    network = loaded(vggt_tiny)
    expected = np.load(vggt_tiny / "expected.npz")
    images = torch.from_numpy(expected["images"])
    size = images.shape[-2:]
    patches = network.embed(images[0])[None]
    first, last = network.aggregator(patches, (size[0] // 14, size[1] // 14), (0, network.size.depth - 1))
    for tokens, name in ((first, "tokens_first"), (last, "tokens_last")):
        wanted = expected[name]
        assert np.abs(tokens.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()
    found = network(patches, size, depth=True)
    np.testing.assert_allclose(found.encoding, expected["pose_encoding"], atol=1e-5)
    np.testing.assert_allclose(found.depth, expected["depth"][..., 0], atol=1e-5)
    np.testing.assert_allclose(found.confidence, expected["depth_conf"], atol=1e-5)


def test_the_published_checkpoint_fits_by_name_and_shape(vggt_tiny: Path) -> None:
    names = json.loads((vggt_tiny.parent / "vggt_1b_state_dict.json").read_text())
    shapes = {name: tuple(shape) for name, shape in names.items() if not name.startswith(weights.UNUSED)}
    size = weights.architecture(shapes)
    assert size == Architecture()
    assert size.dense_layers == (4, 11, 17, 23)
    with torch.device("meta"):
        own = {name: tuple(tensor.shape) for name, tensor in Vggt(size).state_dict().items()}
    assert own == shapes


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = vggt_state()
    network = loaded(save_vggt(tmp_path, state))
    assert network.size == TINY
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_an_overlay_takes_the_place_of_what_it_names(tmp_path: Path) -> None:
    state, name = vggt_state(), "aggregator.global_blocks.3.mlp.fc2.bias"
    changed = {name: state[name] + 1.0}
    save_file(changed, tmp_path / "biases.safetensors")
    network = loaded(save_vggt(tmp_path, state), tmp_path / "biases.safetensors")
    found = network.state_dict()
    assert torch.equal(found[name], changed[name])
    assert all(torch.equal(found[other], state[other]) for other in state if other != name)


def test_an_overlay_of_another_model(tmp_path: Path) -> None:
    save_file({"lora.weight": torch.ones(3)}, tmp_path / "biases.safetensors")
    with pytest.raises(ModelError, match=r"biases\.safetensors holds lora\.weight"):
        loaded(save_vggt(tmp_path), tmp_path / "biases.safetensors")


# --- what cannot be used


def spoilt(tmp_path: Path, how: str) -> Path:
    state, file = vggt_state(), tmp_path / "model.safetensors"
    if how == "one is missing":
        del state["camera_head.trunk.0.norm1.bias"]
    elif how == "a block is missing":
        state = {name: t for name, t in state.items() if not name.startswith("aggregator.global_blocks.2.")}
    elif how == "one too many":
        state["camera_head.pose_branch.fc3.bias"] = torch.ones(9)
    elif how == "another shape":
        state["depth_head.norm.weight"] = torch.ones(65)
    elif how == "no number":
        state["aggregator.camera_token"][0, 0, 0, 0] = float("nan")
    elif how == "another model":
        state = {"transformer.h.0.attn.weight": torch.ones(2, 2)}
    save_vggt(tmp_path, state)
    if how == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "a pickle":
        torch.save(state, file)
    elif how == "a page":
        file.write_text("<html>Access to this model is restricted</html>")
    elif how == "empty":
        file.write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("one is missing", "lacks 1 parameters of VGGT, among them camera_head.trunk.0.norm1.bias"),
        ("a block is missing", "lacks 18 parameters of VGGT, among them aggregator.global_blocks.2"),
        ("one too many", "holds camera_head.pose_branch.fc3.bias"),
        ("another shape", r"depth_head.norm.weight is \(65,\), VGGT's is \(64,\)"),
        ("no number", "aggregator.camera_token holds what is no number"),
        ("another model", "holds no VGGT"),
        ("half", "no whole file of safetensors"),
        ("a pickle", "no whole file of safetensors"),
        ("a page", "no whole file of safetensors"),
        ("empty", "no whole file of safetensors"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused(tmp_path: Path, how: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as raised:
        loaded(spoilt(tmp_path, how))
    assert raised.value.code is ErrorCode.MODEL_MISSING


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no weights at .*nowhere"):
        loaded(tmp_path / "nowhere")
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"model\.pt beside it is a pickle"):
        loaded(tmp_path)
