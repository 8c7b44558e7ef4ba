# SPDX-License-Identifier: Apache-2.0
"""What a small LTX-Video is taught is what the pipeline asks it later; what it learned is what is used."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline
from safetensors.torch import load_file, save_file

from pose_bridge.config import LtxConfig
from pose_bridge.control import Control
from pose_bridge.generators.base import PROMPTS, Take
from pose_bridge.generators.ltx import LtxGenerator
from pose_bridge.geometry.cameras import Camera
from pose_bridge.training import footage, ltx, ltx_vae, principal
from pose_bridge.training.ltx import LtxRecipe, Maker
from pose_bridge.training.ltx_vae import LATENTS, LtxVaeRecipe
from pose_bridge.training.reel import CLIP, Reel
from pose_bridge.training.truth import truth
from pose_bridge.views import View

CPU = torch.device("cpu")
MOST_BYTES = 8.6e6


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Few videos at once: nothing here learns for long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (ltx, ltx_vae):
            patch.setattr(module, "VALIDATION_CLIPS", 8)
            patch.setattr(module, "CLIPS_AT_ONCE", 4)
        yield


@pytest.fixture(scope="module")
def reel(footage_folder: Path) -> Reel:
    return Reel(footage.read(footage_folder / "train"))


@pytest.fixture(scope="module")
def vae_folder(footage_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder that learned for a few steps."""
    recipe, folder = LtxVaeRecipe(footage_folder, 10, 0), tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    packer = recipe.module()
    optimizer = torch.optim.AdamW(packer.parameters(), 3e-6)  # as while it warms up
    off = [packer(recipe.batch(np.random.default_rng(0), CPU))["pixels"].item()]
    for step in range(4):
        losses = packer(recipe.batch(np.random.default_rng(step), CPU))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    off.append(packer(recipe.batch(np.random.default_rng(0), CPU))["pixels"].item())
    assert off[1] < off[0]
    with torch.inference_mode():
        found = recipe.validate(packer.eval())
    assert found.keys() == {"video", "single", "last"}
    assert all(0.0 < value < 127.5 for value in found.values())
    recipe.export(packer, folder)
    return folder / "vae"


@pytest.fixture(scope="module")
def folder(footage_folder: Path, vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe, folder = LtxRecipe(footage_folder, 10, 0, vae_folder), tmp_path_factory.mktemp("ltx")
    torch.manual_seed(0)
    maker = recipe.module()
    average = copy.deepcopy(maker).eval()  # as training makes it
    losses = maker(recipe.batch(np.random.default_rng(0), CPU))
    # Noise and packed frames have a spread of 1, points are 1 away, and a look is at one of 48.
    wanted = {"velocity": 2.0, "points": 1.0, "look": np.log(48)}
    assert {name: loss.item() / ltx.WEIGHTS[name] for name, loss in losses.items()} == pytest.approx(
        wanted, rel=0.6
    )
    with torch.inference_mode():
        assert recipe.validate(average).keys() == wanted.keys()
    recipe.export(maker, folder)
    return folder


def test_clips_run_from_one_end_to_the_other(footage_folder: Path, reel: Reel) -> None:
    shot = footage.read(footage_folder / "train")
    clips = reel.clips(np.random.default_rng(1), 8, CPU)
    assert clips.video.shape == (8, 3, CLIP, 48, 64)
    assert clips.video.abs().max() <= 1.0
    assert set(clips.outward.tolist()) == {True, False}
    steps = (clips.video[:, :, 1:] - clips.video[:, :, :-1]).abs().mean(dim=(1, 2, 3, 4))
    ends = (clips.video[:, :, -1] - clips.video[:, :, 0]).abs().mean(dim=(1, 2, 3))
    assert steps.mean() < 0.8 * ends.mean()
    turned = shot.turns_deg()
    assert all(turned[walk, first, last] <= 110.0 for walk, first, last in reel._ends)


def test_an_autoencoder_begins_as_good_as_principal_components(reel: Reel) -> None:
    """Off by little more than the projection on as many components, fitted and asked on the same videos."""
    torch.manual_seed(0)
    frames = reel.clips(np.random.default_rng(3), 16, CPU).video
    vae = AutoencoderKLLTXVideo(**ltx_vae.VAE)
    with torch.inference_mode():
        grey = (frames - frames.mean(dim=(2, 3, 4), keepdim=True)).abs().mean()
        nothing = (vae.decode(vae.encode(frames).latent_dist.mean).sample - frames).abs().mean()
    principal.begin(vae, frames)
    patches = principal._patches(vae, frames)
    middle, components, spread = principal._components(patches, LATENTS)
    with torch.inference_mode():
        packed = vae.encode(frames).latent_dist
        begun = (vae.decode(packed.mean).sample - frames)[:, :, 1:].abs().mean()
        pieces = frames[:, :, 1:].unflatten(4, (-1, 8)).unflatten(3, (-1, 8)).unflatten(2, (-1, 2))
        pieces = pieces.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(0, 3)
        _, values, axes = torch.linalg.svd(pieces - pieces.mean(dim=0), full_matrices=False)
        off = pieces - pieces.mean(dim=0)
        projected = (off @ axes[:LATENTS].T @ axes[:LATENTS] - off).abs().mean()
    assert begun < 1.3 * projected < 0.5 * grey < 0.6 * nothing
    assert packed.std.mean() < 0.1 * packed.mean.std()  # of what is packed, noise is little
    assert middle.shape == components.shape[1:]
    torch.testing.assert_close(spread, values[:LATENTS] / len(pieces) ** 0.5, rtol=1e-3, atol=0.0)


def test_packed_frames_have_a_spread_of_one(reel: Reel, vae_folder: Path) -> None:
    """On the average: what does much to the pixels has more."""
    vae = AutoencoderKLLTXVideo.from_pretrained(vae_folder, torch_dtype=torch.float32)
    with torch.inference_mode():
        video = reel.clips(np.random.default_rng(5), 8, CPU).video
        packed = ltx._normal(vae, vae.encode(video).latent_dist.mean)
        whole = vae.decode(vae.encode(video).latent_dist.mean).sample
        does = []
        for channel in (0, 1, LATENTS - 1):
            without = packed.clone()
            without[:, channel] = 0.0
            pixels = LTXConditionPipeline._denormalize_latents(without, vae.latents_mean, vae.latents_std)
            does.append(float((vae.decode(pixels).sample - whole).square().mean()) ** 0.25)
    assert packed.shape == (8, LATENTS, 5, 6, 8)
    assert packed.mean().abs() < 0.2
    assert 0.7 < packed.square().mean().sqrt() < 1.3
    ratios = packed[:, [0, 1, -1]].std(dim=(0, 2, 3, 4)) / torch.tensor(does)
    assert ratios.max() < 1.3 * ratios.min()
    assert does[0] > 2.0 * does[-1]


def test_tokens_are_taught_what_the_frames_show(reel: Reel) -> None:
    """A packed frame shows what the last of its frames does; of both ends it is known where they show it."""
    batch = reel.clips(np.random.default_rng(6), 3, CPU).batch
    points, seen = ltx._known(batch, 8)
    points, seen = points.unflatten(1, (6, 48)), seen.unflatten(1, (6, 48))
    for token, frame in enumerate((8, 0, 2, 4, 6, 8)):
        for column, end in enumerate((8, 0)):
            pair = batch.at([frame, end])
            expected = truth(pair, 8).in_other[:, 0]
            own = token < 2 and frame == end
            assert torch.equal(seen[:, token, :, column], torch.full_like(expected, -1) if own else expected)
    torch.testing.assert_close(points[:, 0], points[:, -1], equal_nan=True)
    alone = truth(batch.at([0, 8]), 8).points
    ratio = (points[:, :2].flip(1) / alone).flatten(1)  # in another unit of length, but one for all
    spread = ratio / ratio.nanmedian(dim=1, keepdim=True).values - 1.0
    assert spread[spread.isfinite()].abs().quantile(0.95) < 1e-2
    assert (seen >= 0).float().mean() > 0.2


def test_the_task_is_what_the_pipeline_asks(reel: Reel, folder: Path) -> None:
    """Places, order and noise levels of the tokens; the ends' tokens but for the noise on them."""
    settings = LtxConfig(weights=str(folder), gpu=False, long_side_px=64, num_frames=CLIP, schedule="600")
    generator = LtxGenerator(settings)
    clips = reel.clips(np.random.default_rng(2), 1, CPU)
    asked = {}

    class AskedError(Exception):
        pass

    def listen(**given: torch.Tensor) -> None:
        asked.update(given)
        raise AskedError

    generator._pipeline.transformer.forward = listen
    certain(generator._pipeline.vae)
    pictures = ((clips.video[0].permute(1, 2, 3, 0) + 1.0) * 127.5).round().byte().numpy()
    camera = Camera.from_focal_px(60.0, 64, 48)
    first, last = (View(id=f"{n}", image=pictures[n], camera=camera) for n in (0, -1))
    with pytest.raises(AskedError):
        generator.video(first, last, Take(prompt=1, reversed=False, seed=0), Control())
    vae = certain(AutoencoderKLLTXVideo.from_pretrained(folder / "vae", torch_dtype=torch.float32))
    seeded = np.random.default_rng(0)
    task = ltx.task(vae, clips._replace(outward=torch.tensor([True])), seeded)
    torch.testing.assert_close(asked["video_coords"], task.places)
    assert asked["hidden_states"].shape == task.tokens.shape
    given = ~task.wanted
    assert (asked["timestep"][given] == 0.0).all()
    assert (task.timesteps[given] == 0.0).all()
    assert asked["timestep"][task.wanted].unique().tolist() == pytest.approx([600.0])
    torch.testing.assert_close(asked["encoder_hidden_states"], task.prompts)
    torch.testing.assert_close(asked["hidden_states"][given], task.tokens[given], atol=0.75, rtol=0.0)
    noisy = (asked["hidden_states"][given] - task.tokens[given]).std()
    assert noisy < 0.2  # of END_NOISE, and what bytes round


def test_with_the_velocity_that_is_taught_the_pipeline_makes_the_clip(reel: Reel, folder: Path) -> None:
    """The flow runs from noise to packed frames: a transformer that knows it comes out at the clip itself."""
    schedule = "1000 800 600 400 200"
    settings = LtxConfig(weights=str(folder), gpu=False, long_side_px=64, num_frames=CLIP, schedule=schedule)
    generator = LtxGenerator(settings)
    vae = certain(generator._pipeline.vae)
    clips = reel.clips(np.random.default_rng(4), 1, CPU)
    with torch.inference_mode():
        packed = ltx._normal(vae, vae.encode(clips.video).latent_dist.mean)
    clean = LTXConditionPipeline._pack_latents(packed)

    def knows(hidden_states: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        own = hidden_states[:, -clean.shape[1] :]
        level = timestep[:, -clean.shape[1] :, None] / 1000.0
        velocity = torch.zeros_like(hidden_states)
        velocity[:, -clean.shape[1] :] = (own - clean) / level.clamp_min(1e-6)
        return (velocity,)

    generator._pipeline.transformer.forward = knows
    made = []
    decode = vae.decode
    vae.decode = lambda latents, *more, **given: (made.append(latents), decode(latents, *more, **given))[1]
    pictures = ((clips.video[0].permute(1, 2, 3, 0) + 1.0) * 127.5).round().byte().numpy()
    camera = Camera.from_focal_px(60.0, 64, 48)
    first, last = (View(id=f"{n}", image=pictures[n], camera=camera) for n in (0, -1))
    generator.video(first, last, Take(prompt=0, reversed=False, seed=0), Control())
    wanted = packed * vae.latents_std.view(1, -1, 1, 1, 1) + vae.latents_mean.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(made[0][:, :, 1:], wanted[:, :, 1:], atol=1e-3, rtol=1e-3)


def certain(vae: AutoencoderKLLTXVideo) -> AutoencoderKLLTXVideo:
    """One that packs a picture always the same way: what it draws has no spread."""
    vae.encoder.conv_out.conv.weight.data[-1] = 0.0
    vae.encoder.conv_out.conv.bias.data[-1] = -30.0
    return vae


def test_what_was_learned_is_what_is_used(footage_folder: Path, folder: Path) -> None:
    weights = [*folder.glob("*/*.safetensors"), folder / "prompts.safetensors"]
    assert sum(path.stat().st_size for path in weights) < MOST_BYTES
    settings = LtxConfig(
        weights=str(folder),
        gpu=False,
        long_side_px=64,
        num_frames=CLIP,
        schedule="1000 500",
        max_end_difference=100,
    )
    generator = LtxGenerator(settings)
    assert generator.prompts == PROMPTS
    shot = footage.read(footage_folder / "train")
    camera = Camera.from_focal_px(64.0 * shot.focals[0], 64, 48)
    first, last = (View(id=f"{n}", image=shot.images[0, n], camera=camera) for n in (0, 8))
    video = generator.video(first, last, Take(prompt=0, reversed=False, seed=3), Control())
    assert not video.fault
    assert len(video.views) == CLIP - 2
    assert all(view.image.shape == (48, 64, 3) for view in video.views)


def test_a_state_is_of_one_autoencoder(footage_folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    """Another one packs into other numbers."""
    other = tmp_path / "vae"
    shutil.copytree(vae_folder, other)
    described = [LtxRecipe(footage_folder, 10, 0, folder).described() for folder in (vae_folder, other)]
    assert described[0] == described[1]
    path = next(other.glob("*.safetensors"))
    state = load_file(path)
    save_file({name: value * 0.9 for name, value in state.items()}, path)
    assert LtxRecipe(footage_folder, 10, 0, other).described() != described[0]
    assert json.loads(json.dumps(described[0])) == described[0]


def test_only_the_transformer_is_kept(folder: Path) -> None:
    """What learns beside it is of no use later."""
    kept = load_file(next((folder / "transformer").glob("*.safetensors")))
    assert kept.keys() == LTXVideoTransformer3DModel(**ltx.TRANSFORMER).state_dict().keys()
    assert any(
        name.startswith("points")
        for name in Maker(LTXVideoTransformer3DModel(**ltx.TRANSFORMER)).state_dict()
    )


@pytest.mark.usefixtures("only_traced")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which tracing looks at
def test_compiled_it_learns_the_same(footage_folder: Path, vae_folder: Path) -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        recipe = LtxRecipe(footage_folder, 10, 0, vae_folder, compiled=compiled)
        losses = recipe.module()(recipe.batch(np.random.default_rng(0), CPU))
        found.append({name: loss.item() for name, loss in losses.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_what_is_kept_changes_nothing(footage_folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    """Half precision is what is written, not what goes on learning."""
    recipe = LtxRecipe(footage_folder, 10, 0, vae_folder)
    with torch.no_grad():
        for parameter in recipe._vae.parameters():
            parameter += 1e-5
    before = {name: value.clone() for name, value in recipe._vae.state_dict().items()}
    recipe.export(recipe.module(), tmp_path)
    for name, value in recipe._vae.state_dict().items():
        assert torch.equal(value, before[name]), name
