"""What maps look like, as numbers: planted artifacts raise them, smooth blobs do not."""

import numpy as np
import pytest
import torch

from registers.evals.lost import lost
from registers.evals.map_statistics import overlap, peak, roughness, top_count
from registers.evals.maps import map_rows

SIDE = 16


def blob(side=SIDE, width=4.0):
    """A smooth map with its centre in the middle, as attention to an object has."""
    place = np.arange(side) - (side - 1) / 2
    return np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * width**2)) + 0.1


def with_spots(smooth, count=5, height=20.0, seed=0):
    """The same with single patches far above: artifacts."""
    spotted = smooth.copy()
    places = np.random.default_rng(seed).choice(smooth.size, count, replace=False)
    spotted.ravel()[places] = height * np.median(smooth)
    return spotted, places


def test_artifacts_are_peaks_and_blobs_are_not():
    smooth = blob()
    spotted, _ = with_spots(smooth)
    assert peak(smooth.reshape(1, -1))[0] < 8 < peak(spotted.reshape(1, -1))[0]


def test_roughness_orders_maps():
    noise = np.random.default_rng(0).standard_normal((1, SIDE, SIDE))
    smooth = blob()
    spotted, _ = with_spots(smooth)
    assert roughness(smooth[None])[0] < 0.1
    assert roughness(spotted[None])[0] > 3 * roughness(smooth[None])[0]
    assert roughness(noise)[0] == pytest.approx(1, abs=0.15)


def test_lost_steps_are_rough_where_artifacts_are_planted():
    """An object apart from its background, without and with a few odd patches of large norm."""
    rng = np.random.default_rng(0)
    side = 20
    thing = np.zeros((side, side))
    thing[5:15, 5:15] = 1
    features = 0.2 * rng.standard_normal((side * side, 16))
    features[:, 0] += np.where(thing.ravel(), -1.0, 1.0)
    odd = features.copy()
    places = rng.choice(side * side, 10, replace=False)
    odd[places] = 8 * rng.standard_normal((10, 16))
    clean, dirty = (lost(torch.tensor(x), (side, side), k=50) for x in (features, odd))
    for step, factor in (("score", 1.2), ("expansion", 2)):
        smooth, rough = (
            roughness(getattr(steps, step).reshape(1, side, side).astype(float))[0]
            for steps in (clean, dirty)
        )
        assert rough > factor * smooth, step


def test_overlap_says_whether_high_norms_are_attended():
    attention, places = with_spots(blob(), height=30)
    norms = np.ones(SIDE * SIDE)
    norms[places] = 10
    draw = np.random.default_rng(1)
    unrelated = draw.random((50, SIDE * SIDE))
    assert top_count(SIDE * SIDE) == 5
    assert overlap(attention.reshape(1, -1), norms[None])[0] == 1
    assert overlap(unrelated, draw.random(unrelated.shape)).mean() == pytest.approx(0.02, abs=0.02)


def maps(attention, norms, heads=None):
    """Arrays of one image, as evals.maps keeps them; two registers."""
    attention = np.stack(attention)[None]
    return {
        "backbone": np.array("dinov2-r2-s0"),
        "queries": np.array(["cls", "reg0", "reg1", "patch"]),
        "attention": attention,
        "heads": attention[:, :2] if heads is None else np.stack(heads)[None],
        "norms": norms[None],
        "components": np.stack([blob() - blob().mean()] * 3)[None],
    }


def values(arrays):
    return {(row.metric, row.token): row.value for row in map_rows(arrays, 4, "planted")}


def test_rows_of_artifacts_and_of_their_absence():
    smooth = blob()
    spotted, places = with_spots(smooth, height=30)
    norms = np.ones((SIDE, SIDE))
    norms.ravel()[places] = 10
    left = np.pad(np.ones((SIDE, SIDE // 2)), ((0, 0), (0, SIDE // 2)), constant_values=0.1)
    dirty = values(maps([spotted, left, left[:, ::-1], smooth], norms, heads=[spotted, smooth]))
    clean = values(maps([smooth, left, left, smooth], np.ones((SIDE, SIDE))))
    assert dirty["attention_peak", "cls"] > 3 * clean["attention_peak", "cls"]
    assert dirty["attention_share_2", "cls"] > 3 * clean["attention_share_2", "cls"]
    assert dirty["attention_on_norms", "cls"] == 1
    assert dirty["norm_peak", "patch"] == 10 and clean["norm_peak", "patch"] == 1
    assert dirty["least_head_on_norms", "cls"] < 0.5 < dirty["range_of_heads_on_norms", "cls"]
    assert dirty["map_correlation", "registers"] == pytest.approx(-1)
    assert clean["map_correlation", "registers"] == pytest.approx(1)
