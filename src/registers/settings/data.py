"""Which data set plays which role, and how large the embedded world is."""

from dataclasses import dataclass

from registers.settings.schema import at_least

IMAGE_ROLES = (
    "labels",
    "text",
    "images",
    "eval",
)  # roles of data sets of pictures; the other roles are those of ANNOTATED_ROLES
ANNOTATED_ROLES = {  # kinds of data sets with masks, depth or boxes by role, read by data/truth_sets.py
    "segmentation": ("world", "ade20k", "voc2012", "coco", "semantic"),
    "depth": ("world", "nyud"),
    "discovery": ("world", "voc2007", "voc2012", "coco20k", "coco"),
}
DOWNLOADABLE = (
    "cifar10",
)  # image folders that data/download.py can fetch: "folder:cifar10" needs nothing else


@dataclass(frozen=True)
class DataSettings:
    """Which data set plays which role: "world", "folder:PATH" (PATH/{train,val}/CLASS/*.jpg) or "shards:PATTERN" (WebDataset).

    labels trains DeiT-III, text OpenCLIP, images DINOv2, DINO and MAE; eval serves linear and zero-shot classification and
    the token bank. segmentation, depth and discovery (one or several sets) need sets with masks, depth and boxes in their own layouts,
    see ANNOTATED_ROLES, "ade20k:PATH"; they keep their own default. A relative PATH is taken from params.yaml's `data.root`.
    """

    labels: str = "world"
    text: str = "world"
    images: str = "world"
    eval: str = "world"
    segmentation: str = "world"
    depth: str = "world"
    discovery: tuple[str, ...] = ("world",)

    def specs(self, role: str) -> tuple[str, ...]:
        """The data sets of a role: one, or for discovery one or more."""
        given = getattr(self, role)
        return (given,) if isinstance(given, str) else given


@dataclass(frozen=True)
class WorldSettings:
    """The embedded world: images per split and the pixels they are drawn at (recipes crop and resize to image_size)."""

    pixels: int = at_least(8, 64)
    train: int = at_least(1, 4096)
    val: int = at_least(1, 1024)
    test: int = at_least(1, 1024)
