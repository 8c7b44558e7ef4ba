# SPDX-License-Identifier: Apache-2.0
"""Which of several videos between two views to believe, by whether subsets of its frames agree on the pose.

A video that shows one and the same scene gives the same pose whichever frames are looked at; one that melts
from one thing into another does not. `choose` is InterPose's rule. `race` comes to the same answer from fewer
subsets: it asks each video a little, drops those that cannot win any more, and stops when more subsets would
not move the answer.

Source: Cai et al., Can Generative Video Models Help Pose Estimation?, CVPR 2025, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rotations

Array = NDArray[np.float64]
Indices = tuple[int, ...]

FIRST = 2  # subsets of each video, before any is dropped
LEAST_SPREAD_DEG = 0.05
SETTLED_SHARE = 0.4  # of how far an answer may move, within which half of a video's poses lie


@dataclass(frozen=True, eq=False)
class Choice:
    """The video that is believed, and its pose; distances are in degrees, of rotation and direction together.

    Attributes:
        video: Which.
        subset: Of it, whose pose is the medoid.
        medoids: T_reference_target of each video's medoid, (V, 4, 4).
        d_med_deg: Of each video: mean distance of its subsets to their medoid, (V,).
        d_bias_deg: Of each video: distance of its medoid to what the two views alone say, (V,).
        asked: How many subsets were evaluated.
    """

    video: int
    subset: int
    medoids: Array
    d_med_deg: Array
    d_bias_deg: Array
    asked: int

    @property
    def T_reference_target(self) -> Array:
        """The pose that is believed, (4, 4)."""
        return np.asarray(self.medoids[self.video])

    @property
    def d_total_deg(self) -> Array:
        """What the videos are ranked by, (V,)."""
        return self.d_med_deg + self.d_bias_deg


def subsets(frames: int, size: int, count: int, seed: int) -> list[Indices]:
    """Draw subsets of a video's frames, all with both ends: one evenly spaced, the others at random.

    Args:
        frames: Of the video, the ends included.
        size: Of a subset.
        count: How many.
        seed: Of the random ones.

    Raises:
        BadInputError: There are not so many frames.
    """
    if not 2 <= size <= frames or count < 1:
        raise BadInputError(f"no {count} subsets of {size} of {frames} frames, both ends among them")
    rng = np.random.default_rng(seed)
    even = np.round(np.linspace(0, frames - 1, size)).astype(int)
    inner = (1 + np.sort(rng.permutation(frames - 2)[: size - 2]) for _ in range(count - 1))
    drawn = [even, *(np.r_[0, some, frames - 1] for some in inner)]
    return [tuple(some.tolist()) for some in drawn]


def distances_deg(T_a: Array, T_b: Array) -> Array:
    """Angle between rotations plus angle between the lines of translations: 0 to 270 degrees.

    A camera that goes the opposite way counts as going the same way, as in the paper.

    Args:
        T_a: (..., 4, 4).
        T_b: (..., 4, 4).
    """
    between = np.swapaxes(T_a[..., :3, :3], -1, -2) @ T_b[..., :3, :3]
    half = np.linalg.norm(between - np.eye(3), axis=(-2, -1)) / np.sqrt(8.0)  # sine of half the angle
    turn = 2.0 * np.arcsin(np.clip(half, 0.0, 1.0))
    a, b = T_a[..., :3, 3], T_b[..., :3, 3]
    along, across = np.abs((a * b).sum(axis=-1)), np.linalg.norm(np.cross(a, b), axis=-1)
    return np.asarray(np.degrees(turn + np.arctan2(across, along)))


def choose(T_by_video: Sequence[Array], T_pair: Array) -> Choice:
    """Believe the video with the smallest D_total = D_med + D_bias, and of it the medoid.

    Args:
        T_by_video: T_reference_target of each video's subsets, (m, 4, 4).
        T_pair: What the two views alone say, (4, 4).
    """
    found = [medoid(poses) for poses in T_by_video]
    medoids = np.array([poses[index] for poses, (index, _) in zip(T_by_video, found, strict=True)])
    d_med_deg, d_bias_deg = np.array([d for _, d in found]), distances_deg(medoids, T_pair)
    video = int((d_med_deg + d_bias_deg).argmin())
    return Choice(video, found[video][0], medoids, d_med_deg, d_bias_deg, sum(map(len, T_by_video)))


def medoid(poses: Array) -> tuple[int, float]:
    """Return which pose of (m, 4, 4) is nearest to the others, and its mean distance to them, degrees."""
    apart_deg = distances_deg(poses[:, None], poses[None]).sum(axis=1) / max(len(poses) - 1, 1)
    index = int(apart_deg.argmin())
    return index, float(apart_deg[index])


def average(poses: Array) -> Array:
    """Return the chordal mean of rotations beside the mean of unit translations, (4, 4), for comparison.

    Args:
        poses: (N, 4, 4).
    """
    t = poses[:, :3, 3] / np.linalg.norm(poses[:, :3, 3], axis=1, keepdims=True)
    T = np.eye(4)
    T[:3, :3] = rotations.nearest_rotation(poses[:, :3, :3].mean(axis=0))
    T[:3, 3] = t.mean(axis=0)
    return T


def race(
    ask: Callable[[int, Sequence[int]], Array],
    videos: int,
    count: int,
    T_pair: Array,
    within_deg: float = 1.0,
    certainty_sigma: float = 1.6,
) -> Choice:
    """Come to what `choose` would say of all subsets by asking for fewer of them.

    Args:
        ask: Poses of some subsets of a video, (n, 4, 4), by its index and theirs.
        videos: How many there are.
        count: Subsets of each.
        T_pair: What the two views alone say, (4, 4).
        within_deg: How far the answer may be from the one by all subsets.
        certainty_sigma: A video is dropped once it is behind by so many standard deviations.
    """
    known = [np.empty((0, 4, 4)) for _ in range(videos)]

    def more(video: int, wanted: int = 1) -> None:
        start = len(known[video])
        known[video] = np.concatenate([known[video], ask(video, range(start, min(count, start + wanted)))])

    for video in range(videos):
        more(video, FIRST)
    while True:
        choice = choose(known, T_pair)
        leader, asked = choice.video, np.array([len(poses) for poses in known])
        sigma_deg = _sigma_deg(choice.d_med_deg, asked, count)
        behind_deg = choice.d_total_deg - choice.d_total_deg[leader]
        rivals = (asked < count) & (behind_deg <= certainty_sigma * np.hypot(sigma_deg, sigma_deg[leader]))
        rivals &= distances_deg(choice.medoids, choice.T_reference_target) > within_deg
        rivals[leader] = False  # rounded, it may be a little away from itself
        if rivals.any():
            more(int(np.where(rivals, behind_deg - sigma_deg, np.inf).argmin()))
        elif asked[leader] == count or _settled(known[leader], within_deg):
            return choice
        if asked[leader] < count:
            more(leader)


def _sigma_deg(d_med_deg: Array, asked: NDArray[np.int_], count: int) -> Array:
    """Standard deviation of D_total by some of `count` subsets, (V,); none is left once all are known."""
    return np.asarray(np.maximum(LEAST_SPREAD_DEG, d_med_deg) * np.sqrt((1.0 - asked / count) / asked))


def _settled(poses: Array, within_deg: float) -> bool:
    """Whether whichever pose comes out as the medoid of more, it is as near as asked for to the one now."""
    index, _ = medoid(poses)
    return bool(np.median(distances_deg(poses, poses[index])) < SETTLED_SHARE * within_deg)
