# SPDX-License-Identifier: Apache-2.0
"""Lists of pairs that are asked about: drawn by a rule, saved, and read again.

Papers draw pairs of a scene at random within a range of yaw and do not publish them, so that two papers' rows
never compare. A list is a file here: whoever has it asks the same.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation.datasets.base import Dataset, Frame, Scene
from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array

MOST_FRAMES = 400  # of a scene that are paired; of more, so many evenly apart
OWN_UP = 0.01  # weight of cameras' own up, which may all lean one way
PAIRS_OF_TWO_SCENES = 4  # with different places, drawn one after the other: scenes may take time to read
ALIKE = 0.8  # of the pairs of two places look at equal things, where there are such
BETWEEN = 3  # true frames that stand in for generated ones: as many as InterPose generates for a subset


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRule:
    """Which pairs are drawn.

    Attributes:
        yaw_deg: From, to: how far the second camera is turned about the vertical.
        count: At most so many.
        per_scene: So many of a scene, where it has them, before the next; 0 for scenes that take turns.
        context: Views around either end that belong to its side, before and after it.
        elsewhere: So many more whose target is of another place that looks alike: they have no right answer.
        seed: Of the drawing.
    """

    yaw_deg: tuple[float, float]
    count: int
    per_scene: int = 0
    context: int = 0
    elsewhere: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.yaw_deg
        if not 0.0 <= low < high <= 180.0:
            raise BadInputError(f"yaw must run from 0 up to 180 degrees, got {low:g} to {high:g}")
        if self.count < 1 or min(self.per_scene, self.context, self.elsewhere) < 0:
            raise BadInputError("a rule needs a count of at least 1, and no negative numbers")


# InterPose (CVPR 2025), tables 1 to 4: yaw, pairs; DL3DV has one of each scene, ScanNet four of each of 75.
PAPERS = {
    "cambridge": PairRule(yaw_deg=(50.0, 65.0), count=290),
    "scannet": PairRule(yaw_deg=(50.0, 65.0), count=300, per_scene=4),
    "dl3dv": PairRule(yaw_deg=(50.0, 90.0), count=300, per_scene=1),
    "navi": PairRule(yaw_deg=(50.0, 90.0), count=300),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One question of a list; views by their names in the scene.

    Attributes:
        scene: Where.
        reference: The one end.
        target: The other.
        reference_context: Views around the reference.
        target_context: Views around the target.
        between: True frames between the two, in order; none where they are of two sequences.
        yaw_deg: How far the target is turned about the vertical; None where it is of another place.
        rotation_deg: How far it is turned; None likewise.
        gap_deg: The least rotation between a view of the one side and a view of the other; None likewise.
        kind: Of the scene, where kinds are told apart; of two places, how alike they are.
        place: Pairs of one place depend on each other; empty where each scene is one.
        target_scene: Where the target and the views around it are, if that is another place.
    """

    scene: str
    reference: str
    target: str
    reference_context: tuple[str, ...] = ()
    target_context: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    yaw_deg: float | None = None
    rotation_deg: float | None = None
    gap_deg: float | None = None
    kind: str = ""
    place: str = ""
    target_scene: str | None = None

    @property
    def id(self) -> str:
        """What tells it from the others of its list."""
        place = "" if self.scene == "." else f"{self.scene}: "
        there = "" if self.target_scene is None else f"{self.target_scene}: "
        return f"{place}{self.reference} - {there}{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairList:
    """Pairs, and how they came about.

    Attributes:
        dataset: `layout:folder`, as it was given.
        rule: By which they were drawn.
        pairs: In the order in which they are asked.
    """

    dataset: str
    rule: PairRule
    pairs: tuple[Pair, ...]


def draw(dataset: Dataset, rule: PairRule) -> Iterator[Pair]:
    """Draw pairs until there are enough or none is left, then those of other places.

    Args:
        dataset: Its scenes are read one by one, and in another order for another seed.
        rule: Which.

    Raises:
        BadInputError: From the data set; or pairs of other places are wanted, and it knows none.
    """
    yield from _within(dataset, rule)
    yield from _elsewhere(dataset, rule)


def _within(dataset: Dataset, rule: PairRule) -> Iterator[Pair]:
    rng = np.random.default_rng(rule.seed)
    waiting = [_of_scene(dataset, str(name), rule) for name in rng.permutation(dataset.scenes())]
    if rule.per_scene:  # so many of each of the first scenes, not fewer of more
        yield from islice(chain.from_iterable(waiting), rule.count)
        return
    left = rule.count
    while waiting:
        still = []
        for pairs in waiting:
            if not left:
                return
            if (pair := next(pairs, None)) is not None:
                left -= 1
                still.append(pairs)
                yield pair
        waiting = still


def _elsewhere(dataset: Dataset, rule: PairRule) -> Iterator[Pair]:
    """Views of a scene and of another place, most of them of equal things; a few pairs of each two scenes.

    Raises:
        BadInputError: The data set knows of no other places, or there are not so many pairs.
    """
    rng = np.random.default_rng([rule.seed, 1])
    names, drawn = [str(name) for name in rng.permutation(dataset.scenes())], set[str]()
    while len(drawn) < rule.elsewhere:
        before = len(drawn)
        for name in names:
            others = dataset.elsewhere(name)
            if not others:
                raise BadInputError("the data set does not say which scenes are of other places")
            here, there = dataset.scene(name), dataset.scene(others[rng.integers(len(others))])
            if not (here.frames and there.frames):
                continue
            alike = dataset.alike(here.name, there.name)
            for _ in range(PAIRS_OF_TWO_SCENES):
                pair = _of_two(here, there, alike, rule, rng)
                if pair.id in drawn:
                    continue
                drawn.add(pair.id)
                yield pair
                if len(drawn) == rule.elsewhere:
                    return
        if len(drawn) == before:
            raise BadInputError(f"there are no more than {before} pairs of two places; ask for fewer")


def _of_two(
    here: Scene, there: Scene, alike: Sequence[tuple[str, str]], rule: PairRule, rng: np.random.Generator
) -> Pair:
    """A pair of two places; of views that look at equal things, if there are and it comes so."""
    names = [[frame.name for frame in scene.frames] for scene in (here, there)]
    twins = bool(alike) and rng.random() < ALIKE
    ends = alike[int(rng.integers(len(alike)))] if twins else [str(rng.choice(own)) for own in names]
    around = [
        _around(scene, own.index(end), rule.context)
        for scene, own, end in zip((here, there), names, ends, strict=True)
    ]
    return Pair(
        scene=here.name,
        reference=ends[0],
        target=ends[1],
        reference_context=around[0],
        target_context=around[1],
        kind="equal things" if twins else "anything",
        place=here.place,
        target_scene=there.name,
    )


def _around(scene: Scene, end: int, count: int) -> tuple[str, ...]:
    """Names of so many frames before and after one."""
    near = scene.frames[max(0, end - count) : end + count + 1]
    own = scene.frames[end]
    return tuple(frame.name for frame in near if frame is not own and frame.sequence == own.sequence)


def save(path: Path, pairs: PairList) -> None:
    """Write a list, whole or not at all.

    Raises:
        BadInputError: It cannot be written there.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(dataclasses.asdict(pairs), indent=1) + "\n")
        os.replace(new, path)
    except OSError as error:
        raise BadInputError(f"{path}: the pairs cannot be written there: {error}") from error


def load(path: Path) -> PairList:
    """Read a list.

    Raises:
        BadInputError: Missing, or not what `save` wrote.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        rule = {**content["rule"], "yaw_deg": tuple(content["rule"]["yaw_deg"])}
        pairs = tuple(map(pair_of, content["pairs"]))
        found = PairList(dataset=content["dataset"], rule=PairRule(**rule), pairs=pairs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{path}: not a list of pairs: {error}; draw one with pose_bridge pairs"
        ) from error
    if len({pair.id for pair in pairs}) < len(pairs):
        raise BadInputError(f"{path}: a pair is listed twice")
    return found


def yaws_deg(frames: Sequence[Frame]) -> Array:
    """Return by how much each camera is turned against each other about the scene's vertical, (N, N).

    Which way up is need not be known: it is what cameras' x axes are level to, those of a walk with its turns
    all together; where none turns, it is the mean of their own.
    """
    poses = np.array([frame.T_world_camera[:3, :3] for frame in frames]).reshape(-1, 3, 3)
    own = -poses[:, :, 1].mean(axis=0)
    level = poses[:, :, 0].T @ poses[:, :, 0] / len(poses) - OWN_UP * np.outer(own, own)
    up = np.linalg.eigh(level)[1][:, 0]
    up *= np.sign(up @ own) or 1.0
    east = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    east /= np.linalg.norm(east)
    ahead = poses[:, :, 2]
    heading = np.arctan2(ahead @ np.cross(up, east), ahead @ east)
    turned = np.abs(heading[:, None] - heading[None, :])
    return np.degrees(np.minimum(turned, 2.0 * np.pi - turned))


def _of_scene(dataset: Dataset, name: str, rule: PairRule) -> Iterator[Pair]:
    """Pairs of one scene, drawn when they are asked for: each pair once, either end first."""
    rng = np.random.default_rng([rule.seed, zlib.crc32(name.encode())])
    scene = dataset.scene(name)
    count = len(scene.frames)
    if count < 2:
        return
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int))
    yaw_deg = yaws_deg([scene.frames[index] for index in chosen])
    low, high = rule.yaw_deg
    first, second = np.nonzero(np.triu((yaw_deg >= low) & (yaw_deg < high), k=1))
    order = rng.permutation(len(first))[: rule.per_scene or None]
    for row in order.tolist():
        a, b = int(first[row]), int(second[row])
        ends = (int(chosen[a]), int(chosen[b]))
        yield _pair(scene, ends if rng.random() < 0.5 else ends[::-1], rule, float(yaw_deg[a, b]))


def _pair(scene: Scene, ends: tuple[int, int], rule: PairRule, yaw_deg: float) -> Pair:
    frames = scene.frames
    own: tuple[list[str], list[str]] = ([], [])
    for index in range(len(frames)):
        apart = [abs(index - end) for end in ends]
        side = int(apart[1] < apart[0])
        near = apart[side] <= rule.context and frames[index].sequence == frames[ends[side]].sequence
        if near and index not in ends:
            own[side].append(frames[index].name)
    reference, target = (frames[end] for end in ends)
    between: list[int] = []
    if reference.sequence == target.sequence:
        between = np.linspace(*ends, BETWEEN + 2).round().astype(int)[1:-1].tolist()
    sides = [[end.name, *names] for end, names in zip((reference, target), own, strict=True)]
    gap_deg = min(turn_deg(scene.frame(a), scene.frame(b)) for a in sides[0] for b in sides[1])
    return Pair(
        scene=scene.name,
        reference=reference.name,
        target=target.name,
        reference_context=tuple(own[0]),
        target_context=tuple(own[1]),
        between=tuple(frames[index].name for index in dict.fromkeys(between) if index not in ends),
        yaw_deg=round(yaw_deg, 3),
        rotation_deg=round(turn_deg(reference, target), 3),
        gap_deg=round(gap_deg, 3),
        kind=scene.kind,
        place=scene.place,
    )


def turn_deg(a: Frame, b: Frame) -> float:
    """Return by how much two cameras of a scene are turned against each other, degrees."""
    R = rotations.nearest_rotation(a.T_world_camera[:3, :3].T @ b.T_world_camera[:3, :3])
    return float(np.degrees(rotations.rotation_angle_rad(R)))


def pair_of(record: dict[str, Any]) -> Pair:
    """Return a pair as it was written down.

    Raises:
        TypeError: It lacks something, or has more than a pair.
    """
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
    return Pair(**values)
