# SPDX-License-Identifier: Apache-2.0
"""Pictures of textured rectangles: exact perspective, depth, and smooth edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.surfaces import LEVELS, Atlas, Image, Surfaces

NEAR_M = 0.01
MIN_VOLUME_M3 = 1e-9  # of what a rectangle and the eye span; less is seen edge-on
SAMPLES = 2  # per pixel, in each direction
# A texture seen at a slant is finer along one direction than along the other. 0 samples it as finely as the
# mean of both, so that the finer one flickers; 1 as coarsely as the coarser one, so that the other blurs.
SLANT_BLUR = 0.25
SHEEN_WIDTH = 4.0  # exponent of the lobe around the mirrored light


@dataclass(frozen=True, eq=False)
class Picture:
    """What a perfect camera sees.

    Attributes:
        image: uint8 RGB, (H, W, 3).
        depth_m: Along the optical axis at the pixel's centre, float32 (H, W); NaN where nothing is.
    """

    image: Image
    depth_m: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Lights:
    """Lamps: places (L, 3), and how bright a surface right below one gets (L,); `ambient` is everywhere."""

    places: Array
    strengths: Array
    ambient: float

    def on(self, surfaces: Surfaces, eye: Array) -> Array:
        """Brightness of each rectangle at its four corners, row by row, as the eye sees it, (N, 4)."""
        steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        edges = np.stack([surfaces.across, surfaces.down], axis=1)
        points = surfaces.corners[:, None] + np.einsum("ck,nkd->ncd", steps, edges)
        normals = surfaces.normals[:, None]
        to_eye = _unit(eye - points)
        total = np.full(points.shape[:2], self.ambient)
        for place, strength in zip(self.places, self.strengths, strict=True):
            way = place - points
            falling = np.maximum((_unit(way) * normals).sum(axis=2), 0.0)
            near = strength / (1.0 + 0.15 * (way**2).sum(axis=2))
            mirrored = 2.0 * (to_eye * normals).sum(axis=2, keepdims=True) * normals - to_eye
            lobe = np.maximum((mirrored * _unit(way)).sum(axis=2), 0.0) ** SHEEN_WIDTH
            total += near * (falling + surfaces.sheens[:, None] * lobe)
        return total


def render(
    surfaces: Surfaces, atlas: Atlas, lights: Lights, T_world_camera: Array, camera: Camera
) -> Picture:
    """Return what a camera without distortion sees.

    Args:
        surfaces: In the world's frame.
        atlas: Their textures.
        lights: What makes them bright.
        T_world_camera: (4, 4).
        camera: Any distortion of it is ignored; see `optics.distorted`.
    """
    scene = _facing(surfaces, atlas, T_world_camera, camera)
    hits = _rasterized(scene, camera)
    size = (camera.width, camera.height)
    image = cv2.resize(_sampled(scene, atlas, hits), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    bright = _lit(lights.on(scene.surfaces, T_world_camera[:3, 3]), hits)
    image *= cv2.resize(bright, size, interpolation=cv2.INTER_AREA)[:, :, None]
    return Picture(np.clip(image + 0.5, 0.0, 255.0).astype(np.uint8), _depth_m(scene, hits))


@dataclass(frozen=True, eq=False)
class _Scene:
    """Rectangles that face the camera.

    Attributes:
        maps: Times (x, y, 1) in pixels it is (u, v, 1) / z, where u and v go from 0 to 1 across and down the
            rectangle and z is the depth, (N, 3, 3).
        boxes: Their bounds in samples: left, right, top, bottom, (N, 4).
        levels: Scale of the texture that suits a depth of 1 m, a base 2 logarithm, (N,).
    """

    surfaces: Surfaces
    maps: Array
    boxes: NDArray[np.intp]
    levels: Array


@dataclass(frozen=True, eq=False)
class _Hits:
    """What each sample sees, (H, W): which rectangle (-1 for none), where on it, and 1 / depth."""

    owner: NDArray[np.intp]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    nearness: NDArray[np.float32]


def _facing(surfaces: Surfaces, atlas: Atlas, T_world_camera: Array, camera: Camera) -> _Scene:
    R_world_camera, eye = T_world_camera[:3, :3], T_world_camera[:3, 3]
    frames = np.stack([surfaces.across, surfaces.down, surfaces.corners - eye], axis=2)
    frames = R_world_camera.T @ frames
    volumes = np.linalg.det(frames)
    facing = np.flatnonzero(volumes > MIN_VOLUME_M3)
    boxes = np.array([_bounds(frame, camera) for frame in frames[facing]], np.intp).reshape(-1, 4)
    inside = (boxes[:, 0] < boxes[:, 1]) & (boxes[:, 2] < boxes[:, 3])
    kept, boxes = facing[inside], boxes[inside]
    seen, volumes = surfaces.part(kept), volumes[kept]
    areas = np.linalg.norm(np.cross(seen.across, seen.down), axis=1)
    texels = (atlas.places[seen.textures, 0, 2:] * seen.windows[:, 2:]).prod(axis=1)
    per_sample = texels / (volumes * camera.K[0, 0] * camera.K[1, 1] * SAMPLES**2)
    levels = 0.5 * np.log2(per_sample) - 0.5 * SLANT_BLUR * np.log2(volumes / areas)
    maps = np.linalg.inv(frames[kept]) @ np.linalg.inv(camera.K)
    return _Scene(seen, maps, boxes, levels)


def _bounds(frame: Array, camera: Camera) -> tuple[int, int, int, int]:
    """Left, right, top, bottom, in samples, of what may show a rectangle given as (across, down, corner)."""
    across, down, corner = frame.T
    points = np.array([corner, corner + across, corner + across + down, corner + down])
    in_front = points[:, 2] >= NEAR_M
    if not in_front.any():
        return 0, 0, 0, 0
    if not in_front.all():
        points = np.array(list(_clipped(points)))
    pixels = points[:, :2] / points[:, 2:] * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]
    size = np.array([camera.width, camera.height])
    low = np.clip(np.floor(pixels.min(axis=0)), 0, size).astype(int) * SAMPLES
    high = np.clip(np.ceil(pixels.max(axis=0)), 0, size).astype(int) * SAMPLES
    return low[0], high[0], low[1], high[1]


def _clipped(points: Array) -> Iterator[Array]:
    """The polygon's part before the near plane (Sutherland and Hodgman)."""
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        if start[2] >= NEAR_M:
            yield start
        if (start[2] >= NEAR_M) != (end[2] >= NEAR_M):
            yield start + (NEAR_M - start[2]) / (end[2] - start[2]) * (end - start)


def _rasterized(scene: _Scene, camera: Camera) -> _Hits:
    shape = (camera.height * SAMPLES, camera.width * SAMPLES)
    y, x = ((np.arange(length, dtype=np.float32) + 0.5) / SAMPLES for length in shape)
    owner = np.full(shape, -1, np.intp)
    u, v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    nearness = np.full(shape, 1e-6, np.float32)
    for index, (left, right, top, bottom) in enumerate(scene.boxes):
        part = (slice(top, bottom), slice(left, right))
        a = scene.maps[index].astype(np.float32)
        U, V, W = (row[0] * x[left:right] + (row[1] * y[top:bottom, None] + row[2]) for row in a)
        hit = (nearness[part] < W) & (U >= 0.0) & (V >= 0.0) & (U <= W) & (V <= W)
        for buffer, value in ((owner, index), (u, U), (v, V), (nearness, W)):
            np.copyto(buffer[part], value, where=hit)
    return _Hits(owner, u / nearness, v / nearness, nearness)


def _sampled(scene: _Scene, atlas: Atlas, hits: _Hits) -> Image:
    """The textures' colours at the samples."""
    surfaces = scene.surfaces
    places = atlas.places[surfaces.textures]  # (N, LEVELS, 4)
    windows = surfaces.windows[:, None]
    size = places[..., 2:] * windows[..., 2:]
    start = places[..., :2] + places[..., 2:] * windows[..., :2] - 0.5
    table = np.concatenate([size, start], axis=2).astype(np.float32).reshape(-1, 4)
    table = np.vstack([table, np.zeros((1, 4), np.float32)])  # the last row, -1, is for nothing
    levels = np.append(scene.levels, 0.0).astype(np.float32)[hits.owner]
    levels -= (1.5 + 0.5 * SLANT_BLUR) * np.log2(hits.nearness)
    level = np.clip(np.rint(levels), 0, LEVELS - 1).astype(np.intp)
    row = np.where(hits.owner < 0, -1, hits.owner * LEVELS + level)
    x = hits.u * table[:, 0][row] + table[:, 2][row]
    y = hits.v * table[:, 1][row] + table[:, 3][row]
    return np.asarray(cv2.remap(atlas.image, x, y, cv2.INTER_LINEAR), np.uint8)


def _lit(corners: Array, hits: _Hits) -> NDArray[np.float32]:
    """Brightness of the samples, bilinear between the rectangles' corners, (N, 4)."""
    a, b, c, d = corners.astype(np.float32).T
    columns = [np.append(column, np.float32(0.0)) for column in (a, b - a, c - a, a - b - c + d)]
    constant, by_u, by_v, by_both = (column[hits.owner] for column in columns)
    return np.asarray(constant + by_u * hits.u + (by_v + by_both * hits.u) * hits.v)


def _depth_m(scene: _Scene, hits: _Hits) -> NDArray[np.float32]:
    """Depth at the centres of pixels."""
    owners = np.stack([hits.owner[r::SAMPLES, c::SAMPLES] for r in range(SAMPLES) for c in range(SAMPLES)])
    y, x = (np.arange(length, dtype=np.float64) + 0.5 for length in owners.shape[1:])
    a, b, c = (np.append(column, np.nan)[owners[0]] for column in scene.maps[:, 2].T)
    nearness = a * x + b * y[:, None] + c
    rows, columns = np.nonzero((owners != owners[0]).any(axis=0))
    nearness[rows, columns] = _nearest(scene, owners[:, rows, columns], x[columns], y[rows])
    return np.asarray(1.0 / nearness, np.float32)


def _nearest(scene: _Scene, owners: NDArray[np.intp], x: Array, y: Array) -> Array:
    """1 / depth of the nearest of some rectangles (-1 for none), (K, N), that hold the point.

    Where none does, as at a seam, of the one that misses it by least.
    """
    maps = np.concatenate([scene.maps, np.full((1, 3, 3), np.nan)])[owners]
    U, V, W = np.einsum("knij,jn->ikn", maps, np.stack([x, y, np.ones_like(x)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        miss = np.maximum(np.abs(U / W - 0.5), np.abs(V / W - 0.5)) - 0.5
    rank = np.where((miss <= 0.0) & (W > 0.0), W, -miss)
    best = np.where(np.isnan(W) | (W <= 0.0), -np.inf, rank).argmax(axis=0)
    return np.asarray(np.take_along_axis(W, best[None], axis=0)[0])


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
