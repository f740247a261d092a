"""Sample: one image and what is known about it.

Every reader yields samples, and every recipe and evaluation takes them.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Sample:
    """One image with its optional annotations.

    image: RGB `PIL.Image` of any size; the recipes' augmentations are defined on PIL images.
    name: file name or index, for messages.
    label: class index.
    caption: one sentence.
    attributes: further labels by name (the world's stand-ins for the paper's 14 classification
        sets).
    mask: (H, W) uint8 class ids, 255 = ignore.
    depth: (H, W) float32, metres or scene units, 0 = unknown.
    boxes: (K, 4) float32 as x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
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
    """What every reader offers.

    Access is random: an index always means the same sample, so that a run can resume anywhere.

    classes: names of the values of `Sample.label`.
    attributes: names of the values of each entry of `Sample.attributes`.
    fingerprint: sha256 over what the data set holds; equal fingerprints mean equal samples.
    """

    classes: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
