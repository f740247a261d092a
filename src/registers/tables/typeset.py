"""Tables as they are printed: models by tasks, and the paper's number below ours in one cell.

Rows come as the modules' `table` makes them, or as its CSV file is read again: a row per number,
with ours, std, low, high, chance and paper (each may be missing).
"""

import html
from collections.abc import Callable

import pandas as pd

from registers.figures.paint import style

DASH = "–"
CHANCE = "chance"


def cell(row: pd.Series, digits: int = 1) -> str:
    """A cell, line by line: "54.0 ± 1.2" (or "54.0" above "[52.0, 56.0]"), "paper 84.8".

    A standard deviation takes the interval's place where there are several seeds.
    """

    def written(value: float) -> str:
        return f"{value:.{digits}f}"

    lines = [DASH]
    if pd.notna(row["ours"]):
        lines = [written(row["ours"])]
        if pd.notna(row.get("std")):
            lines[0] += f" ± {written(row['std'])}"
        elif pd.notna(row.get("low")) and row["low"] < row["high"]:
            lines.append(f"[{written(row['low'])}, {written(row['high'])}]")
    if pd.notna(row.get("paper")):
        lines.append(f"paper {written(row['paper'])}")
    return "\n".join(lines)


def grid(
    rows: pd.DataFrame, index: str, column: str, text: Callable[[pd.Series], str] = cell
) -> pd.DataFrame:
    """Cells by row and column, in the order in which they come; a dash where there is none.

    index, column: of `rows`. text: writes one cell from its row. Columns without any number are
    left out. The level of guessing, where there is one, stands in a last row, as a range where rows
    differ in it.
    """
    known = rows[rows[["ours", "paper"]].notna().any(axis=1)]
    columns = [name for name in dict.fromkeys(rows[column]) if name in set(known[column])]
    kept = rows[rows[column].isin(columns)]
    if kept.empty:
        return rows[[index]].drop_duplicates()
    cells = kept.assign(cell=kept.apply(text, axis=1))
    table = cells.pivot(index=index, columns=column, values="cell")
    table = table.reindex(index=dict.fromkeys(kept[index]), columns=columns).fillna(DASH)
    chances = pd.to_numeric(kept["chance"]).groupby(kept[column])
    ends = chances.agg(["min", "max"]).reindex(columns)
    if ends.notna().any(axis=None):
        table.loc[CHANCE] = [
            style.span(text(pd.Series({"ours": end, column: name})) for end in row)
            for name, row in zip(columns, ends.to_numpy())
        ]
    return table.rename_axis(index=index, columns=None).reset_index()


def markdown(table: pd.DataFrame) -> str:
    """A table as GitHub Markdown; an empty cell is a dash."""
    body = [[plain(value) for value in row] for row in table.itertuples(index=False)]
    lines = [list(table.columns), ["---"] * len(table.columns), *body]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)


def plain(value: object) -> str:
    """A value of a table as people write it: no exponents, a dash where there is none."""
    if value is None or value == "" or value != value:
        return DASH
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return style.number(value) if "e" in text else text


def _escaped(cell: object) -> str:
    """A cell as Markdown shows it, in one line: names of classes and folders may hold HTML."""
    return html.escape(" ".join(str(cell).split()), quote=False).replace("|", "\\|")
