"""Images with 16-bit depth maps: NYU Depth v2 as depth papers pass it around, and recordings frame by frame.

nyu_depth_v2_labeled.mat (HDF5) is not read directly: write its images and depths as N_image.png and N_depth.png (millimetres) first.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from registers.config import ConfigError
from registers.data.pictures import open_picture
from registers.data.sample import Sample
from registers.data.truths import Files, lines_of, read_depth

MILLIMETRES = 1000.0  # steps a metre of the 16-bit files (BTS's sync_depth_*.png, 7-Scenes' *.depth.png)
SPLITS = {"train": "trainNdxs", "val": "testNdxs", "test": "testNdxs"}  # variables of splits.mat


class Nyud(Files):
    """Image and depth files in pairs, as a Dataset; depth in metres, 0 and 65535 are unknown (0 in Sample.depth).

    Three layouts, told apart by themselves:
    - names: a list "IMAGE DEPTH FOCAL" a line, relative to root (nyudepthv2_{train,test}_files_with_gt.txt of cleinc/bts, which DINOv2's
      depth toolbox reads); lines whose depth is None are left out.
    - root/N_image.png with N_depth.png, N the number in nyu_depth_v2_labeled.mat; split by root/splits.mat where there is one.
    - root/**/X.color.{jpg,png} with X.depth.png (7-Scenes, TUM-like recordings); no split of its own: all frames.
    """

    def __init__(self, root: Path | str, split: str = "train", names: Path | str | Sequence[str] | None = None, scale: float = MILLIMETRES):
        root = Path(root)
        if not root.is_dir():
            raise ConfigError(f"nyud = {root}: no such folder")
        if not scale > 0:
            raise ConfigError(f"scale = {scale}: allowed are numbers above 0, steps a metre")
        if split not in SPLITS:
            raise ConfigError(f"split = {split!r}: allowed are {', '.join(SPLITS)}")
        self.scale = scale
        pairs = _listed(root, names) if names is not None else _numbered(root, split) or _frames(root)
        super().__init__(root, [image for image, _ in pairs], split)
        self._depths = [depth for _, depth in pairs]

    def truth_files(self) -> list[Path]:
        return self._depths

    def read(self, index: int) -> Sample:
        image, depth = open_picture(self.images[index]), self._depths[index]
        return Sample(image=image, name=self.name(self.images[index]), depth=read_depth(depth, self.name(depth), image, self.scale))


def _listed(root: Path, names: Path | str | Sequence[str]) -> list[tuple[Path, Path]]:
    lines = lines_of(Path(names)) if isinstance(names, (str, Path)) else names
    pairs = []
    for line in lines:
        parts = line.split()
        if len(parts) < 2:
            raise ConfigError(f'names: line "{line}": allowed is IMAGE DEPTH FOCAL')
        if parts[1] != "None":
            pairs.append((root / parts[0].lstrip("/"), root / parts[1].lstrip("/")))
    return pairs


def _numbered(root: Path, split: str) -> list[tuple[Path, Path]]:
    found = {int(m[1]): path for path in root.iterdir() if (m := re.fullmatch(r"(\d+)_image\.(png|jpg)", path.name))}
    if found and (root / "splits.mat").is_file():
        from scipy.io import loadmat

        chosen = set(loadmat(root / "splits.mat")[SPLITS[split]].ravel().tolist())
        found = {number: path for number, path in found.items() if number in chosen}
    return [(path, root / f"{number}_depth.png") for number, path in sorted(found.items())]


def _frames(root: Path) -> list[tuple[Path, Path]]:
    colours = sorted(path for path in root.rglob("*.color.*") if path.suffix in (".jpg", ".png"))
    return [(path, path.with_name(path.name.split(".color.")[0] + ".depth.png")) for path in colours]
