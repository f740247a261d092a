"""Table 5: position and pixels read from patches that are no outliers, without and with registers
(paper, appendix D.2)."""

import pandas as pd

from registers.differences import in_words
from registers.figures.local_measures import MEASURES, PIXELS, POSITION
from registers.figures.paint import style
from registers.tables import cells, typeset
from registers.vocabulary import NORMAL

DIGITS = {measure.column: measure.digits for measure in MEASURES}


def table(
    position: pd.DataFrame, reconstruction: pd.DataFrame, reference: pd.DataFrame
) -> pd.DataFrame:
    """Position top-1 (%), its mean distance (patches), L2 of a patch's pixels, with 95 % intervals.

    A row per number of registers and measure. The paper's L2 is over patches of 14 x 14 pixels,
    ours over the patches of this run: hold each against its own chance.
    """
    printed = cells.printed(reference, "table5")["value"]
    rows = []
    for model in cells.models(pd.concat([position, reconstruction])):
        who = "non-outliers" if model.has_outliers else "all: no second mode"
        about = {"model": model.title, "registers": model.registers, "patches": who} | model.added
        for column, cell in _cells(model.rows).items():
            paper = printed.get((str(model.registers), column))  # the paper has no distances here
            rows.append(about | {"measure": column} | cell.numbers | {"paper": paper})
    ours = {(str(row["registers"]), row["measure"]) for row in rows}
    for (count, column), value in printed.items():
        if (count, column) not in ours:
            row = {"model": cells.PAPER, "registers": int(count), "patches": "non-outliers"}
            rows.append(row | {"measure": column, "paper": value})
    return pd.DataFrame(rows)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per number of registers, a column per measure."""
    counts = [
        style.registers_label(int(row["registers"]), cells.is_added(row))
        for row in rows.to_dict("records")
    ]
    return typeset.grid(rows.assign(registers=counts), "registers", "measure", _cell)


def caption(position: pd.DataFrame, reconstruction: pd.DataFrame, reference: pd.DataFrame) -> str:
    models = cells.models(pd.concat([position, reconstruction]))
    parts = [
        (style.having(model.registers, model.test_time), _cells(model.rows)) for model in models
    ]
    _, first = parts[0]
    having, last = parts[-1]

    top1 = style.listing(f"{cell[POSITION.column].short} % {count}" for count, cell in parts)
    errors = style.listing(f"{cell[PIXELS.column].short} {count}" for count, cell in parts)
    who = "patches (all, as there is no second mode)"
    if any(model.has_outliers for model in models):
        who = "patches that are no outliers"
    change = ""
    if len(parts) > 1:
        position_change = _change(last[POSITION.column], first[POSITION.column], " points")
        error_change = _change(last[PIXELS.column], first[PIXELS.column])
        texts = [("top-1 changes by", [position_change]), ("the error by", [error_change])]
        change = f"; {having} {style.remarked(texts)}"
    return (
        f"From {models[0].title}'s {who} a linear model tells the position of {top1} "
        f"(chance {first[POSITION.column].guess} %), and the pixels with an L2 error of {errors} "
        f"(chance {first[PIXELS.column].guess}){change}."
    )


def _cell(row: pd.Series) -> str:
    """A cell with as many digits as its measure has."""
    return typeset.cell(row, DIGITS[row["measure"]])


def _change(after: cells.TableCell, before: cells.TableCell, unit: str = "") -> tuple[str, str]:
    """The change, and how sure it is by the claims' rule."""
    if not (after.seeds and before.seeds):
        return typeset.DASH, ""
    written = style.change(after.value - before.value, after.digits)
    return f"{written}{unit}", in_words(after.by_seed, before.by_seed)


def _cells(rows: pd.DataFrame) -> dict[str, cells.TableCell]:
    """A cell per measure, of patches that are no outliers."""
    normal = rows[rows["token"] == NORMAL]
    by_measure = {}
    for measure in MEASURES:
        of_metric = normal[
            (normal["question"] == measure.question) & (normal["metric"] == measure.metric)
        ]
        by_measure[measure.column] = cells.cell(of_metric, measure.scale, measure.digits)
    return by_measure
