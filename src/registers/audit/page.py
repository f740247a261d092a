"""The audit as a self-contained HTML page, and as a piece of one for notebooks. Needs no torch."""

import base64
from datetime import datetime
from importlib import resources

from jinja2 import Environment

from registers.audit import pictures, text
from registers.audit.results import Audit, AuditReport, versions
from registers.audit.verdict import percent

TEMPLATE = "page.html.j2"
_ORDER = ("maps", "curves", "histogram", "depth", "places", "heads", "attention", "neurons")
_TITLES = {
    "maps": "Where they are",
    "curves": "Norms along layers",
    "histogram": "Norms at one layer",
    "depth": "Through the layers",
    "places": "Places",
    "heads": "Which heads look at them",
    "attention": "What these heads see",
    "neurons": "Which neurons write them",
}
_TITLES_CLEAN = {"maps": "Maps of norms", "heads": "Heads"}


def page(report: AuditReport) -> str:
    """A whole page: no other file, no script, no network."""
    return _render(report, whole=True)


def fragment(report: AuditReport) -> str:
    """The same without head and body, its style kept to itself."""
    return _render(report, whole=False)


def _render(report: AuditReport, whole: bool) -> str:
    source = resources.files("registers.audit").joinpath(TEMPLATE).read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        whole=whole,
        models=[_model(audit) for audit in report.audits],
        compared=_compared(report),
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
    )


def _model(audit: Audit) -> dict:
    card = audit.bank.card
    drawn = pictures.pictures(audit)
    titles = _TITLES if audit.verdict.outliers else {**_TITLES, **_TITLES_CLEAN}
    table = [[cell.strip() for cell in line] for line in _cells(audit)]
    return {
        "name": card.name,
        "outliers": audit.verdict.outliers,
        "words": audit.verdict.words.partition(": ")[2],
        "sentences": audit.sentences()[1:],
        "facts": _facts(audit),
        "notes": card.notes,
        "figures": [
            {
                "title": titles[name],
                "caption": drawn[name][1],
                "data": base64.b64encode(drawn[name][0]).decode(),
                "small": name == "places",
            }
            for name in _ORDER
            if name in drawn
        ],
        "heads": table[0],
        "rows": [
            {"cells": line, "marked": row.cutoff is not None}
            for line, row in zip(table[1:], audit.rows)
        ],
    }


def _cells(audit: Audit) -> list[list[str]]:
    columns = text.columns(audit.rows)
    lines = [[head.replace("| ", "") for head, _, _ in columns]]
    return lines + [[text.cell(row, name, how) for _, name, how in columns] for row in audit.rows]


def _facts(audit: Audit) -> list[tuple[str, str]]:
    card = audit.bank.card
    images = f"{len(audit.bank)}"
    if audit.bank.images is not None:
        height, width = audit.bank.images.pixels.shape[-2:]
        names = sorted({name.partition(",")[0] for name in audit.bank.images.names})
        listed = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
        images = f"{len(audit.bank)} of {height}x{width} pixels ({listed})"
    facts = [
        ("model", card.architecture),
        ("weights", card.source),
        ("revision", card.revision),
        ("SHA-256", f"{card.sha256} ({card.hashed})" if card.sha256 else ""),
        ("licence", card.licence),
        ("images", images),
    ]
    return [(name, value) for name, value in facts if value]


def _compared(report: AuditReport) -> list[tuple[str, list[str]]]:
    """Rows of the table that sets several models side by side; [] for one."""
    audits = report.audits
    if len(audits) < 2:
        return []
    verdicts = [audit.verdict for audit in audits]
    best = [audit.rows[(audit.verdict.layer or audit.bank.layers) - 1] for audit in audits]
    last = [audit.rows[-1] for audit in audits]

    def run(verdict) -> str:
        if not verdict.outliers:
            return "-"
        return f"{verdict.onset} to {verdict.until} of {verdict.layers}"

    def number(value) -> str:
        return "-" if value is None else f"{value:.3g}"

    return [
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
        ("behind the final norm, highest", [number(row.normed_maximum) for row in best]),
    ]
