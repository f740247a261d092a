"""Listings that are slow to make, kept in .npz files beside the manifests."""

import os
from pathlib import Path

import numpy as np

from registers.files import atomically


def load(path: Path | None, key: str) -> dict[str, np.ndarray] | None:
    """The arrays saved under this key; None where there are none, others, or a damaged file."""
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path) as saved:
            if str(saved["key"]) == key:
                return {name: saved[name] for name in saved.files}
    except Exception:  # a damaged zip file raises a dozen kinds of errors; the listing is made anew
        return None
    return None


def save(path: Path | None, key: str, **arrays: np.ndarray) -> None:
    """Keep arrays under a key. Several jobs may write the same file at once: the last one wins."""
    if path is None:
        return
    own = path.with_name(f"{path.name}.{os.getpid()}")

    def write(partial: Path) -> None:
        with open(partial, "wb") as out:
            np.savez(out, key=key, **arrays)

    atomically(own, write)
    os.replace(own, path)
