"""Files that are whole or not there: written at once, and read only where nothing is damaged."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DISK_ERRORS = ("I/O error", "inline_container")  # how safetensors and torch.save tell of disks


def atomically(path: str | Path, write: Callable[[Path], None], durable: bool = False) -> None:
    """Let `write` fill a neighbouring file, then rename it to `path`.

    durable: also flush the file and its folder to disk, for what must survive a power failure
    (checkpoints that a killed training resumes from). Raises OSError, which names the file and the
    space that is left, where the disk is full: libraries raise many kinds of errors then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
    except Exception as error:
        partial.unlink(missing_ok=True)
        if not (isinstance(error, OSError) or any(word in str(error) for word in DISK_ERRORS)):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        reason = " ".join(str(error).split())[:120]
        raise OSError(f"{path}: not written ({free:.0f} MB are free there): {reason}") from error
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


def write_table(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """A CSV file with the columns of all rows, in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))

    def write(partial: Path) -> None:
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    atomically(path, write)


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """One compressed .npz."""

    def write(partial: Path) -> None:
        with open(partial, "wb") as file:  # a file object: numpy would append .npz to a name
            np.savez_compressed(file, **arrays)

    atomically(path, write)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, whose zip file carries a CRC-32 of each.

    Raises ValueError, which names the file and the remedy, where it is missing or damaged.
    """
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged zip file raises a dozen kinds of errors
        raise damaged(path, error) from error


# --- digests that lie beside a file ---------------------------------------------------------------


def sha256(path: str | Path) -> str:
    """Of a file's content: 0.3 s for a GB where the processor helps, 1 s for most."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digest(path: str | Path) -> None:
    """Note a file's SHA-256 in `path`.sha256, as `sha256sum --check` reads it."""
    path = Path(path)
    write_text(_digest_file(path), f"{sha256(path)}  {path.name}\n")


def check_digest(path: str | Path) -> None:
    """Raises ValueError where a file is not the one whose SHA-256 was noted beside it, if any."""
    path = Path(path)
    try:
        noted = _digest_file(path).read_text().split()[:1]
    except FileNotFoundError:
        return
    if noted != [sha256(path)]:
        raise damaged(path, f"its SHA-256 is not the one in {_digest_file(path).name}")


def damaged(path: str | Path, how: object) -> ValueError:
    """One line: the file, what is wrong, and how to make it again."""
    reason = " ".join(f"{how}".split()) or type(how).__name__
    return ValueError(f"{path}: damaged ({reason}); delete it and run snakemake again")


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
