# SPDX-License-Identifier: Apache-2.0
"""Renders what a simulated robot sees ahead of its time, so that pictures can be sent at their rate."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pose_bridge.ros.simulator_config import SimulatorConfig
from pose_bridge.simulation.playback import Tick


class Moment(NamedTuple):
    """One tick with what the camera delivered, if anything."""

    tick: Tick
    image: NDArray[np.uint8] | None
    depth_m: NDArray[np.float32] | None


class Film:
    """Renders moments in a thread, ahead of their time.

    Args:
        ticks: One for each `tick_s`.
        config: Of the simulator.
        ahead_s: How far ahead.
    """

    def __init__(self, ticks: Iterator[Tick], config: SimulatorConfig, ahead_s: float) -> None:
        self._ticks, self._config = ticks, config
        self._ready: queue.Queue[Moment | Exception] = queue.Queue(math.ceil(ahead_s / config.tick_s))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> Moment | None:
        """Return the next moment, None if it is not ready.

        Raises:
            PoseBridgeError: The story cannot go on.
        """
        try:
            moment = self._ready.get_nowait()
        except queue.Empty:
            return None
        if isinstance(moment, Exception):
            raise moment
        return moment

    def stop(self) -> None:
        """Render no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for index, tick in enumerate(self._ticks):
                self._put(self._rendered(index, tick))
                if self._stopped.is_set():
                    return
        except Exception as error:
            self._put(error)

    def _rendered(self, index: int, tick: Tick) -> Moment:
        share = self._config.rate_hz * self._config.tick_s
        due = math.floor(index * share) > math.floor((index - 1) * share)
        if not due or not tick.seen:
            return Moment(tick, None, None)
        return Moment(tick, tick.frame.image, tick.frame.depth_m if self._config.depth else None)

    def _put(self, moment: Moment | Exception) -> None:
        while not self._stopped.is_set():
            try:
                return self._ready.put(moment, timeout=0.1)
            except queue.Full:
                continue
