"""Intervals: the bootstrap over images covers the truth as often as it promises."""

import numpy as np
import pytest
from scipy.stats import binomtest

from registers import intervals
from registers.intervals import bootstrap, bootstrap_mean, wilson


def test_bootstrap_covers_the_truth_as_often_as_it_promises(monkeypatch):
    """Images share an effect among their tokens.

    Treating tokens as independent would cover far less than 95 %.
    """
    monkeypatch.setattr(intervals, "DRAWS", 200)
    rng = np.random.default_rng(3)
    covered = naive = 0
    for trial in range(200):
        values = rng.normal(size=(60, 1)) + 0.2 * rng.normal(size=(60, 10))
        _, low, high = bootstrap_mean(values.sum(1), np.full(60, 10), seed=trial)
        covered += low <= 0 <= high
        _, low, high = bootstrap_mean(values.ravel(), seed=trial)
        naive += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99
    assert naive / 200 < 0.7


def test_bootstrap_is_a_mean_over_tokens():
    value, low, high = bootstrap_mean([2.0, 0.0, 9.0], [4, 0, 2])
    assert value == pytest.approx(11 / 6)
    assert low <= value <= high
    assert bootstrap_mean([3.0] * 5) == pytest.approx((3.0, 3.0, 3.0))
    assert bootstrap_mean(np.arange(9.0)) == bootstrap_mean(np.arange(9.0))  # seeded


def test_nothing_to_count_is_named():
    with pytest.raises(ValueError, match="bootstrap of 0 images"):
        bootstrap_mean([1.0, 2.0], [0, 0])


def test_the_interval_of_any_statistic_covers_what_theory_gives():
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = bootstrap(lambda weights: weights @ values / weights.sum(1), 400)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 20), (50, 50), (512, 1024)])
def test_wilson_equals_scipy(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, "wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-6)
