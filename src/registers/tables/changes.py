"""Tables 2 and 3: models without and with registers, and how a number changes between them."""

from collections.abc import Callable

import pandas as pd

from registers.differences import in_words
from registers.figures import selection
from registers.figures.paint import style

TRAINED = "+reg"
TEST_TIME = "+test-time reg"
ONE_COUNT = "Only one register count was run, so nothing is compared."


def label(method: str, registers: int, rows: pd.DataFrame) -> str:
    """The model of some rows as the paper's tables print it: DINOv2, DINOv2+reg.

    Registers that were added at test time are none of the paper's: OpenCLIP+test-time reg.
    """
    with_registers = TEST_TIME if selection.is_test_time(rows) else TRAINED
    return style.name(method) + (with_registers if registers else "")


def changes(
    rows: pd.DataFrame,
    written: Callable[[float], str],
    seeds: dict[str, dict[int, float]],
) -> list[tuple[str, str]]:
    """What registers change, model by model, and whether that is more than seeds differ.

    rows: in order of registers, with model (see `label`), and the number in `ours`.
    written: a change in words.
    seeds: of each model its numbers by seed (see `by_seed`): the rule is that of the claims.
    """
    texts = []
    for _, pair in rows.groupby(rows["model"].str.split("+").str[0], sort=False):
        if len(pair) == 1:
            continue
        before = pair.iloc[0]
        after = pair.iloc[-1]
        how_sure = in_words(seeds[after["model"]], seeds[before["model"]])
        change = written(after["ours"] - before["ours"])
        texts.append((f"{change} for {before['model']}", how_sure))
    return texts


def by_seed(rows: pd.DataFrame) -> dict[str, dict[int, float]]:
    """Numbers of each model by seed, from rows of one metric; several data sets are averaged."""
    known = rows.dropna(subset=["value"])
    return {
        label(method, int(registers), part): part.groupby("seed")["value"].mean().to_dict()
        for (method, registers), part in known.groupby(["method", "registers"])
    }


def points(change: float) -> str:
    """+4.0 points."""
    return f"{style.change(change)} points"
