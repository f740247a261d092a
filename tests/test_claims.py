"""The claims of paper/claims.yaml against measurements with a planted truth.

What holds is reproduced, what fails is contradicted, and noise is inconclusive.
"""

from pathlib import Path

import numpy as np
import planted
import pytest

from registers.claims.loading import load
from registers.claims.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    judged,
    verdict,
)
from registers.exact import cost, interpolation
from registers.measurements import Measurement
from registers.settings.load import load_settings

FILE = Path(__file__).parents[1] / "paper" / "claims.yaml"
CLAIMS = {claim["id"]: claim for claim in load(FILE)}
SIZES = ("tiny", "small", "base", "large", "huge", "giant")
NOISE = np.array([0.0, 0.004, -0.004, 0.006, -0.006])  # of five seeds


def outcome(name, tmp_path, *groups):
    """The verdict on a claim, from groups of rows (one file each)."""
    return verdict(CLAIMS[name], planted.frame(tmp_path, *groups))


def norms(*names, outliers=0.0, seeds=1):
    """Rows of question "norms" of several backbones ("dinov2-r0") with a share of outliers.

    Without the histograms, which no claim reads.
    """
    return [
        row
        for name in names
        for seed in range(seeds)
        for row in planted.norms(f"{name}-s{seed}", outliers=outliers, layers=2, images=20)
        if row.metric != "count"
    ]


def accuracies(question, seeds=5, half=0.02, metric="top1", chance=0.1, **values):
    """One row per model and seed: accuracies("linear", dinov2_r0=0.5)."""
    return [
        planted.accuracy(
            question,
            f"{name.replace('_', '-')}-s{seed}",
            value + NOISE[seed] * (1 if "r0" in name else 0.5),
            half=half,
            metric=metric,
            chance=chance,
        )
        for name, value in values.items()
        for seed in range(seeds)
    ]


def image_rows(question, metric, backbone, values, **columns):
    """One row for each image."""
    return [
        Measurement(
            question, metric, backbone, float(value), coordinate="image", at=image, **columns
        )
        for image, value in enumerate(values)
    ]


# --- the file -------------------------------------------------------------------------------------


def test_every_claim_can_be_asked_of_real_rows(tmp_path):
    """No claim names a column that does not exist, whatever rows there are."""
    frame = planted.frame(tmp_path, norms("dinov2-r0"), planted.cost())
    verdicts = judged(list(CLAIMS.values()), frame)
    assert len(verdicts) == len(CLAIMS)
    assert all(v.reason for v in verdicts)


def test_scale_smoke_judges_exact_claims_alone(far_apart):
    decided = (REPRODUCED, CONTRADICTED, INCONCLUSIVE)
    names = {
        v.id for v in judged(list(CLAIMS.values()), far_apart, "smoke") if v.verdict in decided
    }
    assert names <= {name for name, claim in CLAIMS.items() if claim["unit"] == "exact"}
    elsewhere = judged(list(CLAIMS.values()), far_apart, "laptop")
    assert sum(v.verdict in decided for v in elsewhere) > 10


@pytest.fixture(scope="module")
def far_apart(tmp_path_factory):
    """Rows of one seed in which every method and every count of registers differs by far."""
    counts = (0, 1, 4, 8, 16)
    rows = []
    for method in ("deit3", "openclip", "dinov2"):
        for r in counts:
            backbone = f"{method}-r{r}-s0"
            miou, rmse = planted.dense(backbone, 0.2 + r / 20, 1.5 - r / 20)
            rows += [row for row in norms(f"{method}-r{r}", outliers=0.0 if r else 0.02)]
            rows += [*miou, *rmse, *planted.discovery(backbone, 0.2 + r / 20, 0.5, data="VOC 2007")]
            rows += [planted.accuracy(q, backbone, 0.2 + r / 20) for q in ("linear", "zeroshot")]
            rows += planted.token_class(backbone, registers=min(r, 4)) + planted.local(backbone)
            for metric in ("attention_peak", "component_roughness"):
                values = 9.0 - r / 4 + np.arange(3) / 100
                rows += image_rows("maps", metric, backbone, values, token="cls")
    return planted.frame(tmp_path_factory.mktemp("far"), rows)


@pytest.mark.parametrize("name", [n for n, claim in CLAIMS.items() if claim["unit"] == "training"])
def test_claims_about_training_are_undecided_with_one_seed(far_apart, name):
    result = verdict(CLAIMS[name], far_apart)
    assert result.verdict in (INCONCLUSIVE, NOT_TESTABLE)
    if result.verdict == INCONCLUSIVE:
        assert "one seed" in result.reason


@pytest.mark.parametrize("name", [n for n, claim in CLAIMS.items() if "untestable" in claim])
def test_what_no_run_can_judge_says_why(tmp_path, name):
    result = outcome(name, tmp_path, norms("dinov2-r0", outliers=0.02))
    assert result.verdict == NOT_TESTABLE
    assert result.reason == CLAIMS[name]["untestable"]


# --- outliers -------------------------------------------------------------------------------------


def test_outliers_that_registers_remove(tmp_path):
    methods = ("deit3", "openclip", "dinov2")
    before = norms(*(f"{m}-r0" for m in methods), outliers=0.024, seeds=5)
    after = norms(*(f"{m}-r4" for m in methods), seeds=5)
    result = outcome("registers-remove-outliers", tmp_path, before, after)
    assert result.verdict == REPRODUCED
    assert "DeiT-III: second mode in 0 of 5 against 5 of 5 trainings" in result.reason
    assert any("smoke/norms" in run for run in result.runs)

    kept = norms("deit3-r4", outliers=0.02, seeds=8) + norms("openclip-r4", "dinov2-r4", seeds=8)
    more = norms(*(f"{m}-r0" for m in methods), outliers=0.024, seeds=8)
    assert outcome("registers-remove-outliers", tmp_path, more, kept).verdict == CONTRADICTED
    three = norms(*(f"{m}-r0" for m in methods), outliers=0.024, seeds=3)
    fewer = norms(*(f"{m}-r4" for m in methods), seeds=3)
    assert outcome("registers-remove-outliers", tmp_path, three, fewer).verdict == INCONCLUSIVE


def has_premise_on_outliers(claim):
    return "second_mode" in str(claim.get("given", ""))


@pytest.fixture(scope="module")
def one_mode(tmp_path_factory):
    """Rows of models without any second mode."""
    rows = norms("dinov2-r0", "dinov2-r1", "dinov2-r4", "dinov2-tiny-r0")
    rows += planted.norms("dinov2-r0-s0-at025", layers=2)
    rows += planted.positions("dinov2-r0-s0", outliers=False)
    rows += planted.positions("dinov2-r0-s0-noaa", outliers=False)
    return planted.frame(tmp_path_factory.mktemp("one"), rows)


@pytest.mark.parametrize("name", [n for n, c in CLAIMS.items() if has_premise_on_outliers(c)])
def test_without_a_second_mode_claims_about_outliers_are_not_testable(one_mode, name):
    result = verdict(CLAIMS[name], one_mode)
    assert result.verdict == NOT_TESTABLE
    assert "no second mode" in result.reason


@pytest.mark.parametrize("first, expected", [("large", REPRODUCED), ("base", CONTRADICTED)])
def test_only_large_models_have_outliers(tmp_path, first, expected):
    names = [f"dinov2-{size}-r0" for size in SIZES]
    start = SIZES.index(first)
    small = norms(*names[:start], seeds=6)
    large = norms(*names[start:], outliers=0.02, seeds=6)
    assert outcome("outliers-in-large-models", tmp_path, small, large).verdict == expected


def test_sizes_that_were_not_trained_are_missing(tmp_path):
    """An audit's case: with "large" alone the claim was reproduced."""
    result = outcome(
        "outliers-in-large-models", tmp_path, norms("dinov2-large-r0", outliers=0.02, seeds=5)
    )
    assert result.verdict == NOT_TESTABLE


@pytest.mark.parametrize("early, expected", [(0.0, REPRODUCED), (0.02, CONTRADICTED)])
def test_outliers_appear_late_in_training(tmp_path, early, expected):
    late = norms("dinov2-r0", outliers=0.02, seeds=6)
    at_a_quarter = [
        row
        for seed in range(6)
        for row in planted.norms(f"dinov2-r0-s{seed}-at025", outliers=early, layers=2)
    ]
    assert outcome("outliers-appear-late", tmp_path, late, at_a_quarter).verdict == expected
    assert outcome("outliers-appear-late", tmp_path, late).verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    "share, expected", [(0.02, REPRODUCED), (0.1, CONTRADICTED), (0.04, INCONCLUSIVE)]
)
def test_share_of_outliers(tmp_path, share, expected):
    """The planted interval is 0.8 to 1.2 times the share."""
    rows = norms("dinov2-r0", outliers=share)
    assert outcome("outliers-are-few", tmp_path, rows).verdict == expected


@pytest.mark.parametrize("ratio, expected", [(10, REPRODUCED), (3, CONTRADICTED)])
def test_the_level_of_outliers_is_their_median(tmp_path, ratio, expected):
    """An audit's case: a mode at 3 times the median and six freak tokens made "10 times"."""
    rows = planted.norms("dinov2-r0-s0", outliers=0.02, ratio=ratio, layers=2)
    freak = [row for row in rows if row.metric != "max_over_median"]
    freak.append(Measurement("norms", "max_over_median", "dinov2-r0-s0", 10.0, token="patch"))
    assert outcome("outliers-are-high", tmp_path, freak).verdict == expected


# --- what tokens hold -----------------------------------------------------------------------------

LOW = (0.1, 5.0, 9.0)  # position top-1, distance, reconstruction error of a bad token
HIGH = (0.9, 0.2, 1.0)
ABOUT_OUTLIERS = {
    "outliers-where-patches-repeat": [
        planted.neighbours("dinov2-r0-s0", outlier=value) for value in (0.9, 0.3)
    ],
    "outliers-hold-less-position": [
        planted.local("dinov2-r0-s0", *kinds) for kinds in ((HIGH, LOW), (LOW, HIGH))
    ],
    "outliers-hold-fewer-pixels": [
        planted.local("dinov2-r0-s0", *kinds) for kinds in ((HIGH, LOW), (LOW, HIGH))
    ],
    "outliers-hold-global-information": [
        planted.token_class("dinov2-r0-s0", outlier) for outlier in (0.75, 0.05)
    ],
}


@pytest.mark.parametrize("name", ABOUT_OUTLIERS)
def test_claims_about_what_outliers_hold(tmp_path, name):
    two_modes = norms("dinov2-r0", outliers=0.024)
    for rows, expected in zip(ABOUT_OUTLIERS[name], (REPRODUCED, CONTRADICTED)):
        assert outcome(name, tmp_path, two_modes, rows).verdict == expected


def test_registers_take_over_needs_rows_of_tokens(tmp_path):
    """An audit's case: without them the claim was reproduced."""
    before = norms("dinov2-r0", outliers=0.02, seeds=5)
    after = norms("dinov2-r1", seeds=5)
    assert outcome("registers-take-over", tmp_path, before, after).verdict == INCONCLUSIVE
    for register, expected in ((0.7, REPRODUCED), (0.05, CONTRADICTED)):
        tokens = [
            row
            for seed in range(5)
            for row in planted.token_class(
                f"dinov2-r1-s{seed}", registers=1, register=register + NOISE[seed]
            )
        ]
        result = outcome("registers-take-over", tmp_path, before, after, tokens)
        assert result.verdict == expected


@pytest.mark.parametrize("top1, expected", [(0.605, REPRODUCED), (0.7, CONTRADICTED)])
def test_local_information_is_unchanged(tmp_path, top1, expected):
    rows = []
    for seed, noise in enumerate(NOISE / 2):
        rows += planted.local(f"dinov2-r0-s{seed}", (0.6 + noise, 0.5, 4.0))
        rows += planted.local(f"dinov2-r4-s{seed}", (top1 - noise, 0.5, 4.0))
    assert outcome("local-information-unchanged", tmp_path, rows).verdict == expected


# --- downstream -----------------------------------------------------------------------------------

NOT_WORSE = dict(deit3_r0=0.6, deit3_r4=0.62, openclip_r0=0.6, openclip_r4=0.62, dinov2_r0=0.6)


@pytest.mark.parametrize(
    "after, expected", [(0.60, REPRODUCED), (0.50, CONTRADICTED), (0.588, INCONCLUSIVE)]
)
def test_linear_not_worse(tmp_path, after, expected):
    """2 % of 60 points are 1.2; the seeds' differences have a deviation of 0.3 points."""
    rows = accuracies("linear", **NOT_WORSE, dinov2_r4=after)
    assert outcome("linear-not-worse", tmp_path, rows).verdict == expected


def test_a_method_that_is_missing_leaves_it_inconclusive(tmp_path):
    rows = accuracies("linear", dinov2_r0=0.6, dinov2_r4=0.62)
    result = outcome("linear-not-worse", tmp_path, rows)
    assert result.verdict == INCONCLUSIVE
    assert "no rows: linear top-1 of " in result.reason


def test_missing_rows_are_not_testable(tmp_path):
    result = outcome("zero-shot-unchanged", tmp_path, accuracies("linear", dinov2_r0=0.5))
    assert result.verdict == NOT_TESTABLE
    assert "no rows" in result.reason


@pytest.mark.parametrize(
    "change, expected", [(0.0, REPRODUCED), (0.1, CONTRADICTED), (-0.1, CONTRADICTED)]
)
def test_zero_shot_unchanged(tmp_path, change, expected):
    rows = accuracies("zeroshot", openclip_r0=0.9, openclip_r4=0.9 + change)
    assert outcome("zero-shot-unchanged", tmp_path, rows).verdict == expected


@pytest.mark.parametrize("after, expected", [(1.45, REPRODUCED), (1.7, CONTRADICTED)])
def test_depth_is_better_where_lower(tmp_path, after, expected):
    rows = []
    for method in ("deit3", "openclip", "dinov2"):
        for seed, noise in enumerate(NOISE):
            rows += planted.dense(f"{method}-r0-s{seed}", 0.2, 1.5 + noise)[1]
            rows += planted.dense(f"{method}-r4-s{seed}", 0.2, after - noise)[1]
    assert outcome("depth-not-worse", tmp_path, rows).verdict == expected


@pytest.mark.parametrize("gain, expected", [(0.1, REPRODUCED), (-0.1, CONTRADICTED)])
def test_sometimes_better_needs_one_of_nine(tmp_path, gain, expected):
    rows = []
    for method in ("deit3", "openclip", "dinov2"):
        better = gain if method == "dinov2" else -0.1
        for seed, noise in enumerate(NOISE / 2):
            for r, change in ((0, noise), (4, better - noise)):
                name = f"{method}-r{r}-s{seed}"
                miou, rmse = planted.dense(name, 0.3 + change, 1.5 - change)
                rows += [planted.accuracy("linear", name, 0.5 + change), *miou, *rmse]
    assert outcome("registers-sometimes-better", tmp_path, rows).verdict == expected


# --- attention, components, steps -----------------------------------------------------------------


@pytest.mark.parametrize("level, expected", [(50.0, REPRODUCED), (1.5, CONTRADICTED)])
def test_attention_is_peaky_but_for_dino(tmp_path, level, expected):
    rng = np.random.default_rng(0)
    rows = [
        row
        for method in ("deit3", "openclip", "dinov2", "dino")
        for row in image_rows(
            "maps",
            "attention_peak",
            f"{method}-r0-s0",
            (3.0 if method == "dino" else level) + rng.uniform(0, 0.5, 8),
            token="cls",
        )
    ]
    assert outcome("attention-is-peaky-but-for-dino", tmp_path, rows).verdict == expected


@pytest.mark.parametrize("values, expected", [(0.1, REPRODUCED), (0.9, CONTRADICTED)])
def test_values_of_clip_show_no_artifacts(tmp_path, values, expected):
    levels = {"k": 0.5, "q": 0.5, "v": values}
    rows = [
        row
        for facet, level in levels.items()
        for row in image_rows(
            "discovery",
            "score_roughness",
            "openclip-r0-s0",
            level + np.arange(4) / 100,
            variant=facet,
        )
    ]
    assert outcome("clip-values-show-none", tmp_path, rows).verdict == expected


# --- exact numbers and operations -----------------------------------------------------------------

EXACT = {
    "flops-of-four": REPRODUCED,
    "flops-of-sixteen": REPRODUCED,
    "flops-of-four-of-vit-b": CONTRADICTED,  # 2.12 %
    "flops-of-sixteen-of-vit-b": CONTRADICTED,  # 8.48 %
    "parameters-negligible": REPRODUCED,
    "interpolation-makes-stripes": REPRODUCED,
    "antialiasing-makes-it-even": REPRODUCED,
}


def test_exact_claims_are_judged_exactly(tmp_path):
    """On the numbers themselves, which no run changes."""
    assert set(EXACT) == {name for name, claim in CLAIMS.items() if claim["unit"] == "exact"}
    settings = load_settings({"scale": "smoke"})
    rows = cost.cost_rows(settings) + interpolation.interpolation_rows()
    frame = planted.frame(tmp_path, rows)
    verdicts = {name: verdict(CLAIMS[name], frame) for name in EXACT}
    assert {name: v.verdict for name, v in verdicts.items()} == EXACT
    assert all(v.p is None for v in verdicts.values())


@pytest.mark.parametrize("patch, expected", [(0.1, REPRODUCED), (0.79, CONTRADICTED)])
def test_registers_attend_broadly_where_a_patch_does_not(tmp_path, patch, expected):
    """An untrained model's maps are all even: 0.80 against 0.79 is no broad against local."""
    support = {"cls": 0.8, **{f"reg{r}": 0.8 for r in range(4)}, "patch": patch}
    rows = [
        Measurement("by_position", "support", "dinov2-r4-s0", value, token=token)
        for token, value in support.items()
    ]
    assert outcome("registers-attend-broadly", tmp_path, rows).verdict == expected
