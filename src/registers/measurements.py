"""Measurement: the row that every number of the project is, and the CSV files of rows."""

import csv
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from registers.files import atomically, check_digest, damaged, write_digest


@dataclass(frozen=True)
class Measurement:
    """One number and where it comes from.

    question: the question that was asked, which is also the stage and the name of its module.
    metric: e.g. "top1", "count".
    backbone: its id; "" for an exact answer.
    value: the estimate; None where there is none, with the reason in the note.
    data: data set (or, for probes with several label sets, the label set).
    token: kind of token: "patch", "cls", "reg0", "normal", "outlier"...
    variant: what else tells rows of one metric apart, in a word: a class, LOST's facet, a mode.
    layer: 1..L; L is the output of the last block, before the final norm.
    coordinate, at: one further coordinate, its name and value: "norm", "registers", "lr",
    "patch"...
    low, high: the 95 % interval. n: over how many items. chance: the value of guessing.
    note: how it was measured, or why a value is missing.
    run: key of the MLflow run. code: git commit.
    """

    question: str
    metric: str
    backbone: str
    value: float | None
    data: str = ""
    token: str = ""
    variant: str = ""
    layer: int | None = None
    coordinate: str = ""
    at: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: float | None = None
    note: str = ""
    run: str = ""
    code: str = ""


@dataclass(frozen=True)
class Measured:
    """What a question's `measure` returns: rows, and arrays for pictures where it leaves any."""

    rows: list[Measurement]
    arrays: dict[str, np.ndarray] | None = None


COLUMNS = [field.name for field in fields(Measurement)]
TEXTS = [field.name for field in fields(Measurement) if field.type is str]
ID_COLUMNS = ("method", "size", "registers", "seed", "noaa", "percent")


@cache
def code_version() -> str:
    """Short git commit of the code that runs, with "+" when the working tree differs.

    "unknown" outside a checkout, and where the repository around us does not track this code.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "measurements.py")  # not some repository around us
        commit = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def write(path: str | Path, rows: Iterable[Measurement], run: str = "") -> None:
    """Write rows to a CSV file, stamping the run and the code version where a row has none."""

    def fill(partial: Path) -> None:
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for row in rows:
                cells = asdict(row)
                cells["run"] = cells["run"] or run
                cells["code"] = cells["code"] or code_version()
                writer.writerow({k: "" if v is None else v for k, v in cells.items()})

    atomically(path, fill)
    write_digest(path)


def read(paths: str | os.PathLike | Iterable[str | os.PathLike]):
    """Measurements of one or many CSV files as a pandas DataFrame.

    The backbone's id is taken apart into the columns method, size ("" for the method's default),
    registers, seed, noaa and percent (how far into training the checkpoint was taken; 100 at the
    end). See `settings.backbone_id.BackboneId`.

    Raises ValueError, which names the file and the remedy, for one that is damaged, or holds no
    row: every question leaves some.
    """
    import pandas as pd

    from registers.settings.backbone_id import BackboneId

    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    frames = [_read_one(path) for path in paths]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    ids = {name: BackboneId.parse(name) for name in frame["backbone"].unique() if name}
    for column in ID_COLUMNS:
        values = (getattr(ids[name], column) if name in ids else None for name in frame["backbone"])
        frame[column] = list(values)
    return frame


def _read_one(path: str | os.PathLike):
    import pandas as pd

    missing = {column: [""] for column in COLUMNS if column not in TEXTS}
    texts = dict.fromkeys(TEXTS, str)
    try:
        check_digest(path)
        rows = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=missing)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error
    if list(rows.columns) != COLUMNS:
        raise damaged(path, "its columns are not those of measurements")
    if rows.empty:
        raise damaged(path, "it holds no row")
    return rows
