# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from synthetic import CAMERA, all_tracks, arc, cloud, problem

from pose_bridge.estimators.base import Problem, scaled_cameras
from pose_bridge.estimators.reflections import contradiction, inside_out
from pose_bridge.geometry import distances, rigid

FAR_M = 400.0
ANGLES_DEG = [0.0, 8.0, 3.0]
Scene = tuple[dict[int, np.ndarray], np.ndarray]


def scene(radius_m: float) -> Scene:
    """Cameras around points, in the frame of the first."""
    T_world = arc(ANGLES_DEG, radius_m)
    points = cloud(np.random.default_rng(0), 50)
    cameras = {view: rigid.relative(T_world[0], T) for view, T in enumerate(T_world)}
    return cameras, rigid.transform(rigid.inverse(T_world[0]), points)


def test_from_far_away_it_looks_the_same() -> None:
    cameras, points = scene(FAR_M)
    other, mirrored = inside_out(cameras, points)
    np.testing.assert_allclose(other[0], np.eye(4), atol=1e-12)
    assert distances.rotation_error_deg(other[1][:3, :3], cameras[1][:3, :3]) > 10.0
    for view, T in cameras.items():
        seen, again = (
            CAMERA.project(rigid.transform(rigid.inverse(pose), at))
            for pose, at in ((T, points), (other[view], mirrored))
        )
        assert np.ptp(seen, axis=0).min() > 1.0
        np.testing.assert_allclose(again, seen, atol=0.02)


def test_twice_it_is_the_scene_again() -> None:
    cameras, points = scene(4.0)
    again, twice = inside_out(*inside_out(cameras, points))
    for view, T in cameras.items():
        assert distances.rotation_error_deg(again[view][:3, :3], T[:3, :3]) < 2.0
    assert np.abs(twice - points).max() < 0.2


def asked(known: str, of: Scene) -> Problem:
    """With odometry on one side, with the depth of each point, or with neither."""
    T_world = arc(ANGLES_DEG)
    rng, world = np.random.default_rng(0), rigid.transform(T_world[0], of[1])
    made = problem(T_world, world, rng, odometry=known == "odometry", sides=[0, 1, 0])
    if known != "depth":
        return made
    views = []
    for view, features, T in zip(made.views, made.features, of[0].values(), strict=True):
        depth_m = np.zeros((CAMERA.height, CAMERA.width), np.float32)
        column, row = features.points_px.astype(int).T
        depth_m[row, column] = rigid.transform(rigid.inverse(T), of[1])[:, 2]
        views.append(dataclasses.replace(view, depth_m=depth_m))
    return dataclasses.replace(made, views=views)


@pytest.mark.parametrize("known", ["odometry", "depth"])
@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_what_is_known_contradicts_it(known: str, factor: float) -> None:
    """In whichever unit."""
    true = scene(4.0)
    question, tracks = asked(known, true), all_tracks(3, len(true[1]))
    right, wrong = (
        contradiction(question, scaled_cameras(cameras, factor), factor * points, tracks)
        for cameras, points in (true, inside_out(*true))
    )
    assert right < 0.2
    assert wrong > 2.5


def test_where_nothing_is_known_nothing_does() -> None:
    cameras, points = scene(4.0)
    assert contradiction(asked("nothing", (cameras, points)), cameras, points, all_tracks(3, 50)) == 0.0
