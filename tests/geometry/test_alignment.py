# SPDX-License-Identifier: Apache-2.0
"""Alignment of point sets: exact recovery, optimality, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import alignment, rigid, rotations


@given(st.integers(0, 10**6), st.floats(-3.0, 3.0), st.booleans())
def test_umeyama_recovers_an_exact_similarity(seed: int, exponent: float, flat: bool) -> None:
    generator = np.random.default_rng(seed)
    points_b = generator.normal(size=(8, 3)) * ((1.0, 1.0, 0.0) if flat else 1.0)
    T_a_b, scale = rigid.se3_exp(generator.normal(size=6)), 10.0**exponent
    points_a = rigid.transform(T_a_b, scale * points_b)
    found_scale, found = alignment.umeyama(points_a, points_b)
    assert found_scale == pytest.approx(scale, rel=1e-10)
    np.testing.assert_allclose(found, T_a_b, rtol=0, atol=1e-8)


def test_without_scale_it_is_one() -> None:
    points_b = np.random.default_rng(2).normal(size=(5, 3))
    T_a_b = rigid.se3_exp([1.0, 2.0, 3.0, 0.4, 0.5, -0.6])
    scale, found = alignment.umeyama(rigid.transform(T_a_b, points_b), points_b, with_scale=False)
    assert scale == 1.0
    np.testing.assert_allclose(found, T_a_b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("with_scale", [True, False])
def test_no_neighbour_of_the_answer_is_better(with_scale: bool) -> None:
    generator = np.random.default_rng(3)
    points_b = generator.normal(size=(10, 3))
    points_a = 1.7 * points_b + generator.normal(scale=0.5, size=(10, 3))
    scale, T_a_b = alignment.umeyama(points_a, points_b, with_scale)

    def cost(s: float, T: np.ndarray) -> float:
        return float(np.square(points_a - rigid.transform(T, s * points_b)).sum())

    best = cost(scale, T_a_b)
    for step in generator.normal(scale=0.02, size=(200, 7)):
        moved = rigid.make(rotations.so3_exp(step[3:6]) @ T_a_b[:3, :3], T_a_b[:3, 3] + step[:3])
        assert best < cost(scale * (1.0 + step[6] * with_scale), moved)


def test_mirrored_points_still_give_a_rotation() -> None:
    points_b = np.random.default_rng(4).normal(size=(20, 3)) * (3.0, 2.0, 1.0)
    scale, T_a_b = alignment.umeyama(points_b * (1.0, 1.0, -1.0), points_b)
    assert np.linalg.det(T_a_b[:3, :3]) == pytest.approx(1.0)
    assert 0.0 < scale < 1.0


@pytest.mark.parametrize(
    ("points_a", "points_b", "message"),
    [
        (np.eye(3)[:2], np.eye(3)[:2], "three pairs"),
        (np.eye(3), np.ones((4, 3)), "three pairs"),
        (np.eye(3), np.full((3, 3), np.nan), "points_b must be finite"),
        (np.eye(3), np.ones((3, 3)), "points_b lie on one line"),
        (np.outer(np.arange(4.0), (1.0, 2.0, 3.0)) + 5.0, np.eye(4, 3), "points_a lie on one line"),
        (np.eye(3)[:, :2], np.eye(3), "shape"),
        # Spread in both sets, but nothing of one shows in the other.
        (
            [[1, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 1, 0], [0, -1, 0]],
            [[1, 0, 0], [1, 0, 0], [-1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0]],
            "no single rotation",
        ),
    ],
)
def test_what_does_not_determine_a_similarity_is_refused(
    points_a: np.ndarray, points_b: np.ndarray, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        alignment.umeyama(points_a, points_b)
