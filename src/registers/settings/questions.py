"""Settings of the token bank and of the questions: one section each."""

from dataclasses import dataclass
from typing import Literal

from registers.settings.schema import at_least


@dataclass(frozen=True)
class BankSettings:
    """The token bank: norms of all `images`; outputs, q, k, v and patch embeddings of the first `sample` of them."""

    images: int = at_least(1, 512)
    sample: int = at_least(1, 256)
    batch: int = at_least(1, 64)


@dataclass(frozen=True)
class MapSettings:
    """The pictures: how many images are shown, and their size in pixels (above image_size: "calculated in high resolution", Fig. 1)."""

    images: int = at_least(1, 8)
    size: int = at_least(1, 448)


@dataclass(frozen=True)
class ProbeSettings:
    """Linear models on single tokens (section 2.1): random choices of the token, and label sets by name (none named: all)."""

    draws: int = at_least(
        2, 5
    )  # the paper states the spread over the choice (Table 6), not how many
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinearSettings:
    """Linear classification on frozen features: the whole grid of heads is trained at once (protocol of DINOv2)."""

    train_images: int = at_least(1, 2048)
    val_images: int = at_least(1, 1024)
    iterations: int = at_least(1, 12500)
    batch: int = at_least(1, 1024)


@dataclass(frozen=True)
class ZeroshotSettings:
    """Words of zero-shot classification (data/words.py). classes: own, or a file of names; templates: openai, CLIP's 80, or a file."""

    classes: str = "own"
    templates: str = "openai"


@dataclass(frozen=True)
class DiscoverySettings:
    """Object discovery with LOST: images looked at, and the grid over which facet, layer, normalisation and bias are tuned."""

    images: int = at_least(1, 100000)
    tune_images: int = at_least(1, 500)
    batch: int = at_least(1, 8)  # images of one grid that pass the backbone together
    k: int = at_least(1, 100)
    facets: tuple[str, ...] = ("k", "q", "v")
    normalisations: tuple[str, ...] = ("none", "l2", "centre+l2")
    layers: tuple[int, ...] = (-1, -2, -3, -4)  # counted from the end; the published one is -1
    biases: tuple[float, ...] = (
        -0.6,
        -0.4,
        -0.3,
        -0.2,
        -0.1,
        -0.05,
        0.0,
        0.05,
        0.1,
    )  # in units of the mean squared norm of the features
    pictures: int = at_least(0, 4)  # images whose steps are kept for Figs. 13 and 14
    size: int = at_least(
        0, 0
    )  # short side in pixels; 0: as it is, as published (large photos in small patches need a smaller one)


@dataclass(frozen=True)
class DenseSettings:
    """What the linear heads of segmentation and depth share. lr is for this batch and length.

    augment=False: frozen features of the training images are computed once and the head is trained on them (declared in the rows).
    """

    train_images: int = at_least(1, 100000)
    val_images: int = at_least(1, 100000)
    iterations: int = at_least(1, 40000)
    batch: int = at_least(1, 16)
    lr: float = at_least(0, 1e-3)
    weight_decay: float = at_least(0, 1e-4)
    warmup: int = at_least(0, 1500)
    augment: bool = True
    pictures: int = at_least(0, 4)  # validation images whose prediction is kept for looking at


@dataclass(frozen=True)
class SegmentationSettings(DenseSettings):
    """Linear segmentation; the defaults are ADE20k's (dinov2 and Denoising-ViT, linear configs): short side, crop and stride in pixels."""

    size: int = at_least(1, 512)
    crop: int = at_least(1, 512)
    stride: int = at_least(1, 341)


@dataclass(frozen=True)
class DepthSettings(DenseSettings):
    """Linear depth; the defaults are NYUd's (dinov2's depth configs). max_depth in the data's unit; size: short side, 0 = as it is."""

    iterations: int = at_least(1, 38400)
    lr: float = at_least(0, 1e-4)
    weight_decay: float = at_least(0, 0.01)
    warmup: int = at_least(0, 12800)
    size: int = at_least(0, 0)
    max_depth: float = at_least(0, 10.0)
    log_mean_only: int = at_least(
        0, 100
    )  # first iterations with the loss's mean term alone (SigLoss warm_up)
    crop: Literal["none", "eigen"] = "eigen"  # pixels that count: all, or Eigen's crop of 480 x 640
