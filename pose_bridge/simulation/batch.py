# SPDX-License-Identifier: Apache-2.0
"""Pictures of rooms in batches on torch, a GPU's or a processor's: what `render.render` makes, many at once.

See batch_optics.py for what a real camera makes of them.

Every rectangle is tried at every sample, so a GPU is fast and a processor is not: for a picture at a time,
render.py is the faster one there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pose_bridge.errors import BadInputError
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.render import (
    MIN_VOLUME_M3,
    NEAR_M,
    SAMPLES,
    SHEEN_WIDTH,
    SLANT_BLUR,
)
from pose_bridge.simulation.surfaces import ATLAS_WIDTH, LEVELS

TRIED_AT_ONCE = 2**24  # rectangles times samples
SEAM = 1e-5  # beyond its edge, by its size, a rectangle still gives the depth: there is no gap at a seam


@dataclass(frozen=True, eq=False)
class Pictures:
    """What perfect cameras see.

    Attributes:
        images: uint8 RGB, (B, 3, H, W).
        depth_m: Along the optical axis at the pixels' centres, float32 (B, H, W); NaN where nothing is.
    """

    images: Tensor
    depth_m: Tensor


class BatchRenderer:
    """Some rooms on a device, and pictures of them.

    Args:
        rooms: All that pictures will be of.
        device: Where they are kept and seen.

    Raises:
        BadInputError: There are no rooms.
    """

    def __init__(self, rooms: Sequence[Room], device: torch.device | str = "cpu") -> None:
        if not rooms:
            raise BadInputError("a batch renderer needs a room at least")
        self._device = torch.device(device)
        most = max(len(room.surfaces.corners) for room in rooms)

        def padded(name: str, width: int) -> Tensor:
            """Rows of all rooms, (R, most, width); what is added has no size and is seen by nobody."""
            table = np.zeros((len(rooms), most, width), np.float32)
            for row, room in zip(table, rooms, strict=True):
                values = np.asarray(getattr(room.surfaces, name), np.float32).reshape(-1, width)
                row[: len(values)] = values
            return torch.from_numpy(table).to(self._device)

        self._corners, self._across, self._down = (padded(name, 3) for name in ("corners", "across", "down"))
        self._sheens = padded("sheens", 1)[..., 0]
        normals = torch.linalg.cross(self._down, self._across)
        self._areas = torch.linalg.norm(normals, dim=-1)
        self._normals = normals / self._areas.clamp_min(1e-12)[..., None]
        self._places = self._windows(rooms, most)
        heights = [room.atlas.image.shape[0] for room in rooms]
        starts = np.cumsum([0, *heights])[:-1] * ATLAS_WIDTH
        self._starts = torch.from_numpy(starts).to(self._device)
        texels = np.concatenate([room.atlas.image.reshape(-1, 3) for room in rooms])
        self._texels = torch.from_numpy(texels).to(self._device)
        self._lamps, self._ambient = self._lit_by(rooms)

    def render(self, rooms: Tensor | Sequence[int], T_world_camera: Array, camera: Camera) -> Pictures:
        """Return what cameras without distortion see.

        Args:
            rooms: Index of each picture's room, (B,).
            T_world_camera: (B, 4, 4).
            camera: Of all of them; any distortion is ignored.
        """
        room = torch.as_tensor(rooms, device=self._device)
        T = torch.as_tensor(T_world_camera, dtype=torch.float64, device=self._device)
        scene = self._scene(room, T, camera)
        fine = (camera.height * SAMPLES, camera.width * SAMPLES)
        owner, u, v, nearness = _nearest(scene.maps, _grid(fine, SAMPLES, self._device), 0.0)
        colour = self._sampled(room, scene, owner, u, v, nearness)
        bright = _bilinear(self._bright(room, T[:, :3, 3].float()), owner, u, v)
        shape = (len(room), -1, *fine)
        image = avg_pool2d(colour.permute(0, 2, 1).reshape(shape), SAMPLES)
        image = image * avg_pool2d(bright.reshape(shape), SAMPLES)
        size = (camera.height, camera.width)
        seen, _, _, nearness = _nearest(scene.maps, _grid(size, 1, self._device), SEAM)
        depth_m = torch.where(seen < 0, torch.nan, 1.0 / nearness).reshape(len(room), *size)
        return Pictures((image + 0.5).clamp(0.0, 255.0).to(torch.uint8), depth_m)

    def _windows(self, rooms: Sequence[Room], most: int) -> Tensor:
        """Width, height, left and top of what each rectangle shows, at each scale, (R, most, LEVELS, 4)."""
        table = np.zeros((len(rooms), most, LEVELS, 4), np.float32)
        for rows, room in zip(table, rooms, strict=True):
            places = room.atlas.places[room.surfaces.textures]
            windows = room.surfaces.windows[:, None]
            size = places[..., 2:] * windows[..., 2:]
            start = places[..., :2] + places[..., 2:] * windows[..., :2] - 0.5
            rows[: len(places)] = np.concatenate([size, start], axis=2)
        return torch.from_numpy(table).to(self._device)

    def _lit_by(self, rooms: Sequence[Room]) -> tuple[Tensor, Tensor]:
        """Places and strengths of lamps, (R, L, 4), and what is everywhere, (R,)."""
        most = max(len(room.lights.places) for room in rooms)
        lamps = np.zeros((len(rooms), most, 4), np.float32)
        for rows, room in zip(lamps, rooms, strict=True):
            rows[: len(room.lights.places)] = np.c_[room.lights.places, room.lights.strengths]
        ambient = np.array([room.lights.ambient for room in rooms], np.float32)
        return torch.from_numpy(lamps).to(self._device), torch.from_numpy(ambient).to(self._device)

    def _scene(self, room: Tensor, T_world_camera: Tensor, camera: Camera) -> _Scene:
        edges = (self._across[room], self._down[room], self._corners[room] - T_world_camera[:, None, :3, 3])
        frames = torch.stack([edge.double() for edge in edges], dim=-1)  # (B, N, 3, 3)
        frames = T_world_camera[:, None, :3, :3].transpose(-1, -2) @ frames
        volumes = torch.linalg.det(frames)
        facing = volumes > MIN_VOLUME_M3
        frames[~facing] = torch.eye(3, dtype=torch.float64, device=self._device)
        K = torch.tensor(camera.K, device=self._device)
        maps = torch.linalg.inv(frames) @ torch.linalg.inv(K)
        maps[~facing] = 0.0
        volumes = volumes.float().clamp_min(MIN_VOLUME_M3)
        texels = self._places[room][:, :, 0, :2].prod(dim=-1).clamp_min(1e-12)
        per_sample = texels / (volumes * float(camera.K[0, 0] * camera.K[1, 1]) * SAMPLES**2)
        slant = volumes / self._areas[room].clamp_min(1e-12)
        levels = 0.5 * torch.log2(per_sample) - 0.5 * SLANT_BLUR * torch.log2(slant)
        return _Scene(maps.float(), levels)

    def _sampled(
        self, room: Tensor, scene: _Scene, owner: Tensor, u: Tensor, v: Tensor, nearness: Tensor
    ) -> Tensor:
        """The textures' colours at the samples, (B, S, 3)."""
        shown = owner.clamp_min(0)
        levels = scene.levels.gather(1, shown) - (1.5 + 0.5 * SLANT_BLUR) * torch.log2(nearness)
        level = levels.round().clamp(0, LEVELS - 1).long()
        row = (room[:, None] * self._places.shape[1] + shown) * LEVELS + level
        width, height, left, top = self._places.reshape(-1, 4)[row].unbind(-1)
        x, y = u * width + left, v * height + top
        x0, y0 = x.floor(), y.floor()
        at = self._starts[room][:, None] + y0.long() * ATLAS_WIDTH + x0.long()
        across, down = (x - x0)[..., None], (y - y0)[..., None]
        last = len(self._texels) - 1
        a, b, c, d = (
            self._texels[(at + step).clamp(0, last)].float() for step in (0, 1, ATLAS_WIDTH, ATLAS_WIDTH + 1)
        )
        colour = torch.lerp(torch.lerp(a, b, across), torch.lerp(c, d, across), down)
        return torch.where(owner[..., None] < 0, 0.0, colour)

    def _bright(self, room: Tensor, eye: Tensor) -> Tensor:
        """Brightness of each rectangle at its four corners, row by row, (B, N, 4); see `Lights.on`."""
        corners, across, down = (edge[room] for edge in (self._corners, self._across, self._down))
        points = torch.stack([corners, corners + across, corners + down, corners + across + down], dim=2)
        normals = self._normals[room][:, :, None]
        to_eye = _unit(eye[:, None, None] - points)
        mirrored = 2.0 * (to_eye * normals).sum(-1, keepdim=True) * normals - to_eye
        total = self._ambient[room][:, None, None].expand(points.shape[:3])
        for lamp in self._lamps[room].unbind(1):
            way = lamp[:, None, None, :3] - points
            falling = (_unit(way) * normals).sum(-1).clamp_min(0.0)
            near = lamp[:, None, None, 3] / (1.0 + 0.15 * way.square().sum(-1))
            lobe = (mirrored * _unit(way)).sum(-1).clamp_min(0.0) ** SHEEN_WIDTH
            total = total + near * (falling + self._sheens[room][:, :, None] * lobe)
        return total


@dataclass(frozen=True, eq=False)
class _Scene:
    """Rectangles as cameras see them; see `render._Scene`: maps (B, N, 3, 3), levels (B, N)."""

    maps: Tensor
    levels: Tensor


def _grid(shape: tuple[int, int], samples: int, device: torch.device) -> Tensor:
    """Samples' x and y in pixels, (2, S)."""
    y, x = ((torch.arange(length, device=device) + 0.5) / samples for length in shape)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)])


def _nearest(maps: Tensor, points: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which rectangle is nearest at each point (-1: none), where on it, and 1 / depth, (B, S) each.

    Args:
        maps: (B, N, 3, 3).
        points: x and y in pixels, (2, S).
        margin: By how much of its size a rectangle is larger.
    """
    batch, count, samples = len(maps), maps.shape[1], points.shape[1]
    shape = (batch, samples)
    owner = torch.full(shape, -1, dtype=torch.long, device=maps.device)
    u, v = torch.zeros(shape, device=maps.device), torch.zeros(shape, device=maps.device)
    nearness = torch.full(shape, 1e-6, device=maps.device)
    some = max(1, TRIED_AT_ONCE // (batch * samples))
    for start in range(0, count, some):
        part = maps[:, start : start + some]
        # (B, some, S) each; no matrix product, which a GPU may round to TF32
        at = torch.addcmul(part[..., 2:], part[..., :1], points[0]).addcmul_(part[..., 1:2], points[1])
        U, V, W = at.unbind(2)
        beyond = margin * W
        inside = (-beyond <= U) & (-beyond <= V) & (W + beyond >= U) & (W + beyond >= V) & (W < 1.0 / NEAR_M)
        W, index = torch.where(inside, W, 0.0).max(dim=1)
        nearer = nearness < W
        best = index[:, None]
        owner = torch.where(nearer, index + start, owner)
        u = torch.where(nearer, U.gather(1, best)[:, 0] / W, u)
        v = torch.where(nearer, V.gather(1, best)[:, 0] / W, v)
        nearness = torch.where(nearer, W, nearness)
    return owner, u.clamp(0.0, 1.0), v.clamp(0.0, 1.0), nearness


def _bilinear(corners: Tensor, owner: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Between the rectangles' corners, (B, N, 4), at the samples, (B, S); 0 where nothing is."""
    at = owner.clamp_min(0)[..., None].expand(*owner.shape, 4)
    a, b, c, d = corners.gather(1, at).unbind(-1)
    value = torch.lerp(torch.lerp(a, b, u), torch.lerp(c, d, u), v)
    return torch.where(owner < 0, 0.0, value)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)
