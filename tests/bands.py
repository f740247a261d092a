"""A data set of coloured bands, each colour with its class and depth, and settings to learn it."""

import numpy as np
from PIL import Image

from registers.data.sample import Sample
from registers.settings.questions import DepthSettings, SegmentationSettings

COLOURS = np.array([(230, 40, 40), (40, 230, 40), (40, 40, 230)], np.uint8)
DEPTHS = np.array([2.0, 4.0, 7.0], np.float32)  # of each colour
SEGMENTATION = SegmentationSettings(
    train_images=64,
    val_images=64,
    iterations=50,
    batch=16,
    lr=0.05,
    warmup=5,
    size=16,
    crop=16,
    stride=16,
    augment=False,
    pictures=2,
)
DEPTH = DepthSettings(
    train_images=64,
    val_images=64,
    iterations=250,
    batch=8,
    lr=0.1,
    warmup=5,
    size=0,
    augment=False,
    log_mean_only=0,
    crop="none",
    pictures=1,
)


class Bands:
    """16 x 16 pixels in two bands of plain colour.

    Where two colours meet nothing is known: that pixel is the interpolation's. bad: number of an
    image that cannot be read. wrong: number of one with a class id out of range.
    """

    classes = ()
    attributes = {}
    fingerprint = "bands"
    mask_classes = ("red", "green", "blue")

    def __init__(
        self, images: int = 32, seed: int = 0, bad: int | None = None, wrong: int | None = None
    ) -> None:
        self.pairs = np.random.default_rng(seed).integers(0, 3, (images, 2))
        self.bad = bad
        self.wrong = wrong

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        if index == self.bad:
            raise ValueError(f"bands {index}: not a readable image")
        left, right = self.pairs[index]
        colour = np.repeat([left, right], 8)[None].repeat(16, 0)
        mask = colour.astype(np.uint8)
        depth = DEPTHS[colour]
        if left != right:
            mask[:, 6:10] = 255
            depth[:, 6:10] = 0
        if index == self.wrong:
            mask[0, 0] = 3
        image = Image.fromarray(COLOURS[colour])
        return Sample(image, name=f"bands {index}", mask=mask, depth=depth)


class ShuffledBands(Bands):
    """The truths are those of other images."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        other = super().__getitem__((index * 7 + 3) % len(self))
        return Sample(sample.image, sample.name, mask=other.mask, depth=other.depth)
