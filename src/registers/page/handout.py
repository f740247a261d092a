"""The regenerated paper to hand around: one PDF, paper.pdf, of the page's figures and tables.

Words and tables are set by matplotlib; figures, which have PDFs of their own, are put between them
as they are, so that they stay sharp at any size and their words can be searched.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pypdf import PageObject, PdfReader, PdfWriter, Transformation

from registers.claims.verdicts import VERDICTS, Verdict
from registers.figures.paint import style
from registers.files import atomically
from registers.settings.run import Settings

TITLE = "Vision Transformers Need Registers, regenerated"

# inches: A4
WIDTH = 8.27
HEIGHT = 11.69
MARGIN = 0.75
COLUMN = WIDTH - 2 * MARGIN
NAMES = 1.4  # the first column of a table
LETTER = 0.0070  # of a point's size: the mean width of a letter
BOLD = 1.18  # how much wider letters in bold are
LEADING = 1.4  # of the size of letters
POINT = 1 / 72


def write(
    settings: Settings,
    verdicts: list[Verdict],
    first_screen: dict[str, Any],
    shown: list[dict[str, Any]],
) -> None:
    """Write paper.pdf: the first screen, all claims, then every figure and table with its caption.

    first_screen, shown: what the page shows (`opening`, `sections.section`).
    """
    layout = settings.layout
    with Handout(layout.handout, TITLE) as pdf:
        pdf.paragraph(TITLE, 15, weight="bold")
        for sentence in first_screen["conclusion"]:
            pdf.paragraph(sentence, 10)
        if first_screen["first"]:
            pdf.picture(layout.drawing("figures", first_screen["first"]["id"], "pdf"))
        for name, value in first_screen["trained"]:
            pdf.paragraph(f"{name}: {value}.")
        counts = (f"{sum(v.verdict == name for v in verdicts)} {name}" for name in VERDICTS)
        claims = layout.claims.with_suffix(".pdf")
        pdf.heading(f"Claims of the paper: {style.listing(counts)}", below=size_of(claims)[1])
        pdf.picture(claims)
        pdf.paragraph(first_screen["forest"]["caption"], 8, style.GREY)
        for each in shown:
            title = f"{each['number']}. {each['title']} ({each['place']})"
            if "table" in each:
                pdf.heading(title, below=2.5)
                pdf.table(each["table"])
            else:
                drawing = layout.drawing("figures", each["id"], "pdf")
                pdf.heading(title, below=size_of(drawing)[1])
                pdf.picture(drawing)
            pdf.paragraph(f"This run: {each['ours']}", 8)
            pdf.paragraph(f"The paper: {each['caption']}", 8, style.GREY)


def size_of(drawing: Path) -> tuple[float, float]:
    """Width and height of a drawing in the PDF, in inches: of a column, or of a page, at most."""
    box = PdfReader(drawing).pages[0].mediabox
    width, height = float(box.width) * POINT, float(box.height) * POINT
    smaller = min(1.0, COLUMN / width, (HEIGHT - 2 * MARGIN - 1.2) / height)
    return width * smaller, height * smaller


@dataclass(frozen=True)
class Placed:
    """A drawing on a page: number of the page, lower left corner and width (in inches)."""

    drawing: Path
    page: int
    left: float
    bottom: float
    width: float

    def on(self, page: PageObject) -> None:
        """Put the drawing onto its page."""
        (own,) = PdfReader(self.drawing).pages
        scale = self.width / (float(own.mediabox.width) * POINT)
        place = Transformation().scale(scale).translate(self.left / POINT, self.bottom / POINT)
        page.merge_transformed_page(own, place)


class Handout:
    """A PDF that is filled from the top; what does not fit begins a page.

    Use it as a context; nothing is written until it is left without an error.
    """

    def __init__(self, path: Path, title: str):
        self.path = path
        self.title = title
        self.pages: list[Figure] = []
        self.placed: list[Placed] = []
        self.page()

    def __enter__(self) -> "Handout":
        return self

    def __exit__(self, error: type | None, *rest: object) -> None:
        if error is None:
            atomically(self.path, self._write)

    def page(self) -> None:
        """Begin a page."""
        self.pages.append(Figure(figsize=(WIDTH, HEIGHT)))
        self.top = HEIGHT - MARGIN

    def need(self, height: float) -> None:
        """Begin a page unless there is room for so many inches."""
        if self.top - height < MARGIN and self.top < HEIGHT - MARGIN:
            self.page()

    def heading(self, text: str, below: float, size: float = 12) -> None:
        """A heading, never without the first `below` inches of what follows it."""
        lines = len(_lines(text, size, "bold"))
        self.need(size * POINT * (LEADING * lines + 1) + below)
        self.top -= 0.6 * size * POINT if self.top < HEIGHT - MARGIN else 0
        self.paragraph(text, size, weight="bold")

    def paragraph(self, text: str, size: float = 9, colour: str = style.INK, **drawing) -> None:
        """Words over the width of the page."""
        for line in _lines(text, size, drawing.get("weight")):
            self.need(size * POINT * LEADING)
            self._words(MARGIN, self.top, line, size, color=colour, **drawing)
            self.top -= size * POINT * LEADING
        self.top -= 0.4 * size * POINT

    def picture(self, drawing: Path) -> None:
        """A drawing over the width of the page, smaller where it would be taller than a page."""
        width, height = size_of(drawing)
        self.need(height)
        left = MARGIN + (COLUMN - width) / 2
        bottom = self.top - height
        self.placed.append(Placed(drawing, len(self.pages) - 1, left, bottom, width))
        self.top -= height + 0.12

    def table(self, table: dict[str, Any], size: float = 7.5) -> None:
        """A printed table, as `sections.typeset_table` lays it out; rules above and below."""
        step = size * POINT * LEADING
        others = len(table["head"]) - 1
        widths = [NAMES, *[(COLUMN - NAMES) / others] * others]
        heads = [self._wrapped(cell, width, size) for cell, width in zip(table["head"], widths)]
        self.rule()
        self._row(heads, widths, size, style.GREY)
        self.rule()
        for row in table["body"]:
            self.need(step * max(map(len, row)))
            self._row(row, widths, size, style.INK)
        self.rule()
        self.top -= 0.1

    def rule(self) -> None:
        """A line over the width of the page."""
        x = [MARGIN / WIDTH, 1 - MARGIN / WIDTH]
        y = (self.top + 0.02) / HEIGHT
        self.pages[-1].add_artist(Line2D(x, [y, y], color=style.GREY, linewidth=0.5))
        self.top -= 0.05

    def _row(
        self, cells: Sequence[Sequence[str]], widths: Sequence[float], size: float, colour: str
    ) -> None:
        step = size * POINT * LEADING
        x = MARGIN
        for cell, width in zip(cells, widths):
            for i, line in enumerate(cell):
                ink = colour if i == 0 else style.GREY
                self._words(x, self.top - i * step, line, size, color=ink)
            x += width
        self.top -= step * max(map(len, cells)) + 0.05

    def _wrapped(self, lines: Sequence[str], width: float, size: float) -> list[str]:
        letters = int(width / (LETTER * size))
        return [part for line in lines for part in textwrap.wrap(line, letters)] or [""]

    def _words(self, x: float, y: float, text: str, size: float, **drawing) -> None:
        self.pages[-1].text(x / WIDTH, y / HEIGHT, text, fontsize=size, va="top", **drawing)

    def _write(self, path: Path) -> None:
        text = io.BytesIO()
        with matplotlib.rc_context({"pdf.compression": 9}), PdfPages(text) as pdf:
            for number, page in enumerate(self.pages, start=1):
                foot = dict(ha="center", fontsize=7.5, color=style.GREY)
                page.text(0.5, 0.4 / HEIGHT, f"{number} of {len(self.pages)}", **foot)
                pdf.savefig(page)
        whole = PdfWriter(clone_from=text)
        for placed in self.placed:
            placed.on(whole.pages[placed.page])
        for page in whole.pages:
            page.compress_content_streams()
        whole.metadata = {"/Title": self.title}  # no date: the same page gives the same bytes
        whole.write(path)


def _lines(text: str, size: float, weight: str | None = None) -> list[str]:
    """Words as the lines of a column. size: of letters, in points."""
    letter = LETTER * size * (BOLD if weight == "bold" else 1)
    return textwrap.wrap(text, int(COLUMN / letter))
