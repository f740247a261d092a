"""Selectors of paper/claims.yaml: the rows that a claim names, and their numbers by seed."""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd

from registers.claims import wording
from registers.differences import Estimate
from registers.settings.backbone_id import BackboneId

Selector = dict[str, Any]


class Missing(Exception):
    """There are no rows, or no value in them; the message names them and the reason."""


def select(measurements: pd.DataFrame, selector: Selector) -> pd.DataFrame:
    """The rows that a selector names, by column: one value, a list of them, or {from: a, below: b}.

    Unless the selector says otherwise, only the end of training (percent 100), the method's own
    size (an id without a size) and no "noaa" count. Raises ValueError for an unknown column.
    """
    unknown = sorted(set(selector) - set(measurements.columns))
    if unknown:
        columns = ", ".join(measurements.columns)
        raise ValueError(f"claims: unknown column {', '.join(unknown)}; must be one of {columns}")
    rows = measurements
    for column, value in selector.items():
        rows = rows[_matches(rows[column], value)]
    own = rows.get("own_size", pd.Series(False, index=rows.index))
    usual = [
        not name or _is_usual(BackboneId.parse(name), selector, is_own)
        for name, is_own in zip(rows["backbone"], own)
    ]
    return rows[pd.Series(usual, index=rows.index, dtype=bool)]


def known(measurements: pd.DataFrame, selector: Selector) -> pd.DataFrame:
    """The selected rows that have a value. Raises Missing where there is none."""
    rows = select(measurements, selector)
    with_value = rows.dropna(subset=["value"])
    if with_value.empty:
        reason = "no rows" if rows.empty else rows["note"].iloc[0]
        raise Missing(f"{reason}: {wording.named(selector)}")
    return with_value


def each_listed(selector: Selector) -> list[Selector]:
    """One selector for each value that a selector lists: a list means all of them, not any."""
    lists = {column: value for column, value in selector.items() if isinstance(value, list)}
    return [
        {**selector, **dict(zip(lists, values))} for values in itertools.product(*lists.values())
    ]


def estimates(rows: pd.DataFrame) -> dict[int, Estimate]:
    """The number of each seed with its interval over images, from rows with values.

    Several rows of one seed are averaged: data sets, whose intervals are independent, or images
    (coordinate "image"), over which the interval is then taken. A row without an interval is exact;
    an exact question has no seed, which counts as seed 0.
    """
    seeds = rows["seed"].map(lambda seed: 0 if pd.isna(seed) else int(seed))
    return {int(seed): _mean(part) for seed, part in rows.groupby(seeds)}


def per_image(rows: pd.DataFrame) -> dict[tuple, float] | None:
    """Values by data set and image, where rows of one backbone are about single images."""
    if rows["backbone"].nunique() != 1 or set(rows["coordinate"]) != {"image"}:
        return None
    averages = rows.groupby(["data", "at"])["value"].mean()
    return {key: float(value) for key, value in averages.items()}


def _mean(rows: pd.DataFrame) -> Estimate:
    value = float(rows["value"].mean())
    if set(rows["coordinate"]) == {"image"} and len(rows) > 1:
        by_image = rows.groupby(["data", "at"])["value"].mean()
        half = 1.96 * float(by_image.std(ddof=1)) / math.sqrt(len(by_image))
        return Estimate(value, value - half, value + half)
    below = rows["value"] - rows["low"].fillna(rows["value"])
    above = rows["high"].fillna(rows["value"]) - rows["value"]
    low = value - float(np.sqrt((below**2).sum())) / len(rows)
    high = value + float(np.sqrt((above**2).sum())) / len(rows)
    return Estimate(value, low, high)


def _matches(column: pd.Series, value: Any) -> pd.Series:
    if isinstance(value, dict):
        low = value.get("from", -math.inf)
        high = value.get("below", math.inf)
        return (column >= low) & (column < high)
    return column.isin(value if isinstance(value, list) else [value])


def _is_usual(id: BackboneId, selector: Selector, own_size: bool) -> bool:
    """Whether a backbone is one that claims mean where they do not say otherwise."""
    return (
        ("percent" in selector or id.percent == 100)
        and ("size" in selector or not id.size or own_size)
        and ("noaa" in selector or not id.noaa)
    )


# --- in words -------------------------------------------------------------------------------------


def lines(rows: pd.DataFrame) -> list[str]:
    """Each row with a value as a line: "top-1, dinov2-r0-s0: 41.1 [38.0, 44.2] %"."""
    texts = []
    for row in rows.dropna(subset=["value"]).itertuples():
        low = row.value if math.isnan(row.low) else row.low
        high = row.value if math.isnan(row.high) else row.high
        subject = row.backbone or f"{row.data}, {row.coordinate} {row.at:g}"
        told = wording.number(row.value, low, high, wording.unit(row.metric))
        texts.append(f"{wording.title(row.metric)}, {subject}: {told}")
    return texts
