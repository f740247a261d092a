"""Table 5: position and pixels read from patches that are no outliers, without and with registers (paper, appendix D.2)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells

MEASURES = {  # column: (question, metric, scale, digits); the paper has the first and the last
    "position top-1": ("position", "top1", 100, 1),
    "position distance": ("position", "distance", 1, 2),
    "reconstruction L2": ("reconstruction", "l2", 1, 2),
}


def table(
    position: pd.DataFrame, reconstruction: pd.DataFrame, reference: pd.DataFrame
) -> pd.DataFrame:
    """A row per number of registers: top-1 (%), mean distance (patches), L2 of a patch's pixels, with 95 % intervals; guesses below.

    The paper's L2 is over patches of 14 x 14 pixels, ours over the patches of this run: hold each against its own chance.
    """
    local = pd.concat([position, reconstruction])
    rows = []
    for name, count, part in cells.models(local):
        found, model = _cells(part), name.partition("+")[0]
        who = "non-outliers" if cells.second_mode(part) else "all: no second mode"
        rows.append(
            {"model": model, "#registers": str(count), "patches": who}
            | {c: f.text for c, f in found.items()}
        )
        rows.append(
            {"model": model, "#registers": str(count), "patches": "chance"}
            | {c: _guess(f) for c, f in found.items()}
        )
    printed = cells.printed(reference, "table5")
    for count in dict.fromkeys(printed.index.get_level_values("row")):
        values = printed.loc[count]["value"]
        row = {
            "model": "the paper",
            "#registers": count,
            "patches": "non-outliers" + (" (all)" if count != "0" else ""),
        }
        rows.append(row | {c: f"{values[c]:.1f}" if c in values.index else "" for c in MEASURES})
    return pd.DataFrame(rows)


def caption(position: pd.DataFrame, reconstruction: pd.DataFrame, reference: pd.DataFrame) -> str:
    local = pd.concat([position, reconstruction])
    parts = [
        (style.having(count), _cells(part), cells.second_mode(part))
        for _, count, part in cells.models(local)
    ]
    first = parts[0][1]
    position, pixels = first["position top-1"], first["reconstruction L2"]
    where = style.listing(f"{f['position top-1'].short} % {having}" for having, f, _ in parts)
    errors = style.listing(f"{f['reconstruction L2'].short} {having}" for having, f, _ in parts)
    apart = ""
    if len(parts) > 1:
        last = parts[-1][1]
        changes = [_change(last[c], first[c]) for c in ("position top-1", "reconstruction L2")]
        apart = (
            f"; by the intervals top-1 is {changes[0]} and the error {changes[1]} {parts[-1][0]}"
        )
    who = (
        "patches that are no outliers"
        if any(there for *_, there in parts)
        else "patches (all, as there is no second mode)"
    )
    return (
        f"Of {style.name(local['method'].iloc[0])}'s {who} a linear model finds the position for {where} (chance "
        f"{position.chance:.1f} %), and their pixels to an L2 error of {errors} (chance {pixels.chance:.2f}){apart}."
    )


def _change(after: cells.Cell, before: cells.Cell) -> str:
    return {"above": "higher", "below": "lower"}.get(after.against(before), "the same")


def _cells(part: pd.DataFrame) -> dict[str, cells.Cell]:
    normal = part[part["token"] == cells.NORMAL]
    return {
        column: cells.cell(
            normal[(normal["question"] == question) & (normal["metric"] == metric)], scale, digits
        )
        for column, (question, metric, scale, digits) in MEASURES.items()
    }


def _guess(cell: cells.Cell) -> str:
    return cells.DASH if cell.value is None else f"{cell.chance:.{cell.digits}f}"
