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
from pose_bridge.simulation import batch  # noqa: E402
from pose_bridge.simulation.batch import BatchRenderer  # noqa: E402
from pose_bridge.simulation.furnished import Room, planar  # noqa: E402

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


def test_no_rooms() -> None:
    with pytest.raises(BadInputError):
        BatchRenderer([])
