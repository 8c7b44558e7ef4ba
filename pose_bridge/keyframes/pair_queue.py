# SPDX-License-Identifier: Apache-2.0
"""Pairs of keyframes that look at one place from different sides: questions for when there is time."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from pose_bridge.config import AutoConfig
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.keyframe import Keyframe

Pair = tuple[str, str]

PAIRS_PER_KEYFRAME = 3  # of the many pairs that a keyframe makes with a row of others, most are much alike


class PairQueue:
    """Holds pairs by the ids of their keyframes, each once for all time; for any thread."""

    def __init__(self, settings: AutoConfig) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._waiting: dict[Pair, tuple[float, float]] = {}
        self._asked: set[Pair] = set()

    def offer(self, keyframe: Keyframe, others: Sequence[Keyframe]) -> None:
        """Let a new keyframe's most promising pairs wait, and forget pairs of keyframes that are gone.

        Args:
            keyframe: The new one.
            others: All keyframes that are held.
        """
        held = {other.id for other in others} | {keyframe.id}
        worth = self._worth(keyframe, [other for other in others if other.id != keyframe.id])
        with self._lock:
            self._asked = {pair for pair in self._asked if held.issuperset(pair)}
            self._waiting = {pair: w for pair, w in self._waiting.items() if held.issuperset(pair)}
            new = {pair: w for pair, w in worth.items() if pair not in self._asked}
            best = sorted(new, key=lambda pair: new[pair], reverse=True)[:PAIRS_PER_KEYFRAME]
            self._waiting.update((pair, new[pair]) for pair in best)
            for pair in self._ranked()[self._settings.max_waiting :]:
                del self._waiting[pair]

    def take(self) -> Pair | None:
        """Return the most promising pair, which is not offered again; None if none waits."""
        with self._lock:
            pair = next(iter(self._ranked()), None)
            if pair is not None:
                del self._waiting[pair]
                self._asked.add(pair)
            return pair

    def give_back(self, pair: Pair) -> None:
        """Let a pair that was taken wait again, behind all others: there was no time for it."""
        with self._lock:
            self._asked.discard(_ordered(pair))
            self._waiting[_ordered(pair)] = (-1.0, 0.0)

    def done(self, pair: Pair) -> None:
        """Note that a pair was asked about, by whomever, so that it need not be again."""
        with self._lock:
            self._waiting.pop(_ordered(pair), None)
            self._asked.add(_ordered(pair))

    def clear(self) -> None:
        """Forget every pair, those that were asked about too."""
        with self._lock:
            self._waiting, self._asked = {}, set()

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def _ranked(self) -> list[Pair]:
        return sorted(self._waiting, key=lambda pair: self._waiting[pair], reverse=True)

    def _worth(self, keyframe: Keyframe, others: Sequence[Keyframe]) -> dict[Pair, tuple[float, float]]:
        """Wide pairs within reach: how much of one view the other likely shows, then how near they are."""
        T = sight.relative_poses(keyframe, others)
        apart_m = np.linalg.norm(T[:, :3, 3], axis=1)
        angle_deg = np.degrees(np.arccos(np.clip(T[:, 2, 2], -1.0, 1.0)))
        with np.errstate(invalid="ignore"):
            wide = (apart_m <= self._settings.max_distance_m) & (angle_deg >= self._settings.min_angle_deg)
        shown = sight.seen_alike(keyframe, others, T, 180.0)
        return {
            _ordered((keyframe.id, other.id)): (float(shown[index]), -float(apart_m[index]))
            for index, other in enumerate(others)
            if wide[index]
        }


def _ordered(pair: Pair) -> Pair:
    return (min(pair), max(pair))
