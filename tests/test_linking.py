# SPDX-License-Identifier: Apache-2.0
"""A walk along a long wall: neighbouring views overlap, distant ones do not."""

import dataclasses
import itertools
import threading

import cv2
import numpy as np
import pytest

from pose_bridge import linking
from pose_bridge.config import Config, ContextConfig, FeaturesConfig
from pose_bridge.control import Control
from pose_bridge.errors import BudgetSpentError, CancelledError
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.linking import Linker
from pose_bridge.views import Question, View

CAMERA = Camera.from_focal_px(160.0, 160, 120)
STEP_PX = 40


def _wall() -> np.ndarray:
    rng = np.random.default_rng(0)
    total = np.zeros((120, 900))
    for sigma in (1.5, 3.0, 6.0):
        total += sigma * cv2.GaussianBlur(rng.normal(0.0, 1.0, total.shape), (0, 0), sigma)
    return np.clip(127 + 50 * total / total.std(), 0, 255).astype(np.uint8)


WALL = _wall()


def at(step: int, name: str | None = None) -> View:
    left = step * STEP_PX
    image = np.repeat(WALL[:, left : left + 160, None], 3, axis=2)
    return View(id=name or f"v{step}", image=image, camera=CAMERA)


def asked(
    left: tuple[View, ...] = (), right: tuple[View, ...] = (), far: int = 9, **more: object
) -> Question:
    return Question(
        reference=at(0), target=at(far), reference_context=left, target_context=right, **{"seed": 5, **more}
    )


def linker(**settings: int) -> Linker:
    config = Config(
        context=ContextConfig(**{"wide_pairs": 4, **settings}),
        features=FeaturesConfig(max_features=200, tilt_max_features=100, tilt_directions=2),
    )
    return Linker(config, FeatureStore(config.features, config.views), PairVerifier(config.sfm))


LEFT = tuple(map(at, (1, 2, 3)))
RIGHT = tuple(map(at, (8, 6, 5)))


def test_the_ends_alone() -> None:
    problem = linker().pair(asked(LEFT, RIGHT, far=1), Control())
    assert [view.id for view in problem.views] == ["v0", "v1"]
    assert list(problem.sides) == [0, 1]
    assert len(problem.matches[0, 1]) > 50
    assert problem.seed == 5


def test_the_side_of_the_reference_and_the_target() -> None:
    problem = linker().reference_side(asked(LEFT, RIGHT), Control())
    assert {view.id for view in problem.views} == {"v0", "v9", "v1", "v2", "v3"}
    assert [view.id for view in problem.views[:2]] == ["v0", "v9"]
    assert list(problem.sides) == [0, 1, 0, 0, 0]


def test_context_holds_both_sides_and_every_pair() -> None:
    problem = linker().context(asked(LEFT, RIGHT), Control())
    assert [view.id for view in problem.views[:2]] == ["v0", "v9"]
    side = {view.id: int(side) for view, side in zip(problem.views, problem.sides, strict=True)}
    assert side == {"v0": 0, "v9": 1, "v1": 0, "v2": 0, "v3": 0, "v8": 1, "v6": 1, "v5": 1}
    assert set(problem.matches) == set(itertools.combinations(range(8), 2))
    for (a, b), pairs in problem.matches.items():
        assert pairs[:, 0].max(initial=-1) < len(problem.features[a].points)
        assert pairs[:, 1].max(initial=-1) < len(problem.features[b].points)
        if len(pairs) > 30:  # along the wall, keypoints move by as many pixels as the views are apart
            moved = problem.features[a].points_px[pairs[:, 0]] - problem.features[b].points_px[pairs[:, 1]]
            steps = [int(problem.views[view].id[1:]) for view in (a, b)]
            assert np.median(moved[:, 0]) == pytest.approx((steps[1] - steps[0]) * STEP_PX, abs=0.5)


def test_duplicates_are_dropped_and_the_ends_are_not() -> None:
    again = (at(1, "v1 again"), at(0, "reference again"), at(9, "target again"))
    problem = linker().context(asked((*LEFT, *again), (*RIGHT, at(3, "on the other side too"))), Control())
    ids = {view.id for view in problem.views}
    assert ids == {"v0", "v9", "v1", "v2", "v3", "v8", "v6", "v5"}
    prints = [view.fingerprint for view in problem.views]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("limit", [2, 3, 5, 8])
def test_no_more_views_than_asked_for(limit: int) -> None:
    made = linker(max_views=limit, wide_pairs=0)
    both, one = (
        made.context(asked(LEFT, RIGHT), Control()),
        made.reference_side(asked(LEFT, RIGHT), Control()),
    )
    assert len(both.views) == limit
    assert len(one.views) <= limit
    for problem in (both, one):
        assert [view.id for view in problem.views[:2]] == ["v0", "v9"]
        assert list(problem.sides[:2]) == [0, 1]


def test_the_views_kept_are_those_that_lead_across() -> None:
    problem = linker(max_views=6, wide_pairs=0).context(asked(LEFT, RIGHT), Control())
    assert {"v3", "v5"} <= {view.id for view in problem.views}


@pytest.fixture
def matched_wide(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Names of the pairs that are matched with simulated tilts from now on."""
    used: set[tuple[str, str]] = set()
    matches = FeatureStore.matches

    def listen(self: FeatureStore, a: View, b: View, *, wide: bool = False) -> np.ndarray:
        if wide:
            used.add((a.id, b.id))
        return matches(self, a, b, wide=wide)

    monkeypatch.setattr(FeatureStore, "matches", listen)
    return used


@pytest.mark.parametrize("pairs", [0, 4, 8])
def test_only_so_many_pairs_are_matched_with_tilts(matched_wide: set[tuple[str, str]], pairs: int) -> None:
    linker(wide_pairs=pairs, strong_link=10000).context(asked(LEFT, RIGHT), Control())
    assert len(matched_wide) <= 3 * pairs  # and, of each, the pair of either view with its neighbour
    assert bool(matched_wide) == bool(pairs)


def test_a_strong_link_is_left_alone(matched_wide: set[tuple[str, str]]) -> None:
    linker(wide_pairs=8, strong_link=8).context(asked(LEFT, RIGHT), Control())
    assert not matched_wide
    linker(wide_pairs=8, strong_link=8).context(asked(LEFT, RIGHT[:1]), Control())
    assert matched_wide  # from v3 to v8 nothing leads


def test_a_gap_that_nothing_crosses_is_not_matched_for_ever(matched_wide: set[tuple[str, str]]) -> None:
    elsewhere = [
        dataclasses.replace(at(step), id=f"e{step}", image=np.ascontiguousarray(255 - at(step).image[::-1]))
        for step in (3, 4, 5, 6)
    ]
    question = Question(
        reference=at(0),
        target=elsewhere[0],
        reference_context=(at(1), at(2), at(3)),
        target_context=tuple(elsewhere[1:]),
    )
    linker(wide_pairs=16).context(question, Control())
    assert {b for a, b in matched_wide if a[0] != b[0]}
    assert len(matched_wide) <= linking.HOPELESS


def test_keypoints_keep_their_numbers_when_tilts_are_added() -> None:
    """Matches of pairs that were not matched again still name the same keypoints."""
    question = asked(LEFT, RIGHT)
    plain = linker(wide_pairs=0).context(question, Control())
    wide = linker(wide_pairs=8, strong_link=10000).context(question, Control())
    assert [v.id for v in plain.views] == [v.id for v in wide.views]
    grown = 0
    for one, other in zip(plain.features, wide.features, strict=True):
        np.testing.assert_array_equal(one.points_px, other.points_px[: len(one.points_px)])
        grown += len(other.points_px) > len(one.points_px)
    assert grown > 0


def test_same_question_same_problem_whatever_was_asked_before() -> None:
    made = linker()
    made.reference_side(asked(RIGHT), Control())
    made.pair(asked(far=1), Control())
    for one, other in zip(
        made.context(asked(LEFT, RIGHT), Control()).matches.items(),
        linker().context(asked(LEFT, RIGHT), Control()).matches.items(),
        strict=True,
    ):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])


def test_stopped() -> None:
    cancelled = threading.Event()
    cancelled.set()
    late = Control()
    late.start(-1.0)
    for build in (linker().pair, linker().reference_side, linker().context):
        with pytest.raises(CancelledError):
            build(asked(LEFT, RIGHT), Control(cancelled))
        with pytest.raises(BudgetSpentError):
            build(asked(LEFT, RIGHT), late)


def test_views_of_another_size_are_fine() -> None:
    big = cv2.resize(at(1).image, (320, 240), interpolation=cv2.INTER_CUBIC)
    view = View(id="big", image=big, camera=CAMERA.resize(320, 240))
    problem = linker().pair(dataclasses.replace(asked(), target=view), Control())
    assert len(problem.matches[0, 1]) > 30
    pairs = problem.matches[0, 1]
    moved = problem.features[0].points[pairs[:, 0]] - problem.features[1].points[pairs[:, 1]]
    np.testing.assert_allclose(np.median(moved, axis=0), [STEP_PX / 160.0, 0.0], atol=0.003)


# --- two rigid sides


def driven(step: int, side_m: float) -> View:
    T = rigid.make(np.eye(3), [0.2 * step, side_m, 0.0])
    return dataclasses.replace(at(step), T_side_camera=T)


def test_rigs_match_all_across_and_a_few_beside() -> None:
    question = Question(
        reference=driven(0, 0.0),
        target=driven(9, 5.0),
        reference_context=tuple(driven(step, 0.0) for step in (1, 2, 3)),
        target_context=tuple(driven(step, 5.0) for step in (8, 7)),
        upright=True,
        common_ground=True,
        mapped=True,
    )
    problem = linker().rigs(question, Control())
    sides = np.array(problem.sides)
    assert sides.tolist() == [0, 1, 0, 0, 0, 1, 1]
    across = {pair for pair in problem.matches if sides[pair[0]] != sides[pair[1]]}
    assert len(across) == 4 * 3
    assert all(a < b for a, b in problem.matches)
    assert {pair for pair in problem.matches if pair not in across} >= {(0, 2), (1, 5)}
    assert problem.level
    assert problem.mapped
    plain = sum(map(len, problem.matches.values()))
    wide = linker().rigs_wide(question, Control())
    assert wide.matches.keys() == problem.matches.keys()
    assert sum(map(len, wide.matches.values())) > plain


def test_rigs_leave_out_what_is_there_twice_or_too_small() -> None:
    small = dataclasses.replace(
        driven(2, 0.0), id="small", image=np.zeros((20, 30, 3), np.uint8), camera=CAMERA.resize(30, 20)
    )
    again = dataclasses.replace(driven(1, 0.0), id="v1 again")
    question = Question(
        reference=driven(0, 0.0),
        target=driven(9, 5.0),
        reference_context=(driven(1, 0.0), again, small),
        target_context=(driven(8, 5.0),),
    )
    for build in (linker().rigs, linker().rigs_wide):
        problem = build(question, Control())
        assert [view.id for view in problem.views] == ["v0", "v9", "v1", "v8"]
        assert problem.sides == (0, 1, 0, 1)


@pytest.mark.parametrize("known", ["upright", "common_ground"])
def test_level_only_where_both_are_known(known: str) -> None:
    question = Question(reference=driven(0, 0.0), target=driven(3, 0.0), **{known: True})
    assert not linker().rigs(question, Control()).level
