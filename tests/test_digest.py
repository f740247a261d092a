"""Code is an input: what changes a digest, what does not, and who depends on whom."""

import shutil
from pathlib import Path

import pytest

from registers import digest as digests
from registers.questions import QUESTIONS
from registers.registry import METHODS

PACKAGE = Path(digests.__file__).parent


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package that may be edited; digests are taken of it."""
    package = tmp_path / "registers"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "PACKAGE", package)
    forget()
    yield package
    forget()


def forget():
    digests.imports.cache_clear()
    digests._code.cache_clear()


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    forget()


def of_questions():
    return {name: digests.digest(question.module) for name, question in QUESTIONS.items()}


def test_every_question_depends_on_its_module_and_on_what_that_imports():
    for question in QUESTIONS.values():
        assert question.module in digests.closure([question.module])
    norms = digests.closure(["registers.probes.norms"])
    assert {"registers.outliers", "registers.bank", "registers.measurements"} <= norms


def test_a_line_of_outliers_changes_norms_and_what_tells_tokens_apart_and_nothing_else(copy):
    before = of_questions()
    edit(copy / "outliers.py", "MIN_RATIO = 2.0", "MIN_RATIO = 2.5")
    after = of_questions()
    changed = {name for name in QUESTIONS if before[name] != after[name]}
    assert changed == {
        "norms",
        "by_position",
        "token_class",
        "neighbours",
        "position",
        "reconstruction",
    }


def test_docstrings_comments_and_layout_change_nothing(copy):
    before = of_questions()
    file = copy / "outliers.py"
    text = file.read_text()
    file.write_text('"""Another promise."""\n# a comment\n\n' + text[text.index('"""', 3) + 3 :])
    edit(file, "def find_cutoff", "\n\n# what follows is the heart\ndef find_cutoff")
    assert of_questions() == before


def test_settings_are_no_code_of_a_question(copy):
    """Their values are parameters of the rules; how YAML is read changes no number."""
    before = of_questions()
    file = copy / "settings" / "run.py"
    file.write_text(file.read_text() + "\nUNUSED = 1\n")
    forget()
    assert of_questions() == before


def test_a_late_import_counts(copy):
    (copy / "late.py").write_text("def f():\n    from registers.outliers import find_cutoff\n")
    assert "registers.outliers" in digests.closure(["registers.late"])


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"registers\.nowhere"):
        digests.digest("registers.nowhere")


def test_a_colour_makes_no_weights_stale_but_a_loss_does(copy):
    recipe = "registers.methods.dinov2"
    before = digests.training_digest(recipe)
    edit(copy / "registry.py", "#0072B2", "#0072B3")
    assert digests.training_digest(recipe) == before
    file = copy / "losses.py"
    file.write_text(file.read_text() + "\nUNUSED = 1\n")
    forget()
    assert digests.training_digest(recipe) != before


def test_another_cutoff_makes_no_weights_stale():
    """Who tries MIN_RATIO at scale paper measures again, and trains nothing again."""
    for method in METHODS.values():
        recipe = method.factory.partition(":")[0]
        trained = digests.closure([recipe, "registers.train"])
        assert "registers.outliers" not in trained and "registers.norm_statistics" in trained
