"""Several seeds, from the files that are measured to verdicts, tables and captions."""

import math

import numpy as np
import planted
import pytest
from test_claims import CLAIMS, image_rows
from test_claims_statistics import EXPECT, HIGHER, accuracies, claim

from registers import artifacts
from registers.claims.forest import position
from registers.claims.numbers import Number, constant, difference, measured
from registers.claims.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_TESTABLE,
    REPRODUCED,
    judged,
    verdict,
)
from registers.differences import ALPHA, Estimate, in_words, on_same_images
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings
from registers.tables import cells

SEEDS = (0, 1, 2)
COUNTS = (0, 1, 4, 16)
METHODS = ("deit3", "openclip", "dinov2")


# --- what is measured of each seed ----------------------------------------------------------------


def selectors(expectation, also=None):
    """All selectors of an expectation, with the columns of "for each"."""
    also = also or {}
    for name in ("compare", "between", "rarer"):
        for side in expectation.get(name, []):
            if isinstance(side, dict):
                yield side | also
    if "all" in expectation:
        yield expectation["all"] | also
    for inner in [*expectation.get("every", []), *expectation.get("some", [])]:
        yield from selectors(inner, also)
    for column, values in expectation.get("for each", {}).items():
        for value in values:
            yield from selectors(expectation["then"], also | {column: value})


def along_or_across(claim):
    """Whether a claim asks for checkpoints on the way or for other sizes: of the first seed."""
    return any({"percent", "size"} & set(each) for each in selectors(claim["expect"]))


ABOUT_TRAINING = [
    name
    for name, about in CLAIMS.items()
    if about["unit"] == "training" and "expect" in about and not along_or_across(about)
]


@pytest.mark.parametrize("name", ABOUT_TRAINING)
def test_claims_about_training_have_rows_of_every_seed(name):
    """With three seeds none may end as "one seed" because nobody measured the others."""
    settings = load_settings({"scale": "laptop", "seeds": list(SEEDS)})
    measured_files = set(artifacts.evidence(settings))
    for selector in selectors(CLAIMS[name]["expect"]):
        counts = selector["registers"]
        method = selector.get("method", "openclip")  # who answers zero-shot
        for count in counts if isinstance(counts, list) else [counts]:
            for seed in SEEDS:
                id = BackboneId(method, count, seed)
                file = str(settings.layout.measurement(selector["question"], id))
                assert file in measured_files


# --- verdicts over seeds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after, expected",
    [([0.5, 0.6, 0.41], REPRODUCED), ([0.2, 0.3, 0.1], CONTRADICTED), ([0.5, 0.3, 0.2], None)],
)
def test_three_seeds_decide_what_is_clear(tmp_path, after, expected):
    frame = accuracies(tmp_path, [0.3, 0.41, 0.2], after)
    result = verdict(claim(EXPECT), frame)
    assert result.verdict == (expected or INCONCLUSIVE)
    assert result.samples == "of training, over 3 seeds"
    assert "one seed" not in result.reason


def test_a_verdict_says_how_many_seeds_its_parts_have(tmp_path):
    one = accuracies(tmp_path, [0.2], [0.2])
    assert verdict(claim(EXPECT), one).samples == "of training, one seed"
    about_eight = {"compare": [{**HIGHER, "registers": 8}, ">", {**HIGHER, "registers": 0}]}
    parts = {"every": [EXPECT, about_eight]}
    rows = [planted.accuracy("linear", "dinov2-r8-s0", 0.5)]
    rows += [
        planted.accuracy("linear", f"dinov2-r{r}-s{seed}", value + r / 10)
        for r in (0, 4)
        for seed, value in enumerate((0.3, 0.41, 0.2))
    ]
    result = verdict(claim(parts), planted.frame(tmp_path, rows))
    assert result.samples == "of training, over 1 to 3 seeds"
    (told,) = judged([claim(parts)], planted.frame(tmp_path, rows), "released")
    assert told.samples.startswith("of published models, one training each")


def test_only_seeds_that_both_sides_have_are_compared(tmp_path):
    """A third seed of one side alone moves neither its mean nor the verdict."""
    before, after = [0.3, 0.41, 0.2], [0.5, 0.6, 0.41]
    frame = accuracies(tmp_path, before, after)
    extra = planted.accuracy("linear", "dinov2-r4-s7", 0.01)
    rows = [planted.accuracy("linear", f"dinov2-r{r}-s{s}", v)
            for r, values in ((0, before), (4, after)) for s, v in enumerate(values)]  # fmt: skip
    with_extra = planted.frame(tmp_path, [*rows, extra])
    assert verdict(claim(EXPECT), with_extra).reason == verdict(claim(EXPECT), frame).reason


def test_a_mean_over_counts_is_of_seeds_that_have_all_of_them(tmp_path):
    listed = {**HIGHER, "registers": [8, 16]}
    rows = [planted.accuracy("linear", f"dinov2-r{r}-s0", 0.5) for r in (8, 16)]
    rows.append(planted.accuracy("linear", "dinov2-r8-s1", 0.9))
    assert measured(planted.frame(tmp_path, rows), listed).values == {0: 0.5}
    apart = [planted.accuracy("linear", f"dinov2-r{r}-s{r}", 0.5) for r in (8, 16)]
    expect = {"compare": [listed, ">", 0]}
    result = verdict(claim(expect), planted.frame(tmp_path, apart))
    assert result.verdict == NOT_TESTABLE and "no seed has all" in result.reason


@pytest.mark.parametrize("failed, expected", [(1, REPRODUCED), (2, NOT_TESTABLE)])
def test_learning_is_judged_by_most_seeds(tmp_path, failed, expected):
    """One training that stayed on its plateau is no reason not to ask; two of three are."""
    before = [0.1] * failed + [0.4] * (3 - failed)
    noise = (0.0, 0.01, -0.01)
    after = [value + 0.2 + more for value, more in zip(before, noise)]
    frame = accuracies(tmp_path, before, after, half=0.02)
    given = {"learnt": {**HIGHER, "registers": 0}}
    assert verdict(claim(EXPECT, given=given), frame).verdict == expected


UNCHANGED = {  # at what a backbone without registers scores: nothing learnt, and clearly learnt
    "cls-score-unchanged": lambda name, level: planted.token_class(name, cls=level),
    "patch-score-unchanged": lambda name, level: planted.token_class(name, normal=level),
    "local-information-unchanged": lambda name, level: planted.local(
        name, normal=(level - 0.1 + 1 / 64, 0.5, 4.0)
    ),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_what_was_not_learnt_did_not_stay_unchanged(tmp_path, name):
    """Equal at the level of guessing is no evidence that registers leave a score as it is."""
    for level, expected in ((0.1, NOT_TESTABLE), (0.8, REPRODUCED)):
        noise = (0.0, 1e-3, -1e-3)
        rows = [
            row
            for count in (0, 1, 4)
            for seed in SEEDS
            for row in UNCHANGED[name](
                f"dinov2-r{count}-s{seed}", level + noise[(seed - count) % 3]
            )
        ]
        assert verdict(CLAIMS[name], planted.frame(tmp_path, rows)).verdict == expected


# --- claims about given backbones -----------------------------------------------------------------

PEAK = {"question": "maps", "metric": "attention_peak"}


def peaks(tmp_path, **by_method):
    """Rows about images, of several seeds of each method: {seed: values}."""
    rows = [
        row
        for method, seeds in by_method.items()
        for seed, values in seeds.items()
        for row in image_rows("maps", "attention_peak", f"{method}-r0-s{seed}", values)
    ]
    return planted.frame(tmp_path, rows)


def test_images_are_paired_over_all_backbones_of_both_sides(tmp_path):
    """Images differ far more than methods do, and DINO is trained once where DINOv2 is thrice."""
    rng = np.random.default_rng(0)
    images = rng.uniform(1, 100, 8)
    seeds = {seed: images + 1 + rng.normal(0, 0.05, 8) for seed in SEEDS}
    frame = peaks(tmp_path, dinov2=seeds, dino={0: images})
    expect = {"compare": [{**PEAK, "method": "dinov2"}, ">", {**PEAK, "method": "dino"}]}
    result = verdict(claim(expect, unit="images"), frame)
    assert result.verdict == REPRODUCED
    assert "+1.0" in result.reason


def test_few_images_are_judged_by_students_t(tmp_path):
    """Six images against a number, no effect: a normal interval would be wrong in 10 %."""
    rng = np.random.default_rng(0)
    frame = peaks(tmp_path, dinov2={0: np.zeros(6)})
    rows = measured(frame, {**PEAK, "method": "dinov2"}).rows
    false = 0
    for _ in range(2000):
        a = Number({0: Estimate(0, 0, 0)}, rows.assign(value=rng.normal(0, 1, 6)))
        gap = difference(a, constant(0, a), "images")
        false += min(gap.p_above(0), gap.p_below(0)) <= ALPHA / 2
    assert 0.035 <= false / 2000 <= 0.065


RATIO = {
    "compare": [{**PEAK, "method": "deit3"}, ">", {**PEAK, "method": "dino"}],
    "times": [2, math.inf],
}


def test_a_heavy_tail_is_compared_by_ratio(tmp_path):
    """Peaks of attention five times as high in every image: differences drown, ratios do not."""
    rng = np.random.default_rng(0)
    images = np.geomspace(0.1, 1e4, 8)
    frame = peaks(tmp_path, deit3={0: 5 * images * np.exp(rng.normal(0, 0.1, 8))}, dino={0: images})
    linear = {"compare": RATIO["compare"]}
    assert verdict(claim(linear, unit="images"), frame).verdict == INCONCLUSIVE
    result = verdict(claim(RATIO, unit="images"), frame)
    assert result.verdict == REPRODUCED
    assert result.effect.value == pytest.approx(5, rel=0.1)
    assert result.effect.low < 5 < result.effect.high and result.effect.words.endswith(" times")
    assert 0 < position(result.effect, 5) < position(result.effect, 10)
    assert position(result.effect, 2) == pytest.approx(0)


def test_a_ratio_over_seeds_is_of_geometric_means(tmp_path):
    """Hand computed: means of logs by seed, a t interval over their three differences."""
    ratios = {0: 4.0, 1: 8.0, 2: 16.0}
    frame = peaks(
        tmp_path,
        deit3={seed: [ratio * 2, ratio / 2] for seed, ratio in ratios.items()},
        dino={seed: [1.0, 1.0] for seed in ratios},
    )
    effect = verdict(claim(RATIO), frame).effect
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert effect.value == pytest.approx(8)
    assert (effect.low, effect.high) == pytest.approx((8 * math.exp(-half), 8 * math.exp(half)))


def test_two_seeds_that_differ_by_any_factor_have_a_ratio(tmp_path):
    """The t interval of two logarithms 200 apart reaches where exp overflows."""
    frame = peaks(
        tmp_path, deit3={0: [1e-40] * 2, 1: [1e40] * 2}, dino={0: [1.0] * 2, 1: [1.0] * 2}
    )
    result = verdict(claim(RATIO), frame)
    assert result.verdict == INCONCLUSIVE and "[<0.001, >1000] times" in result.reason
    assert -1 <= position(result.effect, result.effect.high) <= 1


def test_what_has_no_logarithm_has_no_ratio(tmp_path):
    frame = peaks(tmp_path, deit3={0: [1.0, 0.0]}, dino={0: [1.0, 2.0]})
    result = verdict(claim(RATIO, unit="images"), frame)
    assert result.verdict == NOT_TESTABLE and "above 0" in result.reason


def test_a_single_image_says_nothing(tmp_path):
    frame = peaks(tmp_path, dinov2={0: [9.0]})
    expect = {"compare": [{**PEAK, "method": "dinov2"}, ">", 2]}
    result = verdict(claim(expect, unit="images"), frame)
    assert result.verdict == NOT_TESTABLE and "a single image" in result.reason


def test_backbones_on_the_same_images_do_not_narrow_the_interval_over_images():
    """What is odd about an image is odd for all: independent intervals would be too narrow."""
    three = on_same_images([Estimate(0.5, 0.4, 0.6)] * 3)
    assert (three.low, three.high) == pytest.approx((0.4, 0.6))
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        images = rng.normal(0, 1, 50)  # the same for all, beside what is each backbone's own
        of_backbones = []
        for _ in SEEDS:
            values = images + rng.normal(0, 0.3, 50)
            half = 1.96 * values.std(ddof=1) / np.sqrt(50)
            of_backbones.append(Estimate(values.mean(), values.mean() - half, values.mean() + half))
        mean = on_same_images(of_backbones)
        covered += mean.low <= 0 <= mean.high
    assert 0.92 <= covered / 400 <= 0.98


# --- tables and captions --------------------------------------------------------------------------


def test_the_best_of_several_counts_is_not_better_by_accident():
    """Without any effect, the best of five counts seems better than none in at most 5 %."""
    rng = np.random.default_rng(0)
    false = uncorrected = 0
    for _ in range(2000):
        values = dict(enumerate(rng.normal(0, 1, (6, 3))))
        first = dict(enumerate(values.pop(0)))
        best = dict(enumerate(max(values.values(), key=np.mean)))
        false += in_words(best, first, chosen_from=5).startswith("beyond")
        uncorrected += in_words(best, first).startswith("beyond")
    assert false / 2000 <= 0.05 < uncorrected / 2000 + 0.02
    assert in_words({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.5}, 5).endswith("2 seeds, for the best of 5")


def test_cells_have_mean_and_deviation_over_seeds(tmp_path):
    rows = planted.frame(
        tmp_path, *(planted.token_class(f"dinov2-r0-s{s}", normal=0.2 + s / 10) for s in SEEDS)
    )
    normal = rows[(rows["token"] == "normal") & (rows["metric"] == "top1_main")]
    numbers = cells.cell(normal).numbers
    assert (numbers["ours"], numbers["std"], numbers["seeds"]) == (31.0, 10.0, 3)


@pytest.mark.parametrize("outlier", [0.2, 0.26, 0.3, 0.5])
def test_tables_compare_tokens_as_claims_do(tmp_path, outlier):
    """An audit's case: a table by overlap and a claim by difference disagreed on one page."""
    frame = planted.frame(
        tmp_path, *(planted.token_class(f"dinov2-r0-s{s}", outlier=outlier) for s in SEEDS)
    )
    main = frame[frame["metric"] == "top1_main"]
    of_token = {token: main[main["token"] == token] for token in ("outlier", "normal")}
    words = cells.cell(of_token["outlier"]).against(cells.cell(of_token["normal"]))
    term = {"question": "token_class", "metric": "top1_main", "method": "dinov2"}
    expect = {"compare": [{**term, "token": "outlier"}, ">", {**term, "token": "normal"}]}
    outcome = verdict(claim(expect, unit="images"), frame).verdict
    assert {"above": REPRODUCED, "below": CONTRADICTED}.get(words, INCONCLUSIVE) == outcome
