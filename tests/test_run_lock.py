"""A killed run leaves no lock: the same command resumes it, unless one of its processes lives."""

import subprocess
import sys
import time

import pytest
from pipeline import snakemake

from registers import run_lock

HOLD = "import sys, time; from registers import run_lock; run_lock.{how}(); print(); time.sleep(60)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as a killed Snakemake leaves it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_lock, "_held", [])
    lock = tmp_path / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/smoke/data/world-test/world.json\n")
    yield lock
    for file in run_lock._held:
        file.close()


@pytest.mark.parametrize("how", ["begin", "join"])
def test_a_lock_is_removed_once_no_process_of_its_run_lives(folder, how):
    """join: a job that outlived its Snakemake."""
    lock = folder.read_text()
    command = [sys.executable, "-c", HOLD.format(how=how)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    other.stdout.readline()
    folder.write_text(lock)  # as if Snakemake had locked it
    line = run_lock.begin()
    assert "another run" in line and f"process {other.pid}" in line and folder.exists()
    for file in run_lock._held:
        file.close()
    run_lock._held.clear()
    other.kill()
    other.wait()
    time.sleep(0.1)
    assert "was killed" in run_lock.begin() and not folder.exists()
    assert run_lock.begin() == ""


def test_snakemake_goes_on_after_a_kill_with_the_same_command(folder, tmp_path):
    target = folder.read_text().strip()
    for lines in (1, 0):
        output = snakemake(tmp_path, targets=[target])
        assert output.count("the last run here was killed") == lines
    assert (tmp_path / target).exists()


def test_a_folder_that_may_only_be_read_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_lock, "_held", [])
    (tmp_path / ".snakemake").write_text("not a folder")
    assert run_lock.begin() == ""
    run_lock.join()
