"""paper/claims.yaml: what a claim may say, checked before anything is judged."""

from pathlib import Path
from typing import Any

import yaml

OPERATIONS = ("compare", "between", "all", "rarer", "every", "some", "for each")
WORDS = {*OPERATIONS, "within", "by", "times", "is", "then", "given"}
COMPARISONS = ("<", ">", ">=", "=")
UNITS = ("exact", "images", "training")
SCALES = ("smoke", "laptop", "evening", "gpu", "paper", "any")
PREMISES = ("any", "is", "learnt")
REQUIRED = ("id", "where", "text", "unit", "from")


def load(path: str | Path) -> list[dict[str, Any]]:
    """The claims of paper/claims.yaml.

    Raises ValueError where a claim lacks a part or uses an operation that does not exist.
    """
    claims = yaml.safe_load(Path(path).read_text())
    for claim in claims:
        name = claim.get("id", "without id")
        for key in REQUIRED:
            if key not in claim:
                raise ValueError(f"claim {name}: {key} is missing")
        _one_of(claim["unit"], UNITS, name, "unit")
        _one_of(claim["from"], SCALES, name, "from")
        if ("expect" in claim) == ("untestable" in claim):
            raise ValueError(f"claim {name}: must have either expect or untestable")
        if "expect" in claim:
            _check(claim["expect"], name)
        _check_premise(claim.get("given", {}), name)
    return claims


def _check(expectation: dict[str, Any], claim: str) -> None:
    unknown = sorted(set(expectation) - WORDS)
    if unknown or not set(expectation) & set(OPERATIONS):
        operation = ", ".join(unknown) or "missing"
        allowed = ", ".join(sorted(WORDS))
        raise ValueError(f"claim {claim}: operation {operation}; must be one of {allowed}")
    if "compare" in expectation:
        comparison = expectation["compare"][1]
        if comparison not in COMPARISONS:
            allowed = ", ".join(COMPARISONS)
            raise ValueError(f'claim {claim}: compare "{comparison}"; must be one of {allowed}')
    if "times" in expectation:
        _check_times(expectation, claim)
    _check_premise(expectation.get("given", {}), claim)
    for inner in [*expectation.get("every", []), *expectation.get("some", [])]:
        _check(inner, claim)
    if "then" in expectation:
        _check(expectation["then"], claim)


def _check_times(expectation: dict[str, Any], claim: str) -> None:
    """A ratio is of two measured numbers, and is all that is asked of them."""
    sides = expectation.get("compare", [None])[::2]
    if len(sides) != 2 or not all(isinstance(side, dict) for side in sides):
        raise ValueError(f"claim {claim}: times; must stand beside compare with two selectors")
    for word in ("within", "by"):
        if word in expectation:
            raise ValueError(f"claim {claim}: times; must stand without {word}")


def _check_premise(premise: dict[str, Any], claim: str) -> None:
    for key in premise:
        _one_of(key, PREMISES, claim, "given")


def _one_of(value: str, allowed: tuple[str, ...], claim: str, key: str) -> None:
    if value not in allowed:
        must = ", ".join(allowed)
        raise ValueError(f"claim {claim}: {key} {value}; must be one of {must}")
