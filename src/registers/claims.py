"""What the paper says, held against measurements: paper/claims.yaml names the operations, `verdict` carries them out.

A claim holds when the whole interval of what was measured lies where the claim says, fails when none of it does, and is inconclusive
in between. Where its premise is absent (no outliers, hence nothing about outliers) or rows are missing it is not testable here.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from registers.settings.backbone_id import BackboneId

REPRODUCED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE = (
    "reproduced",
    "contradicted",
    "inconclusive",
    "not testable here",
)
VERDICTS = (REPRODUCED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE)
ALLOWED = {"compare", "within", "between", "all", "is", "every", "for each", "then"}


@dataclass(frozen=True)
class Verdict:
    """One claim's outcome: `verdict` is one of VERDICTS, `reason` one sentence, `numbers` what it rests on, a line each."""

    id: str
    text: str
    where: str
    verdict: str
    reason: str
    numbers: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g}" + (
            f" [{self.low:.4g}, {self.high:.4g}]" if self.low < self.high else ""
        )


class Missing(Exception):
    """No rows, or no value in them; the message says which and why."""


def load(path: str | Path) -> list[dict[str, Any]]:
    """The claims of paper/claims.yaml. Raises ValueError where one uses an operation that does not exist."""
    claims = yaml.safe_load(Path(path).read_text())
    for claim in claims:
        _check(claim["expect"], claim["id"])
    return claims


def verdict(claim: dict[str, Any], measurements: pd.DataFrame) -> Verdict:
    """The outcome of one claim on measurements as `registers.measurements.read` returns them (sizes named or empty)."""
    shown = [select(measurements, claim["show"])] if "show" in claim else []
    numbers = [line for rows in shown for line in _lines(rows)]

    def outcome(what: str, reason: str, rows: list[pd.DataFrame]) -> Verdict:
        runs = sorted({run for frame in (*rows, *shown) for run in frame["run"] if run})
        return Verdict(claim["id"], claim["text"], claim["where"], what, reason, numbers, runs)

    if "given" in claim:
        premise = select(measurements, claim["given"]["any"])
        if premise.empty:
            return outcome(NOT_TESTABLE, f"no rows: {_named(claim['given']['any'])}", [])
        if not (premise["value"] == claim["given"]["is"]).any():
            what = claim["given"]["any"]["metric"].replace("_", " ")
            return outcome(
                NOT_TESTABLE, f"no {what} in any of the {len(premise)} models asked", [premise]
            )
    parts = _judge(claim["expect"], measurements)
    found = [p for p in parts if p[0] != NOT_TESTABLE]
    verdicts = {what for what, _, _ in found}
    what = next(
        (v for v in (CONTRADICTED, INCONCLUSIVE, REPRODUCED) if v in verdicts), NOT_TESTABLE
    )
    return outcome(
        what, "; ".join(reason for _, reason, _ in parts), [rows for _, _, rows in parts]
    )


def select(measurements: pd.DataFrame, wanted: dict[str, Any]) -> pd.DataFrame:
    """Rows with the wanted values by column: one value, a list of them, or {from: x, below: y}.

    Unless asked for: only the end of training (percent 100), the method's own size (an id without size), no "noaa".
    """
    rows = measurements
    unknown = set(wanted) - set(rows.columns)
    if unknown:
        raise ValueError(
            f"claims: unknown column {', '.join(sorted(unknown))}; allowed are {', '.join(rows.columns)}"
        )
    for column, value in wanted.items():
        if isinstance(value, dict):
            rows = rows[
                (rows[column] >= value.get("from", -math.inf))
                & (rows[column] < value.get("below", math.inf))
            ]
        else:
            rows = rows[rows[column].isin(value if isinstance(value, list) else [value])]
    ids = [BackboneId.parse(name) if name else None for name in rows["backbone"]]
    kept = [
        i is None
        or (
            ("percent" in wanted or i.percent == 100)
            and ("size" in wanted or not i.size)
            and ("noaa" in wanted or not i.noaa)
        )
        for i in ids
    ]
    return rows[pd.Series(kept, index=rows.index, dtype=bool)]


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates, by their intervals (Newcombe 1998, Statistics in Medicine 17, 873, method 10)."""
    d = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(d, d - below, d + above)


# --- operations: each returns (verdict, reason, rows) of its parts ------------------------------------------------------


def _judge(
    expression: dict[str, Any], rows: pd.DataFrame, also: dict[str, Any] | None = None
) -> list[tuple[str, str, pd.DataFrame]]:
    also = also or {}
    if "every" in expression:
        return [part for one in expression["every"] for part in _judge(one, rows, also)]
    if "for each" in expression:
        ((column, values),) = expression["for each"].items()
        return [
            part
            for value in values
            for part in _judge(expression["then"], rows, {**also, column: value})
        ]
    try:
        if "all" in expression:
            return [_all(expression, rows, also)]
        if "between" in expression:
            wanted, low, high = expression["between"]
            a, used = _estimate(rows, wanted, also)
            return [
                (
                    _inside(a, low, high),
                    f"{_named({**wanted, **also})} is {a}, claimed {low:g} to {high:g}",
                    used,
                )
            ]
        a_wanted, op, b_wanted = expression["compare"]
        (a, a_used), (b, b_used) = _estimate(rows, a_wanted, also), _estimate(rows, b_wanted, also)
        d, margin = difference(a, b), expression.get("within", 0)
        low, high = {
            "<": (-math.inf, 0),
            ">": (0, math.inf),
            ">=": (-margin, math.inf),
            "=": (-margin, margin),
        }[op]
        subject = ", ".join(str(v) for v in also.values())
        reason = f"{subject + ': ' if subject else ''}{a} against {b}, difference {d}"
        return [(_inside(d, low, high, op in "<>"), reason, pd.concat([a_used, b_used]))]
    except Missing as missing:
        return [(NOT_TESTABLE, str(missing), rows.head(0))]


def _all(
    expression: dict[str, Any], rows: pd.DataFrame, also: dict[str, Any]
) -> tuple[str, str, pd.DataFrame]:
    wanted = {**expression["all"], **also}
    found = select(rows, wanted).dropna(subset=["value"])
    if found.empty:
        raise Missing(f"no rows: {_named(wanted)}")
    wrong = found[found["value"] != expression["is"]]
    reason = f"{wanted['metric'].replace('_', ' ')} is {expression['is']} for {len(found) - len(wrong)} of {len(found)}"
    return (
        (CONTRADICTED if len(wrong) else REPRODUCED),
        reason + (f", not for {', '.join(wrong['backbone'])}" if len(wrong) else ""),
        found,
    )


def _estimate(
    rows: pd.DataFrame, wanted: Any, also: dict[str, Any]
) -> tuple[Estimate, pd.DataFrame]:
    """A number, or the mean over rows (seeds) with the span of their intervals; no interval means exact."""
    if isinstance(wanted, (int, float)):
        return Estimate(wanted, wanted, wanted), rows.head(0)
    wanted = {**wanted, **also}
    found = select(rows, wanted)
    known = found.dropna(subset=["value"])
    if known.empty:
        why = found["note"].iloc[0] if len(found) else "no rows"
        raise Missing(f"{why}: {_named(wanted)}")
    low, high = (
        known["low"].fillna(known["value"]).min(),
        known["high"].fillna(known["value"]).max(),
    )
    return Estimate(float(known["value"].mean()), float(low), float(high)), known


def _inside(a: Estimate, low: float, high: float, strict: bool = False) -> str:
    """Where an interval lies to [low, high]; strict: a bound itself is outside."""
    if (low < a.low and a.high < high) if strict else (low <= a.low and a.high <= high):
        return REPRODUCED
    if (a.high <= low or a.low >= high) if strict else (a.high < low or a.low > high):
        return CONTRADICTED
    return INCONCLUSIVE


def _check(expression: dict[str, Any], claim: str) -> None:
    unknown = set(expression) - ALLOWED
    if unknown or not set(expression) & {"compare", "between", "all", "every", "for each"}:
        raise ValueError(
            f"claim {claim}: operation {', '.join(sorted(unknown)) or 'missing'}; allowed are {', '.join(sorted(ALLOWED))}"
        )
    if "compare" in expression and expression["compare"][1] not in ("<", ">", ">=", "="):
        raise ValueError(
            f'claim {claim}: compare "{expression["compare"][1]}"; allowed are <, >, >=, ='
        )
    for inner in [
        *expression.get("every", []),
        *([expression["then"]] if "then" in expression else []),
    ]:
        _check(inner, claim)


def _named(wanted: dict[str, Any]) -> str:
    """A selector in words: "linear top1, method dinov2, registers 4"."""
    rest = [f"{k} {v}" for k, v in wanted.items() if k not in ("question", "metric")]
    return ", ".join(
        [
            f"{wanted.get('question', '')} {wanted.get('metric', '')}".replace("_", " ").strip(),
            *rest,
        ]
    )


def _lines(rows: pd.DataFrame) -> list[str]:
    found = []
    for row in rows.dropna(subset=["value"]).itertuples():
        low, high = (row.value if math.isnan(v) else v for v in (row.low, row.high))
        at = row.backbone or f"{row.data}, {row.x:g}"
        found.append(f"{row.metric.replace('_', ' ')} {at}: {Estimate(row.value, low, high)}")
    return found
