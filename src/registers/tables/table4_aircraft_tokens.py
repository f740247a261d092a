"""Table 4: classification from [CLS], a normal patch, an outlier and a register, with 0 and 1
registers (paper, appendix D.2)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells
from registers.vocabulary import NORMAL, OUTLIER, TAIL

FINE = "fine"  # our fine-grained label set, for the paper's Aircraft; else the first label set
COLUMNS = {"cls": "[CLS]", NORMAL: "normal patch", OUTLIER: "outlier patch", TAIL: TAIL}


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent with its 95 % interval, and the paper's rows below.

    A row per number of registers, a column per kind of token.
    """
    data, tokens = _fine(tokens)
    rows = []
    for model in cells.models(tokens):
        by_token = _cells(model.rows)
        row = {"model": model.title, "data": data, "#registers": model.registers}
        row |= {column: by_token[token].text for token, column in COLUMNS.items()}
        row["register"] = ", ".join(cell.text for cell in _registers(by_token)) or "N/A"
        row["chance"] = f"{by_token['cls'].chance:.1f}"
        notes = [f"{COLUMNS[token]}: {by_token[token].note}" for token in (OUTLIER, TAIL)]
        rows.append(row | {"note": "; ".join(notes)})

    printed = cells.printed(reference, "table4")
    for count in dict.fromkeys(printed.index.get_level_values("row")):
        of_count = printed.loc[count]
        row = {"model": "the paper", "data": "Aircraft", "#registers": int(count)}
        for column in (*COLUMNS.values(), "register"):
            row[column] = _printed_text(of_count.loc[column]) if column in of_count.index else ""
        rows.append(row | {"chance": "", "note": of_count["source"].iloc[0]})
    return pd.DataFrame(rows)


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    data, tokens = _fine(tokens)
    models = cells.models(tokens)
    findings = [_finding(model) for model in models]
    chance = style.percent(tokens.loc[tokens["token"] == "cls", "chance"].mean())
    reason = cells.without_outliers(models)
    return (
        f'On "{data}", from one token of {models[0].title} per image, {"; ".join(findings)}; '
        f"chance is {chance}{reason}."
    )


def _finding(model: cells.TableModel) -> str:
    by_token = _cells(model.rows)
    normal = by_token[NORMAL]
    outlier = by_token[OUTLIER]
    parts = [f"[CLS] gives {by_token['cls'].short} %", f"a normal patch {normal.short} %"]
    if outlier.value is not None:
        parts.append(f"an outlier {outlier.short} % ({outlier.against(normal)} normal patches)")
    elif by_token[TAIL].value is not None:
        parts.append(f"the {TAIL} {by_token[TAIL].short} %")
    registers = [cell for cell in _registers(by_token) if cell.value is not None]
    if registers:
        values = style.listing(f"{cell.short} %" for cell in registers)
        sides = " or ".join(dict.fromkeys(cell.against(normal) for cell in registers))
        noun = "a register" if len(registers) == 1 else "the registers"
        parts.append(f"{noun} {values} ({sides} normal patches)")
    return f"{style.having(model.registers)} {style.listing(parts)}"


def _fine(tokens: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The label set that is shown, and its accuracies."""
    sets = [name for name in dict.fromkeys(tokens["data"]) if name]
    data = FINE if FINE in sets else sets[0]
    return data, tokens[(tokens["data"] == data) & (tokens["metric"] == "top1")]


def _cells(rows: pd.DataFrame) -> dict[str, cells.TableCell]:
    """A cell per kind of token, registers by number."""
    names = {token for token in rows["token"] if token.startswith("reg")}
    registers = sorted(names, key=lambda token: int(token[3:]))
    return {token: cells.cell(rows[rows["token"] == token]) for token in (*COLUMNS, *registers)}


def _registers(by_token: dict[str, cells.TableCell]) -> list[cells.TableCell]:
    return [cell for token, cell in by_token.items() if token.startswith("reg")]


def _printed_text(cell: pd.Series) -> str:
    return cell["note"] or f"{cell['value']:.1f}"
