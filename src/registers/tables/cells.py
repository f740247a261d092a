"""Numbers of tables about kinds of token: a value with its interval, or none and the reason."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import stdev

import pandas as pd

from registers.differences import Estimate, newcombe, on_same_images, over_images
from registers.figures import selection
from registers.figures.paint import style
from registers.tables.typeset import DASH
from registers.vocabulary import NORMAL, OUTLIER, TAIL

TOKENS = {"cls": "[CLS]", NORMAL: NORMAL, OUTLIER: OUTLIER, TAIL: TAIL}
PAPER = "the paper"  # whose numbers stand in rows of their own, by its own data sets
MEAN = "mean of all sets"


@dataclass(frozen=True)
class TableCell:
    """One number of a table.

    seeds: the value of each seed with its interval over images; none where there is no value, with
    the reason.
    chance: the value of guessing.
    n: test images.
    """

    seeds: dict[int, Estimate]
    chance: float
    reason: str
    digits: int
    n: int = 0

    @property
    def value(self) -> float | None:
        """The mean over seeds."""
        return on_same_images(self.seeds.values()).value if self.seeds else None

    @property
    def by_seed(self) -> dict[int, float]:
        return {seed: estimate.value for seed, estimate in self.seeds.items()}

    @property
    def short(self) -> str:
        """45.3, or a dash."""
        return DASH if self.value is None else self._written(self.value)

    @property
    def guess(self) -> str:
        """The value of guessing, or a dash where there is no value."""
        return DASH if self.value is None else self._written(self.chance)

    @property
    def note(self) -> str:
        """Why there is no value, or how many images were tested."""
        if not self.n:
            return self.reason
        tested = style.plural(self.n, "test image")
        return f"{self.reason}; {tested}" if self.reason else tested

    @property
    def numbers(self) -> dict[str, float | int | str | None]:
        """ours, std, low, high, chance, n, seeds and note, as a row of a table has them.

        low, high: the span of the seeds' intervals. std: over seeds; NaN of a single one.
        """
        names = ("ours", "std", "low", "high", "chance")
        if not self.seeds:
            return dict.fromkeys(names) | {"n": 0, "seeds": 0, "note": self.reason}
        several = list(self.by_seed.values())
        values = (
            self.value,
            stdev(several) if len(several) > 1 else math.nan,
            min(estimate.low for estimate in self.seeds.values()),
            max(estimate.high for estimate in self.seeds.values()),
            self.chance,
        )
        rounded = {name: round(value, self.digits + 1) for name, value in zip(names, values)}
        return rounded | {"n": self.n, "seeds": len(self.seeds), "note": self.note}

    def against(self, other: "TableCell") -> str:
        """Whether this lies above or below another token's number, by the claims' rule.

        Over images: both speak of the tokens of the same backbones.
        """
        shared = sorted(set(self.seeds) & set(other.seeds))
        if not shared:
            return "not apart from"
        both = (on_same_images([cell.seeds[seed] for seed in shared]) for cell in (self, other))
        low, high = over_images(newcombe(*both), len(shared)).interval
        if low > 0:
            return "above"
        return "below" if high < 0 else "not apart from"

    def _written(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


def cell(rows: pd.DataFrame, scale: float = 100, digits: int = 1) -> TableCell:
    """The cell of one metric, token, label set and model, from its rows, one per seed.

    scale: 100 for per cent. digits: after the point.
    """
    known = rows.dropna(subset=["value"])
    if known.empty:
        reason = rows["note"].iloc[0] if len(rows) else "not measured in this run"
        return TableCell({}, float("nan"), reason, digits)
    numbers = known.groupby("seed")[["value", "low", "high"]].mean()
    return TableCell(
        seeds={
            int(row.Index): Estimate(scale * row.value, scale * row.low, scale * row.high)
            for row in numbers.itertuples()
        },
        chance=float(scale * known["chance"].mean()),
        reason=known["note"].iloc[0],
        digits=digits,
        n=int(known["n"].min()),
    )


@dataclass(frozen=True)
class TableModel:
    """A method with a number of registers, and its rows."""

    method: str
    registers: int
    rows: pd.DataFrame

    @property
    def name(self) -> str:
        """DINOv2, DINOv2+4 reg."""
        kind = "test-time reg" if self.test_time else "reg"
        return self.title + (f"+{self.registers} {kind}" if self.registers else "")

    @property
    def test_time(self) -> bool:
        """Whether its registers were added at test time, without training."""
        return selection.is_test_time(self.rows)

    @property
    def added(self) -> dict[str, bool]:
        """What rows of a table say of that; nothing where registers were trained."""
        return {"test_time": True} if self.test_time else {}

    @property
    def title(self) -> str:
        """The method's name."""
        return style.name(self.method)

    @property
    def has_outliers(self) -> bool:
        """Whether there is a second mode: any row about outliers has a value."""
        return bool(self.rows.loc[self.rows["token"] == OUTLIER, "value"].notna().any())


def models(rows: pd.DataFrame) -> list[TableModel]:
    """Every method and number of registers, the paper's main focus first."""
    by_method = selection.by_method(rows)
    subject = selection.subject(by_method)
    order = [subject, *(method for method in by_method if method != subject)]
    return [
        TableModel(method, int(registers), part)
        for method in order
        for registers, part in by_method[method].groupby("registers")
    ]


def is_added(row: dict[str, object]) -> bool:
    """Whether a row of a table, made or read again, is of registers added at test time."""
    return row.get("test_time") == 1


def label_sets(rows: pd.DataFrame) -> list[str]:
    """The label sets that tokens were asked for, in the order of the rows."""
    return list(dict.fromkeys(name for name in rows["data"] if name))


def without_outliers(models: Iterable[TableModel]) -> str:
    """For a caption: why some models have no outliers; "" where all have."""
    if all(model.has_outliers for model in models):
        return ""
    return "; where norms have no second mode there are no outliers"


def chance(models: Iterable[dict[str, TableCell]]) -> str:
    """For a caption: the level of guessing, and that of tokens which fewer images have.

    models: of each its cells by kind of token.
    """
    models = list(models)
    guess = models[0]["cls"].guess
    texts = [f"{guess} %"]
    for token, name in ((OUTLIER, "outliers"), (TAIL, f"the {TAIL}")):
        guesses = sorted({cells[token].guess for cells in models if cells[token].seeds}, key=float)
        if guesses and guesses != [guess]:
            ends = style.span((guesses[0], guesses[-1]))
            texts.append(f"{ends} % for {name}, which fewer images have")
    return style.listing(texts)


# --- the paper's


def printed(reference: pd.DataFrame, artifact: str) -> pd.DataFrame:
    """The paper's own cells of one table, by (row, column): value, deviation, note, source."""
    return reference[reference["artifact"] == artifact].set_index(["row", "column"])


def mean_printed(printed: pd.DataFrame, token: str) -> float | None:
    """The paper's mean over its data sets for one kind of token; None where it prints none."""
    if token not in printed.index.get_level_values("row"):
        return None
    return round(float(printed.loc[token]["value"].mean()), 2)


def rows_of_paper(printed: pd.DataFrame) -> list[dict[str, object]]:
    """The paper's numbers in rows of their own: model, token, set, paper and where they stand."""
    return [
        {
            "model": PAPER,
            "token": token,
            "set": name,
            "paper": cell["value"],
            "paper_std": cell["deviation"],
            "note": cell["source"],
        }
        for (token, name), cell in printed.iterrows()
    ]
