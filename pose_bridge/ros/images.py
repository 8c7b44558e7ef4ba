# SPDX-License-Identifier: Apache-2.0
"""Pictures and depth in and out of ROS messages, with numpy and OpenCV (cv_bridge breaks under numpy 2)."""

from __future__ import annotations

import struct
from array import array
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from pose_bridge.errors import BadImageError
from pose_bridge.geometry.arrays import Mask

Pixels = NDArray[np.uint8]
Depth = NDArray[np.float32]
Filled = TypeVar("Filled", Image, CompressedImage)


class _Layout(NamedTuple):
    """How an encoding stores a pixel, and what makes RGB of it (None: nothing to do)."""

    dtype: str
    channels: int
    to_rgb: int | None


_COLOUR = {
    "rgb{}": (3, None),
    "bgr{}": (3, cv2.COLOR_BGR2RGB),
    "rgba{}": (4, cv2.COLOR_RGBA2RGB),
    "bgra{}": (4, cv2.COLOR_BGRA2RGB),
    "mono{}": (1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a mosaic by its second row and column, ROS by its first.
    "bayer_rggb{}": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr{}": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg{}": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg{}": (1, cv2.COLOR_BayerGB2RGB),
}
_PICTURES = {
    **{name.format(8): _Layout("u1", *how) for name, how in _COLOUR.items()},
    **{name.format(16): _Layout("u2", *how) for name, how in _COLOUR.items()},
    "8UC1": _Layout("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": _Layout("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC4": _Layout("u1", 4, cv2.COLOR_BGRA2RGB),
    **dict.fromkeys(("yuv422", "uyvy"), _Layout("u1", 2, cv2.COLOR_YUV2RGB_UYVY)),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), _Layout("u1", 2, cv2.COLOR_YUV2RGB_YUY2)),
}
_DEPTHS = {"32FC1": _Layout("f4", 1, None), "16UC1": _Layout("u2", 1, None), "mono16": _Layout("u2", 1, None)}
_METRES_PER_MILLIMETRE = np.float32(0.001)

# First and last bytes of a whole file: decoders fill up what is missing with grey.
_COMPLETE = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xae\x42\x60\x82"}
_DEPTH_HEADER = struct.Struct("<iff")


def decode(message: Image) -> Pixels:
    """Return the picture of a sensor_msgs/Image as RGB, (H, W, 3), a copy.

    Raises:
        BadImageError: Empty, cut off, depth, or of an encoding that is not understood.
    """
    if message.encoding in {"32FC1", "16UC1"}:
        raise BadImageError(f"an image with encoding {message.encoding} is depth; give it as depth")
    layout = _layout(message.encoding)
    stored = _stored(message, layout)
    if layout.channels == 2 and message.width % 2:
        raise BadImageError(
            f"an image with encoding {message.encoding} needs an even width, got {message.width}"
        )
    return _to_rgb(stored, layout)


def decode_compressed(message: CompressedImage) -> Pixels:
    """Return the picture of a sensor_msgs/CompressedImage as RGB, (H, W, 3).

    Raises:
        BadImageError: Empty, cut off, depth, or of a format that is not understood.

    Source: image_transport_plugins, compressed_image_transport: "ENCODING; FORMAT compressed ORDER".
    """
    if "compressedDepth" in message.format:
        raise BadImageError(f"a compressed image with format {message.format!r} is depth; give it as depth")
    source, _, how = message.format.partition(";")
    if source.startswith("bayer_") and not how.rpartition("compressed")[2].strip():
        return _to_rgb(_file(message, cv2.IMREAD_GRAYSCALE), _layout(source))  # the mosaic was compressed
    pixels = _file(message, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if "compressed rgb" in how:  # its red was compressed as if it were blue
        return pixels
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def decode_depth(message: Image) -> Depth:
    """Return depth in metres, (H, W), NaN where it is unknown.

    Raises:
        BadImageError: Empty, cut off, or neither 32FC1 (metres) nor 16UC1 (millimetres).

    Source: REP-118.
    """
    layout = _DEPTHS.get(message.encoding)
    if layout is None:
        raise BadImageError(
            f"depth with encoding {message.encoding!r}; give 32FC1 in metres or 16UC1 in millimetres"
        )
    stored = _stored(message, layout)
    return _known(stored.astype(np.float32) * (1 if layout.dtype == "f4" else _METRES_PER_MILLIMETRE))


def decode_compressed_depth(message: CompressedImage) -> Depth:
    """Return depth in metres, (H, W), NaN where it is unknown.

    Raises:
        BadImageError: Not a PNG by compressed_depth_image_transport, or cut off.

    Source: image_transport_plugins, compressed_depth_image_transport: 32FC1 is stored as a / depth + b, with
        a and b in front of the PNG.
    """
    encoding, _, how = message.format.partition(";")
    if encoding not in _DEPTHS or "compressedDepth" not in how or "rvl" in how.lower():
        raise BadImageError(
            f"compressed depth with format {message.format!r} is not understood; "
            "give compressedDepth with PNG (its parameter `format`), or raw depth"
        )
    if len(message.data) <= _DEPTH_HEADER.size:
        raise BadImageError(f"compressed depth holds {len(message.data)} bytes; was it cut off?")
    _, a, b = _DEPTH_HEADER.unpack_from(bytes(message.data[: _DEPTH_HEADER.size]))
    stored = _file(message, cv2.IMREAD_UNCHANGED, skip=_DEPTH_HEADER.size)
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise BadImageError(
            f"compressed depth holds {stored.dtype} {stored.shape}; it must be grey with 16 bits"
        )
    if encoding != "32FC1":
        return _known(stored.astype(np.float32) * _METRES_PER_MILLIMETRE)
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.float32(a) / (stored.astype(np.float32) - np.float32(b))
    return _known(np.where(stored > 0, metres, np.float32(np.nan)))


def decode_mask(message: Image) -> Mask:
    """Return where a picture may be used: wherever a mono8 image is not 0, (H, W).

    Raises:
        BadImageError: Empty, cut off, or of another encoding.
    """
    if message.encoding not in {"mono8", "8UC1"}:
        raise BadImageError(f"a mask with encoding {message.encoding!r}; give mono8, 0 where not to look")
    return np.asarray(_stored(message, _PICTURES[message.encoding]) > 0)


def encode(image: Pixels) -> Image:
    """Return RGB, (H, W, 3), as a sensor_msgs/Image without a header."""
    height, width = image.shape[:2]
    return _filled(Image(height=height, width=width, encoding="rgb8", step=3 * width), image)


def encode_depth(depth_m: Depth) -> Image:
    """Return metres, (H, W), as a sensor_msgs/Image without a header."""
    height, width = depth_m.shape
    message = Image(height=height, width=width, encoding="32FC1", step=4 * width)
    return _filled(message, np.asarray(depth_m, dtype="<f4"))


def encode_compressed(image: Pixels, quality: int = 90) -> CompressedImage:
    """Return RGB, (H, W, 3), as JPEG without a header.

    Args:
        image: The picture.
        quality: Of the JPEG, 1 to 100.
    """
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return _filled(CompressedImage(format="rgb8; jpeg compressed bgr8"), data)


def _filled(message: Filled, values: NDArray[Any]) -> Filled:
    """Give a message its bytes the one way that is quick: any other goes through them one by one."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).view(np.uint8).data)
    message.data = data
    return message


def _layout(encoding: str) -> _Layout:
    layout = _PICTURES.get(encoding)
    if layout is None:
        raise BadImageError(
            f"unknown image encoding {encoding!r}; convert it to one of {', '.join(sorted(_PICTURES))}"
        )
    return layout


def _to_rgb(stored: NDArray[Any], layout: _Layout) -> Pixels:
    """Return a copy in RGB; of 16 bits, v / 257 rounded."""
    rgb = np.array(stored) if layout.to_rgb is None else cv2.cvtColor(stored, layout.to_rgb)
    return np.asarray(rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=1.0 / 257.0))


def _stored(message: Image, layout: _Layout) -> NDArray[Any]:
    """Return the pixels as they are stored, in this machine's byte order, (H, W) or (H, W, channels)."""
    dtype = np.dtype(layout.dtype)
    row_bytes = message.width * layout.channels * dtype.itemsize
    if row_bytes == 0 or message.height == 0:
        raise BadImageError(f"the image is empty ({message.width}x{message.height}); is the camera running?")
    if message.step < row_bytes:
        raise BadImageError(
            f"step is {message.step}, but {message.width} pixels of {message.encoding} take {row_bytes} "
            "bytes; fix the node that fills in the message"
        )
    if len(message.data) != message.step * message.height:
        raise BadImageError(
            f"the image holds {len(message.data)} bytes, its step and height say "
            f"{message.step * message.height}; was the message cut off?"
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, :row_bytes]
    sent = dtype.newbyteorder(">" if message.is_bigendian else "<")
    values = np.ascontiguousarray(rows).view(sent).astype(dtype, copy=False)
    shape = (message.height, message.width, layout.channels)
    return values.reshape(shape[:2] if layout.channels == 1 else shape)


def _file(message: CompressedImage, flags: int, skip: int = 0) -> NDArray[Any]:
    data = bytes(message.data)[skip:]
    ends = [end for start, end in _COMPLETE.items() if data.startswith(start)]
    if not ends:
        raise BadImageError(
            f"a compressed image of {len(data)} bytes is neither JPEG nor PNG; compress it as one"
        )
    if not data.rstrip(b"\0").endswith(ends[0]):
        raise BadImageError(f"a compressed image ends too early, after {len(data)} bytes; was it cut off?")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BadImageError(f"a compressed image cannot be decoded ({error}); compress it again") from error
    if pixels is None:
        raise BadImageError(f"a compressed image of {len(data)} bytes cannot be decoded; compress it again")
    return np.asarray(pixels)


def _known(depth_m: Depth) -> Depth:
    """Return NaN for what is no distance."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(np.nan))
