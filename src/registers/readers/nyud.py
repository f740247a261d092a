"""Images with depth: NYU Depth v2, and recordings frame by frame.

NYU Depth v2 as released (one HDF5 file) and as depth papers pass it around.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from registers.data.sample import Sample
from registers.readers.annotated import Files, lines_of, read_depth
from registers.readers.images import open_image
from registers.settings.errors import ConfigError

# Steps a metre of the 16-bit files (BTS's sync_depth_*.png, 7-Scenes' *.depth.png).
MILLIMETRES = 1000.0
LABELED = "nyu_depth_v2_labeled.mat"
SPLITS = {"train": "trainNdxs", "val": "testNdxs", "test": "testNdxs"}  # variables of splits.mat
# Lists of cleinc/bts and of the depth toolbox that DINOv2 builds on, then the folder where BTS
# keeps that split.
LISTS = {
    "train": ("nyudepthv2_train_files_with_gt.txt", "nyu_train.txt", "sync"),
    "test": ("nyudepthv2_test_files_with_gt.txt", "nyu_test.txt", "official_splits/test"),
}
# Rows and columns of 480 x 640 inside the white rim; BTS blackens the rest when it unpacks LABELED.
RIM = (slice(7, 474), slice(7, 632))


class Nyud(Files):
    """Image and depth files in pairs; depth in metres, 0 and 65535 are unknown (0 in Sample.depth).

    Three layouts, told apart by themselves (`open_nyud` knows a fourth, the release itself):
    - a list "IMAGE DEPTH FOCAL" a line, relative to root (or to BTS's sync and
      official_splits/test below it). Lines whose depth is None are left out.
    - root/N_image.png with N_depth.png, N the number in the release; split by root/splits.mat
      where there is one.
    - root/**/X.color.{jpg,png} with X.depth.png (7-Scenes, TUM-like recordings).

    names: the list of the first layout; default: the one of LISTS that lies in root.
    scale: steps a metre.
    whole: there is no split, so "train" and "test" are both all images.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        names: Path | str | Sequence[str] | None = None,
        scale: float = MILLIMETRES,
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise ConfigError(f"nyud = {root}: no such folder")
        if not scale > 0:
            raise ConfigError(f"scale = {scale}: must be above 0, in steps a metre")
        if split not in SPLITS:
            raise ConfigError(f"split = {split!r}: must be one of {', '.join(SPLITS)}")
        own = "train" if split == "train" else "test"
        if names is None:
            names = next(iter(_lists(root, [own])), None)
        listed = _listed(root, names, LISTS[own][-1]) if names is not None else []
        numbered = [] if listed else _numbered(root, split)
        pairs = listed or numbered or _frames(root)
        super().__init__(root, [image for image, _ in pairs], split)
        self.scale = scale
        self.whole = not listed and not (numbered and (root / "splits.mat").is_file())
        self._depths = [depth for _, depth in pairs]

    def annotation_files(self) -> list[Path]:
        return self._depths

    def read(self, index: int) -> Sample:
        image = open_image(self.images[index])
        file = self._depths[index]
        depth = read_depth(file, self.name(file), image, self.scale)
        return Sample(image=image, name=self.name(self.images[index]), depth=depth)


class NyudLabeled(Files):
    """nyu_depth_v2_labeled.mat as released, split by splits.mat beside it (whole: there is none).

    With the measured depths (rawDepths, as BTS and DINOv2 evaluate on; 0 = unknown) and the rim
    blackened as BTS does. Needs h5py, which is not among this project's packages.
    """

    def __init__(self, root: Path | str, split: str = "train") -> None:
        root = Path(root)
        path = root / LABELED
        try:
            import h5py
        except ImportError:
            raise ConfigError(
                f"nyud = {path}: reading it needs h5py (pip install h5py); or write its images and "
                "rawDepths as N_image.png and N_depth.png (16 bits, millimetres) there"
            ) from None
        try:
            self._file = h5py.File(path, "r")
            count = len(self._file["images"])
            self._depths = self._file["rawDepths" if "rawDepths" in self._file else "depths"]
        except (OSError, KeyError) as error:
            raise ConfigError(
                f"nyud = {path}: not a readable HDF5 file with images and depths ({error})"
            ) from None
        numbers = _numbers_of(root, split)
        self.whole = numbers is None
        self._numbers = [n for n in range(1, count + 1) if numbers is None or n in numbers]
        super().__init__(root, [path] * len(self._numbers), split)

    def about(self) -> str:
        return f"{super().about()} {self._numbers}"

    def check(self, limit: int | None = None) -> list[str]:
        return []  # one file, and it opened

    def read(self, index: int) -> Sample:
        number = self._numbers[index]
        name = f"{LABELED}, image {number}"
        try:  # (3, W, H) and (W, H): MATLAB's order
            colours = self._file["images"][number - 1]
            depth = self._depths[number - 1]
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({str(error).splitlines()[0]})") from None
        pixels = np.zeros_like(colours.T)
        pixels[RIM] = colours.T[RIM]
        depth = np.ascontiguousarray(depth.T, np.float32)
        return Sample(image=Image.fromarray(pixels), name=name, depth=depth)


def open_nyud(root: Path, split: str) -> Nyud | NyudLabeled:
    """The release where it lies in root, unless it was unpacked there; else one of `Nyud`'s."""
    packed = (root / LABELED).is_file() and not any(root.glob("*_image.png")) and not _lists(root)
    return NyudLabeled(root, split) if packed else Nyud(root, split)


def is_recording(root: Path) -> bool:
    """Whether a folder holds none of the files that come with NYU Depth v2."""
    released = (LABELED, "splits.mat")
    return not _lists(root) and not any((root / name).is_file() for name in released)


def _lists(root: Path, splits: Iterable[str] = LISTS) -> list[Path]:
    """The lists of some splits that lie in root."""
    names = (name for split in splits for name in LISTS[split][:-1])
    return [root / name for name in names if (root / name).is_file()]


def _listed(root: Path, names: Path | str | Sequence[str], folder: str) -> list[tuple[Path, Path]]:
    lines = lines_of(Path(names)) if isinstance(names, (str, Path)) else names
    pairs = []
    for line in lines:
        parts = line.split()
        if len(parts) < 2:
            raise ConfigError(f'names: line "{line}" is not allowed; must be IMAGE DEPTH FOCAL')
        if parts[1] != "None":
            pairs.append((parts[0].lstrip("/"), parts[1].lstrip("/")))
    base = root / folder if pairs and (root / folder / pairs[0][0]).is_file() else root
    return [(base / image, base / depth) for image, depth in pairs]


def _numbered(root: Path, split: str) -> list[tuple[Path, Path]]:
    matches = (re.fullmatch(r"(\d+)_image\.(png|jpg)", path.name) for path in root.iterdir())
    images = {int(match[1]): root / match[0] for match in matches if match}
    numbers = _numbers_of(root, split) if images else None
    return [
        (path, root / f"{number}_depth.png")
        for number, path in sorted(images.items())
        if numbers is None or number in numbers
    ]


def _numbers_of(root: Path, split: str) -> set[int] | None:
    """The numbers of one split by root/splits.mat, counted from 1; None without such a file."""
    path = root / "splits.mat"
    if not path.is_file():
        return None
    from scipy.io import loadmat

    # the last of these is what scipy raises for a file of MATLAB 7.3, which it cannot read
    try:
        return set(loadmat(path)[SPLITS[split]].ravel().tolist())
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ConfigError(
            f"nyud = {path}: not the release's split file, with {SPLITS[split]} "
            f"({type(error).__name__})"
        ) from None


def _frames(root: Path) -> list[tuple[Path, Path]]:
    colours = sorted(path for path in root.rglob("*.color.*") if path.suffix in (".jpg", ".png"))
    return [
        (path, path.with_name(path.name.split(".color.")[0] + ".depth.png")) for path in colours
    ]
