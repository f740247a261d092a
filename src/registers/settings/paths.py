"""Where data sets lie, and whether what a run needs is there."""

import glob
import os
import re
from pathlib import Path

from registers.settings.data import ANNOTATED_ROLES, BUILT_IN, DOWNLOADABLE, IMAGE_ROLES
from registers.settings.errors import ConfigError
from registers.settings.run import Settings


def check_paths(settings: Settings) -> None:
    """Raises `ConfigError` if data that a run needs is not there.

    Separate from `load_settings`: a dry run of a scale needs no data.
    """
    for role in IMAGE_ROLES:
        spec = getattr(settings.data, role)
        kind, _, place = spec.partition(":")
        path = data_path(settings, place)
        if kind == "folder" and not os.path.isdir(path) and place not in DOWNLOADABLE:
            raise _missing(role, spec, path, "a folder with train/CLASS/*.jpg")
        if kind == "photos" and place and not os.path.isdir(path):
            raise _missing(role, spec, path, "a folder of photos")
        if kind == "shards" and not any_file(path):
            raise _missing(role, spec, path, "a pattern that some file matches")
    for role in ANNOTATED_ROLES:
        for spec in settings.data.specs(role):
            path = data_path(settings, spec.partition(":")[2])
            if spec not in BUILT_IN and not os.path.isdir(path):
                raise _missing(role, spec, path, "a folder in the data set's own layout")


def data_path(settings: Settings, place: str) -> Path:
    """A data set's place: absolute or below `data.root`; ~ is the home folder."""
    path = Path(place).expanduser()
    return path if path.is_absolute() else Path(settings.data_root).expanduser() / path


def any_file(pattern: Path) -> bool:
    """Whether something matches: * ? [] as in a shell, and braces taken for a *.

    WebDataset's braces ({00000..00099}, {a,b}) are expanded by the reader, which names the files.
    """
    text = str(pattern)
    while (wider := re.sub(r"\{[^{}]*\}", "*", text)) != text:
        text = wider
    return next(glob.iglob(text), None) is not None


def _missing(role: str, spec: str, path: Path, must: str) -> ConfigError:
    shown = path if len(str(path)) < 200 else f"{str(path)[:200]}..."
    return ConfigError(
        f"data.use.{role}: {spec[:200]!r} does not exist, looked for at {shown}; must be {must}"
    )
