# SPDX-License-Identifier: Apache-2.0
"""Which pictures are worth keeping: the robot moved, and the picture is sharp and well exposed."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import KeyframesConfig
from pose_bridge.geometry import distances, rigid

FINE_PX = 320  # longer side of the picture in which fine detail is measured
COARSE_PX = 20  # and of that whose detail survives a blur
THUMBNAIL_PX = 24
RECENT = 15  # pictures whose median sharpness is the measure
DARK, BRIGHT = 3, 252  # beyond these, a pixel holds nothing
NOISE_LEVELS = 4.0  # grey levels by which two pictures of the same plain wall differ
LOOKS_DIFFERENT = 0.1  # share of a thumbnail's variance; with no odometry, less is the same view


class KeyframePolicy:
    """Judges one camera's pictures in the order of capture.

    Without odometry, the robot has moved once the picture looks different from the last one kept.
    """

    def __init__(self, settings: KeyframesConfig) -> None:
        self._settings = settings
        self._recent: deque[float] = deque(maxlen=RECENT)
        self.reset()

    def reset(self) -> None:
        """Forget the last picture kept: odometry broke, so the next good one is kept."""
        self._T_odom_base: NDArray[np.float64] | None = None
        self._thumbnail: NDArray[np.float64] | None = None

    def judge(
        self,
        image: NDArray[np.uint8],
        T_odom_base: NDArray[np.float64] | None,
        mask: NDArray[np.bool_] | None = None,
    ) -> str:
        """Return why a picture is not kept; nothing if it is, and then it becomes the last one kept.

        Args:
            image: uint8 RGB, (H, W, 3).
            T_odom_base: At capture, (4, 4); None without odometry.
            mask: bool (H, W), True where the picture may be used.
        """
        last = self._T_odom_base
        by_odometry = last is not None and T_odom_base is not None
        if (
            last is not None
            and T_odom_base is not None
            and not self._moved(rigid.relative(last, T_odom_base))
        ):
            return "has not moved"
        gray = _reduced(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), FINE_PX)
        thumbnail = _thumbnail(gray)
        if not by_odometry and self._thumbnail is not None and not _differ(thumbnail, self._thumbnail):
            return "has not moved"
        usable = None if mask is None else _reduced(mask.astype(np.uint8), FINE_PX) > 0
        if _clipped(gray, usable) > self._settings.max_clipped:
            return "badly exposed"
        if self._blurred(gray, usable):
            return "blurred"
        self._T_odom_base, self._thumbnail = T_odom_base, thumbnail
        return ""

    def _moved(self, T_last_now: NDArray[np.float64]) -> bool:
        far = float(np.linalg.norm(T_last_now[:3, 3])) >= self._settings.min_distance_m
        turned_deg = distances.rotation_error_deg(np.eye(3), T_last_now[:3, :3])
        return far or turned_deg >= self._settings.min_turn_deg

    def _blurred(self, gray: NDArray[Any], usable: NDArray[np.bool_] | None) -> bool:
        """Whether there is much less fine detail than in recent pictures, this one included."""
        sharpness = _sharpness(gray, usable)
        self._recent.append(sharpness)
        return sharpness < self._settings.min_sharpness * statistics.median(self._recent)


def _reduced(gray: NDArray[Any], side_px: int) -> NDArray[Any]:
    scale = min(1.0, side_px / max(gray.shape))
    size = tuple(max(1, round(length * scale)) for length in gray.shape[::-1])
    return cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


def _sharpness(gray: NDArray[Any], usable: NDArray[np.bool_] | None) -> float:
    """Return fine detail over coarse detail, in the direction that has less of it.

    The variance of the Laplacian alone would call a plain wall blurred, and a picture sharp that is smeared
    along one direction, as pictures of a turning robot are.
    """
    coarse = _reduced(gray, COARSE_PX)
    usable_coarse = None if usable is None else _reduced(usable.astype(np.uint8), COARSE_PX) > 0
    fine_detail, coarse_detail = _detail(gray, usable), _detail(coarse, usable_coarse)
    return float(((fine_detail + 1.0) / (coarse_detail + 1.0)).min())


def _detail(gray: NDArray[Any], usable: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Mean square of the second derivative along x and along y, (2,)."""
    along = [cv2.Sobel(gray, cv2.CV_32F, dx, 2 - dx, ksize=1) for dx in (2, 0)]
    chosen = [d if usable is None or not usable.any() else d[usable] for d in along]
    return np.array([np.square(d, dtype=np.float64).mean() for d in chosen])


def _clipped(gray: NDArray[Any], usable: NDArray[np.bool_] | None) -> float:
    """Share of usable pixels that are black or white; all, where none is usable."""
    inside = gray if usable is None else gray[usable]
    return float(((inside < DARK) | (inside > BRIGHT)).mean()) if inside.size else 1.0


def _thumbnail(gray: NDArray[Any]) -> NDArray[np.float64]:
    small = cv2.resize(gray, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float64)
    return np.asarray(small - small.mean())


def _differ(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two thumbnails differ by more than exposure and noise."""
    floor = NOISE_LEVELS**2
    gain = ((a * b).mean() + floor) / ((b * b).mean() + floor)
    rest = np.square(a - np.clip(gain, 0.5, 2.0) * b).mean()
    return bool(rest > LOOKS_DIFFERENT * ((a * a).mean() + floor))
