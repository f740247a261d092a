"""Settings: params.yaml and one scale file, checked before any job starts.

Every mistake is a `ConfigError` with one line that names the key, its value and what is allowed.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from registers.registry import MAIN_METHODS, METHODS
from registers.settings.data import ANNOTATED_ROLES, IMAGE_ROLES, DataSettings
from registers.settings.errors import ConfigError, nearest, show
from registers.settings.questions import DiscoverySettings
from registers.settings.recipes import RECIPES, SIZES
from registers.settings.run import Settings
from registers.settings.schema import each_of, merged, only_known, override, read_yaml, typed

SCALES = Path(__file__).resolve().parents[3] / "workflow" / "scales"


def load_settings(
    params: str | Path | dict[str, Any] = "params.yaml",
    scale: str | None = None,
    scales: Path = SCALES,
) -> Settings:
    """Settings from params (a file or its content) and the scale it names, or one clear `ConfigError`."""
    given = params if isinstance(params, dict) else read_yaml(Path(params))
    allowed = {
        "scale",
        "methods",
        "registers",
        "seeds",
        "device",
        "precision",
        "mlflow_uri",
        "data",
        "overrides",
        "stale",
    }
    only_known("", given, allowed)
    name = scale or given.get("scale", "laptop")
    known = sorted(p.stem for p in scales.glob("*.yaml"))
    if name not in known:
        raise ConfigError(
            f"scale = {show(name)}: allowed are {', '.join(known)}{nearest(name, known)}"
        )
    sizes_and_lengths = read_yaml(scales / f"{name}.yaml")
    if like := sizes_and_lengths.pop(
        "like", None
    ):  # another scale, of which this one changes some keys
        sizes_and_lengths = merged(read_yaml(scales / f"{like}.yaml"), sizes_and_lengths)
    sizes_and_lengths.pop("study", None)  # the sweep of the emergence study, see regime.py
    for key, value in (
        given.get("overrides") or {}
    ).items():  # single numbers of the scale, e.g. recipes.dinov2.steps
        override(sizes_and_lengths, key, value, name)

    root, data_name, roles = _data(given.get("data"), sizes_and_lengths.pop("data", {}))
    recipes = sizes_and_lengths.pop("recipes", {})
    counts, only = (
        given.get("registers", [0, 1, 2, 4, 8, 16]),
        sizes_and_lengths.pop("registers", None),
    )
    if only and isinstance(
        counts, (list, tuple)
    ):  # a scale may leave counts out to stay small; never all of them
        counts = [r for r in counts if r in only] or counts
    only_known("recipes", recipes, set(METHODS))
    fields = dict(
        scale=name,
        methods=given.get("methods", list(MAIN_METHODS)),
        registers=counts,
        seeds=given.get("seeds", [0]),
        device=given.get("device", "auto"),
        precision=given.get("precision", "auto"),
        mlflow_uri=given.get("mlflow_uri")
        or os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        stale=given.get("stale", "keep"),
        data_root=root,
        data=roles,
        data_name=data_name,
        recipes={m: typed(RECIPES[m], r, f"recipes.{m}") for m, r in recipes.items()},
    )
    clash = set(fields) & set(sizes_and_lengths)
    if clash:
        raise ConfigError(f"{name}.yaml: {', '.join(sorted(clash))} belongs in params.yaml")
    settings = typed(Settings, {**sizes_and_lengths, **fields}, "")
    _check(settings)
    return settings


def _data(chosen: Any, roles: dict[str, Any]) -> tuple[str, str, DataSettings]:
    """params.yaml's `data`: {root, use}; `use` replaces the scale's data sets, all with one text or single roles by name."""
    chosen = {"use": chosen} if isinstance(chosen, str) else dict(chosen or {})
    only_known("data", chosen, {"root", "use"})
    use = chosen.get("use")
    names = [f.name for f in dataclasses.fields(DataSettings)]
    if isinstance(use, str):
        use = dict.fromkeys(IMAGE_ROLES, use)
    use = use or {}
    if not isinstance(use, dict):
        raise ConfigError(
            f"data.use = {show(use)}: allowed are one data set or a mapping of {', '.join(names)}"
        )
    only_known("data.use", use, set(names))
    root = str(chosen.get("root") or "data")
    # another set of masks, depth or boxes trains nothing again: its results lie beside the others
    changed = {k: v for k, v in use.items() if k in IMAGE_ROLES and v != roles.get(k, "world")}
    place = (
        Path(str(next(iter(changed.values()), "")).partition(":")[2].removesuffix("/*.tar"))
        if changed
        else Path()
    )
    data_name = re.sub(r"[^A-Za-z0-9]+", "-", place.name).strip("-").lower() or (
        "world" if changed else ""
    )
    return root, data_name, typed(DataSettings, {**roles, **use}, "data.use")


def _check(s: Settings) -> None:
    """What the types alone cannot say."""
    each_of(s.methods, "methods", MAIN_METHODS)
    for name, values, low in (("registers", s.registers, 0), ("seeds", s.seeds, 0)):
        if not values or len(set(values)) != len(values):
            raise ConfigError(
                f"{name} = {list(values)}: allowed is a list of different numbers, at least one"
            )
        for value in values:
            if value < low:
                raise ConfigError(f"{name} = {value}: allowed are whole numbers from {low}")
    for method in s.methods:
        if method not in s.recipes:
            raise ConfigError(
                f"methods = {method}: scale {s.scale} has no recipes.{method}; allowed are {', '.join(s.recipes)}"
            )
    for name, size in s.sizes.items():
        if name not in SIZES:
            raise ConfigError(f"sizes = {name}: allowed are {', '.join(SIZES)}")
        if size.width % size.heads:
            raise ConfigError(
                f"sizes.{name}.heads = {size.heads}: allowed are divisors of width {size.width}"
            )
    for size in s.size_study:
        if size not in s.sizes:
            raise ConfigError(f"size_study = {size}: allowed are {', '.join(s.sizes)}")
    for method, recipe in s.recipes.items():
        if recipe.size not in s.sizes:
            raise ConfigError(
                f"recipes.{method}.size = {recipe.size}: allowed are {', '.join(s.sizes)}"
            )
        for key in ("image_size", f"recipes.{method}.local_size"):
            pixels = (
                s.image_size if key == "image_size" else getattr(recipe, "local_size", recipe.patch)
            )
            if pixels % recipe.patch:
                raise ConfigError(
                    f"{key} = {pixels}: allowed are multiples of recipes.{method}.patch {recipe.patch}"
                )
        if recipe.warmup > recipe.steps:
            raise ConfigError(
                f"recipes.{method}.warmup = {recipe.warmup}: allowed are at most its {recipe.steps} steps"
            )
    for fraction in s.fractions:
        if not 0 <= fraction < 1:
            raise ConfigError(f"fractions = {fraction}: allowed are numbers from 0 to below 1")
    if s.bank.sample > s.bank.images:
        raise ConfigError(
            f"bank.sample = {s.bank.sample}: allowed are at most bank.images {s.bank.images}"
        )
    each_of(s.discovery.facets, "discovery.facets", DiscoverySettings.facets)
    each_of(
        s.discovery.normalisations, "discovery.normalisations", DiscoverySettings.normalisations
    )
    shallowest = min(s.sizes[s.recipes[m].size].depth for m in s.methods)
    for layer in s.discovery.layers:
        if not -shallowest <= layer <= -1:
            raise ConfigError(
                f"discovery.layers = {layer}: allowed are -1 (the last block) to -{shallowest}"
            )
    for method in s.cutoff:
        if method not in METHODS:
            raise ConfigError(f"cutoff = {method}: allowed are {', '.join(METHODS)}")
    for role in IMAGE_ROLES:
        spec = getattr(s.data, role)
        kind, _, place = spec.partition(":")
        if kind not in ("world", "folder", "shards") or (kind == "world") == bool(place):
            raise ConfigError(
                f'data.use.{role} = "{spec}": allowed are world, folder:PATH, shards:PATTERN'
            )
    for role, kinds in ANNOTATED_ROLES.items():
        if not s.data.specs(role):
            raise ConfigError(f"data.use.{role} = []: allowed is at least one data set")
        for spec in s.data.specs(role):
            kind, _, place = spec.partition(":")
            if kind not in kinds or (kind == "world") == bool(place):
                raise ConfigError(
                    f'data.use.{role} = "{spec}": allowed are {", ".join(k if k == "world" else f"{k}:PATH" for k in kinds)}'
                )
