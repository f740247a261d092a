"""What the seeds of a variant say, in words and numbers for the sentences of the study's pages."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from registers.figures.paint import style
from registers.study.regime import CONDITIONS

LEARNED = 0.95  # of a task's answers
SETTLED = 0.9  # of the weight of the pooling query
PLACES = ("cls", "wall", "many")  # where labels wait after the first block
LOST = 0.05  # an accuracy that drops by more without redundant patches shows that these are used


@dataclass(frozen=True)
class Seeds:
    """What the seeds of a variant with so many registers say, in words for a sentence."""

    frame: pd.DataFrame

    @cached_property
    def groups(self) -> dict[tuple[str, int], pd.DataFrame]:
        """(variant, registers) -> its rows; kept, as the page asks more than a thousand times."""
        rows = self.frame.sort_values("seed").groupby(["variant", "registers"])
        return dict(iter(rows))

    def of(self, variant: str, registers: int) -> pd.DataFrame:
        return self.groups.get((variant, registers), self.frame.iloc[:0])

    def ran(self, variant: str, registers: int = 0) -> int:
        return len(self.of(variant, registers))

    def over(self, variant: str, registers: int, key: str, digits: int = 2) -> str:
        """One number a seed: 0.99, 1.00 and 0.98."""
        return style.listing(number(v, digits) for v in self.of(variant, registers)[key])

    def span(self, variant: str, registers: int, key: str, digits: int = 2) -> str:
        """2.3 to 2.8: the least and the largest over seeds, one number where they print alike."""
        values = self.of(variant, registers)[key]
        ends = [number(values.min(), digits), number(values.max(), digits)]
        return ends[0] if ends[0] == ends[1] else " to ".join(ends)

    def each(self, variant: str, registers: int, key: str, digits: int = 2) -> str:
        """One number a seed, for a cell of a table: 0.99, 1.00, 0.98."""
        cells = [number(v, digits) for v in self.of(variant, registers)[key]]
        return "-" if set(cells) == {"-"} else ", ".join(cells)

    def count(self, variant: str, registers: int, condition: str) -> str:
        """4 of 5: in how many seeds it holds."""
        held = self.of(variant, registers)[condition].fillna(False).astype(bool)
        return f"{held.sum()} of {len(held)}"

    def first_three(self, variant: str, registers: int = 0) -> str:
        """3 of 3: in how many seeds, without registers unless told, conditions 1 to 3 hold."""
        rows = self.of(variant, registers).to_dict("records")
        held = [all(row[c] is True for c in CONDITIONS[:3]) for row in rows]
        return f"{sum(held)} of {len(held)}"

    def needed(self, variant: str, registers: int) -> str:
        """3 of 3: in how many seeds labels are lost where no token may look at blanks, and not
        where none may look at as many others."""
        rows = self.of(variant, registers)
        lost = (rows["hidden/other"] - rows["hidden/redundant"]).dropna()
        return f"{(lost > LOST).sum()} of {len(lost)}"

    def exchanged(self, variant: str, registers: int) -> bool:
        """Whether any seed was asked by exchange from which tokens [CLS] takes labels."""
        return bool(self.of(variant, registers)["exchanged/own"].notna().any())

    def waiting(self, place: str, wide: bool, predicted: bool = False) -> tuple[int, str, str]:
        """Of the runs of `placed` with wide MLPs or without and, if asked, those that were
        `predicted` alone, whose labels wait in this place: their number, blanks' norms, and in how
        many there is a second mode ("8 of 8")."""
        rows = placed(self.frame)
        rows = rows[(rows.place == place) & (rows.wide == wide)]
        rows = rows[rows.predicted] if predicted else rows
        norms = ", ".join(number(v, 1) for v in rows["redundant_over_others"].sort_values())
        modes = rows[CONDITIONS[0]].fillna(False).astype(bool)
        return len(rows), norms or "-", f"{modes.sum()} of {len(rows)}"

    def none_left(self, variant: str) -> str:
        """5 of 5: in how many seeds with four registers no second mode is left."""
        left = self.of(variant, 4)[CONDITIONS[0]].fillna(True).astype(bool)
        return f"{(~left).sum()} of {len(left)}"

    def copied(self, variant: str, registers: int) -> str:
        """3 of 3: in how many seeds the neighbour's symbol was learned, of those that tell."""
        told = self.of(variant, registers)["answers/right"].dropna()
        return f"{(told > LEARNED).sum()} of {len(told)}"

    def told_by(self, variant: str, registers: int, key: str) -> str:
        """0.93 and 0.97: one number a seed, of those that have it."""
        return style.listing(map(number, self.of(variant, registers)[key].dropna()))

    def lengths(self, variant: str, registers: int) -> str:
        """4.2, 8.4: how long the part of blanks is that those of one picture share, in norms of
        the other patches, one number a seed."""
        rows = self.of(variant, registers)
        share = rows["redundant_of_scene"].clip(lower=0)
        cells = [number(v, 1) for v in rows["redundant_over_others"] * share**0.5]
        return "-" if set(cells) == {"-"} else ", ".join(cells)

    def made_of(self, variant: str, registers: int) -> bool:
        """Whether any seed tells what blanks are made of."""
        return bool(self.of(variant, registers)["redundant_constant"].notna().any())

    def left_over(self, variant: str) -> str:
        """3 of 3 seeds of `v` (0.81, 0.82 and 0.78): in how many a second mode is left beside four
        registers, and the constant part of blanks there."""
        rows = self.of(variant, 4)
        left = rows[rows[CONDITIONS[0]].fillna(False).astype(bool)]
        shares = style.listing(map(number, left["redundant_constant"]))
        told = f" ({shares})" if len(left) else ""
        return f"{len(left)} of {len(rows)} seeds of `{variant}`{told}"

    def settled(self, variant: str, registers: int, where: str) -> str:
        """4 of 5: in how many seeds the pooling query reads hardly anything but `where`."""
        weights = self.of(variant, registers)["pool_on_" + where]
        return f"{(weights > SETTLED).sum()} of {len(weights)}"


def placed(frame: pd.DataFrame, least: float = LOST) -> pd.DataFrame:
    """Runs with a [CLS], several plain labels, softmax and no registers, and where labels wait that
    [CLS] does not take in the first block: "place", one of `PLACES`.

    "cls": nowhere, it loses none where it may look at no patch any more. "wall": in blanks alone,
    where it loses some without them and none with nothing else. "many": in several kinds of
    patches, where blanks alone are not enough or are not missed. "wide": whether MLPs have as many
    units as tokens have dimensions; "predicted": whether it was said before that second modes are
    where labels wait in blanks alone. least: an accuracy that drops by no more has lost nothing.
    """
    plain = (frame["regime.objective"] == "tasks") & (frame["regime.attention"] == "softmax")
    rows = frame[plain & (frame.registers == 0) & frame["exchanged/own"].notna()].copy()
    lost = {
        name: rows["hidden/all"] - rows[f"hidden_cls/{name}"] > least
        for name in ("patches", "redundant", "but_redundant")
    }
    wall = lost["redundant"] & ~lost["but_redundant"]
    return rows.assign(
        place=np.select([~lost["patches"], wall], PLACES[:2], PLACES[2]),
        wide=rows["regime.hidden"].astype(float) >= rows["regime.width"].astype(float),
        predicted=rows.hypothesis.str.startswith("H47"),
    )


def steady(frame: pd.DataFrame) -> tuple[float, float]:
    """The least and the largest `least`, in hundredths up to one half, between which every run with
    narrow MLPs has the same place."""
    expected = placed(frame).query("not wide").place
    same = [placed(frame, n / 100).query("not wide").place.equals(expected) for n in range(51)]
    low = high = round(100 * LOST)
    while low and same[low - 1]:
        low -= 1
    while high < 50 and same[high + 1]:
        high += 1
    return low / 100, high / 100


def number(value, digits: int = 2) -> str:
    """A number for a table; a dash where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return f"{value:.{digits}f}"
