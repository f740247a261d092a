"""What a run prints: the time left, lists that fit a screen, the end of a failed job's log."""

import logging
from types import SimpleNamespace

import pytest

from registers import run_log
from registers.run_log import Following, Shortened, end_of, follow
from registers.settings.load import load_settings


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_settings({"scale": "smoke"})


def record(**extra):
    return logging.makeLogRecord({"msg": "", **extra})


def test_a_job_of_many_files_names_a_few():
    several = record(input=[f"file{n}" for n in range(250)], output=["a", "b"], log=[])
    assert Shortened().filter(several)
    assert several.input == [*(f"file{n}" for n in range(8)), "... and 242 more"]
    assert several.output == ["a", "b"]
    few = record(input=[f"file{n}" for n in range(9)])
    assert Shortened().filter(few) and len(few.input) == 9


def test_a_failed_job_shows_the_end_of_its_log(tmp_path):
    log = tmp_path / "train.log"
    steps = "".join(f"\rdinov2: {step}/9000" for step in range(9000))
    log.write_text("first\n" + "line\n" * 100 + f"{steps}\nregisters: ValueError: loss = nan\n")
    failed = record(shellcmd="registers train", log=[str(log)], aux={}, input=[], output=[])
    Shortened().filter(failed)
    (text,) = failed.aux.values()
    lines = text.splitlines()
    assert lines[-1].strip() == "registers: ValueError: loss = nan"
    assert lines[-2].strip() == "dinov2: 8999/9000" and "first" not in text
    assert len(lines) == 1 + run_log.TAIL
    assert "No such file" in end_of(tmp_path / "none.log")


class Job(SimpleNamespace):
    __hash__ = object.__hash__


def a_workflow(settings, **more):
    """A stand-in for Snakemake's: two questions, and a rule without a benchmark."""
    names = ("dinov2-r0-s0", "dinov2-r4-s0")
    jobs = [Job(benchmark=str(settings.layout.benchmark("norms", name))) for name in names]
    finished, running = set(), set()
    dag = SimpleNamespace(
        needrun_jobs=lambda: [*jobs, Job(benchmark=None)], finished=finished.__contains__
    )
    scheduler = SimpleNamespace(running=running)
    known = dict(dag=dag, scheduler=scheduler, cores=1, local_exec=True)
    return SimpleNamespace(**known | more), jobs, finished, running


def test_a_run_says_when_it_ends(settings, monkeypatch, caplog):
    monkeypatch.setattr(Following, "start", Following.run)
    monkeypatch.setattr(run_log, "LOOK", 0)
    monkeypatch.setattr(run_log, "SOONEST", 0)
    monkeypatch.setattr(run_log, "LINES", 1e9)
    workflow, jobs, finished, running = a_workflow(settings)
    monkeypatch.setattr(Following, "line", lambda self, done, elapsed: words(done, elapsed))

    def words(done, elapsed):
        """And the run goes on: a job ends at every look."""
        if len(done) < 2:
            finished.add(jobs[len(done)])
        return f"{len(done)} done, {len(elapsed)} at work"

    running.add(jobs[1])
    with caplog.at_level("INFO", "snakemake.logging"):
        follow(workflow, settings)
    first, *lines = caplog.messages
    assert first.startswith("registers: 2 jobs, about 8 seconds one after the other, until ")
    assert "a guess from FLOPs" in first
    assert lines[:2] == ["0 done, 1 at work", "1 done, 1 at work"]


def test_a_line_names_what_is_done_and_left(settings):
    works = [("norms", "dinov2-r0-s0"), ("norms", "dinov2-r4-s0")]
    line = Following(run_log.Clock(settings, works, 1), None, None).line({works[0]}, {})
    assert line.startswith("registers: 1 of 2 jobs done, about 4 seconds left, until ")


def test_nothing_is_said_of_a_cluster_or_of_other_jobs(settings, caplog):
    follow(a_workflow(settings, local_exec=False)[0], settings)
    workflow, *_ = a_workflow(load_settings({"scale": "laptop"}))
    with caplog.at_level("INFO", "snakemake.logging"):
        follow(workflow, settings)
    assert not caplog.messages
