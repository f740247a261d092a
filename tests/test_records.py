"""Snakemake's records travel with a run, and give way only to those that came from elsewhere."""

import json
import shutil
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from registers import records
from registers.layout import Layout

SMOKE, LAPTOP = Layout(Path("results/smoke")), Layout(Path("results/laptop"))


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(file):
    """Where Snakemake keeps what it knows of a file: long names in pieces of 254 (its file.py)."""
    name = urlsafe_b64encode(file.encode()).decode()
    pieces = [name[i : i + 254] for i in range(0, len(name), 254)]
    return Path(".snakemake/metadata", *(f"@{piece}" for piece in pieces[:-1]), pieces[-1])


def write(file, **content):
    path = record(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read(file):
    return json.loads(record(file).read_text())


LONG = f"results/smoke/measurements/{'x' * 300}.csv"


def test_a_run_carries_its_own_records_and_no_others(project):
    write("results/smoke/data/eval.json", rule="data")
    write("reports/smoke/paper.html", rule="report")
    write(LONG, rule="measure")
    write("results/laptop/data/eval.json", rule="data")
    records.save(SMOKE)
    assert len(json.loads(SMOKE.records.read_text())) == 3
    shutil.rmtree(".snakemake")  # a fresh clone, after `dvc pull`
    assert records.restore(SMOKE) == 3
    assert read(LONG) == {"rule": "measure"}
    assert not record("results/laptop/data/eval.json").exists()
    assert records.restore(SMOKE) == 0


def test_newer_records_of_a_killed_run_stay(project):
    write("results/smoke/a", settings=1)
    records.save(SMOKE)
    write("results/smoke/a", settings=2)  # and SIGKILL before anything was saved
    assert records.restore(SMOKE) == 0
    assert read("results/smoke/a") == {"settings": 2}


def test_a_checkout_of_another_commit_brings_its_records(project):
    write("results/smoke/a", settings=1)
    records.save(SMOKE)
    old = SMOKE.records.read_bytes()
    write("results/smoke/a", settings=2)
    write("results/smoke/b", settings=2)
    write("results/laptop/a", settings=2)
    records.save(SMOKE)
    SMOKE.records.write_bytes(old)  # dvc checkout
    records.save(SMOKE)  # `registers ui`, before Snakemake was asked
    assert SMOKE.records.read_bytes() == old
    assert read("results/smoke/a") == {"settings": 1}
    assert not record("results/smoke/b").exists()
    assert read("results/laptop/a") == {"settings": 2}


def test_without_records_nothing_is_written(project):
    records.save(LAPTOP)
    assert not LAPTOP.records.exists()
