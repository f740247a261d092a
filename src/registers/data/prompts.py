"""Words for classes: their names, and the prompts that a name is put into (settings `zeroshot.classes` and `zeroshot.templates`)."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from registers.settings.errors import ConfigError

OWN, OPENAI = "own", "openai"  # what the settings say where they name no file
Template = Callable[[str], str]


@cache
def openai() -> ModuleType:
    """open_clip/zero_shot_metadata.py (OpenAI's templates and class names), read without importing open_clip: that takes seconds."""
    spec = importlib.util.spec_from_file_location(
        "zero_shot_metadata", _of_package("open_clip", "zero_shot_metadata.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def synset_names() -> dict[str, str]:
    """Names of WordNet ids: OpenAI's for ImageNet-1k, as all zero-shot results use them; the first lemma for the others of ImageNet-22k."""
    info = _of_package("timm", "data/_info")
    lemmas = (
        line.split("\t")
        for line in (info / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    )
    names = {synset: words.split(",")[0].strip() for synset, words in lemmas}
    return names | dict(
        zip((info / "imagenet_synsets.txt").read_text().split(), openai().IMAGENET_CLASSNAMES)
    )


def templates(given: str = OPENAI) -> tuple[Template, ...]:
    """Prompts with a place for a class name: CLIP's 80 for ImageNet, or a file's lines, each with {} where the name goes.

    Raises ConfigError for a file that is missing or empty, and for a line without its {}.
    """
    if given == OPENAI:
        return tuple(openai().OPENAI_IMAGENET_TEMPLATES)
    key, lines = f'zeroshot.templates = "{given}"', {}
    for number, line in enumerate(_text(given, "zeroshot.templates").splitlines(), 1):
        if line.strip():
            lines[number] = line.strip()
            if "{}" not in line:
                raise ConfigError(
                    f'{key}: line {number}, "{line.strip()}", has no {{}} for the name; allowed is "a photo of a {{}}."'
                )
    if not lines:
        raise ConfigError(
            f'{key}: no template in it; allowed are lines such as "a photo of a {{}}."'
        )
    return tuple(partial(line.replace, "{}") for line in lines.values())


def class_names(given: str, own: Sequence[str], folders: Sequence[str]) -> tuple[str, ...]:
    """Names of a data set's classes in the order of its labels: its own, or those of a file.

    folders: what the classes are called on disk, in the same order. A file is a text with one name a line or a JSON list, both in that
    order, or a JSON mapping of folders to names, {"n01440764": "tench"} (more than are needed is fine); imagenet_class_index.json, {"0":
    ["n01440764", "tench"]}, is read too. Raises ConfigError for a file that is missing or none of these, and for names that do not suffice.
    """
    if given == OWN:
        return tuple(own)
    key, names = f'zeroshot.classes = "{given}"', _names(given)
    if isinstance(names, dict):
        missing = [folder for folder in folders if not names.get(folder)]
        if missing:
            raise ConfigError(
                f'{key}: no name for {len(missing)} of {len(folders)} classes, the first: "{missing[0]}"'
            )
        return tuple(names[folder] for folder in folders)
    if len(names) != len(folders):
        order = f'in the order of its classes, "{folders[0]}" to "{folders[-1]}"'
        raise ConfigError(
            f"{key}: {len(names)} names; the data set has {len(folders)} classes, allowed is one name for each, {order}"
        )
    return tuple(names)


def digest(given: str) -> str:
    """The setting itself, or a hash of its file's content: what depends on the words is made anew when either changes."""
    path = Path(given).expanduser()
    return (
        hashlib.sha256(path.read_bytes()).hexdigest()
        if given not in (OWN, OPENAI) and path.is_file()
        else given
    )


def _names(given: str) -> list[str] | dict[str, str]:
    text = _text(given, "zeroshot.classes")
    if not given.endswith(".json"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f'zeroshot.classes = "{given}": not JSON: {error}') from None
    if (
        isinstance(found, dict)
        and found
        and all(isinstance(pair, list) and len(pair) == 2 for pair in found.values())
    ):
        found = {
            folder: name.replace("_", " ") if isinstance(name, str) else name
            for folder, name in found.values()
        }
    names = found.values() if isinstance(found, dict) else found
    if not isinstance(found, (dict, list)) or not all(
        isinstance(name, str) and name.strip() for name in names
    ):
        raise ConfigError(
            f'zeroshot.classes = "{given}": allowed is a list of names or a mapping of class folders to names'
        )
    return found


def _text(given: str, key: str) -> str:
    try:
        return Path(given).expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        builtin = OWN if key.endswith("classes") else OPENAI
        raise ConfigError(
            f'{key} = "{given}": no such file; allowed are {builtin} or a file'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'{key} = "{given}": cannot be read as text: {" ".join(str(error).split())}'
        ) from None


def _of_package(name: str, place: str) -> Path:
    return Path(importlib.util.find_spec(name).submodule_search_locations[0]) / place
