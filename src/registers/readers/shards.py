"""WebDataset shards (tar files of KEY.jpg, KEY.txt, KEY.json, KEY.cls) as a random-access Dataset.

Get one with img2dataset (`output_format="webdataset"`); CC3M, CC12M and LAION are spread that way.

Not read with the `webdataset` library, which streams shards through a shuffle buffer: a training
that resumes at exactly its last step, with bit-equal batches, needs random access. (`wids`, its
random-access part, no longer comes with webdataset 1.0.2.) Here each tar's headers are read once;
a sample is then two or three positioned reads. The library is the tests' oracle.
"""

import glob
import itertools
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from registers.data.sample import Sample
from registers.readers import fingerprints, index_cache
from registers.readers.images import SUFFIXES, decode, printable
from registers.settings.errors import ConfigError

IMAGES = {suffix[1:] for suffix in SUFFIXES}
TEXTS = ("txt", "caption", "json")
# Bounds of what a stranger's shard may make us hold: names of classes, bytes of one label or text.
MAX_LABEL = 999_999
LABEL_BYTES = 32
TEXT_BYTES = 1 << 20
OPEN_SHARDS = 128  # far below the usual limit of 1024 open files
log = logging.getLogger(__name__)

Members = dict[str, tuple[str, int, int]]  # suffix -> key, offset of the data, size


def expand(pattern: str) -> list[Path]:
    """The files of a pattern, sorted: glob (* ? []) and braces ({00000..00099}, {a,b})."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if not braces:
        return sorted(Path(p) for p in glob.glob(pattern))
    span = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
    if span:
        width = len(span[1])
        parts = [f"{i:0{width}d}" for i in range(int(span[1]), int(span[2]) + 1)]
    else:
        parts = braces[1].split(",")
    before = pattern[: braces.start()]
    after = pattern[braces.end() :]
    return sorted(set().union(*(expand(before + part + after) for part in parts)))


class Shards:
    """All samples of the shards that match a pattern, in the order of shards and keys within them.

    pattern: see `expand`.
    cache: an index file (.npz), trusted as long as names, sizes and time stamps of the shards
        stand. Digests of the shards' bytes are kept beside it.
    strict: raise for an image that cannot be decoded. Else the next readable one takes its place,
        and it is noted in `bad`.

    Captions come from .txt, .caption or the "caption" of .json; labels from .cls. Raises
    ConfigError when no file matches, one is no tar file, a label is no small integer, or none
    holds an image.
    """

    split = "train"
    attributes: dict[str, tuple[str, ...]] = {}

    def __init__(self, pattern: str, cache: Path | None = None, strict: bool = False) -> None:
        self.pattern = pattern
        self.strict = strict
        self.shards = expand(pattern)
        if not self.shards:
            raise ConfigError(f'shards = "{pattern}": no file matches')
        self._rows, largest = _index(self.shards, cache)
        if not len(self._rows):
            raise ConfigError(
                f'shards = "{pattern}": no images in its {len(self.shards)} files; '
                "must hold KEY.jpg, KEY.png and the like"
            )
        self.classes = tuple(str(k) for k in range(largest + 1))
        self.bad: list[str] = []
        self._cache = cache
        self._fingerprint = ""
        self._open: dict[int, int] = {}

    @property
    def fingerprint(self) -> str:
        """sha256 over the shards' names and bytes: one pass over the corpus, once."""
        if not self._fingerprint:
            digests = self._cache and self._cache.with_name(f"digests-{self._cache.name}")
            names = [os.fsencode(path.name) for path in self.shards]
            paths = [os.fspath(path) for path in self.shards]
            self._fingerprint = fingerprints.of_contents(names, paths, digests)
        return self._fingerprint

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}}  # file descriptors do not travel

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(self.shards[shard], os.O_RDONLY)
        return os.pread(self._open[shard], size, offset)

    def _name(self, index: int) -> str:
        return f"{printable(self.shards[self._rows[index, 0]].name)} at {self._rows[index, 1]}"

    def _image(self, index: int) -> Image.Image:
        shard, offset, size = self._rows[index, :3].tolist()
        return decode(self._read(shard, offset, size), self._name(index))

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.pattern}: index {index} of {len(self)}")
        index %= len(self)
        for position in itertools.chain(range(index, len(self)), range(index)):
            try:
                image = self._image(position)
            except ValueError as error:
                if self.strict:
                    raise
                if self._name(position) not in self.bad:
                    self.bad.append(self._name(position))
                    log.warning("%s (replaced by the next readable image)", error)
                continue
            shard, _, _, text, text_size, is_json, label, label_size = self._rows[position].tolist()
            caption = None
            if text_size:
                data = self._read(shard, text, min(text_size, TEXT_BYTES + 1))
                caption = _caption(data, is_json, self._name(position))
            number = int(self._read(shard, label, label_size)) if label_size else None
            return Sample(image=image, name=self._name(position), label=number, caption=caption)
        raise ValueError(f"{self.pattern}: none of its {len(self)} images can be read")

    def check(self, limit: int | None = None) -> list[str]:
        """Names of images that cannot be decoded, of all or of `limit` spread evenly."""
        count = len(self) if limit is None else min(limit, len(self))
        bad = []
        for index in (i * len(self) // count for i in range(count)):
            try:
                self._image(index)
            except ValueError:
                bad.append(self._name(index))
        return bad


def _caption(data: bytes, is_json: int, name: str) -> str | None:
    """A sample's text; None, and one line in the log, where it is too long or too deeply nested."""
    if len(data) > TEXT_BYTES:
        log.warning("%s: a text of over %s bytes (no caption)", name, f"{TEXT_BYTES:,}")
        return None
    text = data.decode("utf-8", errors="replace").strip()
    if not is_json:
        return text or None
    try:
        content = json.loads(text)
    except RecursionError:
        log.warning("%s: its .json is too deeply nested (no caption)", name)
        return None
    except ValueError:
        return None
    caption = content.get("caption") if isinstance(content, dict) else None
    return str(caption) if caption else None


# --- the index -----------------------------------------------------------------------------------


def _index(shards: list[Path], cache: Path | None) -> tuple[np.ndarray, int]:
    """Rows (samples, 8) int64 and the largest label (-1: none).

    A row: shard; offset and size of the image; of the text, with its kind (0 plain, 1 json); of
    the label. Size 0 where there is none.
    """
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in shards]
    key = repr((str(shards[0].parent.absolute()), stamps))
    saved = index_cache.load(cache, key)
    if saved is not None and {"rows", "largest"} <= saved.keys():
        return saved["rows"], int(saved["largest"])
    rows = []
    largest = -1
    for number, path in enumerate(shards):
        try:
            for members in _samples(path):
                image = next((members[s] for s in members if s in IMAGES), None)
                if image:
                    rows.append(_row(number, image, members))
                    largest = max(largest, _label(path, image[0], members))
        except tarfile.TarError as error:
            raise ConfigError(f"shards = {path}: not a readable tar file ({error})") from None
    array = np.array(rows, np.int64).reshape(-1, 8)
    index_cache.save(cache, key, rows=array, largest=np.array(largest))
    return array, largest


def _samples(path: Path) -> Iterator[Members]:
    """The members of each sample; members of one key stand together."""
    current = None
    members: Members = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            tar.members = []  # else tarfile keeps every header
            folder, _, file = member.name.rpartition("/")
            base, _, suffix = file.partition(".")
            if not member.isfile() or not base or not suffix:
                continue
            key = f"{folder}/{base}"
            if key != current:
                if members:
                    yield members
                current = key
                members = {}
            members[suffix.lower()] = (key, member.offset_data, member.size)
    if members:
        yield members


def _row(number: int, image: tuple[str, int, int], members: Members) -> list[int]:
    kind = next((suffix for suffix in TEXTS if suffix in members), "")
    text = members[kind][1:] if kind else (0, 0)
    label = members["cls"][1:] if "cls" in members else (0, 0)
    return [number, *image[1:], *text, int(kind == "json"), *label]


def _label(path: Path, key: str, members: Members) -> int:
    """A sample's class, -1 where it has none. Raises ConfigError for one that no data set has."""
    _, offset, size = members.get("cls", ("", 0, 0))
    if not size:
        return -1
    with open(path, "rb") as file:
        file.seek(offset)
        text = file.read(min(size, LABEL_BYTES))
    try:
        label = int(text)
    except ValueError:
        label = -1
    if size > LABEL_BYTES or not 0 <= label <= MAX_LABEL:
        content = printable(os.fsdecode(text)).strip()
        raise ConfigError(
            f"shards = {path}: {printable(key)}.cls is {content!r}; "
            f"must be an integer from 0 to {MAX_LABEL:,}"
        )
    return label
