# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of a node: rates, ages, what became of pictures and goals, causes of trouble."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from pose_bridge.config import Config
from pose_bridge.errors import ErrorCode, PoseBridgeError
from pose_bridge.ros import poses, publishers
from pose_bridge.ros.publishers import Wanted
from pose_bridge.session import Session
from pose_bridge.views import Answer
from pose_bridge.worker.client import WorkerClient, WorkerState

Finding = tuple[bytes, str]

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

NS = 1e9
MOST_ARRIVALS = 10_000
RECENT_VERDICTS = 30
FAILED_LATELY_S = 60.0
NOT_MOVED = "has not moved"  # the one reason not to keep a picture that is nothing to worry about

# What is missing without a topic, and how bad that is.
_NEEDED = {
    "image": (ERROR, ""),
    "camera_info": (ERROR, "pictures cannot be used without their calibration"),
    "odom": (WARN, "no answer is in metres, and the robot cannot be found in its map"),
    "depth": (WARN, "pictures wait for it in vain"),
    "mask": (WARN, "pictures wait for it in vain"),
}
_ONCE = {"camera_info", "mask"}  # one message is good for all that follows
_FAST_DDS = "large pictures are lost unless both nodes are started with the profile config/fastdds.xml"
_BROKEN = {
    ErrorCode.UNKNOWN,
    ErrorCode.MODEL_MISSING,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.WORKER_DIED,
    ErrorCode.WORKER_STALLED,
    ErrorCode.STORAGE_FAILED,
}


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
        return (len(lately) - 1) / (now_s - lately[0]) if len(lately) > 1 else 0.0


class Health:
    """Told by all parts of a node what happens, by any thread; reports it once a second.

    Args:
        node: Whose clock and graph it looks at.
        config: The group `diagnostics`, and what it measures others by.
        now_s: A clock that never goes back, in seconds.
    """

    def __init__(self, node: Node, config: Config, now_s: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._config = config
        self._settings = config.diagnostics
        self._now_s = now_s
        self._publisher = node.create_publisher(DiagnosticArray, "diagnostics", QoSProfile(depth=10))
        self._lock = threading.Lock()  # guards what follows
        self._streams: dict[str, _Stream] = {}
        self._kept_s = -math.inf
        self._verdicts: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=RECENT_VERDICTS)
        self._goals: Counter[str] = Counter()
        self._goal_trouble: Finding | None = None
        self._worker_failed_s = -math.inf
        self._clock = (-1, now_s())  # what the node's clock said, and since when it has said so

    # --- what happens

    def watch(self, topic: str, subscription: Subscription) -> None:
        """Report from now on whether something arrives; topics that may well be silent are passed over.

        Args:
            topic: As `heard` calls it; image/compressed is one with image.
            subscription: To it.
        """
        name = topic.partition("/")[0]
        if name in _NEEDED:
            with self._lock:
                self._stream(name).wanted = Wanted.by(subscription)

    def heard(self, topic: str, stamp: Time) -> None:
        """A message arrived."""
        with self._lock:
            stream = self._stream(topic)
            stream.received += 1
            stream.arrivals_s.append(self._now_s())
            stream.stamp_ns = poses.from_stamp(stamp)

    def kept(self, why_not: str) -> None:
        """A picture became a keyframe, or why it did not."""
        with self._lock:
            self._kept_s = self._now_s()
            self._verdicts[why_not] += 1
            self._recent.append(why_not)

    def failed(self, topic: str, error: Exception) -> None:
        """A message could not be used, or a callback failed.

        Args:
            topic: As `heard` calls it, or the callback's name.
            error: Why.
        """
        with self._lock:
            stream = self._stream(topic)
            stream.failures += 1
            stream.failed_s, stream.error = self._now_s(), str(error) or type(error).__name__

    def answered(self, answer: Answer) -> None:
        """A question was answered, be it with no."""
        with self._lock:
            self._goals["accepted" if answer.accepted else "abstained"] += 1
            self._goal_trouble = None

    def localized(self) -> None:
        """A search found the robot."""
        with self._lock:
            self._goals["localized"] += 1
            self._goal_trouble = None

    def failed_goal(self, error: Exception) -> None:
        """A goal, or a pair in the background, ended without an answer."""
        code = error.code if isinstance(error, PoseBridgeError) else ErrorCode.UNKNOWN
        with self._lock:
            self._goals[f"ended: {code.name}"] += 1
            if code in _BROKEN:
                level = ERROR if code is ErrorCode.UNKNOWN else WARN
                self._goal_trouble = level, f"the last goal failed with {code.name}: {error}"
            elif code is not ErrorCode.CANCELED:
                self._goal_trouble = None

    def worker_state(self, state: WorkerState) -> None:
        """The worker is in another state."""
        if state is WorkerState.RESTARTING:
            with self._lock:
                self._worker_failed_s = self._now_s()

    # --- what is reported

    def publish(self, session: Session, worker: WorkerClient, active: bool) -> None:
        """Publish all that is known; call it by a clock that runs even where simulated time does not."""
        self._publisher.publish(self.report(session, worker, active))

    def close(self) -> None:
        """Publish no longer."""
        self._node.destroy_publisher(self._publisher)

    def report(self, session: Session, worker: WorkerClient, active: bool) -> DiagnosticArray:
        """Return all that is known."""
        now = self._node.get_clock().now()
        with self._lock:
            wanted = {name: stream.wanted for name, stream in self._streams.items() if stream.wanted}
        seen = {name: publishers.look_up(self._node, topic) for name, topic in wanted.items()}
        with self._lock:
            statuses = [
                self._itself(now.nanoseconds),
                *(self._topic(name, found, now.nanoseconds) for name, found in seen.items()),
                self._keyframes(session),
                self._questions(),
                self._worker(active, worker),
            ]
        message = DiagnosticArray(status=statuses)
        message.header.stamp = now.to_msg()
        return message

    def _itself(self, now_ns: int) -> DiagnosticStatus:
        simulated = bool(self._node.get_clock().ros_time_is_active)
        if now_ns != self._clock[0]:
            self._clock = now_ns, self._now_s()
        still_s = self._now_s() - self._clock[1]

        def findings() -> Iterator[Finding]:
            if simulated and now_ns == 0:
                yield ERROR, "use_sim_time is set, and nothing publishes /clock"
            elif still_s > self._settings.silence_s:
                yield WARN, f"the clock has stood still for {still_s:.1f} s"
            for name, stream in self._streams.items():
                if stream.wanted is None and self._failed_lately(stream):
                    yield WARN, f"{name}: {stream.error}"

        values = {"simulated_time": float(simulated), "clock_still_s": still_s}
        return self._status("node", findings(), "the clock runs", values)

    def _topic(self, name: str, found: publishers.Publishers, now_ns: int) -> DiagnosticStatus:
        now_s, stream = self._now_s(), self._streams[name]
        rate_hz = stream.rate_hz(now_s, self._settings.window_s)
        values: dict[str, float | str] = {
            "topic": found.wanted.topic,
            "publishers": float(len(found.fitting)),
            "received": float(stream.received),
            "rate_hz": rate_hz,
            "silent_s": stream.silent_s(now_s),
            "behind_now_s": (now_ns - stream.stamp_ns) / NS if stream.received else math.nan,
            "failures": float(stream.failures),
            "last_error": stream.error,
        }
        findings = [*self._silence(name, found), *self._uses(name), *self._timing(name, rate_hz, now_ns)]
        return self._status(name, iter(findings), f"{rate_hz:.1f} Hz", values)

    def _silence(self, name: str, found: publishers.Publishers) -> Iterator[Finding]:
        stream, (level, lost) = self._streams[name], _NEEDED[name]
        silent_s = stream.silent_s(self._now_s())
        if silent_s <= self._settings.silence_s or (name in _ONCE and stream.received):
            if found.misfits:
                yield WARN, f"one of several publishers is not heard: {'; '.join(found.misfits)}"
            return
        why = found.why_silent()
        if found.fitting and name in ("image", "depth"):
            why += f"; {_FAST_DDS}"
        yield level, why + (f" ({lost})" if lost else "")

    def _uses(self, name: str) -> Iterator[Finding]:
        """What cannot be used: pictures until one can, a calibration until a picture can be used with it."""
        stream = self._streams[name]
        if name in ("image", "camera_info") and stream.failed_s > self._kept_s:
            yield ERROR, stream.error
        elif self._failed_lately(stream):
            yield WARN, f"some could not be used: {stream.error}"

    def _timing(self, name: str, rate_hz: float, now_ns: int) -> Iterator[Finding]:
        stream, odometry = self._streams[name], self._streams.get("odom")
        if not rate_hz:
            return
        if name == "image" and rate_hz < self._settings.min_image_hz:
            yield WARN, f"only {rate_hz:.1f} Hz arrive; {_FAST_DDS}"
        if name == "odom" and rate_hz < 1.0 / self._config.odometry.max_gap_s:
            yield WARN, f"only {rate_hz:.1f} Hz: the base's place between two reports is not known"
        silence_s = self._settings.silence_s
        if name == "image" and odometry is not None and odometry.silent_s(self._now_s()) <= silence_s:
            ahead_s = (stream.stamp_ns - odometry.stamp_ns) / NS
            if ahead_s > self._config.image.patience_s or -ahead_s > self._config.odometry.history_s:
                yield (
                    ERROR,
                    f"pictures are stamped {abs(ahead_s):.2f} s {'after' if ahead_s > 0 else 'before'} "
                    "odometry, so it is not known where they were taken; synchronize the clocks",
                )
        behind_s = (now_ns - stream.stamp_ns) / NS
        if abs(behind_s) > self._settings.max_offset_s and name not in _ONCE:
            yield (
                WARN,
                f"stamped {abs(behind_s):.2f} s {'before' if behind_s > 0 else 'after'} now; "
                "synchronize the clocks, or set use_sim_time if this is a recording",
            )

    def _keyframes(self, session: Session) -> DiagnosticStatus:
        kept = session.keyframes.all()
        mapped = len(session.keyframes.mapped())

        def findings() -> Iterator[Finding]:
            if not self._verdicts:
                yield ERROR, "no picture could be used yet"
            refused = Counter(why for why in self._recent if why not in ("", NOT_MOVED))
            if refused.total() > RECENT_VERDICTS // 2:
                yield WARN, f"most pictures are not kept, the last ones as: {refused.most_common(1)[0][0]}"
            if kept and kept[-1].T_base_camera is None:
                yield (
                    WARN,
                    f"it is not known where camera {kept[-1].camera_id!r} sits on the robot: "
                    "publish it on tf, or set extrinsics",
                )

        values = {
            "keyframes": float(len(kept)),
            "mapped": float(mapped),
            "pictures_used": float(sum(self._verdicts.values())),
            **{f"not kept: {why}" if why else "kept": float(n) for why, n in self._verdicts.items()},
        }
        text = f"{len(kept)} keyframes, {mapped} with a place in the map"
        return self._status("keyframes", findings(), text, values)

    def _questions(self) -> DiagnosticStatus:
        findings = [] if self._goal_trouble is None else [self._goal_trouble]
        values = {name: float(self._goals[name]) for name in ("accepted", "abstained")}
        values |= {name: float(count) for name, count in sorted(self._goals.items())}
        text = f"{self._goals['accepted']} accepted, {self._goals['abstained']} answered with no"
        return self._status("questions", iter(findings), text, values)

    def _worker(self, active: bool, worker: WorkerClient) -> DiagnosticStatus:
        state, failure = worker.state, worker.last_failure

        def findings() -> Iterator[Finding]:
            if state is WorkerState.STOPPED and active:
                yield ERROR, f"stopped: {failure}"
            elif state is WorkerState.RESTARTING:
                yield ERROR, f"restarting: {failure}"
            elif state is WorkerState.STARTING:
                yield WARN, "starting"
            elif self._now_s() - self._worker_failed_s < FAILED_LATELY_S:
                yield WARN, f"{state.value} again after a failure: {failure}"

        values = {
            "state": state.value,
            "active": float(active),
            "restarts": float(worker.restarts),
            "last_failure": failure,
        }
        text = state.value if active else "stopped: the node is not active"
        return self._status("worker", findings(), text, values)

    def _failed_lately(self, stream: _Stream) -> bool:
        return self._now_s() - stream.failed_s < self._settings.window_s

    def _stream(self, name: str) -> _Stream:
        return self._streams.setdefault(name, _Stream())

    def _status(
        self, name: str, findings: Iterator[Finding], otherwise: str, values: Mapping[str, float | str]
    ) -> DiagnosticStatus:
        """Return a status that says the worst that was found."""
        level, message = max(findings, key=lambda finding: finding[0], default=(OK, otherwise))
        return DiagnosticStatus(
            level=level,
            name=f"{self._node.get_name()}: {name}",
            message=message,
            hardware_id=self._node.get_fully_qualified_name(),
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
