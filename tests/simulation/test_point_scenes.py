# SPDX-License-Identifier: Apache-2.0
"""Simulated questions: repeatable, true to their own geometry, and misleading in the right way."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from point_scenes.scenes import Kind, PointSceneConfig, SimulatedQuestion, simulate

from pose_bridge.errors import ConfigError
from pose_bridge.geometry import distances, epipolar, rigid

SEEDS = range(5)


def of(kind: Kind, **settings: object) -> PointSceneConfig:
    """Scenes of one kind, small enough for a test."""
    small = {"max_points": 400, "clutter": (60, 200), "context": (0, 2)}
    return PointSceneConfig(weights=tuple(float(k is kind) for k in Kind), **{**small, **settings})


@cache
def scene(seed: int, kind: Kind) -> SimulatedQuestion:
    return simulate(seed, of(kind))


def right(question: SimulatedQuestion, a: int, b: int) -> np.ndarray:
    """Which matches of a pair are the same point."""
    rows = question.problem.matches[a, b]
    ids_a, ids_b = question.point_ids[a][rows[:, 0]], question.point_ids[b][rows[:, 1]]
    return (ids_a == ids_b) & (ids_a >= 0)


def test_the_same_seed_draws_the_same_question() -> None:
    first, second, other = simulate(3), simulate(3), simulate(4)
    assert first.kind is second.kind
    for a, b in zip(first.problem.features, second.problem.features, strict=True):
        np.testing.assert_array_equal(a.points_px, b.points_px)
        np.testing.assert_array_equal(a.descriptors, b.descriptors)
    for pair, rows in first.problem.matches.items():
        np.testing.assert_array_equal(rows, second.problem.matches[pair])
    assert first.problem.features[0].points_px.tolist() != other.problem.features[0].points_px.tolist()


@pytest.mark.parametrize("kind", Kind)
def test_the_problem_is_well_formed(kind: Kind) -> None:
    question = scene(1, kind)
    problem, count = question.problem, len(question.problem.views)
    assert question.kind is kind
    assert list(problem.sides[:2]) == [0, 1]
    assert len(problem.features) == len(problem.sides) == len(question.T_reference_camera) == count
    assert set(problem.matches) == {(a, b) for a in range(count) for b in range(a + 1, count)}
    assert (
        len({view.id for view in problem.views}) == len({view.fingerprint for view in problem.views}) == count
    )
    np.testing.assert_allclose(question.T_reference_camera[0], np.eye(4), atol=1e-12)
    for view, found, ids in zip(problem.views, problem.features, question.point_ids, strict=True):
        keypoints = len(found.points_px)
        assert keypoints == len(ids) == found.plain_points
        assert len(found.owner) == len(found.descriptors) == found.plain_descriptors
        assert ((found.owner >= 0) & (found.owner < keypoints)).all()
        assert ((found.points_px >= 0) & (found.points_px <= (view.camera.width, view.camera.height))).all()
        np.testing.assert_array_equal(found.points, view.camera.normalize(found.points_px))
        assert len(set(ids[ids >= 0])) == (ids >= 0).sum()


def test_descriptors_are_like_root_sift() -> None:
    descriptors = scene(1, Kind.SAME_REGION).problem.features[0].descriptors
    assert descriptors.dtype == np.float32
    assert descriptors.shape[1] == 128
    assert (descriptors >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", [Kind.SAME_REGION, Kind.BETWEEN, Kind.PAN])
def test_right_matches_obey_the_true_geometry(kind: Kind) -> None:
    errors_px, wrong_px = [], []
    for seed in SEEDS:
        question = simulate(seed, of(kind, noise_px=(0.5, 0.5), stray=(0.0, 0.0)))
        features, focal_px = question.problem.features, question.problem.focal_px()
        for (a, b), rows in question.problem.matches.items():
            T_b_a = rigid.relative(question.T_reference_camera[b], question.T_reference_camera[a])
            if np.linalg.norm(T_b_a[:3, 3]) < 0.03:
                continue
            x_a, x_b = features[a].points[rows[:, 0]], features[b].points[rows[:, 1]]
            error = focal_px * epipolar.sampson_error(epipolar.essential_from_pose(T_b_a), x_a, x_b)
            same = right(question, a, b)
            errors_px.append(error[same])
            wrong_px.append(error[~same])
    error = np.concatenate(errors_px)
    assert len(error) > 1000
    assert np.sqrt(np.mean(error**2)) == pytest.approx(
        0.5, rel=0.1
    )  # to first order, the noise of one keypoint
    assert np.median(np.concatenate(wrong_px)) > 5.0


def test_another_room_shares_textures_but_no_point() -> None:
    linked = 0
    for seed in SEEDS:
        question = scene(seed, Kind.OTHER_ROOM)
        sides, ids = question.problem.sides, question.point_ids
        here, there = (
            {
                point
                for found, own in zip(ids, sides, strict=True)
                if own == side
                for point in found
                if point >= 0
            }
            for side in (0, 1)
        )
        assert here
        assert there
        assert not here & there
        assert question.T_reference_target is None
        assert np.isnan(question.gap_deg)
        for T, side in zip(question.T_reference_camera, sides, strict=True):
            assert (T is None) == (side == 1)
        linked += max(len(rows) for (a, b), rows in question.problem.matches.items() if sides[a] != sides[b])
    assert linked > 10 * len(SEEDS)  # by what looks alike


def test_matching_falls_off_with_the_angle() -> None:
    shares: dict[bool, list[float]] = {True: [], False: []}
    for seed in SEEDS:
        question = simulate(seed, of(Kind.SAME_REGION, gap_deg=(60.0, 90.0), twins=0.0))
        for (a, b), rows in question.problem.matches.items():
            R_a, R_b = (question.T_reference_camera[view][:3, :3] for view in (a, b))
            angle_deg = distances.rotation_error_deg(R_a, R_b)
            if len(rows) >= 10 and not 15.0 < angle_deg < 50.0:
                shares[angle_deg <= 15.0].append(float(right(question, a, b).mean()))
    assert np.mean(shares[True]) > 0.7
    assert np.mean(shares[False]) < 0.4


def test_the_angle_is_the_rotation_between_the_ends() -> None:
    question = scene(2, Kind.PARTIAL)
    R_reference_target = question.T_reference_target[:3, :3]
    assert question.gap_deg == pytest.approx(distances.rotation_error_deg(R_reference_target, np.eye(3)))


@pytest.mark.parametrize("wrong", [{"weights": (1.0,)}, {"weights": (0.0,) * 7}, {"gap_deg": (90.0, 10.0)}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PointSceneConfig(**wrong)
