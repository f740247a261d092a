"""Photos without labels: those that come with installed packages, in several views, or a folder's.

Scale `released` and `registers audit` look at them where no data set is named: real photos, as
published models were trained on, on any machine and without network.
"""

import hashlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from registers.data.sample import Sample
from registers.readers import fingerprints
from registers.readers.images import is_image, is_readable, open_image, printable
from registers.settings.errors import ConfigError

Box = tuple[int, int, int, int]
LIMIT = 4096  # files of a folder that are looked at


class View(NamedTuple):
    """A part of a photo.

    share: height of the crop over that of the largest that fits. down, across: where its centre
    lies, from 0 (at the upper or left edge) to 1.
    """

    share: float
    down: float
    across: float


VIEWS = (
    View(1.0, 0.5, 0.5),
    View(0.6, 0.0, 0.0),
    View(0.6, 1.0, 1.0),
    View(0.6, 0.0, 1.0),
    View(0.6, 1.0, 0.0),
    View(1.0, 0.5, 0.0),
    View(1.0, 0.5, 1.0),
    View(0.45, 0.5, 0.5),
    View(0.45, 0.0, 0.5),
    View(0.45, 1.0, 0.5),
    View(0.75, 0.2, 0.3),
    View(0.75, 0.8, 0.7),
)
# Photographs in the wheels of scikit-learn (CC BY, see its images/README.txt), scikit-image and
# matplotlib, with a box around the main object as x0, y0, x1, y1 in pixels, drawn by eye for this
# project. Folder of each package: names and boxes.
INSTALLED: dict[tuple[str, str], dict[str, Box]] = {
    ("sklearn", "datasets/images"): {
        "china.jpg": (63, 28, 368, 389),
        "flower.jpg": (169, 84, 448, 356),
    },
    ("skimage", "data"): {
        "astronaut.png": (9, 15, 357, 512),
        "coffee.png": (77, 18, 477, 385),
        "chelsea.png": (13, 0, 373, 300),
        "rocket.jpg": (302, 129, 340, 417),
        "motorcycle_left.png": (87, 60, 684, 453),
    },
    ("matplotlib", "mpl-data/sample_data"): {"grace_hopper.jpg": (11, 22, 506, 600)},
}


def installed() -> dict[Path, Box]:
    """Photos in the folders of installed packages, with a box; no package is imported."""
    found = {}
    for (package, folder), boxes in INSTALLED.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            place = Path(spec.origin).parent / folder
            found |= {place / name: box for name, box in boxes.items()}
    return {path: box for path, box in found.items() if path.is_file()}


def cut(image: Image.Image, view: View) -> Image.Image:
    """The square part of a photo that a view shows, pixels as they are."""
    side = round(view.share * min(image.size))
    left = round(view.across * (image.width - side))
    top = round(view.down * (image.height - side))
    return image.crop((left, top, left + side, top + side))


class Photos:
    """Photos as a Dataset without labels: a folder's, or views of the installed ones.

    root: a folder, searched with all below it, in the order of names; files that are no images by
        their headers are left out. None: every view of the installed photos, view by view, so that
        the first ones show each photo as a whole.

    Raises ConfigError where there are none.
    """

    split = "val"
    classes: tuple[str, ...] = ()

    def __init__(self, root: Path | None = None) -> None:
        self.root = root
        self.attributes: dict[str, tuple[str, ...]] = {}
        if root is None:
            paths = list(installed())
            self._places = [(path, view) for view in VIEWS for path in paths]
        else:
            files = sorted(path for path in root.rglob("*") if is_image(path.name))[:LIMIT]
            self._places = [(path, None) for path in files if is_readable(path)]
        if not self._places:
            raise ConfigError(_none(root))

    @property
    def fingerprint(self) -> str:
        """sha256 over the names and bytes of all photos, and the views."""
        paths = list(dict.fromkeys(path for path, _ in self._places))
        names = [printable(self._name(path)).encode() for path in paths]
        about = "" if self.root else repr(VIEWS)
        return fingerprints.of_contents(names, [str(path) for path in paths], about=about)

    def _name(self, path: Path) -> Path:
        return path.relative_to(self.root) if self.root else Path(path.name)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """Raises IndexError, and ValueError for a file that is no image."""
        path, view = self._places[index]
        image = open_image(path)
        name = printable(self._name(path))
        if view is None:
            return Sample(image, name)
        return Sample(cut(image, view), f"{name}, view {1 + VIEWS.index(view)}")

    def check(self, limit: int | None = None) -> list[str]:
        """Names of files whose headers are no images: none, they are left out."""
        return []


class BoxedPhotos:
    """The installed photos whole, each with the box of its main object, for LOST."""

    split = "val"
    classes = ("main object",)
    root = None

    def __init__(self) -> None:
        self.attributes: dict[str, tuple[str, ...]] = {}
        self._boxes = list(installed().items())
        if not self._boxes:
            raise ConfigError(_none(None))

    @property
    def fingerprint(self) -> str:
        boxes = hashlib.sha256(repr([box for _, box in self._boxes]).encode()).hexdigest()
        return f"{Photos().fingerprint} {boxes[:12]}"

    def __len__(self) -> int:
        return len(self._boxes)

    def __getitem__(self, index: int) -> Sample:
        path, box = self._boxes[index]
        return Sample(open_image(path), path.name, boxes=np.array([box], np.float32))

    def check(self, limit: int | None = None) -> list[str]:
        """Names of files whose headers are no images."""
        return [path.name for path, _ in self._boxes[:limit] if not is_readable(path)]


def _none(root: Path | None) -> str:
    if root is not None:
        return f"photos = {root}: no images there or below"
    return (
        'data.use = "photos": no installed package brings photos along; must be a folder, '
        '"photos:PATH", or run `pip install scikit-image scikit-learn`'
    )
