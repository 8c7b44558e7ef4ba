# SPDX-License-Identifier: Apache-2.0
"""The vote on how two level sides lie: a few true matches among many, and one thing does not outvote many."""

from __future__ import annotations

import numpy as np
import pytest

from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, CancelledError
from pose_bridge.estimators import voting
from pose_bridge.estimators.voting import Sights
from pose_bridge.geometry import distances, rigid, rotations

TOLERANCE_RAD = 0.02
NOBODY = Sights(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)), TOLERANCE_RAD)


def level(turn_rad: float, x_m: float, y_m: float) -> np.ndarray:
    return rigid.make(rotations.so3_exp([0.0, 0.0, turn_rad]), [x_m, y_m, 0.0])


def sights(rng: np.random.Generator, T_first_second: np.ndarray, points_m: np.ndarray) -> Sights:
    """Points of the first side as an observer near the origin of the second one sees them."""
    origins = rng.uniform([-0.3, -0.3, 0.6], [0.3, 0.3, 0.6], (len(points_m), 3))
    rays = rigid.transform(rigid.inverse(T_first_second), points_m) - origins
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    rays += rng.normal(0.0, 0.003, rays.shape)
    return Sights(points_m, origins, rays / np.linalg.norm(rays, axis=1, keepdims=True), TOLERANCE_RAD)


def chance(rng: np.random.Generator, count: int) -> Sights:
    """Matches that are none."""
    rays = rng.normal(0.0, [1.0, 1.0, 0.3], (count, 3))
    points = rng.uniform([-3.0, -3.0, 0.0], [3.0, 3.0, 2.0], (count, 3))
    origins = rng.uniform([-0.3, -0.3, 0.6], [0.3, 0.3, 0.6], (count, 3))
    return Sights(points, origins, rays / np.linalg.norm(rays, axis=1, keepdims=True), TOLERANCE_RAD)


def together(*parts: Sights) -> Sights:
    arrays = [np.concatenate([getattr(p, n) for p in parts]) for n in ("points_m", "origins_m", "rays")]
    return Sights(*arrays, TOLERANCE_RAD)


def assert_same(T_a: np.ndarray, T_b: np.ndarray) -> None:
    assert distances.rotation_error_deg(T_a[:3, :3], T_b[:3, :3]) < 1.0
    assert np.linalg.norm(T_a[:3, 3] - T_b[:3, 3]) < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_one_in_thirty_is_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T = level(rng.uniform(-3.0, 3.0), *rng.uniform(-1.5, 1.5, 2))
    points = rng.uniform([-3.0, -3.0, 0.0], [3.0, 3.0, 1.8], (40, 3))
    found = voting.alignments(together(sights(rng, T, points), chance(rng, 1200)), NOBODY, 5, Control())
    assert_same(found[0][0], T)
    supports = [support for _, support in found]
    assert supports == sorted(supports, reverse=True)
    assert supports[0] > 1.5 * supports[1]


def test_points_of_the_other_side_say_the_same() -> None:
    rng = np.random.default_rng(5)
    T = level(1.0, 0.5, -0.8)
    points = rng.uniform([-3.0, -3.0, 0.0], [3.0, 3.0, 1.8], (30, 3))
    seen = sights(rng, rigid.inverse(T), points)
    (best, _), *_ = voting.alignments(NOBODY, together(seen, chance(rng, 200)), 3, Control())
    assert_same(best, T)


def test_a_thing_that_stands_elsewhere_too_does_not_outvote_the_room() -> None:
    """Two hundred matches in one direction against thirty all around."""
    rng = np.random.default_rng(6)
    T, T_twin = level(0.4, 1.0, 0.5), level(2.4, -1.0, 1.5)
    around = rng.uniform([-3.0, -3.0, 0.0], [3.0, 3.0, 1.8], (30, 3))
    thing = rng.uniform([2.0, -2.0, 0.0], [2.6, -1.4, 1.0], (200, 3))
    both = together(sights(rng, T, around), sights(rng, T_twin, thing), chance(rng, 200))
    found = voting.alignments(both, NOBODY, 10, Control())
    assert_same(found[0][0], T)
    assert any(np.linalg.norm(T_other[:3, 3] - T_twin[:3, 3]) < 0.3 for T_other, _ in found[1:])


def test_each_alignment_once() -> None:
    rng = np.random.default_rng(7)
    T = level(0.0, 0.0, 0.0)
    points = rng.uniform([-3.0, -3.0, 0.0], [3.0, 3.0, 1.8], (200, 3))
    found = [T_other for T_other, _ in voting.alignments(sights(rng, T, points), NOBODY, 20, Control())]
    for index, T_a in enumerate(found):
        for T_b in found[:index]:
            far_m = np.linalg.norm(T_a[:3, 3] - T_b[:3, 3])
            assert far_m > 0.5 or distances.rotation_error_deg(T_a[:3, :3], T_b[:3, :3]) > 5.0


def test_no_matches_no_alignment() -> None:
    assert voting.alignments(NOBODY, NOBODY, 5, Control()) == []


def test_all_are_level() -> None:
    rng = np.random.default_rng(8)
    for T, _ in voting.alignments(chance(rng, 300), NOBODY, 10, Control()):
        np.testing.assert_allclose(T[2], [0.0, 0.0, 1.0, 0.0], atol=1e-12)


def test_it_ends_when_it_is_told_to() -> None:
    """A vote of many matches takes seconds."""

    class Told(Control):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks > 1:
                raise CancelledError("told to")

    control = Told()
    with pytest.raises(CancelledError):
        voting.alignments(chance(np.random.default_rng(9), 300), NOBODY, 10, control)
    assert control.checks == 2
    control = Control()
    control.start(0.0)
    with pytest.raises(BudgetSpentError):
        voting.alignments(chance(np.random.default_rng(9), 300), NOBODY, 10, control)
