"""Cells of tables about kinds of token: a value with its interval, or a dash and, once for a row,
the reason."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from registers.figures import selection
from registers.figures.paint import style
from registers.vocabulary import NORMAL, OUTLIER, TAIL

TOKENS = {"cls": "[CLS]", NORMAL: NORMAL, OUTLIER: OUTLIER, TAIL: TAIL}
DASH = "–"


@dataclass(frozen=True)
class TableCell:
    """One number of a table.

    value: the mean over seeds; None where there is none, with the reason.
    low, high: the span of the seeds' intervals.
    chance: the value of guessing.
    n: test images.
    """

    value: float | None
    low: float
    high: float
    chance: float
    reason: str
    digits: int
    n: int = 0

    @property
    def text(self) -> str:
        """45.3 [37.1, 53.9], or a dash."""
        if self.value is None:
            return DASH
        return f"{self.short} [{self._written(self.low)}, {self._written(self.high)}]"

    @property
    def short(self) -> str:
        """45.3, or a dash."""
        return DASH if self.value is None else self._written(self.value)

    @property
    def guess(self) -> str:
        """The value of guessing, or a dash where there is no value."""
        return DASH if self.value is None else self._written(self.chance)

    @property
    def note(self) -> str:
        """Why there is a dash, or how many images were tested, with their own chance level."""
        if not self.n:
            return self.reason
        tested = f"{self.n} test images, chance {self._written(self.chance)} on them"
        return f"{self.reason}; {tested}" if self.reason else tested

    def against(self, other: "TableCell") -> str:
        """Whether this interval lies above or below another, in words."""
        if self.low > other.high:
            return "above"
        return "below" if self.high < other.low else "not apart from"

    def _written(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


def cell(rows: pd.DataFrame, scale: float = 100, digits: int = 1) -> TableCell:
    """The cell of one metric, token, label set and model, from its rows, one per seed.

    scale: 100 for per cent. digits: after the point.
    """
    known = rows.dropna(subset=["value"])
    if known.empty:
        reason = rows["note"].iloc[0] if len(rows) else "not measured in this run"
        return TableCell(None, float("nan"), float("nan"), float("nan"), reason, digits)
    return TableCell(
        value=float(scale * known["value"].mean()),
        low=float(scale * known["low"].min()),
        high=float(scale * known["high"].max()),
        chance=float(scale * known["chance"].mean()),
        reason=known["note"].iloc[0],
        digits=digits,
        n=int(known["n"].min()),
    )


@dataclass(frozen=True)
class TableModel:
    """A method with a number of registers, and its rows."""

    method: str
    registers: int
    rows: pd.DataFrame

    @property
    def name(self) -> str:
        """DINOv2, DINOv2+4 reg."""
        return self.title + (f"+{self.registers} reg" if self.registers else "")

    @property
    def title(self) -> str:
        """The method's name."""
        return style.name(self.method)

    @property
    def has_outliers(self) -> bool:
        """Whether there is a second mode: any row about outliers has a value."""
        return bool(self.rows.loc[self.rows["token"] == OUTLIER, "value"].notna().any())


def models(rows: pd.DataFrame) -> list[TableModel]:
    """Every method and number of registers, the paper's main focus first."""
    by_method = selection.by_method(rows)
    subject = selection.subject(by_method)
    order = [subject, *(method for method in by_method if method != subject)]
    return [
        TableModel(method, int(registers), part)
        for method in order
        for registers, part in by_method[method].groupby("registers")
    ]


def without_outliers(models: Iterable[TableModel]) -> str:
    """For a caption: why some models have no outliers; "" where all have."""
    if all(model.has_outliers for model in models):
        return ""
    return "; where norms have no second mode there are no outliers"


def printed(reference: pd.DataFrame, artifact: str) -> pd.DataFrame:
    """The paper's own cells of one table, by (row, column): value, deviation, note, source."""
    return reference[reference["artifact"] == artifact].set_index(["row", "column"])


def with_paper(
    rows: list[list[str]],
    sets: list[str],
    printed: pd.DataFrame,
    tokens: list[str],
    deviation: bool = False,
) -> pd.DataFrame:
    """Rows of ours above those of the paper, whose data sets head its block.

    rows: model, token, mean, one cell per label set, note.
    sets: our label sets; columns are added where the paper has more.
    printed: the paper's cells. tokens: its rows that are shown.
    deviation: "69.0 ± 0.7" where a standard deviation is printed.
    """
    theirs = list(dict.fromkeys(printed.index.get_level_values("column")))
    width = max(len(sets), len(theirs))
    columns = [*sets, *(f"set {i + 1}" for i in range(len(sets), width))]

    def padded(texts: list[str]) -> list[str]:
        return [*texts, *[""] * (width - len(texts))]

    lines = [[*row[:3], *padded(row[3:-1]), row[-1]] for row in rows]
    source = printed["source"].iloc[0]
    lines.append(["the paper", "its data sets:", "", *padded(theirs), source])
    for token in tokens:
        if token in printed.index.get_level_values("row"):
            row = printed.loc[token]
            texts = [_printed_text(row.loc[name], deviation) for name in theirs]
            lines.append(["the paper", token, f"{row['value'].mean():.1f}", *padded(texts), ""])
    return pd.DataFrame(lines, columns=["model", "token", "mean", *columns, "note"])


def _printed_text(cell: pd.Series, deviation: bool) -> str:
    text = f"{cell['value']:.1f}"
    if deviation and pd.notna(cell["deviation"]):
        return f"{text} ± {cell['deviation']:.1f}"
    return text
