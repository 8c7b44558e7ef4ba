# SPDX-License-Identifier: Apache-2.0
"""The robot without ROS: what it saw, where it was by odometry and in the map, and what it can be asked."""

from __future__ import annotations

import dataclasses
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import NoExtrinsicsError, NoMapError, NoViewsError, StaleError
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.keyframes import store
from pose_bridge.keyframes.buffer import KeyframeBuffer
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.pair_queue import PairQueue
from pose_bridge.keyframes.policy import KeyframePolicy
from pose_bridge.keyframes.retrieval import Retriever
from pose_bridge.odometry import MapPoses, Odometry, drift_covariance, drift_on_winding
from pose_bridge.relocalization import Answerer, Hypothesis, Progress, Search
from pose_bridge.views import Prior, Question, View

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Side = tuple[View, tuple[View, ...]]  # of a question: its end, and what is around that
RECENT_VERDICTS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What a camera delivers, with what is known about it.

    Attributes:
        stamp_ns: Time of capture.
        image: uint8 RGB, (H, W, 3).
        camera: Intrinsics of exactly this image.
        camera_id: The camera's own tf frame.
        T_base_camera: Where the camera sits on the robot, (4, 4); None where nobody said.
        mask: bool (H, W), True where the picture may be used; None for everywhere.
        depth_m: float32 (H, W), registered to the image.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    camera: Camera
    camera_id: str
    T_base_camera: Array | None = None
    mask: NDArray[np.bool_] | None = None
    depth_m: NDArray[np.float32] | None = None


class Session:
    """Everything that a robot knows of itself; for as many threads as like to ask.

    Args:
        config: Settings.
        bridge: Answers questions: a `Bridge`, or the worker that runs one.
    """

    def __init__(self, config: Config, bridge: Answerer) -> None:
        self.config = config
        self.bridge = bridge
        self.odometry = Odometry(config.odometry)
        self.keyframes = KeyframeBuffer(config.keyframes)
        self.pairs = PairQueue(config.auto)
        features = dataclasses.replace(config.features, cache_views=config.keyframes.max_count)
        self._retriever = Retriever(FeatureStore(features, config.views), config.keyframes)
        self._policy = KeyframePolicy(config.keyframes)
        self._verdicts: deque[str] = deque(maxlen=RECENT_VERDICTS)
        self._news = threading.Condition()
        self._map_poses: MapPoses | None = None
        self._count = self._changes = 0
        self._run = uuid.uuid4().hex[:6]  # keyframes of a loaded map have ids of their own

    # --- what the robot tells

    def move(self, stamp_ns: int, T_odom_base: Array) -> str:
        """Take one report of odometry; returns why it breaks with the last one, empty if it does not.

        Raises:
            BadInputError: Not a rigid transform.
        """
        broke = self.odometry.add(stamp_ns, T_odom_base)
        if broke:
            self._broke(broke)
        return broke

    def kidnapped(self) -> None:
        """Somebody moved the robot, or reset its odometry: what it saw before is another place."""
        self.odometry.break_off()
        self._broke("kidnapped")

    def see(self, picture: Picture) -> str:
        """Take one picture; returns why it is not kept, empty if it becomes a keyframe.

        Raises:
            BadInputError: Picture and camera do not fit.
        """
        pose = self.odometry.at(picture.stamp_ns)
        if pose is not None and pose.epoch != self.odometry.epoch:
            return "was taken before odometry broke"
        T_odom_base = None if pose is None else pose.T_odom_base
        with self._news:
            verdict = self._policy.judge(picture.image, T_odom_base, picture.mask)
            self._verdicts.append(verdict)
            if verdict:
                return verdict
            self._count += 1
            epoch = self.odometry.epoch
            keyframe = Keyframe(
                id=f"{self._run}_{self._count}",
                epoch=epoch,
                T_odom_base=T_odom_base,
                way=None if pose is None else pose.way,
                T_map_base=self._T_map_base(epoch, picture.stamp_ns, T_odom_base),
                **{item.name: getattr(picture, item.name) for item in dataclasses.fields(picture)},
            )
            self.keyframes.add(keyframe)
            if self.config.auto.enabled:
                self.pairs.offer(keyframe, self.keyframes.all())
            self._tell()
        return ""

    def set_map_pose(self, T_map_odom: Array, since_stamp_ns: int = 0, epoch: int | None = None) -> int:
        """Say where odometry lies in the map from a time on; returns how many keyframes that places.

        Args:
            T_map_odom: (4, 4).
            since_stamp_ns: That time.
            epoch: Of the stretch of odometry that is meant; None for the one that now grows.

        Raises:
            BadInputError: Not a rigid transform.
        """
        T_map_odom = rigid.rigid(T_map_odom)
        with self._news:
            epoch = self.odometry.epoch if epoch is None else epoch
            if self._map_poses is None or self._map_poses.epoch != epoch:
                self._map_poses = MapPoses(epoch, self.config.odometry)
            self._map_poses.add(since_stamp_ns, T_map_odom)
            return self.keyframes.with_map_poses(T_map_odom, epoch, since_stamp_ns)

    def clear_map(self) -> None:
        """Forget the map; what the robot has seen since its odometry last broke stays."""
        with self._news:
            epoch = self.odometry.epoch
            kept = [keyframe for keyframe in self.keyframes.all() if keyframe.epoch == epoch]
            self.keyframes.replace(dataclasses.replace(keyframe, T_map_base=None) for keyframe in kept)
            self._map_poses = None

    def forget(self) -> None:
        """Drop every keyframe, the map's too, and start odometry anew."""
        with self._news:
            self.keyframes.clear()
            self.pairs.clear()
            self._map_poses = None
        self.kidnapped()

    # --- maps on disk

    def save_map(self, name: str) -> int:
        """Write the map's keyframes to `map.directory`; returns how many.

        Raises:
            BadInputError, NoMapError, StorageError: A bad name, nothing mapped, a disk that does not take it.
        """
        mapped = self.keyframes.mapped()
        if not mapped:
            raise NoMapError("there is no keyframe with a place in the map: set the map pose, then drive")
        store.save_map(self._maps, name, mapped)
        return len(mapped)

    def load_map(self, name: str) -> int:
        """Put a map from disk in place of all keyframes; returns how many.

        Raises:
            BadInputError, StorageError: A bad name, or no whole map of that name.
        """
        loaded = store.load_map(self._maps, name)
        self.forget()
        # Their odometry is another run's: no epoch of this one may compare with it.
        past = 1 + max((keyframe.epoch for keyframe in loaded), default=0)
        self.keyframes.replace(dataclasses.replace(k, epoch=k.epoch - past) for k in loaded)
        return len(loaded)

    # --- what it can be asked

    def named(self, keyframe_id: str = "", stamp_ns: int = 0) -> Keyframe:
        """Return a keyframe by its id, or the one that was captured nearest to a time.

        Raises:
            UnknownKeyframeError: There is none.
        """
        return self.keyframes.get(keyframe_id) if keyframe_id else self.keyframes.at(stamp_ns)

    def side(self, keyframe: Keyframe) -> Side:
        """Return a keyframe as an end of a question, and its neighbours as context, in one frame."""
        around = self.keyframes.neighbours(keyframe, self.config.keyframes.neighbours)
        if keyframe.T_odom_camera is not None:
            mates = [other for other in around if other.epoch == keyframe.epoch]
            return keyframe.view(keyframe.T_odom_camera), tuple(o.view(o.T_odom_camera) for o in mates)
        return keyframe.view(keyframe.T_map_camera), tuple(o.view(o.T_map_camera) for o in around)

    def question(self, reference: Keyframe, target: Keyframe, **options: Any) -> Question:
        """Return the question where one keyframe's camera was, seen from another's, with their neighbours.

        Args:
            reference: One keyframe.
            target: The other.
            options: What else a `views.Question` holds; without a prior, odometry's is taken.
        """
        if options.get("prior") is None:
            options["prior"] = self.prior_by_odometry(reference, target)
        return self.question_of(self.side(reference), self.side(target), **options)

    def question_of(self, reference: Side, target: Side, **options: Any) -> Question:
        """Return the question where one view's camera was, seen from another's; no view is on both sides.

        Args:
            reference: One view, and those around it.
            target: The other, likewise.
            options: What else a `views.Question` holds.
        """
        (first, around_first), (second, around_second) = reference, target
        ends = {first.id, second.id}
        left = {view.id: view for view in around_first if view.id not in ends}
        right = {view.id: view for view in around_second if view.id not in ends | left.keys()}
        return Question(
            reference=first,
            target=second,
            reference_context=tuple(left.values()),
            target_context=tuple(right.values()),
            upright=True,  # odometry and maps have z up (REP-105)
            common_ground=self.config.relocalize.common_ground,
            **options,
        )

    def prior_by_odometry(self, reference: Keyframe, target: Keyframe) -> Prior | None:
        """Return where odometry has one keyframe's camera, seen from another's.

        None where it broke in between, or is not known.
        """
        known = reference.T_odom_camera, target.T_odom_camera, reference.way, target.way
        T_odom_reference, T_odom_target, way_reference, way_target = known
        if T_odom_reference is None or T_odom_target is None or reference.epoch != target.epoch:
            return None
        if way_reference is None or way_target is None:
            return None
        variances = drift_on_winding(np.abs(way_target - way_reference), self.config.rigs)
        return Prior(
            T_reference_target=rigid.relative(T_odom_reference, T_odom_target),
            covariance=drift_covariance(variances),
        )

    def background_pair(self) -> tuple[Keyframe, Keyframe] | None:
        """Return two keyframes that nothing links yet, the most promising ones; None if there are none."""
        while (pair := self.pairs.take()) is not None:
            known = {keyframe.id: keyframe for keyframe in self.keyframes.all()}
            if pair[0] in known and pair[1] in known:
                return known[pair[0]], known[pair[1]]
            self.pairs.done(pair)
        return None

    def relocalize(self, control: Control, **options: Any) -> Hypothesis:
        """Find the robot in the map.

        Args:
            control: Budget and cancellation, its clock running.
            options: Those of `search`.

        Raises:
            NoMapError, NoViewsError, NoExtrinsicsError: Something is missing to begin with.
            NotLocalizedError, AmbiguousError, NeedMotionError: Not found; with the hypotheses that there are.
            StaleError: Odometry broke in the meantime.
            CancelledError: From `control`.
        """
        search = self.search(**options)
        found = search.run(control)
        search.views()  # raises if odometry broke
        return found

    def search(
        self,
        *,
        views: Sequence[Keyframe] | None = None,
        prior: tuple[Array, Array] | None = None,
        min_probability: float | None = None,
        wait_for_motion: bool = True,
        seed: int = 0,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Search:
        """Return a search for the robot in the map.

        Args:
            views: What the robot sees; None for what it kept since odometry last broke.
            prior: T_map_base at the newest view, (4, 4), and its covariance, (6, 6).
            min_probability: Of each attempt; None takes the setting.
            wait_for_motion: Wait for more pictures, within the budget, where those at hand are not enough.
            seed: Of everything random.
            on_progress: Told what the search does.

        Raises:
            NoMapError, NoViewsError, NoExtrinsicsError: Something is missing to begin with.
            StaleError: Odometry broke after a picture was taken.
        """
        epoch = self.odometry.epoch
        given = None if views is None else self._usable(views)
        if given is not None and any(view.epoch != epoch for view in given):
            raise StaleError("a picture is from before the robot's odometry broke; bring newer ones")

        heard = 0

        def seen() -> list[Keyframe]:
            nonlocal heard
            heard = self._changes
            if self.odometry.epoch != epoch:
                raise StaleError("the robot's odometry broke while it was looked for; ask again")
            if given is not None:
                return given
            return self._usable(self.keyframes.of_epoch(epoch))

        def wait(seconds: float) -> bool:
            with self._news:
                return self._news.wait_for(lambda: self._changes != heard, seconds)

        robots = {view.id for view in seen()}
        places = [k for k in self.keyframes.mapped() if k.T_map_camera is not None and k.id not in robots]
        if not places:
            raise NoMapError("there is no keyframe with a place in the map: map first, or load a map")
        if not robots and not (wait_for_motion and given is None):
            raise self._blind(self.keyframes.of_epoch(epoch) if views is None else views)
        return Search(
            config=self.config,
            bridge=self.bridge,
            retriever=self._retriever,
            map=places,
            views=seen,
            wait=wait if wait_for_motion and given is None else None,
            poor_light=self._poor_light,
            prior=prior,
            min_probability=min_probability,
            seed=seed,
            on_progress=on_progress,
        )

    # --- inside

    def _tell(self) -> None:
        self._changes += 1
        self._news.notify_all()

    def _broke(self, why: str) -> None:
        log.warning("a new stretch of odometry begins: %s", why)
        with self._news:
            self._policy.reset()
            self._map_poses = None
            self._tell()

    @property
    def _maps(self) -> Path:
        return Path(self.config.map.directory).expanduser()

    def _T_map_base(self, epoch: int, stamp_ns: int, T_odom_base: Array | None) -> Array | None:
        if self._map_poses is None or self._map_poses.epoch != epoch or T_odom_base is None:
            return None
        T_map_odom = self._map_poses.at(stamp_ns)
        return None if T_map_odom is None else T_map_odom @ T_odom_base

    def _usable(self, views: Sequence[Keyframe]) -> list[Keyframe]:
        """Pictures with odometry and extrinsics, newest first."""
        known = [view for view in views if view.T_odom_camera is not None]
        return sorted(known, key=lambda view: -view.stamp_ns)

    def _blind(self, views: Sequence[Keyframe]) -> NoViewsError | NoExtrinsicsError:
        if any(view.T_odom_base is not None and view.T_base_camera is None for view in views):
            return NoExtrinsicsError(
                "it is not known where the camera sits on the robot: publish it on tf, or set extrinsics"
            )
        return NoViewsError("no picture with odometry was kept since odometry last broke")

    def _poor_light(self) -> bool:
        bad = sum("exposed" in verdict for verdict in self._verdicts)
        return bad > len(self._verdicts) // 2
