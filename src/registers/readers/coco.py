"""COCO in its own layout: root/annotations/instances_SPLIT.json and root/SPLIT/*.jpg; and folders of semantic masks.

COCO 20k (Table 3) is `Coco(root, "train2014", names="coco_20k_filenames.txt")`, the list that comes with valeoai/LOST.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from PIL import Image, ImageDraw

from registers.data.sample import Sample
from registers.readers.annotated import IGNORE, Files, id_table, lines_of, pictures_in, read_mask
from registers.readers.images import open_picture
from registers.settings.errors import ConfigError


class Coco(Files):
    """One split as a Dataset, with boxes or with semantic masks drawn from its instances.

    split: "train2014", "train2017"...; names: a list of file names, or a text file of them, which also fixes the order (folders
    before a name do not matter); default: all images of the json, by id.
    Boxes follow the published evaluation of LOST (valeoai/LOST datasets.py): crowds are dropped, both corners are rounded.
    Masks: 0 is background, then the categories by id; where two classes overlap and on crowds the pixel is ignored (as in torchvision's
    references/segmentation/coco_utils.py). Polygons are filled by Pillow: their rim may differ from pycocotools' by a pixel.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train2017",
        names: Sequence[str] | Path | str | None = None,
        truth: Literal["boxes", "masks"] = "boxes",
    ) -> None:
        if truth not in ("boxes", "masks"):
            raise ConfigError(f"truth = {truth!r}: allowed are boxes, masks")
        root, self.truth = Path(root), truth
        path = root / "annotations" / f"instances_{split}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            by_name = {
                Path(image["file_name"]).name: image
                for image in sorted(content["images"], key=lambda i: i["id"])
            }
            categories = [
                (c["id"], str(c["name"]))
                for c in sorted(content["categories"], key=lambda c: c["id"])
            ]
            by_image: dict[int, list[dict]] = {}
            for one in content["annotations"]:
                by_image.setdefault(one["image_id"], []).append(one)
        except FileNotFoundError:
            raise ConfigError(f"coco = {path}: no such file") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"coco = {path}: not COCO's instances format ({type(error).__name__}: {error})"
            ) from None
        chosen = (
            list(by_name)
            if names is None
            else [Path(n).name for n in (lines_of(Path(names)) if _is_path(names) else names)]
        )
        missing = [name for name in chosen if name not in by_name]
        if missing:
            raise ConfigError(
                f"names = {missing[0]} (and {len(missing) - 1} more of {len(chosen)}): not in {path}"
            )
        super().__init__(
            root,
            [root / split / name for name in chosen],
            split,
            ("background", *(name for _, name in categories)),
        )
        number = {category: 1 + place for place, (category, _) in enumerate(categories)}
        kind = "segmentation" if truth == "masks" else "bbox"
        if by_image and not any(kind in one for found in by_image.values() for one in found):
            raise ConfigError(
                f"coco = {path}: has no {kind} in any annotation; allowed for {truth} are annotations with one"
            )
        truths = (by_image.get(by_name[name]["id"], []) for name in chosen)
        self._truths = [
            [
                (number.get(one.get("category_id"), -1), bool(one.get("iscrowd", 0)), one.get(kind))
                for one in found
            ]
            for found in truths
        ]
        self._json = path

    def truth_files(self) -> list[Path]:
        return [self._json]

    def boxes(self, index: int) -> np.ndarray:
        """(K, 4) float32 boxes of one image, without reading it."""
        try:
            found = [
                (x, y, x + w, y + h) for _, crowd, (x, y, w, h) in self._truths[index] if not crowd
            ]
            return np.array([[round(edge) for edge in box] for box in found], np.float32).reshape(
                -1, 4
            )
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{self.name(self.images[index])}: a box in {self._json.name} is not four numbers"
            ) from None

    def read(self, index: int) -> Sample:
        image, name = open_picture(self.images[index]), self.name(self.images[index])
        if self.truth == "boxes":
            return Sample(image=image, name=name, boxes=self.boxes(index))
        mask = np.zeros((image.height, image.width), np.uint8)
        for number, crowd, shape in self._truths[index]:
            if number < 0:
                raise ValueError(
                    f"{name}: an object of a category that {self._json.name} does not list"
                )
            try:
                inside = _inside(shape, image.width, image.height)
            except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
                raise ValueError(
                    f"{name}: not a readable COCO segmentation in {self._json.name} ({error})"
                ) from None
            other = inside & (mask != 0) & (mask != number)
            mask[inside] = IGNORE if crowd else number
            mask[other] = IGNORE
        return Sample(image=image, name=name, mask=mask)


class SemanticMasks(Files):
    """Images in one folder and semantic masks of the same names, PNG of class ids, in another: COCO-Stuff, coco128 and the like.

    classes: id -> name, or a YAML file that holds `classes:`, or None for the ids 0 to 254 as they are. Images without a mask are left
    out; ids in `ignored` do not count; the others become 0, 1, ... in their order. Class ids that `classes` lacks name their file.
    """

    def __init__(
        self,
        images: Path | str,
        masks: Path | str,
        classes: Mapping[int, str] | Path | str | None = None,
        ignored: Sequence[int] = (0, IGNORE),
        split: str = "",
    ) -> None:
        images, self.masks = Path(images), Path(masks)
        if _is_path(classes):
            if not Path(classes).is_file():
                raise ConfigError(f"classes = {classes}: no such file")
            classes = (yaml.safe_load(Path(classes).read_text(encoding="utf-8")) or {}).get(
                "classes"
            ) or {}
        counted = {
            int(i): str(n)
            for i, n in (classes or {i: str(i) for i in range(IGNORE)}).items()
            if int(i) not in ignored
        }
        if not counted or min(counted) < 0 or max(counted) >= IGNORE:
            raise ConfigError(
                f"classes = {list(counted)[:4]}...: allowed are ids from 0 to {IGNORE - 1}, at least one that is not ignored"
            )
        with_mask = {path.stem for path in pictures_in(self.masks)}
        root = Path(os.path.commonpath([images.absolute(), self.masks.absolute()]))
        images, self.masks = images.absolute(), self.masks.absolute()
        super().__init__(
            root,
            [p for p in pictures_in(images) if p.stem in with_mask],
            split,
            [counted[i] for i in sorted(counted)],
        )
        self._table = id_table(0, ignored)
        self._table[sorted(counted)] = np.arange(len(counted))

    def truth_files(self) -> list[Path]:
        return [self.masks / f"{path.stem}.png" for path in self.images]

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image, mask = open_picture(path), self.masks / f"{path.stem}.png"
        return Sample(
            image=image,
            name=self.name(path),
            mask=read_mask(mask, self.name(mask), image, self._table),
        )


def _is_path(value: object) -> bool:
    return isinstance(value, (str, Path))


def _inside(shape: list | dict, width: int, height: int) -> np.ndarray:
    """(H, W) bool of a COCO segmentation: polygons, or run lengths (a list or COCO's compressed text)."""
    if isinstance(shape, dict):
        runs = shape["counts"] if isinstance(shape["counts"], list) else decompress(shape["counts"])
        if list(shape["size"]) != [height, width] or sum(runs) != width * height:
            raise ValueError(
                f"run lengths of {shape['size']}, but the image has {width} x {height} pixels"
            )
        return (
            np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
        )  # by columns, zeros first
    canvas = Image.new("1", (width, height))
    for polygon in shape:
        if len(polygon) >= 6:
            ImageDraw.Draw(canvas).polygon([float(c) for c in polygon], fill=1)
    return np.array(canvas)


def decompress(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed text: groups of 5 bits, low first, sign-extended; from the third on differences to the one before
    the last (cocoapi/common/maskApi.c, rleFrString)."""
    data = [(c if isinstance(c, int) else ord(c)) - 48 for c in text]
    runs, place = [], 0
    while place < len(data):
        value, shift, more = 0, 0, True
        while more:
            group = data[place]
            value |= (group & 31) << shift
            more, shift, place = bool(group & 32), shift + 5, place + 1
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
