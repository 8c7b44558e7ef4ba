# SPDX-License-Identifier: Apache-2.0
"""Questions in rendered rooms: repeatable, their truth true, each kind what it says."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from pose_bridge.errors import ConfigError
from pose_bridge.geometry import rigid
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.questions import DrawnQuestion, Kind, QuestionSettings, draw, twins
from pose_bridge.views import View

STYLE = 31


def of(kind: Kind, **settings: object) -> QuestionSettings:
    known = {"context": (1, 1), "odometry": 1.0, "depth": 1.0, "handheld": 0.0, **settings}
    return QuestionSettings(weights=tuple(float(k is kind) for k in Kind), **known)


@cache
def drawn(kind: Kind, handheld: float = 0.0) -> DrawnQuestion:
    return draw(STYLE, 0, 1, of(kind, gap_deg=(15.0, 20.0), handheld=handheld))


def share_in_place(a: View, b: View, T_a_b: np.ndarray) -> float:
    """Of a's points that b should show, the share that has the depth there that b measured."""
    rows, columns = np.mgrid[4 : a.camera.height : 8, 4 : a.camera.width : 8]
    pixels = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    depth_m = a.depth_m[rows.ravel(), columns.ravel()]
    points = np.c_[a.camera.normalize(pixels), np.ones(len(pixels))] * depth_m[:, None]
    there = rigid.transform(rigid.inverse(T_a_b), points[np.isfinite(depth_m)])
    there = there[there[:, 2] > 0.1]
    column, row = (there[:, :2] / there[:, 2:] * b.camera.K[[0, 1], [0, 1]] + b.camera.K[:2, 2]).astype(int).T
    inside = (column >= 0) & (column < b.camera.width) & (row >= 0) & (row < b.camera.height)
    measured = b.depth_m[row[inside], column[inside]]
    ratio = (measured / there[inside, 2])[np.isfinite(measured)]
    assert len(ratio) > 100
    return float((np.abs(ratio - 1.0) < 0.06).mean())


def test_the_same_seeds_draw_the_same_question() -> None:
    first, second = drawn(Kind.SAME_REGION), draw(STYLE, 0, 1, of(Kind.SAME_REGION, gap_deg=(15.0, 20.0)))
    assert first.question.reference.fingerprint == second.question.reference.fingerprint
    np.testing.assert_array_equal(first.question.target.depth_m, second.question.target.depth_m)
    np.testing.assert_array_equal(first.T_reference_target, second.T_reference_target)


@pytest.mark.parametrize("handheld", [0.0, 1.0])
def test_the_truth_puts_the_points_of_one_end_where_the_other_sees_them(handheld: float) -> None:
    asked = drawn(Kind.SAME_REGION, handheld)
    reference, target = asked.question.reference, asked.question.target
    assert share_in_place(reference, target, asked.T_reference_target) > 0.6
    askew = asked.T_reference_target @ rigid.make(np.eye(3), np.array([0.0, 0.0, 1.0]))
    assert share_in_place(reference, target, askew) < 0.3


@pytest.mark.parametrize("handheld", [0.0, 1.0])
def test_odometry_says_how_the_views_of_a_side_lie(handheld: float) -> None:
    question = drawn(Kind.SAME_REGION, handheld).question
    for end, (view,) in (
        (question.reference, question.reference_context),
        (question.target, question.target_context),
    ):
        assert share_in_place(end, view, rigid.relative(end.T_side_camera, view.T_side_camera)) > 0.6


def test_a_robot_stays_level_and_a_hand_does_not() -> None:
    for handheld, level in ((0.0, True), (1.0, False)):
        question = drawn(Kind.SAME_REGION, handheld).question
        T_end_view = rigid.relative(question.target.T_side_camera, question.target_context[0].T_side_camera)
        up = question.target.T_side_camera[2, :3]
        assert bool(abs(T_end_view[:3, :3].T @ up - up).max() < 0.02) is level


def test_the_gap_is_what_was_asked_for() -> None:
    assert 5.0 < drawn(Kind.SAME_REGION).gap_deg < 35.0
    wide = draw(STYLE, 0, 2, of(Kind.SAME_REGION, gap_deg=(80.0, 80.0), context=(0, 0)))
    assert 60.0 < wide.gap_deg < 100.0
    assert draw(STYLE, 0, 2, of(Kind.AWAY, context=(0, 0))).gap_deg > 90.0


def test_another_room_has_no_answer() -> None:
    asked = drawn(Kind.OTHER_ROOM)
    assert asked.T_reference_target is None
    assert np.isnan(asked.gap_deg)


def test_twins_are_equal_and_not_the_same() -> None:
    room, other = Room(STYLE, 0), Room(STYLE, 1)
    for pairs, same in ((twins(room, room), True), (twins(room, other), False)):
        assert len(pairs)
        np.testing.assert_array_equal(pairs[:, 0, 2], pairs[:, 1, 2])
        if same:
            assert (np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1) > 0.1).all()
    assert drawn(Kind.TWINS).T_reference_target is not None


def test_what_nobody_measured_is_not_there() -> None:
    question = draw(STYLE, 0, 3, of(Kind.SAME_REGION, odometry=0.0, depth=0.0, context=(2, 2))).question
    views = [question.reference, question.target, *question.reference_context, *question.target_context]
    assert len(views) == len({view.id for view in views}) == 6
    assert all(view.T_side_camera is None and view.depth_m is None for view in views)


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": (1.0,)},
        {"weights": (0.0,) * len(Kind)},
        {"gap_deg": (20.0, 10.0)},
        {"context": (-1, 2)},
        {"odometry": 1.5},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        QuestionSettings(**settings)
