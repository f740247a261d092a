"""Sample: one image and whatever truths are known about it. Every reader yields it, every recipe and evaluation takes it."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Sample:
    """One image with its optional truths.

    image: RGB `PIL.Image` of any size (the recipes' augmentations are defined on PIL images, so that is what travels).
    name: file name or index, for messages. label: class index. attributes: further labels by name (the world's stand-ins
    for the paper's 14 classification sets). mask: (H, W) uint8 class ids, 255 = ignore. depth: (H, W) float32, metres or
    scene units, 0 = unknown. boxes: (K, 4) float32 as x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
    """

    image: Image.Image
    name: str = ""
    label: int | None = None
    caption: str | None = None
    attributes: dict[str, int] = field(default_factory=dict)
    mask: np.ndarray | None = None
    depth: np.ndarray | None = None
    boxes: np.ndarray | None = None


class Dataset(Protocol):
    """What every reader offers. Random access: position i always means the same sample, so a run can resume anywhere."""

    classes: tuple[str, ...]  # names of the values of Sample.label
    attributes: dict[str, tuple[str, ...]]  # names of the values of each entry of Sample.attributes
    fingerprint: (
        str  # sha256 over what the data set holds; two equal fingerprints mean equal samples
    )

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
