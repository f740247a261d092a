"""The manual of the settings and the schemas for editors say what the settings are."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from registers.settings import document
from registers.settings.errors import ConfigError
from registers.settings.load import SCALES, load_settings

ROOT = Path(__file__).parents[1]


def test_manual_and_schemas_are_up_to_date():
    for path, text in document.documents().items():
        assert path.read_text(encoding="utf-8") == text, "python -m registers.settings.document"


def test_every_setting_is_described():
    for section in [*document.PARAMS.values(), *document.SCALE.values()]:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(SCALES.glob("*.yaml"))], ids=str)
def test_what_is_shipped_fits_the_schemas_of_editors(path):
    content = yaml.safe_load(path.read_text())
    name = "params" if path.stem == "params" else "scale"
    schema = json.loads((ROOT / "docs" / f"{name}.schema.json").read_text())
    jsonschema.validate(content, schema)
    head = path.read_text().splitlines()[0]
    assert head.startswith("# yaml-language-server: $schema=")
    assert (path.parent / head.partition("=")[2]).resolve() == ROOT / "docs" / f"{name}.schema.json"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "nosuch": 1}, schema)


ACCEPTED = [
    "scale: released\nmodels: all",
    "scale: released\nmodels: [dinov2-giant-r0-s0, dinov2-giant-r4-s0]",
    "models: null",
    "registers: 4",
    "methods: dinov2",
    "seeds: 1",
    "data: folder:photos",
    "data: null",
    "data: {root: null, use: null}",
    "data: {use: {discovery: 'voc2007:x'}}",
    "data: {use: {discovery: ['voc2007:x', 'coco20k:y']}}",
    "overrides: null",
    "mlflow_uri: null",
]
REFUSED = [
    "scale: nosuch",
    "scale: [smoke]",
    "registers: [4, 4]",
    "registers: []",
    "registers: -1",
    "registers: null",
    "methods: [dinov2, dinov2]",
    "methods: dino",
    "seeds: [0, 0]",
    "models: 4",
    "data: {use: {discovery: ['voc2007:x', 'voc2007:x']}}",
    "overrides: 4",
]


@pytest.mark.parametrize(
    ("text", "accepted"), [*((t, True) for t in ACCEPTED), *((t, False) for t in REFUSED)]
)
def test_editors_and_a_run_take_the_same_params(text, accepted):
    content = yaml.safe_load(text)
    schema = json.loads((ROOT / "docs/params.schema.json").read_text())
    assert jsonschema.Draft202012Validator(schema).is_valid(content) == accepted
    try:
        load_settings(content)
    except ConfigError:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("like: laptop\nmodels: all\nregisters: 4", True),
        ("like: nosuch", False),
        ("registers: [4, 4]", False),
    ],
)
def test_a_scale_may_use_short_forms_too(text, accepted):
    schema = json.loads((ROOT / "docs/scale.schema.json").read_text())
    assert jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(text)) == accepted


def test_help_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(document, "DOCS", tmp_path / "docs")
    monkeypatch.setattr("sys.argv", ["document", "--help"])
    with pytest.raises(SystemExit):
        document.main()
    assert "docs/settings.md" in capsys.readouterr().out and not (tmp_path / "docs").exists()
