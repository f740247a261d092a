"""WebDataset shards (tar files of KEY.jpg, KEY.txt, KEY.json, KEY.cls) as a random-access Dataset.

Get one with img2dataset (`output_format="webdataset"`); CC3M, CC12M and LAION are spread that way. Each tar's headers are
read once; a sample is then two or three positioned reads, so training can resume anywhere and shuffle over the whole corpus.
"""

import glob
import hashlib
import itertools
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from registers.data.sample import Sample
from registers.readers.images import SUFFIXES, decode
from registers.settings.errors import ConfigError

IMAGES = {suffix[1:] for suffix in SUFFIXES}
TEXTS = ("txt", "caption", "json")
log = logging.getLogger(__name__)


def expand(pattern: str) -> list[Path]:
    """The files of a pattern, sorted: glob (* ? []) and WebDataset's braces ({00000..00099}, {a,b})."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return sorted(Path(p) for p in glob.glob(pattern))
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        width = len(span[1])
        parts = [f"{i:0{width}d}" for i in range(int(span[1]), int(span[2]) + 1)]
    else:
        parts = found[1].split(",")
    return sorted(
        {
            path
            for part in parts
            for path in expand(pattern[: found.start()] + part + pattern[found.end() :])
        }
    )


class Shards:
    """All samples of the shards that match a pattern, in the order of shards and of keys within them.

    cache: an index file (.npz), trusted as long as names, sizes and time stamps of the shards stand. Captions come from .txt,
    .caption or the "caption" of .json; labels from .cls. An image that cannot be decoded is replaced by the next readable
    one and noted in `bad`; with strict=True it raises. Raises ConfigError when no file matches, one is no tar or none holds an image.
    """

    split = "train"
    attributes: dict[str, tuple[str, ...]] = {}

    def __init__(
        self, pattern: str, cache: Path | None = None, strict: bool = False, progress: bool = False
    ) -> None:
        self.pattern, self.strict = pattern, strict
        self.shards = expand(pattern)
        if not self.shards:
            raise ConfigError(f'shards = "{pattern}": no file matches')
        stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.shards]
        # rows: shard, then offset and size of image, text and label; size 0 where there is none; kind of text: 0 plain, 1 json
        self._rows, self.fingerprint, largest = _index(self.shards, stamps, cache, progress)
        if not len(self._rows):
            raise ConfigError(
                f'shards = "{pattern}": no images in its {len(self.shards)} files; allowed are KEY.jpg, KEY.png and the like'
            )
        self.classes = tuple(str(k) for k in range(largest + 1))
        self.bad: list[str] = []
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}}  # file descriptors stay at home

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        if shard not in self._open:
            if len(self._open) >= 128:  # far below the usual limit of 1024 open files
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(self.shards[shard], os.O_RDONLY)
        return os.pread(self._open[shard], size, offset)

    def _name(self, index: int) -> str:
        return f"{self.shards[self._rows[index, 0]].name} at {self._rows[index, 1]}"

    def _image(self, index: int):
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
            caption = _caption(self._read(shard, text, text_size), is_json) if text_size else None
            number = int(self._read(shard, label, label_size)) if label_size else None
            return Sample(image=image, name=self._name(position), label=number, caption=caption)
        raise ValueError(f"{self.pattern}: none of its {len(self)} images can be read")

    def check(self, limit: int | None = None, thorough: bool = True) -> list[str]:
        """Names of images that cannot be decoded, of all or of `limit` spread evenly."""
        count = len(self) if limit is None else min(limit, len(self))
        bad = []
        for index in (i * len(self) // count for i in range(count)):
            try:
                self._image(index)
            except ValueError:
                bad.append(self._name(index))
        return bad


def _caption(data: bytes, is_json: int) -> str | None:
    text = data.decode("utf-8", errors="replace").strip()
    if not is_json:
        return text or None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    caption = found.get("caption") if isinstance(found, dict) else None
    return str(caption) if caption else None


def _index(
    shards: list[Path], stamps: list, cache: Path | None, progress: bool
) -> tuple[np.ndarray, str, int]:
    """Rows (samples, 8) int64, the fingerprint (sha256 over members' names and sizes) and the largest label (-1: none)."""
    key = repr((str(shards[0].parent.absolute()), stamps))
    if cache and cache.is_file():
        try:
            with np.load(cache) as saved:
                if str(saved["key"]) == key:
                    return saved["rows"], str(saved["fingerprint"]), int(saved["largest"])
        except (OSError, ValueError, KeyError, EOFError):
            pass  # a damaged index is written anew
    rows, digest, largest = [], hashlib.sha256(), -1
    for number, path in enumerate(
        tqdm(shards, desc="index shards", unit="tar", disable=not progress, mininterval=1)
    ):
        try:
            for members in _samples(path):
                row, label = _row(path, number, members)
                if row:
                    rows.append(row)
                    largest = max(largest, label)
                for suffix, (name, _, size) in sorted(members.items()):
                    digest.update(f"{path.name}/{name}.{suffix} {size}\n".encode())
        except tarfile.TarError as error:
            raise ConfigError(f"shards = {path}: not a readable tar file ({error})") from None
    array = np.array(rows, np.int64).reshape(-1, 8)
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.name}.{os.getpid()}.partial")
        with open(partial, "wb") as out:
            np.savez(out, key=key, rows=array, fingerprint=digest.hexdigest(), largest=largest)
        os.replace(partial, cache)
    return array, digest.hexdigest(), largest


def _samples(path: Path) -> Iterator[dict[str, tuple[str, int, int]]]:
    """Per sample its members: suffix -> (key, offset of the data, size). Members of one key stand together."""
    current, members = None, {}
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
                current, members = key, {}
            members[suffix.lower()] = (key, member.offset_data, member.size)
    if members:
        yield members


def _row(
    path: Path, number: int, members: dict[str, tuple[str, int, int]]
) -> tuple[list[int] | None, int]:
    image = next((members[s] for s in members if s in IMAGES), None)
    if not image:
        return None, -1
    kind = next((s for s in TEXTS if s in members), None)
    text = members[kind][1:] if kind else (0, 0)
    label = members["cls"][1:] if "cls" in members else (0, 0)
    value = -1
    if label[1]:
        with open(path, "rb") as file:
            file.seek(label[0])
            try:
                value = int(file.read(label[1]))
            except ValueError:
                raise ConfigError(f"shards = {path}: {image[0]}.cls is no whole number") from None
    return [number, *image[1:], *text, int(kind == "json"), *label], value
