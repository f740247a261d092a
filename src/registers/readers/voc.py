"""PASCAL VOC 2007 and 2012 in their own layout.

VOCdevkit/VOC2007/{JPEGImages,Annotations,SegmentationClass,ImageSets}. Get them from the VOC site
(VOCtrainval_06-Nov-2007.tar, VOCtrainval_11-May-2012.tar) and unpack; root is any of the three
folders around JPEGImages.

Not read with torchvision.datasets.VOCDetection, which stops at the first damaged file: here each
one is a ValueError with its name, so that an evaluation can leave it out and count it.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Literal

import numpy as np

from registers.data.sample import Sample
from registers.readers.annotated import Files, id_table, lines_of, read_mask
from registers.readers.images import open_image
from registers.settings.errors import ConfigError

CLASSES = (  # VOC 2012 development kit, table 1
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
FOLDERS = {"boxes": "Annotations", "masks": "SegmentationClass"}
LISTS = {"boxes": "Main", "masks": "Segmentation"}  # folders in ImageSets
SUFFIXES = {"boxes": ".xml", "masks": ".png"}


class Voc(Files):
    """One split as a Dataset, with boxes or with semantic masks.

    root: the folder with JPEGImages, or one of the two around it.
    split: a list in ImageSets/Main (boxes) or ImageSets/Segmentation (masks), e.g. "trainval";
        "all" takes every annotated image.
    year: which VOC to look for below root.
    annotation: what each sample has.

    Boxes follow the published evaluation of LOST (valeoai/LOST datasets.py): corners are 1-based
    and inclusive, so 1 is taken from xmin and ymin; difficult and truncated objects count like any
    other. Corners with a fraction (a few in VOC 2012) lose it. Masks: 0 is background, 1 to 20 the
    classes, 255 (the objects' rim) is ignored.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "trainval",
        year: str = "2007",
        annotation: Literal["boxes", "masks"] = "boxes",
    ) -> None:
        if annotation not in FOLDERS:
            raise ConfigError(f"annotation = {annotation!r}: must be boxes or masks")
        folder = FOLDERS[annotation]
        place = _place(Path(root), year, folder)
        if split == "all":
            files = (place / folder).iterdir()
            names = sorted(path.stem for path in files if path.suffix in SUFFIXES.values())
        else:
            listed = lines_of(place / "ImageSets" / LISTS[annotation] / f"{split}.txt")
            names = [line.split()[0] for line in listed]
        images = [place / "JPEGImages" / f"{name}.jpg" for name in names]
        super().__init__(place, images, split, ("background", *CLASSES))
        self.annotation = annotation
        self._table = id_table(1 + len(CLASSES))

    def annotation_files(self) -> list[Path]:
        return [self._annotation_file(path) for path in self.images]

    def _annotation_file(self, image: Path) -> Path:
        return self.root / FOLDERS[self.annotation] / (image.stem + SUFFIXES[self.annotation])

    def boxes(self, index: int) -> np.ndarray:
        """(K, 4) float32 boxes of one image, read from its xml alone."""
        path = self._annotation_file(self.images[index])
        try:
            objects = ElementTree.parse(path).getroot().findall("object")
            boxes = [_box(node) for node in objects]
        except FileNotFoundError:
            raise ValueError(f"{self.name(path)}: no such file") from None
        except (
            OSError,
            ElementTree.ParseError,
            AttributeError,
            TypeError,
            ValueError,
            OverflowError,
        ) as error:
            raise ValueError(
                f"{self.name(path)}: not a readable VOC annotation ({error})"
            ) from None
        return np.array(boxes, np.float32).reshape(-1, 4)

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image = open_image(path)
        if self.annotation == "boxes":
            return Sample(image=image, name=self.name(path), boxes=self.boxes(index))
        file = self._annotation_file(path)
        mask = read_mask(file, self.name(file), image, self._table)
        return Sample(image=image, name=self.name(path), mask=mask)


def _place(root: Path, year: str, folder: str) -> Path:
    """The folder that holds one year's files."""
    for place in (root, root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}"):
        if (place / folder).is_dir():
            return place
    raise ConfigError(
        f"voc = {root}: no {folder} there, nor in VOC{year} or VOCdevkit/VOC{year} below it"
    )


def _box(node: ElementTree.Element) -> tuple[int, int, int, int]:
    corners = node.find("bndbox")
    x0, y0, x1, y1 = (int(float(corners.findtext(tag))) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return x0 - 1, y0 - 1, x1, y1
