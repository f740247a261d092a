"""What checking digests costs: every file is hashed each time that a job opens it.

    python benchmarks/digests.py results/laptop [results/smoke ...]

For finished runs. Hashes the files that their jobs check, counts how often each is opened (at most:
a probe that needs norms alone does not check q, k and v), and compares with the seconds of all
jobs, as Snakemake measured them. Writes benchmarks/results/digests.md.
"""

import csv
import hashlib
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from registers.files import sha256
from registers.questions import names

OUT = Path(__file__).parent / "results/digests.md"


def main() -> None:
    lines = [
        "# What checking digests costs",
        "",
        f"`python benchmarks/digests.py`, {time.strftime('%Y-%m-%d')}; SHA-256 at "
        f"{_speed():.2f} GB/s, one thread. An upper bound: every question opens every file.",
        "",
        "| run | what | files | MB | openings | seconds | of all jobs |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for folder in map(Path, sys.argv[1:]):
        whole = _seconds_of_jobs(folder)
        total = 0.0
        for kind, files, openings in _kinds(folder):
            size, seconds = _hashed(files)
            total += seconds * openings
            lines.append(
                f"| {folder.name} | {kind} | {len(files)} | {size / 1e6:.1f} | {openings} "
                f"| {seconds * openings:.2f} | {seconds * openings / whole:.2%} |"
            )
        lines.append(f"| {folder.name} | all | | | | {total:.2f} | {total / whole:.2%} |")
    text = "\n".join(lines) + "\n"
    OUT.write_text(text)
    print(text)


def _kinds(folder: Path) -> Iterable[tuple[str, list[Path], int]]:
    """(what, its files, how often a job opens each)."""
    checkpoints = list(folder.glob("checkpoints/*/*.safetensors"))
    jobs_on_images = len(list(folder.glob("checkpoints/*/last.json")))
    jobs_on_images += len(list(folder.glob("banks/*"))) + sum(
        len(list(folder.glob(f"measurements/{name}/*.csv"))) for name in names("checkpoint")
    )
    yield "weights", checkpoints, 1 + len(names("checkpoint"))
    yield "token banks", list(folder.glob("banks/*/*.*")), len(names("bank"))
    yield "rows", list(folder.glob("measurements/**/*.csv")), 30  # figures, tables and the report
    yield "worlds", list(folder.glob("data/world-*/*.npy")), jobs_on_images


def _hashed(files: list[Path]) -> tuple[int, float]:
    """Bytes of all files, and seconds to hash them once."""
    began = time.perf_counter()
    for file in files:
        sha256(file)
    return sum(file.stat().st_size for file in files), time.perf_counter() - began


def _seconds_of_jobs(folder: Path) -> float:
    total = 0.0
    for file in folder.glob("benchmarks/**/*.tsv"):
        (row,) = csv.DictReader(file.read_text().splitlines(), delimiter="\t")
        total += float(row["s"])
    return total


def _speed() -> float:
    content = bytes(2**28)
    began = time.perf_counter()
    hashlib.sha256(content).digest()
    return len(content) / 1e9 / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
