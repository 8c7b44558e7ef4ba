# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.stats import binom

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import intervals


@pytest.mark.parametrize(("good", "total"), [(0, 200), (1, 210), (34, 60), (60, 60)])
def test_a_rate_at_its_bounds_is_just_likely(good: int, total: int) -> None:
    low, high = intervals.rate(good, total)
    assert low <= good / total <= high
    assert low == 0.0 if good == 0 else binom.sf(good - 1, total, low) == pytest.approx(0.025)
    assert high == 1.0 if good == total else binom.cdf(good, total, high) == pytest.approx(0.025)


def test_nothing_tried_says_nothing() -> None:
    assert intervals.rate(0, 0) == (0.0, 1.0)
    with pytest.raises(BadInputError):
        intervals.rate(2, 1)


def test_groups_come_together() -> None:
    """Ten numbers that each stand three times are worth ten."""
    values = np.repeat(np.random.default_rng(0).normal(size=10), 3)
    low, high = intervals.bootstrap(values, np.repeat(np.arange(10), 3).tolist(), np.mean, 0)
    narrow_low, narrow_high = intervals.bootstrap(values, range(30), np.mean, 0)
    assert 1.3 < (high - low) / (narrow_high - narrow_low) < 2.2
    assert low < values.mean() < high


def test_it_holds_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(1), 0
    for seed in range(60):
        low, high = intervals.bootstrap(rng.normal(size=60), range(60), np.mean, seed)
        held += low < 0.0 < high
    assert 51 <= held <= 60


def test_pairs_tell_more_than_both_apart() -> None:
    rng = np.random.default_rng(2)
    hard = rng.gamma(2.0, 10.0, 200)
    a, b = hard + 1.0 + rng.normal(size=200), hard + rng.normal(size=200)
    value, (low, high) = intervals.difference(a, b, range(200), np.mean, 0)
    assert value == pytest.approx(np.mean(a) - np.mean(b))
    assert 0.5 < low < value < high < 1.5
    assert high - low < 0.5


def test_what_has_no_interval_is_refused() -> None:
    for values, groups in (([], []), ([1.0], [])):
        with pytest.raises(BadInputError, match="group"):
            intervals.bootstrap(values, groups, np.mean, 0)
    with pytest.raises(BadInputError, match="pairs"):
        intervals.difference([1.0], [1.0, 2.0], [0], np.mean, 0)
