# SPDX-License-Identifier: Apache-2.0
"""What every estimator promises."""

import dataclasses
import threading
from collections.abc import Callable

import numpy as np
import pytest
from synthetic import arc, cloud, problem

from pose_bridge.config import RegisterConfig, RigsConfig, SfmConfig, TwoViewConfig
from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, CancelledError, NoEstimateError
from pose_bridge.estimators import bundle
from pose_bridge.estimators.base import Estimator, Problem
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.estimators.registration import RegistrationEstimator
from pose_bridge.estimators.rigs import RigEstimator
from pose_bridge.estimators.sfm import SfmEstimator
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.geometry import distances, rigid
from pose_bridge.views import Stage

ANGLES_DEG = [0.0, 30.0, 10.0, -10.0, 20.0]


def _sfm() -> SfmEstimator:
    return SfmEstimator(SfmConfig(), PairVerifier(SfmConfig()))


def _registration() -> RegistrationEstimator:
    return RegistrationEstimator(RegisterConfig(), PairVerifier(SfmConfig()), _sfm())


# how it is made, whether the views have odometry, how many views it is given
ESTIMATORS: dict[str, tuple[Callable[[], Estimator], bool, int]] = {
    "two_view": (lambda: TwoViewEstimator(TwoViewConfig()), False, 2),
    "registration by odometry": (_registration, True, 5),
    "registration by reconstruction": (_registration, False, 5),
    "rigs": (lambda: RigEstimator(RigsConfig()), True, 5),
    "sfm": (_sfm, False, 5),
    "sfm with odometry": (_sfm, True, 5),
}


@pytest.fixture(params=ESTIMATORS)
def case(request: pytest.FixtureRequest) -> tuple[Estimator, Problem]:
    make, odometry, views = ESTIMATORS[request.param]
    rng = np.random.default_rng(0)
    asked = problem(
        arc(ANGLES_DEG[:views]), cloud(rng, 180), rng, noise_px=0.5, odometry=odometry, outliers=0.2
    )
    return make(), asked


def test_a_name_and_a_rung(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    found = estimator.estimate(asked, Control())
    assert estimator.name
    assert Stage.DIRECT <= estimator.stage <= Stage.HYBRID
    assert (found.stage, found.estimator) == (estimator.stage, estimator.name)


def test_cameras_in_the_frame_of_the_reference(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    found = estimator.estimate(asked, Control())
    assert {0, 1} <= set(found.T_reference_camera) <= set(range(len(asked.views)))
    np.testing.assert_allclose(found.T_reference_camera[0], np.eye(4), atol=1e-9)
    for T in found.T_reference_camera.values():
        rigid.rigid(T)
    np.testing.assert_array_equal(found.T_reference_target, found.T_reference_camera[1])
    T_true = rigid.relative(*arc(ANGLES_DEG[:2]))
    baseline, within = (np.linalg.norm(T_true[:3, 3]), 0.05) if found.rigid_sides else (1.0, 1e-9)
    assert np.linalg.norm(found.T_reference_target[:3, 3]) == pytest.approx(baseline, abs=within)
    assert distances.rotation_error_deg(found.T_reference_target[:3, :3], T_true[:3, :3]) < 1.0
    assert distances.translation_error_deg(found.T_reference_target[:3, 3], T_true[:3, 3]) < 2.0


def test_covariance_is_finite_symmetric_and_positive(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    found = estimator.estimate(asked, Control())
    joint = found.joint_covariance
    assert joint.shape == (6 * len(found.covariance_views),) * 2
    assert found.covariance_views[0] == 1
    assert set(found.covariance_views) <= set(found.T_reference_camera) - {0}
    assert np.isfinite(joint).all()
    np.testing.assert_allclose(joint, joint.T, atol=1e-12 * np.abs(joint).max())
    assert np.linalg.eigvalsh(joint)[0] >= -1e-9 * np.trace(joint)
    assert np.linalg.eigvalsh(found.covariance[3:, 3:])[0] > 0
    along = found.T_reference_target[:3, 3]  # the baseline is the unit of length
    assert found.rigid_sides or along @ found.covariance[:3, :3] @ along < 1e-9


def test_tracks_hold_points_where_they_are_seen(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    found = estimator.estimate(asked, Control())
    tracks = found.tracks
    assert len(tracks.point) == len(tracks.view) == len(tracks.keypoint)
    assert set(np.unique(tracks.view)) <= set(found.T_reference_camera)
    np.testing.assert_array_equal(np.unique(tracks.point), np.arange(len(found.points)))
    assert (np.bincount(tracks.point) >= 2).all()
    observations = set(zip(tracks.view.tolist(), tracks.keypoint.tolist(), strict=True))
    assert len(observations) == len(tracks.view)  # a keypoint shows one point
    for view in found.T_reference_camera:
        assert tracks.keypoint[tracks.view == view].max() < len(asked.features[view].points)
    error_px = bundle.reprojection_error_px(asked, found.T_reference_camera, found.points, tracks)
    assert error_px.max() < 5.0
    assert np.sqrt(np.mean(error_px**2) / 2) == pytest.approx(found.rms_px, rel=0.01)


def test_no_matches_are_no_estimate(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    empty = {pair: np.empty((0, 2), np.intp) for pair in asked.matches}
    with pytest.raises(NoEstimateError):
        estimator.estimate(dataclasses.replace(asked, matches=empty), Control())


def test_chance_is_no_estimate(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    rng = np.random.default_rng(1)
    junk = {pair: np.c_[np.arange(180), rng.permutation(180)] for pair in asked.matches}
    with pytest.raises(NoEstimateError):
        estimator.estimate(dataclasses.replace(asked, matches=junk), Control())


def test_cancelled_or_out_of_time(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(CancelledError):
        estimator.estimate(asked, Control(cancelled))
    late = Control()
    late.start(-1.0)
    with pytest.raises(BudgetSpentError):
        estimator.estimate(asked, late)


def test_the_problem_stays_as_it_was(case: tuple[Estimator, Problem]) -> None:
    estimator, asked = case
    before = [features.points.copy() for features in asked.features]
    matches = {pair: found.copy() for pair, found in asked.matches.items()}
    first = estimator.estimate(asked, Control())
    second = estimator.estimate(asked, Control())
    np.testing.assert_array_equal(first.T_reference_target, second.T_reference_target)
    for old, new in zip(before, asked.features, strict=True):
        np.testing.assert_array_equal(old, new.points)
    for pair, old in matches.items():
        np.testing.assert_array_equal(old, asked.matches[pair])
