"""Prompts: the names of classes, and the sentences that a name is put into.

Settings `zeroshot.classes` and `zeroshot.templates`.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from registers.settings.errors import ConfigError

# Values of the two settings that name no file.
OWN = "own"  # the data set's own class names
OPENAI = "openai"  # OpenAI's templates

CLASSES = "zeroshot.classes"
TEMPLATES = "zeroshot.templates"
EXAMPLE = '"a photo of a {}."'
Template = Callable[[str], str]


@cache
def openai() -> ModuleType:
    """OpenAI's templates and class names: open_clip/zero_shot_metadata.py.

    It is read without importing open_clip, which takes seconds.
    """
    path = _file_of_package("open_clip", "zero_shot_metadata.py")
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def synset_names() -> dict[str, str]:
    """Names of WordNet ids.

    OpenAI's for ImageNet-1k, as all zero-shot results use them; the first lemma for the others of
    ImageNet-22k.
    """
    info = _file_of_package("timm", "data/_info")
    lines = (info / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = (line.split("\t") for line in lines)
    names = {synset: words.split(",")[0].strip() for synset, words in lemmas}
    imagenet_1k = (info / "imagenet_synsets.txt").read_text().split()
    return names | dict(zip(imagenet_1k, openai().IMAGENET_CLASSNAMES))


def templates(setting: str = OPENAI) -> tuple[Template, ...]:
    """Prompts with a place for a class name.

    setting: "openai" for CLIP's 80 for ImageNet, or a file with one a line, {} where the name goes.

    Raises ConfigError for a file that is missing or empty, and for a line without its {}.
    """
    if setting == OPENAI:
        return tuple(openai().OPENAI_IMAGENET_TEMPLATES)
    lines = [line.strip() for line in _text(TEMPLATES, setting).splitlines()]
    for number, line in enumerate(lines, 1):
        if line and "{}" not in line:
            message = f'line {number}, "{line}", has no {{}} for the name; must be like {EXAMPLE}'
            raise _error(TEMPLATES, setting, message)
    if not any(lines):
        message = f"no template in it; must hold lines like {EXAMPLE}"
        raise _error(TEMPLATES, setting, message)
    return tuple(partial(line.replace, "{}") for line in lines if line)


def class_names(setting: str, own: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Names of a data set's classes in the order of its labels.

    setting: "own" for the data set's own names, or a file.
    own: the data set's own names.
    folders: what the classes are called on disk, in the same order.

    A file is a text with one name a line or a JSON list, both in the order of the labels, or a JSON
    mapping of folders to names, {"n01440764": "tench"}, which may hold more than are needed.
    imagenet_class_index.json, {"0": ["n01440764", "tench"]}, is read too.

    Raises ConfigError for a file that is missing or none of these, and for too few or many names.
    """
    if setting == OWN:
        return tuple(own)
    names = _names(setting)
    if isinstance(names, dict):
        missing = [folder for folder in folders if not names.get(folder)]
        if missing:
            count = f"{len(missing)} of {len(folders)} classes"
            raise _error(CLASSES, setting, f'no name for {count}, the first: "{missing[0]}"')
        return tuple(names[folder] for folder in folders)
    if len(names) != len(folders):
        raise _error(
            CLASSES,
            setting,
            f"{len(names)} names; must be {len(folders)}, one for each class of the data set in "
            f'the order "{folders[0]}" to "{folders[-1]}"',
        )
    return tuple(names)


# --- reading a file of names ----------------------------------------------------------------------


def _names(setting: str) -> list[str] | dict[str, str]:
    """Names in order, or by folder."""
    text = _text(CLASSES, setting)
    if not setting.endswith(".json"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise _error(CLASSES, setting, f"not JSON: {error}") from None
    if _is_class_index(content):
        content = {folder: _spaced(name) for folder, name in content.values()}
    if isinstance(content, list) and _are_names(content):
        return content
    if isinstance(content, dict) and _are_names(content.values()):
        return content
    message = "must be a list of names or a mapping of class folders to names"
    raise _error(CLASSES, setting, message)


def _is_class_index(content: Any) -> bool:
    """Whether it is of the form of Keras' imagenet_class_index.json."""
    if not isinstance(content, dict) or not content:
        return False
    return all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in content.values()
    )


def _are_names(values: Any) -> bool:
    return all(isinstance(name, str) and name.strip() for name in values)


def _spaced(name: Any) -> Any:
    return name.replace("_", " ") if isinstance(name, str) else name


def _text(key: str, setting: str) -> str:
    try:
        return Path(setting).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        builtin = OWN if key == CLASSES else OPENAI
        raise _error(key, setting, f"no such file; must be {builtin} or a file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise _error(key, setting, f"cannot be read as text: {reason}") from None


def _error(key: str, setting: str, message: str) -> ConfigError:
    return ConfigError(f'{key} = "{setting}": {message}')


def _file_of_package(package: str, place: str) -> Path:
    return Path(importlib.util.find_spec(package).submodule_search_locations[0]) / place
