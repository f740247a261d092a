"""Inputs: what figures, tables, claims and the report are handed, read from files."""

from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open

from registers import measurements, reference
from registers.artifacts import PAPER
from registers.files import read_arrays
from registers.settings.run import Settings

PRINTED = PAPER / "reference.yaml"


def read(settings: Settings, files: list[str]) -> pd.DataFrame | dict[str, dict[str, np.ndarray]]:
    """One declared input of paper/artifacts.yaml, by what its files are.

    The paper's own numbers for paper/reference.yaml, arrays for .npz, sizes for checkpoints, rows
    for everything else; an input without files (its family is empty at this scale) is a table
    without rows.
    """
    if [Path(file).name for file in files] == [PRINTED.name]:
        return printed()
    if files and all(file.endswith(".npz") for file in files):
        return arrays(files)
    if files and all(file.endswith(".safetensors") for file in files):
        return weights(files)
    return rows(settings, files)


def rows(settings: Settings, files: list[str]) -> pd.DataFrame:
    """Measurements. The default size of a method, which ids leave out, gets its name.

    own_size: whether it is that size; ids of published models say it.
    """
    frame = measurements.read(files)
    default = {method: recipe.size for method, recipe in settings.recipes.items()}
    sizes = zip(frame["size"], frame["method"])
    frame["size"] = [size or default.get(method, "") for size, method in sizes]
    frame["own_size"] = [size == default.get(m) for size, m in zip(frame["size"], frame["method"])]
    return frame


def arrays(files: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Small arrays for pictures, by backbone (the name of its file) and name."""
    return {Path(file).stem: read_arrays(file) for file in files}


def weights(files: list[str]) -> pd.DataFrame:
    """Backbone (the name of its folder), width and parameters of checkpoints; no tensor is read."""
    rows = []
    for file in files:
        shapes = shapes_of(file)
        row = {"backbone": Path(file).parent.name, "width": shapes["cls_token"][-1]}
        rows.append(row | {"parameters": sum(map(prod, shapes.values()))})
    return pd.DataFrame(rows)


def shapes_of(checkpoint: str | Path) -> dict[str, list[int]]:
    """The shapes of its tensors, from the head of the file."""
    with safe_open(checkpoint, "numpy") as tensors:
        names = tensors.keys()
        return {name: tensors.get_slice(name).get_shape() for name in names}


def printed() -> pd.DataFrame:
    """The paper's own numbers (see `registers.reference`)."""
    return reference.read(PRINTED)
