"""One stage of dvc.yaml, `python -m registers.stage checkpoints`: Snakemake makes what is due.

DVC writes what it finds afterwards into its lock. So that a lock is true, and a run that failed is
no mixture of settings, a stage

- deletes first what Snakemake would make again: what is left after a failure follows from the
  settings at hand, and `dvc checkout` brings back the rest;
- trains weights anew whose code has changed, which `snakemake` alone keeps unless it is asked to;
- moves what is of backbones that these settings do not train to results/<run>/aside, and fetches
  from there what is of those that they do.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

from registers import artifacts, records
from registers.layout import Layout
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings
from registers.settings.run import Settings

RULES = {  # of each stage, the rules that Snakemake stops at; none: the whole paper
    "data": ("world", "data"),
    "checkpoints": ("train", "train_large"),
    "measurements": ("measure", "measure_with_arrays", "exact"),
    "reports": (),
}


def run(name: str, settings: Settings) -> None:
    """Make what a stage is due. Raises CalledProcessError where Snakemake fails."""
    move_aside(settings)
    for path in due(settings.layout):
        for file in (path, path.with_name(f"{path.name}.sha256")):
            file.unlink(missing_ok=True)
    rules = RULES[name]
    if name == "checkpoints" and settings.models:
        rules = ("fetch", "add_registers")  # published weights, in the place of trainings
    until = ["--until", *rules] if rules else []
    _snakemake(*until)
    records.save(settings.layout)


def is_temporary(folder: Path) -> bool:
    """Whether DVC made a folder for one experiment (`exp run --temp`), to delete it afterwards.

    A store of MLflow's is not worth making there: the spools come back with the experiment.
    """
    return ".dvc/tmp/exps/" in f"{folder.as_posix()}/"


def due(layout: Layout) -> list[Path]:
    """The files of a run that are there, and that Snakemake would make again.

    `--summary` names every file of the graph, with what is planned for it.
    """
    table = _snakemake("--summary", quiet=True)
    lines = table[table.index("output_file\t") :].splitlines()
    rows = csv.DictReader(lines, delimiter="\t")
    files = [Path(row["output_file"]) for row in rows if row["plan"] != "no update"]
    folders = (layout.results, layout.reports)
    return [file for file in files if file.is_file() and any(f in file.parents for f in folders)]


def move_aside(settings: Settings) -> None:
    """Keep in place what is of the backbones of these settings, and lose none of the others."""
    layout = settings.layout
    wanted = {str(id) for id in artifacts.trained(settings)}
    for path in _of_backbones(layout.results):
        if str(_backbone(path).trained) not in wanted:
            _move(path, layout.aside / path.relative_to(layout.results))
    for path in _of_backbones(layout.aside):
        if str(_backbone(path).trained) in wanted:
            _move(path, layout.results / path.relative_to(layout.aside))


def _of_backbones(folder: Path) -> list[Path]:
    """What is named after a backbone: folders of checkpoints, files of rows and of arrays."""
    patterns = ("checkpoints/*", "measurements/*/*", "arrays/*/*")
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return [path for path in paths if _backbone(path)]


def _backbone(path: Path) -> BackboneId | None:
    try:
        return BackboneId.parse(path.name.partition(".")[0])
    except ConfigError:
        return None


def _move(path: Path, target: Path) -> None:
    print(f"registers: {path} moves to {target}", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        path.rename(target)


def _snakemake(*flags: str, quiet: bool = False) -> str:
    """Run Snakemake of this environment over the project at hand; returns what it printed."""
    cores = os.environ.get("CORES", "all")
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--config", "stale=retrain"]
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run([*command, *flags], check=True, stdout=pipe, text=True)
    return done.stdout or ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m registers.stage", description=__doc__)
    parser.add_argument("stage", choices=RULES)
    name = parser.parse_args().stage
    try:
        run(name, load_settings(Path("params.yaml")))
    except ConfigError as error:
        sys.exit(f"registers: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
