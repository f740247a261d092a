"""ADE20k in its two releases.

ADEChallengeData2016 (SceneParse150, what segmentation papers use) and the full ADE20K_2021_17_01.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from registers.data.sample import Sample
from registers.readers.annotated import (
    IGNORE,
    Files,
    id_table,
    images_in,
    lines_of,
    read_mask,
    read_values,
    same_size,
)
from registers.readers.images import open_image
from registers.settings.errors import ConfigError

FOLDERS = {"train": "training", "val": "validation"}


def object_names(root: Path | str) -> tuple[str, ...]:
    """The 150 class names of ADEChallengeData2016, the last column of its objectInfo150.txt."""
    lines = lines_of(Path(root) / "objectInfo150.txt")
    return tuple(line.split("\t")[-1].strip() for line in lines if line[0].isdigit())


def _folder(split: str) -> str:
    if split not in FOLDERS:
        raise ConfigError(f"split = {split!r}: must be one of {', '.join(FOLDERS)}")
    return FOLDERS[split]


class Ade20k(Files):
    """ADEChallengeData2016: root/images/{training,validation}/*.jpg, masks in root/annotations.

    reduce_zero_label as all published results have it: 0 (other) is ignored, 1 to 150 become the
    classes 0 to 149.
    """

    def __init__(self, root: Path | str, split: str = "train") -> None:
        root = Path(root)
        folder = _folder(split)
        names = object_names(root)
        super().__init__(root, images_in(root / "images" / folder), split, names)
        self._masks = root / "annotations" / folder
        self._table = id_table(len(names), ignored=(0,), shift=1)

    def annotation_files(self) -> list[Path]:
        return [self._masks / f"{path.stem}.png" for path in self.images]

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image = open_image(path)
        file = self._masks / f"{path.stem}.png"
        mask = read_mask(file, self.name(file), image, self._table)
        return Sample(image=image, name=self.name(path), mask=mask)


class Ade20kFull(Files):
    """ADE20K_2021_17_01: root/images/ADE/{training,validation}/**/X.jpg with X_seg.png and X.json.

    Or the files directly in root. A mask's id is R // 10 * 256 + G (the release's index README);
    X.json holds its name in this image. classes: the names that count, at most 255, e.g.
    `object_names` of the other release; all else is ignored. A name also matches by its first
    synonym.
    """

    def __init__(self, root: Path | str, split: str, classes: Sequence[str]) -> None:
        root = Path(root)
        if not 1 <= len(classes) <= IGNORE:
            raise ConfigError(f"classes = {len(classes)} names: must be 1 to {IGNORE}")
        folder = root / "images" / "ADE" / _folder(split)
        folder = folder if folder.is_dir() else root
        super().__init__(root, sorted(folder.rglob(f"ADE_{split}_*.jpg")), split, classes)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """A class's number by its whole name and by its first synonym."""
        whole = {name: number for number, name in enumerate(self.mask_classes)}
        # backwards, so that the first class of a synonym counts
        first = {_first_synonym(name): number for name, number in reversed(whole.items())}
        return first | whole

    def annotation_files(self) -> list[Path]:
        masks = [path.with_name(path.stem + "_seg.png") for path in self.images]
        return masks + [path.with_suffix(".json") for path in self.images]

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image = open_image(path)
        mask = path.with_name(path.stem + "_seg.png")
        colours = read_values(mask, self.name(mask))
        if colours.ndim != 3:
            raise ValueError(
                f"{self.name(mask)}: a mask of shape {colours.shape}; must be three channels"
            )
        same_size(colours, image, self.name(mask))
        ids = colours[..., 0].astype(np.int64) // 10 * 256 + colours[..., 1]
        table = np.full(max(int(ids.max(initial=0)), 0) + 1, IGNORE, np.uint8)
        for name, place in self._objects(path.with_suffix(".json")):
            number = self._numbers.get(name, self._numbers.get(_first_synonym(name)))
            if number is not None and 0 <= place < len(table):
                table[place] = number
        return Sample(image=image, name=self.name(path), mask=table[ids])

    def _objects(self, path: Path) -> list[tuple[str, int]]:
        """Names and mask ids of the objects in one image."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            objects = json.loads(text)["annotation"]["object"]
            return [(str(one["name"]), int(one["name_ndx"])) for one in objects]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.name(path)}: not a readable ADE20K annotation ({type(error).__name__})"
            ) from None


def _first_synonym(name: str) -> str:
    return name.split(",")[0].strip()
