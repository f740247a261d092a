"""What readers of segmentation, depth and detection sets share: files as a Dataset, masks, depth.

A file that cannot be used raises ValueError, one line with its name; `data/usable.py` counts it
and continues. What is wrong with the data set as a whole raises ConfigError when it is opened.
"""

import abc
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from registers.data.sample import Sample
from registers.readers import fingerprints
from registers.readers.images import is_image, is_readable, opened, printable
from registers.settings.errors import ConfigError
from registers.vocabulary import IGNORE

INVALID_DEPTH = 65535  # what Kinect recordings write where nothing was measured (7-Scenes)


class Files(abc.ABC):
    """A list of image files, each with its annotation, as a Dataset. Subclasses have `read(index)`.

    root: the data set's folder; names of files are relative to it.
    images: the image files, in the order of their positions.
    split: which part of the set they are.
    mask_classes: names of the values of Sample.mask.

    classes and attributes are empty: such sets have no one label per image. Raises ConfigError
    without images.
    """

    def __init__(
        self, root: Path, images: Sequence[Path], split: str, mask_classes: Sequence[str] = ()
    ) -> None:
        if not len(images):
            raise ConfigError(f"data = {root}: no images of split {split} there")
        self.root = root
        self.images = list(images)
        self.split = split
        self.classes: tuple[str, ...] = ()
        self.attributes: dict[str, tuple[str, ...]] = {}
        self.mask_classes = tuple(mask_classes)
        self._digests: Path | None = None
        self._fingerprint = ""

    def keep_digests(self, path: Path) -> None:
        """Keep the digests of the files' bytes there, so that each is read once."""
        self._digests = path

    @property
    def fingerprint(self) -> str:
        """sha256 over the names and bytes of the images and of `annotation_files`."""
        if not self._fingerprint:
            files = {self.name(path): path for path in [*self.images, *self.annotation_files()]}
            names = [os.fsencode(name) for name in files]
            paths = [os.fspath(path) for path in files.values()]
            self._fingerprint = fingerprints.of_contents(names, paths, self._digests, self.about())
        return self._fingerprint

    def about(self) -> str:
        """What the fingerprint covers beside the files."""
        return type(self).__name__

    def annotation_files(self) -> list[Path]:
        return []

    def name(self, path: Path) -> str:
        inside = path.is_relative_to(self.root)
        return printable((path.relative_to(self.root) if inside else path).as_posix())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.root}: index {index} of {len(self)}")
        return self.read(index % len(self))

    @abc.abstractmethod
    def read(self, index: int) -> Sample:
        """The sample at a place from 0 on: each layout reads its own files."""

    def check(self, limit: int | None = None) -> list[str]:
        """Names of files whose headers are no images, of all or of `limit` spread evenly."""
        count = len(self) if limit is None else min(limit, len(self))
        paths = [self.images[i * len(self) // count] for i in range(count)]
        return [self.name(path) for path in paths if not is_readable(path)]


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, by name. Raises ConfigError where there is no folder."""
    if not folder.is_dir():
        raise ConfigError(f"data = {folder}: no such folder")
    return sorted(path for path in folder.iterdir() if is_image(path.name))


def lines_of(path: Path) -> list[str]:
    """Non-empty lines of a list of names."""
    if not path.is_file():
        raise ConfigError(f"list = {path}: no such file")
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [line.strip() for line in lines if line.strip()]


def read_values(path: Path, name: str) -> np.ndarray:
    """An image file's numbers as they are stored.

    (H, W) palette indices or grey of 8 or 16 bits, (H, W, 3) colours.
    """
    with opened(path, name) as image:
        image.load()
        return np.asarray(image)


def read_mask(path: Path, name: str, image: Image.Image, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8 class ids of a mask file whose stored value v means table[v].

    path, name: the mask file, and what messages call it.
    image: the image that it belongs to.
    table: (256,) int; -1 marks a value that must not occur.

    Raises ValueError for a colour image, a size unlike the image's and a class id out of range.
    """
    values = read_values(path, name)
    if values.ndim != 2:
        raise ValueError(
            f"{name}: a mask of shape {values.shape}; must be one channel of class ids "
            "(grey or palette)"
        )
    same_size(values, image, name)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    top = int(values.max(initial=0))
    if top < len(table):
        mask = table[values]
        if mask.min(initial=0) >= 0:
            return mask.astype(np.uint8)
        top = int(values[mask < 0].flat[0])
    raise ValueError(f"{name}: class id {top} is out of range; must be {_ranges(table)}")


def read_depth(path: Path, name: str, image: Image.Image, scale: float) -> np.ndarray:
    """(H, W) float32 metres of a 16-bit depth file of `scale` steps a metre; 0 = unknown."""
    values = read_values(path, name)
    if values.ndim != 2 or values.dtype == np.uint8:
        raise ValueError(
            f"{name}: depth of shape {values.shape} and type {values.dtype}; "
            "must be one channel of 16 bits"
        )
    same_size(values, image, name)
    values = np.where((values >= INVALID_DEPTH) | (values < 0), 0, values)
    return (values / scale).astype(np.float32)


def same_size(values: np.ndarray, image: Image.Image, name: str) -> None:
    """Raises ValueError where a mask or depth map (H, W) has another size than its image."""
    height, width = values.shape[:2]
    if (height, width) != (image.height, image.width):
        raise ValueError(
            f"{name}: {width} x {height} pixels, but its image has {image.width} x {image.height}"
        )


def id_table(classes: int, ignored: Sequence[int] = (IGNORE,), shift: int = 0) -> np.ndarray:
    """(256,): value v is class v - shift.

    The values in `ignored` become IGNORE; all others must not occur (-1).
    """
    table = np.full(256, -1, np.int64)
    table[shift : shift + classes] = np.arange(classes)
    table[list(ignored)] = IGNORE
    return table


def _ranges(table: np.ndarray) -> str:
    """The values that a table allows, "0 to 20, 255"."""
    values = np.flatnonzero(table >= 0)
    if not len(values):
        return "none"
    starts = np.flatnonzero(np.diff(values, prepend=-2) > 1)
    spans = np.split(values, starts[1:])
    texts = [f"{span[0]} to {span[-1]}" if len(span) > 1 else str(span[0]) for span in spans]
    return ", ".join(texts[:8] + ["..."] * (len(texts) > 8))
