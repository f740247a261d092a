"""The numbers that claims compare: by seed, with their intervals, and how they differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from registers.claims.selectors import Missing, Selector, each_listed, known
from registers.differences import (
    LEAST_SEEDS,
    Difference,
    Estimate,
    by_seed,
    newcombe,
    on_same_images,
    over_images,
    over_samples,
)


@dataclass(frozen=True)
class Number:
    """A number by seed, each with its interval over images, and the rows behind it."""

    seeds: dict[int, Estimate]
    rows: pd.DataFrame

    @property
    def values(self) -> dict[int, float]:
        return {seed: estimate.value for seed, estimate in self.seeds.items()}

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(list(self.values.values())))

    @property
    def estimate(self) -> Estimate:
        """Of all these backbones together, over images."""
        return on_same_images(self.seeds.values())


def measured(measurements: pd.DataFrame, selector: Selector, logs: bool = False) -> Number:
    """What a selector names. A list in it means all of its values.

    Several rows of one seed are averaged: data sets, whose intervals are independent; tokens or
    backbones asked about the same images, whose intervals are not; or images (coordinate "image"),
    over which the interval is then taken. A row without an interval is exact; an exact question has
    no seed, which counts as seed 0. logs: natural logarithms of the values, so that means are
    geometric. Raises Missing where something listed has no value, or one that has no logarithm.
    """
    rows = _of_shared_seeds([known(measurements, each) for each in each_listed(selector)])
    if logs:
        rows = _logarithms(rows)
    return Number({int(seed): _mean(part) for seed, part in rows.groupby(_seeds(rows))}, rows)


def constant(value: float, like: Number) -> Number:
    """A number that stands for itself, for each seed of another one."""
    return Number(dict.fromkeys(like.seeds, Estimate(value, value, value)), like.rows.head(0))


def of_both(a: Number, b: Number) -> tuple[Number, Number]:
    """Both numbers at the seeds that both have. Raises Missing where there is none."""
    shared = sorted(set(a.seeds) & set(b.seeds))
    if not shared:
        raise Missing("no seed has both sides")
    first, second = (
        replace(number, seeds={seed: number.seeds[seed] for seed in shared}) for number in (a, b)
    )
    return first, second


def difference(a: Number, b: Number, unit: str) -> Difference:
    """a - b as a claim's unit wants it: over seeds, over images, or exact.

    Training is judged on seeds that both have (`of_both`), paired; with one there is only its
    interval over images. Images are paired where rows are about single ones, and speak of all
    backbones on both sides, however many there are of each.
    """
    count = len(a.seeds)
    if unit == "training" and count >= LEAST_SEEDS:
        return over_samples(by_seed(a.values, b.values), count)
    images_of_a = _per_image(a.rows)
    images_of_b = _per_image(b.rows)
    if images_of_a and b.rows.empty:
        images_of_b = dict.fromkeys(images_of_a, b.mean)
    if images_of_a and images_of_b and images_of_a.keys() == images_of_b.keys():
        return over_samples(by_seed(images_of_a, images_of_b), count)
    return over_images(newcombe(a.estimate, b.estimate), count)


# --- rows to numbers ------------------------------------------------------------------------------


def _of_shared_seeds(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of the seeds that all frames have: a mean over some frames is another number."""
    rows = pd.concat(frames)
    shared = set.intersection(*(set(_seeds(frame)) for frame in frames))
    if not shared:
        raise Missing("no seed has all of what is averaged")
    return rows[_seeds(rows).isin(shared)]


def _logarithms(rows: pd.DataFrame) -> pd.DataFrame:
    ends = ["value", "low", "high"]
    if (rows[ends] <= 0).any(axis=None):
        raise Missing("a ratio needs numbers above 0")
    return rows.assign(**{end: np.log(rows[end].astype(float)) for end in ends})


def _seeds(rows: pd.DataFrame) -> pd.Series:
    return rows["seed"].map(lambda seed: 0 if pd.isna(seed) else int(seed))


def _per_image(rows: pd.DataFrame) -> dict[tuple, float] | None:
    """Values by data set and image, means over the backbones; None of rows about other things."""
    if set(rows["coordinate"]) != {"image"}:
        return None
    images = rows.groupby(["data", "at"])
    if (images["backbone"].nunique() < rows["backbone"].nunique()).any():
        return None
    if len(images) == 1:
        raise Missing("a single image says nothing about others")
    return {key: float(value) for key, value in images["value"].mean().items()}


def _mean(rows: pd.DataFrame) -> Estimate:
    """Of the rows of one seed."""
    if set(rows["coordinate"]) == {"image"}:
        by_image = rows.groupby(["data", "at"])["value"].mean().to_numpy()
        if len(by_image) > 1:
            gap = over_samples(by_image, seeds=1)
            return Estimate(gap.value, *gap.interval)
    sets = [on_same_images(_estimates(part)) for _, part in rows.groupby("data", dropna=False)]
    value = float(np.mean([each.value for each in sets]))
    below = math.hypot(*(each.value - each.low for each in sets)) / len(sets)
    above = math.hypot(*(each.high - each.value for each in sets)) / len(sets)
    return Estimate(value, value - below, value + above)


def _estimates(rows: pd.DataFrame) -> list[Estimate]:
    lows = rows["low"].fillna(rows["value"])
    highs = rows["high"].fillna(rows["value"])
    return [Estimate(*numbers) for numbers in zip(rows["value"], lows, highs)]
