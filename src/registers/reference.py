"""The paper's own printed numbers, paper/reference.yaml, as a table. Read by tables, claims and the report only: no probe sees them."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

COLUMNS = ["artifact", "part", "row", "column", "value", "deviation", "note", "unit", "source"]


def read(path: str | Path) -> pd.DataFrame:
    """One row per printed number: artifact, part, row, column, value, deviation, note, unit, source.

    deviation: the printed standard deviation. note: what is printed in place of a number (N/A). Raises ValueError where a
    row of the file has more or fewer cells than columns.
    """
    return pd.DataFrame(
        [cell for block in yaml.safe_load(Path(path).read_text()) for cell in _cells(block)],
        columns=COLUMNS,
    )


def _cells(block: dict[str, Any]) -> list[dict[str, Any]]:
    columns = [str(c) for c in block["columns"]]
    units = block.get("units", [block.get("unit", "")] * len(columns))
    cells = []
    for row, values in block["rows"].items():
        if not len(values) == len(columns) == len(units):
            raise ValueError(
                f"reference {block['artifact']}, {row}: {len(values)} cells; allowed are {len(columns)}, one a column"
            )
        for column, cell, unit in zip(columns, values, units):
            number, _, deviation = str(cell).partition("±")
            printed = _number(number)
            cells.append(
                {
                    "artifact": block["artifact"],
                    "part": block.get("part", ""),
                    "row": str(row),
                    "column": column,
                    "value": printed,
                    "deviation": _number(deviation),
                    "note": "" if printed is not None else str(cell),
                    "unit": unit,
                    "source": block["source"],
                }
            )
    return cells


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
