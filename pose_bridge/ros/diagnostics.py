# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of a node: rates, ages, what became of pictures and goals, causes of trouble."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from pose_bridge.config import Config
from pose_bridge.errors import ErrorCode, PoseBridgeError
from pose_bridge.ros import poses, publishers
from pose_bridge.ros.publishers import Wanted
from pose_bridge.ros.streams import ERROR, WARN, Finding, Streams, status
from pose_bridge.session import Session
from pose_bridge.views import Answer
from pose_bridge.worker.client import ModelsState, WorkerClient, WorkerState

RECENT_VERDICTS = 30
FAILED_LATELY_S = 60.0
NOT_MOVED = "has not moved"  # the one reason not to keep a picture that is nothing to worry about

_BROKEN = {
    ErrorCode.UNKNOWN,
    ErrorCode.MODEL_MISSING,
    ErrorCode.OUT_OF_MEMORY,
    ErrorCode.WORKER_DIED,
    ErrorCode.WORKER_STALLED,
    ErrorCode.STORAGE_FAILED,
}


class Health:
    """Told by all parts of a node what happens, in any thread; says what is wrong, if something is.

    Args:
        node: Whose clock and graph it looks at.
        config: The group `diagnostics`, and what topics are measured by.
        now_s: A clock that never goes back, in seconds.
    """

    def __init__(self, node: Node, config: Config, now_s: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._silence_s = config.diagnostics.silence_s
        self._now_s = now_s
        self._publisher = node.create_publisher(DiagnosticArray, "diagnostics", QoSProfile(depth=10))
        self._lock = threading.Lock()  # guards what follows
        self._streams = Streams(config, now_s)
        self._verdicts: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=RECENT_VERDICTS)
        self._goals: Counter[str] = Counter()
        self._goal_trouble: Finding | None = None
        self._worker_failed_s = -math.inf
        self._clock = (-1, now_s())  # what the node's clock said, and since when it has said so

    # --- what happens

    def watch(self, topic: str, subscription: Subscription) -> None:
        """Look at a topic from now on, unless it is one that may well be silent.

        Args:
            topic: As `heard` calls it; image/compressed is one with image.
            subscription: To it.
        """
        with self._lock:
            self._streams.watch(topic.partition("/")[0], Wanted.by(subscription))

    def heard(self, topic: str, stamp: Time) -> None:
        """A message arrived."""
        with self._lock:
            self._streams.heard(topic, poses.from_stamp(stamp))

    def failed(self, topic: str, error: Exception) -> None:
        """A message could not be used, or a callback failed.

        Args:
            topic: As `heard` calls it, or the callback's name.
            error: Why.
        """
        with self._lock:
            self._streams.failed(topic, error)

    def kept(self, why_not: str) -> None:
        """A picture became a keyframe, or why it did not."""
        with self._lock:
            self._streams.picture_used()
            self._verdicts[why_not] += 1
            self._recent.append(why_not)

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
            wanted = self._streams.wanted
        found = {name: publishers.look_up(self._node, topic) for name, topic in wanted.items()}
        with self._lock:
            message = DiagnosticArray(
                status=[
                    self._of_node(now.nanoseconds),
                    *(self._streams.status(name, who, now.nanoseconds) for name, who in found.items()),
                    self._of_keyframes(session),
                    self._of_goals(),
                    self._of_worker(worker, active),
                ]
            )
        message.header.stamp = now.to_msg()
        for each in message.status:
            each.name = f"{self._node.get_name()}: {each.name}"
            each.hardware_id = self._node.get_fully_qualified_name()
        return message

    def _of_node(self, now_ns: int) -> DiagnosticStatus:
        simulated = bool(self._node.get_clock().ros_time_is_active)
        if now_ns != self._clock[0]:
            self._clock = now_ns, self._now_s()
        still_s = self._now_s() - self._clock[1]

        def findings() -> Iterator[Finding]:
            if simulated and now_ns == 0:
                yield ERROR, "use_sim_time is set, and nothing publishes /clock"
            elif still_s > self._silence_s:
                yield WARN, f"the clock has stood still for {still_s:.1f} s"
            yield from self._streams.elsewhere()

        values = {"simulated_time": float(simulated), "clock_still_s": still_s}
        return status("node", findings(), "the clock runs", values)

    def _of_keyframes(self, session: Session) -> DiagnosticStatus:
        held, mapped = session.keyframes.all(), len(session.keyframes.mapped())

        def findings() -> Iterator[Finding]:
            refused = Counter(why for why in self._recent if why not in ("", NOT_MOVED))
            if not self._verdicts:
                yield ERROR, "no picture could be used yet"
            if sum(refused.values()) > RECENT_VERDICTS // 2:
                yield WARN, f"most pictures are not kept, lately as: {refused.most_common(1)[0][0]}"
            if held and held[-1].T_base_camera is None:
                yield (
                    WARN,
                    f"it is not known where camera {held[-1].camera_id!r} sits on the robot: "
                    "publish it on tf, or set extrinsics",
                )

        values = {
            "keyframes": float(len(held)),
            "mapped": float(mapped),
            "pictures": float(sum(self._verdicts.values())),
            **{f"not kept: {why}" if why else "kept": float(n) for why, n in self._verdicts.items()},
        }
        text = f"{len(held)} keyframes, {mapped} with a place in the map"
        return status("keyframes", findings(), text, values)

    def _of_goals(self) -> DiagnosticStatus:
        names = ("accepted", "abstained", "localized", *self._goals)
        values = {name: float(self._goals[name]) for name in names}
        findings = [] if self._goal_trouble is None else [self._goal_trouble]
        text = ", ".join(f"{count:g} {name}" for name, count in values.items())
        return status("goals", findings, text, values)

    def _of_worker(self, worker: WorkerClient, active: bool) -> DiagnosticStatus:
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
            if worker.models is ModelsState.FAILED:
                yield ERROR, f"no hypotheses: {worker.models_failure}"
            elif worker.models is ModelsState.LOADING:
                yield WARN, "loading the models; who needs them waits"

        values = {
            "state": state.value,
            "active": float(active),
            "models": worker.models.name,
            "restarts": float(worker.restarts),
            "last_failure": failure,
        }
        text = state.value if active else "stopped: the node is not active"
        return status("worker", findings(), text, values)
