"""Writing files so that a reader sees either the old file or the whole new one, never a part."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def atomically(path: str | Path, write: Callable[[Path], None], durable: bool = False) -> None:
    """Let `write` fill a neighbouring file, then rename it to `path`.

    durable: also flush the file and its folder to disk, for what must survive a power failure
    (checkpoints that a killed training resumes from).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    write(partial)
    if durable:
        _flush(partial, os.O_RDWR)
    os.replace(partial, path)
    if durable:
        _flush(path.parent, os.O_RDONLY)


def write_text(path: str | Path, text: str) -> None:
    atomically(path, lambda partial: partial.write_text(text))


def write_json(path: str | Path, content: Any, indent: int = 1) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    atomically(path, lambda partial: partial.write_text(text))


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """One compressed .npz."""

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:  # a file object: numpy would append .npz to a name
            np.savez_compressed(file, **arrays)

    atomically(path, write)


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
