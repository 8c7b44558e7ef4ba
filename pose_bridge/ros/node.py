# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: a camera and odometry in, relative poses and the robot's place in its map out.

Configure reads the settings and opens topics, actions and services. Activate starts the worker, which
answers. Goals run in threads of their own (goals.py); what an exception of theirs becomes is decided here and
nowhere else.
"""

from __future__ import annotations

import functools
import queue
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import rclpy
from nav_msgs.msg import Odometry
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Empty
from std_srvs.srv import Trigger

from pose_bridge import models
from pose_bridge.action import EstimateRelativePose, Relocalize
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import BadInputError, CancelledError, NotLocalizedError, PoseBridgeError
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.msg import LoopClosureCandidate, RelativePose
from pose_bridge.ros import conversions, parameters, poses
from pose_bridge.ros.conversions import End
from pose_bridge.ros.diagnostics import Health
from pose_bridge.ros.executor import NodeExecutor
from pose_bridge.ros.frames import Frames
from pose_bridge.ros.goals import Goals, Task
from pose_bridge.ros.intake import Intake
from pose_bridge.ros.outlet import Feedback, Outlet
from pose_bridge.ros.requests import Requests
from pose_bridge.ros.whereabouts import FOLLOW_S, Whereabouts
from pose_bridge.session import Session
from pose_bridge.srv import MapFile, SetMapPose
from pose_bridge.views import Answer, Question, Require, Stage
from pose_bridge.worker.client import WorkerClient

SERVICE_THREADS = 2
RESULT_TIMEOUT_S = 10  # for so long rclpy keeps a goal that ended, with all its pictures
LISTEN_S = 0.1


class PoseBridgeNode(LifecycleNode):
    """What a robot talks to; see the module's docstring."""

    def __init__(self, **more: Any) -> None:
        super().__init__("pose_bridge", **more)
        self._active = False
        self._ready = False
        self._closing = False
        parameters.declare(self)
        self.add_on_set_parameters_callback(lambda changed: parameters.check(changed, not self._ready))
        if self.get_parameter(parameters.AUTOSTART).value:
            self._starter = self.create_timer(0.0, self._autostart)

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the settings; open topics, actions and services."""
        return self._done(lambda: self._open(parameters.read(self)))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker; its models load in the background."""
        done = self._done(self._worker.start)
        if done is not TransitionCallbackReturn.SUCCESS:
            return done
        self._active = True
        self._goals.open()
        activated = super().on_activate(state)
        pictures = self.resolve_topic_name(self._picture_topic())
        self.get_logger().info(f"active: hears pictures on {pictures}; models load in the background")
        return activated

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End what runs, and the worker."""
        self._rest()
        self.get_logger().info("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close everything; keyframes are forgotten."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End from wherever it is."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Leave nothing behind, and let it be configured again."""
        self._close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Leave no process behind, in whatever state the node is; it opens nothing any more."""
        self._closing = True
        self._close()

    def _done(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        """Whether a step of a transition went well; rclpy itself would not say what went wrong."""
        if self._closing:
            return TransitionCallbackReturn.FAILURE
        try:
            step()
        except Exception as error:
            self._complain(error)
            expected = isinstance(error, PoseBridgeError)
            return TransitionCallbackReturn.FAILURE if expected else TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _autostart(self) -> None:
        self.destroy_timer(self._starter)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _open(self, config: Config) -> None:
        models.check(config)
        self._config = config
        self._health = Health(self, config)
        self._worker = WorkerClient(config, on_state=self._health.worker_state)
        self._session = Session(config, self._worker)
        self._frames = Frames(self, config, self._guarded)
        self._goals = Goals(self, config.goals.max_waiting)
        self._requests = Requests(self._session, self._frames.T_base_camera)
        self._intake = Intake(config.image, self._session, self._frames.T_base_camera, self._health)
        self._outlet = Outlet(self, config, self._session, self._frames)
        self._whereabouts = Whereabouts(config.relocalize, self._session, self._frames)
        self._opened = [
            *self._outlet.entities,
            *self._open_topics(),
            *self._open_actions(),
            *self._open_services(),
        ]
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also where simulated time stands still
        for period_s, callback in ((1.0, self._report), (FOLLOW_S, self._idle)):
            self._opened.append(self.create_timer(period_s, self._guarded(callback), clock=steady))
        self._ready = True

    def _rest(self) -> None:
        self._active = False
        self._goals.close()
        self._worker.stop()
        self._whereabouts.stop_telling()

    def _close(self) -> None:
        if not self._ready:
            return
        self._ready = False
        self._rest()
        self._goals.shutdown()
        self._goals.tell()
        self._frames.close()
        self._health.close()
        for entity in reversed(self._opened):
            self._destroy(entity)
        self._opened = []

    def _destroy(self, entity: Any) -> None:
        if isinstance(entity, ActionServer):
            entity.destroy()
            return
        for destroy in (
            self.destroy_timer,
            self.destroy_service,
            self.destroy_subscription,
            self.destroy_publisher,
        ):
            if destroy(entity):
                return

    # --- what is open

    def _open_topics(self) -> list[Any]:
        image = self._config.image
        pictures = QoSProfile(
            depth=image.depth,
            reliability=ReliabilityPolicy.RELIABLE
            if image.reliability == "reliable"
            else ReliabilityPolicy.BEST_EFFORT,
        )
        sensors = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera, motion = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()

        def hear(
            kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile, group: Any = camera
        ) -> Any:
            made = self.create_subscription(kind, topic, self._guarded(callback), qos, callback_group=group)
            self._health.watch(topic, made)
            return made

        kind = CompressedImage if image.transport == "compressed" else Image
        heard = [
            hear(kind, self._picture_topic(), self._on_image, pictures),
            hear(CameraInfo, "camera_info", self._on_camera_info, sensors),
            hear(Odometry, "odom", self._on_odom, sensors, motion),
            hear(Empty, "~/kidnapped", self._on_kidnapped, QoSProfile(depth=10), motion),
            hear(
                LoopClosureCandidate,
                "~/loop_closure_candidates",
                self._on_candidate,
                QoSProfile(depth=10),
                motion,
            ),
        ]
        if image.use_depth:
            heard.append(hear(Image, "depth", self._on_depth, pictures))
        if image.use_mask:
            heard.append(hear(Image, "mask", self._on_mask, pictures))
        return heard

    def _picture_topic(self) -> str:
        return "image/compressed" if self._config.image.transport == "compressed" else "image"

    def _open_actions(self) -> list[Any]:
        def serve(kind: type, name: str, execute: Callable[[ServerGoalHandle], Any]) -> ActionServer:
            return ActionServer(
                self,
                kind,
                name,
                execute,
                callback_group=ReentrantCallbackGroup(),
                goal_callback=lambda goal: GoalResponse.ACCEPT,  # a rejection could not say why
                cancel_callback=lambda handle: CancelResponse.ACCEPT,
                result_timeout=RESULT_TIMEOUT_S,
            )

        return [
            serve(EstimateRelativePose, "~/estimate_relative_pose", self._on_estimate),
            serve(Relocalize, "~/relocalize", self._on_relocalize),
        ]

    def _open_services(self) -> list[Any]:
        group = MutuallyExclusiveCallbackGroup()

        def serve(kind: type, name: str, answer: Callable[[Any, Any], Any]) -> Any:
            return self.create_service(kind, name, answer, callback_group=group)

        return [
            serve(SetMapPose, "~/set_map_pose", self._coded(self._set_map_pose)),
            serve(MapFile, "~/save_map", self._coded(self._save_map)),
            serve(MapFile, "~/load_map", self._coded(self._load_map)),
            serve(Trigger, "~/clear_map", self._told(self._clear_map)),
            serve(Trigger, "~/reset", self._told(self._reset)),
        ]

    # --- topics in

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._health.heard("image", message.header.stamp)
        self._intake.image(message, self._seconds())

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._health.heard("camera_info", message.header.stamp)
        self._intake.camera_info(message)

    def _on_depth(self, message: Image) -> None:
        self._health.heard("depth", message.header.stamp)
        self._intake.depth(message)

    def _on_mask(self, message: Image) -> None:
        self._health.heard("mask", message.header.stamp)
        self._intake.mask(message)

    def _on_odom(self, message: Odometry) -> None:
        self._health.heard("odom", message.header.stamp)
        stamp_ns = poses.from_stamp(message.header.stamp)
        broke = self._session.move(stamp_ns, poses.to_matrix(message.pose.pose))
        if broke:
            self._lose(broke)
            self._intake.clear()
            self._frames.forget()
        self._intake.flush(self._seconds())

    def _on_kidnapped(self, message: Empty) -> None:
        self._session.kidnapped()
        self._lose("kidnapped")

    def _lose(self, why: str) -> None:
        self.get_logger().warning(f"the robot's place in the map is unknown from now on: {why}")
        self._whereabouts.lose()

    def _on_candidate(self, candidate: LoopClosureCandidate) -> None:
        try:
            self._goals.alone(functools.partial(self._close_loop, candidate))
        except PoseBridgeError as error:
            self._leave_open(candidate, error)

    def _close_loop(self, candidate: LoopClosureCandidate, task: Task) -> None:
        try:
            message = self._answered(*self._requests.loop_closure(candidate), Control(task))
        except Exception as error:
            self._leave_open(candidate, error)
        else:
            self._outlet.loop_closures.publish(message)

    def _leave_open(self, candidate: LoopClosureCandidate, error: Exception) -> None:
        """Who asked is told that there is no answer: nobody else would say so."""
        self._complain(error)
        self._health.failed_goal(error)
        self._outlet.loop_closures.publish(self._requests.unanswered(candidate, error))

    # --- actions

    async def _on_estimate(self, handle: ServerGoalHandle) -> EstimateRelativePose.Result:
        return await self._served(handle, EstimateRelativePose.Result, self._estimate)

    async def _on_relocalize(self, handle: ServerGoalHandle) -> Relocalize.Result:
        return await self._served(handle, Relocalize.Result, self._relocalize)

    async def _served(
        self, handle: ServerGoalHandle, kind: type, work: Callable[[ServerGoalHandle, Task], Any]
    ) -> Any:
        """Run a goal; whatever happens ends in a result that says so (rclpy's own: an identity pose)."""
        try:
            result = await self._goals.run(handle, functools.partial(work, handle))
        except CancelledError as error:
            handle.canceled()
            return conversions.to_failure(kind(), error)
        except Exception as error:
            result = conversions.to_failure(kind(), error)
            self._guarded(self._note_failure)(result, error)  # whatever becomes of that, this is the result
            handle.abort()
            return result
        handle.succeed()
        return result

    def _note_failure(self, result: Any, error: Exception) -> None:
        """Tell log and diagnostics; a search in vain may have found places all the same."""
        self._complain(error)
        self._health.failed_goal(error)
        if isinstance(error, NotLocalizedError) and isinstance(result, Relocalize.Result):
            self._whereabouts.suspect(error.hypotheses)
            result.hypotheses = self._outlet.hypotheses(error.hypotheses)

    def _estimate(self, handle: ServerGoalHandle, task: Task) -> EstimateRelativePose.Result:
        goal: EstimateRelativePose.Goal = handle.request
        question, reference, target = self._requests.question(goal)
        feedback = Feedback(handle, lambda answer: self._outlet.message(answer, reference, target))
        control = Control(task, feedback.step, feedback.better)
        message = self._answered(question, reference, target, control, goal.allow_hypothesis)
        return conversions.to_result(message)

    def _answered(
        self,
        question: Question,
        reference: End,
        target: End,
        control: Control,
        hypothesis_asked: bool = False,
    ) -> RelativePose:
        """Ask the worker, and publish what it says."""
        answer = self._session.bridge.answer(question, control)
        control.check_cancelled()  # what is published counts, and what was cancelled is not
        self._health.answered(answer)
        self._session.pairs.done((reference.id, target.id))
        message = self._outlet.answered(answer, reference, target, hypothesis_asked)
        self._show(question, answer)
        return message

    def _show(self, question: Question, answer: Answer) -> None:
        """Publish the views that bridged; whatever becomes of that, the answer is out."""
        self._guarded(self._outlet.show)(question, answer)

    def _relocalize(self, handle: ServerGoalHandle, task: Task) -> Relocalize.Result:
        goal: Relocalize.Goal = handle.request
        budget_s, min_probability = map(conversions.unless_zero, (goal.budget_s, goal.min_probability))
        if min_probability is not None and not 0.0 < min_probability <= 1.0:
            raise BadInputError(f"min_probability must lie in (0, 1], got {min_probability}")
        control = Control(task)
        control.start(self._config.relocalize.budget_s if budget_s is None else _budget(budget_s))
        feedback = Feedback(handle, lambda answer: conversions.empty_answer())
        found = self._session.relocalize(
            control,
            views=self._requests.views(goal.views),
            prior=self._requests.place(goal.prior, self._config.frames.map),
            min_probability=min_probability,
            wait_for_motion=goal.wait_for_motion,
            seed=goal.seed,
            on_progress=feedback.search,
        )

        def tell() -> Relocalize.Result:
            control.check_cancelled()
            return self._outlet.localized(found, goal.publish)

        result = self._whereabouts.find(found, tell)
        self._health.localized()
        self._show(found.best.question, found.best.answer)
        return result

    # --- services

    def _set_map_pose(self, request: SetMapPose.Request, response: SetMapPose.Response) -> None:
        names, transform = self._config.frames, request.map_odom
        given = (transform.header.frame_id, transform.child_frame_id)
        if given != (names.map, names.odom):
            raise BadInputError(f"map_odom must be {names.map} -> {names.odom}, got {' -> '.join(given)}")
        T_map_odom = poses.transform_to_matrix(transform.transform)
        self._whereabouts.say(T_map_odom, poses.from_stamp(transform.header.stamp))

    def _save_map(self, request: MapFile.Request, response: MapFile.Response) -> None:
        response.keyframes = self._session.save_map(request.name)

    def _load_map(self, request: MapFile.Request, response: MapFile.Response) -> None:
        response.keyframes = self._session.load_map(request.name)
        self._lose("another map was loaded")

    def _clear_map(self, request: Trigger.Request, response: Trigger.Response) -> None:
        self._session.clear_map()
        self._lose("the map was cleared")

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> None:
        self._goals.stop()
        self._intake.clear()
        self._frames.forget()
        self._session.forget()
        self._lose("reset")

    # --- now and then

    def _report(self) -> None:
        self._health.publish(self._session, self._worker, self._active)
        self._outlet.draw(self._whereabouts.hypotheses)

    def _idle(self) -> None:
        """Pictures that wait in vain, the map as tf has it, and bridges for which there is time now."""
        self._intake.flush(self._seconds())
        self._whereabouts.follow_tf()
        pair = self._session.background_pair() if self._active and self._config.auto.enabled else None
        if pair and not self._goals.in_background(functools.partial(self._bridge_pair, *pair)):
            self._session.pairs.give_back((pair[0].id, pair[1].id))

    def _bridge_pair(self, reference: Keyframe, target: Keyframe, task: Task) -> None:
        question = self._session.question(reference, target, require=Require.METRIC, max_stage=Stage.CONTEXT)
        try:
            self._answered(question, End.of(reference), End.of(target), Control(task))
        except CancelledError:
            self._session.pairs.give_back((reference.id, target.id))
            raise

    # --- callbacks that cannot bring the node down

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Log what a callback raises: the executor would end the node."""

        @functools.wraps(callback)
        def safe(*args: Any) -> None:
            try:
                callback(*args)
            except Exception as error:
                self._health.failed(callback.__name__.removeprefix("_on_"), error)
                self.get_logger().error(_description(error), throttle_duration_sec=1.0)

        return safe

    def _coded(self, serve: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
        """A service whose response has an error code."""

        def answer(request: Any, response: Any) -> Any:
            try:
                serve(request, response)
            except Exception as error:
                conversions.to_failure(response, error)
                self._complain(error)
            return response

        return answer

    def _told(self, serve: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
        """A service whose response is a yes or no."""

        def answer(request: Any, response: Trigger.Response) -> Trigger.Response:
            try:
                serve(request, response)
                response.success = True
            except Exception as error:
                response.success, response.message = False, _description(error)
                self._complain(error)
            return response

        return answer

    def _complain(self, error: Exception) -> None:
        self.get_logger().error(_description(error))

    def _seconds(self) -> float:
        """Time that no clock jump touches."""
        return time.monotonic()


def _budget(budget_s: float) -> float:
    if not budget_s > 0:
        raise BadInputError(f"budget_s must be > 0, or 0 for the parameter's value, got {budget_s}")
    return budget_s


def _description(error: Exception) -> str:
    return conversions.text(f"{type(error).__name__}: {error}")


def main() -> None:
    """Run the node until it is told to end; callers hear of it before the context goes."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    # Not an Event, whose lock a second signal could find held; and read in short waits, as the thread that
    # runs Python's handlers may not be the one that a signal wakes.
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.put(None))
    try:
        node = PoseBridgeNode()
    except PoseBridgeError as error:
        raise SystemExit(f"pose_bridge: {error}") from None
    executor = NodeExecutor(SERVICE_THREADS)
    executor.add_node(node)
    with ThreadPoolExecutor(1) as pool:
        spinning = pool.submit(executor.spin)
        spinning.add_done_callback(lambda _: ended.put(None))
        while ended.empty():
            time.sleep(LISTEN_S)
        try:
            node.close()
            executor.shutdown()
            node.close()  # what a transition that was on its way opened meanwhile
        finally:
            rclpy.try_shutdown()
    spinning.result()


if __name__ == "__main__":
    main()
