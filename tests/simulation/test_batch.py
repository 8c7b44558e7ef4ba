# SPDX-License-Identifier: Apache-2.0
"""Pictures in batches: those of the renderer that makes one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from installed import require_learned

require_learned()

import torch  # noqa: E402

from pose_bridge.errors import BadInputError  # noqa: E402
from pose_bridge.geometry import rigid, rotations  # noqa: E402
from pose_bridge.geometry.cameras import Camera  # noqa: E402
from pose_bridge.simulation import batch, optics  # noqa: E402
from pose_bridge.simulation.batch import BatchRenderer  # noqa: E402
from pose_bridge.simulation.batch_optics import photographs  # noqa: E402
from pose_bridge.simulation.furnished import Room, planar  # noqa: E402
from pose_bridge.simulation.optics import Optics  # noqa: E402

CAMERA = Camera.from_focal_px(90.0, 128, 96)
ROOMS = [Room(5, 0), Room(5, 1), Room(6, 0)]
T_BODY_CAMERA = rigid.make([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], [0.0] * 3)


def poses(room: Room, count: int, seed: int) -> np.ndarray:
    """Where a robot could be, tilted a little."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(room.free_places())[:count]
    tilts = [rigid.make(rotations.so3_exp(rng.normal(0.0, 0.1, 3)), [0.0] * 3) for _ in range(count)]
    return np.array(
        [
            planar(x, y, rng.uniform(-np.pi, np.pi), rng.uniform(0.3, 1.6)) @ T_BODY_CAMERA @ tilt
            for (x, y), tilt in zip(places, tilts, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def renderer() -> BatchRenderer:
    return BatchRenderer(ROOMS)


@pytest.mark.parametrize("at_once", [2**24, 2**18])
def test_one_at_a_time_it_is_the_same(
    at_once: int, renderer: BatchRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one go or in many, whichever room each picture is of."""
    monkeypatch.setattr(batch, "TRIED_AT_ONCE", at_once)
    rooms = [0, 2, 1, 1, 0, 2]
    T = np.array([poses(ROOMS[index], 1, seed)[0] for seed, index in enumerate(rooms)])
    made = renderer.render(rooms, T, CAMERA)
    assert made.images.shape == (6, 3, 96, 128)
    assert made.images.dtype == torch.uint8
    for index, image, depth_m, pose in zip(rooms, made.images, made.depth_m, T, strict=True):
        expected = ROOMS[index].picture(pose, CAMERA)
        off = np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected.image)
        assert off.mean() < 0.6  # there, colours are whole numbers before light falls on them
        assert (off.max(axis=2) > 4).mean() < 0.003
        known = np.isfinite(expected.depth_m)
        assert known.mean() > 0.99
        ratio = depth_m.numpy()[known] / expected.depth_m[known]
        assert np.mean(np.abs(ratio - 1.0) < 1e-3) > 0.996  # but for edges, where there the samples decide


def test_where_nothing_is_there_is_no_depth(renderer: BatchRenderer) -> None:
    T = planar(-50.0, -50.0, np.pi, 1.0) @ T_BODY_CAMERA  # outside, looking away
    made = renderer.render([0], T[None], CAMERA)
    assert not made.images.any()
    assert made.depth_m.isnan().all()


# --- what cameras make of them

STILL = np.zeros((4, 3))
TURNS = np.radians([[0.0, 200.0, 0.0], [150.0, 0.0, 30.0], [0.0, 0.0, 0.0], [0.0, -20.0, 400.0]])
SILENT = {"exposure_sigma": 0.0, "cast_sigma": 0.0, "read_noise": 0.0, "shot_noise": 0.0}


@pytest.fixture(scope="module")
def images(renderer: BatchRenderer) -> torch.Tensor:
    rooms = [0, 1, 2, 0]
    T = np.array([poses(ROOMS[index], 1, seed)[0] for seed, index in enumerate(rooms)])
    return renderer.render(rooms, T, CAMERA).images


def taken(images: torch.Tensor, turn_rad: np.ndarray, seed: int = 0, **settings: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return photographs(images, CAMERA, Optics(**settings), turn_rad, generator)


@pytest.mark.parametrize(
    "settings", [{"exposure_s": 0.03}, {"blur_px": 1.2, "adaptation": 1.0}, {"vignetting": 0.6}]
)
def test_a_camera_makes_of_a_batch_what_it_makes_of_one(settings: dict, images: torch.Tensor) -> None:
    """But for noise, which other dice are thrown for."""
    made = taken(images, TURNS, **SILENT, **settings)
    assert made.shape == images.shape
    for image, turn_rad, found in zip(images, TURNS, made, strict=True):
        one = image.permute(1, 2, 0).contiguous().numpy()
        expected = optics.photograph(one, CAMERA, Optics(**SILENT, **settings), turn_rad, [0])
        off = np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected)
        assert off.max() <= 3
        assert off.mean() < 0.3
    assert (taken(images, STILL, **SILENT, **settings).float() - images).abs().mean() > 1.0


def test_a_camera_that_is_perfect_changes_nothing(images: torch.Tensor) -> None:
    still = taken(images, STILL, blur_px=0.0, adaptation=0.0, vignetting=0.0, **SILENT)
    assert torch.equal(still, images)


def test_noise_of_a_batch_is_that_of_one() -> None:
    grey = torch.full((60, 3, 96, 128), 100, dtype=torch.uint8)
    plain = {"blur_px": 0.0, "adaptation": 0.0, "vignetting": 0.0, **SILENT}
    still = np.zeros((60, 3))
    assert taken(grey, still, **{**plain, "read_noise": 4.0}).float().std() == pytest.approx(4.0, rel=0.03)
    assert taken(grey, still, **{**plain, "shot_noise": 0.5}).float().std() == pytest.approx(5.0, rel=0.03)
    means = taken(grey, still, **{**plain, "exposure_sigma": 0.3}).float().mean(dim=(1, 2, 3))
    assert means.log2().std() == pytest.approx(0.3, rel=0.35)
    casts = taken(grey, still, **{**plain, "cast_sigma": 0.05})[:, :, 0, 0].float()
    assert casts.std(dim=0).numpy() == pytest.approx(5.0, rel=0.35)
    again, other = (taken(grey[:2], still[:2], seed) for seed in (0, 1))
    assert torch.equal(taken(grey[:2], still[:2]), again)
    assert not torch.equal(again, other)


@pytest.mark.parametrize("shape", [(3, 3, 96, 128), (4, 3, 96, 96), (4, 1, 96, 128)])
def test_pictures_of_another_camera_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="pictures and"):
        taken(torch.zeros(shape, dtype=torch.uint8), STILL)


def test_no_rooms() -> None:
    with pytest.raises(BadInputError):
        BatchRenderer([])
