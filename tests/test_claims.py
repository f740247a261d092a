"""Claims against measurements with a planted truth: what holds is reproduced, what fails contradicted, and noise is inconclusive."""

from pathlib import Path

import pandas as pd
import planted
import pytest

from registers import claims
from registers.measurements import COLUMNS

FILE = Path(__file__).parents[1] / "paper" / "claims.yaml"
CLAIMS = {claim["id"]: claim for claim in claims.load(FILE)}
SIZES = ("tiny", "small", "base", "large", "huge", "giant")


def judged(name, tmp_path, *groups):
    return claims.verdict(CLAIMS[name], planted.frame(tmp_path, *groups))


def norms(*names, outliers=0.0, registers=0, **kwargs):
    return [
        row
        for name in names
        for row in planted.norms(name, outliers=outliers, registers=registers, layers=2, **kwargs)
    ]


def test_outliers_that_registers_remove(tmp_path):
    before = norms("dinov2-r0-s0", "deit3-r0-s0", outliers=0.024)
    result = judged(
        "registers-remove-outliers", tmp_path, before, norms("dinov2-r4-s0", "deit3-r4-s0")
    )
    assert result.verdict == claims.REPRODUCED and "second mode is 0 for 2 of 2" in result.reason
    result = judged(
        "registers-remove-outliers",
        tmp_path,
        before,
        norms("dinov2-r4-s0"),
        norms("deit3-r4-s0", outliers=0.02),
    )
    assert result.verdict == claims.CONTRADICTED and "deit3-r4-s0" in result.reason
    assert any("smoke/norms" in run for run in result.runs)


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if "given" in claim])
def test_without_a_second_mode_nothing_is_said_about_outliers(tmp_path, name):
    names = [
        "dinov2-r0-s0",
        "dinov2-r1-s0",
        "dinov2-r4-s0",
        "dinov2-r0-s0-at025",
        "dinov2-tiny-r0-s0",
    ]
    result = judged(name, tmp_path, norms(*names))
    assert result.verdict == claims.NOT_TESTABLE and "no second mode" in result.reason
    assert result.numbers and all(line.startswith("max over median") for line in result.numbers)


@pytest.mark.parametrize(
    "first, expected", [("large", claims.REPRODUCED), ("base", claims.CONTRADICTED)]
)
def test_only_large_models(tmp_path, first, expected):
    start = SIZES.index(first)
    small = norms(*[f"dinov2-{s}-r0-s0" for s in SIZES[:start]])
    assert (
        judged(
            "outliers-in-large-models",
            tmp_path,
            small,
            norms(*[f"dinov2-{s}-r0-s0" for s in SIZES[start:]], outliers=0.02),
        ).verdict
        == expected
    )


@pytest.mark.parametrize("early, expected", [(0.0, claims.REPRODUCED), (0.02, claims.CONTRADICTED)])
def test_late_in_training(tmp_path, early, expected):
    late = norms("dinov2-r0-s0", "dinov2-r0-s0-at050", outliers=0.02)
    assert (
        judged(
            "outliers-appear-late", tmp_path, late, norms("dinov2-r0-s0-at025", outliers=early)
        ).verdict
        == expected
    )


@pytest.mark.parametrize(
    "share, expected",
    [(0.02, claims.REPRODUCED), (0.1, claims.CONTRADICTED), (0.04, claims.INCONCLUSIVE)],
)
def test_share_of_outliers(
    tmp_path, share, expected
):  # planted interval: 0.8 to 1.2 times the share
    assert (
        judged("outliers-are-few", tmp_path, norms("dinov2-r0-s0", outliers=share)).verdict
        == expected
    )


@pytest.mark.parametrize(
    "after, half, expected",
    [
        (0.60, 0.001, claims.REPRODUCED),
        (0.595, 0.001, claims.REPRODUCED),  # half a point is allowed
        (0.50, 0.001, claims.CONTRADICTED),
        (0.60, 0.050, claims.INCONCLUSIVE),
        (0.50, 0.200, claims.INCONCLUSIVE),
    ],
)
def test_linear_not_worse(tmp_path, after, half, expected):
    rows = [planted.accuracy("linear", f"{m}-r0-s0", 0.6, half=half) for m in ("deit3", "dinov2")]
    rows += [
        planted.accuracy("linear", "deit3-r4-s0", 0.9, half=half),
        planted.accuracy("linear", "dinov2-r4-s0", after, half=half),
    ]
    result = judged("linear-not-worse", tmp_path, rows)
    assert (
        result.verdict == expected and "no rows: linear top1" in result.reason
    )  # OpenCLIP was not run: said, and not counted


def test_missing_rows_are_not_testable(tmp_path):
    result = judged(
        "zero-shot-unchanged", tmp_path, [planted.accuracy("linear", "dinov2-r0-s0", 0.5)]
    )
    assert result.verdict == claims.NOT_TESTABLE and "no rows" in result.reason


@pytest.mark.parametrize(
    "change, expected",
    [
        (0.0, claims.REPRODUCED),
        (0.03, claims.CONTRADICTED),
        (-0.03, claims.CONTRADICTED),
        (0.01, claims.INCONCLUSIVE),
    ],
)
def test_zero_shot_unchanged(tmp_path, change, expected):
    rows = [
        planted.accuracy("zeroshot", "openclip-r0-s0", 0.5, half=0.002),
        planted.accuracy("zeroshot", "openclip-r4-s0", 0.5 + change, half=0.002),
    ]
    assert judged("zero-shot-unchanged", tmp_path, rows).verdict == expected


def test_seeds_widen_the_interval(tmp_path):
    rows = [
        planted.accuracy("linear", f"dinov2-r{r}-s{s}", 0.5 + 0.02 * (r > 0) + 0.1 * s, half=0.001)
        for r in (0, 16)
        for s in (0, 1)
    ]
    assert judged("linear-improves-with-more", tmp_path, rows).verdict == claims.INCONCLUSIVE
    assert (
        judged(
            "linear-improves-with-more", tmp_path, [r for r in rows if "-s0" in r.backbone]
        ).verdict
        == claims.REPRODUCED
    )


@pytest.mark.parametrize(
    "slope, expected", [(0.004, claims.REPRODUCED), (0.006, claims.CONTRADICTED)]
)
def test_exact_numbers_need_no_interval(tmp_path, slope, expected):
    assert judged("flops-of-four", tmp_path, planted.cost(slope=slope)).verdict == expected


def test_difference_agrees_with_newcombes_example():
    """Newcombe 1998, table II, (a): 56/70 - 48/80, method 10 without continuity correction: 0.0524 to 0.3339."""
    a, b = (
        claims.Estimate(56 / 70, 0.6918, 0.8769),
        claims.Estimate(48 / 80, 0.4904, 0.7005),
    )  # Wilson intervals
    d = claims.difference(a, b)
    assert d.low == pytest.approx(0.0524, abs=5e-4) and d.high == pytest.approx(0.3339, abs=5e-4)


def test_claims_have_unique_names_and_only_known_operations():
    assert len(CLAIMS) == len(claims.load(FILE))
    with pytest.raises(ValueError, match="operation evaluate"):
        claims._check({"evaluate": "1 + 1"}, "x")
    with pytest.raises(ValueError, match="unknown column colour"):
        claims.select(pd.DataFrame(columns=COLUMNS), {"colour": "red"})
