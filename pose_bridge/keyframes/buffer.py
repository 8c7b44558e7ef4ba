# SPDX-License-Identifier: Apache-2.0
"""The keyframes that the robot holds in memory: as many as it may, spread over what it has seen."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import KeyframesConfig
from pose_bridge.errors import BadInputError, UnknownKeyframeError
from pose_bridge.geometry import rigid
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.neighbours import neighbours

ROUNDING = 1.0 + 1e-9  # between a distance measured from either end
ROWS = 256  # of the table of distances that are held at a time


class KeyframeBuffer:
    """Holds at most `keyframes.max_count` keyframes, in the order in which they came; for any thread.

    Beyond that the most redundant goes: of the two that are nearest to each other in space, the one with more
    company. The newest always stays.
    """

    def __init__(self, settings: KeyframesConfig) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._keyframes: dict[str, Keyframe] = {}
        self._nearest_steps: dict[str, float] = {}  # to the nearest other keyframe; empty when not known

    def add(self, keyframe: Keyframe) -> None:
        """Hold one more keyframe.

        Raises:
            BadInputError: Another one of that id is held.
        """
        with self._lock:
            if keyframe.id in self._keyframes:
                raise BadInputError(
                    f"there is a keyframe {keyframe.id!r} already; give each an id of its own"
                )
            if len(self._nearest_steps) == len(self._keyframes):
                self._note(keyframe)
            self._keyframes[keyframe.id] = keyframe
            self._thin_out()

    def replace(self, keyframes: Iterable[Keyframe]) -> None:
        """Hold these keyframes and no others.

        Raises:
            BadInputError: Two of them have the same id; what was held is held still.
        """
        keyframes = list(keyframes)
        by_id = {keyframe.id: keyframe for keyframe in keyframes}
        if len(by_id) < len(keyframes):
            raise BadInputError("two keyframes have the same id; give each an id of its own")
        with self._lock:
            self._keyframes, self._nearest_steps = by_id, {}
            self._thin_out()

    def clear(self) -> None:
        """Hold nothing."""
        self.replace(())

    def get(self, keyframe_id: str) -> Keyframe:
        """Return the keyframe of that id.

        Raises:
            UnknownKeyframeError: There is none.
        """
        with self._lock:
            found = self._keyframes.get(keyframe_id)
        if found is None:
            raise UnknownKeyframeError(f"no keyframe {keyframe_id!r}; it never was, or it has been dropped")
        return found

    def at(self, stamp_ns: int) -> Keyframe:
        """Return the keyframe captured nearest to that time; of two, the one that came later.

        Raises:
            UnknownKeyframeError: None lies within `keyframes.stamp_tolerance_s`.
        """
        nearest = min(
            reversed(self.all()), key=lambda keyframe: abs(keyframe.stamp_ns - stamp_ns), default=None
        )
        limit_s = self._settings.stamp_tolerance_s
        if nearest is None:
            raise UnknownKeyframeError(f"no keyframe at {stamp_ns} ns: there are none")
        apart_s = abs(nearest.stamp_ns - stamp_ns) * 1e-9
        if apart_s > limit_s:
            raise UnknownKeyframeError(
                f"no keyframe within {limit_s:g} s of {stamp_ns} ns; the nearest, {nearest.id}, "
                f"is {apart_s:.3f} s away"
            )
        return nearest

    def all(self) -> list[Keyframe]:
        """Return every keyframe, in the order in which they came."""
        with self._lock:
            return list(self._keyframes.values())

    def mapped(self) -> list[Keyframe]:
        """Return those whose robot has a place in the map."""
        return [keyframe for keyframe in self.all() if keyframe.T_map_base is not None]

    def of_epoch(self, epoch: int) -> list[Keyframe]:
        """Return those whose odometry is comparable."""
        return [keyframe for keyframe in self.all() if keyframe.epoch == epoch]

    def __len__(self) -> int:
        with self._lock:
            return len(self._keyframes)

    def neighbours(self, keyframe: Keyframe, count: int) -> list[Keyframe]:
        """Return what the function `neighbours` chooses; `keyframe` need not be held."""
        return neighbours(keyframe, self.all(), count, self._settings)

    def with_map_poses(
        self, T_map_odom: NDArray[np.float64], epoch: int, since_stamp_ns: int | None = None
    ) -> int:
        """Give an epoch's keyframes their place in the map.

        Args:
            T_map_odom: Where that epoch's odometry lies in the map, (4, 4).
            epoch: Which.
            since_stamp_ns: Those captured earlier keep what they have; None for all.

        Returns:
            How many got one.
        """
        T_map_odom = rigid.rigid(T_map_odom)
        with self._lock:
            changed = {
                keyframe.id: dataclasses.replace(keyframe, T_map_base=T_map_odom @ keyframe.T_odom_base)
                for keyframe in self.of_epoch(epoch)
                if keyframe.T_odom_base is not None
                and (since_stamp_ns is None or keyframe.stamp_ns >= since_stamp_ns)
            }
            self._keyframes.update(changed)
            self._nearest_steps = {}
        return len(changed)

    def _thin_out(self) -> None:
        """Drop the most redundant while there are too many."""
        while len(self._keyframes) > self._settings.max_count:
            if len(self._nearest_steps) < len(self._keyframes):
                self._note_all()
            self._drop(self._most_redundant())

    def _most_redundant(self) -> Keyframe:
        """Of all but the newest; the oldest, where no pose tells."""
        held = list(self._keyframes.values())[:-1]
        near = np.array([self._nearest_steps[keyframe.id] for keyframe in held])
        pair = [held[int(index)] for index in np.nonzero(near <= ROUNDING * near.min())[0][:2]]
        return min(pair, key=lambda keyframe: tuple(np.sort(self._steps_from(keyframe))[:2].tolist()))

    def _drop(self, keyframe: Keyframe) -> None:
        apart = dict(zip(self._keyframes, self._steps_from(keyframe), strict=True))
        del self._keyframes[keyframe.id], self._nearest_steps[keyframe.id]
        for other in self._keyframes.values():
            if np.isfinite(apart[other.id]) and apart[other.id] <= ROUNDING * self._nearest_steps[other.id]:
                self._nearest_steps[other.id] = float(self._steps_from(other).min(initial=np.inf))

    def _note(self, keyframe: Keyframe) -> None:
        """Bring the distances up to date with a keyframe that is about to be held."""
        apart = self._steps_from(keyframe)
        for other, distance in zip(self._keyframes, apart.tolist(), strict=True):
            self._nearest_steps[other] = min(self._nearest_steps[other], distance)
        self._nearest_steps[keyframe.id] = float(apart.min(initial=np.inf))

    def _note_all(self) -> None:
        held = list(self._keyframes.values())
        for start in range(0, len(held), ROWS):
            rows = held[start : start + ROWS]
            apart = sight.steps_between(rows, held, self._settings)
            apart[np.arange(len(rows)), start + np.arange(len(rows))] = np.inf
            self._nearest_steps.update(zip((k.id for k in rows), apart.min(axis=1).tolist(), strict=True))

    def _steps_from(self, keyframe: Keyframe) -> NDArray[np.float64]:
        """Steps from a keyframe to each held one; infinite to itself and where poses do not tell, (N,)."""
        held = list(self._keyframes.values())
        if not held:
            return np.empty(0)
        apart = sight.steps_between([keyframe], held, self._settings)[0]
        return np.where([other.id == keyframe.id for other in held], np.inf, apart)
