"""Claims against measurements with a planted truth.

What holds is reproduced, what fails is contradicted, and noise is inconclusive.
"""

from pathlib import Path

import pandas as pd
import planted
import pytest

from registers import claims
from registers.claims import CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE, REPRODUCED
from registers.measurements import COLUMNS

FILE = Path(__file__).parents[1] / "paper" / "claims.yaml"
CLAIMS = {claim["id"]: claim for claim in claims.load(FILE)}
SIZES = ("tiny", "small", "base", "large", "huge", "giant")


def judged(name, tmp_path, *groups):
    """The verdict on a claim, from groups of rows (one file each)."""
    return claims.verdict(CLAIMS[name], planted.frame(tmp_path, *groups))


def norms(*names, outliers=0.0, registers=0):
    """Rows of question "norms" of several backbones with a share of outliers."""
    groups = [
        planted.norms(name, outliers=outliers, registers=registers, layers=2) for name in names
    ]
    return [row for rows in groups for row in rows]


def accuracies(question, half=0.02, **values):
    """One row per backbone: accuracies("linear", dinov2_r0_s0=0.5)."""
    return [
        planted.accuracy(question, name.replace("_", "-"), value, half=half)
        for name, value in values.items()
    ]


# --- outliers -------------------------------------------------------------------------------------


def test_outliers_that_registers_remove(tmp_path):
    before = norms("dinov2-r0-s0", "deit3-r0-s0", outliers=0.024)
    after = norms("dinov2-r4-s0", "deit3-r4-s0")
    result = judged("registers-remove-outliers", tmp_path, before, after)
    assert result.verdict == REPRODUCED
    assert "second mode is 0 for 2 of 2" in result.reason
    assert any("smoke/norms" in run for run in result.runs)


def test_outliers_that_registers_leave(tmp_path):
    before = norms("dinov2-r0-s0", "deit3-r0-s0", outliers=0.024)
    after = norms("dinov2-r4-s0") + norms("deit3-r4-s0", outliers=0.02)
    result = judged("registers-remove-outliers", tmp_path, before, after)
    assert result.verdict == CONTRADICTED
    assert "second mode is 0 for 1 of 2, not for deit3-r4-s0" in result.reason


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if "given" in claim])
def test_without_a_second_mode_claims_about_outliers_are_not_testable(tmp_path, name):
    names = [
        "dinov2-r0-s0",
        "dinov2-r1-s0",
        "dinov2-r4-s0",
        "dinov2-r0-s0-at025",
        "dinov2-tiny-r0-s0",
    ]
    result = judged(name, tmp_path, norms(*names))
    assert result.verdict == NOT_TESTABLE
    assert "no second mode" in result.reason
    assert result.numbers
    assert all(line.startswith("max over median") for line in result.numbers)


@pytest.mark.parametrize("first, expected", [("large", REPRODUCED), ("base", CONTRADICTED)])
def test_only_large_models_have_outliers(tmp_path, first, expected):
    names = [f"dinov2-{size}-r0-s0" for size in SIZES]
    start = SIZES.index(first)
    small = norms(*names[:start])
    large = norms(*names[start:], outliers=0.02)
    assert judged("outliers-in-large-models", tmp_path, small, large).verdict == expected


@pytest.mark.parametrize("early, expected", [(0.0, REPRODUCED), (0.02, CONTRADICTED)])
def test_outliers_appear_late_in_training(tmp_path, early, expected):
    late = norms("dinov2-r0-s0", "dinov2-r0-s0-at050", outliers=0.02)
    at_a_quarter = norms("dinov2-r0-s0-at025", outliers=early)
    assert judged("outliers-appear-late", tmp_path, late, at_a_quarter).verdict == expected


@pytest.mark.parametrize(
    "share, expected", [(0.02, REPRODUCED), (0.1, CONTRADICTED), (0.04, INCONCLUSIVE)]
)
def test_share_of_outliers(tmp_path, share, expected):
    """The planted interval is 0.8 to 1.2 times the share."""
    rows = norms("dinov2-r0-s0", outliers=share)
    assert judged("outliers-are-few", tmp_path, rows).verdict == expected


# --- accuracies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after, half, expected",
    [
        (0.60, 0.001, REPRODUCED),
        (0.595, 0.001, REPRODUCED),  # half a point is within the margin
        (0.50, 0.001, CONTRADICTED),
        (0.60, 0.050, INCONCLUSIVE),
        (0.50, 0.200, INCONCLUSIVE),
    ],
)
def test_linear_not_worse(tmp_path, after, half, expected):
    before = accuracies("linear", half, deit3_r0_s0=0.6, dinov2_r0_s0=0.6)
    with_registers = accuracies("linear", half, deit3_r4_s0=0.9, dinov2_r4_s0=after)
    result = judged("linear-not-worse", tmp_path, before, with_registers)
    assert result.verdict == expected
    assert "no rows: linear top1" in result.reason  # OpenCLIP: named, but it does not count


def test_missing_rows_are_not_testable(tmp_path):
    rows = accuracies("linear", dinov2_r0_s0=0.5)
    result = judged("zero-shot-unchanged", tmp_path, rows)
    assert result.verdict == NOT_TESTABLE
    assert "no rows" in result.reason


@pytest.mark.parametrize(
    "change, expected",
    [(0.0, REPRODUCED), (0.03, CONTRADICTED), (-0.03, CONTRADICTED), (0.01, INCONCLUSIVE)],
)
def test_zero_shot_unchanged(tmp_path, change, expected):
    rows = accuracies("zeroshot", 0.002, openclip_r0_s0=0.5, openclip_r4_s0=0.5 + change)
    assert judged("zero-shot-unchanged", tmp_path, rows).verdict == expected


def test_seeds_widen_the_interval(tmp_path):
    one = accuracies("linear", 0.001, dinov2_r0_s0=0.5, dinov2_r16_s0=0.52)
    other = accuracies("linear", 0.001, dinov2_r0_s1=0.6, dinov2_r16_s1=0.62)
    assert judged("linear-improves-with-more", tmp_path, one).verdict == REPRODUCED
    assert judged("linear-improves-with-more", tmp_path, one, other).verdict == INCONCLUSIVE


# --- exact numbers and operations -----------------------------------------------------------------


@pytest.mark.parametrize("slope, expected", [(0.004, REPRODUCED), (0.006, CONTRADICTED)])
def test_exact_numbers_need_no_interval(tmp_path, slope, expected):
    result = judged("flops-of-four", tmp_path, planted.cost(slope=slope))
    assert result.verdict == expected
    assert f"macs increase ViT-L/14@224, registers 4: {4 * slope:g}" in result.numbers


def test_difference_agrees_with_newcombes_example():
    """56/70 - 48/80 from Wilson's intervals, without continuity correction: 0.0524 to 0.3339.

    Source: Newcombe 1998, table II, (a), method 10.
    """
    a = claims.Estimate(56 / 70, 0.6918, 0.8769)
    b = claims.Estimate(48 / 80, 0.4904, 0.7005)
    gap = claims.difference(a, b)
    assert gap.low == pytest.approx(0.0524, abs=5e-4)
    assert gap.high == pytest.approx(0.3339, abs=5e-4)


def test_claims_have_unique_names():
    assert len(CLAIMS) == len(claims.load(FILE))


@pytest.mark.parametrize(
    "operation, message",
    [
        ('{evaluate: "1 + 1"}', "claim x: operation evaluate; must be one of"),
        ("{within: 1}", "claim x: operation missing; must be one of"),
        ('{compare: [1, "!=", 2]}', 'claim x: compare "!="; must be one of <, >, >=, ='),
        ("{every: [{evaluate: 1}]}", "claim x: operation evaluate"),
    ],
)
def test_an_unknown_operation_is_one_clear_line(tmp_path, operation, message):
    path = tmp_path / "claims.yaml"
    path.write_text(f"- {{id: x, where: here, text: words, expect: {operation}}}\n")
    with pytest.raises(ValueError, match=message):
        claims.load(path)


def test_an_unknown_column_is_one_clear_line():
    with pytest.raises(ValueError, match="unknown column colour; must be one of question, metric"):
        claims.select(pd.DataFrame(columns=COLUMNS), {"colour": "red"})
