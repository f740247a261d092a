"""Writes the manual of all settings and their schemas for editors, from the settings themselves.

    python -m registers.settings.document

docs/settings.md holds a table for each section. Editors with a YAML language server complete and
check params.yaml and the scales with docs/params.schema.json and docs/scale.schema.json.
"""

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from registers.settings.base import Section, must_be
from registers.settings.data import DataSettings, WorldSettings
from registers.settings.load import ScaleHead
from registers.settings.params import DataChoice, Params
from registers.settings.questions import (
    BankSettings,
    DepthSettings,
    DiscoverySettings,
    LinearSettings,
    MapSettings,
    ProbeSettings,
    SegmentationSettings,
    ZeroshotSettings,
)
from registers.settings.recipes import RECIPES, SizeSettings
from registers.settings.run import ScaleSettings

DOCS = Path(__file__).resolve().parents[3] / "docs"

PARAMS: dict[str, type[Section]] = {"": Params, "data": DataChoice}
SCALE: dict[str, type[Section]] = {
    "": ScaleSettings,
    "sizes.NAME": SizeSettings,
    **{f"recipes.{method}": recipe for method, recipe in RECIPES.items()},
    "data": DataSettings,
    "world": WorldSettings,
    "bank": BankSettings,
    "probes": ProbeSettings,
    "linear": LinearSettings,
    "zeroshot": ZeroshotSettings,
    "maps": MapSettings,
    "discovery": DiscoverySettings,
    "segmentation": SegmentationSettings,
    "depth": DepthSettings,
}

HEAD = """# Settings

Written by `python -m registers.settings.document` from `src/registers/settings`; do not edit.

What you choose stands in `params.yaml`, what follows from how big a run is in its scale,
`workflow/scales/NAME.yaml`. Any setting of the scale can be changed by its dotted name:
`overrides: {recipes.dinov2.steps: 500}` in `params.yaml`, or
`snakemake --config 'overrides={recipes.dinov2.steps: 500}'` for once. A wrong value ends the run
before the first job, with one line that names the key, the value and what it must be.
"""


def documents() -> dict[Path, str]:
    """What each generated file must contain."""
    return {
        DOCS / "settings.md": manual(),
        DOCS / "params.schema.json": _json(params_schema()),
        DOCS / "scale.schema.json": _json(scale_schema()),
    }


# --- the manual


def manual() -> str:
    """docs/settings.md."""
    parts = [HEAD, "## params.yaml\n"]
    parts += [_table(section, name) for name, section in PARAMS.items()]
    parts += ["## The scale: workflow/scales/NAME.yaml\n", _table(ScaleHead, "")]
    parts += [_table(section, name) for name, section in SCALE.items()]
    return "\n".join(parts)


def _table(section: type[Section], name: str) -> str:
    """The settings of a section; `name`, its dotted name, is the title."""
    lines = [f"### {name}\n", f"{_paragraphs(section.__doc__)}\n"] if name else []
    lines += ["| name | value | default | what it is |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        if section is ScaleSettings and key in SCALE:
            continue  # a table of its own
        dotted = f"{name}.{key}" if name else key
        value = must_be(field.annotation, field.metadata)
        if issubclass(section, Params) and key == "data":
            value = "a mapping, see below"
        cells = (f"`{dotted}`", value, _default(field), field.description)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _default(field: Any) -> str:
    if field.is_required():
        return "set by the scale"
    if field.default_factory is not None:
        default = {} if field.annotation is not str else None
    else:
        default = field.default
    if default in (None, ""):
        return ""
    if isinstance(default, tuple):
        default = list(default)
    return f"`{json.dumps(default)}`" if not isinstance(default, str) else f"`{default}`"


def _paragraphs(docstring: str) -> str:
    lines = [line.strip() for line in docstring.strip().splitlines()]
    return "\n".join(lines)


# --- schemas for editors


def params_schema() -> dict[str, Any]:
    """JSON schema of params.yaml."""
    schema = Params.model_json_schema()
    schema["properties"]["data"] = {
        "anyOf": [schema["properties"]["data"], {"type": ["string", "null"]}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def scale_schema() -> dict[str, Any]:
    """JSON schema of a scale; nothing is required, as a scale may be `like` another."""
    sections = [ScaleSettings, ScaleHead, *RECIPES.values()]
    _, whole = models_json_schema([(section, "validation") for section in sections])
    definitions = whole["$defs"]
    for definition in definitions.values():
        definition.pop("required", None)
    head = definitions.pop("ScaleHead")["properties"]
    schema = definitions.pop("ScaleSettings")
    properties = schema["properties"]
    properties["recipes"] = {
        "type": "object",
        "description": properties["recipes"]["description"],
        "properties": {
            method: {"$ref": f"#/$defs/{recipe.__name__}"} for method, recipe in RECIPES.items()
        },
        "additionalProperties": False,
    }
    definitions.pop("Form", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A scale",
        "properties": {**head, **properties},
        "$defs": definitions,
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
