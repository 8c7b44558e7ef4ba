# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from synthetic import all_tracks, arc, cloud, problem

from pose_bridge import scale
from pose_bridge.config import ScaleConfig, TwoViewConfig
from pose_bridge.estimators import bundle
from pose_bridge.estimators.base import Estimate, Problem
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.geometry import rigid
from pose_bridge.scale import NoScaleError, Scale
from pose_bridge.views import Reason, ScaleSource, Stage

ANGLES_DEG = [0.0, 40.0, 10.0, 30.0]
SIDES = [0, 1, 0, 1]
POINTS = 120
UNIT_M = float(np.linalg.norm(rigid.relative(*arc(ANGLES_DEG[:2]))[:3, 3]))  # the estimate's unit of length


def asked(odometry: str = "both", seed: int = 0, **views: object) -> Problem:
    """Views on an arc, with odometry on the sides that are named, each in a frame of its own."""
    rng = np.random.default_rng(seed)
    made = problem(arc(ANGLES_DEG), cloud(rng, POINTS), rng, noise_px=0.5, odometry=True, sides=SIDES)
    kept = [
        dataclasses.replace(
            view,
            T_side_camera=_moved(view.T_side_camera, side) if odometry in ("both", str(side)) else None,
            **views,
        )
        for view, side in zip(made.views, SIDES, strict=True)
    ]
    return dataclasses.replace(made, views=kept)


def _moved(T: np.ndarray, side: int) -> np.ndarray:
    return rigid.se3_exp([5.0, -3.0, 2.0, 0.3, 0.2, -0.1]) @ T if side else T


def with_poses(before: Problem, change: dict[int, np.ndarray]) -> Problem:
    views = [
        dataclasses.replace(view, T_side_camera=change.get(index, view.T_side_camera))
        for index, view in enumerate(before.views)
    ]
    return dataclasses.replace(before, views=views)


def estimate(sigma: float = 1e-4, **known: object) -> Estimate:
    """The true cameras in units of the baseline, all errors independent."""
    T_world = arc(ANGLES_DEG)
    unit = UNIT_M
    cameras = {k: rigid.relative(T_world[0], T) for k, T in enumerate(T_world)}
    cameras = {k: rigid.make(T[:3, :3], T[:3, 3] / unit) for k, T in cameras.items()}
    rng = np.random.default_rng(0)
    points = rigid.transform(rigid.inverse(T_world[0]), cloud(rng, POINTS)) / unit
    return Estimate(
        **{
            "stage": Stage.CONTEXT,
            "estimator": "by hand",
            "T_reference_camera": cameras,
            "tracks": all_tracks(4, POINTS),
            "points": points,
            "rms_px": 0.5,
            "joint_covariance": sigma**2 * np.eye(18),
            "covariance_views": (1, 2, 3),
            **known,
        }
    )


def found(of: Problem, guess: Estimate, **settings: float) -> Scale:
    return scale.metric_scale(of, guess, ScaleConfig(**settings))


def refused(of: Problem, guess: Estimate, reason: Reason, **settings: float) -> str:
    with pytest.raises(NoScaleError) as error:
        found(of, guess, **settings)
    assert error.value.reason is reason
    return str(error.value)


# --- odometry


@pytest.mark.parametrize(
    ("sides", "says"), [("0", ["reference"]), ("1", ["target"]), ("both", ["reference", "target"])]
)
def test_odometry_of_either_side_or_both(sides: str, says: list[str]) -> None:
    got = found(asked(sides), estimate())
    assert got.known
    assert got.source is ScaleSource.ODOMETRY
    assert got.factor == pytest.approx(UNIT_M, rel=1e-6)
    assert got.sigma == pytest.approx(0.02, rel=0.01)  # the same wheels on both sides
    for side in ("reference", "target"):
        assert (side in got.name) == (side in says)


def test_nothing_known_is_no_scale() -> None:
    refused(asked("none"), estimate(), Reason.NO_SCALE)


def test_one_view_with_a_pose_says_nothing() -> None:
    before = asked("0")
    views = [before.views[0], *(dataclasses.replace(v, T_side_camera=None) for v in before.views[1:])]
    refused(dataclasses.replace(before, views=views), estimate(), Reason.NO_SCALE)


def test_poses_of_different_sides_are_not_compared() -> None:
    """One posed view a side: their odometry frames have nothing to do with each other."""
    before = asked()
    views = [dataclasses.replace(v, T_side_camera=None) if k > 1 else v for k, v in enumerate(before.views)]
    refused(dataclasses.replace(before, views=views), estimate(), Reason.NO_SCALE)


@pytest.mark.parametrize("moved_m", [0.0, 0.05])
def test_a_side_that_only_turned_does_not_veto(moved_m: float) -> None:
    before = asked()
    T = before.views[1].T_side_camera
    turned = with_poses(before, {3: rigid.make(T[:3, :3], T[:3, 3] + [moved_m, 0.0, 0.0])})
    got = found(turned, estimate())
    assert got.factor == pytest.approx(UNIT_M, rel=1e-6)
    assert "target" not in got.name
    both = with_poses(turned, {2: before.views[0].T_side_camera})
    refused(both, estimate(), Reason.NO_SCALE)


def stretched(before: Problem, view: int, other: int, factor: float) -> Problem:
    """The distance from `other` to `view` multiplied."""
    T, origin = before.views[view].T_side_camera, before.views[other].T_side_camera[:3, 3]
    return with_poses(before, {view: rigid.make(T[:3, :3], origin + factor * (T[:3, 3] - origin))})


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.2, 3.0])
def test_sides_that_contradict_each_other(factor: float) -> None:
    text = refused(stretched(asked(), 3, 1, factor), estimate(), Reason.SCALE_CONFLICT)
    assert "reference" in text
    assert "target" in text
    assert f"{1 / factor:.3f}" in text


def test_sides_that_differ_a_little_are_averaged() -> None:
    got = found(stretched(asked(), 3, 1, 1.05), estimate(0.0))
    assert got.factor == pytest.approx(UNIT_M * np.sqrt(1.05), rel=1e-6)  # equally sure: geometric mean
    assert got.sigma == pytest.approx(0.02, rel=1e-3)
    refused(stretched(asked(), 3, 1, 1.05), estimate(0.0), Reason.SCALE_CONFLICT, max_disagreement_sigma=1.0)


def test_a_side_that_is_surer_counts_more() -> None:
    covariance = np.zeros((18, 18))
    covariance[12, 12] = 0.01**2  # view 3, on the target's side
    guess = estimate(joint_covariance=covariance)
    got = found(stretched(asked(), 3, 1, 1.05), guess)
    assert UNIT_M * 0.999 < got.factor < UNIT_M * np.sqrt(1.05)


def test_a_scale_too_uncertain_is_none() -> None:
    text = refused(asked("0"), estimate(sigma=1.0), Reason.NO_SCALE)
    assert "%" in text
    found(asked("0"), estimate(sigma=0.01))
    refused(asked("0"), estimate(sigma=0.01), Reason.NO_SCALE, max_scale_sigma=0.02)


def test_what_is_not_defined_has_no_length() -> None:
    refused(asked(), estimate(translation_defined=False), Reason.NO_SCALE)


def test_unknown_is_not_known() -> None:
    nothing = scale.unknown("why")
    assert not nothing.known
    assert nothing.source is ScaleSource.NONE
    assert nothing.name == "why"


def test_sigma_of_odometry_matches_monte_carlo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate's own error of the side's baseline, in units of the ends' baseline, without odometry's."""
    monkeypatch.setattr(bundle, "PATCHES_COUNT", 0.0)
    T_world = arc(ANGLES_DEG)
    T_true = {k: rigid.relative(T_world[0], T) for k, T in enumerate(T_world)}
    start = {k: rigid.make(T[:3, :3], T[:3, 3] / UNIT_M) for k, T in T_true.items()}
    ratios = []
    for seed in range(100):
        of = asked("0", seed)
        rng = np.random.default_rng(seed)
        points = rigid.transform(rigid.inverse(T_world[0]), cloud(rng, POINTS)) / UNIT_M
        guess = bundle.adjust(
            TwoViewEstimator(TwoViewConfig()), of, start, points, all_tracks(4, POINTS), max_error_px=10.0
        )
        got = found(of, guess, odometry_sigma=0.0001)
        ratios.append(np.log(got.factor / UNIT_M) / got.sigma)
    assert 0.8 < np.std(ratios) < 1.25
    assert abs(np.mean(ratios)) < 0.4


# --- depth


def with_depth(
    before: Problem, guess: Estimate, views: list[int], factor: float, spread: float = 0.0
) -> Problem:
    """Depth images that hold the true depth at the keypoints, and nothing elsewhere."""
    rng = np.random.default_rng(1)
    made = list(before.views)
    for view in views:
        local = rigid.transform(rigid.inverse(guess.T_reference_camera[view]), guess.points)
        depth = np.full((480, 640), np.nan, np.float32)
        columns, rows = before.features[view].points_px.astype(int).T
        depth[rows, columns] = factor * local[:, 2] * np.exp(rng.normal(0.0, spread, len(local)))
        made[view] = dataclasses.replace(made[view], depth_m=depth)
    return dataclasses.replace(before, views=made)


def test_depth_of_any_view_gives_metres() -> None:
    for view in range(4):
        got = found(with_depth(asked("none"), estimate(), [view], 2.5), estimate())
        assert got.source is ScaleSource.DEPTH
        assert got.factor == pytest.approx(2.5, rel=0.02)
        assert f"v{view}" in got.name
        assert got.sigma >= 0.02


def test_views_of_one_depth_camera_err_together() -> None:
    """However many there are, the factor that they have in common stays."""
    one = found(with_depth(asked("none"), estimate(), [0], 2.0, 0.3), estimate())
    two = found(with_depth(asked("none"), estimate(), [0, 1], 2.0, 0.3), estimate())
    shared = ScaleConfig().depth_sigma
    assert shared < two.sigma < one.sigma
    own, own_of_two = one.sigma**2 - shared**2, two.sigma**2 - shared**2
    assert own_of_two == pytest.approx(own / 2, rel=0.5)


def test_depth_and_odometry_must_agree() -> None:
    got = found(with_depth(asked("0"), estimate(), [1], UNIT_M), estimate())
    assert got.factor == pytest.approx(UNIT_M, rel=0.02)
    assert got.sigma < 0.02
    refused(with_depth(asked("0"), estimate(), [1], 1.3 * UNIT_M), estimate(), Reason.SCALE_CONFLICT)
    apart = with_depth(with_depth(asked("none"), estimate(), [0], 2.0), estimate(), [1], 3.0)
    refused(apart, estimate(), Reason.SCALE_CONFLICT)


def test_holes_in_depth_say_nothing() -> None:
    for nothing in (np.nan, 0.0, -1.0, np.inf):
        depth = np.full((480, 640), nothing, np.float32)
        refused(asked("none", depth_m=depth), estimate(), Reason.NO_SCALE)
    few = with_depth(asked("none"), estimate(), [0], 2.0)
    refused(few, estimate(), Reason.NO_SCALE, min_depth_points=POINTS + 1)


def test_wrong_depths_here_and_there_do_no_harm() -> None:
    before = with_depth(asked("none"), estimate(), [0], 2.0)
    depth = before.views[0].depth_m.copy()
    rows, columns = np.nonzero(np.isfinite(depth))
    depth[rows[::4], columns[::4]] *= 5.0  # flying pixels
    views = [dataclasses.replace(before.views[0], depth_m=depth), *before.views[1:]]
    assert found(dataclasses.replace(before, views=views), estimate()).factor == pytest.approx(2.0, rel=0.02)


def test_scattered_depths_make_it_less_sure() -> None:
    sigmas = [
        found(with_depth(asked("none"), estimate(), [0], 2.0, spread), estimate()).sigma
        for spread in (0.0, 0.1, 0.3)
    ]
    assert sigmas == sorted(sigmas)
    assert sigmas[2] == pytest.approx(np.hypot(0.02, 1.2533 * 0.3 / np.sqrt(POINTS)), rel=0.3)
