"""What a whole run costs: wall time, core-seconds, memory, start-up, and the two short calls.

    python benchmarks/reproduce.py --scale laptop [--folder DIR]

Runs Snakemake on this checkout in a folder of its own (or resumes in --folder) and prints a
markdown table. Start-up is counted as the processor time of every job's imports, measured here
stage by stage, plus Snakemake's own; the rest is work.
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
from typing import NamedTuple

from registers.measurements import code_version
from registers.questions import QUESTIONS

ROOT = Path(__file__).parents[1]
FIGURE = "fig07"
SHELL = "registers.cli, registers.measure"
BACKBONE = "registers.models.checkpoint, registers.readers.catalogue"
IMPORTS = {  # what a job of a stage imports before it works
    "train": f"{SHELL}, {BACKBONE}, registers.train, registers.methods.dinov2",
    "tokens": f"{SHELL}, {BACKBONE}, registers.tokens",
    "figure": "registers.cli, registers.draw, registers.figures.paint.style, registers.inputs",
    "world": "registers.cli, registers.world.dataset",
    "data": "registers.cli, registers.readers.catalogue",
} | {
    name: f"{SHELL}, {question.module}"
    + (f", {BACKBONE}" if question.reads == "checkpoint" else "")
    for name, question in QUESTIONS.items()
}


class Cost(NamedTuple):
    """Processor seconds (with system and children), wall seconds, and what was printed."""

    cpu: float
    wall: float
    output: str


def cost_of(command: list[str]) -> Cost:
    """Run a command to its end. Exits with the end of its output where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = done.stdout + done.stderr
    if done.returncode:
        sys.exit(output[-3000:])
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Cost(user + system, wall, output)


def start_up(folder: Path, jobs: dict[str, int]) -> float:
    """Processor seconds that all jobs spent on imports."""
    stages = {path.parent.name for path in folder.glob("results/*/benchmarks/*/*.tsv")}
    drawn = sum(jobs.get(rule, 0) for rule in ("figure", "table", "picture", "report"))
    counts = {stage: len(list(folder.glob(f"results/*/benchmarks/{stage}/*"))) for stage in stages}
    counts |= {"figure": drawn, "cost": 1, "interpolation": 1}
    imports = {
        stage: cost_of([sys.executable, "-c", f"import {IMPORTS[stage]}"]).cpu
        for stage in counts
        if stage in IMPORTS
    }
    return sum(counts[stage] * seconds for stage, seconds in imports.items())


def largest_process(folder: Path) -> float:
    """GiB of the job that needed most memory, by Snakemake's benchmarks."""
    rows = [
        row
        for path in folder.glob("results/*/benchmarks/*/*.tsv")
        for row in csv.DictReader(path.read_text().splitlines(), delimiter="\t")
    ]
    known = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("NA", "-")]
    return max(known, default=float("nan")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="registers-"))
    folder.mkdir(parents=True, exist_ok=True)
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    snakemake += ["--directory", str(folder), "--cores", str(options.cores)]
    config = ["--config", f"scale={options.scale}"]

    whole = cost_of([*snakemake, *config])
    idle = cost_of([*snakemake, *config])
    (folder / "reports" / options.scale / "figures" / f"{FIGURE}.png").unlink()
    figure = cost_of([*snakemake, FIGURE, *config])

    table = dict(re.findall(r"^(\w+) +(\d+)$", whole.output, re.M))
    jobs = {rule: int(n) for rule, n in table.items() if rule not in ("total", "all")}
    work = 1 - (start_up(folder, jobs) + idle.cpu) / whole.cpu
    about = f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores"
    print(f"{about}, commit {code_version()}, scale {options.scale}\n")
    print("| what | measured |\n|---|---|")
    print(f"| jobs | {sum(jobs.values())} |")
    print(f"| wall time | {whole.wall / 60:.1f} min |")
    print(f"| core-seconds | {whole.cpu:.0f} |")
    print(f"| of these work, not start-up | {100 * work:.0f} % |")
    print(f"| largest process | {largest_process(folder):.2f} GiB |")
    print(f"| nothing to do | {idle.wall:.1f} s |")
    print(f"| one figure from cached numbers | {figure.wall:.1f} s |")


if __name__ == "__main__":
    main()
