# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import decisions
from pose_bridge.evaluation.decisions import ranked

SCORES = [0.9, 0.8, 0.8, 0.6, 0.5, -np.inf]
RIGHT = [True, True, False, True, False, True]
FOUND = ranked(SCORES, RIGHT)


def test_accepting_down_to_each_score() -> None:
    np.testing.assert_allclose(FOUND.score, [0.9, 0.8, 0.6, 0.5])
    np.testing.assert_allclose(FOUND.precision, [1.0, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(FOUND.recall, [1 / 6, 2 / 6, 3 / 6, 3 / 6])


def test_numbers_by_hand() -> None:
    assert decisions.average_precision(FOUND) == pytest.approx((1 + 2 / 3 + 3 / 4) / 6)
    assert decisions.recall_at_precision(FOUND) == pytest.approx(1 / 6)
    assert decisions.recall_at_precision(FOUND, 0.75) == 0.5
    assert decisions.recall_at_precision(ranked([0.9, 0.9], [True, False])) == 0.0
    coverage, risk = decisions.risk_coverage(FOUND)
    np.testing.assert_allclose(coverage, [1 / 6, 3 / 6, 4 / 6, 5 / 6])
    np.testing.assert_allclose(risk, [0.0, 1 / 3, 1 / 4, 2 / 5])
    expected = (1 * 0.0 + 2 / 3 + 1 / 4 + 2 / 5) / 5
    assert decisions.area_under_risk(FOUND) == pytest.approx(expected)


def test_recall_where_hardly_a_negative_is_accepted() -> None:
    negatives = [0.85, *[0.1] * 999]
    at = decisions.recall_at_false_positive_rate
    assert at(FOUND, negatives, 0.001) == (0.5, 0.5)
    assert at(FOUND, negatives, 0.0) == (pytest.approx(1 / 6), 0.9)
    assert at(FOUND, [0.95], 0.5) == (0.0, np.inf)
    assert at(ranked([0.9], [False]), [0.1]) == (0.0, 0.9)


def test_an_answer_without_a_right_one_is_wrong() -> None:
    """Two pairs of two places, the one taken for one: precision falls, the recall it counts in does not."""
    found = ranked([0.9, 0.8, 0.7, -np.inf], [True, False, True, False], [True, False, True, False])
    np.testing.assert_allclose(found.precision, [1.0, 1 / 2, 2 / 3])
    np.testing.assert_allclose(found.recall, [1 / 2, 1 / 2, 1.0])
    assert decisions.recall_at_precision(found) == 0.5
    assert decisions.average_precision(found) == pytest.approx((1.0 + 2 / 3) / 2)
    np.testing.assert_allclose(decisions.risk_coverage(found)[0], [1 / 4, 2 / 4, 3 / 4])
    assert np.isnan(decisions.recall_at_precision(ranked([0.9], [False], [False])))


def test_nothing_given_or_nobody_asked() -> None:
    assert decisions.average_precision(ranked([0.5], [False])) == 0.0
    assert decisions.average_precision(ranked([-np.inf], [False])) == 0.0
    assert decisions.recall_at_precision(ranked([-np.inf], [False])) == 0.0
    assert np.isnan(decisions.average_precision(ranked([], [])))
    assert np.isnan(decisions.recall_at_precision(ranked([], [])))
    assert np.isnan(decisions.area_under_risk(ranked([-np.inf], [True])))
    assert np.isnan(decisions.reliability([], []).error)


def test_saying_less_is_no_better() -> None:
    few = decisions.average_precision(ranked([0.9] + [-np.inf] * 99, [True] + [False] * 99))
    assert few == pytest.approx(0.01)


def test_reliability_by_hand() -> None:
    found = decisions.reliability([0.05, 0.95, 0.92, 1.0], [False, True, False, True])
    np.testing.assert_allclose(found.said, [0.05, (0.95 + 0.92 + 1.0) / 3])
    np.testing.assert_allclose(found.came_true, [0.0, 2 / 3])
    assert found.count.tolist() == [1.0, 3.0]
    assert found.error == pytest.approx((0.05 + 3 * abs(2.87 / 3 - 2 / 3)) / 4)


def test_honest_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.0, 1.0, 20000)
    assert decisions.reliability(p, rng.uniform(size=20000) < p).error < 0.015


def test_what_is_no_score_is_refused() -> None:
    for scores, right in (([np.nan], [True]), ([0.5], [True, False])):
        with pytest.raises(BadInputError):
            ranked(scores, right)
    for negatives in ([], [np.nan]):
        with pytest.raises(BadInputError, match="negatives"):
            decisions.recall_at_false_positive_rate(ranked([0.5], [True]), negatives)
    with pytest.raises(BadInputError, match="0 to 1"):
        decisions.reliability([1.5], [True])
