"""The result of an audit: as text, page, JSON and CSV."""

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from registers.audit import page, text
from registers.audit.audited import Audit
from registers.audit.verdict import AuditVerdict, LayerRow
from registers.audit.watched import AuditBank
from registers.files import atomically, write_json, write_text


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
    def bank(self) -> AuditBank:
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
        return text.report(self.audits)

    def html(self) -> str:
        """A whole page that needs no other file."""
        return page.page(self.audits)

    def _repr_html_(self) -> str:
        return page.fragment(self.audits)

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
            rows = self.csv()
            atomically(path, lambda partial: partial.write_text(rows, newline=""))
        else:
            raise ValueError(f"{path}: must end in .html, .json or .csv")
        return path

    def csv(self) -> str:
        """The table by layer, each row with its model, the SHA-256 of its weights and revision.

        A model with test-time registers is one more model.
        """
        file = io.StringIO()
        columns = ["model", "sha256", "revision", *(field.name for field in fields(LayerRow))]
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        after = [audit.change.after for audit in self.audits if audit.change]
        for audit in [*self.audits, *after]:
            card = audit.bank.card
            who = {"model": card.name, "sha256": card.sha256, "revision": card.revision}
            writer.writerows({**who, **asdict(row)} for row in audit.rows)
        return file.getvalue()
