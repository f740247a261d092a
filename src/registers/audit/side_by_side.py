"""Tables that set models side by side, in words: several, before and after, with parts replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from registers.audit.audited import MEAN, MOVED, ZERO, Audit
from registers.audit.verdict import percent

if TYPE_CHECKING:
    from registers.audit.ablation import Ablation

_WHAT = {"neurons": "register neurons", "registers": "the model's own registers"}
_HOW = {ZERO: "set to zero", MEAN: "replaced by their mean", MOVED: "moved"}


def compared(audits: Sequence[Audit], layer: int | None = None) -> list[tuple[str, list[str]]]:
    """Rows of the table that sets several models side by side: a label, a cell for each model.

    layer: from 1, whose norms are compared; default: where each model's outliers stand out most.
    """
    verdicts = [audit.verdict for audit in audits]
    best = [audit.rows[(layer or audit.verdict.layer or audit.bank.layers) - 1] for audit in audits]
    last = [audit.rows[-1] for audit in audits]

    def run(verdict) -> str:
        if not verdict.outliers:
            return "-"
        return f"{verdict.onset} to {verdict.until} of {verdict.layers}"

    def number(value) -> str:
        return "-" if value is None else f"{value:.3g}"

    rows = [
        ("outliers", ["yes" if v.outliers else "no" for v in verdicts]),
        ("share of patches", [percent(v.share) if v.outliers else "-" for v in verdicts]),
        ("times the median", [number(v.ratio) for v in verdicts]),
        ("layers", [run(v) for v in verdicts]),
        ("at the output", ["yes" if v.at_output else "no" for v in verdicts]),
        ("highest norm", [number(row.maximum) for row in best]),
        ("median norm", [number(row.median) for row in best]),
        ("above 150", [percent(row.above_150) for row in best]),
        ("massive activations", [percent(row.massive_share) for row in best]),
        ("[CLS] at the output", [number(row.cls) for row in last]),
        ("registers at the output", [number(row.registers) for row in last]),
        ("test-time registers at the output", [number(row.added) for row in last]),
        ("behind the final norm, highest", [number(row.normed_maximum) for row in best]),
    ]
    return [(label, cells) for label, cells in rows if {*cells} != {"-"}]


def ablation_table(ablations: Sequence[Ablation]) -> list[tuple[str, ...]]:
    """Head and rows of what was set to zero, replaced by its mean, and moved."""
    head = ("changed", "outliers left", "norm of the others", "others apart", "[CLS] apart")
    rows = [head]
    for row in ablations:
        rows.append(
            (
                f"{_WHAT[row.what]} {_HOW[row.how]}",
                percent(row.outliers),
                f"{100 * row.norm:+.2g} %",
                f"{row.patches:.2g}",
                "-" if row.cls is None else f"{row.cls:.2g}",
            )
        )
    return rows
