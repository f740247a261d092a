"""YAML files and trees of settings: read, merged, overridden."""

from pathlib import Path
from typing import Any

import yaml

from registers.settings.errors import ConfigError, one_of, refusal, show, show_key

BIGGEST = 2**20  # bytes; a file of settings has a few thousand


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: plain YAML would take the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key {show_key(key.value)} appears twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > BIGGEST:
            raise ConfigError(f"{path}: a file of settings must be smaller than {BIGGEST} bytes")
        content = yaml.load(text, _Loader)  # a SafeLoader: plain values, no code
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not readable YAML: nested too deeply") from None
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates, huge numbers, no UTF-8
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: not readable YAML: {reason}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: {show(content)} must be a mapping of keys to values")
    return content


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `tree` with `changes`; mappings are merged, all else is replaced."""
    both = {
        name: merged(tree[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(tree.get(name), dict)
    }
    return tree | changes | both


def override(tree: dict[str, Any], key: Any, value: Any, scale: str) -> None:
    """Set one value of a scale by its dotted name, or several of a section by a mapping.

    What they do not name stays. Raises `ConfigError` for a section that the scale does not have.
    """
    *parents, last = str(key).split(".")
    node = tree
    for part in parents:
        if not isinstance(node.get(part), dict):
            must = one_of(part, [name for name, inner in node.items() if isinstance(inner, dict)])
            raise refusal(f"overrides.{show_key(key)}", part, f"{must}, sections of scale {scale}")
        node = node[part]
    if isinstance(value, dict) and isinstance(node.get(last), dict):
        for name, one in value.items():
            override(tree, f"{key}.{name}", one, scale)
    else:
        node[last] = value
