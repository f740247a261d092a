"""Running Snakemake in a folder of its own, for the tests of the whole pipeline."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = {"scale": "smoke"}


CHECKOUT = ("src", "paper", "workflow", "profiles", "Snakefile", "params.yaml")
MADE = ("results", "reports", ".snakemake/metadata")


def copy_parts(source, folder, parts, copy_function=shutil.copy2):
    """Copy files and folders of a checkout or of a run to the same places below another folder."""
    for part in parts:
        if (source / part).is_dir():
            junk = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            shutil.copytree(source / part, folder / part, ignore=junk, copy_function=copy_function)
        else:
            copy_function(source / part, folder / part)


def snakemake(folder, *flags, targets=(), settings=None, ok=True):
    """Run Snakemake in `folder`; returns what was printed.

    A folder that is a copy of the checkout brings its own Snakefile and package; any other one is
    worked on by this checkout.
    """
    own = (folder / "Snakefile").exists()
    config = {**SMOKE, **(settings or {})}
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "--cores", "2"]
    command += ["--snakefile", str((folder if own else ROOT) / "Snakefile"), *flags]
    command += ["--config", *(f"{key}={json.dumps(value)}" for key, value in config.items())]
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("REGISTERS_PARAMS", "MLFLOW_TRACKING_URI")
    }
    if own:
        environment["PYTHONPATH"] = str(folder / "src")
    status, output = _together([*command, "--", *targets], environment)
    assert (status == 0) == ok, output
    return output


def _together(command, environment, timeout=900):
    """Status and output of a command that takes its jobs along when it is ended."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as running:
        try:
            output = "".join(running.communicate(timeout=timeout))
        except BaseException:
            os.killpg(running.pid, signal.SIGTERM)
            raise
    return running.returncode, output


def planned(output):
    """Number of jobs by rule, from the table that Snakemake prints."""
    table = dict(re.findall(r"^(\w+) +(\d+)$", output, re.M))
    return {rule: int(jobs) for rule, jobs in table.items() if rule != "total"}


def planned_questions(output):
    """Questions that a dry run would ask again."""
    return set(re.findall(r"wildcards: .*question=(\w+)", output))


def run_in(folder, *command, ok=True):
    """What a command of git or of this environment's DVC prints."""
    command = [sys.executable, "-m", *command] if command[0] == "dvc" else command
    who = [f"GIT_{w}_{what}" for w in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **dict.fromkeys(who, "t@t"), "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout
