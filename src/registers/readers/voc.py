"""PASCAL VOC 2007 and 2012 in their own layout: VOCdevkit/VOC2007/{JPEGImages,Annotations,SegmentationClass,ImageSets}.

Get them from the VOC site (VOCtrainval_06-Nov-2007.tar, VOCtrainval_11-May-2012.tar) and unpack; root is any of the three folders
around JPEGImages.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Literal

import numpy as np

from registers.data.sample import Sample
from registers.readers.annotated import Files, id_table, lines_of, read_mask
from registers.readers.images import open_picture
from registers.settings.errors import ConfigError

# VOC 2012 development kit, table 1
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class Voc(Files):
    """One split as a Dataset, with boxes or with semantic masks.

    split: a list in ImageSets/Main (boxes) or ImageSets/Segmentation (masks), e.g. "trainval"; "all" takes every annotated image.
    Boxes follow the published evaluation of LOST (valeoai/LOST datasets.py): corners are 1-based and inclusive, so 1 is taken from
    xmin and ymin; difficult and truncated objects count like any other. hard=False is its VOC_all setting: they are dropped, and
    an image left with none has no boxes. A tag that is missing or empty says no. Corners with a fraction (a few in VOC 2012) lose it.
    Masks: 0 is background, 1 to 20 the classes, 255 (the objects' rim) is ignored.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "trainval",
        year: str = "2007",
        truth: Literal["boxes", "masks"] = "boxes",
        hard: bool = True,
    ) -> None:
        if truth not in ("boxes", "masks"):
            raise ConfigError(f"truth = {truth!r}: allowed are boxes, masks")
        given = Path(root)
        places = [
            p
            for p in (given, given / f"VOC{year}", given / "VOCdevkit" / f"VOC{year}")
            if _truths(p, truth).is_dir()
        ]
        if not places:
            raise ConfigError(
                f"voc = {given}: no {_truths(Path(), truth)} there, nor in VOC{year} or VOCdevkit/VOC{year} below it"
            )
        place = places[0]
        if split == "all":
            names = sorted(
                path.stem
                for path in _truths(place, truth).iterdir()
                if path.suffix in (".xml", ".png")
            )
        else:
            listed = lines_of(
                place
                / "ImageSets"
                / ("Main" if truth == "boxes" else "Segmentation")
                / f"{split}.txt"
            )
            names = [line.split()[0] for line in listed]
        super().__init__(
            place,
            [place / "JPEGImages" / f"{name}.jpg" for name in names],
            split,
            ("background", *CLASSES),
        )
        self.truth, self.hard, self._table = truth, hard, id_table(1 + len(CLASSES))

    def truth_files(self) -> list[Path]:
        suffix = ".xml" if self.truth == "boxes" else ".png"
        return [_truths(self.root, self.truth) / (path.stem + suffix) for path in self.images]

    def boxes(self, index: int) -> np.ndarray:
        """(K, 4) float32 boxes of one image, read from its xml alone."""
        path = _truths(self.root, "boxes") / (self.images[index].stem + ".xml")
        try:
            objects = ElementTree.parse(path).getroot().findall("object")
            found = [
                _box(o)
                for o in objects
                if self.hard or not (_says_yes(o, "truncated") or _says_yes(o, "difficult"))
            ]
        except FileNotFoundError:
            raise ValueError(f"{self.name(path)}: no such file") from None
        except (
            ElementTree.ParseError,
            AttributeError,
            TypeError,
            ValueError,
            OverflowError,
        ) as error:
            raise ValueError(
                f"{self.name(path)}: not a readable VOC annotation ({error})"
            ) from None
        return np.array(found, np.float32).reshape(-1, 4)

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image, name = open_picture(path), self.name(path)
        if self.truth == "boxes":
            return Sample(image=image, name=name, boxes=self.boxes(index))
        mask = self.root / "SegmentationClass" / f"{path.stem}.png"
        return Sample(
            image=image, name=name, mask=read_mask(mask, self.name(mask), image, self._table)
        )


def _truths(root: Path, truth: str) -> Path:
    return root / ("Annotations" if truth == "boxes" else "SegmentationClass")


def _says_yes(node: ElementTree.Element, tag: str) -> bool:
    return (node.findtext(tag) or "").strip() == "1"


def _box(node: ElementTree.Element) -> tuple[int, ...]:
    corners = node.find("bndbox")
    x0, y0, x1, y1 = (int(float(corners.findtext(tag))) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return x0 - 1, y0 - 1, x1, y1
