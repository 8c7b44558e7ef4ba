# SPDX-License-Identifier: Apache-2.0
"""One photograph: from the bytes of a file to 8-bit RGB, a mask, and what the camera noted."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pose_bridge.errors import BadImageError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_OPAQUE = 128
_EXIF_IFD = 0x8769
_ORIENTATION = ExifTags.Base.Orientation.value if hasattr(ExifTags, "Base") else 0x0112
_EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_WITH_ALPHA = {"LA", "PA", "RGBA", "RGBa"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Photograph:
    """A photograph as its file stores it.

    Attributes:
        image: RGB, (H, W, 3).
        mask: False where the picture is transparent, (H, W); None for a picture that is opaque everywhere.
        orientation: EXIF's number, 1 to 8, of how the image is turned to stand upright.
        exif: What the camera noted, by EXIF tag.
    """

    image: Pixels
    mask: Mask | None
    orientation: int
    exif: Mapping[int, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored, px."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright image, px."""
        return self.size if self.orientation < 5 else self.size[::-1]

    @property
    def quarter_turned(self) -> bool:
        """Whether the stored image lies on its side, and is not a mirror image besides."""
        return self.orientation in (6, 8)

    def upright(self) -> Photograph:
        """Return the photograph turned as its orientation asks."""
        return Photograph(
            image=_turned(self.image, self.orientation),
            mask=None if self.mask is None else _turned(self.mask, self.orientation),
            orientation=1,
            exif=self.exif,
        )


def read_image(path: str | os.PathLike[str]) -> tuple[Pixels, Mask | None]:
    """Read a photograph and turn it upright.

    Sixteen bits become eight (v / 257), grey becomes RGB, of several frames the first is read.

    Returns:
        RGB, (H, W, 3), and a mask (H, W) that is False where the picture is more transparent than not;
        None where it is opaque.

    Raises:
        BadImageError: Missing, unreadable, cut off, too large, or of a kind that is not understood.
    """
    photograph = load(path).upright()
    return photograph.image, photograph.mask


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return width and height of the upright photograph, px, without reading its pixels.

    Raises:
        BadImageError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            on_its_side = image.getexif().get(_ORIENTATION, 1) >= 5
            return image.size[::-1] if on_its_side else image.size
    except Exception as error:  # Pillow raises nearly anything at damaged files
        raise BadImageError(f"{path}: not an image that can be read ({error})") from error


def load(path: str | os.PathLike[str]) -> Photograph:
    """Read a photograph as it is stored.

    Raises:
        BadImageError: As `read_image`.
    """
    path = Path(path)
    data = _bytes(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on broken metadata; broken pixels raise
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decoded(path, data)
        except BadImageError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadImageError(
                f"{path}: more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels; reduce the photograph"
            ) from error
        except UnidentifiedImageError as error:
            raise BadImageError(
                f"{path}: not an image, or of an unknown format; convert it to JPEG or PNG"
            ) from error
        except Exception as error:  # decoders raise nearly anything at damaged files
            raise BadImageError(
                f"{path}: damaged, the image cannot be decoded ({error}); copy or export it again"
            ) from error


def _bytes(path: Path) -> bytes:
    if not path.exists():
        raise BadImageError(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise BadImageError(f"{path}: not a file; name one photograph")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise BadImageError(f"{path}: the file is empty; was its copy cut off?")
    return data


def _decoded(path: Path, data: bytes) -> Photograph:
    with Image.open(io.BytesIO(data)) as picture:
        exif: dict[int, Any] = {**picture.getexif(), **picture.getexif().get_ifd(_EXIF_IFD)}
        orientation = exif.get(_ORIENTATION, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        deep = _has_16_bits(picture, data)
        picture.load()
        if deep:
            # Pillow reads 16-bit colour as 8 bits by dropping the lower ones. It has loaded it all the same,
            # because OpenCV pads a file that is cut off with black.
            image, mask = _from_16_bits(path, _decoded_by_opencv(path, data))
        elif picture.mode.startswith("I;16"):
            image, mask = _from_16_bits(path, np.asarray(picture))
        elif picture.mode in _EIGHT_BIT:
            image, mask = _from_8_bits(picture)
        else:
            raise BadImageError(
                f"{path}: pixels of kind {picture.mode} are not understood; export it with 8 bits per channel"
            )
        if picture.format == "TIFF":  # which both decoders turn upright by themselves, and nothing else
            back = {6: 8, 8: 6}.get(orientation, orientation)
            image, mask = _turned(image, back), None if mask is None else _turned(mask, back)
    if mask is not None and not mask.any():
        raise BadImageError(f"{path}: transparent everywhere; export it without transparency")
    opaque = mask is None or bool(mask.all())
    return Photograph(image=image, mask=None if opaque else mask, orientation=orientation, exif=exif)


def _has_16_bits(picture: Image.Image, data: bytes) -> bool:
    if picture.format == "PNG":
        return data[24] == 16  # IHDR's bit depth
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
        return max(np.atleast_1d(bits)) == 16 and picture.mode != "CMYK"
    return False


def _decoded_by_opencv(path: Path, data: bytes) -> NDArray[np.uint16]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise BadImageError(f"{path}: 16-bit pixels of an unknown kind; export it with 8 bits per channel")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return np.asarray(pixels, dtype=np.uint16)


def _from_16_bits(path: Path, pixels: NDArray[Any]) -> tuple[Pixels, Mask | None]:
    shallow = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if shallow.ndim == 2:
        return np.repeat(shallow[..., None], 3, axis=2), None
    if shallow.shape[2] not in (3, 4):
        raise BadImageError(f"{path}: {shallow.shape[2]} channels; export it as grey, RGB or RGBA")
    mask = shallow[..., 3] >= _OPAQUE if shallow.shape[2] == 4 else None
    return np.ascontiguousarray(shallow[..., :3]), mask


def _from_8_bits(picture: Image.Image) -> tuple[Pixels, Mask | None]:
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        pixels = np.asarray(picture.convert("RGBA"))
        return np.ascontiguousarray(pixels[..., :3]), pixels[..., 3] >= _OPAQUE
    return np.array(picture.convert("RGB")), None


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W, ...) by EXIF's number.

    Source: Exif 2.32 (CIPA DC-008-2019), section 4.6.4, tag Orientation.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])
