"""Images with depth: NYU Depth v2 as released (one HDF5 file) and as depth papers pass it around, and recordings frame by frame."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from registers.data.sample import Sample
from registers.readers.annotated import Files, lines_of, read_depth
from registers.readers.images import open_picture
from registers.settings.errors import ConfigError

MILLIMETRES = (
    1000.0  # steps a metre of the 16-bit files (BTS's sync_depth_*.png, 7-Scenes' *.depth.png)
)
LABELED = "nyu_depth_v2_labeled.mat"
SPLITS = {"train": "trainNdxs", "val": "testNdxs", "test": "testNdxs"}  # variables of splits.mat
LISTS = {  # of cleinc/bts and of the depth toolbox that DINOv2 builds on; BTS keeps its two splits in folders of their own
    "train": ("nyudepthv2_train_files_with_gt.txt", "nyu_train.txt", "sync"),
    "test": ("nyudepthv2_test_files_with_gt.txt", "nyu_test.txt", "official_splits/test"),
}
RIM = (
    slice(7, 474),
    slice(7, 632),
)  # rows, columns of 480 x 640 inside the white rim; BTS blackens the rest when it unpacks LABELED


class Nyud(Files):
    """Image and depth files in pairs, as a Dataset; depth in metres, 0 and 65535 are unknown (0 in Sample.depth).

    Three layouts, told apart by themselves (`open_nyud` knows a fourth, the release itself):
    - names: a list "IMAGE DEPTH FOCAL" a line, relative to root (or to BTS's sync and official_splits/test below it); by itself the one
      of LISTS that root holds. Lines whose depth is None are left out.
    - root/N_image.png with N_depth.png, N the number in the release; split by root/splits.mat where there is one.
    - root/**/X.color.{jpg,png} with X.depth.png (7-Scenes, TUM-like recordings).
    whole: there is no split, so "train" and "test" are both all images.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        names: Path | str | Sequence[str] | None = None,
        scale: float = MILLIMETRES,
    ):
        root = Path(root)
        if not root.is_dir():
            raise ConfigError(f"nyud = {root}: no such folder")
        if not scale > 0:
            raise ConfigError(f"scale = {scale}: allowed are numbers above 0, steps a metre")
        if split not in SPLITS:
            raise ConfigError(f"split = {split!r}: allowed are {', '.join(SPLITS)}")
        self.scale = scale
        own = "train" if split == "train" else "test"
        if names is None and (found := _lists(root, [own])):
            names = found[0]
        listed = _listed(root, names, LISTS[own][-1]) if names is not None else []
        numbered = [] if listed else _numbered(root, split)
        pairs = listed or numbered or _frames(root)
        self.whole = not listed and not (numbered and (root / "splits.mat").is_file())
        super().__init__(root, [image for image, _ in pairs], split)
        self._depths = [depth for _, depth in pairs]

    def truth_files(self) -> list[Path]:
        return self._depths

    def read(self, index: int) -> Sample:
        image, depth = open_picture(self.images[index]), self._depths[index]
        return Sample(
            image=image,
            name=self.name(self.images[index]),
            depth=read_depth(depth, self.name(depth), image, self.scale),
        )


class NyudLabeled(Files):
    """nyu_depth_v2_labeled.mat as released, with the measured depths (rawDepths, as BTS and DINOv2 evaluate on; 0 = unknown) and the rim
    blackened as BTS does; split by splits.mat beside it (whole: there is none). Needs h5py, which is not among this project's packages.
    """

    def __init__(self, root: Path | str, split: str = "train") -> None:
        root = Path(root)
        try:
            import h5py
        except ImportError:
            raise ConfigError(
                f"nyud = {root / LABELED}: reading it needs h5py (pip install h5py); or write its images and rawDepths as N_image.png and "
                "N_depth.png (16 bits, millimetres) there"
            ) from None
        try:
            self._file = h5py.File(root / LABELED, "r")
            count = len(self._file["images"])
            self._depths = self._file["rawDepths" if "rawDepths" in self._file else "depths"]
        except (OSError, KeyError) as error:
            raise ConfigError(
                f"nyud = {root / LABELED}: not a readable HDF5 file with images and depths ({error})"
            ) from None
        chosen = _chosen(root, split)
        self.whole = chosen is None
        self._numbers = [
            number for number in range(1, count + 1) if chosen is None or number in chosen
        ]
        super().__init__(root, [root / LABELED] * len(self._numbers), split)

    def check(self, limit: int | None = None, thorough: bool = False) -> list[str]:
        return []  # one file, and it opened

    def read(self, index: int) -> Sample:
        number = self._numbers[index]
        name = f"{LABELED}, image {number}"
        try:
            colours, depth = (
                self._file["images"][number - 1],
                self._depths[number - 1],
            )  # (3, W, H) and (W, H): MATLAB's order
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({str(error).splitlines()[0]})") from None
        pixels = np.zeros_like(colours.T)
        pixels[RIM] = colours.T[RIM]
        return Sample(
            image=Image.fromarray(pixels),
            name=name,
            depth=np.ascontiguousarray(depth.T, np.float32),
        )


def open_nyud(root: Path, split: str) -> Nyud | NyudLabeled:
    """The release where it lies in root, unless it was unpacked there; else what `Nyud` finds."""
    packed = (root / LABELED).is_file() and not any(root.glob("*_image.png")) and not _lists(root)
    return NyudLabeled(root, split) if packed else Nyud(root, split)


def is_recording(root: Path) -> bool:
    """Whether a folder holds none of the files that come with NYU Depth v2."""
    return (
        not _lists(root) and not (root / LABELED).is_file() and not (root / "splits.mat").is_file()
    )


def _lists(root: Path, splits: Iterable[str] = LISTS) -> list[Path]:
    return [
        root / name for split in splits for name in LISTS[split][:-1] if (root / name).is_file()
    ]


def _listed(root: Path, names: Path | str | Sequence[str], folder: str) -> list[tuple[Path, Path]]:
    lines = lines_of(Path(names)) if isinstance(names, (str, Path)) else names
    pairs = []
    for line in lines:
        parts = line.split()
        if len(parts) < 2:
            raise ConfigError(f'names: line "{line}": allowed is IMAGE DEPTH FOCAL')
        if parts[1] != "None":
            pairs.append((parts[0].lstrip("/"), parts[1].lstrip("/")))
    base = root / folder if pairs and (root / folder / pairs[0][0]).is_file() else root
    return [(base / image, base / depth) for image, depth in pairs]


def _numbered(root: Path, split: str) -> list[tuple[Path, Path]]:
    found = {
        int(m[1]): path
        for path in root.iterdir()
        if (m := re.fullmatch(r"(\d+)_image\.(png|jpg)", path.name))
    }
    chosen = _chosen(root, split) if found else None
    return [
        (path, root / f"{number}_depth.png")
        for number, path in sorted(found.items())
        if chosen is None or number in chosen
    ]


def _chosen(root: Path, split: str) -> Iterable[int] | None:
    """The numbers of one split by root/splits.mat, counted from 1; None where there is no such file."""
    path = root / "splits.mat"
    if not path.is_file():
        return None
    from scipy.io import loadmat

    try:
        return set(loadmat(path)[SPLITS[split]].ravel().tolist())
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ConfigError(
            f"nyud = {path}: not the release's split file, with {SPLITS[split]} ({type(error).__name__})"
        ) from None


def _frames(root: Path) -> list[tuple[Path, Path]]:
    colours = sorted(path for path in root.rglob("*.color.*") if path.suffix in (".jpg", ".png"))
    return [
        (path, path.with_name(path.name.split(".color.")[0] + ".depth.png")) for path in colours
    ]
