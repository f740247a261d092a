"""Writes the manual of all settings and their schemas for editors, from the settings themselves.

    python -m registers.settings.document

docs/settings.md holds a table for each section. Editors with a YAML language server complete and
check params.yaml and the scales with docs/params.schema.json and docs/scale.schema.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from registers.settings.base import Section, must_be
from registers.settings.data import DataSettings, WorldSettings
from registers.settings.load import SCALES, ScaleHead
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
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ARRAY = ("type", "items", "minItems", "uniqueItems")  # what a schema says of a list

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

Your choices go in `params.yaml`; what follows from how big a run is goes in its scale,
`workflow/scales/NAME.yaml`. Any setting of the scale can be changed by its dotted name, with
`overrides: {recipes.dinov2.steps: 500}` in `params.yaml`, or for a single run with
`snakemake --cores all --config 'overrides={recipes.dinov2.steps: 500}'`. Where a list is expected,
one value stands for a list of one: `registers: 4`. A wrong value ends the run before the first
job, with one line that names the key, the value and what it must be.
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
    properties = schema["properties"]
    properties["scale"]["enum"] = _scales()
    properties["data"] = {"anyOf": [properties["data"], {"type": ["string", "null"]}]}
    root = schema["$defs"]["DataChoice"]["properties"]["root"]
    for one in (properties["mlflow_uri"], properties["overrides"], root):
        one["type"] = [one["type"], "null"]  # which means the default
    return {"$schema": DIALECT, **_with_short_forms(schema)}


def scale_schema() -> dict[str, Any]:
    """JSON schema of a scale; nothing is required, as a scale may be `like` another."""
    sections = [ScaleSettings, ScaleHead, *RECIPES.values()]
    _, whole = models_json_schema([(section, "validation") for section in sections])
    definitions = whole["$defs"]
    for definition in definitions.values():
        definition.pop("required", None)
    head = definitions.pop("ScaleHead")["properties"]
    head["like"]["anyOf"][0]["enum"] = _scales()
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
    schema |= {"title": "A scale", "properties": {**head, **properties}, "$defs": definitions}
    return {"$schema": DIALECT, **_with_short_forms(schema)}


def _scales() -> list[str]:
    return sorted(path.stem for path in SCALES.glob("*.yaml"))


def _with_short_forms(schema: Any) -> Any:
    """A copy of a schema in which one value stands for a list of one, as `base.tolerant` has it."""
    if isinstance(schema, list):
        return [_with_short_forms(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _with_short_forms(one) for name, one in schema.items()}
    if schema.get("type") == "array":
        array = {name: schema.pop(name) for name in ARRAY if name in schema}
        return {"anyOf": [array, array["items"]], **schema}
    if "anyOf" in schema:  # a list or null: three forms side by side
        forms = [one["anyOf"] if set(one) == {"anyOf"} else [one] for one in schema["anyOf"]]
        schema["anyOf"] = [one for several in forms for one in several]
    return schema


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the three files and print their paths."""
    parser = argparse.ArgumentParser(
        prog="python -m registers.settings.document",
        description="Writes docs/settings.md, docs/params.schema.json and docs/scale.schema.json "
        "from src/registers/settings. Takes no arguments.",
    )
    parser.parse_args()
    for path, text in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
