# SPDX-License-Identifier: Apache-2.0
"""What a small VGGT is taught, against geometry; and that what it learned is what is used."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pose_bridge.config import VggtConfig
from pose_bridge.control import Control
from pose_bridge.estimators.vggt.estimator import VggtEstimator
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.training import augment, footage, truth, vggt
from pose_bridge.training import sets as sets_of
from pose_bridge.training.sets import Batch, Sets
from pose_bridge.training.vggt import Taught, VggtRecipe
from pose_bridge.views import View

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sets(footage_folder: Path) -> Sets:
    return Sets(footage.read(footage_folder / "train"), wide=True)


@pytest.fixture(scope="module")
def batch(sets: Sets) -> Batch:
    return sets_of.gathered(sets.footage, np.array([0, 1]), np.array([[2, 6, 4], [8, 3, 5]]), CPU)


def test_cameras_are_as_the_network_says_them(sets: Sets, batch: Batch) -> None:
    known = truth.truth(batch, 8)
    for row, (walk, frames) in enumerate(((0, (2, 6, 4)), (1, (8, 3, 5)))):
        T = sets.footage.T_world_camera[walk]
        unit = np.linalg.norm(known.points[row].numpy(), axis=-1)
        assert np.nanmean(unit) == pytest.approx(1.0, abs=1e-4)
        lengths = []
        for column, frame in enumerate(frames):
            T_camera_first = rigid.inverse(T[frame]) @ T[frames[0]]
            said = known.encoding[row, column].numpy().astype(float)
            R = rotations.rotation_from_quat_xyzw(said[3:7] / np.linalg.norm(said[3:7]))
            np.testing.assert_allclose(R, T_camera_first[:3, :3], atol=1e-4)
            if column:
                lengths.append(T_camera_first[:3, 3] / said[:3])
        np.testing.assert_allclose(np.array(lengths), np.mean(lengths), rtol=1e-2)  # one unit of length
        camera = Camera.from_focal_px(64.0 * sets.footage.focals[walk], 64, 48)
        half = np.arctan([24 / camera.K[1, 1], 32 / camera.K[0, 0]])
        np.testing.assert_allclose(known.encoding[row, 0, 7:], 2.0 * half, rtol=1e-5)


def test_points_are_where_depth_says(sets: Sets, batch: Batch) -> None:
    """Through the library's own camera: middles of patches of 8 pixels, column 4 of 0 to 7."""
    known = truth.truth(batch, 8)
    T = sets.footage.T_world_camera[1]
    camera = Camera.from_focal_px(64.0 * sets.footage.focals[1], 64, 48)
    columns, rows = np.meshgrid(np.arange(4, 64, 8), np.arange(4, 48, 8))
    depth_m = sets.footage.depths_m[1, 3].astype(float)[rows, columns].ravel()
    rays = camera.normalize(np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5)
    seen = np.c_[rays, np.ones(len(rays))] * depth_m[:, None]
    first = rigid.transform(rigid.relative(T[8], T[3]), seen)
    ratio = first / known.points[1, 1].numpy()
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=2e-2)


def test_patches_that_match_show_the_same(batch: Batch) -> None:
    """The match's middle, seen in the other frame, lies in the patch that was named."""
    known = truth.truth(batch, 8)
    visible = known.in_other >= 0
    assert 0.05 < visible.float().mean() < 1.0
    same = batch.at([0, 0])
    stays = truth.truth(same, 8).in_other[:, 0]
    assert (stays == torch.arange(48)).all()  # a picture matches itself patch by patch


def test_quaternions_of_all_rotations() -> None:
    rng = np.random.default_rng(0)
    R = np.array(
        [rotations.so3_exp(rng.uniform(0, np.pi) * v / np.linalg.norm(v)) for v in rng.normal(size=(50, 3))]
    )
    R = np.concatenate(
        [R, [np.eye(3), np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])]]
    )
    found = truth._quaternions(torch.from_numpy(R)).numpy()
    for one, quat in zip(R, found, strict=True):
        assert quat[3] >= 0.0
        np.testing.assert_allclose(rotations.rotation_from_quat_xyzw(quat), one, atol=1e-6)


def test_a_mirror_shows_a_world_that_can_be(batch: Batch) -> None:
    """Matches stay matches: the mirrored poses fit the mirrored pictures and depths."""
    plain = truth.truth(batch, 8)
    some = (augment.perhaps_mirrored(np.random.default_rng(seed), batch) for seed in range(20))
    mirrored = truth.truth(next(one for one in some if not torch.equal(one.depths_m, batch.depths_m)), 8)
    seen, seen_before = ((known.in_other >= 0).float().mean() for known in (mirrored, plain))
    np.testing.assert_allclose(seen, seen_before, atol=0.1)
    turned = plain.encoding[..., 3:7] * torch.tensor([1.0, -1.0, -1.0, 1.0])
    np.testing.assert_allclose(mirrored.encoding[..., 3:7], turned, atol=1e-4)


def test_the_truth_does_not_depend_on_what_the_network_computes_in(batch: Batch) -> None:
    plain = truth.truth(batch, 8)
    with torch.autocast("cpu", torch.bfloat16):
        cast = truth.truth(batch, 8)
    for one, other in zip(plain, cast, strict=True):
        assert torch.equal(one, other)


def test_what_is_not_known_teaches_nothing(batch: Batch) -> None:
    depths_m = batch.depths_m.clone()
    depths_m[:, :, 20:28, 12:44] = torch.nan
    taught = Taught(vggt.fresh())
    losses = taught(batch._replace(depths_m=depths_m))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in taught.parameters())


def test_blocks_that_compute_coarsely_learn_nearly_the_same(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    taught = Taught(vggt.fresh())

    def direction() -> torch.Tensor:
        taught.zero_grad()
        losses = taught(batch)
        assert all(loss.dtype is torch.float32 for loss in losses.values())
        sum(losses.values()).backward()
        return torch.cat([parameter.grad.flatten() for parameter in taught.parameters()])

    coarse = direction()
    monkeypatch.setattr(vggt, "coarse", lambda _: contextlib.nullcontext())
    assert torch.cosine_similarity(coarse, direction(), dim=0) > 0.98


def test_asking_it_keeps_nothing(batch: Batch) -> None:
    taught = Taught(vggt.fresh()).eval()
    with torch.inference_mode():
        patches = taught.network.embed(batch.images.flatten(0, 1)).unflatten(0, (2, 3))
        taught.network(patches, (48, 64))
    assert not taught._looks


def test_sets_overlap(sets: Sets) -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 5, 8):
        for _ in range(20):
            walk, frames = sets._walked(rng, size)
            assert len(set(frames.tolist())) == size
            ordered = np.sort(frames)
            assert sets.turns_deg[walk][ordered[:-1], ordered[1:]].max() <= sets_of.NEIGHBOURS_DEG


@pytest.mark.parametrize("wide", [False, True])
def test_pairs_are_wide_only_where_asked(wide: bool, sets: Sets) -> None:
    drawing, rng = Sets(sets.footage, wide=wide), np.random.default_rng(0)
    batches = [drawing.batch(rng, 2, CPU).T_world_camera.numpy() for _ in range(200)]
    pairs = np.concatenate([T for T in batches if T.shape[1] == 2])
    turns = np.array([distances.rotation_error_deg(a[:3, :3], b[:3, :3]) for a, b in pairs])
    across = turns > 40.01
    assert 0.3 < across.mean() < 0.7 if wide else not across.any()
    assert ((turns[across] > 49.9) & (turns[across] < 110.1)).all()


def test_the_seed_draws(sets: Sets) -> None:
    one, again, other = (sets.batch(np.random.default_rng(seed), 12, CPU) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert one.images.shape != other.images.shape or not torch.equal(one.images, other.images)


def test_it_learns(batch: Batch) -> None:
    torch.manual_seed(0)
    taught = Taught(vggt.fresh())
    optimizer = torch.optim.AdamW(taught.parameters(), 1e-3)
    first: dict[str, float] = {}
    for _ in range(25):
        losses = taught(batch)
        first = first or {name: loss.item() for name, loss in losses.items()}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    for name, loss in losses.items():
        assert loss.item() < 0.7 * first[name], name


@pytest.mark.usefixtures("only_traced")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which tracing looks at
def test_compiled_blocks_learn_the_same(footage_folder: Path, batch: Batch) -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        taught = VggtRecipe(footage_folder, 10, 0, wide=False, compiled=compiled).module()
        losses = taught(batch)
        sum(losses.values()).backward()
        norms = [p.grad.norm().item() for p in taught.parameters() if p.grad is not None]
        found.append((list(losses), torch.stack(list(losses.values())).tolist(), norms))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-3)
    np.testing.assert_allclose(found[1][2], found[0][2], rtol=1e-2, atol=1e-6)


def test_what_was_learned_is_what_is_used(footage_folder: Path, tmp_path: Path) -> None:
    """Through half precision, the published format and the loader of the large ones."""
    recipe = VggtRecipe(footage_folder, 10, 0, wide=False)
    torch.manual_seed(1)
    taught = recipe.module().eval()
    recipe.export(taught, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 8.5e6
    estimator = VggtEstimator(VggtConfig(weights=str(tmp_path), long_side_px=64, gpu=False))
    shot = footage.read(footage_folder / "train")
    camera = Camera.from_focal_px(64.0 * shot.focals[0], 64, 48)
    views = [View(id=f"{n}", image=shot.images[0, n], camera=camera) for n in (2, 6, 4)]
    guess = estimator.estimate(views, Control())
    batch = sets_of.gathered(shot, np.array([0]), np.array([[2, 6, 4]]), CPU)
    with torch.inference_mode():
        patches = taught.network.embed(batch.images[0])[None]
        said = taught.network(patches, (48, 64)).encoding[0].numpy().astype(float)
    for row, view in zip(said, views, strict=True):
        R = rotations.rotation_from_quat_xyzw(row[3:7] / np.linalg.norm(row[3:7]))
        R_first = rotations.rotation_from_quat_xyzw(said[0, 3:7] / np.linalg.norm(said[0, 3:7]))
        found = guess.T_reference_camera[view.id][:3, :3]
        np.testing.assert_allclose(found, R_first @ R.T, atol=0.02)


def test_validation_measures_angles(footage_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that says nothing is off by the angle itself."""
    monkeypatch.setattr(vggt, "VALIDATION_PAIRS", 32)
    recipe = VggtRecipe(footage_folder, 10, 0, wide=False)
    taught = recipe.module().eval()
    branch = taught.network.camera_head.pose_branch.fc2
    branch.weight.data.zero_()
    with torch.inference_mode():
        found = recipe.validate(taught)
    assert list(found) == ["0-30", "30-50", "50-90", "50-90 with 3"]
    assert 0.0 < found["0-30"] < 30.0 <= found["30-50"] < 50.0 <= found["50-90"] < 90.0
    assert found["50-90 with 3"] == pytest.approx(found["50-90"], abs=0.1)
