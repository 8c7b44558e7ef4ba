# SPDX-License-Identifier: Apache-2.0
"""The real pipeline on a small checkpoint with random weights."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from installed import require_learned

require_learned()

import torch  # noqa: E402
from checkpoints import save_ltx, save_text_encoder  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from pose_bridge import canvas  # noqa: E402
from pose_bridge.config import LtxConfig  # noqa: E402
from pose_bridge.control import Control  # noqa: E402
from pose_bridge.errors import CancelledError, ConfigError, ModelError, OutOfMemoryError  # noqa: E402
from pose_bridge.generators import ltx  # noqa: E402
from pose_bridge.generators.base import Take  # noqa: E402
from pose_bridge.generators.ltx import LtxGenerator  # noqa: E402
from pose_bridge.geometry.cameras import Camera  # noqa: E402
from pose_bridge.views import View  # noqa: E402

CAMERA = Camera.from_focal_px(100.0, 128, 96)
FORTH, BACK = (Take(prompt=0, reversed=turned, seed=3) for turned in (False, True))


def view(seed: int) -> View:
    noise = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), np.uint8)
    return View(id=f"v{seed}", image=cv2.GaussianBlur(noise, (0, 0), 5.0), camera=CAMERA)


REFERENCE, TARGET = view(1), view(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ltx(tmp_path_factory.mktemp("ltx"))


def generator(folder: Path, **more: Any) -> LtxGenerator:
    """Random weights keep no end frames; what else they do is looked at here."""
    small = {"gpu": False, "long_side_px": 128, "num_frames": 9, "max_end_difference": 100.0}
    return LtxGenerator(LtxConfig(weights=str(folder), **{**small, **more}))


def test_a_video_of_the_right_size_that_knows_where_it_comes_from(folder: Path) -> None:
    maker = generator(folder)
    said: list[str] = []
    video = maker.video(REFERENCE, TARGET, BACK, Control(on_progress=said.append))
    assert len(video.views) == 7
    for number, made in enumerate(video.views, 1):
        assert made.image.shape == (96, 128, 3)
        assert made.camera == CAMERA
        assert made.generated is not None
        assert made.generated.model == maker.model
        assert (made.generated.prompt, made.generated.seed, made.generated.frame) == (
            "walk around",
            3,
            number,
        )
    assert said == [f"generated: step {step} of 8" for step in range(1, 9)]


def test_the_seed_the_prompt_and_the_order_make_the_video(folder: Path) -> None:
    maker = generator(folder)

    def pictures(take: Take) -> np.ndarray:
        return np.stack([made.image for made in maker.video(REFERENCE, TARGET, take, Control()).views])

    forth = pictures(FORTH)
    np.testing.assert_array_equal(forth, pictures(FORTH))
    others = [BACK, Take(prompt=0, reversed=False, seed=4), Take(prompt=1, reversed=False, seed=3)]
    for other in others:
        assert np.abs(forth.astype(int) - pictures(other)).mean() > 0.01


def test_back_is_forth_between_the_other_ends_turned_round(folder: Path) -> None:
    maker = generator(folder)
    back = maker.video(REFERENCE, TARGET, BACK, Control()).views
    forth = maker.video(TARGET, REFERENCE, FORTH, Control()).views
    for made, other in zip(back, reversed(forth), strict=True):
        np.testing.assert_array_equal(made.image, other.image)


def test_the_noise_levels_are_those_that_the_model_was_trained_for(folder: Path) -> None:
    """The transformer is told t while its latents hold noise of t / 1000."""
    maker = generator(folder)
    told: list[float] = []
    transformer = maker._pipeline.transformer
    forward = transformer.forward

    def listening(*args: Any, **known: Any) -> Any:
        told.append(float(known["timestep"].max()))
        return forward(*args, **known)

    transformer.forward = listening
    maker.video(REFERENCE, TARGET, FORTH, Control())
    wanted = LtxConfig().timesteps
    np.testing.assert_allclose(told, wanted)
    scheduler = maker._pipeline.scheduler
    np.testing.assert_allclose(scheduler.sigmas, [*(t / 1000.0 for t in wanted), 0.0], atol=1e-6)


def test_a_video_that_does_not_keep_its_ends_is_dropped(folder: Path) -> None:
    maker = generator(folder, max_end_difference=LtxConfig().max_end_difference)
    video = maker.video(REFERENCE, TARGET, FORTH, Control())
    assert video.views == ()
    assert "does not show the reference" in video.fault


def test_cancelled_between_two_steps(folder: Path) -> None:
    maker, cancelled, said = generator(folder), threading.Event(), []

    def after_three(what: str) -> None:
        said.append(what)
        if len(said) == 3:
            cancelled.set()

    with pytest.raises(CancelledError):
        maker.video(REFERENCE, TARGET, FORTH, Control(cancelled, on_progress=after_three))
    assert len(said) == 3
    assert len(maker.video(REFERENCE, TARGET, FORTH, Control()).views) == 7  # and the next one is made


def test_too_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = generator(folder)

    def scarce(*args: object, **known: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(maker._pipeline.transformer, "forward", scarce)
    with pytest.raises(OutOfMemoryError, match=r"9 frames of 128x96; try ltx\.offload"):
        maker.video(REFERENCE, TARGET, FORTH, Control())


def test_the_ends_are_drawn_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(ltx, "canvases", lambda *args: seen.extend(canvas.canvases(*args)) or seen[-2:])
    generator(folder).video(REFERENCE, TARGET, FORTH, Control())
    np.testing.assert_array_equal(seen[0].image, REFERENCE.image)


# --- what cannot be used


def test_weights_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As profiles name them."""
    save_ltx(tmp_path / "ltx")
    monkeypatch.setenv("HOME", str(tmp_path))
    LtxGenerator(LtxConfig(weights="~/ltx", gpu=False))


@pytest.mark.parametrize(
    ("embedded", "said"), [({}, "holds no embedded prompts"), ({"0": 8}, "for another model")]
)
def test_prompts_that_cannot_be_used(tmp_path: Path, embedded: dict[str, int], said: str) -> None:
    folder = save_ltx(tmp_path)
    tensors = {f"{number}.embeds": torch.zeros(1, 6, width) for number, width in embedded.items()}
    masks = {f"{number}.mask": torch.ones(1, 6, dtype=torch.bool) for number in embedded}
    nothing = {"unnamed": torch.zeros(1)}
    save_file(
        {**tensors, **masks} or nothing, folder / "prompts.safetensors", dict.fromkeys(embedded, "walk")
    )
    with pytest.raises(ModelError, match=said):
        generator(folder)


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    """Of one shape, to the last number."""
    a, b, again = (save_ltx(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 1), ("c", 0)))
    assert generator(a).model == generator(again).model != generator(b).model


def test_prompts_are_embedded_beside_the_weights(tmp_path: Path) -> None:
    """Those that a robot reads are those that the text encoder gave."""
    folder = save_text_encoder(save_ltx(tmp_path))
    ltx.embed(folder, ("turn around the room", "walk"))
    maker = generator(folder)
    assert maker.prompts == ("turn around the room", "walk")
    embedded = load_file(folder / "prompts.safetensors")
    assert embedded["0.embeds"].shape[-1] == 32
    words = embedded["0.mask"].sum(), embedded["1.mask"].sum()
    assert words[0] > words[1] > 1
    assert not torch.equal(embedded["0.embeds"], embedded["1.embeds"])
    assert len(maker.video(REFERENCE, TARGET, FORTH, Control()).views) == 7


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_nothing_to_embed_with(tmp_path: Path, part: str) -> None:
    folder = save_text_encoder(save_ltx(tmp_path))
    before = (folder / "prompts.safetensors").read_bytes()
    shutil.rmtree(folder / part)
    with pytest.raises(ModelError, match="holds no text encoder that can be used"):
        ltx.embed(folder, ("walk",))
    assert (folder / "prompts.safetensors").read_bytes() == before


def spoilt(tmp_path: Path, how: str) -> Path:
    folder = save_ltx(tmp_path)
    weights = next((folder / "transformer").glob("*.safetensors"))
    state = load_file(weights)
    name = min(state)
    if how == "no transformer":
        weights.unlink()
    elif how == "no folder":
        (folder / "vae" / "config.json").unlink()
    elif how == "half":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "a pickle":
        weights.unlink()
        torch.save(state, folder / "transformer" / "diffusion_pytorch_model.bin")
    elif how == "missing":
        save_file({key: t for key, t in state.items() if key != name}, weights)
    elif how == "too many":
        save_file({**state, "extra.weight": torch.ones(2)}, weights)
    elif how == "no number":
        save_file({**state, name: torch.full_like(state[name], float("nan"))}, weights)
    elif how == "no prompts":
        (folder / "prompts.safetensors").unlink()
    elif how == "spoilt prompts":
        (folder / "prompts.safetensors").write_bytes(b"walk around")
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no transformer", "holds no LTXVideoTransformer3DModel that can be used"),
        ("no folder", "no AutoencoderKLLTXVideo at"),
        ("half", "LTXVideoTransformer3DModel"),
        ("a pickle", "holds no LTXVideoTransformer3DModel that can be used"),
        ("missing", "missing_keys"),
        ("too many", "unexpected_keys, among them extra.weight"),
        ("no number", "holds what is no number"),
        ("no prompts", "no embedded prompts at"),
        ("spoilt prompts", "holds no embedded prompts"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, how: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        generator(spoilt(tmp_path, how))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_frames", 24, "8k \\+ 1, got 24; try 25"),
        ("num_frames", 26, "8k \\+ 1, got 26; try 25"),
        ("schedule", "1000 many", "must be numbers"),
        ("schedule", "", "must fall"),
        ("schedule", "1000 400 400", "must fall"),
        ("schedule", "1200 400", "must fall"),
        ("schedule", "1000 0", "must fall"),
    ],
)
def test_settings_that_cannot_be(name: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LtxConfig(**{name: value})
