"""Annotated data sets by the kind that settings name: which split trains, and which is measured.

Segmentation and depth train on "train" and are measured on "val". Discovery is measured on what
the papers measure it on ("val" here), and its settings are tuned on other annotated images
("train" here).
"""

from collections.abc import Callable
from pathlib import Path

from registers.data.sample import Sample
from registers.readers.ade20k import Ade20k, Ade20kFull, object_names
from registers.readers.annotated import Files
from registers.readers.coco import Coco, SemanticMasks
from registers.readers.nyud import is_recording, open_nyud
from registers.readers.voc import Voc
from registers.settings.errors import ConfigError

# The names of COCO 20k, images of train2014; comes with valeoai/LOST, expected in the set's folder.
COCO_20K = "coco_20k_filenames.txt"
NAMES = {  # as the paper writes them
    "ade20k": "ADE20k",
    "nyud": "NYUd",
    "voc2007": "VOC 2007",
    "voc2012": "VOC 2012",
    "coco20k": "COCO 20k",
}


class Half:
    """Every second sample of a data set, from position `first` on."""

    def __init__(self, whole: Files, first: int) -> None:
        self.whole = whole
        self.first = first
        self.classes = whole.classes
        self.attributes = whole.attributes
        self.mask_classes = whole.mask_classes
        start = "the first" if first == 0 else "the second"
        self.split = f"{whole.split}, every second image from {start} on"
        self.part = f"{self.split} (the set has no other split)"  # for the note of a row
        if not len(self):
            raise ConfigError(
                f"data = {whole.root}: {len(whole)} images; must be at least 2, to train and to "
                "measure"
            )

    @classmethod
    def of(cls, whole: Files, split: str) -> "Half":
        return cls(whole, 0 if split == "val" else 1)

    def keep_digests(self, path: Path) -> None:
        self.whole.keep_digests(path)

    @property
    def fingerprint(self) -> str:
        return f"{self.whole.fingerprint}/{self.first}"

    def __len__(self) -> int:
        return (len(self.whole) + 1 - self.first) // 2

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.whole.root}: index {index} of {len(self)}")
        return self.whole[self.first + 2 * index]

    def check(self, limit: int | None = None) -> list[str]:
        return self.whole.check(limit)


def name_of(kind: str, root: Path) -> str:
    """How rows name a set: as the paper does where it lies as published, else by its folder."""
    is_other = {
        "ade20k": _is_full,
        "nyud": is_recording,
        "voc2007": _is_unlisted,
        "voc2012": _is_unlisted,
    }.get(kind)
    return root.name if is_other and is_other(root) else NAMES.get(kind, root.name)


def places(kind: str, root: Path) -> list[Path]:
    """The folders and files that a set is read from: its own, and what is looked for beside it."""
    beside = {"ade20k": ["ADEChallengeData2016/objectInfo150.txt"], "voc2012": ["VOC2007"]}
    return [root, *(root.parent / name for name in beside.get(kind, []))]


def open_set(kind: str, root: Path, role: str, split: str) -> Files | Half | None:
    """One split of an annotated set; None where discovery has nothing else to tune on.

    kind: one of `settings.data.ANNOTATED_ROLES`.
    root: where it lies.
    role: "segmentation", "depth" or "discovery".
    split: "train" or "val".

    A set of a single split, or of none (VOC's layout without ImageSets), is halved: "val" is every
    second image from the first on, and the rows' notes tell it. Raises ConfigError for a set that
    is not there.
    """
    if kind == "ade20k":
        return _own_or_half(split, lambda name: _ade20k(root, name))
    if kind == "nyud":
        nyud = open_nyud(root, split)
        return Half.of(nyud, split) if nyud.whole else nyud
    if kind == "coco":
        return _coco(root, "masks" if role == "segmentation" else "boxes", split)
    if kind == "semantic":
        return _semantic(root, split)
    if kind == "coco20k":
        return _coco20k(root, split)
    return _voc(root, kind.removeprefix("voc"), role, split)


# --- the kinds -----------------------------------------------------------------------------------


def _is_full(root: Path) -> bool:
    return not (root / "annotations").is_dir()


def _ade20k(root: Path, split: str) -> Ade20k | Ade20kFull:
    """Either release; the full one in the 150 classes of the other.

    Those are named by objectInfo150.txt, which must lie there or in the other's folder beside it.
    """
    if not _is_full(root):
        return Ade20k(root, split)
    for place in (root, root.parent / "ADEChallengeData2016"):
        if (place / "objectInfo150.txt").is_file():
            return Ade20kFull(root, split, object_names(place))
    raise ConfigError(
        f"ade20k = {root}: no annotations/ there, as ADEChallengeData2016 has; the full release "
        "also needs that set's objectInfo150.txt, which names the 150 classes that count, there or "
        "in ADEChallengeData2016 beside it"
    )


def _is_unlisted(root: Path) -> bool:
    """VOC's folders without lists of images, as labelling tools write them."""
    return (root / "JPEGImages").is_dir() and not (root / "ImageSets").is_dir()


def _voc(root: Path, year: str, role: str, split: str) -> Files | Half | None:
    """Discovery: VOC 2007 trainval, tuned on its test images; VOC 2012 trainval, tuned on VOC
    2007's trainval beside it."""
    annotation = "masks" if role == "segmentation" else "boxes"
    if _is_unlisted(root):
        return Half.of(Voc(root, "all", year, annotation), split)
    if role == "segmentation":
        return _own_or_half(split, lambda name: Voc(root, name, year, annotation))
    measured = Voc(root, "trainval", year)
    if split == "val":
        return measured
    try:
        if year == "2007":
            return Voc(root, "test", "2007")
        return Voc(measured.root.parent, "trainval", "2007")
    except ConfigError:
        return None


def _coco(root: Path, annotation: str, split: str) -> Files | Half:
    files = (root / "annotations").glob("instances_*.json")
    names = sorted(path.stem.removeprefix("instances_") for path in files)
    if not names:
        raise ConfigError(f"coco = {root}: no annotations/instances_*.json there")
    return _part(names, split, lambda name: Coco(root, name, annotation=annotation))


def _coco20k(root: Path, split: str) -> Coco | None:
    """COCO 20k, tuned on val2014 where that lies beside it."""
    if split == "val":
        return Coco(root, "train2014", root / COCO_20K)
    if (root / "annotations" / "instances_val2014.json").is_file():
        return Coco(root, "val2014")
    return None


def _semantic(root: Path, split: str) -> Files | Half:
    """root/SPLIT/*.jpg with root/semantic/SPLIT/*.png and root/semantic/classes.yaml.

    classes.yaml holds `classes:`, a mapping of ids to names.
    """
    masks = root / "semantic"
    names = sorted(path.name for path in masks.glob("*") if path.is_dir())
    if not names:
        raise ConfigError(f"semantic = {root}: no folder of masks semantic/SPLIT there")

    def open_one(name: str) -> SemanticMasks:
        return SemanticMasks(root / name, masks / name, masks / "classes.yaml", split=name)

    return _part(names, split, open_one)


# --- sets of one split ---------------------------------------------------------------------------


def _own_or_half(split: str, open_one: Callable[[str], Files]) -> Files | Half:
    """The split, or half of the other one where the set has only that.

    Raises the split's ConfigError where it has neither.
    """
    parts = {}
    errors = {}
    for name in ("train", "val"):
        try:
            parts[name] = open_one(name)
        except ConfigError as error:
            errors[name] = error
    if not parts:
        raise errors[split]
    return parts[split] if len(parts) == 2 else Half.of(*parts.values(), split)


def _part(names: list[str], split: str, open_one: Callable[[str], Files]) -> Files | Half:
    """The set's own split, or half of its only one."""
    own = [name for name in names if name.startswith(split)]
    if own and len(names) > 1:
        return open_one(own[-1])
    return Half.of(open_one(names[0]), split)
