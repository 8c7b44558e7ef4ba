# SPDX-License-Identifier: Apache-2.0
"""Which keyframes join one as its context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import KeyframesConfig
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.keyframe import Keyframe

NEW_STEPS = 2.0  # a neighbour this far from the others is as good as one farther away
AHEAD = 0.25  # a step ahead or back is worth so much of one to the side: it hardly widens the baseline
MATCHABLE_DEG = 60.0  # between two views of a point, beyond which it is not recognized


def neighbours(
    keyframe: Keyframe, others: Sequence[Keyframe], count: int, settings: KeyframesConfig
) -> list[Keyframe]:
    """Return those that likely see what a keyframe sees, but from elsewhere, best first.

    Their poses are known by odometry within its epoch, else through the map. Where none is known, they are
    the nearest in time within its epoch.

    Args:
        keyframe: It is not its own neighbour.
        others: To choose from.
        count: Most to return; fewer where fewer see the same.
        settings: What a step is.
    """
    others = [other for other in others if other.id != keyframe.id]
    T_camera_other = sight.relative_poses(keyframe, others)
    known = np.isfinite(T_camera_other[:, 0, 0])
    if not known.any():
        mates = [other for other in others if other.epoch == keyframe.epoch]
        return sorted(mates, key=lambda other: abs(other.stamp_ns - keyframe.stamp_ns))[: max(count, 0)]
    posed = [other for other, is_known in zip(others, known, strict=True) if is_known]
    tie = sight.seen_alike(keyframe, posed, T_camera_other[known], MATCHABLE_DEG)
    return [posed[index] for index in _spread(T_camera_other[known], tie, count, settings)]


def _spread(
    T_camera_other: NDArray[np.float64], tie: NDArray[np.float64], count: int, settings: KeyframesConfig
) -> list[int]:
    """Choose greedily what is tied to the camera and is not where it or another chosen one is."""
    T = T_camera_other.copy()
    T[:, 2, 3] *= AHEAD
    apart = sight.steps(T, np.eye(4)[None], settings)[:, 0]
    tie = tie.copy()
    chosen: list[int] = []
    while len(chosen) < count:
        worth = tie * np.minimum(1.0, apart / NEW_STEPS)
        best = int(worth.argmax())
        if worth[best] <= 0.0:
            break
        chosen.append(best)
        tie[best] = 0.0
        apart = np.minimum(apart, sight.steps(T, T[best][None], settings)[:, 0])
    return chosen
