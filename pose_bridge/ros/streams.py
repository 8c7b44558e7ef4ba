# SPDX-License-Identifier: Apache-2.0
"""What comes on the topics that a node listens to, and what is wrong with it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from pose_bridge.config import Config
from pose_bridge.ros.conversions import text
from pose_bridge.ros.publishers import Publishers, Wanted

Finding = tuple[bytes, str]

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

NS = 1e9
MOST_ARRIVALS = 10_000

# How bad it is to be without a topic, and what is missing then.
_NEEDED = {
    "image": (ERROR, ""),
    "camera_info": (ERROR, "pictures cannot be used without their calibration"),
    "odom": (WARN, "no answer is in metres, and the robot cannot be found in its map"),
    "depth": (WARN, "pictures wait for it in vain"),
    "mask": (WARN, "pictures wait for it in vain"),
}
_ONCE = {"camera_info", "mask"}  # one message is good for all that follows
_FAST_DDS = "large pictures are lost unless both nodes are started with the profile config/fastdds.xml"


def status(
    name: str, findings: Iterable[Finding], otherwise: str, values: Mapping[str, float | str]
) -> DiagnosticStatus:
    """Return a status that says the worst that was found.

    Args:
        name: Of what is looked at.
        findings: Each with its level.
        otherwise: What to say where nothing was found.
        values: By name.
    """
    level, message = max(findings, key=lambda finding: finding[0], default=(OK, otherwise))
    pairs = [
        KeyValue(key=key, value=text(value) if isinstance(value, str) else f"{value:.6g}")
        for key, value in values.items()
    ]
    return DiagnosticStatus(level=level, name=name, message=text(message), values=pairs)


class _Stream:
    """What came on one topic."""

    def __init__(self) -> None:
        self.wanted: Wanted | None = None
        self.arrivals_s: deque[float] = deque(maxlen=MOST_ARRIVALS)
        self.received = 0
        self.stamp_ns = 0
        self.failures = 0
        self.failed_s = -math.inf
        self.error = ""

    def silent_s(self, now_s: float) -> float:
        """Time since the last message; infinite before the first."""
        return now_s - self.arrivals_s[-1] if self.arrivals_s else math.inf

    def rate_hz(self, now_s: float, window_s: float) -> float:
        """Messages per second lately."""
        lately = [arrival for arrival in self.arrivals_s if arrival >= now_s - window_s]
        return (len(lately) - 1) / (now_s - lately[0]) if lately and now_s > lately[0] else 0.0


class Streams:
    """All topics, by the names that the node gives them; not for several threads at a time.

    Args:
        config: The group `diagnostics`, and what topics are measured by.
        now_s: A clock that never goes back, in seconds.
    """

    def __init__(self, config: Config, now_s: Callable[[], float]) -> None:
        self._config = config
        self._settings = config.diagnostics
        self._now_s = now_s
        self._streams: dict[str, _Stream] = {}
        self._used_s = -math.inf

    @property
    def wanted(self) -> dict[str, Wanted]:
        """Topics that are watched."""
        return {name: stream.wanted for name, stream in self._streams.items() if stream.wanted}

    def watch(self, name: str, wanted: Wanted) -> None:
        """Look at a topic, unless it is one that may well be silent."""
        if name in _NEEDED:
            self._stream(name).wanted = wanted

    def heard(self, name: str, stamp_ns: int) -> None:
        """A message arrived."""
        stream = self._stream(name)
        stream.received += 1
        stream.arrivals_s.append(self._now_s())
        stream.stamp_ns = stamp_ns

    def failed(self, name: str, error: Exception) -> None:
        """A message could not be used."""
        stream = self._stream(name)
        stream.failures += 1
        stream.failed_s, stream.error = self._now_s(), str(error) or type(error).__name__

    def picture_used(self) -> None:
        """A picture could be used, and so could its calibration."""
        self._used_s = self._now_s()

    def elsewhere(self) -> Iterator[Finding]:
        """Yield what went wrong lately with what is not watched."""
        for name, stream in self._streams.items():
            if stream.wanted is None and self._failed_lately(stream):
                yield WARN, f"{name}: {stream.error}"

    def status(self, name: str, publishers: Publishers, now_ns: int) -> DiagnosticStatus:
        """Return what is to be said of a topic.

        Args:
            name: Of a topic that is watched.
            publishers: Who publishes on it.
            now_ns: By the clock that stamps are compared with.
        """
        now_s, stream = self._now_s(), self._streams[name]
        rate_hz = stream.rate_hz(now_s, self._settings.window_s)
        behind_s = (now_ns - stream.stamp_ns) / NS if stream.received else math.nan
        findings = [
            *self._silence(name, publishers),
            *self._failures(name),
            *self._rarity(name, rate_hz),
            *self._offset(name, behind_s),
        ]
        values: dict[str, float | str] = {
            "topic": publishers.wanted.topic,
            "publishers": float(len(publishers.fitting)),
            "received": float(stream.received),
            "rate_hz": rate_hz,
            "silent_s": stream.silent_s(now_s),
            "behind_now_s": behind_s,
            "failures": float(stream.failures),
            "last_error": stream.error,
        }
        return status(name, findings, f"{rate_hz:.1f} Hz", values)

    def _silence(self, name: str, publishers: Publishers) -> Iterator[Finding]:
        stream, (level, lost) = self._streams[name], _NEEDED[name]
        if self._speaks(stream) or (name in _ONCE and stream.received):
            if publishers.misfits:
                yield WARN, f"not every publisher is heard: {'; '.join(publishers.misfits)}"
            return
        why = publishers.why_silent()
        if publishers.fitting and name in ("image", "depth"):
            why += f"; {_FAST_DDS}"
        yield level, why + (f" ({lost})" if lost else "")

    def _failures(self, name: str) -> Iterator[Finding]:
        """What cannot be used: pictures until one can, a calibration until a picture can be used with it."""
        stream = self._streams[name]
        if name in ("image", "camera_info") and stream.failed_s > self._used_s:
            yield ERROR, stream.error
        elif self._failed_lately(stream):
            yield WARN, f"not all could be used: {stream.error}"

    def _rarity(self, name: str, rate_hz: float) -> Iterator[Finding]:
        if not self._speaks(self._streams[name]):
            return
        if name == "image" and rate_hz < self._settings.min_image_hz:
            yield WARN, f"only {rate_hz:.1f} Hz arrive; {_FAST_DDS}"
        if name == "odom" and rate_hz < 1.0 / self._config.odometry.max_gap_s:
            yield WARN, f"only {rate_hz:.1f} Hz arrive: where the base was between two of them is not known"

    def _offset(self, name: str, behind_s: float) -> Iterator[Finding]:
        """Clocks that differ: the camera's from odometry's, and either from the node's."""
        stream, odometry = self._streams[name], self._streams.get("odom")
        if name in _ONCE or not self._speaks(stream):
            return
        if name == "image" and odometry is not None and self._speaks(odometry):
            ahead_s = (stream.stamp_ns - odometry.stamp_ns) / NS
            if ahead_s > self._config.image.patience_s or -ahead_s > self._config.odometry.history_s:
                yield (
                    ERROR,
                    f"pictures are stamped {abs(ahead_s):.2f} s {'after' if ahead_s > 0 else 'before'} "
                    "odometry, so it is not known where they were taken; synchronize the clocks",
                )
        if abs(behind_s) > self._settings.max_offset_s:
            yield (
                WARN,
                f"stamped {abs(behind_s):.2f} s {'before' if behind_s > 0 else 'after'} now; "
                "synchronize the clocks, or set use_sim_time if this is a recording",
            )

    def _speaks(self, stream: _Stream) -> bool:
        return stream.silent_s(self._now_s()) <= self._settings.silence_s

    def _failed_lately(self, stream: _Stream) -> bool:
        return self._now_s() - stream.failed_s < self._settings.window_s

    def _stream(self, name: str) -> _Stream:
        return self._streams.setdefault(name, _Stream())
