# SPDX-License-Identifier: Apache-2.0
import contextlib
from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed import require_ros

from pose_bridge.errors import BadImageError

require_ros()

from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from pose_bridge.ros import images  # noqa: E402

ROWS, COLUMNS = np.mgrid[:48, :64]
SMOOTH = np.dstack([30 + 3 * COLUMNS, 60 + 2 * ROWS, 220 - 2 * COLUMNS]).astype(np.uint8)
DEPTH = np.linspace(0.5, 4.0, 48 * 64, dtype=np.float32).reshape(48, 64)
RED, GREEN, BLUE = range(3)
MOSAICS = {
    "bayer_rggb": [[RED, GREEN], [GREEN, BLUE]],
    "bayer_bggr": [[BLUE, GREEN], [GREEN, RED]],
    "bayer_gbrg": [[GREEN, BLUE], [RED, GREEN]],
    "bayer_grbg": [[GREEN, RED], [BLUE, GREEN]],
}


def message(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False) -> Image:
    """What a camera driver would send: rows of bytes, padded."""
    height, width = pixels.shape[:2]
    stored = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")))
    rows = stored.view(np.uint8).reshape(height, -1)
    rows = np.hstack([rows, np.full((height, padding), 77, np.uint8)])
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )


def compressed(pixels: np.ndarray, format: str, ending: str = ".png") -> CompressedImage:
    return CompressedImage(format=format, data=array("B", cv2.imencode(ending, pixels)[1].tobytes()))


def mosaic(rgb: np.ndarray, pattern: list) -> np.ndarray:
    raw = np.empty(rgb.shape[:2], rgb.dtype)
    for row in range(2):
        for column in range(2):
            raw[row::2, column::2] = rgb[row::2, column::2, pattern[row][column]]
    return raw


@st.composite
def pictures(draw):
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(pictures(), st.integers(0, 5))
def test_colours_are_exact(rgb, padding):
    alpha = np.full((*rgb.shape[:2], 1), 9, np.uint8)
    stored = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "8UC3": rgb[..., ::-1],
        "rgba8": np.dstack([rgb, alpha]),
        "bgra8": np.dstack([rgb[..., ::-1], alpha]),
        "8UC4": np.dstack([rgb[..., ::-1], alpha]),
    }
    for encoding, pixels in stored.items():
        assert np.array_equal(images.decode(message(pixels, encoding, padding=padding)), rgb), encoding


@given(pictures(), st.integers(0, 5), st.booleans())
def test_sixteen_bits_become_eight(rgb, padding, big):
    deep = rgb.astype(np.uint16) * 257
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    for encoding, pixels, wanted in (
        ("rgb16", deep, rgb),
        ("bgr16", deep[..., ::-1], rgb),
        ("mono16", deep[..., 0], grey),
    ):
        sent = message(pixels, encoding, padding=padding, big=big)
        assert np.array_equal(images.decode(sent), wanted), encoding


@given(pictures())
def test_grey_becomes_rgb(rgb):
    for encoding in ("mono8", "8UC1"):
        assert np.array_equal(images.decode(message(rgb[..., 0], encoding)), np.dstack([rgb[..., 0]] * 3))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", MOSAICS)
def test_mosaics_show_the_colours_that_they_were_made_of(name, bits):
    rgb = SMOOTH.astype(np.uint16) * 257 if bits == 16 else SMOOTH
    sent = message(mosaic(rgb, MOSAICS[name]), f"{name}{bits}", padding=3)
    error = np.abs(images.decode(sent).astype(int) - SMOOTH)[2:-2, 2:-2]
    assert error.max() <= 3


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", (1, 0, 1, 2)), ("uyvy", (1, 0, 1, 2)), ("yuv422_yuy2", (0, 1, 2, 1)), ("yuyv", (0, 1, 2, 1))],
)
def test_yuv_shows_the_colours_that_it_was_made_of(encoding, order):
    colour = np.array([200, 90, 40])
    # ITU-R BT.601, studio range
    luma = 16 + (65.738 * 200 + 129.057 * 90 + 25.064 * 40) / 256
    u = 128 + (-37.945 * 200 - 74.494 * 90 + 112.439 * 40) / 256
    v = 128 + (112.439 * 200 - 94.154 * 90 - 18.285 * 40) / 256
    pair = [round(luma), round(u), round(luma), round(v)]
    four = [pair[1], pair[0], pair[3], pair[2]] if order[0] == 1 else pair
    stored = np.tile(np.array(four, np.uint8), (4, 3)).reshape(4, 6, 2)
    rgb = images.decode(message(stored, encoding, padding=1))
    assert rgb.shape == (4, 6, 3)
    assert np.abs(rgb.astype(int) - colour).max() <= 3


def test_a_picture_is_a_copy():
    sent = message(SMOOTH, "rgb8")
    before = images.decode(sent)
    sent.data[:] = array("B", bytes(len(sent.data)))
    assert np.array_equal(before, SMOOTH)


def test_compressed_pictures():
    bgr = SMOOTH[..., ::-1]
    for format in ("png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8"):
        assert np.array_equal(images.decode_compressed(compressed(bgr, format)), SMOOTH)
    for format in ("jpeg", "jpg", "rgb8; jpeg compressed bgr8"):
        found = images.decode_compressed(compressed(bgr, format, ".jpg"))
        assert np.abs(found.astype(int) - SMOOTH).mean() < 2
    assert np.array_equal(images.decode_compressed(compressed(SMOOTH, "rgb8; png compressed rgb8")), SMOOTH)
    grey = images.decode_compressed(compressed(SMOOTH[..., 0], "mono8; png compressed "))
    assert np.array_equal(grey, np.dstack([SMOOTH[..., 0]] * 3))


def test_a_compressed_mosaic_is_a_mosaic():
    raw = mosaic(SMOOTH, MOSAICS["bayer_grbg"])
    found = images.decode_compressed(compressed(raw, "bayer_grbg8; png compressed "))
    assert np.abs(found.astype(int) - SMOOTH)[2:-2, 2:-2].max() <= 3


def test_the_picture_is_not_turned_by_its_own_notes():
    jpeg = cv2.imencode(".jpg", SMOOTH)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    found = images.decode_compressed(CompressedImage(format="jpeg", data=array("B", turned)))
    assert found.shape == SMOOTH.shape


def test_depth_is_in_metres():
    broken = DEPTH.copy()
    broken[0, :4] = [np.nan, np.inf, 0.0, -1.0]
    found = images.decode_depth(message(broken, "32FC1", padding=4, big=True))
    assert found.dtype == np.float32
    assert np.isnan(found[0, :4]).all()
    assert np.array_equal(found[1:], DEPTH[1:])
    millimetres = np.round(DEPTH * 1000).astype(np.uint16)
    millimetres[0, 0] = 0
    for encoding in ("16UC1", "mono16"):
        found = images.decode_depth(message(millimetres, encoding))
        assert np.isnan(found[0, 0])
        assert np.nanmax(np.abs(found - DEPTH)) < 0.0006


def test_compressed_depth():
    header = np.zeros(1, np.int32).tobytes()
    millimetres = np.round(DEPTH * 1000).astype(np.uint16)
    millimetres[0, 0] = 0
    data = header + np.zeros(2, np.float32).tobytes() + cv2.imencode(".png", millimetres)[1].tobytes()
    sent = CompressedImage(format="16UC1; compressedDepth png", data=array("B", data))
    found = images.decode_compressed_depth(sent)
    assert np.isnan(found[0, 0])
    assert np.nanmax(np.abs(found - DEPTH)) < 0.0006

    a, b = 100.0 * 101.0, 1.0 - 100.0 * 101.0 / 10.0
    inverse = np.round(a / DEPTH + b).astype(np.uint16)
    inverse[0, 0] = 0
    data = header + np.array([a, b], np.float32).tobytes() + cv2.imencode(".png", inverse)[1].tobytes()
    sent = CompressedImage(format="32FC1; compressedDepth", data=array("B", data))
    found = images.decode_compressed_depth(sent)
    assert np.isnan(found[0, 0])
    assert np.nanmax(np.abs(found - DEPTH)) < 0.001


def test_a_mask_is_where_to_look():
    where = SMOOTH[..., 0] > 100
    found = images.decode_mask(message(where.astype(np.uint8), "mono8", padding=2))
    assert found.dtype == bool
    assert np.array_equal(found, where)
    with pytest.raises(BadImageError, match="give mono8"):
        images.decode_mask(message(SMOOTH, "rgb8"))


@given(pictures())
def test_what_is_encoded_is_decoded(rgb):
    assert np.array_equal(images.decode(images.encode(rgb)), rgb)
    depth_m = rgb[..., 0].astype(np.float32) + 0.25
    assert np.array_equal(images.decode_depth(images.encode_depth(depth_m)), depth_m)


def test_what_is_encoded_as_jpeg_is_decoded():
    found = images.decode_compressed(images.encode_compressed(SMOOTH))
    assert np.abs(found.astype(int) - SMOOTH).mean() < 2


def changed(sent, **fields):
    for name, value in fields.items():
        setattr(sent, name, value)
    return sent


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (Image(), "unknown image encoding ''; convert it"),
        (Image(encoding="rgb8"), "is empty"),
        (
            changed(message(SMOOTH, "rgb8"), encoding="nv12"),
            "unknown image encoding 'nv12'; convert it to one of",
        ),
        (changed(message(SMOOTH, "rgb8"), step=100), "step is 100, but 64 pixels of rgb8 take 192 bytes"),
        (changed(message(SMOOTH, "rgb8"), step=200), "holds 9216 bytes, its step and height say 9600"),
        (changed(message(SMOOTH, "rgb8"), data=array("B", bytes(1000))), "holds 1000 bytes"),
        (changed(message(SMOOTH, "rgb8"), data=array("B", bytes(10000))), "holds 10000 bytes"),
        (changed(message(SMOOTH, "rgb8"), height=0), "is empty"),
        (message(DEPTH, "32FC1"), "is depth; give it as depth"),
        (message(SMOOTH[:, :63, :2], "yuv422"), "needs an even width, got 63"),
    ],
)
def test_a_bad_image_is_refused(sent, complaint):
    with pytest.raises(BadImageError, match=complaint):
        images.decode(sent)


PNG = compressed(SMOOTH, "png").data
JPEG = compressed(SMOOTH, "jpeg", ".jpg").data


@pytest.mark.parametrize(
    ("format", "data", "complaint"),
    [
        ("jpeg", b"", "0 bytes is neither JPEG nor PNG"),
        ("jpeg", b"GIF89a" + bytes(50), "neither JPEG nor PNG"),
        ("jpeg", JPEG[: len(JPEG) // 2], "was it cut off"),
        ("png", PNG[: len(PNG) // 2], "was it cut off"),
        ("jpeg", b"\xff\xd8" + bytes(40) + b"\xff\xd9", "cannot be decoded"),
        ("16UC1; compressedDepth png", PNG, "is depth"),
        ("bayer_xxxx8; png compressed ", PNG, "unknown image encoding"),
    ],
)
def test_a_bad_compressed_image_is_refused(format, data, complaint):
    with pytest.raises(BadImageError, match=complaint):
        images.decode_compressed(CompressedImage(format=format, data=array("B", bytes(data))))


@pytest.mark.parametrize("whole", [PNG, JPEG], ids=["png", "jpeg"])
@given(data=st.data())
def test_no_damage_does_worse_than_be_refused(whole, data):
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    sent = CompressedImage(format="rgb8; jpeg compressed bgr8", data=array("B", bytes(damaged)))
    with contextlib.suppress(BadImageError):
        found = images.decode_compressed(sent)
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3


def test_bad_depth_is_refused():
    with pytest.raises(BadImageError, match="give 32FC1 in metres or 16UC1 in millimetres"):
        images.decode_depth(message(SMOOTH, "rgb8"))
    for format, data, complaint in (
        ("16UC1; compressedDepth rvl", bytes(100), "not understood"),
        ("rgb8; jpeg compressed bgr8", bytes(100), "not understood"),
        ("16UC1; compressedDepth png", bytes(12), "12 bytes; was it cut off"),
        ("16UC1; compressedDepth png", bytes(12) + bytes(PNG), "must be grey with 16 bits"),
    ):
        with pytest.raises(BadImageError, match=complaint):
            images.decode_compressed_depth(CompressedImage(format=format, data=array("B", data)))


@given(
    st.binary(max_size=60), st.sampled_from(sorted(images._PICTURES)), st.integers(0, 9), st.integers(0, 9)
)
def test_no_message_does_worse_than_be_refused(data, encoding, width, height):
    step = len(data) // height if height else 0
    sent = Image(encoding=encoding, width=width, height=height, step=step, data=array("B", data))
    with contextlib.suppress(BadImageError):
        assert images.decode(sent).shape == (height, width, 3)


@pytest.mark.parametrize(
    "encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "bayer_rggb8", "bayer_gbrg8"]
)
def test_as_cv_bridge_does_it(encoding):
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}.get(encoding, 1)
    pixels = np.dstack([SMOOTH, SMOOTH])[..., :channels] if channels > 1 else SMOOTH[..., 0]
    if encoding == "mono16":
        pixels = pixels.astype(np.uint16) * 257
    sent = message(pixels, encoding)
    theirs = bridge.imgmsg_to_cv2(sent, "rgb8")
    assert np.abs(images.decode(sent).astype(int) - theirs).max() <= 1
