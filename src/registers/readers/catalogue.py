"""Which data set plays which role: from a setting's text ("world", "folder:PATH", "shards:PATTERN") to a Dataset."""

import hashlib
import json
from functools import partial
from pathlib import Path

from registers.data import prompts
from registers.data.sample import Dataset
from registers.files import write_text
from registers.layout import Layout
from registers.readers import image_folder, splits
from registers.readers.evaluation_set import EvaluationSet
from registers.readers.image_folder import ImageFolder
from registers.readers.shards import Shards
from registers.settings.data import ANNOTATED_ROLES, IMAGE_ROLES
from registers.settings.errors import ConfigError
from registers.settings.paths import data_path
from registers.settings.run import Settings
from registers.world import dataset
from registers.world.dataset import World
from registers.world.plan import KINDS, SPLITS

ROLES = IMAGE_ROLES  # labels, text, images, eval; roles with masks, depth or boxes: open_annotated
MODULES = {
    "world": ("registers.world.dataset",),
    "folder": ("registers.readers.image_folder",),
    "shards": ("registers.readers.shards",),
}
ANNOTATED_MODULES = ("registers.readers.splits",)  # it chooses among all readers of such sets
CHECKED = 256  # files per data set whose headers `prepare` reads


def open_dataset(settings: Settings, role: str, split: str) -> Dataset:
    """The data set of a role ("labels", "text", "images", "eval") and split ("train", "val", "test").

    Folders with one of val and test serve it for both; shards are a training corpus and have no other split. Raises
    ConfigError naming the setting when role, split, place or content is not there.
    """
    if role not in ROLES:
        raise ConfigError(f"role = {role!r}: allowed are {', '.join(ROLES)}")
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: allowed are {', '.join(SPLITS)}")
    spec = getattr(settings.data, role)
    kind, _, place = spec.partition(":")
    if kind == "world":
        return World(world_folder(settings, split))
    path = data_path(settings, place)
    key = hashlib.sha256(f"{spec} {path.absolute()}".encode()).hexdigest()[:12]
    index = Layout(settings.results).listing(key, split)
    if kind == "folder":
        found = ImageFolder(path, split, cache=index, mixed=True)
        if (
            role == "text" and spec == settings.data.eval
        ):  # captions name the classes as the prompts will
            found.classes = prompts.class_names(
                settings.zeroshot.classes, found.classes, found.folders
            )
        return found
    if split != "train":
        raise ConfigError(f'data.use.{role} = "{spec}": shards have no split {split}, only train')
    return Shards(str(path), cache=index)


def open_annotated(settings: Settings, role: str, split: str) -> dict[str, Dataset | None]:
    """The data sets of "segmentation", "depth" or "discovery" by the names that rows give them.

    split: "train" or "val". None: a set for discovery without other images to tune on. Raises
    ConfigError for a set that is not there.
    """
    return {
        _annotated_name(settings, spec): _open_annotated(settings, spec, role, split)
        for spec in settings.data.specs(role)
    }


def _annotated_name(settings: Settings, spec: str) -> str:
    kind, _, place = spec.partition(":")
    return "world" if kind == "world" else splits.name_of(kind, data_path(settings, place))


def _open_annotated(settings: Settings, spec: str, role: str, split: str) -> Dataset | None:
    kind, _, place = spec.partition(":")
    if kind == "world":
        return World(world_folder(settings, split))
    return splits.open_set(kind, data_path(settings, place), role, split)


def evaluation_sets(settings: Settings, role: str) -> list[EvaluationSet]:
    """The data sets that a question of this role looks at, in the order of the settings.

    role: "eval" has one set, an annotated role one or more, "" none. Nothing is opened yet.
    """
    if not role:
        return []
    if role not in ANNOTATED_ROLES:
        return [EvaluationSet(label(settings, role), partial(open_dataset, settings, role))]
    return [
        EvaluationSet(
            _annotated_name(settings, spec), partial(_open_annotated, settings, spec, role)
        )
        for spec in settings.data.specs(role)
    ]


def label(settings: Settings, role: str = "eval") -> str:
    """How rows name the data set of an image role: "world" or the folder's name."""
    spec = getattr(settings.data, role)
    return Path(spec.partition(":")[2]).name or spec


def reader_modules(settings: Settings, role: str) -> list[str]:
    """Dotted names of the modules that read the sets of a role, for digests of code; [] for ""."""
    kinds = {spec.partition(":")[0] for spec in settings.data.specs(role)} if role else set()
    return sorted({module for kind in kinds for module in MODULES.get(kind, ANNOTATED_MODULES)})


def check_words(settings: Settings) -> None:
    """Class names and prompts of zero-shot classification must suit the evaluation set: asked before anything is trained.

    Raises ConfigError, see `words`. A set that is still to be downloaded is not looked at.
    """
    prompts.templates(settings.zeroshot.templates)
    kind, _, place = settings.data.eval.partition(":")
    path = data_path(settings, place)
    if kind == "world":
        prompts.class_names(settings.zeroshot.classes, KINDS, KINDS)
    elif kind == "folder" and path.is_dir():
        names = [
            name
            for name, _ in image_folder.class_folders(
                path / image_folder.existing_split(path, "val")
            )
        ]
        prompts.class_names(settings.zeroshot.classes, names, names)


def world_folder(settings: Settings, split: str) -> Path:
    return Layout(settings.results).world(split)


def draw_world(settings: Settings, split: str, progress: bool = True) -> Path:
    """Draw one split of the embedded world, unless it is there already. Returns its folder."""
    return dataset.prepare(
        world_folder(settings, split),
        split,
        getattr(settings.world, split),
        settings.world.pixels,
        progress=progress,
    )


def prepare(settings: Settings, role: str, progress: bool = True) -> Path:
    """Make the data set of a role ready and write its manifest, data/<role>.json: what each split is. Returns the manifest's path.

    Draws the world's splits where the role asks for it, lists folders and shards once (index files), reads the headers of some
    files. What is complete is left alone, so a killed run goes on and a second call changes nothing. One manifest a role, so
    that another data set for evaluation trains nothing again.
    """
    if role in ROLES + tuple(ANNOTATED_ROLES) and "world" in settings.data.specs(role):
        for split in SPLITS:
            draw_world(settings, split, progress)
    if role in ANNOTATED_ROLES:
        opened = {split: open_annotated(settings, role, split) for split in ("train", "val")}
        described = {
            f"{name} {split}": _about(name, d)
            for split, sets in opened.items()
            for name, d in sets.items()
            if d is not None
        }
    else:
        described = {
            split: about for split in SPLITS if (about := _describe(settings, role, split))
        }
    for split in ("train", "val") if role == "eval" else ():
        if split not in described:
            raise ConfigError(
                f'data.use.eval = "{settings.data.eval}": it has no {split} split; evaluation needs train and val'
            )
    path = Layout(settings.results).manifest(role)
    write_text(path, json.dumps(described, indent=1) + "\n")
    return path


def _describe(settings: Settings, role: str, split: str) -> dict | None:
    """One entry of the manifest; None where a corpus of shards, or a folder for training only, has no such split."""
    spec = getattr(settings.data, role)
    kind, _, place = spec.partition(":")
    if split != "train" and (
        kind == "shards"
        or (
            kind == "folder"
            and not any((data_path(settings, place) / s).is_dir() for s in ("val", "test"))
        )
    ):
        return None
    return _about(spec, open_dataset(settings, role, split))


def _about(spec: str, dataset: Dataset) -> dict:
    return {
        "spec": spec,
        "split": dataset.split,  # "test" where a folder's test images serve as its val
        "samples": len(dataset),
        "classes": list(dataset.classes),
        "attributes": {name: list(values) for name, values in dataset.attributes.items()},
        "fingerprint": dataset.fingerprint,
        "checked": min(CHECKED, len(dataset)),
        "unreadable": [] if spec == "world" else dataset.check(limit=CHECKED),
    }
