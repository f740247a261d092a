"""Tables 2 and 3: models without and with registers, and how a number changes between them."""

from collections.abc import Callable

import pandas as pd

from registers.figures.paint import style

ONE_COUNT = "Only one register count was run, so nothing is compared."


def label(method: str, registers: int) -> str:
    """The model as the paper's tables print it: DINOv2, DINOv2+reg."""
    return style.name(method) + ("+reg" if registers else "")


def changes(rows: pd.DataFrame, column: str, written: Callable[[float], str]) -> list[str]:
    """What registers change, model by model, and whether that is more than the intervals allow.

    rows: in order of registers, with model (see `label`), low and high, and the number in `column`.
    written: a change in words.
    """
    texts = []
    for _, pair in rows.groupby(rows["model"].str.removesuffix("+reg"), sort=False):
        if len(pair) == 1:
            continue
        before = pair.iloc[0]
        after = pair.iloc[-1]
        apart = after["low"] > before["high"] or before["low"] > after["high"]
        where = "beyond" if apart else "within"
        change = written(after[column] - before[column])
        texts.append(f"{change} for {before['model']} ({where} the intervals)")
    return texts


def points(change: float) -> str:
    """+4.0 points."""
    return f"{style.change(change)} points"
