"""The whole pipeline at scale smoke: it runs, is then finished, and reruns only what changed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from pipeline import (
    CHECKOUT,
    MADE,
    ROOT,
    SMOKE,
    copy_parts,
    planned,
    planned_questions,
    run_in,
    snakemake,
)

from registers import artifacts
from registers.settings.load import load_settings

LAYOUT = load_settings(SMOKE).layout
PAGE = str(LAYOUT.page)
WEIGHTS = "results/smoke/checkpoints/dinov2-r0-s0/last.safetensors"


# --- a finished run -------------------------------------------------------------------------------


def test_every_artifact_is_made_and_the_report_lists_exactly_them(finished):
    built = artifacts.available(load_settings(SMOKE))
    assert built
    page = (finished / PAGE).read_text()
    for artifact in built.values():
        assert all((finished / path).stat().st_size > 0 for path in artifact.outputs(LAYOUT))
        assert f'id="{artifact.id}"' in page
    assert set(re.findall(r'id="((?:fig|table)\d+)"', page)) == set(built)


def test_the_report_is_self_contained(finished):
    page = (finished / PAGE).read_text()
    elsewhere = r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)[^"]*\.(?:js|css|png|woff2?)"'
    assert not re.findall(elsewhere, page)
    assert 'src="data:image/webp;base64,' in page and "<script src" not in page


def test_afterwards_there_is_nothing_to_do(finished):
    assert "Nothing to be done" in snakemake(finished, "--dry-run")


def test_snakemakes_own_report_is_built(finished, tmp_path):
    snakemake(finished, "--report", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    built = artifacts.available(load_settings(SMOKE)).values()
    assert page.count("The paper shows") == len(built)  # a caption each
    for artifact in built:
        shown = LAYOUT.drawing(
            artifact.kind, artifact.id, "png" if artifact.kind == "figures" else "csv"
        )
        assert f'"{shown}": {{"name"' in page
    assert all(f'"{category}"' in page for category in ("Figures", "Tables", "Claims"))


def test_every_job_was_recorded_in_mlflow(finished):
    from registers import tracking

    spools = sorted((finished / "results").glob("**/tracking/*/*.jsonl"))
    starts = [json.loads(spool.read_text().splitlines()[0]) for spool in spools]
    keys = [start["tags"]["key"] for start in starts]
    runs = tracking.find_runs(f"sqlite:///{finished}/mlflow.db", keys)
    assert set(runs) == set(keys)
    assert any("/train/dinov2-r0-s0" in key for key in keys)


# --- killed, restored, carried elsewhere ----------------------------------------------------------


def test_a_killed_training_resumes_and_ends_as_if_nothing_had_happened(finished, tmp_path):
    """SIGKILL in the middle; Snakemake, run again, ends with the uninterrupted run's weights."""
    settings = {"overrides": {"recipes.dinov2.steps": 40, "checkpoint_every": 5}}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        copy_parts(finished, folder, ["results/smoke/data"])
    environment = {**os.environ, "REGISTERS_PARAMS": json.dumps({**SMOKE, **settings})}
    train = [sys.executable, "-m", "registers.cli", "train", "dinov2-r0-s0", "--threads", "1"]
    subprocess.run(train, cwd=whole, env=environment, check=True, capture_output=True, timeout=300)
    state = killed / "results/smoke/checkpoints/dinov2-r0-s0/unfinished/state.pt"
    silent = subprocess.DEVNULL
    job = subprocess.Popen(train, cwd=killed, env=environment, stdout=silent, stderr=silent)
    while not state.exists() and job.poll() is None:
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert state.exists() and not (killed / WEIGHTS).exists()
    snakemake(killed, targets=[WEIGHTS], settings=settings)
    on_the_way = WEIGHTS.replace("last", "at000")
    for file in (WEIGHTS, on_the_way):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()


def test_a_restored_run_has_nothing_to_do(finished, tmp_path_factory):
    """As after `dvc pull`: time stamps are new, and only Snakemake's records say what changed."""
    restored = tmp_path_factory.mktemp("restored")
    copy_parts(finished, restored, (*CHECKOUT, *MADE), copy_function=shutil.copy)
    assert "Nothing to be done" in snakemake(restored, "--dry-run")


def test_dvc_carries_a_run_elsewhere(finished, tmp_path_factory):
    """dvc push, git clone, dvc pull: the same bytes, and nothing to do for DVC and Snakemake."""
    here, there, remote = (tmp_path_factory.mktemp(name) for name in ("pushed", "pulled", "remote"))
    copy_parts(finished, here, (*CHECKOUT, *MADE))
    copy_parts(ROOT, here, (".dvc", "dvc.yaml", ".dvcignore", ".gitignore"))
    params = here / "params.yaml"
    params.write_text(params.read_text().replace("scale: laptop", "scale: smoke"))
    run_in(here, "git", "init", "-q")
    run_in(here, "dvc", "commit", "-q", "-f")
    run_in(here, "git", "add", ".")
    run_in(here, "git", "commit", "-q", "-m", "a run")
    tracked_by_git = set(run_in(here, "git", "ls-files").splitlines())
    assert not {WEIGHTS, PAGE, "reports/smoke/metrics/linear.json"} & tracked_by_git
    run_in(there, "git", "clone", "-q", str(here), ".")
    for folder, verb in ((here, "push"), (there, "pull")):
        run_in(folder, "dvc", "remote", "add", "-q", "--local", "-d", "store", str(remote))
        run_in(folder, "dvc", verb, "-q")
    assert run_in(there, "dvc", "status", "-q") == ""
    assert (there / WEIGHTS).read_bytes() == (finished / WEIGHTS).read_bytes()
    assert (there / PAGE).exists()
    spools = [sorted(f.relative_to(run) for f in run.rglob("*.jsonl")) for run in (here, there)]
    assert spools[0] == spools[1] and not list(there.rglob("*.delivered"))
    assert not list(there.glob("results/smoke/banks")) + list(there.glob("results/smoke/logs"))
    assert "Nothing to be done" in snakemake(there, "--dry-run")


def test_dvc_changes_a_setting_and_keeps_the_words_about_it(tmp_path):
    """What `dvc exp run -S scale=smoke` does to params.yaml: it writes the file anew."""
    from dvc.utils.hydra import apply_overrides

    def comments(file):
        return [line for line in file.read_text().splitlines() if line.lstrip().startswith("#")]

    shutil.copy(ROOT / "params.yaml", tmp_path)
    params = tmp_path / "params.yaml"
    apply_overrides(params, ["scale=smoke", "+overrides.linear.iterations=6"])
    assert comments(params) == comments(ROOT / "params.yaml")
    settings = load_settings(params)
    assert (settings.scale, settings.linear.iterations) == ("smoke", 6)


# --- what a change reruns -------------------------------------------------------------------------


def test_one_figure_is_drawn_alone(finished):
    (finished / "reports/smoke/figures/fig07.png").unlink()
    output = snakemake(finished, "--dry-run", targets=["fig07"])
    assert planned(output) == {"figure": 1, "fig07": 1}
    output = snakemake(finished, targets=["fig07"])
    assert re.search(r"registers: 1 job, about \d+ seconds .*, until [\d: -]+ \(as they", output)


def test_another_length_of_dinov2_leaves_the_other_methods_alone(finished):
    settings = {"overrides": {"recipes.dinov2.steps": 7}}
    output = snakemake(finished, "--dry-run", settings=settings)
    assert set(re.findall(r"wildcards: trained=(\w+)-", output)) == {"dinov2"}


def test_another_cutoff_trains_nothing_again(finished):
    settings = {"overrides": {"cutoff": {"dinov2": 150.0}}}
    output = snakemake(finished, "--dry-run", settings=settings)
    jobs = planned(output)
    assert "norms" in planned_questions(output)
    assert "train" not in jobs and "tokens" not in jobs


@pytest.mark.parametrize("scale, seeds", [("paper", [0]), ("evening", [0, 1, 2, 3, 4])])
def test_a_dry_run_of_a_large_scale_builds_the_whole_graph(tmp_path, scale, seeds):
    choices = {"scale": scale, "seeds": seeds}
    jobs = planned(snakemake(tmp_path, "--dry-run", settings=choices))
    settings = load_settings(choices)
    trainings = jobs["train"] + jobs["train_large"]
    assert trainings == len(artifacts.trained(settings)) >= 18 * len(seeds) + 5
    assert jobs["figure"] + jobs["table"] == len(artifacts.load())


def test_the_first_look_on_a_gpu_trains_each_method_without_and_with_registers(tmp_path):
    choices = {"scale": "half-hour", "registers": [0, 4]}
    jobs = planned(snakemake(tmp_path, "--dry-run", settings=choices, targets=["fig04", "fig07"]))
    assert jobs["train"] == 6 and jobs["download"] == 1 and jobs["figure"] == 2
    assert jobs["tokens"] == jobs["measure"] == 6 + len(load_settings(choices).fractions)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"registers": [-1]}, ["registers", "-1", "must be"]),
        ({"methods": ["dinv2"]}, ["methods", "dinv2", "must be"]),
        ({"colour": "red"}, ["colour", "unknown"]),
        ({"data": {"use": "folder:nowhere"}}, ["data.use", "folder:nowhere", "must be"]),
        (
            {"overrides": {"zeroshot.classes": "names.json"}},
            ["zeroshot.classes", "names.json", "no such file"],
        ),
    ],
)
def test_a_wrong_setting_stops_before_any_job(tmp_path, settings, words):
    output = snakemake(tmp_path, settings=settings, ok=False)
    (line,) = [line for line in output.splitlines() if all(word in line for word in words)]
    assert line.startswith("registers: ") and "Traceback" not in output
    assert not (tmp_path / "results").exists()
