# SPDX-License-Identifier: Apache-2.0
"""What a real camera makes of perfect pictures, in batches on torch: what `optics.photograph` makes of one.

Distortion is left out, as it is by `batch.BatchRenderer`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.optics import Optics, exposures, falloff

BLUR_SIGMAS = 4.0  # how far a lens's blur reaches


def photographs(
    images: Tensor, camera: Camera, optics: Optics, turn_rad: Array, generator: torch.Generator
) -> Tensor:
    """Return what the camera makes of perfect pictures, uint8 (B, 3, H, W).

    Args:
        images: uint8 RGB, (B, 3, H, W).
        camera: That took them; any distortion is ignored.
        optics: How good it is.
        turn_rad: Rotation of the camera per second while the shutter is open, in its own axes, (B, 3).
        generator: Of the noise; on the pictures' device.

    Raises:
        BadInputError: Pictures, turns and the camera do not fit each other.
    """
    wanted = (len(turn_rad), 3, camera.height, camera.width)
    if images.shape != wanted or np.shape(turn_rad) != (len(images), 3):
        raise BadInputError(
            f"{tuple(images.shape)} pictures and {np.shape(turn_rad)} turns of a camera of "
            f"{camera.width}x{camera.height}; give (B, 3, H, W) and (B, 3)"
        )

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=images.device)

    count = len(images)
    light = _moved(images.float(), camera, optics.exposure_s * np.asarray(turn_rad, np.float64))
    if optics.blur_px > 0.0:
        light = _blurred(light, optics.blur_px)
    gain = (optics.brightness / light.mean(dim=(1, 2, 3)).clamp_min(1.0)) ** optics.adaptation
    gain = gain * 2.0 ** (optics.exposure_sigma * normal(count))
    gains = gain[:, None] * (1.0 + optics.cast_sigma * normal(count, 3))
    shade = torch.from_numpy(falloff(camera)).to(images.device) * optics.vignetting + 1.0
    light = light * shade * gains[:, :, None, None]
    spread = (optics.read_noise**2 + optics.shot_noise**2 * light.clamp_min(0.0)).sqrt()
    light = light + spread * normal(*light.shape)
    return (light + 0.5).clamp(0.0, 255.0).to(torch.uint8)


def _moved(light: Tensor, camera: Camera, turn_rad: Array) -> Tensor:
    """The mean of what is seen during a turn (B, 3); the translation's blur is left out."""
    counts = np.array([exposures(camera, turn) for turn in turn_rad])
    if counts.max() < 2:
        return light
    K = camera.to_opencv_K()
    y, x = (torch.arange(length, dtype=torch.float32) for length in light.shape[-2:])
    y, x = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1).double()
    total, size = torch.zeros_like(light), torch.tensor([camera.width, camera.height])
    for number in range(counts.max()):
        fractions = np.where(counts > 1, number / np.maximum(counts - 1, 1) - 0.5, 0.0)
        sees = np.array([
            K @ rotations.so3_exp(-fraction * turn) @ np.linalg.inv(K)
            for fraction, turn in zip(fractions, turn_rad, strict=True)
        ])  # fmt: skip
        at = torch.from_numpy(sees) @ pixels
        at = (at[:, :2] / at[:, 2:]).transpose(1, 2).reshape(len(light), *light.shape[-2:], 2)
        grid = ((at + 0.5) * 2.0 / size - 1.0).float().to(light.device)
        seen = functional.grid_sample(light, grid, padding_mode="border", align_corners=False)
        total += seen * torch.from_numpy((number < counts) / counts).to(light)[:, None, None, None]
    return total


def _blurred(light: Tensor, sigma_px: float) -> Tensor:
    reach = int(np.ceil(BLUR_SIGMAS * sigma_px))
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32, device=light.device)
    kernel = torch.exp(-0.5 * (steps / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).expand(light.shape[1], 1, 1, -1)
    padded = functional.pad(light, (reach,) * 4, mode="reflect")
    across = functional.conv2d(padded, kernel, groups=light.shape[1])
    return functional.conv2d(across, kernel.transpose(2, 3), groups=light.shape[1])
