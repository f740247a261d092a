"""How often verdicts are wrong, by simulation, and that missing parts never make "reproduced"."""

import re

import numpy as np
import pandas as pd
import planted
import pytest

from registers import differences
from registers.claims.operations import Scope, judge
from registers.claims.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    Verdict,
    hold_together,
    verdict,
)
from registers.differences import Estimate, in_words, newcombe, over_samples
from registers.measurements import Measurement

DRAWS = 4_000
HIGHER = dict(question="linear", metric="top1", method="dinov2")
EXPECT = {"compare": [{**HIGHER, "registers": 4}, ">", {**HIGHER, "registers": 0}]}


def claim(expect, unit="training", **more):
    return {"id": "x", "where": "here", "text": "words", "unit": unit, "from": "any"} | {
        "expect": expect,
        **more,
    }


# --- error rates ----------------------------------------------------------------------------------


def rates(true_difference, seeds, deviation=2.0, draws=DRAWS):
    """Shares of claims "A is higher" that are reproduced, contradicted and inconclusive."""
    rng = np.random.default_rng(seeds)
    models = rng.normal(0, deviation, (2, draws, seeds))
    gaps = true_difference + models[0] - models[1]
    outcomes = [0, 0, 0]
    for values in gaps:
        gap = over_samples(values, seeds)
        sides = (gap.p_above(0), gap.p_below(0))
        outcomes[next((i for i, p in enumerate(sides) if p <= differences.ALPHA / 2), 2)] += 1
    return np.array(outcomes) / draws


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_without_an_effect_at_most_one_verdict_in_twenty_is_false(seeds):
    reproduced, contradicted, _ = rates(0.0, seeds)
    assert reproduced + contradicted <= 0.06  # 0.05 and three standard errors of 4,000 draws


@pytest.mark.parametrize("seeds, least", [(5, 0.80), (10, 0.99)])
def test_five_points_are_seen(seeds, least):
    reproduced, contradicted, _ = rates(5.0, seeds)
    assert reproduced >= least
    assert contradicted < 0.001


def test_the_table_in_the_module_is_what_the_simulation_gives():
    rows = re.findall(
        r"^\| (\S+) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \|$", differences.__doc__, re.M
    )
    assert len(rows) == 6
    for true, seeds, *printed in rows:
        simulated = rates(float(true), int(seeds))
        assert [f"{100 * share:.0f}" for share in simulated] == [p.rstrip("%") for p in printed]


def test_yes_and_no_is_decided_wrongly_at_most_once_in_twenty(tmp_path):
    """Fisher's test and the sign test on trainings in which registers change nothing."""
    rng = np.random.default_rng(0)
    rarer = {"rarer": [modes(4), modes(0)]}
    every = {"all": modes(4), "is": 0}
    false = {"rarer": 0, "all": 0}
    for _ in range(300):
        chance = rng.choice([0.2, 0.5, 0.8])
        frame = second_modes((rng.random(5) < chance), (rng.random(5) < chance))
        false["rarer"] += verdict(claim(rarer), frame).verdict == REPRODUCED
        if chance >= 0.5:
            false["all"] += verdict(claim(every), frame).verdict == REPRODUCED
    assert false["rarer"] <= 0.05 * 300 and false["all"] <= 0.05 * 200


def modes(registers):
    return {
        "question": "norms",
        "metric": "second_mode",
        "method": "dinov2",
        "registers": registers,
    }


def second_modes(without, having):
    rows = [
        {"backbone": f"dinov2-r{r}-s{s}", "value": float(value), "registers": r, "seed": s}
        for r, values in ((0, without), (4, having))
        for s, value in enumerate(values)
    ]
    common = dict(question="norms", metric="second_mode", method="dinov2", run="", note="")
    frame = pd.DataFrame([common | row for row in rows])
    return frame.assign(low=np.nan, high=np.nan, coordinate="", data="", at=np.nan)


@pytest.mark.parametrize("seeds, expected", [(1, INCONCLUSIVE), (3, INCONCLUSIVE), (5, REPRODUCED)])
def test_a_property_that_is_always_gone_needs_several_trainings(seeds, expected):
    frame = second_modes([1] * seeds, [0] * seeds)
    for expect in ({"rarer": [modes(4), modes(0)]}, {"all": modes(4), "is": 0}):
        assert verdict(claim(expect), frame).verdict == expected


# --- what seeds and images say --------------------------------------------------------------------


def accuracies(tmp_path, before, after, half=0.001):
    rows = [
        planted.accuracy("linear", f"dinov2-r{r}-s{s}", value, half=half)
        for r, values in ((0, before), (4, after))
        for s, value in enumerate(values)
    ]
    return planted.frame(tmp_path, rows)


def test_one_seed_decides_nothing_about_training(tmp_path):
    frame = accuracies(tmp_path, [0.2], [0.9])
    result = verdict(claim(EXPECT), frame)
    assert result.verdict == INCONCLUSIVE
    assert result.reason.startswith("one seed: 90.0 % against 20.0 %")
    assert verdict(claim(EXPECT, unit="images"), frame).verdict == REPRODUCED


def test_more_seeds_narrow_the_interval():
    rng = np.random.default_rng(0)
    draws = rng.normal(5, 2.8, (200, 20))
    widths = [
        np.mean([np.diff(over_samples(row[:seeds], seeds).interval)[0] for row in draws])
        for seeds in (2, 3, 5, 10, 20)
    ]
    assert widths == sorted(widths, reverse=True)


def test_seeds_are_paired(tmp_path):
    """Seeds that differ far more than registers do: +1 point in each is seen all the same."""
    before = [0.2, 0.5, 0.3, 0.7, 0.4]
    after = [value + 0.01 + noise for value, noise in zip(before, (0, 1e-3, -1e-3, 2e-3, -2e-3))]
    assert verdict(claim(EXPECT), accuracies(tmp_path, before, after)).verdict == REPRODUCED


def test_seeds_that_are_all_alike_decide_nothing(tmp_path):
    """The most frequent class everywhere, say: a spread of 0 is no evidence."""
    result = verdict(claim(EXPECT), accuracies(tmp_path, [0.1] * 5, [0.1] * 5))
    assert result.verdict == INCONCLUSIVE
    assert "nothing about their spread" in result.reason


def test_a_margin_may_be_relative(tmp_path):
    expect = {"compare": [{**HIGHER, "registers": 4}, ">=", {**HIGHER, "registers": 0}]}
    noise = np.array([0, 1, -1, 2, -2]) * 1e-4
    for level in (0.1, 0.8):
        frame = accuracies(tmp_path, [level] * 5, level * 0.98 + noise)
        assert verdict(claim({**expect, "within": "3 %"}), frame).verdict == REPRODUCED
        assert verdict(claim({**expect, "within": "1 %"}), frame).verdict == CONTRADICTED


def test_too_wide_an_interval_for_the_margin_is_said(tmp_path):
    expect = {"compare": [{**HIGHER, "registers": 4}, "=", {**HIGHER, "registers": 0}]}
    frame = accuracies(tmp_path, [0.5, 0.6, 0.4], [0.52, 0.55, 0.47])
    result = verdict(claim({**expect, "within": 0.01}), frame)
    assert result.verdict == INCONCLUSIVE
    assert "cannot decide a margin of 1.0 points" in result.reason


def test_per_image_results_are_paired_by_image(tmp_path):
    rng = np.random.default_rng(0)
    levels = rng.uniform(1, 100, 30)  # images differ far more than queries do
    rows = [
        Measurement("maps", "attention_peak", "dinov2-r4-s0", float(value), token=token,
                    coordinate="image", at=image)
        for image, level in enumerate(levels)
        for token, value in (("cls", level), ("reg0", level + 1 + 0.1 * rng.standard_normal()))
    ]  # fmt: skip
    term = {"question": "maps", "metric": "attention_peak", "method": "dinov2"}
    expect = {"compare": [{**term, "token": "reg0"}, ">", {**term, "token": "cls"}]}
    result = verdict(claim(expect, unit="images"), planted.frame(tmp_path, rows))
    assert result.verdict == REPRODUCED


# --- missing parts --------------------------------------------------------------------------------


def norms(*names, outliers=0.0):
    return [row for name in names for row in planted.norms(name, outliers=outliers, layers=2)]


def test_every_needs_all_of_its_parts(tmp_path):
    """An audit's case: no checkpoint before a third of training made "late" reproduced."""
    frame = planted.frame(tmp_path, norms("dinov2-r0-s0", outliers=0.02))
    about = {"question": "norms", "metric": "second_mode", "method": "dinov2", "registers": 0}
    early = {"all": {**about, "percent": {"below": 33}}, "is": 0}
    late = {"all": {**about, "percent": 100}, "is": 1}
    assert verdict(claim({"every": [early, late]}, "images"), frame).verdict == INCONCLUSIVE
    assert verdict(claim(late, "images"), frame).verdict == REPRODUCED
    assert verdict(claim(early, "images"), frame).verdict == NOT_TESTABLE


def test_a_list_means_all_of_its_values(tmp_path):
    """An audit's case: "large" alone made "the three largest sizes" reproduced."""
    about = {"question": "norms", "metric": "second_mode", "registers": 0}
    expect = {"all": {**about, "size": ["large", "huge"]}, "is": 1}
    frame = planted.frame(tmp_path, norms("dinov2-large-r0-s0", outliers=0.02))
    result = verdict(claim(expect, "images"), frame)
    assert result.verdict == NOT_TESTABLE and "size huge" in result.reason
    both = planted.frame(tmp_path, norms("dinov2-large-r0-s0", "dinov2-huge-r0-s0", outliers=0.02))
    assert verdict(claim(expect, "images"), both).verdict == REPRODUCED


def test_a_list_in_a_comparison_means_all_of_its_values(tmp_path):
    term = {"question": "discovery", "metric": "corloc", "data": ["voc", "coco"]}
    expect = {"compare": [{**term, "registers": 4}, ">", {**term, "registers": 0}]}
    rows = [
        row
        for name, value in (("dinov2-r4-s0", 0.9), ("dinov2-r0-s0", 0.1))
        for row in planted.discovery(name, value, 0.5, data="voc")
    ]
    result = verdict(claim(expect, "images"), planted.frame(tmp_path, rows))
    assert result.verdict == NOT_TESTABLE and "data coco" in result.reason


def test_a_part_that_fails_contradicts_whatever_is_missing(tmp_path):
    about = {"question": "norms", "metric": "second_mode", "registers": 0}
    parts = [
        {"all": {**about, "method": "dinov2"}, "is": 1},
        {"all": {**about, "method": "mae"}, "is": 1},
    ]
    frame = planted.frame(tmp_path, norms("dinov2-r0-s0"))
    assert verdict(claim({"every": parts}, "images"), frame).verdict == CONTRADICTED


def test_each_method_has_its_own_premise(tmp_path):
    """Audit's row 4: only OpenCLIP had a second mode, and all three were reproduced."""
    about = {"question": "norms", "metric": "second_mode"}
    then = {
        "given": {"any": {**about, "registers": 0}, "is": 1},
        "all": {**about, "registers": 4},
        "is": 0,
    }
    expect = {"for each": {"method": ["openclip", "dinov2"]}, "then": then}
    clip = norms("openclip-r0-s0", outliers=0.02) + norms("openclip-r4-s0")
    clean = norms("dinov2-r0-s0", "dinov2-r4-s0", "dino-r0-s0")
    frame = planted.frame(tmp_path, clip + clean)
    result = verdict(claim(expect, "images"), frame)
    assert result.verdict == INCONCLUSIVE
    assert "DINOv2: the model asked has no second mode" in result.reason
    dirty = norms("dinov2-r0-s0", outliers=0.02) + norms("dinov2-r4-s0")
    both = planted.frame(tmp_path, clip + dirty)
    assert verdict(claim(expect, "images"), both).verdict == REPRODUCED


def test_another_methods_outliers_are_no_premise(tmp_path):
    """Audit's row 4: DINO with a second mode, the three methods with none: reproduced."""
    about = {"question": "norms", "metric": "second_mode"}
    then = {
        "given": {"any": {**about, "registers": 0}, "is": 1},
        "all": {**about, "registers": 4},
        "is": 0,
    }
    expect = {"for each": {"method": ["openclip", "dinov2"]}, "then": then}
    rows = norms("dino-r0-s0", outliers=0.02) + norms(
        "openclip-r0-s0", "openclip-r4-s0", "dinov2-r0-s0", "dinov2-r4-s0"
    )
    frame = planted.frame(tmp_path, rows)
    assert verdict(claim(expect, "images"), frame).verdict == NOT_TESTABLE


def test_what_learnt_nothing_did_not_stay_as_good(tmp_path):
    frame = accuracies(tmp_path, [0.1] * 3, [0.11, 0.09, 0.1], half=0.02)
    given = {"learnt": {**HIGHER, "registers": 0}}
    result = verdict(claim(EXPECT, given=given), frame)
    assert result.verdict == NOT_TESTABLE and "nothing learnt" in result.reason


# --- several claims, one rule ---------------------------------------------------------------------


def test_holm_by_hand():
    """0.01 x 4, 0.012 x 3 and 0.02 x 2 stay below 0.05; exact claims are not counted."""
    ps = [0.02, 0.01, 0.9, 0.012, None]
    verdicts = [Verdict(str(p), "", "", REPRODUCED, "", p=p) for p in ps]
    assert [v.together for v in hold_together(verdicts)] == [True, True, False, True, None]
    later = [Verdict(str(p), "", "", REPRODUCED, "", p=p) for p in (0.03, 0.04)]
    assert [v.together for v in hold_together(later)] == [False, False]


def test_parts_share_the_chance_of_a_contradiction():
    """Of 20 parts without an effect one seems to fail by accident: that contradicts nothing."""
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(200):
        ps = rng.random(20)
        false += len(ps) * ps.min() <= 0.025
    assert false <= 0.05 * 200
    frame = second_modes([1] * 5, [1] * 5)
    part = {"all": modes(4), "is": 0}
    (finding,) = judge(part, Scope(frame, "training", {}))
    assert finding.p_true == pytest.approx(1 / 64)
    assert verdict(claim(part), frame).verdict == CONTRADICTED
    assert verdict(claim({"every": [part] * 2}), frame).verdict == INCONCLUSIVE


def test_tables_use_the_same_rule():
    """What a claim calls reproduced, a table calls beyond the interval over seeds."""
    a = {0: 0.5, 1: 0.6, 2: 0.55}
    b = {0: 0.3, 1: 0.41, 2: 0.34}
    assert in_words(a, b) == "beyond the interval over 3 seeds"
    assert in_words(a, {0: 0.5, 1: 0.62, 2: 0.5}) == "within the interval over 3 seeds"
    assert in_words({0: 0.9}, {0: 0.1}) == "one seed: not decided"


def test_difference_agrees_with_newcombes_example():
    """56/70 - 48/80 from Wilson's intervals, without continuity correction: 0.0524 to 0.3339.

    Source: Newcombe 1998, table II, (a), method 10.
    """
    a = Estimate(56 / 70, 0.6918, 0.8769)
    b = Estimate(48 / 80, 0.4904, 0.7005)
    gap = newcombe(a, b)
    assert gap.low == pytest.approx(0.0524, abs=5e-4)
    assert gap.high == pytest.approx(0.3339, abs=5e-4)
