# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from synthetic import all_tracks, arc, cloud, problem

from pose_bridge.config import TwoViewConfig
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators import bundle
from pose_bridge.estimators.base import Tracks
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.geometry import rigid, uncertainty

NOBODY = TwoViewEstimator(TwoViewConfig())
NOISE_PX = 0.7
DRAWS = 150


def truth(angles_deg, radius_m=4.0):
    T_world = arc(angles_deg, radius_m)
    T_reference = [rigid.relative(T_world[0], T) for T in T_world]
    unit = np.linalg.norm(T_reference[1][:3, 3])
    return T_world, {k: rigid.make(T[:3, :3], T[:3, 3] / unit) for k, T in enumerate(T_reference)}, unit


def adjusted(T_world, T_true, points, unit, rng):
    asked = problem(T_world, points, rng, noise_px=NOISE_PX)
    start = rigid.transform(rigid.inverse(T_world[0]), points) / unit
    return bundle.adjust(
        NOBODY, asked, T_true, start, all_tracks(len(T_world), len(points)), max_error_px=10.0
    )


def test_covariance_of_the_target_matches_monte_carlo(monkeypatch):
    """The traps of pycolmap: order, half angles, residual variance, joint error, gauge."""
    monkeypatch.setattr(bundle, "PATCHES_COUNT", 0.0)
    rng = np.random.default_rng(0)
    T_world, T_true, unit = truth([0.0, 40.0, 10.0, 30.0])
    points = cloud(rng, 120)
    errors, covariances, nees = [], [], []
    for _ in range(DRAWS):
        found = adjusted(T_world, T_true, points, unit, rng)
        covariance = found.joint_covariance[:6, :6]
        error = uncertainty.error_vector(found.T_reference_camera[1], T_true[1])
        errors.append(error)
        covariances.append(covariance)
        nees.append(error @ np.linalg.pinv(covariance, rcond=1e-9) @ error)
    sampled, predicted = np.cov(np.array(errors).T), np.mean(covariances, axis=0)
    along = T_true[1][:3, 3]
    across = np.eye(3) - np.outer(along, along)
    for block, project in ((slice(0, 3), across), (slice(3, 6), np.eye(3))):
        ratio = np.trace(project @ sampled[block, block] @ project) / np.trace(
            project @ predicted[block, block] @ project
        )
        assert 0.75 < ratio < 1.33, ratio  # of ~3 x 150 squares: standard deviation below 0.1
    # translation and rotation go together in a two-sided view; so must the prediction
    correlation = sampled[:3, 3:] - predicted[:3, 3:]
    scale = np.sqrt(np.outer(np.diag(sampled)[:3], np.diag(sampled)[3:]))
    assert np.abs(correlation / scale)[[0, 2], 1].max() < 0.35
    assert 4.0 < np.mean(nees) < 6.0  # 5 degrees of freedom: the baseline is the unit


def test_fixed_baseline_takes_out_just_the_scale():
    rng = np.random.default_rng(2)
    T_world, T_true, unit = truth([0.0, 30.0, 10.0])
    found = adjusted(T_world, T_true, cloud(rng), unit, rng)
    views = found.covariance_views
    moved = bundle.with_fixed_baseline(found.joint_covariance, views, found.T_reference_camera, (0, 2))
    toward = found.T_reference_camera[2][:3, 3]
    assert toward @ moved[6:9, 6:9] @ toward == pytest.approx(0.0, abs=1e-12)
    back = bundle.with_fixed_baseline(moved, views, found.T_reference_camera, (0, 1))
    np.testing.assert_allclose(back, found.joint_covariance, atol=1e-9)


def test_outliers_are_taken_out():
    rng = np.random.default_rng(3)
    T_world, T_true, unit = truth([0.0, 30.0, 10.0])
    points = cloud(rng)
    asked = problem(T_world, points, rng, noise_px=0.3)
    asked.features[1].points[:10] += 0.2  # 80 px
    found = bundle.adjust(
        NOBODY,
        asked,
        T_true,
        rigid.transform(rigid.inverse(T_world[0]), points) / unit,
        all_tracks(3, len(points)),
        max_error_px=3.0,
    )
    assert found.rms_px < 0.5
    assert not np.isin(found.tracks.keypoint[found.tracks.view == 1], np.arange(10)).any()


def test_a_view_shows_a_point_once():
    rng = np.random.default_rng(5)
    T_world, T_true, unit = truth([0.0, 30.0, 10.0])
    points = cloud(rng)
    asked = problem(T_world, points, rng, noise_px=0.3)
    once = all_tracks(3, len(points))
    again = np.flatnonzero(once.view == 1)
    own = asked.features[1]
    asked.features[1] = dataclasses.replace(own, points=np.vstack([own.points, own.points + 0.005]))  # 2 px
    twice = Tracks(
        np.r_[once.point, once.point[again]],
        np.r_[once.view, once.view[again]],
        np.r_[once.keypoint, once.keypoint[again] + len(points)],
    )
    start = rigid.transform(rigid.inverse(T_world[0]), points) / unit
    found, expected = (
        bundle.adjust(NOBODY, asked, T_true, start, tracks, max_error_px=10.0) for tracks in (twice, once)
    )
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-6, atol=1e-12)
    assert len(found.tracks.view) == len(once.view)


def test_too_little_is_no_estimate():
    rng = np.random.default_rng(4)
    T_world, T_true, unit = truth([0.0, 30.0])
    with pytest.raises(NoEstimateError, match="too few"):
        adjusted(T_world, T_true, cloud(rng, 6), unit, rng)
