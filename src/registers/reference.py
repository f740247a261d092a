"""The paper's own printed numbers, paper/reference.yaml, as a table.

Only tables, figures, claims and the report read them; no probe ever sees them.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

COLUMNS = ["artifact", "part", "row", "column", "value", "deviation", "note", "unit", "source"]


def read(path: str | Path) -> pd.DataFrame:
    """One row per printed number, with the columns COLUMNS.

    artifact, part, row, column: where the number stands in the paper.
    deviation: the printed standard deviation.
    note: what is printed in place of a number (N/A).
    source: the table or section it was copied from.

    Raises ValueError where a row of the file has more or fewer cells than columns.
    """
    blocks = yaml.safe_load(Path(path).read_text())
    return pd.DataFrame([cell for block in blocks for cell in _cells(block)], columns=COLUMNS)


def _cells(block: dict[str, Any]) -> list[dict[str, Any]]:
    columns = [str(column) for column in block["columns"]]
    units = block.get("units", [block.get("unit", "")] * len(columns))
    cells = []
    for row, texts in block["rows"].items():
        if not len(texts) == len(columns) == len(units):
            raise ValueError(
                f"reference {block['artifact']}, {row}: {len(texts)} cells; "
                f"must be {len(columns)}, one for each column"
            )
        for column, text, unit in zip(columns, texts, units):
            number, _, deviation = str(text).partition("±")
            value = _number(number)
            cell = {
                "artifact": block["artifact"],
                "part": block.get("part", ""),
                "row": str(row),
                "column": column,
                "value": value,
                "deviation": _number(deviation),
                "note": str(text) if value is None else "",
                "unit": unit,
                "source": block["source"],
            }
            cells.append(cell)
    return cells


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
