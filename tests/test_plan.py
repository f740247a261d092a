"""`registers plan`: the jobs are Snakemake's own, and the amounts follow from what was measured."""

import re
from collections import Counter

import pytest
from pipeline import ROOT, planned, snakemake

from registers import plan, speed
from registers.exact import flops
from registers.questions import QUESTIONS
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings

ID = BackboneId("dinov2", 4, 0)


@pytest.fixture(scope="module")
def smoke():
    return load_settings({"scale": "smoke"})


def machine_of(settings, **values):
    """A machine of 1 GFLOP/s that needs a second for an update and 1 ms for an example."""
    known = dict(
        device="cpu",
        precision="float32",
        ceiling=2e9,
        start=5.0,
        forward=1e9,
        measured={"dinov2": settings},
        trainings={"dinov2": speed.TrainingSpeed(ID, 8, 2.0, 1.0, 0.001, 1e9)},
        seconds=1.0,
    )
    return plan.Machine(**{**known, **values})


def test_the_jobs_are_those_of_a_dry_run(smoke, tmp_path):
    printed = snakemake(tmp_path, "-n")
    assert max(map(len, printed.splitlines())) < 1000  # no rule's inputs fill a screen
    counted = planned(printed)
    rules = Counter(job.rule for job in plan.jobs(smoke))
    questions = Counter(bool(job.subject) for job in plan.jobs(smoke) if job.rule in QUESTIONS)
    assert questions[True] == counted["measure"] + counted["measure_with_arrays"]
    assert questions[False] == counted["exact"]
    assert (rules["figures"], rules["tables"]) == (counted["figure"], counted["table"])
    assert rules["pictures"] == counted["picture"]
    for rule in ("world", "data", "train", "tokens", "report"):
        assert rules[rule] == counted[rule], rule
    assert (ROOT / "Snakefile").exists()


def test_every_rule_says_what_it_does(tmp_path):
    lines = snakemake(tmp_path, "--list").splitlines()
    described = dict(re.findall(r"^(\w+) \((.+)\)$", "\n".join(lines), re.M))
    assert {"all", "train", "measure", "fig07", "table2", "report", "study"} <= set(described)
    assert not [line for line in lines if re.fullmatch(r"\w+", line)]  # without a word


def test_a_training_takes_its_flops_over_the_speed_and_updates_and_examples(smoke):
    recipe = smoke.recipes["dinov2"]
    work = recipe.batch * flops.training_flops(smoke, ID) / 1e9
    seconds = machine_of(smoke).training_seconds(smoke, ID)
    assert seconds == pytest.approx(5 + recipe.steps * (work + 1.0 + recipe.batch * 0.001))


def test_loader_workers_make_examples_while_a_step_runs(smoke):
    with_workers = smoke.model_copy(update={"workers": 2})
    alone = machine_of(smoke).training_seconds(smoke, ID)
    assert machine_of(smoke).training_seconds(with_workers, ID) < alone


def test_an_earlier_benchmark_counts_instead(smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = next(job for job in plan.jobs(smoke) if job.rule == "train")
    machine = machine_of(smoke, trainings={}, measured={})
    path = smoke.layout.benchmark("train", job.subject)
    path.parent.mkdir(parents=True)
    path.write_text("s\th:m:s\tmax_rss\n9.5\t0:00:09\t882.6\n")
    assert plan.seconds_of(smoke, machine, job) == (9.5, True)


def test_the_paper_asks_for_its_data_and_more_memory_than_a_laptop_has():
    settings = load_settings({"scale": "paper"})
    sizes = plan.data_sizes(settings)
    assert sizes["folder:imagenet-22k"] == 1300
    assert all(size is not None for size in sizes.values())
    training = next(job for job in plan.jobs(settings) if job.subject == "dinov2-r0-s0")
    assert plan.memory_of(settings, training, on_gpu=False) > 100_000


@pytest.mark.parametrize("method", ["deit3", "openclip", "dinov2", "dino", "mae"])
def test_settings_are_made_smaller_until_a_step_fits(method):
    paper = load_settings({"scale": "paper"})
    id = BackboneId(method, 4, 0)
    small = speed.that_fits(paper, id, work=2e11, memory=4000)
    assert small.recipes[method].batch * flops.training_flops(small, id) < 2e11
    assert small.image_size == paper.image_size
    assert speed.that_fits(small, id, work=1e18, memory=1e9).recipes == small.recipes


def test_the_plan_of_smoke_is_one_table(smoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "_seconds_of_start", lambda: 1.0)
    text = plan.plan(smoke)
    assert "train dinov2 small" in text and "measure linear" in text
    assert "core-hours" in text and "A100-hours" in text and "Disk in GB" in text
    assert max(map(len, text.splitlines())) <= 170
