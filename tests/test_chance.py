"""Chance is measured: the most frequent class of what is counted."""

import numpy as np
import pytest

from registers.evals.chance import most_frequent


def test_the_most_frequent_class_is_guessed():
    labels = np.array([3] * 5 + [0] * 3 + [7] * 2)
    assert most_frequent(labels) == 0.5
    assert most_frequent(labels, guesses=2) == 0.8
    assert most_frequent(labels, guesses=5) == 1.0


def test_a_third_of_dogs_are_no_learning():
    """An audit's case: 34.9 % on photos with 33.7 % dogs, printed beside a chance of 10 %."""
    labels = np.concatenate([np.zeros(337, int), np.arange(663) % 9 + 1])
    assert most_frequent(labels) == pytest.approx(0.337)


def test_no_label_has_no_chance():
    with pytest.raises(ValueError, match="chance of 0 labels"):
        most_frequent(np.array([]))
