# SPDX-License-Identifier: Apache-2.0
"""What a camera adds to a perfect picture, one thing at a time."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from pose_bridge.errors import BadCameraError
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation import optics, render
from pose_bridge.simulation.optics import Optics, photograph
from pose_bridge.simulation.surfaces import Atlas, cuboid

CAMERA = Camera.from_focal_px(230.0, 320, 240)
PERFECT = Optics(
    blur_px=0.0,
    exposure_s=0.0,
    adaptation=0.0,
    exposure_sigma=0.0,
    cast_sigma=0.0,
    vignetting=0.0,
    read_noise=0.0,
    shot_noise=0.0,
)
STILL = np.zeros(3)


def flat(value: int) -> np.ndarray:
    return np.full((240, 320, 3), value, np.uint8)


def taken(image: np.ndarray, turn_rad: np.ndarray = STILL, seed: int = 0, **settings: float) -> np.ndarray:
    return photograph(image, CAMERA, dataclasses.replace(PERFECT, **settings), turn_rad, [seed])


def test_a_perfect_camera_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    np.testing.assert_array_equal(taken(image), image)


def test_the_same_seed_takes_the_same_picture() -> None:
    first, second, other = (photograph(flat(100), CAMERA, Optics(), STILL, [seed]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_noise_is_as_strong_as_said() -> None:
    assert taken(flat(100), read_noise=4.0).std() == pytest.approx(4.0, rel=0.03)
    assert taken(flat(100), shot_noise=0.5).std() == pytest.approx(5.0, rel=0.03)


def test_exposure_goes_most_of_the_way_to_the_wanted_brightness() -> None:
    assert taken(flat(40), adaptation=1.0, brightness=120.0).mean() == pytest.approx(120, abs=1)
    assert taken(flat(30), adaptation=0.5, brightness=120.0).mean() == pytest.approx(60, abs=1)
    means = [taken(flat(100), seed=seed, exposure_sigma=0.3).mean() for seed in range(40)]
    assert np.std(np.log2(means)) == pytest.approx(0.3, rel=0.35)


def test_colours_and_corners() -> None:
    casts = np.array([taken(flat(100), seed=seed, cast_sigma=0.05)[0, 0] for seed in range(60)])
    assert casts.std(axis=0) == pytest.approx(5.0, rel=0.35)
    assert abs(np.corrcoef(casts.T)[0, 1]) < 0.5
    dark = taken(flat(200), vignetting=0.3)
    assert dark[120, 160, 0] == 200
    assert dark[0, 0, 0] == pytest.approx(140, abs=2)


def test_a_turn_blurs_along_its_way() -> None:
    """A line across the motion spreads over as many pixels as the camera turned; one along it stays."""
    across, along = flat(0), flat(0)
    across[:, 160] = 255
    along[120] = 255
    turn_rad = np.array([0.0, 6.0 / 230.0, 0.0])
    blurred = taken(across, turn_rad, exposure_s=1.0)
    profile = blurred[120, :, 0].astype(float)
    assert np.flatnonzero(profile > 10).tolist() == list(range(157, 164))
    assert (profile * np.arange(320)).sum() / profile.sum() == pytest.approx(160.0, abs=0.05)
    kept = taken(along, turn_rad, exposure_s=1.0)
    assert kept[120, 160, 0] > 230


def test_blur_is_as_wide_as_said() -> None:
    point = flat(0)
    point[120, 160] = 255
    spread = taken(point, blur_px=1.5)[..., 0].astype(float)
    variance = (spread * (np.arange(320) - 160.0) ** 2).sum() / spread.sum()
    assert np.sqrt(variance) == pytest.approx(1.5, rel=0.1)


LENS = Camera(
    width=320,
    height=240,
    K=np.array([[230.0, 0, 158.0], [0, 232.0, 121.0], [0, 0, 1]]),
    distortion_model="plumb_bob",
    distortion=np.array([-0.25, 0.06, 0.001, -0.001, 0.0]),
)


def test_distortion_is_that_of_the_camera() -> None:
    """Corners of a chequerboard appear where the distorted camera projects them; depth is the plane's."""
    cells = np.repeat(
        np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((40, 40)))[..., None] * 200 + 20, 3, 2
    )
    board = cuboid((-1, 0, -1), (1, 0, 1), {"front": 0})
    T = rigid.make(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), [0.1, -1.6, 0.05])
    lights = render.Lights(np.zeros((0, 3)), np.zeros(0), 1.0)
    ideal = render.render(board, Atlas([cells.astype(np.uint8)]), lights, T, optics.pinhole(LENS))
    picture = optics.distorted(ideal, LENS)
    assert picture.image.shape == (240, 320, 3)
    steps = np.arange(1, 8) / 4 - 1
    x, z = (grid.reshape(-1) for grid in np.meshgrid(steps, steps))
    true_px = LENS.project(rigid.transform(rigid.inverse(T), np.stack([x, 0 * x, z], axis=1)))
    true_px = true_px[((true_px > 10) & (true_px < (310, 230))).all(axis=1)]
    assert len(true_px) > 30
    gray = cv2.cvtColor(picture.image, cv2.COLOR_RGB2GRAY)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-4)
    start = (true_px - 0.5).astype(np.float32).reshape(-1, 1, 2)
    found = cv2.cornerSubPix(gray, start, (5, 5), (-1, -1), criteria).reshape(-1, 2) + 0.5
    assert np.sqrt(((found - true_px) ** 2).mean(axis=0)).max() < 0.12
    seen = picture.depth_m[np.isfinite(picture.depth_m)]
    np.testing.assert_allclose(seen, 1.6, rtol=1e-5)
    assert len(seen) > 0.5 * picture.depth_m.size


def test_a_lens_that_does_not_reach_the_border_is_refused() -> None:
    folding = dataclasses.replace(LENS, distortion=np.array([-0.9, 0.0, 0.0, 0.0, 0.0]))
    with pytest.raises(BadCameraError, match="borders"):
        optics.pinhole(folding)
