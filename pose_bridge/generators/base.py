# SPDX-License-Identifier: Apache-2.0
"""What every generator takes and gives, and what a video must be like to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pose_bridge.control import Control
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Origin, View

BLACK, WHITE = 4.0, 251.0  # mean brightness of a picture that shows nothing
STILL = 0.5  # mean difference of pictures that are one and the same
CUT, CALM = 0.5, 0.1  # a step this large by what the ends differ, among steps this small by it, is a jump

# What any two views may be told: both kinds of way that a camera can take between them.
PROMPTS = (
    "A camera moves slowly and smoothly through a real place. Nothing in the scene moves or changes. "
    "Steady light, sharp picture, no people.",
    "A camera turns slowly on the spot in a real place, then moves on. Everything in the scene stands still. "
    "Steady light, sharp picture, no people.",
)

Frames = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """How one video is made.

    Attributes:
        prompt: Index of the prompt.
        reversed: From the target to the reference; it is turned round afterwards.
        seed: Of the noise.
    """

    prompt: int
    reversed: bool
    seed: int


@dataclass(frozen=True, eq=False)
class Video:
    """A way from the reference to the target that nobody saw.

    Attributes:
        views: From the first generated one to the last, in between the two ends.
        fault: Why it is not to be looked at; empty if nothing is wrong with it.
    """

    views: tuple[View, ...]
    fault: str = ""


class Generator(Protocol):
    """Makes videos."""

    name: str

    @property
    def prompts(self) -> tuple[str, ...]:
        """What it can be told."""
        ...

    def video(self, reference: View, target: View, take: Take, control: Control) -> Video:
        """Make one video.

        Raises:
            OutOfMemoryError: It does not fit.
            CancelledError, BudgetSpentError: From `control`, between two steps.
        """
        ...


def takes(prompts: int, count: int, seed: int) -> list[Take]:
    """Plan videos: every prompt in both orders, as video models have habits, then the same with other noise.

    Source: Cai et al., Can Generative Video Models Help Pose Estimation?, CVPR 2025, section 3.1.
    """
    return [
        Take(prompt=index // 2 % prompts, reversed=index % 2 == 1, seed=seed + index // (2 * prompts))
        for index in range(count)
    ]


def fault(frames: Frames, ends: Sequence[NDArray[np.uint8]], max_end_difference: float) -> str:
    """Say what is wrong with the frames of a video; nothing if nothing is.

    Args:
        frames: (N, H, W, 3), 0 to 255.
        ends: What the first and the last one should show, uint8 (H, W, 3).
        max_end_difference: Of their frames to them, by the spread of brightness.
    """
    if not np.isfinite(frames).all():
        return "the model put out what is no number"
    brightness = frames.mean(axis=(1, 2, 3))
    if (brightness < BLACK).any() or (brightness > WHITE).any():
        return f"{int(((brightness < BLACK) | (brightness > WHITE)).sum())} frames are blank"
    differences = np.abs(frames - frames[:1]).mean(axis=(1, 2, 3))
    apart = float(np.abs(ends[0].astype(np.float32) - ends[1]).mean())
    if differences.max() < STILL <= apart:
        return "all frames are the same"
    for end, name in ((0, "reference"), (-1, "target")):
        spread = max(float(ends[end].std()), 1.0)
        if np.abs(frames[end] - ends[end]).mean() > max_end_difference * spread:
            return f"the frame at the {name}'s end does not show the {name}"
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    if steps.max() >= CUT * max(apart, STILL) and np.median(steps) < CALM * steps.max():
        return "it jumps from one picture to another"
    return ""


def views(frames: Frames, camera: Camera, model: str, prompt: str, take: Take) -> tuple[View, ...]:
    """Return the frames between the ends as views that say where they come from."""
    pictures = np.clip(np.round(frames), 0, 255).astype(np.uint8)
    return tuple(
        View(
            id=f"{model}/{take.prompt}{'r' if take.reversed else ''}/{take.seed}/{number}",
            image=pictures[number],
            camera=camera,
            generated=Origin(
                model=model, prompt=prompt, seed=take.seed, reversed=take.reversed, frame=number
            ),
        )
        for number in range(1, len(pictures) - 1)
    )
