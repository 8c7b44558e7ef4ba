# SPDX-License-Identifier: Apache-2.0
"""What a view shows of a room: which points, where a detector puts them, and their descriptors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from point_scenes.rooms import Cloud, Place

from pose_bridge.features import Features
from pose_bridge.geometry import rigid
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera

FACING_COS = np.cos(np.radians(75.0))  # surfaces seen at a flatter angle show no keypoint

# Descriptors live near a surface of few dimensions, as those of photographs do: in d dimensions the chance
# that a random best match passes the ratio test is ratio^d, 2 % in eighteen. With 128 independent numbers
# there would be none, and matching would never go wrong by chance.
LATENT_SIZE = 18
DESCRIPTOR_SIZE = 128
CHANGING = 0.7  # share of a descriptor that depends on where it is seen from


class Look:
    """How textures look from a direction, and what a detector makes of it.

    The latent vector of a texture is its own plus a random wave over the viewing direction (in the frame of
    the surface) and the logarithm of the distance: a Gaussian process of correlation exp(-d^2 / 2 reach^2).
    A random layer makes it a descriptor. `PointSceneConfig` says what the arguments are.

    Source: Rahimi and Recht, Random Features for Large-Scale Kernel Machines, 2007, for the waves.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        textures: int,
        *,
        reach_deg: tuple[float, float],
        dropout: tuple[float, float],
        noise_px: tuple[float, float],
        stray: tuple[float, float],
        clutter: tuple[int, int],
        max_points: int,
    ) -> None:
        self._rng = rng
        self._clutter = clutter
        self._max_points = max_points
        self.reach_deg = float(rng.uniform(*reach_deg))
        self._own = np.sqrt(1.0 - CHANGING) * rng.standard_normal((textures, LATENT_SIZE))
        self._phases = rng.uniform(0.0, 2.0 * np.pi, (textures, LATENT_SIZE))
        self._waves = rng.standard_normal((4, LATENT_SIZE)) / np.radians(self.reach_deg)
        self._layer = rng.standard_normal((LATENT_SIZE, DESCRIPTOR_SIZE))
        self._strength = rng.standard_normal(textures)
        self._dropout = rng.uniform(*dropout)
        self._noise_px = rng.uniform(*noise_px)
        self._stray = rng.uniform(*stray)
        self._noise = rng.uniform(0.05, 0.2)

    def see(self, camera: Camera, T_world_camera: Array, place: Place) -> tuple[Features, NDArray[np.intp]]:
        """Return the features of a view, and the point that each is, -1 for clutter."""
        rng, cloud = self._rng, place.cloud
        index = self._visible(camera, T_world_camera, place)
        index = index[rng.random(len(index)) > self._dropout]
        strength = self._strength[cloud.textures[index]] + rng.normal(0.0, 0.3, len(index))
        index = index[np.argsort(-strength, kind="stable")[: self._max_points]]
        noise_px = self._noise_px * np.where(rng.random(len(index)) < self._stray, 10.0, 1.0)
        points_px = camera.project(rigid.transform(rigid.inverse(T_world_camera), cloud.points[index]))
        points_px += noise_px[:, None] * rng.standard_normal((len(index), 2))
        inside = ((points_px > 0.0) & (points_px < (camera.width, camera.height))).all(axis=1)
        index, points_px = index[inside], points_px[inside]

        clutter = int(rng.integers(*self._clutter, endpoint=True))
        points_px = np.vstack(
            [points_px, rng.uniform(0.0, 1.0, (clutter, 2)) * (camera.width, camera.height)]
        )
        latent = np.vstack(
            [self._latent(cloud, index, T_world_camera[:3, 3]), rng.standard_normal((clutter, LATENT_SIZE))]
        )
        found = Features(
            points_px=points_px,
            points=camera.normalize(points_px),
            descriptors=self._descriptors(latent),
            owner=np.arange(len(points_px), dtype=np.intp),
            plain_points=len(points_px),
            plain_descriptors=len(points_px),
        )
        return found, np.concatenate([index + place.first_id, np.full(clutter, -1, np.intp)])

    def _visible(self, camera: Camera, T_world_camera: Array, place: Place) -> NDArray[np.intp]:
        cloud, eye = place.cloud, T_world_camera[:3, 3]
        with np.errstate(invalid="ignore"):
            points_px = camera.project(rigid.transform(rigid.inverse(T_world_camera), cloud.points))
            shown = ((points_px > 0.0) & (points_px < (camera.width, camera.height))).all(axis=1)
        way = eye - cloud.points
        shown &= (way * cloud.frames[:, :, 2]).sum(axis=1) > FACING_COS * np.linalg.norm(way, axis=1)
        index = np.nonzero(shown)[0]
        return index[~place.boxes.hide(eye, cloud.points[index])]

    def _latent(self, cloud: Cloud, index: NDArray[np.intp], eye: Array) -> Array:
        way = eye - cloud.points[index]
        distance = np.linalg.norm(way, axis=1, keepdims=True)
        direction = np.einsum("nji,nj->ni", cloud.frames[index], way / distance)
        textures = cloud.textures[index]
        seen_from = np.hstack([direction, 0.5 * np.log(distance)])
        return np.asarray(
            self._own[textures]
            + np.sqrt(2.0 * CHANGING) * np.cos(seen_from @ self._waves + self._phases[textures])
        )

    def _descriptors(self, latent: Array) -> NDArray[np.float32]:
        latent = latent + self._noise * self._rng.standard_normal(latent.shape)
        raw = np.maximum(latent @ self._layer - 0.5, 0.0) + 1e-3
        return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)
