# SPDX-License-Identifier: Apache-2.0
"""What the node says of its answers: on topics, on tf, and back to the goal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from pose_bridge.action import EstimateRelativePose, Relocalize
from pose_bridge.config import Config
from pose_bridge.errors import StaleError
from pose_bridge.geometry import rigid, uncertainty
from pose_bridge.msg import Hypothesis as HypothesisMessage
from pose_bridge.msg import RelativePose
from pose_bridge.odometry import drift, drift_covariance
from pose_bridge.relocalization import Attempt, Hypothesis, Progress
from pose_bridge.ros import conversions, drawing, poses
from pose_bridge.ros.conversions import End
from pose_bridge.ros.frames import Frames
from pose_bridge.session import Session
from pose_bridge.views import Answer, Question, Stage, Translation

QUEUE = QoSProfile(depth=10)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Steps of a rung as the bridge names them, and how much of the rung is done by then.
STEPS = {
    "matching": 0.0,
    "estimating": 0.4,
    "looking for another alignment": 0.7,
    "guessing from the two views": 0.05,
    "looking for agreement": 0.85,
}
VIDEOS = 0.1, 0.85  # from the first video's beginning to the last one's end
COUNTED = re.compile(r"(?P<what>video|step) (?P<number>\d+) of (?P<count>\d+)")


class Outlet:
    """Publishes answers; only accepted ones where somebody could take them for a pose."""

    def __init__(self, node: Node, config: Config, session: Session, frames: Frames) -> None:
        self._config = config
        self._session = session
        self._frames = frames
        self._now_ns: Callable[[], int] = lambda: int(node.get_clock().now().nanoseconds)
        self._relative_pose = node.create_publisher(RelativePose, "~/relative_pose", QUEUE)
        self._audit = node.create_publisher(RelativePose, "~/relative_pose_audit", QUEUE)
        self.loop_closures = node.create_publisher(RelativePose, "~/loop_closures", QUEUE)
        self._pose = node.create_publisher(PoseWithCovarianceStamped, "~/pose", QUEUE)
        self._initialpose = node.create_publisher(PoseWithCovarianceStamped, "initialpose", QUEUE)
        self._markers = node.create_publisher(MarkerArray, "~/markers", LATCHED)
        self._views = node.create_publisher(Image, "~/bridge_views", QoSProfile(depth=1))
        self.entities: list[Any] = [
            self._relative_pose,
            self._audit,
            self.loop_closures,
            self._pose,
            self._initialpose,
            self._markers,
            self._views,
        ]

    def answered(
        self, answer: Answer, reference: End, target: End, hypothesis_asked: bool = False
    ) -> RelativePose:
        """Publish an answer, and return it as a message."""
        self._audit.publish(self.message(answer, reference, target))
        message = self.message(answer, reference, target, hypothesis_asked)
        if answer.accepted:
            self._relative_pose.publish(message)
            self._publish_pair(answer, reference, target)
        return message

    def message(
        self, answer: Answer, reference: End, target: End, hypothesis_asked: bool = False
    ) -> RelativePose:
        """Return an answer as a message."""
        return conversions.to_message(
            answer, reference, target, prefix=self._config.tf.prefix, hypothesis_asked=hypothesis_asked
        )

    def localized(self, found: Hypothesis, publish: bool) -> Relocalize.Result:
        """Publish where the robot is, and return it as a result.

        Args:
            found: That place.
            publish: Also on initialpose, and hold map -> odom, as the parameters say.

        Raises:
            StaleError: Too much time has passed, or odometry has just broken; nothing is published.
        """
        best, names = found.best, self._config.frames
        stamp_ns = best.view.stamp_ns
        age_s = (self._now_ns() - best.newest_ns) * 1e-9
        if age_s > self._config.goals.max_result_age_s:
            raise StaleError(
                f"the robot was found by pictures that are {age_s:.0f} s old; ask again "
                "(a bag needs its own clock: ros2 bag play --clock, and use_sim_time)"
            )
        place = poses.to_stamped_pose(best.T_map_base, best.covariance, stamp_ns, names.map)
        map_odom = poses.to_transform(best.T_map_odom, stamp_ns, names.map, names.odom)
        ends = End.of(best.keyframe), End.of(best.view)
        result = conversions.to_localized(place, self.message(best.answer, *ends), best.keyframe.id, map_odom)
        initial = self._moved_to_now(best) if publish or self._config.goals.publish_initialpose else None
        self._pose.publish(place)
        if initial is not None:
            self._initialpose.publish(initial)
        if publish:
            self._frames.publish_map_odom(best.T_map_odom)
        return result

    def hypotheses(self, found: Sequence[Hypothesis]) -> list[HypothesisMessage]:
        """Return places where the robot may be as messages."""
        return [
            conversions.to_hypothesis(
                hypothesis.best.T_map_base,
                hypothesis.best.covariance,
                probability=hypothesis.probability,
                agreeing=hypothesis.independent,
                keyframe_ids=hypothesis.keyframe_ids,
            )
            for hypothesis in found
        ]

    def draw(self, found: Sequence[Hypothesis]) -> None:
        """Publish keyframes and hypotheses as markers, if someone looks."""
        if self._markers.get_subscription_count():
            self._markers.publish(
                drawing.markers(
                    self._session.keyframes.all(), found, self._config.frames, self._session.odometry.epoch
                )
            )

    def show(self, question: Question, answer: Answer) -> None:
        """Publish the views that bridged, if someone looks."""
        if self._views.get_subscription_count():
            self._views.publish(drawing.strip(question, answer))

    def _publish_pair(self, answer: Answer, reference: End, target: End) -> None:
        """Both ends on tf, where the reference is a keyframe with a place of its own and there are metres."""
        names = self._config.frames
        known = {keyframe.id: keyframe for keyframe in self._session.keyframes.all()}
        keyframe = known.get(reference.id)
        if keyframe is None or answer.translation is not Translation.METRIC:
            return
        if keyframe.T_map_camera is not None:
            parent, T_parent_reference = names.map, keyframe.T_map_camera
        elif keyframe.T_odom_camera is not None and keyframe.epoch == self._session.odometry.epoch:
            parent, T_parent_reference = names.odom, keyframe.T_odom_camera
        else:
            return
        self._frames.publish_pair(reference, target, T_parent_reference, answer.T_reference_target, parent)

    def _moved_to_now(self, found: Attempt) -> PoseWithCovarianceStamped:
        """Where the robot is by now: who listens on initialpose cannot be trusted to move it there."""
        newest, T_odom_base = self._session.odometry.newest, found.view.T_odom_base
        if newest is None or newest[1].epoch != found.view.epoch or T_odom_base is None:
            raise StaleError("the robot's odometry broke before it was told where it is; ask again")
        T_then_now = rigid.relative(T_odom_base, newest[1].T_odom_base)
        variances = drift(T_then_now, self._config.rigs) if newest[0] != found.view.stamp_ns else np.zeros(2)
        driven = drift_covariance(variances)
        covariance = uncertainty.compose(found.T_map_base, found.covariance, T_then_now, driven)
        T_map_base = np.asarray(found.T_map_base @ T_then_now)
        return poses.to_initial_pose(T_map_base, covariance, newest[0], self._config.frames.map)


class Feedback:
    """Tells a goal's caller how far its question has come; time runs from the first step on."""

    def __init__(self, handle: ServerGoalHandle, to_message: Callable[[Answer], RelativePose]) -> None:
        self._handle = handle
        self._start_s: float | None = None
        self._to_message = to_message
        self._stage, self._progress, self._video = Stage.NONE, 0.0, (1, 1)
        self._best: RelativePose | None = None

    def step(self, what: str) -> None:
        """The bridge begins a step."""
        rung, _, step = what.partition(": ")
        stage = Stage.__members__.get(rung.upper(), self._stage)
        if stage is not self._stage:
            self._stage, self._progress = stage, 0.0
        self._progress = max(self._progress, self._done(step))
        feedback = conversions.to_feedback(self._stage, self._progress, self._elapsed_s(), self._best)
        self._publish(feedback)

    def _done(self, step: str) -> float:
        """How much of the rung is done when a step begins."""
        if counted := COUNTED.fullmatch(step):
            number, count = int(counted["number"]), int(counted["count"])
            if counted["what"] == "video":
                self._video = number, count
            video, videos = self._video
            done = video - 1 + (number / count if counted["what"] == "step" else 0.0)
            return VIDEOS[0] + (VIDEOS[1] - VIDEOS[0]) * done / videos
        return STEPS.get(step, 0.0)

    def better(self, answer: Answer) -> None:
        """The bridge has a better answer than before."""
        if answer.accepted:
            self._best = self._to_message(answer)

    def search(self, progress: Progress) -> None:
        """The search for the robot begins a step."""
        self._publish(
            Relocalize.Feedback(
                state=int(progress.state),
                advice=int(progress.advice),
                candidates_done=progress.done,
                candidates_total=progress.total,
                elapsed_s=self._elapsed_s(),
            )
        )

    def _elapsed_s(self) -> float:
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s
        return now_s - self._start_s

    def _publish(self, feedback: EstimateRelativePose.Feedback | Relocalize.Feedback) -> None:
        if self._handle.is_active:
            self._handle.publish_feedback(feedback)
