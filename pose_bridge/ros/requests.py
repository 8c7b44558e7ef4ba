# SPDX-License-Identifier: Apache-2.0
"""What goals ask, in the house's own terms: views that they bring along, or name by keyframe or time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from numpy.typing import NDArray

from pose_bridge.action import EstimateRelativePose
from pose_bridge.errors import BadInputError, NoViewsError, UnknownKeyframeError
from pose_bridge.geometry import rigid
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.msg import LoopClosureCandidate, RelativePose
from pose_bridge.msg import View as ViewMessage
from pose_bridge.ros import conversions, poses
from pose_bridge.ros.conversions import End
from pose_bridge.session import Session, Side
from pose_bridge.views import Question, View


class _Asked(NamedTuple):
    """A side of a question, what to say of its end, and which keyframe that is, if it is one."""

    side: Side
    end: End
    keyframe: Keyframe | None


class Requests:
    """Reads goals.

    Args:
        session: Has the keyframes that goals name.
        T_base_camera: Where a camera sits at a time, by its frame: (4, 4) or None.
    """

    def __init__(
        self, session: Session, T_base_camera: Callable[[str, int], NDArray[np.float64] | None]
    ) -> None:
        self._session = session
        self._T_base_camera = T_base_camera

    def question(self, goal: EstimateRelativePose.Goal) -> tuple[Question, End, End]:
        """Return what a goal asks, and what to say of its two ends.

        Raises:
            BadInputError: Of whatever it holds; the message says what.
            UnknownKeyframeError: It names a keyframe that is not there.
        """
        reference = self._asked(goal.reference, goal.reference_context, "reference")
        target = self._asked(goal.target, goal.target_context, "target")
        options = conversions.question_options(goal)
        if options["prior"] is None and reference.keyframe is not None and target.keyframe is not None:
            options["prior"] = self._session.prior_by_odometry(reference.keyframe, target.keyframe)
        question = self._session.question_of(reference.side, target.side, **options)
        return question, reference.end, target.end

    def loop_closure(self, candidate: LoopClosureCandidate) -> tuple[Question, End, End]:
        """Return what a SLAM system asks; as `question`."""
        goal = EstimateRelativePose.Goal(
            reference=candidate.reference,
            target=candidate.target,
            use_prior=candidate.use_prior,
            prior=candidate.prior,
        )
        return self.question(goal)

    def unanswered(self, candidate: LoopClosureCandidate, error: Exception) -> RelativePose:
        """Return what to say of a candidate without an answer: which one it was, and why."""
        message = conversions.empty_answer()
        message.reason_text = conversions.text(str(error))
        message.reference_id, message.target_id = (
            candidate.reference.keyframe_id,
            candidate.target.keyframe_id,
        )
        message.reference_stamp = candidate.reference.camera_info.header.stamp
        message.header.stamp = candidate.target.camera_info.header.stamp
        return message

    def views(self, messages: Sequence[ViewMessage]) -> list[Keyframe] | None:
        """Return the pictures that a search is to start from, the newest first; None: those at hand.

        Raises:
            BadInputError: Of whatever they hold, or a keyframe that is not there: Relocalize has no other
                code for it.
            NoViewsError: Where the robot was by odometry when it took one of them is not known.
        """
        if not messages:
            return None
        try:
            named = [self._keyframe(message, f"view_{index}") for index, message in enumerate(messages)]
        except UnknownKeyframeError as error:
            raise BadInputError(str(error)) from error
        if len({keyframe.id for keyframe in named}) != len(named):
            raise BadInputError("a picture is among the views twice")
        return sorted(named, key=lambda keyframe: -keyframe.stamp_ns)

    def place(
        self, message: PoseWithCovarianceStamped, map_frame: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return a guess of T_map_base, (4, 4), with its covariance, (6, 6); None if there is none.

        Raises:
            BadInputError: Not in the map, or no pose.
        """
        if not message.header.frame_id:
            return None
        if message.header.frame_id != map_frame:
            raise BadInputError(f"the prior must be in {map_frame}, got {message.header.frame_id!r}")
        guess = poses.to_prior(message.pose)
        return guess.T_reference_target, guess.covariance

    def _asked(self, message: ViewMessage, context: Sequence[ViewMessage], name: str) -> _Asked:
        """One side of a question."""
        epoch = self._session.odometry.epoch
        frame = _frame_of_poses((message, *context), name) or self._session.config.frames.odom
        if conversions.has_picture(message):
            view = conversions.to_view(message, name)
            end = End(id=name, stamp_ns=view.stamp_ns, camera_frame_id=_frame(message))
            keyframe = None
        else:
            keyframe = self._named(message)
            epoch = keyframe.epoch
            end = End.of(keyframe)
            if not context:
                return _Asked(self._session.side(keyframe), end, keyframe)
            view = self._posed(keyframe, frame, epoch)
        around = (self._view(other, f"{name}_context_{i}", frame, epoch) for i, other in enumerate(context))
        return _Asked((view, tuple(around)), end, keyframe)

    def _view(self, message: ViewMessage, name: str, frame: str, epoch: int) -> View:
        """A view around an end, with its pose where that is known in the side's frame."""
        if conversions.has_picture(message):
            return conversions.to_view(message, name)
        return self._posed(self._named(message), frame, epoch)

    def _posed(self, keyframe: Keyframe, frame: str, epoch: int) -> View:
        """A keyframe with its pose in a frame, if it is known there: by odometry, in one stretch of it."""
        names = self._session.config.frames
        if frame == names.map:
            return keyframe.view(keyframe.T_map_camera)
        by_odometry = frame == names.odom and keyframe.epoch == epoch
        return keyframe.view(keyframe.T_odom_camera if by_odometry else None)

    def _named(self, message: ViewMessage) -> Keyframe:
        stamp_ns = poses.from_stamp(message.camera_info.header.stamp)
        if not message.keyframe_id and stamp_ns == 0:
            raise BadInputError("a view needs a picture, the id of a keyframe, or the stamp of one")
        return self._session.named(message.keyframe_id, stamp_ns)

    def _keyframe(self, message: ViewMessage, name: str) -> Keyframe:
        if not conversions.has_picture(message):
            return self._named(message)
        view = conversions.to_view(message, name)
        frame, odom = _frame(message), self._session.config.frames.odom
        if (posed_in := message.camera_pose.header.frame_id) not in ("", odom):
            raise BadInputError(f"{name}: camera_pose must be in {odom}, got {posed_in!r}")
        pose = self._session.odometry.at(view.stamp_ns)
        if pose is None:
            raise NoViewsError(f"{name}: odometry does not reach its time, {view.stamp_ns} ns")
        T_base_camera = self._T_base_camera(frame, view.stamp_ns)
        if view.T_side_camera is not None and T_base_camera is not None:
            pose = dataclasses.replace(pose, T_odom_base=view.T_side_camera @ rigid.inverse(T_base_camera))
        return Keyframe(
            id=name,
            stamp_ns=view.stamp_ns,
            image=view.image,
            camera=view.camera,
            camera_id=frame,
            epoch=pose.epoch,
            T_odom_base=pose.T_odom_base,
            T_base_camera=T_base_camera,
            mask=view.mask,
            depth_m=view.depth_m,
        )


def _frame_of_poses(messages: Sequence[ViewMessage], name: str) -> str:
    """The frame that the poses of a side's pictures are in; empty if none has one.

    Raises:
        BadInputError: They are in several: nothing says how those lie to each other.
    """
    frames = {
        message.camera_pose.header.frame_id for message in messages if conversions.has_picture(message)
    } - {""}
    if len(frames) > 1:
        raise BadInputError(
            f"{name}: camera_pose must be in one frame on each side, got {', '.join(sorted(frames))}"
        )
    return next(iter(frames), "")


def _frame(message: ViewMessage) -> str:
    """The camera's own tf frame."""
    picture = message.image if len(message.image.data) else message.compressed_image
    return str(picture.header.frame_id)
