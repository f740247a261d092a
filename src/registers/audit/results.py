"""The result of an audit: as text, page, JSON and CSV. Needs no torch."""

import csv
import io
import platform
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registers.audit.verdict import AuditVerdict, LayerRow, Places, percent, times
from registers.files import atomically, write_json, write_text

if TYPE_CHECKING:  # these modules need torch
    from registers.audit.inside import HeadRow, NeuronRow
    from registers.audit.watched import AuditBank

TOP_HEADS = 5
PACKAGES = ("registers", "timm", "torch", "numpy")
CONDITIONS = ("outliers", "outliers-at-output")  # of --fail-on


@dataclass(frozen=True)
class Audit:
    """All that was found out about one model.

    rows: one for each layer. heads_note, neurons_note: why there are none, "" where there are.
    seconds: from loading the model to the verdict.
    """

    bank: "AuditBank"
    rows: tuple[LayerRow, ...]
    verdict: AuditVerdict
    places: Places
    heads: tuple["HeadRow", ...]
    heads_note: str
    neurons: tuple["NeuronRow", ...]
    neurons_note: str
    seconds: float

    @property
    def name(self) -> str:
        return self.bank.card.name

    def top_heads(self, count: int = TOP_HEADS) -> list["HeadRow"]:
        """Heads that look at outliers most; without outliers, those with the busiest patch."""
        known = [row for row in self.heads if row.patches_to_outliers is not None]
        if known:
            return sorted(known, key=lambda row: -row.patches_to_outliers)[:count]
        return sorted(self.heads, key=lambda row: -row.busiest)[:count]

    def sentences(self) -> list[str]:
        """The verdict and its details, one line each."""
        lines = [self.verdict.words, *self.verdict.details, *_where(self.places)]
        lines += [_heads(self), _neurons(self)]
        return [line for line in lines if line]

    def fails(self, condition: str) -> bool:
        """Whether `--fail-on condition` holds."""
        return self.verdict.at_output if condition == CONDITIONS[1] else self.verdict.outliers

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        bank = self.bank
        verdict = asdict(self.verdict)
        verdict.pop("mask")
        placed = asdict(self.places)
        if placed["frequency"] is not None:
            placed["frequency"] = np.round(placed["frequency"], 4).tolist()
        return {
            "model": asdict(bank.card),
            "versions": versions(),
            "images": {
                "count": len(bank),
                "names": list(bank.images.names) if bank.images else [],
                "size": list(bank.images.pixels.shape[-2:]) if bank.images else None,
            },
            "tokens": {"prefix": list(bank.layout.prefix), "grid": bank.grid},
            "verdict": verdict,
            "sentences": self.sentences(),
            "places": placed,
            "layers": [asdict(row) for row in self.rows],
            "heads": [asdict(row) for row in self.heads] or self.heads_note,
            "neurons": [asdict(row) for row in self.neurons] or self.neurons_note,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class AuditReport:
    """Audits of one or several models, side by side. `show()` it, or let a notebook do so."""

    audits: tuple[Audit, ...]

    def __iter__(self):
        return iter(self.audits)

    @property
    def verdict(self) -> AuditVerdict:
        """Of the first model."""
        return self.audits[0].verdict

    @property
    def bank(self) -> "AuditBank":
        """Of the first model."""
        return self.audits[0].bank

    def show(self) -> None:
        """Show it: as a page inside a notebook, as text elsewhere."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            print(self.text())
            return
        if get_ipython() is None:
            print(self.text())
        else:
            display(self)

    def text(self) -> str:
        from registers.audit.text import report

        return report(self)

    def html(self) -> str:
        """A whole page that needs no other file."""
        from registers.audit.page import page

        return page(self)

    def _repr_html_(self) -> str:
        from registers.audit.page import fragment

        return fragment(self)

    def __repr__(self) -> str:
        return "\n".join(f"{audit.name}: {audit.verdict.words}" for audit in self.audits)

    def save(self, path: str | Path) -> Path:
        """Write a page (.html), or numbers (.json, .csv). Raises ValueError for other endings."""
        path = Path(path)
        if path.suffix == ".html":
            write_text(path, self.html())
        elif path.suffix == ".json":
            write_json(path, [audit.to_dict() for audit in self.audits])
        elif path.suffix == ".csv":
            text = self.csv()
            atomically(path, lambda partial: partial.write_text(text, newline=""))
        else:
            raise ValueError(f"{path}: must end in .html, .json or .csv")
        return path

    def csv(self) -> str:
        """The table by layer, each row with its model, the SHA-256 of its weights and revision."""
        file = io.StringIO()
        columns = ["model", "sha256", "revision", *(field.name for field in fields(LayerRow))]
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for audit in self.audits:
            card = audit.bank.card
            who = {"model": card.name, "sha256": card.sha256, "revision": card.revision}
            writer.writerows({**who, **asdict(row)} for row in audit.rows)
        return file.getvalue()


# --- sentences


def _where(placed: Places):
    if placed.border_share is not None:
        yield (
            f"where: {percent(placed.border_share)} of them at the image's border, where "
            f"{percent(placed.border_expected)} of all patches are"
        )
    if placed.texture is not None:
        much = times(placed.texture) if placed.texture >= 0.05 else "less than 0.05 x"
        flat = " (flat places)" if placed.texture < 0.7 else ""
        yield f"on what: pixels inside them vary {much} as much as in other patches{flat}"


def _heads(audit: Audit) -> str:
    if audit.heads_note:
        return f"heads: {audit.heads_note}"
    rows = audit.top_heads(3)
    if not rows:
        return ""
    if rows[0].patches_to_outliers is None:
        row = rows[0]
        return (
            f"heads: the patch that is attended to most gets {percent(row.busiest)} of all "
            f"attention (layer {row.layer}, head {row.head})"
        )
    tokens = audit.verdict.mask.any(1)
    chance = audit.verdict.mask[tokens].sum(1).mean() / audit.bank.layout.tokens
    listed = ", ".join(
        f"layer {row.layer} head {row.head} ({percent(row.patches_to_outliers)})" for row in rows
    )
    return (
        f"heads that look at them: {listed} of the other patches' attention; an even gaze would "
        f"give them {percent(chance)}"
    )


def _neurons(audit: Audit) -> str:
    if not audit.verdict.outliers:
        return ""
    if audit.neurons_note:
        return f"neurons: {audit.neurons_note}"
    listed = ", ".join(
        f"layer {row.layer} neuron {row.neuron} ({row.at_outliers:.3g}, elsewhere "
        f"{row.elsewhere:.2g})"
        for row in audit.neurons[:3]
    )
    return f"neurons that write them, mean |activation| there: {listed}"


def versions() -> dict[str, str]:
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            numbers[package] = "not installed as a package"
    return numbers
