# SPDX-License-Identifier: Apache-2.0
"""The adjustment with odometry: its equations, and what odometry adds where pictures are mute."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic import all_tracks, arc, cloud, problem

from pose_bridge.control import Control
from pose_bridge.estimators import odometry_bundle
from pose_bridge.estimators.normal_equations import Belief, NormalEquations
from pose_bridge.estimators.odometry_bundle import Held, Level
from pose_bridge.geometry import distances, rigid, rotations

ANGLES_DEG = [0.0, 25.0, 8.0, -8.0]


def setting(rng: np.random.Generator, noise_px: float = 0.0) -> tuple:
    poses = arc(ANGLES_DEG)
    world = cloud(rng, 60)
    asked = problem(poses, world, rng, noise_px=noise_px, odometry=True)
    cameras = {view: rigid.relative(poses[0], T) for view, T in enumerate(poses)}
    points = rigid.transform(rigid.inverse(poses[0]), world)
    held = [
        Held(2, 0, cameras[2], (0.02, 0.01)),
        Held(3, 2, rigid.relative(cameras[2], cameras[3]), (0.03, 0.02)),
    ]
    return asked, cameras, points, held


def shaken(rng: np.random.Generator, cameras: dict, by: float) -> dict:
    return {
        view: T
        if view == 0
        else rigid.make(rotations.so3_exp(rng.normal(0, by, 3)) @ T[:3, :3], T[:3, 3] + rng.normal(0, by, 3))
        for view, T in cameras.items()
    }


def test_the_truth_is_found_again_in_metres() -> None:
    rng = np.random.default_rng(0)
    asked, cameras, points, held = setting(rng)
    guess = shaken(rng, cameras, 0.03)
    found = odometry_bundle.adjust(
        asked, guess, points + rng.normal(0, 0.05, points.shape), all_tracks(4, 60), held, 1.0, Control()
    )
    for view, T in cameras.items():
        assert np.linalg.norm(found.T_reference_camera[view][:3, 3] - T[:3, 3]) < 1e-4
        assert distances.rotation_error_deg(found.T_reference_camera[view][:3, :3], T[:3, :3]) < 1e-3
    assert np.abs(found.error_px).max() < 1e-2
    assert found.views == (1, 2, 3)


def test_a_view_that_shows_nothing_stays_where_odometry_has_it() -> None:
    asked, cameras, points, held = setting(np.random.default_rng(1))
    tracks = all_tracks(4, 60)
    found = odometry_bundle.adjust(
        asked, cameras, points, tracks.where(tracks.view != 3), held, 1.0, Control()
    )
    np.testing.assert_allclose(found.T_reference_camera[3], cameras[3], atol=1e-3)
    covariance = np.linalg.inv(found.information)
    start = 6 * found.views.index(3)
    own = np.sqrt(np.diag(covariance)[start : start + 6])
    assert (own[:3] > 0.029).all()  # as uncertain as odometry, and more
    assert (own[3:] > 0.019).all()


@pytest.mark.parametrize("seed", [2, 3])
def test_step_and_information_are_those_of_the_cost(seed: int) -> None:
    """Newton's quadratic model against the cost itself, points eliminated, along random directions."""
    rng = np.random.default_rng(seed)
    asked, cameras, points, held = setting(rng, noise_px=0.0)
    tracks = all_tracks(4, 60)
    found = odometry_bundle.adjust(asked, cameras, points, tracks, held, 1.0, Control())
    system = NormalEquations(asked, tracks, cameras, len(points), 1.0, 2.0, held)
    for _ in range(4):
        change = rng.normal(0, 1e-4, (3, 6))
        moved, _ = system.moved(cameras, points, change, np.zeros_like(points))
        best = min_over_points(system, moved, points)
        expected = change.ravel() @ found.information @ change.ravel()
        assert best == pytest.approx(expected, rel=0.02)


def min_over_points(system: NormalEquations, cameras: dict, points: np.ndarray) -> float:
    """The cost once every point is where it fits best."""
    for _ in range(3):
        found = system._reduced(cameras, points, 0.0)
        points = points - np.einsum("pij,pj->pi", found.V_inverse, found.g_point)
    return system.cost(cameras, points)


# --- what is known besides pictures


UP = np.array([0.1, -0.97, 0.2]) / np.linalg.norm([0.1, -0.97, 0.2])


def beliefs(cameras: dict) -> list[Belief]:
    """All true."""
    T = cameras[1]
    height_m = float(UP @ T[:3, 3])
    return [
        Held(1, 0, T, (0.02, 0.01)),
        Held(2, 1, rigid.relative(T, cameras[2]), (0.02, 0.01)),
        Level(1, UP, T[:3, :3].T @ UP, height_m, (0.03, 0.01)),
    ]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_beliefs_agree_with_the_truth_and_with_their_jacobians(index: int) -> None:
    rng = np.random.default_rng(4)
    _, cameras, _, _ = setting(rng)
    belief = beliefs(cameras)[index]
    departure, jacobians = belief.departure(cameras)
    np.testing.assert_allclose(departure, 0.0, atol=1e-9)
    for view, J in jacobians.items():
        for axis, column in enumerate(J.T):
            step = 1e-6 * np.eye(6)[axis]
            R = rotations.so3_exp(step[3:]) @ cameras[view][:3, :3]
            moved = {**cameras, view: rigid.make(R, cameras[view][:3, 3] + step[:3])}
            np.testing.assert_allclose(belief.departure(moved)[0] / 1e-6, column, atol=1e-2)


def test_what_is_level_stays_level() -> None:
    """A turn about the vertical is free; pictures that say nothing leave the tilt to the belief."""
    asked, cameras, points, held = setting(np.random.default_rng(5))
    tracks = all_tracks(4, 60)
    silent = tracks.where(tracks.view != 1)
    level = Level(1, UP, cameras[1][:3, :3].T @ UP, float(UP @ cameras[1][:3, 3]), (0.03, 0.01))
    loose = Held(1, 0, cameras[1], (1.0, 0.5))
    found = odometry_bundle.adjust(asked, cameras, points, silent, [*held, level, loose], 1.0, Control())
    covariance = np.linalg.inv(found.information)[:6, :6]
    spin = np.r_[np.zeros(3), UP]
    tilt = np.r_[np.zeros(3), np.cross(UP, [1.0, 0.0, 0.0]) / np.linalg.norm(np.cross(UP, [1.0, 0.0, 0.0]))]
    assert np.sqrt(spin @ covariance @ spin) == pytest.approx(0.5, rel=0.05)
    assert np.sqrt(tilt @ covariance @ tilt) == pytest.approx(0.01, rel=0.05)


def test_wrong_matches_hardly_pull() -> None:
    """A fifth of one view's keypoints are off by one and the same shift: the answer hardly notices."""
    errors_deg = {}
    for shift_px in (0.0, 8.0, 20.0):
        errors_deg[shift_px] = []
        for seed in range(6):
            rng = np.random.default_rng(seed)
            asked, cameras, points, held = setting(rng, noise_px=0.3)
            spoilt = asked.features[1].points.copy()
            spoilt[rng.permutation(60)[:12]] += (shift_px / asked.focal_px(), 0.0)
            features = list(asked.features)
            features[1] = dataclasses.replace(features[1], points=spoilt)
            asked = dataclasses.replace(asked, features=tuple(features))
            found = odometry_bundle.adjust(asked, cameras, points, all_tracks(4, 60), held, 0.3, Control())
            R, R_true = found.T_reference_camera[1][:3, :3], cameras[1][:3, :3]
            errors_deg[shift_px].append(distances.rotation_error_deg(R, R_true))
    right, near, far = (np.mean(errors) for errors in errors_deg.values())
    assert near < 1.3 * right
    assert far < 1.3 * right  # three times as large where all count alike
