"""The audit as a self-contained HTML page, and as a piece of one for notebooks."""

import base64
from collections.abc import Sequence
from datetime import datetime
from importlib import resources

from jinja2 import Environment

from registers.audit import change_pictures, pictures, text
from registers.audit.audited import Audit, versions
from registers.audit.side_by_side import ablation_table, compared
from registers.vocabulary import added

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


def page(audits: Sequence[Audit]) -> str:
    """A whole page: no other file, no script, no network."""
    return _render(audits, whole=True)


def fragment(audits: Sequence[Audit]) -> str:
    """The same without head and body, its style kept to itself."""
    return _render(audits, whole=False)


def _render(audits: Sequence[Audit], whole: bool) -> str:
    source = resources.files("registers.audit").joinpath(TEMPLATE).read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        whole=whole,
        models=[_model(audit) for audit in audits],
        compared=compared(audits) if len(audits) > 1 else [],
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
        "change": _change(audit),
        "heads": table[0],
        "rows": [
            {"cells": line, "marked": row.cutoff is not None}
            for line, row in zip(table[1:], audit.rows)
        ],
    }


def _change(audit: Audit) -> dict | None:
    """What test-time registers change, for the page; None where they were not asked for."""
    if audit.change is None:
        return {"note": audit.change_note} if audit.change_note else None
    change = audit.change
    return {
        "title": f"With {added(change.recipe.registers)}",
        "sentences": change.sentences(audit),
        "compared": compared([audit, change.after], change.layer),
        "ablations": ablation_table(change.ablations),
        "figures": [
            {"caption": caption, "data": base64.b64encode(png).decode()}
            for png, caption in change_pictures.pictures(audit)
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
