"""The study's Snakefile works alone, and nothing of the user's text reaches a shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from registers.study.sweep import read_sweep

ROOT = Path(__file__).parents[1]
SNAKEFILE = ROOT / "workflow/study/Snakefile"


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


def test_a_changed_sentence_writes_the_page_anew_and_trains_nothing(tmp_path):
    for part in ("src", "workflow", "reports/emergence"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pdf")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    (tmp_path / "reports/emergence.md").touch()
    for name in read_sweep().names():
        folder = tmp_path / "results/emergence/runs" / name
        folder.mkdir(parents=True)
        for file in ("run.json", "history.csv", "net.pt", "maps.npz"):
            (folder / file).touch()
    for figure in (tmp_path / "reports/emergence").iterdir():
        figure.touch()  # later than the runs

    def jobs(*flags: str) -> str:
        command = [sys.executable, "-m", "snakemake", "-s", "workflow/study/Snakefile", *flags]
        env = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
        done = subprocess.run(
            [*command, "--cores", "1", "study"],
            cwd=tmp_path,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    jobs("--touch")
    assert "Nothing to be done" in jobs("-n")
    changes = {
        "workflow/study/vit.yaml": ("    no change\n", "    no change at all\n"),
        "src/registers/study/pages/emergence.md.j2": (
            "# Where registers begin",
            "# Where they begin",
        ),
    }
    for name, (before, after) in changes.items():
        text = (tmp_path / name).read_text()
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after, 1))
        told = jobs("-n")
        assert "rule study_page" in told and "rule study_run" not in told
        (tmp_path / name).write_text(text)
