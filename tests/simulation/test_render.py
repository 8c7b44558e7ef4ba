# SPDX-License-Identifier: Apache-2.0
"""Pictures of rectangles: every texel where projection says, true depth, smooth and steady textures."""

from __future__ import annotations

import numpy as np
import pytest

from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation import render
from pose_bridge.simulation.surfaces import SIDES, Atlas, Surfaces, cuboid

CAMERA = Camera.from_focal_px(230.0, 320, 240)
DARK = render.Lights(np.zeros((0, 3)), np.zeros(0), 1.0)  # the same everywhere
BOARD_M = 2.0


def chequered(cells: int, cell_px: int) -> np.ndarray:
    odd = np.indices((cells, cells)).sum(axis=0) % 2
    return np.repeat(np.kron(odd, np.ones((cell_px, cell_px)))[..., None] * 200 + 20, 3, axis=2).astype(
        np.uint8
    )


def plain(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, np.uint8)


def board() -> Surfaces:
    """A square around the origin of the world, seen from -y; z is up."""
    half = BOARD_M / 2
    return cuboid((-half, 0.0, -half), (half, 0.0, half), {"front": 0})


def before(yaw_deg: float, pitch_deg: float, distance_m: float) -> np.ndarray:
    """T_world_camera that sees the origin in the middle of the image."""
    R_world_optical = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # looking along y
    turn = rotations.so3_exp(np.radians([0.0, yaw_deg, 0.0])) @ rotations.so3_exp(
        np.radians([pitch_deg, 0.0, 0.0])
    )
    R = R_world_optical @ turn
    return rigid.make(R, -distance_m * R[:, 2])


def saddle_px(image: np.ndarray, guess_px: np.ndarray) -> np.ndarray:
    """Where four fields of a chequerboard meet: OpenCV's corner refinement."""
    import cv2

    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-4)
    corners = (guess_px - 0.5).astype(np.float32).reshape(-1, 1, 2)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.cornerSubPix(gray, corners, (5, 5), (-1, -1), criteria).reshape(-1, 2).astype(float) + 0.5


@pytest.mark.parametrize(
    ("yaw_deg", "pitch_deg", "distance_m"), [(0, 0, 2.0), (35, 10, 2.5), (-50, -15, 3.0)]
)
def test_texture_is_where_projection_says(yaw_deg: float, pitch_deg: float, distance_m: float) -> None:
    T = before(yaw_deg, pitch_deg, distance_m)
    image = render.render(board(), Atlas([chequered(8, 50)]), DARK, T, CAMERA).image
    steps = np.arange(1, 8) / 8 * BOARD_M - BOARD_M / 2
    x, z = (grid.reshape(-1) for grid in np.meshgrid(steps, steps))
    true_px = CAMERA.project(rigid.transform(rigid.inverse(T), np.stack([x, 0 * x, z], axis=1)))
    inside = ((true_px > 8) & (true_px < (312, 232))).all(axis=1)
    assert inside.sum() >= 30
    error_px = saddle_px(image, true_px[inside] + 0.4) - true_px[inside]
    assert np.abs(error_px.mean(axis=0)).max() < 0.02
    assert np.sqrt((error_px**2).mean(axis=0)).max() < 0.08


def test_the_texture_lies_the_right_way_round() -> None:
    texture = plain(50)
    texture[:8, :8] = 250  # top left
    image = render.render(board(), Atlas([texture]), DARK, before(0, 0, 2.5), CAMERA).image
    assert image[100, 140, 0] == 250
    assert image[100, 180, 0] == image[140, 140, 0] == image[140, 180, 0] == 50


@pytest.mark.parametrize("side", SIDES)
def test_every_side_of_a_box_faces_outward(side: str) -> None:
    outward = dict(
        zip(
            SIDES,
            np.vstack(
                [-np.eye(3)[1], np.eye(3)[1], -np.eye(3)[0], np.eye(3)[0], np.eye(3)[2], -np.eye(3)[2]]
            ),
            strict=True,
        )
    )
    box = cuboid((-1, -2, -3), (1, 2, 3), {side: 0})
    np.testing.assert_allclose(box.normals, outward[side][None], atol=1e-12)
    middle = box.corners[0] + (box.across[0] + box.down[0]) / 2
    np.testing.assert_allclose(middle, outward[side] * (1, 2, 3), atol=1e-12)
    sizes = {0: (4, 6), 1: (2, 6), 2: (2, 4)}
    assert sorted(np.linalg.norm([box.across[0], box.down[0]], axis=1)) == sorted(
        sizes[int(np.argmax(abs(outward[side])))]
    )


def test_depth_is_exact_and_the_nearer_one_is_seen() -> None:
    T = before(30, 5, 3.0)
    front = cuboid((-0.2, -0.8, -0.3), (0.3, -0.4, 0.2), {side: 1 for side in SIDES})
    for surfaces in (Surfaces.join([board(), front]), Surfaces.join([front, board()])):
        picture = render.render(surfaces, Atlas([plain(60), plain(200)]), DARK, T, CAMERA)
        points = world_points(picture, T)
        on_board = picture.image[..., 0] == 60
        assert np.abs(points[on_board][:, 1]).max() < 1e-5
        on_box = picture.image[..., 0] == 200
        assert on_box.sum() > 500
        beside = np.abs((points[on_box] - (0.05, -0.6, -0.05)) / (0.25, 0.2, 0.25)).max(axis=1)
        np.testing.assert_allclose(beside, 1.0, atol=1e-4)
        assert np.isnan(picture.depth_m).any()  # beside the board is nothing
        assert (picture.image[np.isnan(picture.depth_m)] <= 200).all()


def world_points(picture: render.Picture, T_world_camera: np.ndarray) -> np.ndarray:
    pixels = np.stack(np.meshgrid(np.arange(320), np.arange(240)), axis=2) + 0.5
    rays = np.concatenate([CAMERA.normalize(pixels.reshape(-1, 2)), np.ones((320 * 240, 1))], axis=1)
    return rigid.transform(T_world_camera, rays * picture.depth_m.reshape(-1, 1)).reshape(240, 320, 3)


def test_a_floor_that_reaches_behind_the_camera_is_cut_off_before_it() -> None:
    floor = cuboid((-5, -5, 0), (5, 5, 0), {"top": 0})
    T = rigid.make(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), [0.0, 0.0, 0.5])
    picture = render.render(floor, Atlas([plain(90)]), DARK, T, CAMERA)
    below = picture.image[145:]
    assert (below == 90).all()
    assert np.isnan(picture.depth_m[:118]).all()
    assert picture.depth_m[239, 160] == pytest.approx(0.5 * 230.0 / 119.5, rel=1e-6)


def test_fine_textures_far_away_are_averaged() -> None:
    """A chequerboard whose fields are a tenth of a pixel is grey, and stays so."""
    atlas = Atlas([chequered(400, 4)])
    pictures = []
    for shift_m in (0.0, 0.004):
        T = before(20, 0, 14.0)
        T[0, 3] += shift_m
        pictures.append(render.render(board(), atlas, DARK, T, CAMERA).image[110:130, 150:170].astype(float))
    assert abs(pictures[0].mean() - 120) < 3
    assert pictures[0].std() < 6
    assert np.abs(pictures[0] - pictures[1]).mean() < 3


def test_windows_show_their_part() -> None:
    texture = plain(10)
    texture[4:8, 8:12] = 240
    shown = cuboid((-1, 0, -1), (1, 0, 1), {"front": 0}, windows={"front": (0.5, 0.25, 0.25, 0.25)})
    image = render.render(shown, Atlas([texture]), DARK, before(0, 0, 2.5), CAMERA).image
    assert (image[100:140, 140:180] == 240).all()


def test_light_falls_off_and_sheen_depends_on_the_eye() -> None:
    lamp = render.Lights(np.array([[0.0, -1.0, 0.0]]), np.array([0.5]), 0.3)
    shiny = cuboid((-0.1, 0.0, -0.1), (0.1, 0.0, 0.1), {"front": 0}, sheen=0.5)
    near, far = (
        render.Lights(place, lamp.strengths, 0.3).on(board(), np.array([0, -3.0, 0])).mean()
        for place in (np.array([[0.0, -1.0, 0.0]]), np.array([[0.0, -4.0, 0.0]]))
    )
    assert near > far > 0.3
    behind = render.Lights(np.array([[0.0, 1.0, 0.0]]), np.array([0.5]), 0.3).on(
        board(), np.array([0, -3.0, 0])
    )
    np.testing.assert_allclose(behind, 0.3)
    mirrored, aside = (lamp.on(shiny, np.array(eye)).mean() for eye in ([0.0, -2.0, 0.0], [4.0, -0.5, 0.0]))
    assert mirrored > aside
    np.testing.assert_allclose(
        lamp.on(board(), np.array([0.0, -2.0, 0.0])), lamp.on(board(), np.array([4.0, -0.5, 0.0]))
    )
