"""Claims: what the paper says, held against what was measured.

paper/claims.yaml states each claim with a small closed set of operations; `verdict` carries them
out. A claim is reproduced when the whole interval of what was measured lies where the claim says,
contradicted when none of it does, and inconclusive in between. It is not testable here when its
premise is absent (without outliers nothing can be said about outliers) or when rows are missing.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from registers.settings.backbone_id import BackboneId

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"
VERDICTS = (REPRODUCED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE)

OPERATIONS = ("compare", "between", "all", "every", "for each")
WORDS = {*OPERATIONS, "within", "is", "then"}
COMPARISONS = ("<", ">", ">=", "=")


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim.

    id, text, where: the claim's name, its words and its place in the paper.
    verdict: one of VERDICTS. reason: one sentence.
    numbers: what it rests on, one line each. runs: keys of the MLflow runs behind them.
    """

    id: str
    text: str
    where: str
    verdict: str
    reason: str
    numbers: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """The outcome of one part of a claim, and the rows it rests on."""

    verdict: str
    reason: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; low = value = high for an exact one."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f" [{self.low:.4g}, {self.high:.4g}]" if self.low < self.high else ""
        return f"{self.value:.4g}{interval}"


class Missing(Exception):
    """There are no rows, or no value in them; the message names them and the reason."""


def load(path: str | Path) -> list[dict[str, Any]]:
    """The claims of paper/claims.yaml.

    Raises ValueError where a claim uses an operation that does not exist.
    """
    claims = yaml.safe_load(Path(path).read_text())
    for claim in claims:
        _check(claim["expect"], claim["id"])
    return claims


def verdict(claim: dict[str, Any], measurements: pd.DataFrame) -> Verdict:
    """The outcome of one claim.

    measurements: rows as `inputs.rows` returns them, with the default size named or empty.
    """
    absent = _absent_premise(claim["given"], measurements) if "given" in claim else None
    findings = [absent] if absent else _judge(claim["expect"], measurements)
    beside = select(measurements, claim["show"]) if "show" in claim else measurements.head(0)
    frames = [*(finding.rows for finding in findings), beside]
    return Verdict(
        claim["id"],
        claim["text"],
        claim["where"],
        verdict=_weakest(finding.verdict for finding in findings),
        reason="; ".join(finding.reason for finding in findings),
        numbers=_lines(beside),
        runs=sorted({run for frame in frames for run in frame["run"] if run}),
    )


def select(measurements: pd.DataFrame, selector: dict[str, Any]) -> pd.DataFrame:
    """The rows that a selector names, by column: one value, a list of them, or {from: a, below: b}.

    Unless the selector says otherwise, only the end of training (percent 100), the method's own
    size (an id without a size) and no "noaa" count. Raises ValueError for an unknown column.
    """
    unknown = sorted(set(selector) - set(measurements.columns))
    if unknown:
        columns = ", ".join(measurements.columns)
        raise ValueError(f"claims: unknown column {', '.join(unknown)}; must be one of {columns}")
    rows = measurements
    for column, value in selector.items():
        rows = rows[_matches(rows[column], value)]
    usual = [not name or _is_usual(BackboneId.parse(name), selector) for name in rows["backbone"]]
    return rows[pd.Series(usual, index=rows.index, dtype=bool)]


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates, from their intervals.

    Source: Newcombe 1998, Statistics in Medicine 17, 873, method 10.
    """
    value = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - below, value + above)


# --- selecting rows -------------------------------------------------------------------------------


def _matches(column: pd.Series, value: Any) -> pd.Series:
    if isinstance(value, dict):
        low = value.get("from", -math.inf)
        high = value.get("below", math.inf)
        return (column >= low) & (column < high)
    return column.isin(value if isinstance(value, list) else [value])


def _is_usual(id: BackboneId, selector: dict[str, Any]) -> bool:
    """Whether a backbone is one that claims mean where they do not say otherwise."""
    return (
        ("percent" in selector or id.percent == 100)
        and ("size" in selector or not id.size)
        and ("noaa" in selector or not id.noaa)
    )


# --- operations -----------------------------------------------------------------------------------


def _absent_premise(premise: dict[str, Any], measurements: pd.DataFrame) -> Finding | None:
    """Why nothing can be said, where no row has the value that a claim presupposes; else None."""
    selector = premise["any"]
    rows = select(measurements, selector)
    if rows.empty:
        return Finding(NOT_TESTABLE, f"no rows: {_named(selector)}", rows)
    if (rows["value"] == premise["is"]).any():
        return None
    metric = selector["metric"].replace("_", " ")
    return Finding(NOT_TESTABLE, f"no {metric} in any of the {len(rows)} models asked", rows)


def _judge(
    expectation: dict[str, Any], rows: pd.DataFrame, also: dict[str, Any] | None = None
) -> list[Finding]:
    """Carry out one operation. also: columns that hold for all its selectors ("for each")."""
    also = also or {}
    if "every" in expectation:
        return [finding for inner in expectation["every"] for finding in _judge(inner, rows, also)]
    if "for each" in expectation:
        ((column, values),) = expectation["for each"].items()
        scopes = [{**also, column: value} for value in values]
        return [finding for scope in scopes for finding in _judge(expectation["then"], rows, scope)]
    try:
        if "all" in expectation:
            return [_all(expectation, rows, also)]
        if "between" in expectation:
            return [_between(expectation, rows, also)]
        return [_compare(expectation, rows, also)]
    except Missing as missing:
        return [Finding(NOT_TESTABLE, str(missing), rows.head(0))]


def _all(expectation: dict[str, Any], rows: pd.DataFrame, also: dict[str, Any]) -> Finding:
    """Every row has the value."""
    selector = {**expectation["all"], **also}
    known = select(rows, selector).dropna(subset=["value"])
    if known.empty:
        raise Missing(f"no rows: {_named(selector)}")
    wrong = known[known["value"] != expectation["is"]]
    metric = selector["metric"].replace("_", " ")
    right = len(known) - len(wrong)
    reason = f"{metric} is {expectation['is']} for {right} of {len(known)}"
    if wrong.empty:
        return Finding(REPRODUCED, reason, known)
    return Finding(CONTRADICTED, f"{reason}, not for {', '.join(wrong['backbone'])}", known)


def _between(expectation: dict[str, Any], rows: pd.DataFrame, also: dict[str, Any]) -> Finding:
    """A number lies between two others."""
    selector, low, high = expectation["between"]
    estimate, known = _estimate(rows, selector, also)
    name = _named({**selector, **also})
    reason = f"{name} is {estimate}, claimed {low:g} to {high:g}"
    return Finding(_position(estimate, low, high), reason, known)


def _compare(expectation: dict[str, Any], rows: pd.DataFrame, also: dict[str, Any]) -> Finding:
    """Two numbers compare as claimed, for >= and = within a margin."""
    first, comparison, second = expectation["compare"]
    a, rows_of_a = _estimate(rows, first, also)
    b, rows_of_b = _estimate(rows, second, also)
    margin = expectation.get("within", 0)
    low, high = {
        "<": (-math.inf, 0),
        ">": (0, math.inf),
        ">=": (-margin, math.inf),
        "=": (-margin, margin),
    }[comparison]
    gap = difference(a, b)
    scope = ", ".join(str(value) for value in also.values())
    reason = f"{scope + ': ' if scope else ''}{a} against {b}, difference {gap}"
    outcome = _position(gap, low, high, strict=comparison in "<>")
    return Finding(outcome, reason, pd.concat([rows_of_a, rows_of_b]))


def _estimate(
    rows: pd.DataFrame, term: float | dict[str, Any], also: dict[str, Any]
) -> tuple[Estimate, pd.DataFrame]:
    """A term of an operation and the rows behind it.

    A number stands for itself. A selector means the mean over its rows (seeds) with the span of
    their intervals; a row without an interval is exact. Raises Missing where there is no value.
    """
    if isinstance(term, (int, float)):
        return Estimate(term, term, term), rows.head(0)
    selector = {**term, **also}
    selected = select(rows, selector)
    known = selected.dropna(subset=["value"])
    if known.empty:
        reason = "no rows" if selected.empty else selected["note"].iloc[0]
        raise Missing(f"{reason}: {_named(selector)}")
    low = known["low"].fillna(known["value"]).min()
    high = known["high"].fillna(known["value"]).max()
    return Estimate(float(known["value"].mean()), float(low), float(high)), known


def _position(estimate: Estimate, low: float, high: float, strict: bool = False) -> str:
    """The verdict on an interval claimed to lie in [low, high]; strict: the ends are outside."""
    if strict:
        inside = low < estimate.low and estimate.high < high
        outside = estimate.high <= low or estimate.low >= high
    else:
        inside = low <= estimate.low and estimate.high <= high
        outside = estimate.high < low or estimate.low > high
    if inside:
        return REPRODUCED
    return CONTRADICTED if outside else INCONCLUSIVE


def _weakest(verdicts: Iterable[str]) -> str:
    """The verdict on a claim of several parts. Parts that cannot be tested do not count."""
    present = set(verdicts)
    order = (CONTRADICTED, INCONCLUSIVE, REPRODUCED)
    return next((verdict for verdict in order if verdict in present), NOT_TESTABLE)


def _check(expectation: dict[str, Any], claim: str) -> None:
    unknown = sorted(set(expectation) - WORDS)
    if unknown or not set(expectation) & set(OPERATIONS):
        operation = ", ".join(unknown) or "missing"
        allowed = ", ".join(sorted(WORDS))
        raise ValueError(f"claim {claim}: operation {operation}; must be one of {allowed}")
    if "compare" in expectation and expectation["compare"][1] not in COMPARISONS:
        comparison = expectation["compare"][1]
        allowed = ", ".join(COMPARISONS)
        raise ValueError(f'claim {claim}: compare "{comparison}"; must be one of {allowed}')
    for inner in expectation.get("every", []):
        _check(inner, claim)
    if "then" in expectation:
        _check(expectation["then"], claim)


# --- in words -------------------------------------------------------------------------------------


def _named(selector: dict[str, Any]) -> str:
    """A selector in words: "linear top1, method dinov2, registers 4"."""
    subject = f"{selector.get('question', '')} {selector.get('metric', '')}"
    columns = [f"{k} {v}" for k, v in selector.items() if k not in ("question", "metric")]
    return ", ".join([subject.replace("_", " ").strip(), *columns])


def _lines(rows: pd.DataFrame) -> list[str]:
    """Each row with a value as a line: "max over median dinov2-r0-s0: 3.2 [3.1, 3.4]"."""
    lines = []
    for row in rows.dropna(subset=["value"]).itertuples():
        low = row.value if math.isnan(row.low) else row.low
        high = row.value if math.isnan(row.high) else row.high
        subject = row.backbone or f"{row.data}, {row.coordinate} {row.at:g}"
        metric = row.metric.replace("_", " ")
        lines.append(f"{metric} {subject}: {Estimate(row.value, low, high)}")
    return lines
