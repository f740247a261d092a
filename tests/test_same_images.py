"""Kinds of patches are compared by class, on images that have all of them."""

import numpy as np
import pytest

from registers.models.sequence import split_tokens
from registers.probes import token_class
from registers.probes.kinds import Kind
from registers.vocabulary import NORMAL, OUTLIER, TAIL

IMAGES = 160


def rows_of(label="class"):
    """Outliers are in the first half of the images; there alone no patch says the class.

    The background's colour is readable everywhere.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, IMAGES)
    colour = rng.integers(0, 2, IMAGES)
    first_half = np.arange(IMAGES) < IMAGES // 2
    tokens = 0.01 * rng.standard_normal((IMAGES, 5, 4))
    tokens[:, :, 1] += colour[:, None]
    tokens[~first_half, 1:, 0] += 4 * (2 * labels[~first_half, None] - 1)
    tokens[first_half, 1, 2] += 2 * labels[first_half] - 1
    has = np.zeros((IMAGES, 4), dtype=bool)
    has[first_half, 0] = True
    kinds = [Kind(NORMAL, ~has, ""), Kind(OUTLIER, has, "")]
    rows = token_class.classify(
        split_tokens(tokens, 0),
        kinds,
        {label: labels, "colour": colour},
        backbone="b",
        draws=2,
        strengths=np.array([1.0]),
    )
    return {(row.metric, row.token, row.data): row for row in rows}


def test_kinds_are_compared_on_the_same_images():
    rows = rows_of()
    assert rows["top1", NORMAL, "class"].value > 0.65  # mostly from images without an outlier
    assert rows["top1_main", NORMAL, ""].value < 0.65
    assert rows["top1_main", OUTLIER, ""].value > 0.95
    assert rows["top1_main", NORMAL, ""].n == rows["top1_main", OUTLIER, ""].n


def test_attributes_of_the_background_are_no_class():
    rows = rows_of()
    assert rows["top1", NORMAL, "colour"].value > 0.95
    assert rows["top1_mean", NORMAL, ""].value > rows["top1_main", NORMAL, ""].value
    unnamed = rows_of(label="shade")
    assert unnamed["top1_main", NORMAL, ""].value is None
    assert "no label set" in unnamed["top1_main", NORMAL, ""].note


def test_the_largest_spread_is_kept():
    rows = rows_of()
    spreads = [row.value for (metric, token, _), row in rows.items()
               if (metric, token) == ("top1_std", NORMAL)]  # fmt: skip
    assert rows["top1_std_max", NORMAL, ""].value == pytest.approx(max(spreads))


def test_the_tail_leaves_no_image_out():
    """It is a quantile that few images have: without outliers all test images count."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, IMAGES)
    tokens = rng.standard_normal((IMAGES, 5, 4))
    everything = np.ones((IMAGES, 4), dtype=bool)
    few = everything & (np.arange(IMAGES) < 20)[:, None]
    kinds = [Kind(NORMAL, everything, ""), Kind(OUTLIER, None, "none"), Kind(TAIL, few, "")]
    rows = token_class.classify(
        split_tokens(tokens, 0),
        kinds,
        {"class": labels},
        backbone="b",
        draws=2,
        strengths=np.array([1.0]),
    )
    tested = {row.token: row.n for row in rows if row.metric == "top1_main"}
    assert tested["cls"] == tested[NORMAL] == IMAGES // 2
    assert tested[TAIL] < 20
