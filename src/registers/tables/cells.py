"""Cells of tables about kinds of token: a value with its interval, or a dash and, once for a row, the reason."""

from dataclasses import dataclass

import pandas as pd

from registers.figures.paint import style
from registers.vocabulary import NORMAL, OUTLIER, TAIL

TOKENS = {"cls": "[CLS]", NORMAL: NORMAL, OUTLIER: OUTLIER, TAIL: TAIL}
DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One number of a table: mean over seeds, and the span of their intervals. text: "45.3 [37.1, 53.9]", or a dash."""

    value: float | None
    low: float
    high: float
    chance: float
    reason: str
    digits: int
    n: int = 0

    @property
    def note(self) -> str:
        """Why there is a dash, or what the tokens are and how many images were tested, with their own chance level."""
        tested = (
            f"{self.n} test images, chance {self.chance:.{self.digits}f} on them" if self.n else ""
        )
        return "; ".join(part for part in (self.reason, tested) if part)

    @property
    def text(self) -> str:
        return (
            DASH
            if self.value is None
            else f"{self.short} [{self.low:.{self.digits}f}, {self.high:.{self.digits}f}]"
        )

    @property
    def short(self) -> str:
        return DASH if self.value is None else f"{self.value:.{self.digits}f}"

    def against(self, other: "Cell") -> str:
        """Whether this interval lies above or below another, in words."""
        if self.low > other.high:
            return "above"
        return "below" if self.high < other.low else "not apart from"


def cell(rows: pd.DataFrame, scale: float = 100, digits: int = 1) -> Cell:
    """The rows of one cell (one metric, token, label set and model; a row a seed). scale: 100 for per cent."""
    known = rows.dropna(subset=["value"])
    if known.empty:
        why = rows["note"].iloc[0] if len(rows) else "not measured in this run"
        return Cell(None, float("nan"), float("nan"), float("nan"), why, digits)
    inside = known["value"].mean(), known["low"].min(), known["high"].max(), known["chance"].mean()
    return Cell(
        *(float(scale * v) for v in inside), known["note"].iloc[0], digits, int(known["n"].min())
    )


def models(rows: pd.DataFrame) -> list[tuple[str, int, pd.DataFrame]]:
    """(name, registers, rows) of each method and register count, the paper's main focus first."""
    methods = style.in_order(rows["method"])
    methods = sorted(methods, key=lambda m: m != "dinov2")
    found = [
        (m, r, rows[(rows["method"] == m) & (rows["registers"] == r)])
        for m in methods
        for r in sorted(set(rows["registers"]))
    ]
    return [
        (style.name(m) + (f"+{int(r)} reg" if r else ""), int(r), part)
        for m, r, part in found
        if len(part)
    ]


def second_mode(rows: pd.DataFrame) -> bool:
    """Whether one model has outliers: any of its outlier rows has a value."""
    return bool(rows.loc[rows["token"] == OUTLIER, "value"].notna().any())


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
    """Rows of ours (model, tokens, mean, one cell per label set, note) above those of the paper, whose data sets head its block.

    deviation: "69.0 ± 0.7" where a standard deviation is printed. Where the paper has more sets than this run, columns are added.
    """
    theirs = list(dict.fromkeys(printed.index.get_level_values("column")))
    width = max(len(sets), len(theirs))
    columns = [*sets, *(f"set {i + 1}" for i in range(len(sets), width))]
    table = [[*row[:3], *row[3:-1], *[""] * (width - len(sets)), row[-1]] for row in rows]

    def block(filled: list[str]) -> list[str]:
        return [*filled, *[""] * (width - len(theirs))]

    source = printed["source"].iloc[0]
    table.append(["the paper", "its data sets:", "", *block(theirs), source])
    for token in tokens:
        if token in printed.index.get_level_values("row"):
            found = printed.loc[token]
            known = [(found.loc[s, "value"], found.loc[s, "deviation"]) for s in theirs]
            shown = [
                f"{v:.1f}" + (f" ± {d:.1f}" if deviation and pd.notna(d) else "") for v, d in known
            ]
            table.append(["the paper", token, f"{found['value'].mean():.1f}", *block(shown), ""])
    return pd.DataFrame(table, columns=["model", "token", "mean", *columns, "note"])
