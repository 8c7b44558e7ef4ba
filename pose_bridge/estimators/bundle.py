# SPDX-License-Identifier: Apache-2.0
"""Bundle adjustment and the joint covariance of cameras, shared by the estimators (pycolmap)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import patches
from pose_bridge.estimators.base import Array, Estimate, Estimator, Problem, Tracks, scaled_cameras
from pose_bridge.estimators.normal_equations import NormalEquations
from pose_bridge.estimators.pairs import ideal_camera, matrix
from pose_bridge.geometry import rigid, rotations

pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)

HALF_ANGLE = 2.0  # pycolmap's rotation tangent is half the rotation vector (quaternion manifold of Ceres)
LARGEST_ROUNDING = 1e-6  # a covariance with eigenvalues this far below zero, relatively, is none
MIN_OBSERVATIONS = 6  # views with fewer are left out
MAX_ROUNDS = 4  # of refining and dropping what does not fit
FIRST_NOISE_PX, LEAST_NOISE_PX = 0.5, 0.1
LOSS_SIGMA = 1.0  # an observation that misses by so much counts half
LOSS_EFFICIENCY = 0.61  # share of the variance that such weights seem to leave, if errors are normal
PATCHES_COUNT = 2.0  # times what patches say: neighbours err alike too, as simulated rooms show
MIN_REDUNDANCY = 12  # residuals beyond the unknowns, below which no covariance is worth its name


@dataclass(frozen=True, eq=False)
class Refined:
    """Cameras and points where their reprojection errors are smallest.

    Attributes:
        problem: Where the keypoints come from.
        T_reference_camera: By view.
        points: (P, 3), in the frame of view 0.
        tracks: What was kept.
        error_px: Of each observation, (O,).
        noise_px: Standard deviation of a keypoint.
        model: For pycolmap.
        adjuster: That of the model.
    """

    problem: Problem
    T_reference_camera: Mapping[int, Array]
    points: Array
    tracks: Tracks
    error_px: Array
    noise_px: float
    model: pycolmap.Reconstruction
    adjuster: pycolmap.CeresBundleAdjuster

    @property
    def half_px(self) -> float:
        """An observation that misses by so much counts half."""
        return LOSS_SIGMA * self.noise_px


def adjust(
    estimator: Estimator,
    problem: Problem,
    T_reference_camera: Mapping[int, Array],
    points: Array,
    tracks: Tracks,
    *,
    max_error_px: float,
) -> Estimate:
    """Refine, and say how sure it is: arguments and errors of `refined`, and whose estimate it is."""
    return judged(estimator, refined(problem, T_reference_camera, points, tracks, max_error_px))


def refined(
    problem: Problem,
    T_reference_camera: Mapping[int, Array],
    points: Array,
    tracks: Tracks,
    max_error_px: float,
) -> Refined:
    """Refine cameras and points on their reprojection errors, drop what does not fit, and refine again.

    Wrong matches that happen to fit roughly would pull at everything, so observations that miss by much count
    little (Cauchy's loss).

    Args:
        problem: Where the keypoints come from.
        T_reference_camera: First guess by view; view 0, the identity, among them.
        points: First guess, (P, 3), in the frame of view 0.
        tracks: Observations of those views.
        max_error_px: Observations that miss by more are taken out; those behind a camera anyhow.

    Raises:
        NoEstimateError: Too little is left to determine the target.
    """
    seen = np.bincount(tracks.view, minlength=max(T_reference_camera) + 1)
    T_reference_camera = {
        view: T for view, T in T_reference_camera.items() if view == 0 or seen[view] >= MIN_OBSERVATIONS
    }
    if 1 not in T_reference_camera:
        raise NoEstimateError("too few observations to determine the target camera")
    points, tracks = keep_observations(points, tracks, np.isin(tracks.view, list(T_reference_camera)))
    error_px = reprojection_error_px(problem, T_reference_camera, points, tracks)
    points, tracks = keep_observations(points, tracks, _once(tracks, error_px))
    noise_px = FIRST_NOISE_PX
    for rounds in range(MAX_ROUNDS):
        model = _model(problem, T_reference_camera, points, tracks)
        adjuster = _adjuster(model, T_reference_camera, LOSS_SIGMA * noise_px)
        if not adjuster.solve().is_solution_usable():
            raise NoEstimateError("bundle adjustment did not converge")
        T_reference_camera, points = _read(model, T_reference_camera, len(points))
        good = reprojection_error_px(problem, T_reference_camera, points, tracks) < max_error_px
        points, tracks = keep_observations(points, tracks, good)
        error_px = reprojection_error_px(problem, T_reference_camera, points, tracks)
        redundancy = 2 * len(error_px) - 3 * len(points) - 6 * (len(T_reference_camera) - 1)
        if redundancy < MIN_REDUNDANCY or not (tracks.view == 1).any():
            raise NoEstimateError("too few observations agree to determine the target camera")
        noise_px = max(LEAST_NOISE_PX, float(np.sqrt(np.sum(error_px**2) / redundancy)))
        if good.all() and rounds:
            break
    return Refined(problem, T_reference_camera, points, tracks, error_px, noise_px, model, adjuster)


def judged(estimator: Estimator, found: Refined) -> Estimate:
    """Return what was refined as an estimate, with its covariance: residuals', and what patches err by.

    Raises:
        NoEstimateError: The observations do not determine the target.
    """
    joint, views = _joint_covariance(found.model, found.adjuster, found.T_reference_camera)
    joint *= LOSS_EFFICIENCY * found.noise_px**2
    adjusted = (found.T_reference_camera, found.points, found.tracks)
    joint += PATCHES_COUNT * covariance_by_patches(found.problem, *adjusted, found.half_px)
    return estimate_of(estimator, *adjusted, found.error_px, joint, views)


def covariance_by_patches(
    problem: Problem, T_reference_camera: Mapping[int, Array], points: Array, tracks: Tracks, half_px: float
) -> Array:
    """Covariance of the free views by what patches err by, where the distance to the target has no error.

    Args:
        problem: Where the keypoints come from.
        T_reference_camera: Adjusted, by view.
        points: Adjusted, (P, 3).
        tracks: What is observed.
        half_px: An observation that misses by so much counts half.

    Raises:
        NoEstimateError: The observations do not determine the cameras.
    """
    unit = _baseline(T_reference_camera)  # what is small must not depend on the one that happens to be
    cameras, points = scaled_cameras(T_reference_camera, 1.0 / unit), points / unit
    system = NormalEquations(problem, tracks, cameras, len(points), half_px, half_px)
    information = system.information(cameras, points)
    baseline = cameras[1][:3, 3]
    information[:3, :3] += np.trace(information[:3, :3]) * np.outer(baseline, baseline)
    covariance = patches.covariance(system, cameras, points, information)
    to_unit = np.tile([unit] * 3 + [1.0] * 3, len(system.views))
    return np.asarray(to_unit[:, None] * covariance * to_unit)


def estimate_of(
    estimator: Estimator,
    T_reference_camera: Mapping[int, Array],
    points: Array,
    tracks: Tracks,
    error_px: Array,
    joint: Array,
    views: tuple[int, ...],
    rigid_sides: bool = False,
) -> Estimate:
    """Return what was adjusted as an estimate, whose unit of length is the baseline unless sides are rigid.

    Args:
        estimator: Whose estimate it is.
        T_reference_camera: By view, in any unit; in metres if sides are rigid.
        points: (P, 3).
        tracks: What was observed.
        error_px: Of each observation, (O,).
        joint: Covariance of (dt, dr) of `views`, stacked, (6n, 6n).
        views: The target first.
        rigid_sides: Odometry holds each side together.

    Raises:
        NoEstimateError: There is no baseline to measure by, or the covariance is none.
    """
    unit = 1.0
    if not rigid_sides:
        unit = _baseline(T_reference_camera)
        joint = with_fixed_baseline(joint, views, T_reference_camera, (0, 1))
    to_unit = np.tile([1 / unit] * 3 + [1.0] * 3, len(views))
    return Estimate(
        stage=estimator.stage,
        estimator=estimator.name,
        T_reference_camera=scaled_cameras(T_reference_camera, 1 / unit),
        points=points / unit,
        tracks=tracks,
        rms_px=float(np.sqrt(np.mean(error_px**2) / 2)),
        joint_covariance=_without_rounding(to_unit[:, None] * joint * to_unit),
        covariance_views=views,
        rigid_sides=rigid_sides,
    )


def _baseline(T_reference_camera: Mapping[int, Array]) -> float:
    length = float(np.linalg.norm(T_reference_camera[1][:3, 3]))
    if length == 0.0:
        raise NoEstimateError("the two cameras stand in one place: there is no baseline to measure by")
    return length


def reprojection_error_px(
    problem: Problem, T_reference_camera: Mapping[int, Array], points: Array, tracks: Tracks
) -> Array:
    """Return each observation's distance from where its point projects, (O,); infinite behind the camera."""
    focal_px = problem.focal_px()
    errors = np.full(len(tracks.view), np.inf)
    for view, T in T_reference_camera.items():
        rows = np.nonzero(tracks.view == view)[0]
        local = rigid.transform(rigid.inverse(T), points[tracks.point[rows]])
        front = local[:, 2] > 0
        seen = problem.features[view].points[tracks.keypoint[rows[front]]]
        errors[rows[front]] = focal_px * np.linalg.norm(local[front, :2] / local[front, 2:] - seen, axis=1)
    return errors


def with_fixed_baseline(
    joint: Array, views: Sequence[int], T_reference_camera: Mapping[int, Array], pair: tuple[int, int]
) -> Array:
    """Return the joint covariance in the gauge where the distance between two views has no error.

    Scaling everything by 1 + e moves each camera by dt = e t; the gauge takes out just that motion.

    Args:
        joint: (6n, 6n) of `views`, in any gauge of scale.
        views: Order of the blocks; a view that is not among them does not move.
        T_reference_camera: By view.
        pair: The two views.
    """
    scale_motion = np.concatenate([np.r_[T_reference_camera[view][:3, 3], 0, 0, 0] for view in views])
    baseline = T_reference_camera[pair[1]][:3, 3] - T_reference_camera[pair[0]][:3, 3]
    gradient = np.zeros(len(joint))  # of the logarithm of the distance
    for view, sign in zip(pair, (-1.0, 1.0), strict=True):
        if view in views:
            start = 6 * list(views).index(view)
            gradient[start : start + 3] += sign * baseline / (baseline @ baseline)
    project = np.eye(len(joint)) - np.outer(scale_motion, gradient)
    projected = project @ joint @ project.T
    return (projected + projected.T) / 2


def _without_rounding(joint: Array) -> Array:
    """Lift eigenvalues that rounding put below zero; much further below, it is no covariance."""
    if not np.isfinite(joint).all():
        raise NoEstimateError("the target camera is not determined by the observations")
    values, axes = np.linalg.eigh(joint)
    if values[0] < -LARGEST_ROUNDING * values[-1]:
        raise NoEstimateError("the target camera is not determined by the observations")
    return np.asarray((axes * np.maximum(values, 0.0)) @ axes.T)


def keep_observations(points: Array, tracks: Tracks, keep: np.ndarray) -> tuple[Array, Tracks]:
    """Drop the other observations, and points that fewer than two views are left to see."""
    seen_by = np.bincount(tracks.point[keep], minlength=len(points))
    keep = keep & (seen_by[tracks.point] >= 2)
    return points[np.unique(tracks.point[keep])], tracks.where(keep)


def _once(tracks: Tracks, error_px: Array) -> np.ndarray:
    """Which observations show a point best in their view, (O,): in pycolmap one may have several."""
    order = np.lexsort((error_px, tracks.view, tracks.point))
    nodes = np.stack((tracks.point, tracks.view))[:, order]
    best = np.zeros(len(order), bool)
    best[order[np.r_[True, (np.diff(nodes) != 0).any(axis=0)][: len(order)]]] = True
    return best


def _model(
    problem: Problem, T_reference_camera: Mapping[int, Array], points: Array, tracks: Tracks
) -> pycolmap.Reconstruction:
    model = pycolmap.Reconstruction()
    camera = ideal_camera(problem.focal_px())
    model.add_camera_with_trivial_rig(camera)
    focal = problem.focal_px()
    for view, T in sorted(T_reference_camera.items()):
        image = pycolmap.Image(
            name=str(view), keypoints=problem.features[view].points * focal, camera_id=1, image_id=view + 1
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(rigid.inverse(T)[:3]))
    order = np.argsort(tracks.point, kind="stable")
    starts = np.searchsorted(tracks.point[order], np.arange(len(points) + 1))
    for index, point in enumerate(points):
        track = pycolmap.Track()
        for row in order[starts[index] : starts[index + 1]]:
            track.add_element(int(tracks.view[row]) + 1, int(tracks.keypoint[row]))
        model.add_point3D(point, track)
    return model


def _adjuster(
    model: pycolmap.Reconstruction, T_reference_camera: Mapping[int, Array], loss_px: float
) -> pycolmap.CeresBundleAdjuster:
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_principal_point = options.refine_extra_params = False
    options.ceres.solver_options.max_num_iterations = 50
    options.ceres.solver_options.num_threads = 1  # sums in one order: the same answer every time
    options.ceres.solver_options.function_tolerance = 1e-8
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_px
    config = pycolmap.BundleAdjustmentConfig()
    for view in T_reference_camera:
        config.add_image(view + 1)
    config.set_constant_rig_from_world_pose(1)  # view 0, the reference
    config.set_constant_cam_intrinsics(1)
    return pycolmap.create_default_ceres_bundle_adjuster(options, config, model)


def _read(
    model: pycolmap.Reconstruction, views: Mapping[int, Array], points: int
) -> tuple[dict[int, Array], Array]:
    cameras = {view: T_world_camera(model, view) for view in views}
    return cameras, np.array([model.point3D(index + 1).xyz for index in range(points)]).reshape(-1, 3)


def T_world_camera(model: pycolmap.Reconstruction, view: int) -> Array:
    """Pose of one view in the model, exactly rigid, (4, 4)."""
    return matrix(model.image(view + 1).cam_from_world().inverse())


def _joint_covariance(
    model: pycolmap.Reconstruction,
    adjuster: pycolmap.CeresBundleAdjuster,
    T_reference_camera: Mapping[int, Array],
) -> tuple[Array, tuple[int, ...]]:
    """Return the covariance for a residual variance of 1 px^2, moved to our error model."""
    options = pycolmap.BACovarianceOptions()
    options.params = pycolmap.BACovarianceOptionsParams.POSES
    found = pycolmap.estimate_ba_covariance(options, model, adjuster)
    views = tuple(sorted(set(T_reference_camera) - {0}))
    if found is None or 1 not in views:
        raise NoEstimateError("the target camera is not determined by the observations")
    joint = np.empty((6 * len(views), 6 * len(views)))
    jacobian = np.zeros_like(joint)
    for row, a in enumerate(views):
        for column, b in enumerate(views):
            block = found.get_cam_cross_cov_from_world(a + 1, b + 1)
            if block is None or block.shape != (6, 6):
                raise NoEstimateError("the covariance of the cameras could not be computed")
            joint[6 * row : 6 * row + 6, 6 * column : 6 * column + 6] = block
        jacobian[6 * row : 6 * row + 6, 6 * row : 6 * row + 6] = _to_our_error_model(T_reference_camera[a])
    if not (np.isfinite(joint).all() and np.isfinite(jacobian).all()):
        raise NoEstimateError("the target camera is not determined by the observations")
    moved = jacobian @ joint @ jacobian.T
    return (moved + moved.T) / 2, views


def _to_our_error_model(T_reference_camera: Array) -> Array:
    """Jacobian of (dt, dr) of T_reference_camera by pycolmap's tangent (rotation, translation).

    With R_cr' = Exp(w) R_cr and t_cr' = t_cr + d: dr = -R w and dt = dr x t - R d, R and t of
    T_reference_camera.
    """
    R, t = T_reference_camera[:3, :3], T_reference_camera[:3, 3]
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = HALF_ANGLE * rotations.skew(t) @ R
    jacobian[:3, 3:] = -R
    jacobian[3:, :3] = -HALF_ANGLE * R
    return jacobian
