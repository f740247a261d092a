"""The operations of paper/claims.yaml, carried out on rows.

Each part of a claim ends with two p-values: of its being false, and of its being true. A claim
holds where all its parts hold, so its own p-value is the largest of theirs; it fails where one part
fails, so theirs are multiplied by how many parts were tested (Bonferroni).
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from registers.claims import printed, wording
from registers.claims.effects import Effect, effect_of, ratio_of
from registers.claims.numbers import constant, difference, measured, of_both
from registers.claims.selectors import Missing, each_listed, known
from registers.claims.selectors import select as selected
from registers.differences import ALPHA, LEAST_SEEDS, Difference

ONE_SEED = "one seed"


@dataclass(frozen=True)
class Finding:
    """The outcome of one part of a claim, and the rows it rests on.

    p_false: p-value of "the part is false"; small where it holds. p_true: of "it is true".
    Both, and the effect, None where the part could not be tested. seeds: how many trainings it
    rests on.
    """

    reason: str
    rows: pd.DataFrame
    p_false: float | None = None
    p_true: float | None = None
    effect: Effect | None = None
    seeds: int = 0

    @property
    def tested(self) -> bool:
        return self.p_false is not None


@dataclass(frozen=True)
class Scope:
    """What holds for all parts below: the rows, what the samples are, columns of "for each".

    reference: the paper's printed numbers. paper: the one that the claim itself names, or None.
    """

    rows: pd.DataFrame
    unit: str
    also: dict[str, Any]
    reference: pd.DataFrame | None = None
    paper: float | None = None

    def narrowed(self, column: str, value: Any) -> "Scope":
        return replace(self, also={**self.also, column: value})

    def selector(self, selector: dict[str, Any]) -> dict[str, Any]:
        return {**selector, **self.also}

    def labelled(self, reason: str) -> str:
        """The reason, after what the part is about."""
        label = wording.label(self.also)
        return f"{label}: {reason}" if label else reason

    def about(self, *selectors: dict[str, Any]) -> str:
        """The method that a part speaks of; "" for several or none."""
        return wording.about(self.selector(selector) for selector in selectors)


def judge(expectation: dict[str, Any], scope: Scope) -> list[Finding]:
    """Carry out one operation; a finding for each part."""
    if "given" in expectation:
        absent = absent_premise(expectation["given"], scope)
        if absent:
            return [absent]
    if "every" in expectation:
        return [finding for inner in expectation["every"] for finding in judge(inner, scope)]
    if "some" in expectation:
        parts = [finding for inner in expectation["some"] for finding in judge(inner, scope)]
        return [_some(parts, scope)]
    if "for each" in expectation:
        ((column, values),) = expectation["for each"].items()
        scopes = [scope.narrowed(column, value) for value in values]
        return [finding for inner in scopes for finding in judge(expectation["then"], inner)]
    operation = next(OPERATIONS[name] for name in OPERATIONS if name in expectation)
    try:
        return [operation(expectation, scope)]
    except Missing as missing:
        return [Finding(scope.labelled(str(missing)), scope.rows.head(0))]


def absent_premise(premise: dict[str, Any], scope: Scope) -> Finding | None:
    """Why nothing can be said, where what a part presupposes is absent; else None.

    any, is: no row has this value. learnt: most models are no better than guessing.
    """
    selector = scope.selector(premise.get("any") or premise["learnt"])
    rows = selected(scope.rows, selector)
    if rows.empty:
        return Finding(scope.labelled(f"no rows: {wording.named(selector)}"), rows)
    if "learnt" in premise:
        if _better_than_guessing(rows).mean() > 0.5:
            return None
        reason = f"nothing learnt: {wording.named(selector)} is not better than chance"
        return Finding(scope.labelled(reason), rows)
    if (rows["value"] == premise["is"]).any():
        return None
    metric = wording.title(selector["metric"])
    models = rows["backbone"].nunique()
    reason = f"no {metric} in any of the {models} models asked"
    if models == 1:
        reason = f"the model asked has no {metric}"
    return Finding(scope.labelled(reason), rows)


def _better_than_guessing(rows: pd.DataFrame) -> pd.Series:
    """Whether each row's interval is clear of guessing, on the better side."""
    lower_is_better = rows["metric"].isin(["rmse", "rmse_mean_image", "distance", "l2"])
    better = (rows["low"] > rows["chance"]) & ~lower_is_better
    return better | ((rows["high"] < rows["chance"]) & lower_is_better)


# --- operations -----------------------------------------------------------------------------------


def _compare(expectation: dict[str, Any], scope: Scope) -> Finding:
    """Two numbers compare as claimed, for >= and = within a margin ("2 %": of the second).

    by: [low, high], in which the difference lies instead. times: [low, high], in which the ratio
    of geometric means lies instead, for numbers whose tail is heavy.
    """
    if "times" in expectation:
        return _compare_ratio(expectation, scope)
    first, comparison, second = expectation["compare"]
    a = measured(scope.rows, scope.selector(first))
    if isinstance(second, dict):
        b = measured(scope.rows, scope.selector(second))
    else:
        b = constant(second, a)
    if scope.unit == "training":
        a, b = of_both(a, b)
    gap = difference(a, b, scope.unit)
    margin = expectation.get("within", 0)
    relative = isinstance(margin, str)
    if relative:
        margin = float(margin.removesuffix("%")) / 100
        gap = gap.scaled(b.mean)
    low, high = {
        "<": (-math.inf, 0),
        ">": (0, math.inf),
        ">=": (-margin, math.inf),
        "=": (-margin, margin),
    }[comparison]
    low, high = expectation.get("by", (low, high))
    effect = _effect_of_comparison(expectation["compare"], relative, gap, (low, high), scope)
    metric = first["metric"]
    sides = [wording.number(*[side.mean] * 3, wording.unit(metric)) for side in (a, b)]
    reason = f"{sides[0]} against {sides[1]}: {effect.words}"
    if not isinstance(second, dict):
        reason = f"{effect.words}, claimed {comparison} {sides[1]}"
    rows = pd.concat([a.rows, b.rows])
    strict = comparison in "<>" and "by" not in expectation
    return _placed(gap, low, high, reason, rows, scope, effect, strict)


def _compare_ratio(expectation: dict[str, Any], scope: Scope) -> Finding:
    """The first number is so many times the second, by geometric means."""
    first, _, second = expectation["compare"]
    sides = (scope.selector(first), scope.selector(second))
    a, b = (measured(scope.rows, side, logs=True) for side in sides)
    if scope.unit == "training":
        a, b = of_both(a, b)
    gap = difference(a, b, scope.unit)
    ends = expectation["times"]
    effect = ratio_of(gap, ends, scope.about(*sides), scope.paper)
    means = [wording.number(*[math.exp(side.mean)] * 3, "") for side in (a, b)]
    reason = f"{means[0]} against {means[1]}: {effect.words}"
    low, high = (math.log(end) if end else -math.inf for end in ends)
    rows = pd.concat([a.rows, b.rows])
    return _placed(gap, low, high, reason, rows, scope, effect, strict=True)


def _effect_of_comparison(
    compared: list, relative: bool, gap: Difference, claimed: tuple[float, float], scope: Scope
) -> Effect:
    """The difference of two models; of a model and a number, the model's own value."""
    first, _, second = compared
    paper = scope.paper
    if isinstance(second, dict):
        sides = (scope.selector(first), scope.selector(second))
        if paper is None and scope.reference is not None:
            paper = printed.gap(*sides, relative, scope.reference)
        unit = wording.unit(first["metric"], difference=True, relative=relative)
        return effect_of(gap, claimed, scope.about(*sides), unit, True, paper)
    if paper is None and scope.reference is not None:
        paper = printed.value(scope.selector(first), scope.reference)
    about = scope.about(scope.selector(first))
    unit = wording.unit(first["metric"])
    return effect_of(gap, claimed, about, unit, False, paper, shift=0 if relative else second)


def _between(expectation: dict[str, Any], scope: Scope) -> Finding:
    """A number lies between two others."""
    selector, low, high = expectation["between"]
    a = measured(scope.rows, scope.selector(selector))
    number = difference(a, constant(0, a), scope.unit)
    unit = wording.unit(selector["metric"])
    named = wording.named(scope.selector(selector))
    paper = scope.paper
    if paper is None and scope.reference is not None:
        paper = printed.value(scope.selector(selector), scope.reference)
    effect = effect_of(number, (low, high), scope.about(selector), unit, False, paper)
    ends = [wording.number(end, end, end, unit) for end in (low, high)]
    reason = f"{named} is {effect.words}, claimed {ends[0]} to {ends[1]}"
    return _placed(number, low, high, reason, a.rows, scope, effect)


def _all(expectation: dict[str, Any], scope: Scope) -> Finding:
    """Every row has the value, and there is one for everything that the selector lists.

    Of trainings: most of them, by the sign test. With 1 in 2 by chance, five alike are needed.
    """
    selector = scope.selector(expectation["all"])
    rows = pd.concat([known(scope.rows, each) for each in each_listed(selector)])
    right = rows["value"] == expectation["is"]
    metric = wording.title(selector["metric"])
    has = "a" if expectation["is"] else "no"
    reason = f"{has} {metric} in {right.sum()} of {len(rows)} models"
    if not right.all():
        reason += f", not in {', '.join(rows.loc[~right, 'backbone'])}"
    share = float(right.mean())
    about = scope.about(selector)
    least = 0.5 if scope.unit == "training" else 1.0  # the sign test's null, or every row
    effect = Effect(about, wording.SHARE, False, share, share, share, (least, None))
    if scope.unit != "training":
        p_false = 0.0 if right.all() else 1.0
        return Finding(scope.labelled(reason), rows, p_false, 1 - p_false, effect)
    by_seed = right.groupby(rows["seed"]).all()
    if len(by_seed) < LEAST_SEEDS:
        return _undecided(f"{ONE_SEED}: {reason}", rows, scope, effect, len(by_seed))
    hits = int(by_seed.sum())
    misses = len(by_seed) - hits
    p_false = _binomial_tail(hits, len(by_seed))
    p_true = _binomial_tail(misses, len(by_seed))
    if min(p_false, p_true) > ALPHA:
        reason += f"; {len(by_seed)} seeds do not decide it"
    # one-sided: the halves of a yes and a no are one and the same null
    decided = (p_false / 2, p_true / 2, effect, len(by_seed))
    return Finding(scope.labelled(reason), rows, *decided)


def _rarer(expectation: dict[str, Any], scope: Scope) -> Finding:
    """A property (1 or 0) is rarer among the first trainings than the second: Fisher's test."""
    groups = []
    for selector in expectation["rarer"]:
        rows = known(scope.rows, scope.selector(selector))
        groups.append((rows, rows.groupby("seed")["value"].max()))
    (rows_a, a), (rows_b, b) = groups
    rows = pd.concat([rows_a, rows_b])
    metric = wording.title(expectation["rarer"][0]["metric"])
    reason = f"{metric} in {int(a.sum())} of {len(a)} against {int(b.sum())} of {len(b)} trainings"
    change = float(a.mean() - b.mean())
    about = scope.about(*expectation["rarer"])
    effect = Effect(about, wording.POINTS, True, change, change, change, (None, 0.0))
    seeds = min(len(a), len(b))
    if seeds < LEAST_SEEDS:
        return _undecided(f"{ONE_SEED}: {reason}", rows, scope, effect, seeds)
    p_false = _fisher(int(a.sum()), len(a), int(b.sum()), len(b))
    p_true = _fisher(int(b.sum()), len(b), int(a.sum()), len(a))
    return Finding(scope.labelled(reason), rows, p_false, p_true, effect, seeds)


OPERATIONS = {"all": _all, "rarer": _rarer, "between": _between, "compare": _compare}


def _some(parts: list[Finding], scope: Scope) -> Finding:
    """At least one part holds (Bonferroni over those tested); none does where all surely fail."""
    reason = "; ".join(part.reason for part in parts)
    rows = pd.concat([part.rows for part in parts])
    tested = [part for part in parts if part.tested]
    if not tested:
        return Finding(reason, rows)
    p_false = min(1.0, len(tested) * min(part.p_false for part in tested))
    p_true = max(part.p_true for part in tested) if len(tested) == len(parts) else 1.0
    best = min(tested, key=lambda part: part.p_false)
    seeds = min(part.seeds for part in tested)
    return Finding(reason, rows, p_false, p_true, best.effect, seeds)


def _placed(
    gap: Difference,
    low: float,
    high: float,
    reason: str,
    rows: pd.DataFrame,
    scope: Scope,
    effect: Effect,
    strict: bool = False,
) -> Finding:
    """The finding on a number claimed to lie in [low, high]; strict: the ends are outside."""
    if scope.unit == "training" and gap.seeds < LEAST_SEEDS:
        return _undecided(f"{ONE_SEED}: {reason}", rows, scope, effect, gap.seeds)
    if scope.unit == "training" and gap.exact:
        reason += "; seeds that are all alike say nothing about their spread"
        return _undecided(reason, rows, scope, effect, gap.seeds)
    if gap.exact:
        inside = low < gap.value < high if strict else low <= gap.value <= high
        p_values = (1.0 - inside, float(inside))
        return Finding(scope.labelled(reason), rows, *p_values, effect, gap.seeds)
    p_false = max(_finite(low, gap.p_above), _finite(high, gap.p_below))
    p_true = min(
        1.0 if math.isinf(low) else gap.p_below(low),
        1.0 if math.isinf(high) else gap.p_above(high),
    )
    margin = min(abs(low), abs(high)) if low < 0 or math.isfinite(high) else 0
    half = (gap.interval[1] - gap.interval[0]) / 2
    if min(p_false, p_true) > ALPHA / 2 and 0 < margin < half and low <= 0 <= high:
        ends = [wording.number(end, end, end, effect.unit) for end in (half, margin)]
        reason += f"; a half-width of {ends[0]} cannot decide a margin of {ends[1]}"
    return Finding(scope.labelled(reason), rows, p_false, p_true, effect, gap.seeds)


def _undecided(
    reason: str, rows: pd.DataFrame, scope: Scope, effect: Effect, seeds: int
) -> Finding:
    return Finding(scope.labelled(reason), rows, 1.0, 1.0, effect, seeds)


def _finite(bound: float, p_value) -> float:
    return 0.0 if math.isinf(bound) else p_value(bound)


def _binomial_tail(hits: int, trials: int) -> float:
    """Chance of so many hits or more with 1 in 2 each."""
    return sum(math.comb(trials, k) for k in range(hits, trials + 1)) / 2**trials


def _fisher(few: int, of_few: int, many: int, of_many: int) -> float:
    """One-sided p-value of Fisher's exact test that the first share is not the lower one."""
    hits = few + many
    ways = math.comb(of_few + of_many, hits)
    lowest = max(0, hits - of_many)
    return (
        sum(math.comb(of_few, k) * math.comb(of_many, hits - k) for k in range(lowest, few + 1))
        / ways
    )
