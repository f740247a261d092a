"""artifacts.yaml, the modules and the rules agree; families name what the figures need."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

from registers import artifacts
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings

SETTINGS = load_settings({"scale": "laptop"})
BUILT = artifacts.load()
PACKAGE = Path(__file__).parents[1] / "src" / "registers"


def test_every_module_is_declared_and_every_declared_module_exists():
    shared = {"__init__", "selection", "local_measures", "cells", "changes", "typeset"}
    shared |= {"training_curves"}  # beside the paper's
    files = [file for kind in ("figures", "tables") for file in (PACKAGE / kind).glob("*.py")]
    assert {file.stem for file in files} - shared == {a.module for a in BUILT.values()}


@pytest.mark.parametrize("artifact", BUILT.values(), ids=BUILT)
def test_declared_inputs_are_the_arguments(artifact):
    """An input without a parameter, or a parameter without an input, is a mistake at once."""
    module = import_module(f"registers.{artifact.kind}.{artifact.module}")
    assert artifact.module.startswith(artifact.id)
    for function in ["table", "caption"] + (["draw"] if artifact.kind == "figures" else []):
        parameters = inspect.signature(getattr(module, function)).parameters
        assert set(parameters) == set(artifact.inputs), function


@pytest.mark.parametrize("artifact", BUILT.values(), ids=BUILT)
def test_inputs_resolve_to_files(artifact):
    for files in artifacts.inputs(SETTINGS, artifact).values():
        assert files and len(set(files)) == len(files)


def test_an_entry_that_lacks_something_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "artifacts.yaml").write_text("- {id: fig01, module: fig01}")
    monkeypatch.setattr(artifacts, "PAPER", tmp_path)
    with pytest.raises(ConfigError, match=r"paper/artifacts.yaml: .*title"):
        artifacts.load.__wrapped__()


def test_families():
    main = artifacts.family(SETTINGS, "main")
    assert len(main) == 3 * 6 and set(artifacts.family(SETTINGS, "ends")) <= set(main)
    assert {b.registers for b in artifacts.family(SETTINGS, "ends")} == {0, 4}
    assert [b.registers for b in artifacts.family(SETTINGS, "ablation")] == [0, 1, 2, 4, 8, 16]
    assert len(artifacts.family(SETTINGS, "sizes")) == len(SETTINGS.size_study)
    assert str(artifacts.family(SETTINGS, "steps")[0]) == "dinov2-r0-s0-at000"
    several = load_settings({"scale": "laptop", "seeds": [0, 1, 2]})
    assert len(artifacts.family(several, "one")) == 2 * 3  # Table 4 is a mean over seeds
    assert [id.seed for id in artifacts.family(several, "mae")] == [0, 1, 2]
    assert [id.seed for id in artifacts.family(several, "dino")] == [0]
    sizes = list(map(str, artifacts.family(SETTINGS, "sizes")))
    assert "dinov2-r0-s0" in sizes  # the default size is not trained twice


def test_each_backbone_is_trained_once():
    trained = artifacts.trained(SETTINGS)
    assert len(trained) == len(set(trained)) >= 18 + 5


def test_fewer_methods_leave_out_what_they_cannot_make():
    settings = load_settings({"scale": "laptop", "methods": ["dinov2"]})
    methods = {id.method for id in artifacts.trained(settings)}
    assert methods == {"dinov2", "dino", "mae"}  # the last two are the paper's comparisons
    assert not artifacts.family(settings, "clip")
