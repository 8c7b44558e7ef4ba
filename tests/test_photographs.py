# SPDX-License-Identifier: Apache-2.0
"""Every kind of photograph that a user may hand in, and every calibration that does not fit it."""

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pose_bridge.errors import BadCameraError, BadImageError, BadInputError
from pose_bridge.geometry import rotations
from pose_bridge.photographs import (
    Side,
    camera_from_exif,
    find_context,
    read_cameras,
    read_context,
    read_image,
    read_sides,
    read_view,
)
from pose_bridge.photographs.reading import view_ids

WIDTH, HEIGHT = 12, 8
ORIENTATION, FOCAL_LENGTH, EXIF_IFD = 0x0112, 0x920A, 0x8769
FOCAL_35MM, PIXELS_X, PIXELS_Y = 0xA405, 0xA002, 0xA003
PLANE_X, PLANE_UNIT = 0xA20E, 0xA210
K = [[10.0, 0.0, 5.5], [0.0, 10.0, 3.5], [0.0, 0.0, 1.0]]


def _rgb(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _saved(path: Path, image: NDArray[Any] | None = None, **options: Any) -> Path:
    Image.fromarray(_rgb() if image is None else image).save(path, **options)
    return path


def _noted(path: Path, notes: dict[int, Any], image: NDArray[Any] | None = None) -> Path:
    """Save a photograph with EXIF: the tags of the Exif IFD, and the orientation of the image's own."""
    exif = Image.Exif()
    inner = {tag: value for tag, value in notes.items() if tag != ORIENTATION}
    if inner:
        exif[EXIF_IFD] = inner
    if ORIENTATION in notes:
        exif[ORIENTATION] = notes[ORIENTATION]
    return _saved(path, image, exif=exif)


def _cameras(folder: Path, **values: Any) -> Path:
    path = folder / "cameras.json"
    path.write_text(json.dumps({"width": WIDTH, "height": HEIGHT, "K": K, "frames": [], **values}))
    return path


def _pose(x_m: float = 0.0) -> list[list[float]]:
    T = np.eye(4)
    T[:3, :3], T[0, 3] = rotations.so3_exp((0.1, 0.2, 0.3)), x_m
    return T.round(5).tolist()


# --- pixels ---


def test_colour_is_read_as_rgb(tmp_path: Path) -> None:
    image, mask = read_image(_saved(tmp_path / "a.png"))
    assert np.array_equal(image, _rgb())
    assert mask is None


def test_grey_one_bit_and_palette_become_rgb(tmp_path: Path) -> None:
    picture = Image.fromarray(_rgb())
    for mode in ("L", "1", "P"):
        picture.convert(mode).save(tmp_path / f"{mode}.png")
        image, mask = read_image(tmp_path / f"{mode}.png")
        assert np.array_equal(image, np.asarray(picture.convert(mode).convert("RGB")))
        assert mask is None


def test_cmyk_is_read(tmp_path: Path) -> None:
    red = np.full((HEIGHT, WIDTH, 3), (200, 20, 20), np.uint8)
    Image.fromarray(red).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg")[0].astype(int) - red).max() <= 8


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path, suffix: str) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)
    deep[0, :3, :3] = (0, 32768, 65535)
    expected = np.round(deep / 257.0)
    cv2.imwrite(str(tmp_path / f"grey{suffix}"), deep[..., 0])
    cv2.imwrite(str(tmp_path / f"rgb{suffix}"), deep[..., 2::-1])
    cv2.imwrite(str(tmp_path / f"rgba{suffix}"), deep[..., [2, 1, 0, 3]])
    grey, rgb, rgba = (read_image(tmp_path / f"{name}{suffix}") for name in ("grey", "rgb", "rgba"))
    assert np.array_equal(grey[0], np.repeat(expected[..., :1], 3, axis=2))
    assert np.array_equal(rgb[0], expected[..., :3])
    assert np.array_equal(rgba[0], expected[..., :3])
    assert rgba[1] is not None
    assert np.array_equal(rgba[1], expected[..., 3] >= 128)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_a_mask(tmp_path: Path, mode: str) -> None:
    alpha = np.tile(np.array([0, 127, 128, 255], np.uint8), (HEIGHT, WIDTH // 4))
    picture = Image.fromarray(_rgb()).convert(mode)
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "a.png")
    mask = read_image(tmp_path / "a.png")[1]
    assert mask is not None
    assert np.array_equal(mask, alpha >= 128)


def test_a_transparent_palette_entry_becomes_a_mask(tmp_path: Path) -> None:
    indices = np.zeros((HEIGHT, WIDTH), np.uint8)
    indices[:, 3:] = 1
    picture = Image.fromarray(indices).convert("P")
    picture.save(tmp_path / "a.png", transparency=0)
    mask = read_image(tmp_path / "a.png")[1]
    assert mask is not None
    assert np.array_equal(mask, indices == 1)


def test_opaque_alpha_is_no_mask(tmp_path: Path) -> None:
    picture = Image.fromarray(_rgb())
    picture.putalpha(255)
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[1] is None


def test_the_first_of_several_frames_is_read(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((HEIGHT, WIDTH), v, np.uint8)) for v in (10, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (read_image(tmp_path / "a.gif")[0] == 10).all()


def _stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What a camera stores, by the words of the EXIF standard: where row 0 and column 0 are seen."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),  # row 0 is the right-hand side
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),  # row 0 is the left-hand side
    }[orientation]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = np.ascontiguousarray(_stored(_rgb(), orientation))
    path = _noted(tmp_path / f"a{suffix}", {ORIENTATION: orientation}, stored)
    assert np.array_equal(read_image(path)[0], _rgb())
    grey = _noted(tmp_path / f"grey{suffix}", {ORIENTATION: orientation}, stored[..., 0])
    assert np.array_equal(read_image(grey)[0], np.repeat(_rgb()[..., :1], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_sixteen_bits_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    grey = _rgb()[..., 0]
    deep = np.ascontiguousarray(_stored(_rgb(), orientation)[..., 0]).astype(np.uint16) * 257
    path = _noted(tmp_path / f"a{suffix}", {ORIENTATION: orientation}, deep)
    assert np.array_equal(read_image(path)[0], np.repeat(grey[..., None], 3, axis=2))


def test_a_turned_tiff_is_read_as_stored_where_the_calibration_says_so(tmp_path: Path) -> None:
    path = _noted(tmp_path / "a.tif", {ORIENTATION: 6})
    assert np.array_equal(read_view(path, read_cameras(_cameras(tmp_path))).image, _rgb())


# --- pictures that are none ---


def _truncated(tmp_path: Path, suffix: str, image: NDArray[Any]) -> Path:
    cv2.imwrite(str(tmp_path / f"whole{suffix}"), image)
    data = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(suffix, np.uint8) for suffix in (".jpg", ".png", ".tif", ".bmp", ".webp")]
    + [(".png", np.uint16), (".tif", np.uint16)],
)
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str, kind: type) -> None:
    noise = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (64, 64, 3)).astype(kind)
    with pytest.raises(BadImageError, match=rf"cut{suffix}: "):
        read_image(_truncated(tmp_path, suffix, noise))


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    clear = Image.fromarray(_rgb())
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    for name, complaint in {
        "nowhere.jpg": "there is no such file",
        ".": "not a file",
        "empty.jpg": "the file is empty",
        "text.jpg": "convert it to JPEG or PNG",
        "float.tif": "pixels of kind F",
        "clear.png": "transparent everywhere",
    }.items():
        with pytest.raises(BadImageError, match=complaint) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "factor", [1.5, 3.0]
)  # Pillow warns above its limit, and raises above twice the limit
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    path = _saved(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(WIDTH * HEIGHT / factor))
    with pytest.raises(BadImageError, match="reduce the photograph"):
        read_image(path)


# --- cameras.json ---


def test_the_shared_camera_counts_from_integer_centres(tmp_path: Path) -> None:
    calibration = read_cameras(_cameras(tmp_path, distortion=[0.1, 0.0, 0.0, 0.0]))
    camera = calibration.camera(tmp_path / "unlisted.jpg")
    assert camera.K[:2, 2].tolist() == [6.0, 4.0]
    assert camera.distortion_model == "plumb_bob"
    assert calibration.pose(tmp_path / "unlisted.jpg") is None


def test_a_frame_may_differ(tmp_path: Path) -> None:
    fisheye = {"distortion": [0.1, 0.0, 0.0, 0.0], "distortion_model": "equidistant", "width": 10}
    frames = [{"file": "in/a.jpg", **fisheye}, {"file": "in/b.jpg", "T_world_camera": _pose(2.0)}]
    calibration = read_cameras(_cameras(tmp_path, frames=frames))
    camera = calibration.camera(tmp_path / "in" / "a.jpg")
    assert (camera.width, camera.height, camera.distortion_model) == (10, HEIGHT, "equidistant")
    assert calibration.camera(tmp_path / "in" / "b.jpg") == calibration.shared
    T_world_camera = calibration.pose(tmp_path / "in" / "b.jpg")
    assert T_world_camera is not None
    assert np.abs(T_world_camera - _pose(2.0)).max() < 1e-4
    assert np.abs(T_world_camera[:3, :3] @ T_world_camera[:3, :3].T - np.eye(3)).max() < 1e-12


def test_moved_photographs_are_found_by_the_end_of_their_paths(tmp_path: Path) -> None:
    frames = [{"file": f"{side}/1.jpg", "width": width} for side, width in (("left", 10), ("right", 11))]
    calibration = read_cameras(_cameras(tmp_path, frames=[*frames, {"file": "left/2.jpg", "width": 12}]))
    elsewhere = tmp_path / "elsewhere"
    assert calibration.camera(elsewhere / "right" / "1.jpg").width == 11
    assert calibration.camera(elsewhere / "2.jpg").width == 12
    with pytest.raises(BadCameraError, match=r"several photographs.*left/1.jpg, right/1.jpg"):
        calibration.camera(elsewhere / "1.jpg")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"K": [[0, 0, 5], [0, 9, 3], [0, 0, 1]]}, "focal lengths must be positive"),
        ({"K": [[float("nan"), 0, 5], [0, 9, 3], [0, 0, 1]]}, "K must be finite"),
        ({"K": [[9, 0, 5], [0, 9, 3]]}, r"K must have shape \(3, 3\)"),
        ({"K": "wide"}, "K must be an array"),
        ({"width": 0}, "width must be a whole number"),
        ({"width": None}, "width must be a whole number"),
        ({"distortion": [0.1, float("inf"), 0, 0]}, "distortion must be finite"),
        ({"distortion": [0.1, 0.2, 0.3]}, "no distortion model has 3"),
        ({"distortion_model": "fisheye"}, "unknown distortion model"),
        ({"distorsion": [0.1, 0, 0, 0]}, "unknown distorsion; known are"),
        ({"frames": {}}, "frames must be a list"),
        ({"frames": [3]}, "frame 0: must be an object"),
        ({"frames": [{}]}, "frame 0: file must name a photograph"),
        ({"frames": [{"file": "a.jpg", "pose": 1}]}, "frame 0: unknown pose"),
        (
            {"frames": [{"file": "a.jpg", "K": [[0, 0, 5], [0, 9, 3], [0, 0, 1]]}]},
            r"frame 0 \(a.jpg\): focal",
        ),
        ({"frames": [{"file": "a.jpg", "T_world_camera": np.zeros((4, 4)).tolist()}]}, "T_world_camera"),
        ({"frames": [{"file": "a.jpg", "T_world_camera": (2 * np.eye(4)).tolist()}]}, "T_world_camera"),
        ({"frames": [{"file": "a.jpg"}, {"file": "./a.jpg"}]}, "listed twice"),
    ],
)
def test_an_impossible_calibration_is_refused(tmp_path: Path, values: dict[str, Any], complaint: str) -> None:
    path = _cameras(tmp_path, **values)
    with pytest.raises(BadCameraError, match=complaint) as caught:
        read_cameras(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
        ("{}", "K, height, width missing"),
        ('{"K": [], "height": 3}', "width missing"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(BadCameraError, match=complaint):
        read_cameras(tmp_path / "cameras.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCameraError, match="there is no such file"):
        read_cameras(tmp_path / "cameras.json")


def test_without_a_shared_camera_every_photograph_must_be_listed(tmp_path: Path) -> None:
    frame = {"file": "a.jpg", "width": WIDTH, "height": HEIGHT, "K": K}
    (tmp_path / "cameras.json").write_text(json.dumps({"frames": [frame]}))
    calibration = read_cameras(tmp_path / "cameras.json")
    assert calibration.camera(tmp_path / "a.jpg").width == WIDTH
    with pytest.raises(BadCameraError, match="not listed"):
        calibration.camera(tmp_path / "b.jpg")


# --- size and orientation ---


def test_the_calibration_decides_whether_a_photograph_stands_upright(tmp_path: Path) -> None:
    path = _noted(tmp_path / "a.png", {ORIENTATION: 6})  # stored 12 x 8, upright 8 x 12
    as_stored = read_cameras(_cameras(tmp_path))
    assert np.array_equal(read_view(path, as_stored).image, _rgb())
    turned = read_cameras(_cameras(tmp_path, width=HEIGHT, height=WIDTH))
    assert np.array_equal(read_view(path, turned).image, np.rot90(_rgb(), -1))


def test_a_mirrored_photograph_is_never_used_as_stored(tmp_path: Path) -> None:
    path = _noted(tmp_path / "a.png", {ORIENTATION: 5})
    with pytest.raises(BadCameraError, match="8x12"):
        read_view(path, read_cameras(_cameras(tmp_path)))


def test_another_size_is_refused_and_not_scaled(tmp_path: Path) -> None:
    calibration = read_cameras(_cameras(tmp_path))
    double = _saved(tmp_path / "double.png", _rgb(2 * WIDTH, 2 * HEIGHT))
    with pytest.raises(BadCameraError, match=r"24x16.*12x8; resize it to 12x8"):
        read_view(double, calibration)
    cropped = _saved(tmp_path / "cropped.png", _rgb(WIDTH, HEIGHT - 2))
    with pytest.raises(BadCameraError, match=r"12x6.*12x8; it was cropped"):
        read_view(cropped, calibration)


# --- EXIF's focal length ---


def test_the_focal_length_by_the_diagonal(tmp_path: Path) -> None:
    path = _noted(tmp_path / "a.jpg", {FOCAL_35MM: 26}, _rgb(400, 300))
    camera = camera_from_exif(path, 400, 300)
    assert camera.mean_focal_px == pytest.approx(26.0 / 43.2666 * 500.0, rel=1e-5)
    assert camera.K[:2, 2].tolist() == [200.0, 150.0]
    assert read_view(path).camera == camera


def test_the_focal_length_by_the_density_of_the_sensor(tmp_path: Path) -> None:
    notes = {FOCAL_LENGTH: 5.0, PLANE_X: 2000.0, PLANE_UNIT: 3, PIXELS_X: 800, PIXELS_Y: 600}
    path = _noted(tmp_path / "a.jpg", notes, _rgb(400, 300))
    # 200 px per mm as taken, half of that since
    assert camera_from_exif(path, 400, 300).mean_focal_px == pytest.approx(5.0 * 200.0 / 2.0)


def test_the_focal_length_of_a_turned_photograph(tmp_path: Path) -> None:
    notes = {ORIENTATION: 6, FOCAL_LENGTH: 5.0, PLANE_X: 2000.0, PLANE_UNIT: 3, PIXELS_X: 400, PIXELS_Y: 300}
    view = read_view(_noted(tmp_path / "a.jpg", notes, _rgb(400, 300)))
    assert (view.camera.width, view.camera.height) == (300, 400)
    assert view.camera.mean_focal_px == pytest.approx(1000.0)


@pytest.mark.parametrize(
    "notes",
    [
        {},
        {FOCAL_35MM: 0},
        {FOCAL_LENGTH: 5.0},
        {FOCAL_LENGTH: 5.0, PLANE_X: 2000.0},
        {FOCAL_LENGTH: 5.0, PLANE_X: 2000.0, PLANE_UNIT: 9, PIXELS_X: 400, PIXELS_Y: 300},
    ],
    ids=["nothing", "zero", "no sensor", "no size", "unknown unit"],
)
def test_a_focal_length_is_never_guessed(tmp_path: Path, notes: dict[int, Any]) -> None:
    path = _noted(tmp_path / "a.jpg", notes, _rgb(400, 300))
    with pytest.raises(BadCameraError, match=r"--cameras.*--focal-px"):
        read_view(path)
    assert math.isclose(read_view(path, focal_px=300.0).camera.mean_focal_px, 300.0)


def test_a_cropped_photograph_has_no_focal_length(tmp_path: Path) -> None:
    notes = {FOCAL_35MM: 26, PIXELS_X: 400, PIXELS_Y: 300}
    with pytest.raises(BadCameraError, match="cropped from 400x300 to 300x300"):
        read_view(_noted(tmp_path / "a.jpg", notes, _rgb(300, 300)))


# --- both sides ---


def test_context_is_sorted_as_people_count_and_without_the_ends(tmp_path: Path) -> None:
    for name in ("10", "9", "1", "end"):
        _saved(tmp_path / f"{name}.png")
    patterns = [str(tmp_path / "[19]*.png"), str(tmp_path / "*.png")]
    found = find_context(patterns, ends=[tmp_path / ".." / tmp_path.name / "end.png"])
    assert [path.name for path in found] == ["1.png", "9.png", "10.png"]
    assert [view.id for view in read_context(found, focal_px=10.0)] == ["1", "9", "10"]


def test_a_name_with_brackets_is_found(tmp_path: Path) -> None:
    path = _saved(tmp_path / "a[1].png")
    assert find_context([str(path)]) == [path]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no photograph matches .*\*\.jpg"):
        find_context([str(tmp_path / "*.jpg")])


def test_ids_are_as_long_as_needed() -> None:
    assert list(view_ids([Path("a/1.jpg"), Path("a/2.jpg")]).values()) == ["1", "2"]
    assert list(view_ids([Path("a/1.jpg"), Path("b/1.jpg")]).values()) == ["a/1", "b/1"]
    assert list(view_ids([Path("a/1.jpg"), Path("a/1.png")]).values()) == ["1.jpg", "1.png"]


def test_poses_are_used_only_where_wanted(tmp_path: Path) -> None:
    names = ("a", "b", "a2", "b2")
    for name in names:
        _saved(tmp_path / f"{name}.png")
    frames = [{"file": f"{name}.png", "T_world_camera": _pose()} for name in names]
    calibration = read_cameras(_cameras(tmp_path, frames=frames))
    for posed in ([], [Side.REFERENCE], list(Side)):
        sides = read_sides(
            tmp_path / "a.png",
            tmp_path / "b.png",
            [str(tmp_path / "a*.png")],
            [str(tmp_path / "b*.png")],
            calibration=calibration,
            posed=posed,
        )
        for side, views in (
            (Side.REFERENCE, [sides.reference, *sides.reference_context]),
            (Side.TARGET, [sides.target, *sides.target_context]),
        ):
            assert len(views) == 2
            assert all((view.T_side_camera is not None) == (side in posed) for view in views)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    a, b, c = (_saved(tmp_path / f"{name}.png") for name in "abc")
    large = _saved(tmp_path / "large.png", _rgb(20, 10))
    calibration = read_cameras(_cameras(tmp_path))
    with pytest.raises(BadInputError, match="same photograph"):
        read_sides(a, tmp_path / ".." / tmp_path.name / "a.png", focal_px=10.0)
    with pytest.raises(BadInputError, match="around both ends"):
        read_sides(a, b, [str(c)], [str(c)], focal_px=10.0)
    with pytest.raises(BadInputError, match="give one of them"):
        read_sides(a, b, calibration=calibration, focal_px=10.0)
    with pytest.raises(BadInputError, match="target side has a pose"):
        read_sides(a, b, calibration=calibration, posed=[Side.TARGET])
    with pytest.raises(BadCameraError, match="several sizes"):
        read_sides(a, large, focal_px=10.0)


def test_two_photographs_are_never_taken_for_one(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        _saved(tmp_path / folder / "1.png")
    calibration = read_cameras(_cameras(tmp_path, frames=[{"file": "left/1.png", "T_world_camera": _pose()}]))
    with pytest.raises(BadCameraError, match=r"both taken for left/1\.png"):
        read_sides(tmp_path / "left" / "1.png", tmp_path / "right" / "1.png", calibration=calibration)


def test_real_photographs(fox: Path) -> None:
    calibration = read_cameras(fox / "cameras.json")
    paths = find_context([str(fox / "images" / "*.jpg")])
    views = read_context(paths[:3], calibration, with_poses=True)
    assert len(paths) == len(calibration.frames)
    for view in views:
        assert view.image.shape == (640, 360, 3)
        assert view.camera.distortion_model == "plumb_bob"
        assert view.T_side_camera is not None
