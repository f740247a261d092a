"""What depends on the place: planted outliers are counted where they lie."""

import subprocess
import sys

import numpy as np
import pytest
from test_norms import bank_of

from registers.probes.by_position import position_rows


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
    assert {r.metric for r in rows} == {"second_mode", "cutoff", "tail", "share_tail", "attention"}
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


@pytest.mark.parametrize(
    "module", ["norms", "by_position", "token_class", "neighbours", "position"]
)
def test_a_probe_of_a_bank_needs_no_torch(module):
    code = f"import sys, registers.probes.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
