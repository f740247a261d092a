"""Rows on norms: counts add up, planted outliers give their share, no outliers a reason."""

from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakeDataset, fake_backbone

from registers.bank import TokenBank
from registers.probes import norms
from registers.probes.norms import norm_rows
from registers.tokens import write_bank
from registers.vocabulary import bin_edges

SIZES = dict(images=60, sample=2, batch=30, size=16, progress=False)


def bank_of(folder, outliers: float, registers: int = 2, **sizes) -> tuple[TokenBank, FakeDataset]:
    data = FakeDataset(images=60, outliers=outliers)
    backbone = fake_backbone(registers, name=f"dinov2-r{registers}-s0")
    return write_bank(folder, backbone, data, **SIZES | sizes), data


def last_layer(rows) -> dict:
    """Rows on patches after the last block, by metric."""
    return {r.metric: r for r in rows if (r.token, r.layer, r.coordinate) == ("patch", 2, "")}


def test_planted_share_and_its_interval(tmp_path):
    bank, data = bank_of(tmp_path / "bank", outliers=0.1)
    rows = last_layer(norm_rows(bank))
    share = rows["share"]
    assert share.value == pytest.approx(data.marks.mean())
    assert share.low < share.value < share.high
    assert share.n == 60
    assert rows["second_mode"].value == 1
    patches = bank.patch_norms()
    assert patches[~data.marks].max() < rows["cutoff"].value < patches[data.marks].min()
    peak = rows["max_over_median"]
    assert peak.value == pytest.approx(patches.max() / np.median(patches))
    assert peak.low <= peak.value <= peak.high * (1 + 1e-9)


def test_the_level_of_outliers_is_their_median_not_their_largest(tmp_path):
    """An audit's case: a mode at 3 times the median and six freak tokens at 10."""
    rng = np.random.default_rng(0)
    values = 40 * np.exp(0.1 * rng.standard_normal((128, 256)))
    values[rng.random(values.shape) < 0.02] *= 3
    values[:6, 0] = 400
    level, (low, high) = norms._level(values, 80.0)
    assert level == pytest.approx(3, rel=0.05)
    assert low < level < high < 3.5


def test_the_first_layer_with_outliers(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0.1)
    rows = last_layer(norm_rows(bank))
    assert rows["first_layer"].value in (0.5, 1.0)  # planted after the last of two blocks


def test_registers_with_norms_of_their_own_are_quantised():
    rng = np.random.default_rng(0)
    own = np.array([10.0, 20.0, 30.0, 40.0])
    assert norms.between_share(own + 0.1 * rng.standard_normal((200, 4))) > 0.99
    assert norms.between_share(25 + 5 * rng.standard_normal((200, 4))) < 0.05
    assert norms.between_share(np.ones((200, 1))) is None


def test_what_is_said_of_registers_has_an_interval_over_images(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0)
    rows = {r.metric: r for r in norm_rows(bank) if r.token == "registers"}
    assert set(rows) == {"registers_over_patches", "register_quantisation"}
    assert all(row.low <= row.value <= row.high for row in rows.values())
    assert rows["registers_over_patches"].low < rows["registers_over_patches"].high


def test_no_second_mode_is_a_reason_not_a_zero(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0)
    rows = last_layer(norm_rows(bank))
    for metric in ("cutoff", "share"):
        assert rows[metric].value is None
        assert rows[metric].note.startswith("no second mode: ")
    assert rows["second_mode"].value == 0
    assert rows["high_norm_tail"].value > 0
    by_hand = last_layer(norm_rows(bank, fixed=1.0))["share"]
    assert by_hand.value == 1
    assert by_hand.note == "fixed"


def test_histograms_count_every_token_once(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0.1)
    rows = norm_rows(bank)
    counts = [r for r in rows if r.metric == "count"]
    last = {("patch", 2), ("cls", 2), ("reg0", 2), ("reg1", 2)}
    assert {(r.token, r.layer) for r in counts} == {("patch", 1)} | last
    bins = [r for r in counts if (r.token, r.layer) == ("patch", 2)]
    assert sum(r.value for r in bins) == 60 * 16 == bins[0].n
    patches = bank.patch_norms()
    for row in bins:
        low, high = bin_edges(row.at)
        inside = (patches >= low * (1 - 1e-9)) & (patches < high * (1 - 1e-9))
        assert row.value == inside.sum()
        assert (row.coordinate, row.low, row.high) == ("norm", None, None)
    assert last_layer(rows)["q50"].value == pytest.approx(np.median(patches))


def test_measure_takes_the_cutoff_of_the_settings(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0)
    settings = SimpleNamespace(cutoff_of={"dinov2-r2-s0": 1.0}.get)
    measured = norms.measure(bank, [], settings)
    assert measured.rows == norm_rows(bank, fixed=1.0)
    assert measured.arrays is None
    assert {row.question for row in measured.rows} == {"norms"}
