# SPDX-License-Identifier: Apache-2.0
"""The numbers that papers report of many pose errors.

An error that is NaN is of a pair without an answer, or of a translation without a direction: it is within no
limit and counts in every denominator; means and medians are of the others, whose number stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import distances, rigid
from pose_bridge.geometry.arrays import Array, Mask
from pose_bridge.geometry.cameras import Camera

LIMIT_DEG = 30  # of areas under curves
# Map-free relocalization: virtual points in front of the camera, as something that is drawn into the picture.
GRID_STEP_M, GRID_OFFSET_M = 0.3, 1.8
GRID_POINTS = (7, 4, 7)  # across, down, along
PLACED_M, PLACED_DEG = 0.25, 5.0
DRAWN_PX = 90.0


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """How far answers are from the truth, (N,) each.

    Attributes:
        rotation_deg: 0 to 180.
        translation_deg: Between directions, 0 to 180: a camera on the wrong side is wrong.
        as_in_papers_deg: Between the lines of the inverse poses' translations, 0 to 90: where the reference
            is, seen from the target, and a camera on the wrong side is right.
        translation_m: Between places; NaN also where the answer has no metres.
    """

    rotation_deg: Array
    translation_deg: Array
    as_in_papers_deg: Array
    translation_m: Array

    def __len__(self) -> int:
        return len(self.rotation_deg)


@dataclass(frozen=True, eq=False)
class Estimated:
    """What a method says about one pair.

    Attributes:
        T_reference_target: (4, 4).
        directed: Whether its translation means a direction.
        metric: Whether its length means metres.
    """

    T_reference_target: Array
    directed: bool = True
    metric: bool = False


def pose_errors(estimated: Sequence[Estimated | None], T_reference_target: Sequence[ArrayLike]) -> PoseErrors:
    """Compare what was said about pairs with the truth.

    Args:
        estimated: None where a method had no answer.
        T_reference_target: The truth, (4, 4) each, in metres.

    Raises:
        BadInputError: Not as many answers as pairs, or one is no pose. A truth without translation has no
            direction to be off from.
    """
    if len(estimated) != len(T_reference_target):
        raise BadInputError(f"{len(estimated)} answers to {len(T_reference_target)} pairs")
    rows = np.full((len(estimated), 4), np.nan)
    for row, one, truth in zip(rows, estimated, T_reference_target, strict=True):
        if one is None:
            continue
        T, T_true = rigid.rigid(one.T_reference_target), rigid.rigid(truth)
        row[0] = distances.rotation_error_deg(T[:3, :3], T_true[:3, :3])
        if one.directed and distances.has_direction(T_true[:3, 3]):
            row[1] = distances.translation_error_deg(T[:3, 3], T_true[:3, 3])
            back, true_back = rigid.inverse(T)[:3, 3], rigid.inverse(T_true)[:3, 3]
            row[2] = distances.translation_error_unsigned_deg(back, true_back)
        if one.metric:
            row[3] = np.linalg.norm(T[:3, 3] - T_true[:3, 3])
    return PoseErrors(*rows.T)


def share_within(errors: ArrayLike, limit: float) -> float:
    """Return the share of all errors below a limit (R@x, T@x; RRA@x, RTA@x), NaN if there are none."""
    array = _errors(errors)
    return float(np.mean(array < limit)) if len(array) else np.nan


def auc(errors_deg: ArrayLike, limit_deg: int = LIMIT_DEG) -> float:
    """Return the mean over one-degree bins of the cumulative histogram, 0 to 1; NaN if there are no errors.

    Source: VGGT (CVPR 2025) and its public evaluation.
    """
    array = _errors(errors_deg)
    limits = np.arange(1, limit_deg + 1)
    return float(np.mean(array[:, None] < limits)) if len(array) else np.nan


def auc_joint(rotation_deg: ArrayLike, translation_deg: ArrayLike, limit_deg: int = LIMIT_DEG) -> float:
    """Return the area under the curve of each pair's larger error (VGGT, InterPose)."""
    return auc(np.maximum(_errors(rotation_deg), _errors(translation_deg)), limit_deg)


def auc_smaller(rotation_deg: ArrayLike, translation_deg: ArrayLike, limit_deg: int = LIMIT_DEG) -> float:
    """Return the smaller of the two areas under the curves (PoseCrafter)."""
    return min(auc(rotation_deg, limit_deg), auc(translation_deg, limit_deg))


def mean_average_accuracy(
    rotation_deg: ArrayLike, translation_deg: ArrayLike, limit_deg: int = LIMIT_DEG
) -> float:
    """Return the mean over limits of the smaller of both accuracies, mAA (PoseDiffusion); NaN if of none."""
    limits = np.arange(1, limit_deg + 1)
    both = [_errors(errors)[:, None] < limits for errors in (rotation_deg, translation_deg)]
    return float(np.minimum(*(within.mean(axis=0) for within in both)).mean()) if len(both[0]) else np.nan


def placed(rotation_deg: Array, translation_m: Array) -> Mask:
    """Return which answers place the camera within 0.25 m and 5 degrees (Map-free relocalization), (N,)."""
    return np.asarray((translation_m < PLACED_M) & (rotation_deg < PLACED_DEG))


def virtual_correspondence_error_px(
    T_reference_target: ArrayLike, T_true: ArrayLike, camera: Camera
) -> float:
    """Return how far virtual points, drawn by the answer, are from where they belong in the target's picture.

    Args:
        T_reference_target: The answer, (4, 4), in metres.
        T_true: The truth, (4, 4), in metres.
        camera: The target's; its lens is taken to have no distortion, points outside lie on its border.

    Returns:
        Mean distance; within 90 px something that is drawn into the picture seems to be where it belongs.

    Source: Arnold et al., Map-free Visual Relocalization (ECCV 2022), VCRE.
    """
    across, down, along = (GRID_STEP_M * (np.arange(n) - (n - 1) / 2.0) for n in GRID_POINTS)
    grid = np.stack(np.meshgrid(across, down, along + GRID_OFFSET_M), axis=-1).reshape(-1, 3)
    T_drawn_target = rigid.inverse(rigid.rigid(T_reference_target)) @ rigid.rigid(T_true)
    where, belongs = (_drawn(points, camera) for points in (rigid.transform(T_drawn_target, grid), grid))
    return float(np.mean(np.linalg.norm(where - belongs, axis=1)))


def _drawn(points: Array, camera: Camera) -> Array:
    z = np.maximum(points[:, 2:], 1e-4)
    px = (points @ camera.K.T)[:, :2] / z
    return np.clip(px, 0.0, [camera.width, camera.height])


def _errors(errors: ArrayLike) -> Array:
    """With infinity where there is no answer."""
    array = np.asarray(errors, np.float64)
    if array.ndim != 1 or (array < 0).any():
        raise BadInputError(f"errors must be (N,) and not negative, got shape {array.shape}")
    return np.where(np.isnan(array), np.inf, array)
