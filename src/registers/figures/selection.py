"""Which models a figure or table shows, and in which order: the choices that several of them share.

Rows are measurements as `registers.measurements.read` returns them; arrays come by backbone id.
"""

from collections.abc import Iterable

import pandas as pd

from registers.registry import METHODS, subject_of
from registers.settings.backbone_id import BackboneId


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of the paper's columns (Figs. 1 and 7), then others."""
    names = list(dict.fromkeys(m for m in methods if isinstance(m, str) and m))
    known = [method for method in METHODS if method in names]
    return known + [method for method in names if method not in METHODS]


def subject(methods: Iterable[str]) -> str:
    """The method that a figure about one method shows: DINOv2, or else the paper's first."""
    return subject_of(in_order(methods))


def fewest_and_most(counts: Iterable[int]) -> list[int]:
    """The least and the greatest number of registers; a single number where all have as many."""
    counts = {int(count) for count in counts}
    return sorted({min(counts), max(counts)})


# --- rows


def first_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first seed: a distribution is one model's, never pooled over several.

    First in the order of the rows, which is that of the settings.
    """
    seeds = rows["seed"].dropna()
    return rows[rows["seed"] == seeds.iloc[0]] if len(seeds) else rows


def by_method(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by method, in the paper's order."""
    return {method: rows[rows["method"] == method] for method in in_order(rows["method"])}


def by_registers(rows: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """Rows by number of registers, with the fewest and with the most."""
    counts = fewest_and_most(rows["registers"])
    return {count: rows[rows["registers"] == count] for count in counts}


def is_test_time(rows: pd.DataFrame) -> bool:
    """Whether registers of a model among these rows were added at test time, without training."""
    return any(BackboneId.parse(name).test_time for name in rows["backbone"].unique() if name)


def of_subject(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first seed of DINOv2, or else of the first method."""
    return first_seed(rows[rows["method"] == subject(rows["method"])])


# --- arrays


def seeds(names: Iterable[str]) -> list[int]:
    """The seeds of backbones, in the order of the settings."""
    return list(dict.fromkeys(BackboneId.parse(name).seed for name in names))


def models(names: Iterable[str], seed: int | None = None) -> list[BackboneId]:
    """The backbones of a seed (the first): methods in the paper's order, registers upwards."""
    ids = [BackboneId.parse(name) for name in names]
    methods = in_order(id.method for id in ids)
    seed = ids[0].seed if seed is None else seed
    return sorted(
        (id for id in ids if id.seed == seed),
        key=lambda id: (methods.index(id.method), id.registers, id.noaa),
    )


def ends(names: Iterable[str], seed: int | None = None) -> list[list[BackboneId]]:
    """`models` with the fewest and with the most registers: the paper's two groups of columns.

    A single group where all have as many.
    """
    ids = models(names, seed)
    counts = fewest_and_most(id.registers for id in ids)
    return [[id for id in ids if id.registers == count] for count in counts]


def subject_models(names: Iterable[str]) -> list[BackboneId]:
    """The models of DINOv2, or else of the first method, registers upwards."""
    ids = models(names)
    method = subject(id.method for id in ids)
    return [id for id in ids if id.method == method]
