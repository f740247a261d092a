"""Where data sets lie, and whether what a run needs is there."""

from pathlib import Path

from registers.settings.data import ANNOTATED_ROLES, DOWNLOADABLE, IMAGE_ROLES
from registers.settings.errors import ConfigError
from registers.settings.run import Settings


def check_paths(s: Settings) -> None:
    """Data that a run needs must be there. Separate from `load`: a dry run of a scale needs no data."""
    for role in IMAGE_ROLES:
        kind, _, place = getattr(s.data, role).partition(":")
        path = data_path(s, place)
        if kind == "folder" and not path.is_dir() and place not in DOWNLOADABLE:
            raise ConfigError(
                f'data.use.{role} = "folder:{place}": no such folder ({path}); allowed is a folder with train/CLASS/*'
            )
        if kind == "shards" and not list(path.parent.glob(path.name)):
            raise ConfigError(f'data.use.{role} = "shards:{place}": no file matches ({path})')
    for role in ANNOTATED_ROLES:
        for spec in s.data.specs(role):
            path = data_path(s, spec.partition(":")[2])
            if spec != "world" and not path.is_dir():
                raise ConfigError(
                    f'data.use.{role} = "{spec}": no such folder ({path}); allowed is a folder in the set\'s own layout'
                )


def data_path(s: Settings, place: str) -> Path:
    """A data set's place: absolute or below `data.root`; ~ is the home folder."""
    path = Path(place).expanduser()
    return path if path.is_absolute() else Path(s.data_root).expanduser() / path
