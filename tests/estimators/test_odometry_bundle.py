# SPDX-License-Identifier: Apache-2.0
"""The adjustment with odometry: its equations, and what odometry adds where pictures are mute."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import all_tracks, arc, cloud, problem

from pose_bridge.estimators import odometry_bundle
from pose_bridge.estimators.odometry_bundle import Held
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
        asked, guess, points + rng.normal(0, 0.05, points.shape), all_tracks(4, 60), held, 1.0
    )
    for view, T in cameras.items():
        assert np.linalg.norm(found.T_reference_camera[view][:3, 3] - T[:3, 3]) < 1e-4
        assert distances.rotation_error_deg(found.T_reference_camera[view][:3, :3], T[:3, :3]) < 1e-3
    assert np.abs(found.error_px).max() < 1e-2
    assert found.views == (1, 2, 3)


def test_a_view_that_shows_nothing_stays_where_odometry_has_it() -> None:
    asked, cameras, points, held = setting(np.random.default_rng(1))
    tracks = all_tracks(4, 60)
    found = odometry_bundle.adjust(asked, cameras, points, tracks.where(tracks.view != 3), held, 1.0)
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
    found = odometry_bundle.adjust(asked, cameras, points, tracks, held, 1.0)
    system = odometry_bundle._System(asked, tracks, held, [1, 2, 3], len(points), 1.0)
    for _ in range(4):
        change = rng.normal(0, 1e-4, (3, 6))
        moved, _ = system.moved(cameras, points, change, np.zeros_like(points))
        best = min_over_points(system, moved, points)
        expected = change.ravel() @ found.information @ change.ravel()
        assert best == pytest.approx(expected, rel=0.02)


def min_over_points(system: odometry_bundle._System, cameras: dict, points: np.ndarray) -> float:
    """The cost once every point is where it fits best."""
    for _ in range(3):
        _, _, V_inverse, _, gradient = system._reduced(cameras, points, 0.0)
        points = points - np.einsum("pij,pj->pi", V_inverse, gradient)
    return system.cost(cameras, points)
