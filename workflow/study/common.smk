# Paths and look-ups of the study's rules. The sweep is read when one of its files is asked for.
import hashlib
import os
import shutil
import sys
from functools import cache
from pathlib import Path

from registers import run_lock

RUNS = "results/emergence/runs"
LOGS = "results/emergence/logs"
PAGE = "reports/emergence"

if workflow.is_main_process and (line := run_lock.begin()):
    print(f"registers: {line}", file=sys.stderr)

# Jobs run the Python of this environment. Where numbers are tracked is no parameter of a run: it
# travels in the environment, so that another store trains nothing again and no shell reads it.
os.environ.update(
    PATH=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    ),
)
if config.get("mlflow_uri"):
    os.environ.update(MLFLOW_TRACKING_URI=str(config["mlflow_uri"]))


@cache
def sweep():
    from registers.study.sweep import read_sweep

    return read_sweep()


def run_files(names):
    return [f"{RUNS}/{name}/run.json" for name in names]


def every_run(wildcards):
    return run_files(sweep().names())


def sentences(wildcards):
    """A digest of what the page prints besides runs: a new sentence writes it anew."""
    from registers.study import sweep as module

    told = sweep().model_dump_json(include={"hypotheses", "variants"})
    for template in sorted(Path(module.__file__).parent.glob("pages/*.j2")):
        told += template.read_text()
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def headline_runs(wildcards):
    return run_files(sweep().headline_names())


def regime_of_run(wildcards):
    """All that a run depends on, so that neither a new variant nor a new setting, which others keep
    at its default, trains anything again."""
    return sweep().regime(wildcards.variant).model_dump_json(exclude_defaults=True)

# Targets also name the runs: a clone has the page and its figures, but not what they come from.
