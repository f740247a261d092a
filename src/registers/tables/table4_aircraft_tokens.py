"""Table 4: classification from [CLS], a normal patch, an outlier and a register, with 0 and 1
registers (paper, appendix D.2)."""

import pandas as pd

from registers.figures.paint import style
from registers.tables import cells, typeset
from registers.vocabulary import NORMAL, OUTLIER, TAIL

FINE = "fine"  # our fine-grained label set, for the paper's Aircraft; else the first label set
COLUMNS = {"cls": "[CLS]", NORMAL: "normal patch", OUTLIER: "outlier patch", TAIL: TAIL}
REGISTER = "register"


def table(tokens: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in per cent: a row per number of registers and kind of token, each register its own.

    paper: on Aircraft, where the paper has as many registers.
    """
    data, tokens = _fine(tokens)
    printed = cells.printed(reference, "table4")["value"]
    rows = []
    for model in cells.models(tokens):
        for token, cell in _cells(model.rows).items():
            column = COLUMNS.get(token, REGISTER)
            row = {"model": model.title, "data": data, "registers": model.registers}
            row |= model.added
            row |= {"token": column, "name": token} | cell.numbers
            rows.append(row | {"paper": printed.get((str(model.registers), column))})
    ours = {(str(row["registers"]), row["token"]) for row in rows}
    for (count, column), value in printed.dropna().items():
        if (count, column) not in ours:
            row = {"model": cells.PAPER, "data": "Aircraft", "registers": int(count)}
            rows.append(row | {"token": column, "name": column, "paper": value})
    return pd.DataFrame(rows)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per number of registers, a column per kind of token; registers share a cell."""
    kinds = list(dict.fromkeys([*COLUMNS.values(), *rows["token"]]))
    order = rows.assign(rank=rows["token"].map(kinds.index)).sort_values(["registers", "rank"])
    joined = []
    for (registers, _), part in order.groupby(["registers", "token"], sort=False):
        row = part.iloc[0].to_dict()
        if len(part) > 1:
            row |= {
                "ours": part["ours"].mean(),
                "std": part["std"].mean(),
                "low": part["low"].min(),
            }
            row |= {"high": part["high"].max()}
        label = style.registers_label(int(registers), cells.is_added(row))
        joined.append(row | {"registers": label})
    return typeset.grid(pd.DataFrame(joined), "registers", "token")


def caption(tokens: pd.DataFrame, reference: pd.DataFrame) -> str:
    data, tokens = _fine(tokens)
    models = cells.models(tokens)
    findings = [_finding(model) for model in models]
    chance = cells.chance(_cells(model.rows) for model in models)
    reason = cells.without_outliers(models)
    return (
        f'On "{data}" (the paper: Aircraft), from one token of {models[0].title} per image, '
        f"{'; '.join(findings)}; chance is {chance}{reason}."
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
    return f"{style.having(model.registers, model.test_time)} {style.listing(parts)}"


def _fine(tokens: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The label set that is shown, and its accuracies."""
    sets = cells.label_sets(tokens)
    data = FINE if FINE in sets else sets[0]
    return data, tokens[(tokens["data"] == data) & (tokens["metric"] == "top1")]


def _cells(rows: pd.DataFrame) -> dict[str, cells.TableCell]:
    """A cell per kind of token, registers by number."""
    names = {token for token in rows["token"] if token.startswith("reg")}
    registers = sorted(names, key=lambda token: int(token[3:]))
    return {token: cells.cell(rows[rows["token"] == token]) for token in (*COLUMNS, *registers)}


def _registers(by_token: dict[str, cells.TableCell]) -> list[cells.TableCell]:
    return [cell for token, cell in by_token.items() if token.startswith("reg")]
