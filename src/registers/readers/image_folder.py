"""Image folders in ImageNet's layout: root/{train,val,test}/CLASS/*.jpg.

Get one with `registers.readers.download.fetch("cifar10", root)`, or put links to ImageNet's train
and val there.
"""

import hashlib
import itertools
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from registers.data.prompts import synset_names
from registers.data.sample import Sample
from registers.readers import fingerprints, index_cache
from registers.readers.images import is_image, is_readable, open_image, printable
from registers.settings.errors import ConfigError
from registers.world.captions import from_class

WNID = re.compile(r"n\d{8}(_(?P<name>.+))?")
NAME_LISTS = ("classes.txt", "words.txt", "LOC_synset_mapping.txt")  # as ImageNet comes with them
log = logging.getLogger(__name__)


class ImageFolder:
    """A split of an image folder as a Dataset. Position i is always the same file.

    root: the folder that holds the splits.
    split: "val" takes "test" where only that exists, and the other way round.
    cache: an index file (.npz) that saves listing millions of files again; trusted as long as the
        class folders' time stamps stand. Digests of the files' bytes are kept beside it.
    strict: raise for a file that cannot be read. Else the next readable one takes its place, and
        it is noted in `bad`.
    mixed: one fixed random order, so that the first n are a fair sample of all classes, whatever n.
        Else sorted by class, then name: the first thousand photos of CIFAR-10 are all aeroplanes,
        and any classifier of them looks perfect.

    Raises ConfigError when there is no such folder, no class folder or no image.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        cache: Path | None = None,
        strict: bool = False,
        mixed: bool = False,
    ) -> None:
        self.root = Path(root)
        self.strict = strict
        self.split = existing_split(self.root, split)
        self.folder = self.root / self.split
        stamps = class_folders(self.folder)
        self.folders = [name for name, _ in stamps]
        self.classes = class_names(self.folders, self.root)
        self.attributes: dict[str, tuple[str, ...]] = {}
        self._files, self._labels = _listing(self.folder, stamps, cache)
        if not len(self._files):
            raise ConfigError(
                f"folder = {self.folder}: no images in its {len(stamps)} class folders; "
                "must hold jpg, png and the like"
            )
        self._digests = cache and cache.with_name(f"digests-{_digest_of(self.folder)}.npz")
        self._fingerprint = ""
        self._order = np.arange(len(self._files))
        if mixed:
            self._order = np.random.Generator(np.random.PCG64(0)).permutation(len(self._files))
        self.bad: list[str] = []

    @property
    def fingerprint(self) -> str:
        """sha256 over the names and bytes of all images, in sorted order."""
        if not self._fingerprint:
            names = [self._name(place) for place in range(len(self))]
            folder = os.fspath(self.folder)
            paths = [f"{folder}/{os.fsdecode(name)}" for name in names]
            self._fingerprint = fingerprints.of_contents(names, paths, self._digests)
        return self._fingerprint

    def _name(self, place: int) -> bytes:
        """CLASS/FILE of the image at a place of the sorted listing."""
        return os.fsencode(self.folders[self._labels[place]]) + b"/" + bytes(self._files[place])

    def __len__(self) -> int:
        return len(self._files)

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self._name(self._order[index]))

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.folder}: index {index} of {len(self)}")
        index %= len(self)
        for position in itertools.chain(range(index, len(self)), range(index)):
            try:
                image = open_image(self.path(position))
            except (OSError, ValueError) as error:
                if self.strict:
                    raise
                self._note(self.path(position), error)
                continue
            label = int(self._labels[self._order[position]])
            return Sample(
                image=image,
                name=self._printable(self.path(position)),
                label=label,
                caption=from_class(self.classes[label], position),
                attributes={},
            )
        raise ValueError(f"{self.folder}: none of its {len(self)} images can be read")

    def _printable(self, path: Path) -> str:
        return printable(path.relative_to(self.root))

    def _note(self, path: Path, error: Exception) -> None:
        name = self._printable(path)
        if name not in self.bad:
            self.bad.append(name)
            log.warning("%s (replaced by the next readable image)", error)

    def check(self, limit: int | None = None) -> list[str]:
        """Names of files whose headers are no images, of all or of `limit` spread evenly."""
        count = len(self) if limit is None else min(limit, len(self))
        paths = [self.path(i * len(self) // count) for i in range(count)]
        with ThreadPoolExecutor(4) as pool:
            readable = pool.map(is_readable, paths)
        return [self._printable(path) for path, is_good in zip(paths, readable) if not is_good]

    def empty_classes(self) -> list[str]:
        """Names of class folders without an image."""
        counts = np.bincount(self._labels, minlength=len(self.folders))
        return [printable(self.folders[label]) for label in np.flatnonzero(counts == 0)]


def existing_split(root: Path, split: str) -> str:
    """`split`, or its twin where only that exists (val and test).

    Raises ConfigError where neither does.
    """
    if not root.is_dir():
        raise ConfigError(f"folder = {root}: no such folder; must hold train/CLASS/*.jpg")
    twin = {"val": "test", "test": "val"}.get(split, split)
    for name in (split, twin):
        if (root / name).is_dir():
            return name
    other = f" (nor {twin}/)" if twin != split else ""
    raise ConfigError(f"folder = {root}: it has no {split}/{other}")


def class_folders(split: Path) -> list[tuple[str, int]]:
    """Names and time stamps of a split's class folders, sorted: a class's place is its label.

    Raises ConfigError where there is none.
    """
    folders = sorted((e.name, e.stat().st_mtime_ns) for e in os.scandir(split) if _is_folder(e))
    if not folders:
        raise ConfigError(f"folder = {split}: no class folders; must hold {split.name}/CLASS/*.jpg")
    return folders


def class_names(folders: list[str], root: Path) -> tuple[str, ...]:
    """Readable names of class folders: underscores become spaces; n01440764_tench is tench.

    Bare WordNet ids (n01440764) are looked up in root/classes.txt or root/words.txt (lines
    "n01440764 name, synonyms"), as they come with ImageNet; without one they get the names that
    CLIP's zero-shot results use (`prompts.synset_names`).
    """
    listed = _listed_names(root)
    names = []
    for folder in folders:
        wnid = WNID.fullmatch(folder)
        name = listed.get(folder)
        if not name and wnid:
            name = wnid["name"] or synset_names().get(folder)
        names.append((name or printable(folder)).replace("_", " ").strip() or folder)
    return tuple(names)


def _listed_names(root: Path) -> dict[str, str]:
    """Names by WordNet id from the first list that lies in root."""
    file = next((root / name for name in NAME_LISTS if (root / name).is_file()), None)
    if file is None:
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    parts = (line.strip().replace("\t", " ").partition(" ") for line in lines)
    return {key: names.split(",")[0].strip() for key, _, names in parts}


def _listing(
    folder: Path, stamps: list[tuple[str, int]], cache: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """File names (bytes) and labels (int32), sorted by class, then name."""
    key = repr((str(folder.absolute()), stamps))
    saved = index_cache.load(cache, key)
    if saved is not None and {"files", "labels"} <= saved.keys():
        return saved["files"], saved["labels"]
    files = []
    labels = []
    for label, (name, _) in enumerate(stamps):
        with os.scandir(folder / name) as entries:
            images = sorted(
                os.fsencode(e.name) for e in entries if is_image(e.name) and _is_file(e)
            )
        files.append(np.array(images, dtype=bytes))
        labels.append(np.full(len(images), label, np.int32))
    listing = np.concatenate(files), np.concatenate(labels)
    index_cache.save(cache, key, files=listing[0], labels=listing[1])
    return listing


def _is_file(entry: os.DirEntry) -> bool:
    """Whether an entry is a file; a link that leads to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        log.warning("%s: cannot be opened (left out)", printable(entry.path))
        return False


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        log.warning("%s: cannot be opened (left out)", printable(entry.path))
        return False


def _digest_of(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]
