"""An edit of the code reruns what depends on it, on a copy of the checkout with a finished run."""

import re

import pytest
from pipeline import CHECKOUT, MADE, copy_parts, planned, planned_questions, snakemake

from registers import artifacts
from registers.digest import closure
from registers.questions import QUESTIONS

BY_OUTLIERS = {"norms", "by_position", "token_class", "neighbours", "position", "reconstruction"}


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """A copy of a finished run and of its checkout, whose code may be edited."""
    folder = tmp_path_factory.mktemp("run")
    copy_parts(finished, folder, (*CHECKOUT, *MADE))
    return folder


@pytest.fixture
def edit(run):
    """edit(file, old, new) changes a file of the package until the test has ended."""
    before = {}

    def change(name, old, new):
        file = run / "src" / "registers" / name
        text = file.read_text()
        before.setdefault(file, text)
        assert old in text
        file.write_text(text.replace(old, new, 1))

    yield change
    for file, text in before.items():
        file.write_text(text)


def drawn(output):
    return set(re.findall(r"output: reports/smoke/\w+/((?:fig|table)\d+)\.", output))


def test_the_copy_has_nothing_to_do(run):
    assert "Nothing to be done" in snakemake(run, "--dry-run")


def test_a_line_of_outliers_measures_norms_and_their_dependents_again(run, edit):
    edit("outliers.py", "MIN_RATIO = 2.0", "MIN_RATIO = 2.5")
    output = snakemake(run, "--dry-run")
    assert set(planned(output)) == {"measure", "figure", "table", "report", "all"}
    assert planned_questions(output) == BY_OUTLIERS
    dependent = {
        artifact.id
        for artifact in artifacts.load().values()
        if any(source.partition("/")[0] in BY_OUTLIERS for source in artifact.inputs.values())
    }
    assert drawn(output) == dependent


def test_a_docstring_reruns_nothing(run, edit):
    edit("outliers.py", '"""', '"""Reworded. ')
    edit("methods/dinov2.py", '"""', '"""Reworded. ')
    assert "Nothing to be done" in snakemake(run, "--dry-run")


def test_a_figures_shared_code_redraws_the_figures_that_import_it(run, edit):
    edit("figures/paint/photos.py", "\ndef ", "\nUNUSED = 0\n\n\ndef ")
    output = snakemake(run, "--dry-run")
    module = "registers.figures.paint.photos"
    importers = {a.id for a in artifacts.load().values() if module in closure([a.python])}
    assert drawn(output) == importers and "measure" not in planned(output)


def test_a_recipe_keeps_its_weights_and_says_that_they_are_stale(run, edit):
    edit("methods/deit3.py", "\n\nclass ", "\n\nUNUSED = 0\n\n\nclass ")
    assert "Nothing to be done" in snakemake(run, "--dry-run")
    output = snakemake(run, "--dry-run", settings={"stale": "retrain"})
    assert set(re.findall(r"wildcards: trained=(\w+)-", output)) == {"deit3"}


def test_a_toy_probe_needs_its_file_and_one_row(run, edit):
    """As docs/architecture.md says."""
    probe = run / "src" / "registers" / "probes" / "toy.py"
    probe.write_text(
        '"""How many images a bank holds."""\n\n'
        "from registers.measurements import Measured, Measurement\n\n\n"
        "def measure(bank, data, settings):\n"
        '    return Measured([Measurement("toy", "images", bank.name, len(bank))])\n'
    )
    row = '    "toy": Question("registers.probes.toy", "bank"),\n'
    edit("questions.py", "QUESTIONS = {\n", f"QUESTIONS = {{\n{row}")
    target = "results/smoke/measurements/toy/dinov2-r0-s0.csv"
    output = snakemake(run, targets=[target])
    probe.unlink()
    assert planned(output) == {"measure": 1}
    assert "toy,images,dinov2-r0-s0,32" in (run / target).read_text()


def test_every_question_has_one_module_that_measures():
    modules = [question.module for question in QUESTIONS.values()]
    assert len(set(modules)) == len(modules)
    assert all(module.rpartition(".")[2] == name for name, module in zip(QUESTIONS, modules))
