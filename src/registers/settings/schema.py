"""From plain YAML to dataclasses: types and ranges are checked from the annotations, every mistake is one line."""

import contextlib
import dataclasses
import types
import typing
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import yaml

from registers.settings.errors import ConfigError, nearest, show


def at_least(low: float, default: Any = dataclasses.MISSING) -> Any:
    return (
        field(metadata={"min": low})
        if default is dataclasses.MISSING
        else field(default=default, metadata={"min": low})
    )


def typed(cls: type, given: Any, key: str) -> Any:
    """An instance of dataclass `cls` from a mapping, each value checked against its annotation and range."""
    if not isinstance(given, dict):
        raise ConfigError(
            f"{key} = {show(given)}: allowed is a mapping of {', '.join(f.name for f in dataclasses.fields(cls))}"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    only_known(key, given, set(fields))
    hints = typing.get_type_hints(cls)
    values = {}
    for name, f in fields.items():
        path = f"{key}.{name}" if key else name
        if name in given:
            values[name] = value_of(hints[name], given[name], path)
            low = f.metadata.get("min")
            if low is not None and values[name] < low:
                raise ConfigError(f"{path} = {given[name]}: allowed are numbers from {low}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path} is missing")
    return cls(**values)


def value_of(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else typed(hint, value, path)
    if origin is Literal:
        if value not in args:
            raise ConfigError(
                f"{path} = {show(value)}: allowed are {', '.join(map(str, args))}{nearest(value, args)}"
            )
        return value
    if origin is tuple:
        if isinstance(value, (int, float, str)) and not isinstance(
            value, bool
        ):  # one number for a list of one
            value = [value]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} = {show(value)}: allowed is a list of {args[0].__name__}")
        return tuple(value_of(args[0], v, path) for v in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{path} = {show(value)}: allowed is a mapping")
        return {k: value_of(args[1], v, f"{path}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        return None if value is None else value_of(args[0], value, path)
    if hint in (int, float) and isinstance(
        value, str
    ):  # Snakemake hands on the numbers inside --config's lists as texts
        with contextlib.suppress(ValueError):
            return hint(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        name = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
            hint, str(hint)
        )
        raise ConfigError(f"{path} = {show(value)}: allowed is {name}")
    return value


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `tree` with `changes`; mappings are merged, all else is replaced."""
    both = {
        k: merged(tree[k], v)
        for k, v in changes.items()
        if isinstance(v, dict) and isinstance(tree.get(k), dict)
    }
    return tree | changes | both


def override(tree: dict[str, Any], key: str, value: Any, scale: str) -> None:
    """Set one number of a scale by its dotted name, or several of a section by a mapping; what they do not name stays."""
    *parents, last = str(key).split(".")
    node = tree
    for part in parents:
        if not isinstance(node.get(part), dict):
            raise ConfigError(
                f"overrides.{key}: scale {scale} has no {part}; allowed are {', '.join(map(str, node))}"
            )
        node = node[part]
    if isinstance(value, dict) and isinstance(
        node.get(last), dict
    ):  # {linear: {iterations: 6}} changes one number
        for name, one in value.items():
            override(tree, f"{key}.{name}", one, scale)
    else:
        node[last] = value


def only_known(key: str, given: Any, allowed: set[str]) -> None:
    if not isinstance(given, dict):
        raise ConfigError(
            f"{key or 'params.yaml'} = {show(given)}: allowed is a mapping of {', '.join(sorted(allowed))}"
        )
    for name, value in given.items():
        if name not in allowed:
            path = f"{key}.{name}" if key else str(name)
            raise ConfigError(
                f"{path} = {show(value)}: unknown key; allowed are {', '.join(sorted(allowed))}{nearest(name, allowed)}"
            )


def each_of(values: tuple[str, ...], key: str, allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise ConfigError(
                f"{key} = {show(value)}: allowed are {', '.join(allowed)}{nearest(value, allowed)}"
            )
    if not values or len(set(values)) != len(values):
        raise ConfigError(
            f"{key} = {list(values)}: allowed is a list of different names, at least one"
        )


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: allowed is a mapping of keys to values")
    return content
