# SPDX-License-Identifier: Apache-2.0
"""The context rung's estimator: one incremental reconstruction of all real views (pycolmap)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import pycolmap

from pose_bridge.config import SfmConfig
from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, NoEstimateError, PoseBridgeError
from pose_bridge.estimators import bundle
from pose_bridge.estimators.base import Array, Estimate, Problem, Tracks
from pose_bridge.estimators.pairs import PairGeometry, PairVerifier, ideal_camera, support
from pose_bridge.estimators.reflections import apart, contradiction, inside_out
from pose_bridge.geometry import rigid
from pose_bridge.views import Stage

MIN_START_DEG = 1.0  # parallax of an initial pair
GOOD_START_RAD = np.radians(10.0)  # more parallax than this does not make an initial pair better
SURE_START_RAD = np.radians(6.0)
CLEAR_LEAD = 4.0  # standard deviations by which matches must speak more for one: neighbours err alike
TOLD_APART = 2.0  # standard deviations by which odometry and depth must contradict one of them more
GENERAL = pycolmap.TwoViewGeometryConfiguration.CALIBRATED


class SfmEstimator:
    """Incremental structure from motion with given matches and known intrinsics."""

    name = "sfm"
    stage = Stage.CONTEXT

    def __init__(self, settings: SfmConfig, verifier: PairVerifier) -> None:
        self._settings = settings
        self._verifier = verifier

    def estimate(self, problem: Problem, control: Control) -> Estimate:
        """Reconstruct all views and return both ends' cameras: see `reconstruct`."""
        return bundle.judged(self, self.reconstruct(problem, control))

    def reconstruct(self, problem: Problem, control: Control) -> bundle.Refined:
        """Reconstruct all views.

        Raises:
            NoEstimateError: No reconstruction holds both ends.
            CancelledError, BudgetSpentError: From `control`, also in mid-reconstruction.
        """
        geometry = self._verifier.verify(problem, control)
        found: list[bundle.Refined] = []
        for start in _starts(geometry, problem)[: self._settings.starts]:
            found += self._reconstructed(problem, geometry, start, control)
            if found and _sure(geometry[start]):
                break
        if not found:
            raise NoEstimateError("no reconstruction of the real views holds both ends")
        return _best(problem, geometry, found)

    def _reconstructed(
        self, problem: Problem, geometry: PairGeometry, start: tuple[int, int], control: Control
    ) -> Iterator[bundle.Refined]:
        """The scene as it comes out from one initial pair, and turned inside out in depth."""
        model = self._map(problem, geometry, start, control)
        if model is None:
            return
        max_error_px = self._settings.max_error_px
        with suppress(NoEstimateError):  # another start may determine what this one left open
            found = bundle.refined(problem, *_read(model), max_error_px)
            yield found
            control.check()
            other = bundle.refined(
                problem, *inside_out(found.T_reference_camera, found.points), found.tracks, np.inf
            )
            yield bundle.refined(problem, other.T_reference_camera, other.points, other.tracks, max_error_px)

    def _map(
        self, problem: Problem, geometry: PairGeometry, start: tuple[int, int], control: Control
    ) -> pycolmap.Reconstruction | None:
        """Run the incremental pipeline from one initial pair; None unless both ends are in the model."""
        options = self._options(problem.seed, control)
        options.init_image_id1, options.init_image_id2 = start[0] + 1, start[1] + 1
        options.triangulation.ignore_two_view_tracks = len(problem.views) > 2
        models = pycolmap.ReconstructionManager()
        pipeline = pycolmap.IncrementalPipeline(options, _database(problem, geometry), models)
        stopped: list[PoseBridgeError] = []

        def check() -> None:
            try:
                control.check()
            except PoseBridgeError as error:
                stopped.append(error)
                raise

        for moment in (
            pycolmap.IncrementalPipelineCallback.INITIAL_IMAGE_PAIR_REG_CALLBACK,
            pycolmap.IncrementalPipelineCallback.NEXT_IMAGE_REG_CALLBACK,
        ):
            pipeline.add_callback(int(moment), check)
        pycolmap.set_random_seed(problem.seed % 2**31)
        pipeline.run()
        if stopped:
            raise stopped[0]
        control.check()
        for index in range(models.size()):
            if {1, 2} <= set(models.get(index).reg_image_ids()):
                return models.get(index)
        return None

    def _options(self, seed: int, control: Control) -> pycolmap.IncrementalPipelineOptions:
        seconds = min(self._settings.max_seconds, control.remaining_s)
        if seconds < 1e-3:
            raise BudgetSpentError("no time is left for a reconstruction")
        options = pycolmap.IncrementalPipelineOptions()
        options.min_model_size = 2
        options.multiple_models = False
        # Registers views by epipolar lines alone where points do not do: slow, and never what ties two sides.
        options.structure_less_registration_fallback = False
        options.extract_colors = False
        options.num_threads = 1  # sums in one order: the same answer every time
        options.random_seed = seed % 2**31
        options.max_runtime_seconds = int(np.ceil(seconds))
        options.min_num_matches = self._settings.min_pair_inliers
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
        options.mapper.filter_max_reproj_error = self._settings.max_error_px
        # The initial pair is ours to choose; without this, an unsuitable one is tried again hundreds of
        # times.
        options.init_num_trials = 1
        options.mapper.init_min_tri_angle = MIN_START_DEG
        options.mapper.init_min_num_inliers = self._settings.min_pair_inliers
        # Rough adjustments on the way: `bundle.refined` does the last one.
        options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.4
        options.ba_global_function_tolerance = options.ba_local_function_tolerance = 1e-5
        options.ba_global_max_num_iterations, options.ba_local_max_num_iterations = 15, 8
        options.ba_global_max_refinements, options.ba_local_max_refinements = 2, 1
        return options


def _best(problem: Problem, geometry: PairGeometry, found: Sequence[bundle.Refined]) -> bundle.Refined:
    """The reconstruction that matches speak for; where they do not decide, odometry and depth.

    All are compared by the views that all hold. Of those that agree with the best, the one counts that most
    matches speak for, so that no view is lost.

    Raises:
        NoEstimateError: Nothing tells two of them apart.
    """
    views = set.intersection(*(set(one.T_reference_camera) for one in found))
    common = [{view: one.T_reference_camera[view] for view in views} for one in found]
    speaking = [support(problem, geometry, cameras) for cameras in common]
    best = int(np.argmax([said.sum() for said in speaking]))
    likely = [
        index
        for index, said in enumerate(speaking)
        if not apart(common[index], common[best]) or _lead(speaking[best], said) < CLEAR_LEAD
    ]
    if any(apart(common[index], common[best]) for index in likely):
        against = {
            index: contradiction(problem, common[index], found[index].points, found[index].tracks)
            for index in likely
        }
        best = min(likely, key=lambda index: against[index])
        others = [against[index] for index in likely if apart(common[index], common[best])]
        if min(others) - against[best] < TOLD_APART:
            raise NoEstimateError(
                "what the views show is flat, or far away: two different reconstructions explain it as well"
            )
    agreeing = [one for one, cameras in zip(found, common, strict=True) if not apart(cameras, common[best])]
    return max(agreeing, key=lambda one: support(problem, geometry, one.T_reference_camera).sum())


def _lead(more: Array, less: Array) -> float:
    """By how many standard deviations the same matches speak more for one scene than for another."""
    by = more - less
    return float(by.sum() / max(np.linalg.norm(by), 1e-9))


def _starts(geometry: PairGeometry, problem: Problem) -> list[tuple[int, int]]:
    """Initial pairs, best first: many matches, parallax, not flat, and of one side (no wide baseline).

    If the best one may start a reflection, the next is the best that does not.
    """

    def worth(pair: tuple[int, int]) -> float:
        found = geometry[pair]
        parallax = min(1.0, max(found.tri_angle, 0.0) / GOOD_START_RAD)
        general = 1.0 if found.config == GENERAL else 0.3
        same_side = 1.0 if problem.sides[pair[0]] == problem.sides[pair[1]] else 0.3
        return float(len(found.inlier_matches) * parallax * general * same_side)

    starts = sorted((pair for pair in geometry if worth(pair) > 0), key=worth, reverse=True)
    return starts[:1] + sorted(starts[1:], key=lambda pair: not _sure(geometry[pair]))


def _sure(start: pycolmap.TwoViewGeometry) -> bool:
    """Whether a pair tells a scene from its reflection in depth: by parallax, and by not being flat."""
    return start.config == GENERAL and start.tri_angle >= SURE_START_RAD


def _read(model: pycolmap.Reconstruction) -> tuple[dict[int, Array], Array, Tracks]:
    """Cameras by view and points, (P, 3), in the frame of view 0, and what was observed."""
    T_world_reference = bundle.T_world_camera(model, 0)
    cameras = {
        image - 1: rigid.relative(T_world_reference, bundle.T_world_camera(model, image - 1))
        for image in model.reg_image_ids()
    }
    ids = sorted(model.point3D_ids())
    points = np.array([model.point3D(i).xyz for i in ids]).reshape(-1, 3)
    tracks = Tracks.of_rows(
        [
            (index, element.image_id - 1, element.point2D_idx)
            for index, point in enumerate(ids)
            for element in model.point3D(point).track.elements
        ]
    )
    return cameras, rigid.transform(rigid.inverse(T_world_reference), points), tracks


def _database(problem: Problem, geometry: PairGeometry) -> pycolmap.Database:
    """In memory: no temporary file that a crash could leave behind."""
    database = pycolmap.Database.open(":memory:")
    camera = ideal_camera(problem.focal_px())
    database.write_camera(camera, use_camera_id=True)
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig, use_rig_id=True)
    for view, image in _images(problem):
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=view + 1, rig_id=1)
        frame.add_data_id(pycolmap.data_t(camera.sensor_id, view + 1))
        database.write_frame(frame, use_frame_id=True)
        keypoints = problem.features[view].points * problem.focal_px()
        database.write_keypoints(view + 1, keypoints.astype(np.float32))
    for (a, b), found in geometry.items():
        database.write_two_view_geometry(a + 1, b + 1, found)
    return database


def _images(problem: Problem) -> Iterator[tuple[int, pycolmap.Image]]:
    for view in range(len(problem.views)):
        yield view, pycolmap.Image(name=f"{view:06d}", camera_id=1, image_id=view + 1)
