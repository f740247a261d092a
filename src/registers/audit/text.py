"""The report of an audit on a terminal."""

from collections.abc import Sequence

from registers.audit.audited import Audit
from registers.audit.side_by_side import ablation_table, compared
from registers.audit.verdict import LayerRow, counted, percent
from registers.vocabulary import added

# Printed head, attribute of a row, and how it is written.
_COLUMNS = (
    ("layer", "layer", "{}"),
    ("median", "median", "{:.3g}"),
    ("98 %", "percentile_98", "{:.3g}"),
    ("max", "maximum", "{:.3g}"),
    ("cut-off", "cutoff", "{:.3g}"),
    ("outliers", "share", percent),
    ("x median", "ratio", "{:.1f}"),
    ("> 150", "above_150", percent),
    ("massive", "massive_share", percent),
    ("[CLS]", "cls", "{:.3g}"),
    ("registers", "registers", "{:.3g}"),
    ("added", "added", "{:.3g}"),
    ("| normed: median", "normed_median", "{:.3g}"),
    ("max", "normed_maximum", "{:.3g}"),
    ("above cut-off", "normed_share", percent),
)


def report(audits: Sequence[Audit]) -> str:
    """Verdicts, tables and, for several models, the verdicts side by side."""
    parts = [_one(audit) for audit in audits]
    if len(audits) > 1:
        parts.append(_side_by_side(audits))
    return "\n\n".join(parts)


def _one(audit: Audit) -> str:
    card = audit.bank.card
    lines = [card.name, "=" * len(card.name)]
    source = "" if card.source == card.name else card.source  # the title has it
    facts = [card.architecture, source]
    if card.revision:
        facts.append(f"revision {card.revision}")
    if card.sha256:
        hashed = "" if card.name.endswith(card.hashed) else f" ({card.hashed})"
        facts.append(f"sha256 {card.sha256}{hashed}")
    if card.licence:
        facts.append(f"licence {card.licence}")
    lines += [fact for fact in facts if fact]
    lines += [f"note: {note}" for note in card.notes]
    lines += ["", *audit.sentences(), "", *table(audit.rows), ""]
    lines.append(
        "norms of patches, before the final norm; normed: behind it. outliers: patches above the "
        "model's own cut-off; - where norms have one mode. massive: patches with an activation "
        "above 100 and 1000 x the median magnitude."
    )
    lines += _change(audit)
    lines.append(f"{counted(len(audit.bank), 'image')}, {audit.seconds:.1f} s")
    return "\n".join(lines)


def _change(audit: Audit) -> list[str]:
    """Before and after test-time registers, where they were asked for."""
    if audit.change is None:
        return ["", f"test-time registers: {audit.change_note}", ""] if audit.change_note else []
    change = audit.change
    title = f"with {added(change.recipe.registers)}"
    rows = [("", "before", "after")]
    rows += [(label, *cells) for label, cells in compared([audit, change.after], change.layer)]
    lines = ["", title, "-" * len(title), *change.sentences(audit), "", *_aligned(rows), ""]
    lines += [*_aligned(ablation_table(change.ablations)), ""]
    lines.append(
        "apart: 1 - cosine with the untouched model's tokens behind the final norm. Zero is a "
        "value that no layer has seen: it overstates what is lost, so the mean stands beside it."
    )
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, the first column to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def table(rows: tuple[LayerRow, ...]) -> list[str]:
    """The table by layer, columns that say nothing left out, aligned to the right."""
    shown = columns(rows)
    cells = [[head for head, _, _ in shown]]
    cells += [[cell(row, name, how) for _, name, how in shown] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths)) for line in cells]


def columns(rows: tuple[LayerRow, ...]) -> list[tuple]:
    """Head, attribute and format of the columns in which a row has a value."""
    return [c for c in _COLUMNS if any(getattr(row, c[1]) is not None for row in rows)]


def cell(row: LayerRow, name: str, how) -> str:
    value = getattr(row, name)
    if value is None or (name in ("share", "normed_share") and not value):
        return "-"
    return how.format(value) if isinstance(how, str) else how(value)


def _side_by_side(audits: Sequence[Audit]) -> str:
    names = [audit.name for audit in audits]
    width = max(len(name) for name in names)
    lines = ["side by side", "------------"]
    lines += [f"{a.name.ljust(width)}  {a.verdict.words}" for a in audits]
    return "\n".join(lines)
