"""Rows on norms: counts add up, planted outliers give their share, their absence is said with its reason."""

import numpy as np
import pytest
from fakes import MEAN, STD, FakeDataset, fake_backbone

from registers.bank import TokenBank
from registers.probes.norms import PER_DECADE, norm_rows
from registers.tokens import write_bank


def bank_of(folder, outliers: float, registers: int = 2) -> tuple[TokenBank, FakeDataset]:
    data = FakeDataset(images=60, outliers=outliers)
    backbone = fake_backbone(registers, name=f"dinov2-r{registers}-s0")
    return write_bank(
        folder,
        backbone,
        data,
        images=60,
        sample=2,
        batch=30,
        size=16,
        mean=MEAN,
        std=STD,
        progress=False,
    ), data


def table(rows) -> dict:
    return {(r.question, r.metric, r.token, r.layer): r for r in rows if r.metric != "count"}


def test_planted_share_and_its_interval(tmp_path):
    bank, data = bank_of(tmp_path / "bank", outliers=0.1)
    found = table(norm_rows(bank))
    share = found["outliers", "share", "patch", 2]
    assert (
        share.value == pytest.approx(data.marks.mean())
        and share.low < share.value < share.high
        and share.n == 60
    )
    assert found["outliers", "second_mode", "patch", 2].value == 1
    norms = bank.split_norms(2).patches
    cutoff = found["outliers", "cutoff", "patch", 2].value
    assert norms[~data.marks].max() < cutoff < norms[data.marks].min()
    peak = found["outliers", "max_over_median", "patch", 2]
    assert peak.low <= peak.value == pytest.approx(
        norms.max() / np.median(norms)
    ) and peak.value <= peak.high * (1 + 1e-9)


def test_no_second_mode_is_a_reason_not_a_zero(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0)
    found = table(norm_rows(bank))
    for metric in ("cutoff", "share"):
        row = found["outliers", metric, "patch", 2]
        assert row.value is None and row.note.startswith("no second mode: ")
    assert found["outliers", "second_mode", "patch", 2].value == 0
    assert found["outliers", "high_norm_tail", "patch", 2].value > 0
    given = table(norm_rows(bank, fixed=1.0))["outliers", "share", "patch", 2]
    assert given.value == 1 and given.note == "fixed"


def test_histograms_count_every_token_once(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0.1)
    rows = norm_rows(bank)
    counts = [r for r in rows if r.metric == "count"]
    assert {(r.token, r.layer) for r in counts} == {
        ("patch", 1),
        ("patch", 2),
        ("cls", 2),
        ("reg0", 2),
        ("reg1", 2),
    }
    patches = [r for r in counts if (r.token, r.layer) == ("patch", 2)]
    assert sum(r.value for r in patches) == 60 * 16 == patches[0].n
    norms = bank.split_norms(2).patches
    for r in patches:
        assert r.low < r.x < r.high and r.high / r.low == pytest.approx(10 ** (1 / PER_DECADE))
        assert r.value == ((norms >= r.low * (1 - 1e-9)) & (norms < r.high * (1 - 1e-9))).sum()
    median = table(rows)["norms", "q50", "patch", 2].value
    assert median == pytest.approx(np.median(norms))
