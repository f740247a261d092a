"""The study's Snakefile works alone, and nothing of the user's text reaches a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registers.study.sweep import read_sweep

SNAKEFILE = Path(__file__).parents[1] / "workflow/study/Snakefile"


def plan(folder: Path, target: str, *config: str) -> str:
    """What Snakemake would run for a target, with its shell commands."""
    command = [sys.executable, "-m", "snakemake", "-s", str(SNAKEFILE), "--directory", str(folder)]
    command += ["-n", "-p", "--cores", "1", target, "--config", "plain=1", *config]
    env = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("study")
    return plan(folder, "study_headline", "mlflow_uri=sqlite:///$(touch pwned) and more.db")


def test_the_headline_needs_its_own_runs_only(planned):
    names = read_sweep().headline_names()
    assert planned.count("python -m registers.study run ") == len(names)
    assert all(f"registers.study run {name} " in planned for name in names)
    assert "registers.study headline" in planned
    assert "registers.study summary" not in planned


def test_the_store_of_numbers_is_no_part_of_a_command(planned):
    assert "pwned" not in planned
    assert "sqlite" not in planned
