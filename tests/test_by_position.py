"""What depends on the place: planted outliers are counted where they lie."""

import subprocess
import sys

import numpy as np
import pytest
from test_norms import bank_of

from registers.probes.by_position import (
    attention_of_sample,
    border_of,
    map_distance,
    position_rows,
    stripes,
    support,
)


def by_place(rows, metric, token="patch"):
    """Values of one metric, row by row of the grid."""
    placed = {r.at: r.value for r in rows if (r.metric, r.token) == (metric, token)}
    assert sorted(placed) == list(range(len(placed)))
    return np.array([placed[position] for position in sorted(placed)])


def the(rows, metric):
    (row,) = (r for r in rows if r.metric == metric)
    return row


def test_planted_outliers_are_counted_where_they_lie(tmp_path):
    bank, data = bank_of(tmp_path / "bank", outliers=0.1)
    rows = position_rows(bank)
    np.testing.assert_allclose(by_place(rows, "share_above"), data.marks.mean(0))
    assert the(rows, "second_mode").value == 1
    assert (by_place(rows, "share_tail") <= by_place(rows, "share_above") + 1e-9).all()
    assert {r.coordinate for r in rows if r.at is not None} == {"patch"}
    assert {r.question for r in rows} == {"by_position"}


def test_without_a_second_mode_only_the_tail_is_mapped(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0)
    rows = position_rows(bank)
    metrics = {r.metric for r in rows}
    assert metrics.isdisjoint({"share_above", "border_share", "stripes", "highest_share"})
    assert metrics >= {"second_mode", "cutoff", "tail", "share_tail", "stripes_tail", "attention"}
    assert by_place(rows, "share_tail").mean() == pytest.approx(0.02, abs=0.002)
    cutoff = the(rows, "cutoff")
    assert cutoff.value is None
    assert cutoff.note.startswith("no second mode: ")


def test_a_cutoff_chosen_by_hand_is_mapped_all_the_same(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0)
    rows = position_rows(bank, fixed=1.0)
    assert (by_place(rows, "share_above") == 1).all()
    assert the(rows, "second_mode").value == 0


def test_mean_attention_is_the_banks(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0.1)
    rows = position_rows(bank)
    for number, token in enumerate(("cls", "reg0", "reg1", "patch")):
        attention = by_place(rows, "attention", token)
        np.testing.assert_allclose(attention, bank.mean_attention[number], rtol=1e-6)
        assert 0 < attention.sum() <= 1 + 1e-6


def test_the_samples_attention_is_what_the_banks_mean_is_made_of(tmp_path):
    """So that its spread over images is that of the maps that are shown."""
    bank, _ = bank_of(tmp_path / "bank", outliers=0, sample=60)
    maps = attention_of_sample(bank)
    assert maps.shape == (60, 4, 16)
    np.testing.assert_allclose(maps.mean(0), bank.mean_attention, atol=2e-4)  # q, k are float16


def test_what_is_said_of_maps_has_an_interval_over_images(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0.1, sample=60)
    rows = position_rows(bank)
    for row in [r for r in rows if r.metric in ("support", "map_distance", "highest_share")]:
        assert row.low <= row.value <= row.high
    (broad,) = (r for r in rows if (r.metric, r.token) == ("support", "patch"))
    assert broad.low < broad.high < broad.low + 0.1


@pytest.mark.parametrize(
    "module", ["norms", "by_position", "token_class", "neighbours", "position"]
)
def test_a_probe_of_a_bank_needs_no_torch(module):
    code = f"import sys, registers.probes.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- statistics on planted maps


def planted_mask(side, images, columns=None, border=0.02, inside=0.02, seed=0):
    """(images, side, side) outliers, drawn with a probability for each position."""
    rate = np.full((side, side), inside)
    rate[border_of((side, side)).reshape(side, side)] = border
    if columns is not None:
        rate = rate * columns
    return np.random.default_rng(seed).random((images, side, side)) < rate


@pytest.mark.parametrize("side, images", [(8, 512), (16, 5000)])
def test_a_border_makes_no_stripes(side, images):
    """An audit's case: outliers at the border alone counted as stripes of 2.6 and 18.1."""
    for seed in range(5):
        assert stripes(planted_mask(side, images, border=0.2, seed=seed)) < 2.5
        assert stripes(planted_mask(side, images, seed=seed)) < 2.5


def test_a_smooth_change_from_the_border_inwards_makes_no_stripes():
    side = 16
    away = np.minimum(np.arange(side), np.arange(side)[::-1])
    columns = np.exp(-away / 3) * 5
    for seed in range(5):
        assert stripes(planted_mask(side, 5000, columns=columns, seed=seed)) < 2.5


@pytest.mark.parametrize("side, images", [(8, 512), (16, 5000)])
def test_stripes_are_seen(side, images):
    """Three to one, column by column; and 7/16 of a cycle per patch, as 16 to 7 weighs them."""
    alternating = np.where(np.arange(side) % 2, 1.5, 0.5)
    wave = 1 + 0.9 * np.cos(2 * np.pi * 7 / 16 * np.arange(side))
    for columns in (alternating, wave):
        for border in (0.02, 0.2):
            assert stripes(planted_mask(side, images, columns, border=border)) > 2.5


def test_images_that_are_alike_make_no_stripes():
    """Tokens of one image are not independent: whole columns of one image are one sample."""
    draw = np.random.default_rng(0)
    mask = np.repeat(draw.random((200, 1, 16)) < 0.1, 16, axis=1)
    assert stripes(mask) < 2.5


def test_too_small_a_grid_has_no_answer():
    assert stripes(np.ones((10, 4, 4), dtype=bool)) is None
    assert stripes(np.zeros((10, 8, 8), dtype=bool)) is None


def test_support_and_distance_by_hand():
    assert support(np.full(16, 0.01)) == pytest.approx(1)
    assert support(np.eye(16)[3] + 1e-12) == pytest.approx(1 / 16)
    half = np.array([1.0, 1.0, 0.0, 0.0])
    assert map_distance(np.stack([half, half * 3])) == 0
    assert map_distance(np.stack([half, half[::-1]])) == 1
    assert map_distance(np.stack([half, half, half[::-1]])) == pytest.approx(2 / 3)
