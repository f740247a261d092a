"""Intervals: the bootstrap over images covers the truth as often as it promises."""

import numpy as np
import pytest

from registers import intervals
from registers.intervals import bootstrap_mean


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
