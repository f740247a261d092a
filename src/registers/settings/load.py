"""Settings from params.yaml and the scale that it names, checked before any job starts.

Every mistake is a `ConfigError`, one line that names the key, its value and what it must be.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from registers.layout import project_folder
from registers.registry import METHODS
from registers.settings import released
from registers.settings.base import Section, Text, build
from registers.settings.data import IMAGE_ROLES, DataSettings, place_of
from registers.settings.errors import ConfigError, one_of, refusal, show_key, unknown
from registers.settings.params import Choices, Params, RegisterCounts
from registers.settings.read import merged, override, read_yaml
from registers.settings.recipes import RECIPES, Recipe
from registers.settings.run import ScaleSettings, Settings

SCALES = project_folder("workflow") / "scales"


class ScaleHead(Section):
    """What a scale may say beside its settings."""

    like: Text | None = Field(None, description="Another scale, of which this one changes values.")
    registers: RegisterCounts | None = Field(
        None, description="Keeps the run small: of params.yaml's `registers`, these are run."
    )


def load_settings(
    params: str | Path | dict[str, Any] = "params.yaml",
    scale: str | None = None,
    scales: Path = SCALES,
) -> Settings:
    """Settings of a run, or one clear `ConfigError`.

    params: a file or its content.
    scale: takes the place of the scale that params names.
    scales: folder of the scales.
    """
    content = params if isinstance(params, dict) else read_yaml(Path(params))
    choices = build(Params, content if scale is None else {**content, "scale": scale})

    # --- the scale, with single values changed
    tree = _scale(choices.scale, scales)
    changed = set()
    for key, value in choices.overrides.items():
        section = str(key).partition(".")[0]
        changed.add(section)
        if _has_defaults(section):
            tree.setdefault(section, {})
        override(tree, key, value, choices.scale)
    if choices.models is not None:
        if "models" not in tree:
            must = f"left out, as scale {choices.scale} trains its own"
            raise refusal("models", choices.models, must)
        tree["models"] = choices.models
    only = build(ScaleHead, {"registers": tree.pop("registers", None)}).registers
    for name, value in tree.items():
        if name in Choices.model_fields:
            raise refusal(f"{choices.scale}.yaml: {name}", value, "set in params.yaml instead")
        if name not in ScaleSettings.model_fields:
            error = unknown(show_key(name), ScaleSettings.model_fields)
            raise error if name in changed else ConfigError(f"{choices.scale}.yaml: {error}")

    # --- data sets and recipes, whose keys decide what they may hold
    own = build(DataSettings, tree.pop("data", {}), "data")
    data = build(DataSettings, {**own.model_dump(), **choices.data.use}, "data.use")
    tree["recipes"] = _recipes(tree.get("recipes", {}))
    if "models" in tree:
        tree["models"] = released.chosen(tree["models"])
        tree["recipes"] = released.forms(tree["models"])
    methods = tuple(name for name in choices.methods if name in tree["recipes"])
    if "models" in tree and methods:  # of published models there may be some methods only
        choices = choices.model_copy(update={"methods": methods})
    values = {
        **tree,
        **{name: getattr(choices, name) for name in Choices.model_fields},
        "registers": _restricted(choices.registers, only),
        "data": data,
        "data_root": choices.data.root,
        "data_name": _data_name(own, data),
    }
    return build(Settings, values)


def _scale(name: str, scales: Path, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a scale's file, put over that of the scale which it is `like`."""
    names = sorted(path.stem for path in scales.glob("*.yaml"))
    key = f"{before[-1]}.yaml: like" if before else "scale"
    if name not in names:
        raise refusal(key, name, one_of(name, names))
    if name in before:
        raise refusal(key, name, "a scale that is not in turn like this one")
    content = read_yaml(scales / f"{name}.yaml")
    if "like" not in content:
        return content
    like = build(ScaleHead, {"like": content.pop("like")}, f"{name}.yaml").like
    return merged(_scale(like, scales, (*before, name)), content) if like else content


def _has_defaults(section: str) -> bool:
    """Whether a scale may leave this section out, and single values of it be overridden still."""
    field = ScaleSettings.model_fields.get(section)
    return field is not None and isinstance(
        field.get_default(call_default_factory=True), (Section, dict)
    )


def _restricted(counts: tuple[int, ...], only: tuple[int, ...] | None) -> tuple[int, ...]:
    """The register counts that the scale leaves: never none."""
    kept = tuple(count for count in counts if count in only) if only else counts
    return kept or counts


def _recipes(tree: Any) -> dict[str, Recipe]:
    if not isinstance(tree, dict):
        raise refusal("recipes", tree, f"a mapping of {', '.join(METHODS)}")
    for method in tree:
        if method not in RECIPES:
            raise unknown(f"recipes.{method}", RECIPES)
    return {method: build(RECIPES[method], tree[method], f"recipes.{method}") for method in tree}


def _data_name(own: DataSettings, data: DataSettings) -> str:
    """What tells results on other images apart: the last name of the first replaced data set.

    Other masks, depth or boxes train nothing again: their results lie beside the scale's own.
    """
    changed = [spec for role in IMAGE_ROLES if (spec := getattr(data, role)) != getattr(own, role)]
    if not changed:
        return ""
    if changed[0] == "world":
        return "world"
    name = Path(place_of(changed[0]).removesuffix("/*.tar")).name
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
    if slug and name.isascii() and len(slug) <= 60:
        return slug
    # letters were lost: a few digits keep two data sets from sharing a folder
    digest = hashlib.sha256(changed[0].encode()).hexdigest()[:6]
    return f"{slug[:60]}-{digest}".strip("-")
