"""Data sets with masks, depth or boxes by the kind that settings name: which split trains or tunes, and which is measured.

Segmentation and depth train on "train" and are measured on "val". Discovery is measured on what the papers measure it on ("val" here) and
its settings are tuned on other annotated images ("train" here).
"""

from collections.abc import Callable
from pathlib import Path

from registers.data.sample import Dataset, Sample
from registers.readers.ade20k import Ade20k, Ade20kFull, object_names
from registers.readers.annotated import Files
from registers.readers.coco import Coco, SemanticMasks
from registers.readers.nyud import is_recording, open_nyud
from registers.readers.voc import Voc
from registers.settings.errors import ConfigError

COCO_20K = "coco_20k_filenames.txt"  # valeoai/LOST: the names of COCO 20k, images of train2014; expected in the set's folder
NAMES = {
    "ade20k": "ADE20k",
    "nyud": "NYUd",
    "voc2007": "VOC 2007",
    "voc2012": "VOC 2012",
    "coco20k": "COCO 20k",
}  # as the paper writes them


def name_of(kind: str, root: Path) -> str:
    """How measurements name a set: as the paper does where it lies as published, with its splits; else by the folder."""
    alien = {
        "ade20k": _is_full,
        "nyud": is_recording,
        "voc2007": _is_unlisted,
        "voc2012": _is_unlisted,
    }.get(kind)
    return root.name if alien and alien(root) else NAMES.get(kind, root.name)


def open_set(kind: str, root: Path, role: str, split: str) -> Dataset | None:
    """One split of a set of `config.TRUTHS`; None where discovery has nothing else to tune on.

    Discovery: VOC 2007 trainval, tuned on its test images; VOC 2012 trainval, tuned on VOC 2007's trainval beside it; COCO 20k, tuned on
    val2014; other COCO sets as their splits are. A set of a single split, or of none (VOC's layout without ImageSets), is halved: "val" is
    every second image from the first on, and the rows say so.
    """
    if kind == "ade20k":
        return _own_or_half(split, lambda name: _ade20k(root, name))
    if kind == "nyud":
        opened = open_nyud(root, split)
        return Half.of(opened, split) if opened.whole else opened
    truth = "masks" if role == "segmentation" else "boxes"
    if kind == "coco":
        return _coco(root, truth, split)
    if kind == "semantic":
        return _semantic(root, split)
    if kind == "coco20k":
        listed = (root / COCO_20K) if split == "val" else None
        other = split == "val" or (root / "annotations" / "instances_val2014.json").is_file()
        return Coco(root, "train2014" if split == "val" else "val2014", listed) if other else None
    year = kind.removeprefix("voc")
    if _is_unlisted(root):
        return Half.of(Voc(root, "all", year, truth), split)
    if role == "segmentation":
        return _own_or_half(split, lambda name: Voc(root, name, year, "masks"))
    measured = Voc(root, "trainval", year)
    if split == "val":
        return measured
    try:
        return (
            Voc(root, "test", "2007")
            if year == "2007"
            else Voc(measured.root.parent, "trainval", "2007")
        )
    except ConfigError:
        return None


def _is_full(root: Path) -> bool:
    return not (root / "annotations").is_dir()


def _is_unlisted(root: Path) -> bool:
    """VOC's folders without lists of images, as labelling tools write them."""
    return (root / "JPEGImages").is_dir() and not (root / "ImageSets").is_dir()


def _ade20k(root: Path, split: str) -> Ade20k | Ade20kFull:
    """Either release; the full one in the 150 classes of the other, whose objectInfo150.txt must lie there or in the folder beside it."""
    if not _is_full(root):
        return Ade20k(root, split)
    for place in (root, root.parent / "ADEChallengeData2016"):
        if (place / "objectInfo150.txt").is_file():
            return Ade20kFull(root, split, object_names(place))
    raise ConfigError(
        f"ade20k = {root}: no annotations/ there (ADEChallengeData2016), nor, for the full release, objectInfo150.txt of "
        "ADEChallengeData2016, there or in that folder beside it, which names the 150 classes that count"
    )


def _own_or_half(split: str, open_one: Callable[[str], Files]) -> Dataset:
    """The split, or half of the other one where the set has only that. Raises the split's ConfigError where it has neither."""
    found, errors = {}, {}
    for name in ("train", "val"):
        try:
            found[name] = open_one(name)
        except ConfigError as error:
            errors[name] = error
    if not found:
        raise errors[split]
    return found[split] if len(found) == 2 else Half.of(*found.values(), split)


def _coco(root: Path, truth: str, split: str) -> Dataset:
    found = sorted(
        path.stem.removeprefix("instances_")
        for path in (root / "annotations").glob("instances_*.json")
    )
    if not found:
        raise ConfigError(f"coco = {root}: no annotations/instances_*.json there")
    return _part(found, split, lambda name: Coco(root, name, truth=truth))


def _semantic(root: Path, split: str) -> Dataset:
    """root/SPLIT/*.jpg with root/semantic/SPLIT/*.png and root/semantic/classes.yaml (classes: id: name)."""
    found = sorted(path.name for path in (root / "semantic").glob("*") if path.is_dir())
    if not found:
        raise ConfigError(f"semantic = {root}: no folder of masks semantic/SPLIT there")
    classes = root / "semantic" / "classes.yaml"
    return _part(
        found,
        split,
        lambda name: SemanticMasks(root / name, root / "semantic" / name, classes, split=name),
    )


def _part(found: list[str], split: str, open_one: Callable[[str], Files]) -> Dataset:
    """The set's own split, or half of its only one."""
    own = [name for name in found if name.startswith(split)]
    if own and len(found) > 1:
        return open_one(own[-1])
    return Half.of(open_one(found[0]), split)


class Half:
    """Every second sample of a data set, from position `first` on."""

    def __init__(self, whole: Files, first: int) -> None:
        self.whole, self.first = whole, first
        self.classes, self.attributes, self.mask_classes = (
            whole.classes,
            whole.attributes,
            whole.mask_classes,
        )
        self.split = f"{whole.split}, every second image from {'the first' if first == 0 else 'the second'} on"
        self.part = f"{self.split} (the set has no other split)"  # what a row says
        if not len(self):
            raise ConfigError(
                f"data = {whole.root}: {len(whole)} images; allowed are at least 2, to train and to measure"
            )

    @classmethod
    def of(cls, whole: Files, split: str) -> "Half":
        return cls(whole, 0 if split == "val" else 1)

    @property
    def fingerprint(self) -> str:
        return f"{self.whole.fingerprint}/{self.first}"

    def __len__(self) -> int:
        return (len(self.whole) + 1 - self.first) // 2

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.whole.root}: index {index} of {len(self)}")
        return self.whole[self.first + 2 * index]

    def check(self, limit: int | None = None, thorough: bool = False) -> list[str]:
        return self.whole.check(limit, thorough)
