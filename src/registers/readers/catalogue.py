"""Which data set plays which role: from a setting's text to Datasets and their manifest.

The text is "world", "photos", "photos:PATH", "folder:PATH", "shards:PATTERN", or "KIND:PATH" for an
annotated set.
"""

import hashlib
import logging
from functools import partial
from pathlib import Path

from registers.data import prompts
from registers.data.sample import Dataset
from registers.files import write_json
from registers.layout import Layout
from registers.readers import fingerprints, image_folder, photos, splits
from registers.readers.evaluation_set import EvaluationSet
from registers.readers.image_folder import ImageFolder
from registers.readers.shards import Shards, expand
from registers.settings.data import ANNOTATED_ROLES, BUILT_IN, DOWNLOADABLE, IMAGE_ROLES
from registers.settings.errors import ConfigError
from registers.settings.paths import data_path
from registers.settings.run import Settings
from registers.world import dataset
from registers.world.dataset import World
from registers.world.plan import KINDS, SPLITS

MODULES = {
    "world": ("registers.world.dataset",),
    "photos": ("registers.readers.photos",),
    "folder": ("registers.readers.image_folder",),
    "shards": ("registers.readers.shards",),
}
ANNOTATED_MODULES = ("registers.readers.splits",)  # it chooses among all readers of such sets
CHECKED = 256  # files per data set whose headers `prepare` reads
log = logging.getLogger(__name__)


# --- opening -------------------------------------------------------------------------------------


def open_dataset(settings: Settings, role: str, split: str) -> Dataset:
    """The data set of an image role.

    role: "labels", "text", "images" or "eval".
    split: "train", "val" or "test". Folders with one of val and test serve it for both; shards are
        a training corpus and have no other split.

    Raises ConfigError naming the setting when role, split, place or content is not there.
    """
    if role not in IMAGE_ROLES:
        raise ConfigError(f"role = {role!r}: must be one of {', '.join(IMAGE_ROLES)}")
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: must be one of {', '.join(SPLITS)}")
    spec = getattr(settings.data, role)
    kind, path = _kind_and_path(settings, spec)
    if kind == "world":
        return World(Layout(settings.results).world(split))
    if kind == "photos":
        if split != "val":
            raise ConfigError(
                f'data.use.{role} = "{spec}": photos without labels have no split '
                f"{split}; must be a folder or shards"
            )
        return photos.Photos(path if spec != kind else None)
    index = Layout(settings.results).listing(_key(spec, path), split)
    if kind == "folder":
        folder = ImageFolder(path, split, cache=index, mixed=True)
        if role == "text" and spec == settings.data.eval:
            # captions name the classes as the prompts will
            folder.classes = prompts.class_names(
                settings.zeroshot.classes, folder.classes, folder.folders
            )
        return folder
    if split != "train":
        raise ConfigError(f'data.use.{role} = "{spec}": shards have no split {split}, only train')
    return Shards(str(path), cache=index)


def open_annotated(settings: Settings, role: str, split: str) -> dict[str, Dataset | None]:
    """The data sets of "segmentation", "depth" or "discovery" by the names that rows give them.

    split: "train" or "val". None: a set for discovery without other images to tune on. Raises
    ConfigError for a set that is not there.
    """
    return {
        _annotated_name(settings, spec): _open_annotated(settings, role, spec, split)
        for spec in settings.data.specs(role)
    }


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
            _annotated_name(settings, spec), partial(_open_annotated, settings, role, spec)
        )
        for spec in settings.data.specs(role)
    ]


def label(settings: Settings, role: str = "eval") -> str:
    """How rows name the data set of an image role: "world" or the folder's name."""
    spec = getattr(settings.data, role)
    return Path(spec.partition(":")[2]).name or spec


def _annotated_name(settings: Settings, spec: str) -> str:
    kind, path = _kind_and_path(settings, spec)
    return kind if kind in BUILT_IN else splits.name_of(kind, path)


def _open_annotated(settings: Settings, role: str, spec: str, split: str) -> Dataset | None:
    kind, path = _kind_and_path(settings, spec)
    layout = Layout(settings.results)
    if kind == "world":
        return World(layout.world(split))
    if kind == "photos":
        return photos.BoxedPhotos() if split == "val" else None
    opened = splits.open_set(kind, path, role, split)
    if opened is not None:
        opened.keep_digests(layout.listing(_key(f"{role} {spec}", path), split))
    return opened


def _kind_and_path(settings: Settings, spec: str) -> tuple[str, Path]:
    kind, _, place = spec.partition(":")
    return kind, data_path(settings, place)


def _key(spec: str, path: Path) -> str:
    return hashlib.sha256(f"{spec} {path.absolute()}".encode(errors="replace")).hexdigest()[:12]


# --- what results depend on ----------------------------------------------------------------------


def reader_modules(settings: Settings, role: str) -> list[str]:
    """Dotted names of the modules that read the sets of a role, for digests of code; [] for ""."""
    kinds = {spec.partition(":")[0] for spec in settings.data.specs(role)} if role else set()
    return sorted({module for kind in kinds for module in MODULES.get(kind, ANNOTATED_MODULES)})


def files_state(settings: Settings, role: str) -> str:
    """A digest of the place, names, sizes and dates of a role's files; opens none of them.

    It changes when photos or a class are added, a file is rewritten, or `data.root` names another
    folder. The built-in world, and a set that the pipeline downloads, are what their settings say
    on every machine. For how long it takes see `fingerprints.of_listing`.
    """
    states = [_state(settings, spec) for spec in settings.data.specs(role)]
    return hashlib.sha256("\n".join(states).encode()).hexdigest()[:12]


def _state(settings: Settings, spec: str) -> str:
    kind, path = _kind_and_path(settings, spec)
    if kind == "world" or (kind == "folder" and _is_download(spec.partition(":")[2], path)):
        return spec
    if kind == "folder":
        places = [path / name for name in (*SPLITS, *image_folder.NAME_LISTS)]
    elif kind == "photos":
        places = [path] if spec != kind else list(photos.installed())
    elif kind == "shards":
        places = expand(str(path))
    else:
        places = splits.places(kind, path)
    return f"{spec} {fingerprints.of_listing(places)}"


def _is_download(place: str, path: Path) -> bool:
    """Whether the pipeline fetched a folder, or will; another one of that name is the user's."""
    done = path.with_name(f"{path.name}.complete")
    return place in DOWNLOADABLE and (done.exists() or not path.exists())


def check_words(settings: Settings) -> None:
    """Check the class names and prompts of zero-shot classification before anything is trained.

    A set that is still to be downloaded is not looked at. Raises ConfigError, see `prompts`, where
    they do not suit the evaluation set.
    """
    prompts.templates(settings.zeroshot.templates)
    kind, path = _kind_and_path(settings, settings.data.eval)
    if kind == "world":
        prompts.class_names(settings.zeroshot.classes, KINDS, KINDS)
    elif kind == "folder" and path.is_dir():
        folder = path / image_folder.existing_split(path, "val")
        names = [name for name, _ in image_folder.class_folders(folder)]
        prompts.class_names(settings.zeroshot.classes, names, names)


# --- preparing -----------------------------------------------------------------------------------


def draw_world(settings: Settings, split: str, progress: bool = True) -> Path:
    """Draw one split of the built-in world, unless it is there already. Returns its folder."""
    folder = Layout(settings.results).world(split)
    count = getattr(settings.world, split)
    return dataset.prepare(folder, split, count, settings.world.pixels, progress=progress)


def prepare(settings: Settings, role: str, progress: bool = True) -> Path:
    """Make the data set of a role ready and write its manifest: what each split is.

    Draws the world's splits where the role asks for it, lists folders and shards once (index
    files), digests the bytes of all files, reads the headers of some. What is complete is left
    alone, so a killed run resumes and a second call changes nothing. There is one manifest per
    role, so that another data set for evaluation trains nothing again.

    Returns the manifest's path. Raises ConfigError where a set is not there or lacks a split.
    """
    roles = (*IMAGE_ROLES, *ANNOTATED_ROLES)
    if role not in roles:
        raise ConfigError(f"role = {role!r}: must be one of {', '.join(roles)}")
    if "world" in settings.data.specs(role):
        for split in SPLITS:
            draw_world(settings, split, progress)
    described = _annotated(settings, role) if role in ANNOTATED_ROLES else _images(settings, role)
    if role == "eval":
        _check_classes(described)
    for name, about in described.items():
        _warn(name, about, described)
    path = Layout(settings.results).manifest(role)
    write_json(path, described)
    return path


def _images(settings: Settings, role: str) -> dict[str, dict]:
    """Entries of the manifest by split; training alone can do without val and test."""
    spec = getattr(settings.data, role)
    kind, path = _kind_and_path(settings, spec)
    if kind == "photos":
        return {"val": _about(spec, open_dataset(settings, role, "val"))}
    parts = SPLITS
    if kind == "shards" or (kind == "folder" and not _has_val(path)):
        parts = ("train",)
    if role == "eval" and "val" not in parts:
        raise ConfigError(
            f'data.use.eval = "{spec}": it has no val split; evaluation needs train and val'
        )
    return {split: _about(spec, open_dataset(settings, role, split)) for split in parts}


def _check_classes(described: dict[str, dict]) -> None:
    """A probe of classes needs the same ones in both splits: better said before the trainings."""
    if not {"train", "val"} <= set(described):
        return
    train, val = (described[split]["classes"] for split in ("train", "val"))
    if train == val:
        return
    only = [
        f"only in {split}: {', '.join(sorted(names)[:5])}"
        for split, names in (("train", set(train) - set(val)), ("val", set(val) - set(train)))
        if names
    ]
    spec = described["val"]["spec"]
    raise ConfigError(
        f'data.use.eval = "{spec}": train and val must have the same classes ({"; ".join(only)})'
    )


def _has_val(path: Path) -> bool:
    return any((path / split).is_dir() for split in ("val", "test"))


def _annotated(settings: Settings, role: str) -> dict[str, dict]:
    """Entries of the manifest by name and split, "VOC 2007 val"."""
    return {
        f"{name} {split}": _about(name, samples)
        for split in ("train", "val")
        for name, samples in open_annotated(settings, role, split).items()
        if samples is not None
    }


def _about(spec: str, samples: Dataset) -> dict:
    """What a manifest tells of one split."""
    about = {
        "spec": spec,
        "split": samples.split,  # "test" where a folder's test images serve as its val
        "samples": len(samples),
        "classes": list(samples.classes),
        "attributes": {name: list(values) for name, values in samples.attributes.items()},
        "fingerprint": samples.fingerprint,
        "checked": min(CHECKED, len(samples)),
        "unreadable": [] if spec == "world" else samples.check(limit=CHECKED),
    }
    if about["unreadable"] and len(about["unreadable"]) == about["checked"]:
        first = about["unreadable"][0]
        raise ConfigError(
            f"{spec}, {samples.split}: none of the {about['checked']} images that were tried can "
            f"be read, such as {first}"
        )
    if isinstance(samples, ImageFolder) and samples.empty_classes():
        about["empty_classes"] = samples.empty_classes()
    return about


def _warn(name: str, about: dict, described: dict[str, dict]) -> None:
    """Log what is suspicious about one split, and note it in its entry."""
    if "empty_classes" in about:
        empty = ", ".join(about["empty_classes"])
        log.warning("%s, %s: class folders without an image: %s", about["spec"], name, empty)
    train = described.get(name.removesuffix("val") + "train")
    if name.endswith("val") and train and train["fingerprint"] == about["fingerprint"]:
        about["same_as_train"] = True
        log.warning(
            "%s, %s: the same images as train; accuracy will measure memorisation",
            about["spec"],
            name,
        )
