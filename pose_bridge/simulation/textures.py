# SPDX-License-Identifier: Apache-2.0
"""Textures of furnished rooms, drawn from random numbers: walls, floors, wood, fabric, pictures, books.

Sizes are in metres; every function returns RGB with `TEXEL_M` a pixel, or finer for what hangs on walls.
"""

from __future__ import annotations

import colorsys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.geometry.arrays import Array
from pose_bridge.simulation.surfaces import Image

TEXEL_M = 0.004
FINE_TEXEL_M = 0.002

KNOTS_PER_M2 = 25.0

Rng = np.random.Generator


def colour(
    rng: Rng, saturation: tuple[float, float] = (0.1, 0.7), value: tuple[float, float] = (0.3, 0.9)
) -> Array:
    """A random colour, (3,), 0 to 255."""
    return 255.0 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


def brown(rng: Rng) -> Array:
    """A colour of wood, (3,), 0 to 255."""
    return 255.0 * np.array(
        colorsys.hsv_to_rgb(rng.uniform(0.05, 0.11), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.85))
    )


def clouds(rng: Rng, shape: tuple[int, int], cells_px: tuple[float, float]) -> Array:
    """Smooth noise of unit variance with blobs of about that many rows and columns, `shape`."""
    coarse = [max(2, round(length / cell) + 1) for length, cell in zip(shape, cells_px, strict=True)]
    noise = rng.standard_normal(coarse).astype(np.float32)
    large = cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(large / max(float(large.std()), 1e-6))


def plaster(rng: Rng, width_m: float, height_m: float, base: Array, roughness: float = 1.0) -> Image:
    """A painted wall: hardly any texture if it is not rough, a few scuffs."""
    shape = _shape(width_m, height_m, TEXEL_M)
    shade = 2.0 * clouds(rng, shape, (150, 150)) + roughness * clouds(rng, shape, (12, 12))
    shade += 1.2 * clouds(rng, shape, (2, 2))
    canvas = _painted(base, shade)
    for _ in range(rng.poisson(0.5 * width_m * height_m)):
        _stain(rng, canvas)
    return canvas


def wallpaper(rng: Rng, width_m: float, height_m: float, base: Array, motif: Image) -> Image:
    """A wall with the same motif over and over."""
    rows, columns = _shape(width_m, height_m, TEXEL_M)
    repeats = (rows // motif.shape[0] + 1, columns // motif.shape[1] + 1, 1)
    pattern = np.tile(motif, repeats)[:rows, :columns].astype(np.float32)
    shade = 2.0 * clouds(rng, (rows, columns), (150, 150)) + 1.2 * clouds(rng, (rows, columns), (2, 2))
    return _painted(base, shade[:, :, None] + pattern - pattern.mean())


def motif(rng: Rng) -> Image:
    """What a wallpaper repeats: stripes, or a few shapes, faint."""
    rows, columns = (int(rng.uniform(0.12, 0.6) / TEXEL_M) for _ in range(2))
    canvas = np.full((rows, columns, 3), 128, np.uint8)
    contrast = rng.uniform(8.0, 35.0)
    if rng.random() < 0.4:
        stripes = np.sign(np.sin(2.0 * np.pi * np.arange(columns) / columns * rng.integers(1, 4)))
        return _painted(np.full(3, 128.0), np.tile(contrast * 0.5 * stripes, (rows, 1)))
    for _ in range(rng.integers(3, 9)):
        _shape_on(rng, canvas, 128.0 + contrast * rng.choice([-1.0, 1.0]) * np.ones(3))
    return _bytes(cv2.GaussianBlur(canvas, (0, 0), 0.8))


def wood(rng: Rng, width_m: float, height_m: float, base: Array, *, upright: bool = False) -> Image:
    """Grain along the rows, or along the columns if upright."""
    rows, columns = _shape(width_m, height_m, TEXEL_M)
    shape = (columns, rows) if upright else (rows, columns)
    grain = 11.0 * clouds(rng, shape, (6, 30)) + 6.0 * clouds(rng, shape, (4, 12))
    grain += 5.0 * clouds(rng, shape, (60, 200))
    canvas = _painted(base, grain)
    for _ in range(rng.poisson(KNOTS_PER_M2 * width_m * height_m)):
        _knot(rng, canvas)
    return np.ascontiguousarray(canvas.transpose(1, 0, 2)) if upright else canvas


def parquet(rng: Rng, width_m: float, height_m: float, base: Array) -> Image:
    """Boards side by side, each of its own shade."""
    rows, columns = _shape(width_m, height_m, TEXEL_M)
    canvas = wood(rng, width_m, height_m, base).astype(np.float32)
    board, length = int(rng.uniform(0.07, 0.18) / TEXEL_M), int(rng.uniform(0.6, 1.6) / TEXEL_M)
    for top in range(0, rows, board):
        joint = -int(rng.integers(length))
        while joint < columns:
            left, right = max(joint, 0), min(joint + length, columns)
            canvas[top : top + board, left:right] += rng.normal(0.0, 7.0)
            canvas[top : top + board, left : left + 1] -= 22.0
            joint += length
        canvas[top : top + 1] -= 22.0
    return _bytes(canvas)


def carpet(rng: Rng, width_m: float, height_m: float, base: Array) -> Image:
    """Fine grain, worn here and there."""
    shape = _shape(width_m, height_m, TEXEL_M)
    grain = 9.0 * rng.standard_normal(shape).astype(np.float32) + 10.0 * clouds(rng, shape, (7, 7))
    return _painted(base, grain + 3.0 * clouds(rng, shape, (100, 100)))


def tiles(rng: Rng, width_m: float, height_m: float, base: Array) -> Image:
    """Square tiles, all alike, and their joints."""
    shape = _shape(width_m, height_m, TEXEL_M)
    side = int(rng.uniform(0.2, 0.5) / TEXEL_M)
    canvas = _painted(base, 9.0 * clouds(rng, shape, (9, 9)) + 2.0 * clouds(rng, shape, (2, 2)))
    joint = (0.6 * base).astype(np.uint8)
    canvas[::side] = joint
    canvas[:, ::side] = joint
    return canvas


def rug(rng: Rng, width_m: float, height_m: float) -> Image:
    """A woven rug: a border, and a pattern that is the same upside down."""
    rows, columns = _shape(width_m, height_m, TEXEL_M)
    base = colour(rng, (0.2, 0.6), (0.3, 0.7))
    canvas = _painted(base, 5.0 * clouds(rng, (rows, columns), (2, 2)))
    for _ in range(rng.integers(15, 40)):
        _shape_on(rng, canvas, colour(rng, (0.1, 0.6), (0.2, 0.9)), most=0.4)
    half = rows // 2
    canvas[rows - half :] = canvas[:half][::-1, ::-1]
    edge = tuple(map(int, colour(rng, (0.2, 0.6), (0.2, 0.8))))
    cv2.rectangle(canvas, (0, 0), (columns - 1, rows - 1), edge, 24)
    return _bytes(canvas + 4.0 * rng.standard_normal((rows, columns, 1)))


def fabric(rng: Rng, width_m: float, height_m: float, base: Array) -> Image:
    """Cloth, plain or striped."""
    shape = _shape(width_m, height_m, TEXEL_M)
    shade = 6.0 * clouds(rng, shape, (2, 2)) + 10.0 * clouds(rng, shape, (8, 8))
    kind = rng.random()
    if kind < 0.4:
        canvas = _painted(base, shade)
        for _ in range(int(40 * width_m * height_m)):
            _shape_on(rng, canvas, base * rng.uniform(0.5, 1.6), most=0.12)
        return canvas
    if kind < 0.65:
        period = rng.uniform(0.03, 0.2) / TEXEL_M
        shade += rng.uniform(5.0, 20.0) * np.sign(np.sin(2.0 * np.pi * np.arange(shape[1]) / period))
    return _painted(base, shade)


def picture(rng: Rng, width_m: float, height_m: float) -> Image:
    """A poster or a framed picture: a landscape or shapes, at times with lettering."""
    shape = _shape(width_m, height_m, FINE_TEXEL_M)
    photograph = rng.random() < 0.5
    strength = 3.0 if photograph else 1.0
    tint = sum(
        np.multiply.outer(clouds(rng, shape, (cell, cell)), rng.normal(0.0, 1.0, 3)) * cell**0.5 * strength
        for cell in (3, 8, 25, 80)
    )
    canvas = _bytes(colour(rng, (0.05, 0.6), (0.3, 0.95)) + tint)
    for _ in range(rng.integers(2, 8) if photograph else rng.integers(8, 25)):
        _shape_on(rng, canvas, colour(rng, (0.05, 0.7), (0.1, 1.0)))
    if rng.random() < 0.6:
        _lettering(rng, canvas, colour(rng, (0.0, 0.4), (0.0, 1.0)), lines=int(rng.integers(1, 5)))
    frame = max(2, round(rng.uniform(0.004, 0.03) / FINE_TEXEL_M))
    edge = tuple(map(int, colour(rng, (0.0, 0.4), (0.1, 0.95))))
    cv2.rectangle(canvas, (0, 0), (shape[1] - 1, shape[0] - 1), edge, 2 * frame)
    return canvas


def books(rng: Rng, width_m: float, height_m: float) -> Image:
    """Spines of books, of one or many series."""
    rows, columns = _shape(width_m, height_m, FINE_TEXEL_M)
    canvas = np.full((rows, columns, 3), 25, np.uint8)
    series = [colour(rng, (0.1, 0.8), (0.15, 0.85)) for _ in range(rng.integers(2, 9))]
    left = 0
    while left < columns:
        thick, tall = int(rng.uniform(0.012, 0.05) / FINE_TEXEL_M), int(rows * rng.uniform(0.65, 0.98))
        spine = canvas[rows - tall :, left : left + thick]
        spine[:] = np.clip(series[rng.integers(len(series))] + rng.normal(0.0, 10.0), 0, 255)
        spine[:, :1] = spine[:, :1] // 2
        band = int(rng.uniform(0.1, 0.8) * tall)
        spine[band : band + int(rng.uniform(0.03, 0.2) * tall), 2:-2] = colour(rng, (0.0, 0.6), (0.2, 1.0))
        left += thick
    return canvas


def carton(rng: Rng, width_m: float, height_m: float) -> Image:
    """Cardboard with tape, and a label."""
    shape = _shape(width_m, height_m, FINE_TEXEL_M)
    canvas = _painted(np.array([168.0, 130.0, 90.0]), 3.0 * clouds(rng, shape, (60, 60)))
    middle = shape[1] // 2
    canvas[:, middle - 12 : middle + 12] = np.clip(
        canvas[:, middle - 12 : middle + 12].astype(int) + 25, 0, 255
    )
    high, wide = shape[0] // 3, shape[1] // 3
    top, left = int(rng.integers(shape[0] - high)), int(rng.integers(shape[1] - wide))
    label = np.full((high, wide, 3), 235, np.uint8)
    _lettering(rng, label, np.full(3, 30.0), lines=3)
    canvas[top : top + high, left : left + wide] = label
    return canvas


def doors(rng: Rng, width_m: float, height_m: float, base: Array, columns: int, rows: int) -> Image:
    """A front of doors or drawers with handles, as cabinets have."""
    canvas = wood(rng, width_m, height_m, base, upright=True)
    high, wide = canvas.shape[0] / rows, canvas.shape[1] / columns
    dark, handle = tuple(map(int, 0.45 * base)), tuple(map(int, colour(rng, (0.0, 0.2), (0.2, 0.8))))
    for row in range(rows):
        for column in range(columns):
            left, top = round(column * wide), round(row * high)
            right, bottom = round(left + wide), round(top + high)
            cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), dark, 1)
            middle = ((left + right) // 2, top + max(6, (bottom - top) // 8))
            cv2.line(canvas, (middle[0] - 10, middle[1]), (middle[0] + 10, middle[1]), handle, 3)
    return canvas


def window(rng: Rng, width_m: float, height_m: float) -> Image:
    """A window: sky, roofs, and a frame with bars."""
    shape = _shape(width_m, height_m, TEXEL_M)
    sky = np.linspace(250.0, 200.0, shape[0])[:, None] + 8.0 * clouds(rng, shape, (60, 120))
    canvas = _bytes(sky[:, :, None] * np.array([0.9, 0.96, 1.0]))
    for _ in range(rng.integers(2, 7)):
        left, wide = int(rng.integers(-20, shape[1])), int(rng.uniform(0.1, 0.5) * shape[1])
        top = int(rng.uniform(0.45, 0.9) * shape[0])
        shade = tuple(map(int, colour(rng, (0.05, 0.3), (0.45, 0.8))))
        cv2.rectangle(canvas, (left, top), (left + wide, shape[0]), shade, -1)
    bars = (shape[1] // 2, shape[0] // 3)
    cv2.line(canvas, (bars[0], 0), (bars[0], shape[0]), (240, 240, 238), 12)
    cv2.line(canvas, (0, bars[1]), (shape[1], bars[1]), (240, 240, 238), 8)
    cv2.rectangle(canvas, (0, 0), (shape[1] - 1, shape[0] - 1), (240, 240, 238), 24)
    return canvas


def _shape(width_m: float, height_m: float, texel_m: float) -> tuple[int, int]:
    return max(4, round(height_m / texel_m)), max(4, round(width_m / texel_m))


def _bytes(canvas: NDArray[Any]) -> Image:
    return np.ascontiguousarray(np.clip(canvas, 0.0, 255.0), np.uint8)


def _painted(base: Array, shade: Array) -> Image:
    """A colour, (3,), brighter or darker by (H, W), or by (H, W, 3)."""
    return _bytes(base.astype(np.float32) + (shade if shade.ndim == 3 else shade[:, :, None]))


def _stain(rng: Rng, canvas: Image) -> None:
    rows, columns = canvas.shape[:2]
    centre = (int(rng.integers(columns)), int(rng.integers(rows)))
    axes = (int(rng.uniform(1, 10)), int(rng.uniform(1, 4)))
    shade = canvas[centre[1], centre[0]].astype(float) * rng.uniform(0.82, 1.06)
    cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, tuple(map(int, shade)), -1, cv2.LINE_AA)


def _knot(rng: Rng, canvas: Image) -> None:
    rows, columns = canvas.shape[:2]
    centre = (int(rng.integers(columns)), int(rng.integers(rows)))
    long = int(rng.uniform(2, 7))
    for size, shade in ((1.0, 0.75), (0.5, 0.5)):
        axes = (max(1, int(size * long)), max(1, int(size * long * rng.uniform(0.4, 0.9))))
        ink = tuple(map(int, shade * canvas[centre[1], centre[0]].astype(float)))
        cv2.ellipse(canvas, centre, axes, 0.0, 0.0, 360.0, ink, -1, cv2.LINE_AA)


def _shape_on(rng: Rng, canvas: Image, paint: Array, most: float = 1.0) -> None:
    """A circle, rectangle, triangle or line, of `most` of the usual size."""
    rows, columns = canvas.shape[:2]
    reach = most * min(rows, columns)
    x, y = int(rng.integers(columns)), int(rng.integers(rows))
    ink = tuple(map(int, np.clip(paint, 0, 255)))
    kind = rng.integers(4)
    if kind == 0:
        cv2.circle(canvas, (x, y), int(rng.uniform(0.03, 0.3) * reach), ink, -1, cv2.LINE_AA)
    elif kind == 1:
        wide, high = (int(rng.uniform(0.05, 0.5) * reach) for _ in range(2))
        cv2.rectangle(canvas, (x, y), (x + wide, y + high), ink, -1)
    elif kind == 2:
        corners = np.array([x, y]) + rng.uniform(-0.3, 0.3, (3, 2)) * reach
        cv2.fillPoly(canvas, [corners.astype(np.int32)], ink, cv2.LINE_AA)
    else:
        end = (int(x + rng.normal(0.0, 0.6) * reach), int(y + rng.normal(0.0, 0.6) * reach))
        cv2.line(canvas, (x, y), end, ink, max(1, int(rng.uniform(0.005, 0.05) * reach)), cv2.LINE_AA)


def _lettering(rng: Rng, canvas: Image, ink: Array, lines: int) -> None:
    rows, columns = canvas.shape[:2]
    size = rows / 30.0 / max(lines, 4) * rng.uniform(0.8, 2.0)
    for line in range(lines):
        text = "".join(rng.choice(list("AEIOURSTLNMKDHG  123"), int(rng.integers(4, 14))))
        place = (int(0.08 * columns), int((line + 1.2) / (lines + 1.5) * rows))
        thick = max(1, round(1.5 * size))
        cv2.putText(
            canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, tuple(map(int, ink)), thick, cv2.LINE_AA
        )
