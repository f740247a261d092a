"""The whole pipeline at scale smoke, in a folder of its own: it runs, has nothing to do afterwards, and reruns only what changed."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from registers import artifacts
from registers.settings.load import load_settings

ROOT = Path(__file__).parents[1]
SMOKE = {"scale": "smoke"}


def snakemake(folder, *flags, targets=(), settings=None, ok=True):
    """Run Snakemake in `folder` on this checkout's Snakefile; returns what it printed."""
    chosen = {**SMOKE, **(settings or {})}
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--cores",
        "2",
    ]
    command += [
        *flags,
        "--config",
        *(f"{key}={json.dumps(value)}" for key, value in chosen.items()),
        "--",
        *targets,
    ]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("REGISTERS_PARAMS", "MLFLOW_TRACKING_URI")
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(output):
    """Jobs of a dry run by rule, from Snakemake's own table."""
    table = dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))
    return {rule: int(n) for rule, n in table.items() if rule != "total"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    snakemake(folder)
    return folder


def test_every_artifact_is_made_and_the_report_lists_exactly_them(finished):
    built = artifacts.available(load_settings(SMOKE))
    assert built
    page = (finished / "reports/paper.html").read_text()
    for artifact in built.values():
        assert all((finished / path).stat().st_size > 0 for path in artifact.outputs)
        assert f'id="{artifact.id}"' in page
    assert set(re.findall(r'id="((?:fig|table)\d+)"', page)) == set(built)


def test_the_report_is_self_contained(finished):
    page = (finished / "reports/paper.html").read_text()
    assert not re.findall(
        r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1)[^"]*\.(?:js|css|png|woff2?)"', page
    )
    assert 'src="data:image/png;base64,' in page and "<script src" not in page


def test_afterwards_there_is_nothing_to_do(finished):
    assert "Nothing to be done" in snakemake(finished, "--dry-run")


def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(finished, tmp_path):
    """SIGKILL to a job in the middle; Snakemake started again finishes it, with the weights of the uninterrupted run."""
    target = "results/smoke/checkpoints/dinov2-r0-s0/last.safetensors"
    settings = {"overrides": {"recipes.dinov2.steps": 40, "checkpoint_every": 5}}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        shutil.copytree(finished / "results/smoke/data", folder / "results/smoke/data")
    environment = {**os.environ, "REGISTERS_PARAMS": json.dumps({**SMOKE, **settings})}
    train = [sys.executable, "-m", "registers.cli", "train", "dinov2-r0-s0", "--threads", "1"]
    subprocess.run(train, cwd=whole, env=environment, check=True, capture_output=True, timeout=300)
    state = killed / "results/smoke/checkpoints/dinov2-r0-s0/unfinished/state.pt"
    job = subprocess.Popen(
        train, cwd=killed, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not state.exists() and job.poll() is None:
        time.sleep(0.02)
    job.kill()
    job.wait()
    assert state.exists() and not (killed / target).exists()
    snakemake(killed, targets=[target], settings=settings)
    assert (killed / target).read_bytes() == (whole / target).read_bytes()
    on_the_way = "results/smoke/checkpoints/dinov2-r0-s0/at000.safetensors"
    assert (killed / on_the_way).read_bytes() == (whole / on_the_way).read_bytes()


def test_a_restored_run_has_nothing_to_do(finished, tmp_path_factory):
    """As after `dvc pull`: every file has a new time stamp, and only Snakemake's records say that nothing changed."""
    restored = tmp_path_factory.mktemp(
        "restored"
    )  # as deep as `finished`, so that the way to this checkout's sources is the same
    for part in ("results", "reports", ".snakemake/metadata"):
        shutil.copytree(finished / part, restored / part, copy_function=shutil.copy)
    assert "Nothing to be done" in snakemake(restored, "--dry-run")


def test_dvc_carries_a_run_elsewhere(finished, tmp_path_factory):
    """dvc push, git clone, dvc pull: the other checkout holds the same bytes, and neither DVC nor Snakemake has anything to do."""
    here, there, remote = (tmp_path_factory.mktemp(name) for name in ("pushed", "pulled", "remote"))
    environment = {
        **os.environ,
        **{
            f"GIT_{who}_{what}": "t@t"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }

    def run(folder, *command):
        command = [sys.executable, "-m", *command] if command[0] == "dvc" else command
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for part in (
        "src/registers",
        "paper",
        "workflow",
        ".dvc",
        "Snakefile",
        "params.yaml",
        "dvc.yaml",
        ".dvcignore",
        ".gitignore",
    ):
        whole = (ROOT / part).is_dir()
        (here / part).parent.mkdir(parents=True, exist_ok=True)
        junk = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
        shutil.copytree(ROOT / part, here / part, ignore=junk) if whole else shutil.copy(
            ROOT / part, here / part
        )
    for part in ("results", "reports", ".snakemake/metadata"):
        shutil.copytree(finished / part, here / part)
    run(here, "git", "init", "-q")
    run(here, "dvc", "commit", "-q", "-f")
    run(here, "git", "add", ".")
    run(here, "git", "commit", "-q", "-m", "a run")
    weights = "results/smoke/checkpoints/dinov2-r0-s0/last.safetensors"
    assert not {weights, "reports/paper.html", "reports/metrics.json"} & set(
        run(here, "git", "ls-files").splitlines()
    )
    run(there, "git", "clone", "-q", str(here), ".")
    for folder, verb in ((here, "push"), (there, "pull")):
        run(folder, "dvc", "remote", "add", "-q", "--local", "-d", "store", str(remote))
        run(folder, "dvc", verb, "-q")
    assert run(there, "dvc", "status", "-q") == ""
    assert (there / weights).read_bytes() == (finished / weights).read_bytes() and (
        there / "reports/paper.html"
    ).exists()
    assert "Nothing to be done" in snakemake(there, "--dry-run")


def test_dvc_changes_a_setting_and_keeps_the_words_about_it(tmp_path):
    """What `dvc exp run -S scale=smoke` does to params.yaml: it writes the file anew."""
    from dvc.utils.hydra import apply_overrides

    comments = [
        line
        for line in (ROOT / "params.yaml").read_text().splitlines()
        if line.lstrip().startswith("#")
    ]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_overrides(tmp_path / "params.yaml", ["scale=smoke", "+overrides.linear.iterations=6"])
    assert [
        line
        for line in (tmp_path / "params.yaml").read_text().splitlines()
        if line.lstrip().startswith("#")
    ] == comments
    settings = load_settings(tmp_path / "params.yaml")
    assert (settings.scale, settings.linear.iterations) == ("smoke", 6)


def test_one_figure_is_drawn_alone(finished):
    (finished / "reports/figures/fig07.png").unlink()
    assert planned(snakemake(finished, "--dry-run", targets=["reports/figures/fig07.png"])) == {
        "figure": 1
    }


def test_another_length_of_dinov2_leaves_the_other_methods_alone(finished):
    output = snakemake(finished, "--dry-run", settings={"overrides": {"recipes.dinov2.steps": 7}})
    assert set(re.findall(r"wildcards: trained=(\w+)-", output)) == {"dinov2"}


def test_another_cutoff_trains_nothing_again(finished):
    jobs = planned(
        snakemake(finished, "--dry-run", settings={"overrides": {"cutoff": {"dinov2": 150.0}}})
    )
    assert "norms" in jobs and "train" not in jobs and "tokens" not in jobs


def test_every_job_was_recorded_in_mlflow(finished):
    from registers import tracking

    spools = sorted((finished / "results").glob("**/tracking/*/*.jsonl"))
    keys = [json.loads(s.read_text().splitlines()[0])["tags"]["key"] for s in spools]
    found = tracking.find_runs(f"sqlite:///{finished}/mlflow.db", keys)
    assert set(found) == set(keys) and any("/train/dinov2-r0-s0" in key for key in keys)


def test_a_dry_run_of_the_paper_builds_the_whole_graph(tmp_path):
    jobs = planned(snakemake(tmp_path, "--dry-run", settings={"scale": "paper"}))
    settings = load_settings({"scale": "paper"})
    assert jobs["train"] + jobs["train_large"] == len(artifacts.trained(settings)) >= 18 + 5
    assert jobs["figure"] + jobs["table"] == len(artifacts.load())


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"registers": [-1]}, ["registers", "-1", "allowed"]),
        ({"methods": ["dinv2"]}, ["methods", "dinv2", "allowed"]),
        ({"colour": "red"}, ["colour", "unknown key", "allowed"]),
        ({"data": {"use": "folder:nowhere"}}, ["data.use", "folder:nowhere", "no such folder"]),
        (
            {"overrides": {"zeroshot.classes": "names.json"}},
            ["zeroshot.classes", "names.json", "no such file"],
        ),
    ],
)
def test_a_wrong_setting_stops_before_any_job(tmp_path, settings, words):
    output = snakemake(tmp_path, settings=settings, ok=False)
    (line,) = [line for line in output.splitlines() if all(word in line for word in words)]
    assert line.startswith("params.yaml:") and "Traceback" not in output
    assert not (tmp_path / "results").exists()
