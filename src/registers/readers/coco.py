"""COCO in its own layout, and folders of semantic masks.

root/annotations/instances_SPLIT.json and root/SPLIT/*.jpg. COCO 20k (Table 3) is
`Coco(root, "train2014", names="coco_20k_filenames.txt")`, the list that comes with valeoai/LOST.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from registers.data.sample import Sample
from registers.readers.annotated import Files, id_table, images_in, lines_of, read_mask
from registers.readers.images import open_image
from registers.settings.errors import ConfigError
from registers.vocabulary import IGNORE

FIELDS = {"boxes": "bbox", "masks": "segmentation"}  # of an annotation in the json


class Coco(Files):
    """One split as a Dataset, with boxes or with semantic masks drawn from its instances.

    split: "train2014", "train2017" and the like.
    names: a list of file names, or a text file of them, which also fixes the order (folders before
        a name do not matter); default: all images of the json, by id.
    annotation: what each sample has.

    Boxes follow the published evaluation of LOST (valeoai/LOST datasets.py): crowds are dropped,
    both corners are rounded. Masks: 0 is background, then the categories by id; where two classes
    overlap and on crowds the pixel is ignored (as in torchvision's
    references/segmentation/coco_utils.py). Segmentations are drawn by pycocotools.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train2017",
        names: Sequence[str] | Path | str | None = None,
        annotation: Literal["boxes", "masks"] = "boxes",
    ) -> None:
        if annotation not in FIELDS:
            raise ConfigError(f"annotation = {annotation!r}: must be boxes or masks")
        root = Path(root)
        path = root / "annotations" / f"instances_{split}.json"
        content = _Instances.read(path)
        names = list(content.ids) if names is None else _file_names(names)
        missing = [name for name in names if name not in content.ids]
        if missing:
            raise ConfigError(
                f"names = {missing[0]} (and {len(missing) - 1} more of {len(names)}): not in {path}"
            )
        images = [root / split / name for name in names]
        super().__init__(root, images, split, ("background", *content.categories.values()))

        field = FIELDS[annotation]
        if content.objects and not content.have(field):
            raise ConfigError(
                f"coco = {path}: has no {field} in any annotation; {annotation} must have one each"
            )
        numbers = {category: 1 + place for place, category in enumerate(content.categories)}
        self.annotation = annotation
        self._json = path
        self._objects = [
            [
                (
                    numbers.get(one.get("category_id"), -1),
                    bool(one.get("iscrowd", 0)),
                    one.get(field),
                )
                for one in content.objects.get(content.ids[name], [])
            ]
            for name in names
        ]

    def annotation_files(self) -> list[Path]:
        return [self._json]

    def boxes(self, index: int) -> np.ndarray:
        """(K, 4) float32 boxes of one image, without reading it."""
        try:
            boxes = [_corners(*box) for _, crowd, box in self._objects[index] if not crowd]
            return np.array(boxes, np.float32).reshape(-1, 4)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{self.name(self.images[index])}: a box in {self._json.name} is not four numbers"
            ) from None

    def read(self, index: int) -> Sample:
        image = open_image(self.images[index])
        name = self.name(self.images[index])
        if self.annotation == "boxes":
            return Sample(image=image, name=name, boxes=self.boxes(index))
        mask = np.zeros((image.height, image.width), np.uint8)
        for number, crowd, shape in self._objects[index]:
            if number < 0:
                raise ValueError(
                    f"{name}: an object of a category that {self._json.name} does not list"
                )
            try:
                inside = draw(shape, image.width, image.height)
            except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
                raise ValueError(
                    f"{name}: not a readable COCO segmentation in {self._json.name} ({error})"
                ) from None
            other = inside & (mask != 0) & (mask != number)
            mask[inside] = IGNORE if crowd else number
            mask[other] = IGNORE
        return Sample(image=image, name=name, mask=mask)


class _Instances:
    """An instances_SPLIT.json: ids of images by file name, categories by id, objects by image."""

    def __init__(self, content: dict[str, Any]) -> None:
        images = sorted(content["images"], key=lambda image: image["id"])
        categories = sorted(content["categories"], key=lambda category: category["id"])
        self.ids = {Path(image["file_name"]).name: image["id"] for image in images}
        self.categories = {category["id"]: str(category["name"]) for category in categories}
        self.objects: dict[int, list[dict]] = {}
        for one in content["annotations"]:
            self.objects.setdefault(one["image_id"], []).append(one)

    @classmethod
    def read(cls, path: Path) -> "_Instances":
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(f"coco = {path}: no such file") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"coco = {path}: not COCO's instances format ({type(error).__name__}: {error})"
            ) from None

    def have(self, field: str) -> bool:
        return any(field in one for objects in self.objects.values() for one in objects)


def _file_names(names: Sequence[str] | Path | str) -> list[str]:
    return [Path(name).name for name in (lines_of(Path(names)) if _is_path(names) else names)]


def _is_path(value: object) -> bool:
    return isinstance(value, (str, Path))


def _corners(x: float, y: float, width: float, height: float) -> list[int]:
    return [round(edge) for edge in (x, y, x + width, y + height)]


def draw(shape: list | dict, width: int, height: int) -> np.ndarray:
    """(H, W) bool of a COCO segmentation: polygons, or run lengths as a list or compressed text.

    Raises ValueError (or TypeError, KeyError, OverflowError) for what pycocotools refuses, and for
    what it would take: it never ends on nan, needs memory for each pixel a polygon's edge crosses
    outside the image, and leaves what follows the last run uninitialised.
    """
    from pycocotools import mask as coco

    if isinstance(shape, dict):
        return _draw_runs(shape, width, height)
    polygons = [np.asarray(polygon, np.float64) for polygon in shape if len(polygon) >= 6]
    for polygon in polygons:
        if polygon.ndim != 1 or len(polygon) % 2:
            raise ValueError("a polygon is not x, y, x, y, ...")
        points = polygon.reshape(-1, 2)
        if not (np.isfinite(points).all() and (np.abs(points) <= (2 * width, 2 * height)).all()):
            raise ValueError(f"a polygon reaches far outside the {width} x {height} pixels")
    if not polygons:
        return np.zeros((height, width), bool)
    runs = coco.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return coco.decode(coco.merge(runs)).astype(bool)


def _draw_runs(shape: dict, width: int, height: int) -> np.ndarray:
    from pycocotools import mask as coco

    pixels = width * height
    runs = shape["counts"]
    wrong = ValueError(
        f"run lengths of {shape['size']}, but the image has {width} x {height} pixels"
    )
    if list(shape["size"]) != [height, width]:
        raise wrong
    if isinstance(runs, list):
        if sum(runs) != pixels:
            raise wrong
        return coco.decode(coco.frPyObjects(shape, height, width)).astype(bool)
    mask = coco.decode(shape).astype(bool)  # refuses what is longer than the image
    try:
        coco.decode({"size": [pixels - 1, 1], "counts": runs})
    except ValueError:
        return mask  # longer than one pixel less: it covers the image
    raise wrong


class SemanticMasks(Files):
    """Images in one folder and semantic masks of the same names, PNG of class ids, in another.

    COCO-Stuff, coco128 and the like. Images without a mask are left out.

    images, masks: the two folders.
    classes: id -> name, or a YAML file that holds `classes:`, or None for the ids 0 to 254.
    ignored: ids that do not count; the others become 0, 1, ... in their order.
    split: which part of the set this is.
    """

    def __init__(
        self,
        images: Path | str,
        masks: Path | str,
        classes: Mapping[int, str] | Path | str | None = None,
        ignored: Sequence[int] = (0, IGNORE),
        split: str = "",
    ) -> None:
        self.masks = Path(masks).absolute()
        images = Path(images).absolute()
        names = _class_names(classes)
        counted = {number: names[number] for number in sorted(names) if number not in ignored}
        if not counted or min(counted) < 0 or max(counted) >= IGNORE:
            raise ConfigError(
                f"classes = {list(counted)[:4]}...: must be ids from 0 to {IGNORE - 1}, at least "
                "one of them not ignored"
            )
        with_mask = {path.stem for path in images_in(self.masks)}
        root = Path(os.path.commonpath([images, self.masks]))
        files = [path for path in images_in(images) if path.stem in with_mask]
        super().__init__(root, files, split, list(counted.values()))
        self._table = id_table(0, ignored)
        self._table[list(counted)] = np.arange(len(counted))

    def annotation_files(self) -> list[Path]:
        return [self.masks / f"{path.stem}.png" for path in self.images]

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image = open_image(path)
        file = self.masks / f"{path.stem}.png"
        mask = read_mask(file, self.name(file), image, self._table)
        return Sample(image=image, name=self.name(path), mask=mask)


def _class_names(classes: Mapping[int, str] | Path | str | None) -> dict[int, str]:
    """Names by id. Raises ConfigError for a file that is missing or not of that kind."""
    if _is_path(classes):
        if not Path(classes).is_file():
            raise ConfigError(f"classes = {classes}: no such file")
        try:
            content = yaml.safe_load(Path(classes).read_text(encoding="utf-8"))
            return {int(number): str(name) for number, name in content["classes"].items()}
        except (
            yaml.YAMLError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ):
            raise ConfigError(
                f"classes = {classes}: must be YAML with classes: {{ID: NAME, ...}}"
            ) from None
    if classes:
        return {int(number): str(name) for number, name in classes.items()}
    return {number: str(number) for number in range(IGNORE)}
