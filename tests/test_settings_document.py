"""The manual of the settings and the schemas for editors say what the settings are."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from registers.settings import document
from registers.settings.load import SCALES

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
