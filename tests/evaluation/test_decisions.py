# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import decisions

SCORES = [0.9, 0.8, 0.8, 0.6, 0.5, -np.inf]
RIGHT = [True, True, False, True, False, True]


def test_accepting_down_to_each_score() -> None:
    found = decisions.ranked(SCORES, RIGHT)
    np.testing.assert_allclose(found.score, [0.9, 0.8, 0.6, 0.5])
    np.testing.assert_allclose(found.precision, [1.0, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(found.recall, [1 / 6, 2 / 6, 3 / 6, 3 / 6])


def test_numbers_by_hand() -> None:
    assert decisions.average_precision(SCORES, RIGHT) == pytest.approx((1 + 2 / 3 + 3 / 4) / 6)
    assert decisions.recall_at_precision(SCORES, RIGHT) == pytest.approx(1 / 6)
    assert decisions.recall_at_precision(SCORES, RIGHT, 0.75) == 0.5
    assert decisions.recall_at_precision([0.9, 0.9], [True, False]) == 0.0
    coverage, risk = decisions.risk_coverage(SCORES, RIGHT)
    np.testing.assert_allclose(coverage, [1 / 6, 3 / 6, 4 / 6, 5 / 6])
    np.testing.assert_allclose(risk, [0.0, 1 / 3, 1 / 4, 2 / 5])
    expected = (1 * 0.0 + 2 / 3 + 1 / 4 + 2 / 5) / 5
    assert decisions.area_under_risk(SCORES, RIGHT) == pytest.approx(expected)


def test_recall_where_hardly_a_negative_is_accepted() -> None:
    negatives = [0.85, *[0.1] * 999]
    at = decisions.recall_at_false_positive_rate
    assert at(SCORES, RIGHT, negatives, 0.001) == (0.5, 0.5)
    assert at(SCORES, RIGHT, negatives, 0.0) == (pytest.approx(1 / 6), 0.9)
    assert at(SCORES, RIGHT, [0.95], 0.5) == (0.0, np.inf)
    assert at([0.9], [False], [0.1]) == (0.0, 0.9)


def test_nothing_given_or_nobody_asked() -> None:
    assert decisions.average_precision([0.5], [False]) == 0.0
    assert decisions.average_precision([-np.inf], [False]) == 0.0
    assert decisions.recall_at_precision([-np.inf], [False]) == 0.0
    assert np.isnan(decisions.average_precision([], []))
    assert np.isnan(decisions.recall_at_precision([], []))
    assert np.isnan(decisions.area_under_risk([-np.inf], [True]))
    assert np.isnan(decisions.reliability([], []).error)


def test_saying_less_is_no_better() -> None:
    few = decisions.average_precision([0.9] + [-np.inf] * 99, [True] + [False] * 99)
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
            decisions.ranked(scores, right)
    for negatives in ([], [np.nan]):
        with pytest.raises(BadInputError, match="negatives"):
            decisions.recall_at_false_positive_rate([0.5], [True], negatives)
    with pytest.raises(BadInputError, match="0 to 1"):
        decisions.reliability([1.5], [True])
