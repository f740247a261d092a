"""What a whole run costs: wall time, core-seconds, memory, the share that is training and evaluation, and the two short calls.

    python benchmarks/reproduce.py --scale laptop [--folder DIR]

Runs Snakemake on this checkout in a folder of its own (or goes on in --folder) and prints a markdown table. Start-up is counted as
the processor time of every job's imports (measured here, verb by verb) plus Snakemake's own; the rest is work.
"""

import argparse
import csv
import datetime
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from registers.measurements import code_version

ROOT = Path(__file__).parents[1]
IMPORTS = {  # what a verb imports before it works
    "train": "registers.cli, registers.train, registers.readers.catalogue, registers.methods.dinov2",
    "tokens": "registers.cli, registers.tokens, registers.readers.catalogue, registers.models.checkpoint",
    "maps": "registers.cli, registers.evals.maps, registers.readers.catalogue, registers.models.checkpoint",
    "linear": "registers.cli, registers.evals.linear, registers.readers.catalogue, registers.models.checkpoint",
    "figure": "registers.cli, registers.figures.paint.style, pandas",
    "other": "registers.cli, numpy",
}
LIKE = {
    "zeroshot": "linear",
    "discovery": "linear",
    "segmentation": "linear",
    "depth": "linear",
    "table": "figure",
    "report": "figure",
}


def cpu_of(command: list[str], **options) -> tuple[float, float, subprocess.CompletedProcess]:
    """Processor seconds (user and system, children included), wall seconds and the finished process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime),
        time.perf_counter() - start,
        done,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="registers-"))
    snakemake = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
    ]
    snakemake += ["--cores", str(options.cores), "--config", f"scale={options.scale}"]

    cpu, wall, done = cpu_of(snakemake)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    jobs = {
        rule: int(n)
        for rule, n in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M)
        if rule not in ("total", "all")
    }
    idle_cpu, idle, _ = cpu_of(snakemake)
    (folder / "reports/figures/fig07.png").unlink()
    _, figure, _ = cpu_of([*snakemake[:-2], "reports/figures/fig07.png", *snakemake[-2:]])

    starts = {
        verb: cpu_of([sys.executable, "-c", f"import {modules}"])[0]
        for verb, modules in IMPORTS.items()
    }
    spent = {
        rule: n
        * starts[
            LIKE.get(rule, rule if rule in starts else "train" if "train" in rule else "other")
        ]
        for rule, n in jobs.items()
    }
    start_up = sum(spent.values()) + idle_cpu
    memory = max(
        (float(row["max_rss"]) for row in _benchmarks(folder) if row["max_rss"] not in ("NA", "-")),
        default=float("nan"),
    )
    print(
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, commit {code_version()}, scale {options.scale}\n"
    )
    print("| what | measured |\n|---|---|")
    print(f"| jobs | {sum(jobs.values())} |")
    print(f"| wall time | {wall / 60:.1f} min |")
    print(f"| core-seconds | {cpu:.0f} |")
    print(
        f"| of these training and evaluation, not start-up | {100 * (1 - start_up / cpu):.0f} % |"
    )
    print(f"| largest process | {memory / 1024:.2f} GiB |")
    print(f"| nothing to do | {idle:.1f} s |")
    print(f"| one figure from cached numbers | {figure:.1f} s |")


def _benchmarks(folder: Path) -> list[dict[str, str]]:
    return [
        row
        for path in folder.glob("results/*/benchmarks/*/*.tsv")
        for row in csv.DictReader(path.read_text().splitlines(), delimiter="\t")
    ]


if __name__ == "__main__":
    main()
