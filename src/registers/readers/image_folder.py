"""Image folders in ImageNet's layout: root/{train,val,test}/CLASS/*.jpg.

Get one with `registers.readers.download.fetch("cifar10", root)`, or put links to ImageNet's train and val there.
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
from registers.readers.images import is_picture, open_picture, readable
from registers.settings.errors import ConfigError
from registers.world.captions import from_class

WNID = re.compile(r"n\d{8}(_(?P<name>.+))?")
log = logging.getLogger(__name__)


def class_names(folders: list[str], root: Path) -> tuple[str, ...]:
    """Readable names of class folders: underscores become spaces; n01440764_tench is tench.

    Bare WordNet ids (n01440764) are looked up in root/classes.txt or root/words.txt (lines "n01440764 name, synonyms"), as
    they come with ImageNet; without one they get the names that CLIP's zero-shot results use (`words.synset_names`).
    """
    words = {}
    for file in ("classes.txt", "words.txt", "LOC_synset_mapping.txt"):
        if (root / file).is_file():
            for line in (root / file).read_text(encoding="utf-8").splitlines():
                key, _, name = line.strip().replace("\t", " ").partition(" ")
                words[key] = name.split(",")[0].strip()
            break
    names = []
    for folder in folders:
        found = WNID.fullmatch(folder)
        name = (
            words.get(folder) or (found and (found["name"] or synset_names().get(folder))) or folder
        )
        names.append(name.replace("_", " ").strip() or folder)
    return tuple(names)


def class_folders(split: Path) -> list[tuple[str, int]]:
    """Names and time stamps of a split's class folders, sorted: position = label. Raises ConfigError where there is none."""
    found = sorted(
        (entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(split) if entry.is_dir()
    )
    if not found:
        raise ConfigError(
            f"folder = {split}: no class folders in it; allowed is {split.name}/CLASS/*.jpg"
        )
    return found


class ImageFolder:
    """A split of an image folder as a Dataset. Sorted by class, then name; position i is always the same file.

    mixed=True: in one fixed random order instead, so that the first n are a fair sample of all classes, whatever n (sorted, the
    first thousand photos of CIFAR-10 are all aeroplanes, and any classifier of them looks perfect).

    split "val" takes "test" where only that exists, and the other way round. cache: an index file (.npz) that saves listing
    millions of files again; it is trusted as long as the class folders' time stamps stand. A file that cannot be read is
    replaced by the next readable one and noted in `bad`; with strict=True it raises instead. Raises ConfigError when there is
    no such folder, no class folder or no image.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        cache: Path | None = None,
        strict: bool = False,
        mixed: bool = False,
    ) -> None:
        self.root, self.strict = Path(root), strict
        self.split = existing_split(self.root, split)
        self.folder = self.root / self.split
        stamps = class_folders(self.folder)
        self.folders = [name for name, _ in stamps]
        self.classes = class_names(self.folders, self.root)
        self.attributes: dict[str, tuple[str, ...]] = {}
        self._files, self._labels, self.fingerprint = _listing(self.folder, stamps, cache)
        if not len(self._files):
            raise ConfigError(
                f"folder = {self.folder}: no images in its {len(stamps)} class folders; allowed are jpg, png and the like"
            )
        if mixed:
            order = np.random.Generator(np.random.PCG64(0)).permutation(len(self._files))
            self._files, self._labels = self._files[order], self._labels[order]
        self.bad: list[str] = []

    def __len__(self) -> int:
        return len(self._files)

    def path(self, index: int) -> Path:
        return self.folder / self.folders[self._labels[index]] / self._files[index].decode()

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.folder}: index {index} of {len(self)}")
        index %= len(self)
        for position in itertools.chain(range(index, len(self)), range(index)):
            try:
                image = open_picture(self.path(position))
            except (OSError, ValueError) as error:
                if self.strict:
                    raise
                self._note(self.path(position), error)
                continue
            label = int(self._labels[position])
            name = str(self.path(position).relative_to(self.root))
            return Sample(
                image=image,
                name=name,
                label=label,
                caption=from_class(self.classes[label], position),
                attributes={},
            )
        raise ValueError(f"{self.folder}: none of its {len(self)} images can be read")

    def _note(self, path: Path, error: Exception) -> None:
        name = str(path.relative_to(self.root))
        if name not in self.bad:
            self.bad.append(name)
            log.warning("%s (replaced by the next readable image)", error)

    def check(self, limit: int | None = None, thorough: bool = False) -> list[str]:
        """Names of files that cannot be read, of all or of `limit` spread evenly. thorough: decode them, else headers only."""
        count = len(self) if limit is None else min(limit, len(self))
        paths = [self.path(i * len(self) // count) for i in range(count)]
        with ThreadPoolExecutor(4) as pool:
            good = pool.map(lambda path: readable(path, thorough), paths)
        return [
            str(path.relative_to(self.root)) for path, is_good in zip(paths, good) if not is_good
        ]


def existing_split(root: Path, split: str) -> str:
    """`split`, or its twin where only that exists (val and test). Raises ConfigError where neither does."""
    if not root.is_dir():
        raise ConfigError(
            f"folder = {root}: no such folder; allowed is a folder with train/CLASS/*.jpg"
        )
    twin = {"val": "test", "test": "val"}.get(split, split)
    for name in (split, twin):
        if (root / name).is_dir():
            return name
    raise ConfigError(
        f"folder = {root}: it has no {split}/ (nor {twin}/)"
        if twin != split
        else f"folder = {root}: it has no {split}/"
    )


def _listing(
    folder: Path, stamps: list[tuple[str, int]], cache: Path | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """File names (bytes), labels (int32) and the fingerprint: sha256 over relative names and sizes."""
    key = repr((str(folder.absolute()), stamps))
    if cache and cache.is_file():
        try:
            with np.load(cache) as saved:
                if str(saved["key"]) == key:
                    return saved["files"], saved["labels"], str(saved["fingerprint"])
        except (OSError, ValueError, KeyError, EOFError):
            pass  # a damaged index is written anew
    digest = hashlib.sha256()
    files, labels = [], []
    for label, (name, _) in enumerate(stamps):
        with os.scandir(folder / name) as entries:
            found = sorted(
                (e.name.encode(), e.stat().st_size)
                for e in entries
                if is_picture(e.name) and e.is_file()
            )
        for file, size in found:
            digest.update(b"%s/%s %d\n" % (name.encode(), file, size))
        files.append(np.array([file for file, _ in found], dtype=bytes))
        labels.append(np.full(len(found), label, np.int32))
    listing = np.concatenate(files), np.concatenate(labels), digest.hexdigest()
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.name}.{os.getpid()}.partial")
        with open(partial, "wb") as out:
            np.savez(out, key=key, files=listing[0], labels=listing[1], fingerprint=listing[2])
        os.replace(partial, cache)
    return listing
