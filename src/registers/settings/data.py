"""Which data set plays which role, and how large the built-in world is."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from registers.settings.base import Distinct, Integer, Section, Text
from registers.settings.errors import UnsuitableError

# data sets of images, with or without labels and captions
IMAGE_ROLES = ("labels", "text", "images", "eval")
IMAGE_KINDS = ("world", "photos", "folder", "shards")

# data sets with masks, depth or boxes: the kinds that readers/splits.py reads, by role
ANNOTATED_ROLES = {
    "segmentation": ("world", "none", "ade20k", "voc2012", "coco", "semantic"),
    "depth": ("world", "none", "nyud"),
    "discovery": ("world", "none", "photos", "voc2007", "voc2012", "coco20k", "coco"),
}
BUILT_IN = ("world", "photos", "none")  # kinds that need no path; "photos" may have one

# image folders that readers/download.py can fetch: "folder:cifar10" needs nothing else
DOWNLOADABLE = ("cifar10",)


class DataSettings(Section):
    """The data set of each role.

    "world" is the built-in one, "folder:PATH" holds {train,val}/CLASS/*.jpg, "shards:PATTERN" is
    WebDataset. Data sets with masks, depth or boxes are read in their own layouts, such as
    "ade20k:PATH". "photos" are those of installed packages, without labels, "photos:PATH" those of
    any folder, to look at and not to train on; "none", for `segmentation`, `depth` and `discovery`
    alone, leaves out what needs such data. A relative PATH is taken from `data.root`.
    """

    labels: Text = Field("world", description="Images with labels: trains DeiT-III.")
    text: Text = Field("world", description="Images with captions: trains OpenCLIP.")
    images: Text = Field("world", description="Images alone: trains DINOv2, DINO and MAE.")
    eval: Text = Field(
        "world",
        description="Labelled images for linear and zero-shot classification and the token bank.",
    )
    segmentation: Text = Field("world", description="Images with masks.")
    depth: Text = Field("world", description="Images with depth.")
    discovery: Annotated[tuple[Text, ...], Distinct] = Field(
        ("world",), min_length=1, description="Images with boxes: one data set or several."
    )

    @field_validator(*IMAGE_ROLES)
    @classmethod
    def _is_an_image_set(cls, spec: str) -> str:
        return _checked(spec, IMAGE_KINDS)

    @field_validator(*ANNOTATED_ROLES)
    @classmethod
    def _is_an_annotated_set(cls, specs: Any, info: Any) -> Any:
        for spec in (specs,) if isinstance(specs, str) else specs:
            _checked(spec, ANNOTATED_ROLES[info.field_name])
        return specs

    def specs(self, role: str) -> tuple[str, ...]:
        """The data sets of a role: one, or for discovery one or more."""
        spec = getattr(self, role)
        return (spec,) if isinstance(spec, str) else spec


class WorldSettings(Section):
    """The built-in world of drawn scenes: images per split, and the size they are drawn at."""

    pixels: Integer = Field(
        64, ge=8, description="Side of a drawn image; recipes crop and resize it to `image_size`."
    )
    train: Integer = Field(4096, ge=1, description="Training images.")
    val: Integer = Field(1024, ge=1, description="Validation images.")
    test: Integer = Field(1024, ge=1, description="Test images.")


def place_of(spec: str) -> str:
    """PATH of "folder:PATH"; nothing for "world"."""
    return spec.partition(":")[2]


def _checked(spec: str, kinds: Iterable[str]) -> str:
    """The spec of a data set, if its kind is among `kinds` and its path names something."""
    kind, colon, place = spec.partition(":")
    forms = ", ".join(_form(kind) for kind in kinds)
    wanted = kind not in BUILT_IN
    if kind not in kinds or (kind != "photos" and wanted != bool(colon)) or (colon and not place):
        raise UnsuitableError("", spec, f"one of {forms}")
    try:
        path = Path(place).expanduser()
    except RuntimeError as error:
        raise UnsuitableError("", spec, "a path whose ~ names a known user") from error
    if path == Path(path.anchor) and path.is_absolute():
        raise UnsuitableError("", spec, "a folder below the root of the file system")
    return spec


def _form(kind: str) -> str:
    pattern = "PATTERN" if kind == "shards" else "PATH"
    return kind if kind in BUILT_IN else f"{kind}:{pattern}"
