"""Selectors of paper/claims.yaml: the rows that a claim names."""

import itertools
import math
from typing import Any

import pandas as pd

from registers.claims import wording
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
