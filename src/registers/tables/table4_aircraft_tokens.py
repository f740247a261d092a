"""Table 4: classification from [CLS], a normal patch, an outlier and a register, with 0 and 1 registers (paper, appendix D.2)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells

FINE = "fine"  # our fine-grained label set stands for the paper's Aircraft; data without it are asked for their first label set
COLUMNS = {
    "cls": "[CLS]",
    cells.NORMAL: "normal patch",
    cells.OUTLIER: "outlier patch",
    cells.TAIL: cells.TAIL,
}


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent with its 95 % interval: a row per number of registers, a column per kind of token; then the paper's rows."""
    data, tokens = _fine(tokens)
    rows = []
    for name, count, part in cells.models(tokens):
        found = _cells(part)
        row = {"model": name.partition("+")[0], "data": data, "#registers": count} | {
            c: found[t].text for t, c in COLUMNS.items()
        }
        registers = [found[t] for t in found if t.startswith("reg")]
        row["register"] = ", ".join(c.text for c in registers) if registers else "N/A"
        row["chance"] = f"{found['cls'].chance:.1f}"
        rows.append(
            row
            | {
                "note": "; ".join(
                    f"{COLUMNS[t]}: {found[t].note}" for t in (cells.OUTLIER, cells.TAIL)
                )
            }
        )
    printed = cells.printed(reference, "table4")
    for count in dict.fromkeys(printed.index.get_level_values("row")):
        cell = printed.loc[count]
        row = {"model": "the paper", "data": "Aircraft", "#registers": int(count)}
        row |= {
            c: _paper(cell.loc[c]) if c in cell.index else ""
            for c in [*COLUMNS.values(), "register"]
        }
        rows.append(row | {"chance": "", "note": cell["source"].iloc[0]})
    return pd.DataFrame(rows)


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    data, tokens = _fine(tokens)
    said = []
    for _, count, part in cells.models(tokens):
        found = _cells(part)
        normal, outlier = found[cells.NORMAL], found[cells.OUTLIER]
        words = f"{style.having(count)} [CLS] gives {found['cls'].short} %, a normal patch {normal.short} %"
        if outlier.value is None:
            words += (
                f", the {cells.TAIL} {found[cells.TAIL].short} %"
                if found[cells.TAIL].value is not None
                else ""
            )
            words += " (no second mode, hence no outliers)"
        else:
            words += f", an outlier {outlier.short} % ({outlier.against(normal)} normal patches)"
        registers = [c for t, c in found.items() if t.startswith("reg") and c.value is not None]
        if registers:
            sides = list(dict.fromkeys(c.against(normal) for c in registers))
            words += f" and a register {style.listing(c.short + ' %' for c in registers)} ({' or '.join(sides)} normal patches)"
        said.append(words)
    model, chance = (
        style.name(tokens["method"].iloc[0]),
        100 * tokens.loc[tokens["token"] == "cls", "chance"].mean(),
    )
    return f'On "{data}", from one token of {model} per image, {"; ".join(said)}; chance is {chance:.1f} %.'


def _fine(tokens: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The label set that is shown, and its accuracies."""
    sets = [d for d in dict.fromkeys(tokens["data"]) if d]
    data = FINE if FINE in sets else sets[0]
    return data, tokens[(tokens["data"] == data) & (tokens["metric"] == "top1")]


def _cells(part: pd.DataFrame) -> dict[str, cells.Cell]:
    registers = sorted(
        (t for t in set(part["token"]) if t.startswith("reg")), key=lambda t: int(t[3:])
    )
    return {t: cells.cell(part[part["token"] == t]) for t in [*COLUMNS, *registers]}


def _paper(cell: pd.Series) -> str:
    return cell["note"] or f"{cell['value']:.1f}"
