# SPDX-License-Identifier: Apache-2.0
"""Views of any camera on canvases of one size: whole, and every ray where it belongs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pose_bridge.canvas import BLANK, canvases
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View

SIDE_PX, PATCH_PX = 140, 14

CAMERAS = {
    "landscape": Camera.from_focal_px(300.0, 400, 300),
    "portrait": Camera.from_focal_px(300.0, 300, 400),
    "off the middle": Camera.from_opencv(
        [[300.0, 0, 150.0], [0, 310.0, 180.0], [0, 0, 1]], width=400, height=300
    ),
    "a bent lens": Camera.from_opencv(
        [[300.0, 0, 200.0], [0, 300.0, 150.0], [0, 0, 1]], [-0.25, 0.06, 0.001, 0, 0], width=400, height=300
    ),
    "a fisheye": Camera.from_opencv(
        [[250.0, 0, 200.0], [0, 250.0, 150.0], [0, 0, 1]],
        [0.01, 0.0, 0.0, 0.0],
        width=400,
        height=300,
        distortion_model="equidistant",
    ),
}


def view(camera: Camera, mask: np.ndarray | None = None) -> View:
    """A smooth picture, so that half a pixel shows."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0.0, 1.0, (camera.height, camera.width, 3)), (0, 0), 12.0)
    image = np.clip(127 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
    return View(id="v", image=image, camera=camera, mask=mask)


@pytest.mark.parametrize("name", CAMERAS)
def test_every_ray_shows_what_it_showed(name: str) -> None:
    camera, seen = CAMERAS[name], view(CAMERAS[name])
    (canvas,) = canvases([seen], SIDE_PX, PATCH_PX)
    rng = np.random.default_rng(1)
    pixels = rng.uniform((20, 20), (camera.width - 20, camera.height - 20), (300, 2))
    there = canvas.camera.project(np.c_[camera.normalize(pixels), np.ones(len(pixels))])
    before, after = (
        cv2.remap(image.astype(np.float32), *(points - 0.5).astype(np.float32).T[..., None], cv2.INTER_LINEAR)
        for image, points in ((seen.image, pixels), (canvas.image, there))
    )
    assert np.abs(before - after).mean() < 4.0  # 45 between two rays at random
    inside = canvas.inside[tuple(there.astype(int)[:, ::-1].T)]
    assert inside.all()


@pytest.mark.parametrize("name", CAMERAS)
def test_nothing_is_cropped(name: str) -> None:
    camera = CAMERAS[name]
    (canvas,) = canvases([view(camera)], SIDE_PX, PATCH_PX)
    height, width = canvas.image.shape[:2]
    assert height % PATCH_PX == width % PATCH_PX == 0
    assert max(height, width) == SIDE_PX
    corners = camera.normalize([[1, 1], [camera.width - 1, 1], [1, camera.height - 1]])
    there = canvas.camera.project(np.c_[corners, np.ones(3)])
    assert (there > 0).all()
    assert (there < (width, height)).all()
    np.testing.assert_allclose(canvas.camera.K[:2, 2], (width / 2, height / 2))


def test_what_no_pinhole_shows_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    wide = Camera.from_opencv(
        [[120.0, 0, 200.0], [0, 120.0, 150.0], [0, 0, 1]],
        np.zeros(4),
        width=400,
        height=300,
        distortion_model="equidistant",
    )
    (canvas,) = canvases([view(wide)], SIDE_PX, PATCH_PX)
    assert "v: what its lens sees 65 degrees or more off its axis is left out" in caplog.text
    assert np.degrees(canvas.camera.field_of_view_rad[0]) == pytest.approx(130.0, abs=0.5)


def test_views_of_different_shape_share_a_size() -> None:
    drawn = canvases([view(camera) for camera in CAMERAS.values()], SIDE_PX, PATCH_PX)
    assert len({canvas.image.shape for canvas in drawn}) == 1
    portrait = drawn[1]
    assert not portrait.inside[:, 0].any()
    assert (portrait.image[:, 0] == 255).all()


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    seen = view(Camera.from_focal_px(100.0, 140, 98))
    (canvas,) = canvases([seen], SIDE_PX, PATCH_PX)
    np.testing.assert_array_equal(canvas.image, seen.image)
    assert canvas.inside.all()


def test_what_is_masked_is_not_inside() -> None:
    mask = np.ones((300, 400), bool)
    mask[200:] = False
    (canvas,) = canvases([view(CAMERAS["landscape"], mask)], SIDE_PX, PATCH_PX)
    assert canvas.inside.mean() == pytest.approx(2 / 3 * 300 / 400 * 140 / canvas.image.shape[0], abs=0.02)
    assert not canvas.inside[-20:].any()
    assert (canvas.image[~canvas.inside] == BLANK).all()  # a network must not see it either
