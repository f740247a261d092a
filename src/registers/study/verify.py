"""A row of results.csv held against a new training: does the code of today still give its numbers?

A run depends on its regime, not on the study's code, so that a new feature trains nothing again.
This is what tells whether an old row still stands. On one machine it should, to the last digit;
another kind of processor rounds sums otherwise, and a training drifts from there, as with another
seed: conditions usually stand then, and digits cannot.
"""

import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from registers import tracking
from registers.settings.errors import refusal
from registers.study.regime import CONDITIONS
from registers.study.results import load
from registers.study.run import run
from registers.study.summary import write_csv
from registers.study.sweep import Sweep

JUDGED = (*CONDITIONS[:3], "stored")
APART = ("seconds", "core_seconds", CONDITIONS[3], "store_taken_over")  # of the machine, of a pair


class Comparison(NamedTuple):
    """compared: columns that the committed row fills; differing: of these, column -> (committed,
    now); new: columns that only the new row fills, as they came after the committed run;
    overturned: conditions that one of them has and the other has not."""

    compared: int
    differing: dict[str, tuple[str, str]]
    new: list[str]
    overturned: list[str]

    @property
    def typical(self) -> float:
        """The median of the relative differences of those that differ and are numbers, 0 where
        none does."""
        apart = []
        for before, now in self.differing.values():
            try:
                one, other = float(before), float(now)
            except ValueError:
                continue
            apart.append(abs(one - other) / (max(abs(one), abs(other)) or 1.0))
        return statistics.median(apart) if apart else 0.0


def verify(
    sweep: Sweep, name: str, parts: tuple[str, int, int], rows: Path, device: torch.device
) -> Comparison:
    """Train and examine the run `name`, in parts (variant, registers, seed), in a folder that is
    gone afterwards, and compare it with its row of the table `rows`.

    Raises ConfigError where the table has no such row.
    """
    committed = _read(rows)
    if name not in committed.index:
        raise refusal("run", name, f"a run of {rows}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs" / name
        run(sweep, *parts, out, device, tracking.Run(Path(folder), "study", name, {}, {}))
        write_csv(load(out.parent, sweep), Path(folder) / rows.name)
        now = _read(Path(folder) / rows.name)
    return compare(committed.loc[name], now.loc[name])


def compare(committed: pd.Series, now: pd.Series) -> Comparison:
    """Two rows as text, "" where there is nothing."""
    shared = [name for name in committed.index if name in now.index and name not in APART]
    pairs = {name: (_entry(committed[name]), _entry(now[name])) for name in shared}
    new = [name for name, pair in pairs.items() if pair[1] and not pair[0]]
    filled = {name: pair for name, pair in pairs.items() if pair[0]}
    differing = {name: pair for name, pair in filled.items() if pair[0] != pair[1]}
    overturned = [name for name in JUDGED if len(set(pairs[name])) > 1]
    return Comparison(len(filled), differing, new, overturned)


def _read(rows: Path) -> pd.DataFrame:
    return pd.read_csv(rows, dtype=str, keep_default_na=False, low_memory=False).set_index("run")


def _entry(text: str) -> str:
    """3000.0 and 3000 are the same."""
    try:
        return f"{float(text):g}" if text else ""
    except ValueError:
        return text
