"""Measurement: the one row that every number of the project is, and the CSV files that hold them (the third door)."""

import csv
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """One number and where it comes from.

    question: what was asked, e.g. "linear", "norms", "outliers". metric: e.g. "top1", "count". backbone: its id.
    data: data set and split. token: kind of token ("patch", "cls", "reg0"...), layer: 1..L (L is the last block's output,
    before the final norm; empty if not applicable). x: one further coordinate (bin centre, number of registers, step).
    value, low, high: the estimate and its interval (empty if none). n: over how many items. chance: value of guessing.
    note: e.g. why a value is missing. run: MLflow run id. code: git commit.
    """

    question: str
    metric: str
    backbone: str
    value: float | None
    data: str = ""
    token: str = ""
    layer: int | None = None
    x: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: float | None = None
    note: str = ""
    run: str = ""
    code: str = ""


COLUMNS = [f.name for f in fields(Measurement)]


@cache
def code_version() -> str:
    """Short git commit of the code that runs, with "+" when the working tree differs; "unknown" outside a checkout."""

    def git(*args: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        return commit + (
            "+" if git("status", "--porcelain", "--untracked-files=no", "--", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(path: str | Path, rows: Iterable[Measurement], run: str = "") -> None:
    """Write rows to a CSV atomically, stamping the run and the code version where a row has none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            cells = asdict(row)
            cells["run"] = cells["run"] or run
            cells["code"] = cells["code"] or code_version()
            writer.writerow({k: "" if v is None else v for k, v in cells.items()})
    os.replace(partial, path)


def read(paths: str | Path | Iterable[str | Path]):
    """Measurements of one or many CSV files as a pandas DataFrame.

    The backbone id is taken apart into the columns method, size ("" = the method's default), registers, seed, noaa and
    percent (how far into training the checkpoint was taken; 100 = the end). See `config.BackboneId`.
    """
    import pandas as pd

    from registers.settings.backbone_id import BackboneId

    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    text = {
        c: str for c in ("question", "metric", "backbone", "data", "token", "note", "run", "code")
    }
    frames = [
        pd.read_csv(
            p,
            dtype=text,
            keep_default_na=False,
            na_values={c: [""] for c in COLUMNS if c not in text},
        )
        for p in paths
    ]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    ids = {name: BackboneId.parse(name) for name in frame["backbone"].unique() if name}
    for column in ("method", "size", "registers", "seed", "noaa", "percent"):
        frame[column] = [getattr(ids[b], column) if b in ids else None for b in frame["backbone"]]
    return frame
