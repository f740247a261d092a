"""ADE20k in its two releases: ADEChallengeData2016 (SceneParse150, what segmentation papers use) and the full ADE20K_2021_17_01."""

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
    lines_of,
    pictures_in,
    read_mask,
    read_values,
    same_size,
)
from registers.readers.images import open_picture
from registers.settings.errors import ConfigError

FOLDERS = {"train": "training", "val": "validation"}


def object_names(root: Path | str) -> tuple[str, ...]:
    """The 150 class names of ADEChallengeData2016, from its objectInfo150.txt (columns by tabs; the last is the name)."""
    lines = lines_of(Path(root) / "objectInfo150.txt")
    return tuple(line.split("\t")[-1].strip() for line in lines if line[0].isdigit())


class Ade20k(Files):
    """ADEChallengeData2016: root/images/{training,validation}/*.jpg and root/annotations/{...}/*.png.

    reduce_zero_label as all published results have it: 0 (other) is ignored, 1 to 150 become the classes 0 to 149.
    """

    def __init__(self, root: Path | str, split: str = "train") -> None:
        root = Path(root)
        if split not in FOLDERS:
            raise ConfigError(f"split = {split!r}: allowed are {', '.join(FOLDERS)}")
        names = object_names(root)
        super().__init__(root, pictures_in(root / "images" / FOLDERS[split]), split, names)
        self._masks = root / "annotations" / FOLDERS[split]
        self._table = id_table(len(names), ignored=(0,), shift=1)

    def truth_files(self) -> list[Path]:
        return [self._masks / f"{path.stem}.png" for path in self.images]

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image, mask = open_picture(path), self._masks / f"{path.stem}.png"
        return Sample(
            image=image,
            name=self.name(path),
            mask=read_mask(mask, self.name(mask), image, self._table),
        )


class Ade20kFull(Files):
    """ADE20K_2021_17_01: root/images/ADE/{training,validation}/**/X.jpg with X_seg.png and X.json (or the files directly in root).

    A mask's id is R // 10 * 256 + G (the release's index README); X.json says which name it has in this image. classes: the names that
    count, at most 255, e.g. `object_names` of the other release; all else is ignored. A name also matches by its first synonym.
    """

    def __init__(self, root: Path | str, split: str, classes: Sequence[str]) -> None:
        root = Path(root)
        if split not in FOLDERS:
            raise ConfigError(f"split = {split!r}: allowed are {', '.join(FOLDERS)}")
        if not 1 <= len(classes) <= IGNORE:
            raise ConfigError(f"classes = {len(classes)} names: allowed are 1 to {IGNORE}")
        folder = root / "images" / "ADE" / FOLDERS[split]
        folder = folder if folder.is_dir() else root
        super().__init__(root, sorted(folder.rglob(f"ADE_{split}_*.jpg")), split, classes)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        by_synonym = {
            name.split(",")[0].strip(): number
            for number, name in reversed(list(enumerate(self.mask_classes)))
        }
        return by_synonym | {name: number for number, name in enumerate(self.mask_classes)}

    def truth_files(self) -> list[Path]:
        return [path.with_name(path.stem + "_seg.png") for path in self.images]

    def read(self, index: int) -> Sample:
        path = self.images[index]
        image, mask = open_picture(path), path.with_name(path.stem + "_seg.png")
        colours = read_values(mask, self.name(mask))
        if colours.ndim != 3:
            raise ValueError(
                f"{self.name(mask)}: a mask of shape {colours.shape}; allowed are three channels"
            )
        same_size(colours, image, self.name(mask))
        ids = colours[..., 0].astype(np.int64) // 10 * 256 + colours[..., 1]
        try:
            text = path.with_suffix(".json").read_text(encoding="utf-8", errors="replace")
            objects = [
                (str(one["name"]), int(one["name_ndx"]))
                for one in json.loads(text)["annotation"]["object"]
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.name(path.with_suffix('.json'))}: not a readable ADE20K annotation ({type(error).__name__})"
            ) from None
        table = np.full(max(int(ids.max(initial=0)), 0) + 1, IGNORE, np.uint8)
        for name, place in objects:
            number = self._numbers.get(name, self._numbers.get(name.split(",")[0].strip()))
            if number is not None and 0 <= place < len(table):
                table[place] = number
        return Sample(image=image, name=self.name(path), mask=table[ids])
