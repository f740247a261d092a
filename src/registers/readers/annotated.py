"""What the readers of segmentation, depth and detection sets share: a list of files as a Dataset, masks, depth maps, checks.

A file that cannot be used raises ValueError, one line with its name; who runs over a data set counts it and goes on
(`evals/streams.py`). What is wrong with the data set as a whole raises ConfigError when it is opened.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from registers.data.sample import Sample
from registers.readers.images import is_picture, readable, reason
from registers.settings.errors import ConfigError

IGNORE = 255  # the value of Sample.mask that no metric counts
INVALID_DEPTH = 65535  # what Kinect recordings write where nothing was measured (7-Scenes)


class Files:
    """A list of image files, each with its truths, as a Dataset. Subclasses say how one is read: `read(index)`.

    classes and attributes are empty: such sets have no one label an image. mask_classes: names of the values of Sample.mask.
    """

    def __init__(
        self, root: Path, images: Sequence[Path], split: str, mask_classes: Sequence[str] = ()
    ) -> None:
        if not len(images):
            raise ConfigError(f"data = {root}: no images of split {split} there")
        self.root, self.images, self.split = root, list(images), split
        self.classes: tuple[str, ...] = ()
        self.attributes: dict[str, tuple[str, ...]] = {}
        self.mask_classes = tuple(mask_classes)
        self._fingerprint = ""

    @property
    def fingerprint(self) -> str:
        """sha256 over the images' names and sizes and over `truth_files`; a missing file has size -1."""
        if not self._fingerprint:
            digest = hashlib.sha256(type(self).__name__.encode())
            for path in [*self.images, *self.truth_files()]:
                size = path.stat().st_size if path.is_file() else -1
                digest.update(f"{self.name(path)} {size}\n".encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def truth_files(self) -> list[Path]:
        return []

    def name(self, path: Path) -> str:
        return (
            path.relative_to(self.root).as_posix()
            if path.is_relative_to(self.root)
            else path.as_posix()
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.root}: index {index} of {len(self)}")
        return self.read(index % len(self))

    def read(self, index: int) -> Sample:
        raise NotImplementedError(f"{type(self).__name__} does not say how a file is read")

    def check(self, limit: int | None = None, thorough: bool = False) -> list[str]:
        """Names of images that cannot be read, of all or of `limit` spread evenly. thorough: decode them, else headers only."""
        count = len(self) if limit is None else min(limit, len(self))
        paths = [self.images[i * len(self) // count] for i in range(count)]
        return [self.name(path) for path in paths if not readable(path, thorough)]


def pictures_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, by name. Raises ConfigError where there is no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"data = {folder}: no such folder")
    return sorted(path for path in folder.iterdir() if is_picture(path.name))


def lines_of(path: Path) -> list[str]:
    """Non-empty lines of a list of names."""
    if not path.is_file():
        raise ConfigError(f"list = {path}: no such file")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_values(path: Path, name: str) -> np.ndarray:
    """An image file's numbers as they are stored: palette indices, grey of 8 or 16 bits (H, W), colours (H, W, 3)."""
    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(image)
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: not a readable image ({reason(error)})") from None


def read_mask(path: Path, name: str, image: Image.Image, table: np.ndarray) -> np.ndarray:
    """(H, W) uint8 class ids of a mask file whose stored value v means table[v]; -1 in the table is a value that may not occur.

    table: (256,) int. Raises ValueError for a colour picture, a size unlike the image's and a class id out of range.
    """
    values = read_values(path, name)
    if values.ndim != 2:
        raise ValueError(
            f"{name}: a mask of shape {values.shape}; allowed are class ids, one channel (grey or palette)"
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
    raise ValueError(f"{name}: class id {top} is out of range; allowed are {_ranges(table)}")


def read_depth(path: Path, name: str, image: Image.Image, scale: float) -> np.ndarray:
    """(H, W) float32 metres of a 16-bit depth file of so many steps a metre; 0 = unknown."""
    values = read_values(path, name)
    if values.ndim != 2 or values.dtype == np.uint8:
        raise ValueError(
            f"{name}: depth of shape {values.shape} and type {values.dtype}; allowed is one channel of 16 bits"
        )
    same_size(values, image, name)
    values = np.where((values >= INVALID_DEPTH) | (values < 0), 0, values)
    return (values / scale).astype(np.float32)


def same_size(values: np.ndarray, image: Image.Image, name: str) -> None:
    if values.shape[:2] != (image.height, image.width):
        height, width = values.shape[:2]
        raise ValueError(
            f"{name}: {width} x {height} pixels, but its image has {image.width} x {image.height}"
        )


def id_table(classes: int, ignored: Sequence[int] = (IGNORE,), shift: int = 0) -> np.ndarray:
    """(256,): value v is class v - shift; the values in `ignored` become IGNORE; all others may not occur (-1)."""
    table = np.full(256, -1, np.int64)
    table[shift : shift + classes] = np.arange(classes)
    table[list(ignored)] = IGNORE
    return table


def _ranges(table: np.ndarray) -> str:
    allowed = np.flatnonzero(table >= 0)
    starts = np.flatnonzero(np.diff(allowed, prepend=-2) > 1)
    parts = np.split(allowed, starts[1:]) if len(allowed) else []
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 1 else str(p[0]) for p in parts[:8]) + (
        ", ..." if len(parts) > 8 else ""
    )
