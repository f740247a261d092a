"""Claims: what the paper says, held against what was measured.

paper/claims.yaml states each claim with a small closed set of operations (`claims.operations`).
What the samples are is part of a claim, its `unit`: trainings (then one seed decides nothing),
images (claims about the tokens of given backbones as such) or nothing, for exact numbers.

A claim is reproduced when all its parts surely hold, contradicted when one surely does not, each at
most 5 % of the time by accident, and inconclusive in between; a part that cannot be tested leaves
it inconclusive at best. It is not testable here when nothing of it can be: its premise is absent
(without outliers nothing can be said about outliers), rows are missing, or the project has not what
it needs.

Verdicts are of single claims. `hold_together` adds which of them stand when all claims asked are
taken together (Holm 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from registers.claims.effects import Effect
from registers.claims.operations import Finding, Scope, absent_premise, judge
from registers.claims.selectors import lines, select
from registers.differences import ALPHA
from registers.figures.paint import style
from registers.settings.backbone_id import BackboneId

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"
VERDICTS = (REPRODUCED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE)
SAMPLES = {"exact": "exact", "images": "of these backbones, over images"}
# what the samples are where models are published ones
PUBLISHED = {
    "exact": "exact",
    "images": "of these published models, over images",
    "training": "of published models, one training each",
}


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim.

    id, text, where: the claim's name, its words and its place in the paper.
    verdict: one of VERDICTS. reason: one sentence.
    samples: what it speaks of. scale: from which scale on it can be judged.
    p: two-sided p-value of the verdict's side; None for exact claims and untested ones.
    together: whether it stands when all claims asked are taken together; None as above.
    effect: the number of the part that decides it (the least sure of those that must all hold);
    None where nothing could be tested. parts: how many were tested.
    numbers: what it rests on, one line each. models: the backbones that were
    tested. runs: keys of the MLflow runs behind them.
    """

    id: str
    text: str
    where: str
    verdict: str
    reason: str
    samples: str = ""
    scale: str = ""
    p: float | None = None
    together: bool | None = None
    effect: Effect | None = None
    parts: int = 0
    numbers: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def judged(
    claims: Sequence[dict[str, Any]],
    measurements: pd.DataFrame,
    scale: str = "",
    reference: pd.DataFrame | None = None,
) -> list[Verdict]:
    """The outcome of all claims of a page, with what stands when they are taken together.

    scale: whose rows these are. Smoke learns nothing, so there only exact claims are judged.
    reference: the paper's printed numbers, which stand beside ours and decide nothing.
    """
    if scale == "smoke":
        claims = [_not_at_smoke(claim) for claim in claims]
    verdicts = hold_together([verdict(claim, measurements, reference) for claim in claims])
    if scale != "released":
        return verdicts
    units = [claim["unit"] for claim in claims]
    return [replace(v, samples=_of_published(unit, v)) for v, unit in zip(verdicts, units)]


def _not_at_smoke(claim: dict[str, Any]) -> dict[str, Any]:
    if claim["from"] in ("any", "smoke") or "untestable" in claim:
        return claim
    reason = f"scale smoke learns nothing; from scale {claim['from']} on"
    kept = ("id", "text", "where", "unit", "from", "show")
    return {key: claim[key] for key in kept if key in claim} | {"untestable": reason}


def verdict(
    claim: dict[str, Any], measurements: pd.DataFrame, reference: pd.DataFrame | None = None
) -> Verdict:
    """The outcome of one claim.

    measurements: rows as `inputs.rows` returns them, with the default size named or empty.
    reference: the paper's printed numbers, for its value beside ours.
    """
    scope = Scope(measurements, claim["unit"], {}, reference, claim.get("paper"))
    findings = _findings(claim, scope)
    outcome, p = _outcome(findings, claim["unit"])
    beside = select(measurements, claim["show"]) if "show" in claim else measurements.head(0)
    frames = [*(finding.rows for finding in findings), beside]
    return Verdict(
        claim["id"],
        claim["text"],
        claim["where"],
        verdict=outcome,
        reason="; ".join(dict.fromkeys(finding.reason for finding in findings)),
        samples=_samples(claim["unit"], findings),
        scale=claim["from"],
        p=p,
        effect=_deciding(findings, outcome),
        parts=sum(finding.tested for finding in findings),
        numbers=lines(beside),
        models=_models(findings),
        runs=sorted({run for frame in frames for run in frame["run"] if run}),
    )


def hold_together(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The same, marked with whether each stands at 5 % for all together, by Holm's procedure.

    The family is every claim that was tested on samples; exact ones need no correction.
    """
    family = sorted((v.p, number) for number, v in enumerate(verdicts) if v.p is not None)
    marked = list(verdicts)
    stands = True
    for rank, (p, number) in enumerate(family):
        stands = stands and p * (len(family) - rank) <= ALPHA
        marked[number] = replace(verdicts[number], together=stands)
    return marked


def _samples(unit: str, findings: Sequence[Finding]) -> str:
    """What a verdict speaks of: "of training, over 3 seeds"."""
    if unit != "training":
        return SAMPLES[unit]
    counts = sorted({finding.seeds for finding in findings if finding.tested})
    if not counts:
        return "of training"
    if counts == [1]:
        return "of training, one seed"
    least_to_most = style.span(str(count) for count in (counts[0], counts[-1]))
    return f"of training, over {least_to_most} seeds"


def _models(findings: Sequence[Finding]) -> list[str]:
    """The backbones whose rows were tested, each once."""
    names = (name for finding in findings if finding.tested for name in finding.rows["backbone"])
    return sorted({name for name in names if name})


def _of_published(unit: str, v: Verdict) -> str:
    """What a verdict on published models speaks of, by their names."""
    if not v.models:
        return PUBLISHED[unit]
    added = any(BackboneId.parse(name).test_time for name in v.models)
    note = " (-tt: with registers that were added at test time)" if added else ""
    return f"{PUBLISHED[unit]}: {style.listing(v.models)}{note}"


def _deciding(findings: Sequence[Finding], outcome: str) -> Effect | None:
    """The effect of the part that contradicts a claim, or else of the one that is least sure."""
    tested = [finding for finding in findings if finding.tested]
    if not tested:
        return None
    if outcome == CONTRADICTED:
        return min(tested, key=lambda finding: finding.p_true).effect
    return max(tested, key=lambda finding: finding.p_false).effect


def _findings(claim: dict[str, Any], scope: Scope) -> list[Finding]:
    if "untestable" in claim:
        return [Finding(claim["untestable"], scope.rows.head(0))]
    absent = absent_premise(claim["given"], scope) if "given" in claim else None
    return [absent] if absent else judge(claim["expect"], scope)


def _outcome(findings: Sequence[Finding], unit: str) -> tuple[str, float | None]:
    """The verdict on all parts of a claim, and its p-value."""
    tested = [finding for finding in findings if finding.tested]
    if not tested:
        return NOT_TESTABLE, None
    complete = len(tested) == len(findings)
    p_false = max(finding.p_false for finding in tested) if complete else 1.0
    p_true = min(1.0, len(tested) * min(finding.p_true for finding in tested))
    p = None if unit == "exact" else min(1.0, 2 * min(p_false, p_true))
    if p_true <= ALPHA / 2:
        return CONTRADICTED, p
    return (REPRODUCED if p_false <= ALPHA / 2 else INCONCLUSIVE), p
