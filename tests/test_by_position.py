"""What depends on the place in the grid: planted outliers are counted where they lie; mean attention is the bank's."""

import subprocess
import sys

import numpy as np
import pytest
from test_norms import bank_of

from registers.probes.by_position import position_rows


def by_place(rows, metric, token="patch"):
    found = {int(r.x): r.value for r in rows if r.metric == metric and r.token == token}
    assert sorted(found) == list(range(len(found)))
    return np.array([found[i] for i in sorted(found)])


def test_planted_outliers_are_counted_where_they_lie(tmp_path):
    bank, data = bank_of(tmp_path / "bank", outliers=0.1)
    rows = position_rows(bank)
    np.testing.assert_allclose(by_place(rows, "share_above"), data.marks.mean(0))
    assert next(r.value for r in rows if r.metric == "second_mode") == 1
    assert (by_place(rows, "share_tail") <= by_place(rows, "share_above") + 1e-9).all()


def test_without_a_second_mode_only_the_tail_is_mapped(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0)
    rows = position_rows(bank)
    assert {r.metric for r in rows} == {"second_mode", "cutoff", "tail", "share_tail", "attention"}
    assert by_place(rows, "share_tail").mean() == pytest.approx(0.02, abs=0.002)
    cutoff = next(r for r in rows if r.metric == "cutoff")
    assert cutoff.value is None and cutoff.note.startswith("no second mode: ")
    chosen = position_rows(bank, fixed=1.0)
    assert (by_place(chosen, "share_above") == 1).all() and next(
        r.value for r in chosen if r.metric == "second_mode"
    ) == 0


def test_mean_attention_is_the_banks(tmp_path):
    bank, _ = bank_of(tmp_path / "bank", outliers=0.1)
    rows = position_rows(bank)
    for i, token in enumerate(("cls", "reg0", "reg1", "patch")):
        np.testing.assert_allclose(
            by_place(rows, "attention", token), bank.mean_attention[i], rtol=1e-6
        )
        assert 0 < by_place(rows, "attention", token).sum() <= 1 + 1e-6


def test_it_needs_no_torch():
    code = "import sys, registers.probes.by_position; print('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
