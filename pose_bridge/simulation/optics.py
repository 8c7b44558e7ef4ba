# SPDX-License-Identifier: Apache-2.0
"""What a real camera makes of a perfect picture: distortion, blur, exposure, colour, noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadCameraError
from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.render import Picture
from pose_bridge.simulation.surfaces import Image

MOST_EXPOSURES = 9  # pictures that are averaged for one with motion blur
SAME_SURFACE = 0.05  # neighbouring depths that differ by more, relative, are an edge: nothing lies between


@dataclass(frozen=True, slots=True, kw_only=True)
class Optics:
    """How good the camera is.

    Attributes:
        blur_px: Standard deviation of the lens's blur.
        exposure_s: Time over which motion blurs.
        brightness: Mean of the picture that automatic exposure aims at, 0 to 255.
        adaptation: How far it gets there, 0 to 1.
        exposure_sigma: Standard deviation of the exposure's logarithm, base 2, from picture to picture.
        cast_sigma: Relative standard deviation of each colour's gain.
        vignetting: How much darker the corners are, 0 to 1.
        read_noise: Standard deviation, of 255.
        shot_noise: The same for a grey value of 1; it grows with the root.
    """

    blur_px: float = 0.3
    exposure_s: float = 0.012
    brightness: float = 115.0
    adaptation: float = 0.7
    exposure_sigma: float = 0.15
    cast_sigma: float = 0.03
    vignetting: float = 0.25
    read_noise: float = 1.0
    shot_noise: float = 0.12


def photograph(image: Image, camera: Camera, optics: Optics, turn_rad: Array, seed: list[int]) -> Image:
    """Return what the camera makes of a perfect picture.

    Args:
        image: uint8 RGB, (H, W, 3).
        camera: That took it.
        optics: How good it is.
        turn_rad: Rotation of the camera per second while the shutter is open, in its own axes, (3,).
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)
    light = _moved(image, camera, optics.exposure_s * turn_rad)
    if optics.blur_px > 0.0:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), optics.blur_px), np.float32)
    gain = (optics.brightness / max(float(light.mean()), 1.0)) ** optics.adaptation
    gain *= 2.0 ** rng.normal(0.0, optics.exposure_sigma)
    gains = (gain * (1.0 + rng.normal(0.0, optics.cast_sigma, 3))).astype(np.float32)
    light = light * (falloff(camera) * np.float32(optics.vignetting) + np.float32(1.0))[:, :, None] * gains
    noise = rng.standard_normal(light.shape, np.float32)
    light += noise * np.sqrt(optics.read_noise**2 + optics.shot_noise**2 * np.maximum(light, 0.0))
    return np.asarray(np.clip(light + 0.5, 0.0, 255.0), np.uint8)


def exposures(camera: Camera, turn_rad: Array) -> int:
    """Return how many pictures are averaged for one that is taken during a turn (3,): one for each pixel."""
    return min(int(np.ceil(camera.mean_focal_px * np.linalg.norm(turn_rad))) + 1, MOST_EXPOSURES)


def _moved(image: Image, camera: Camera, turn_rad: Array) -> NDArray[np.float32]:
    """The mean of what is seen during a turn; the translation's blur is left out."""
    picture = image.astype(np.float32)
    count = exposures(camera, turn_rad)
    if count < 2:
        return picture
    K, size = camera.to_opencv_K(), (camera.width, camera.height)
    total = np.zeros_like(picture)
    for fraction in np.linspace(-0.5, 0.5, count):
        H = K @ rotations.so3_exp(fraction * turn_rad) @ np.linalg.inv(K)
        total += cv2.warpPerspective(picture, H, size, borderMode=cv2.BORDER_REPLICATE)
    return total / np.float32(count)


@lru_cache(maxsize=4)
def falloff(camera: Camera) -> NDArray[np.float32]:
    """Return how much darker it is off the middle, of the corners' vignetting: 0 to -1, (H, W)."""
    y, x = ((np.arange(length) + 0.5) / length * 2.0 - 1.0 for length in (camera.height, camera.width))
    return np.asarray(-0.5 * (x**2 + y[:, None] ** 2), np.float32)


@lru_cache(maxsize=4)
def pinhole(camera: Camera) -> Camera:
    """Return a camera without distortion that sees all that this one does, as finely in the middle.

    Raises:
        BadCameraError: The lens model does not reach the borders of the image.
    """
    x, y = _rays(camera)
    if not np.isfinite(x).all():
        raise BadCameraError(f"{camera.distortion_model} does not reach the image's borders")
    focal_px = camera.K[[0, 1], [0, 1]]
    low = np.floor(focal_px * (x.min(), y.min())) - 1.0
    high = np.ceil(focal_px * (x.max(), y.max())) + 1.0
    K = np.diag([*focal_px, 1.0])
    K[:2, 2] = -low
    width, height = (high - low).astype(int).tolist()
    return Camera(width=width, height=height, K=K, distortion_model="none", distortion=np.zeros(0))


def distorted(picture: Picture, camera: Camera) -> Picture:
    """Return a picture by `pinhole(camera)` as the camera itself sees it."""
    K = pinhole(camera).to_opencv_K()
    x, y = (
        np.asarray(rays * K[axis, axis] + K[axis, 2], np.float32) for axis, rays in enumerate(_rays(camera))
    )
    image = cv2.remap(picture.image, x, y, cv2.INTER_LINEAR)
    # planes are linear in 1 / depth, but between two surfaces there is nothing
    smooth = 1.0 / cv2.remap(1.0 / picture.depth_m, x, y, cv2.INTER_LINEAR)
    nearest = cv2.remap(picture.depth_m, x, y, cv2.INTER_NEAREST)
    depth_m = np.where(np.abs(smooth - nearest) < SAME_SURFACE * nearest, smooth, nearest)
    return Picture(np.asarray(image, np.uint8), np.asarray(depth_m, np.float32))


@lru_cache(maxsize=4)
def _rays(camera: Camera) -> tuple[Array, Array]:
    """Where the pixels' rays meet the plane z = 1: x and y, (H, W)."""
    pixels = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=2) + 0.5
    rays = camera.normalize(pixels.reshape(-1, 2)).reshape(camera.height, camera.width, 2)
    return rays[..., 0], rays[..., 1]
