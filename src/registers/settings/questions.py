"""Settings of the token bank and of the questions: one section each."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from registers.settings.base import Distinct, Integer, PathText, Section, Text
from registers.settings.errors import UnsuitableError


class BankSettings(Section):
    """The token bank: what a backbone makes of the first evaluation images."""

    images: Integer = Field(512, ge=1, description="Images whose token norms are kept.")
    sample: Integer = Field(
        256,
        ge=1,
        description="Of these, the first so many whose outputs, q, k, v and patch embeddings are "
        "kept too.",
    )
    batch: Integer = Field(64, ge=1, description="Images that pass the backbone together.")

    @model_validator(mode="after")
    def _sample_is_part_of_images(self):
        if self.sample > self.images:
            raise UnsuitableError("sample", self.sample, f"at most bank.images {self.images}")
        return self


class MapSettings(Section):
    """Attention and norm maps."""

    images: Integer = Field(8, ge=1, description="Images shown.")
    size: Integer = Field(
        448,
        ge=1,
        description="Their side in pixels, a multiple of every patch; above `image_size` it is "
        '"calculated in high resolution", as for Fig. 1.',
    )


class ProbeSettings(Section):
    """Linear models on single tokens (paper, section 2.1)."""

    draws: Integer = Field(
        5,
        ge=2,
        description="Random choices of the token; the paper states their spread (Table 6), not "
        "how many.",
    )
    labels: Annotated[tuple[Text, ...], Distinct] = Field(
        (), description="Label sets by name; none named: all that the data set has."
    )


class LinearSettings(Section):
    """Linear classification on frozen features: a grid of heads trained at once (DINOv2)."""

    train_images: Integer = Field(2048, ge=1, description="Training images.")
    val_images: Integer = Field(1024, ge=1, description="Validation images; zero-shot's too.")
    iterations: Integer = Field(12500, ge=1, description="Steps of training.")
    batch: Integer = Field(1024, ge=1, description="Images per step.")


class ZeroshotSettings(Section):
    """The words of zero-shot classification (data/prompts.py)."""

    classes: PathText = Field(
        "own",
        description="own: the data set's class names; or a file of names, a JSON mapping of class "
        "folders to names or one name a line.",
    )
    templates: PathText = Field(
        "openai",
        description='openai: CLIP\'s 80 prompts; or a file of lines like "a photo of a {}.".',
    )


class DiscoverySettings(Section):
    """Object discovery with LOST, untuned as published and tuned over a grid."""

    images: Integer = Field(100000, ge=1, description="Images measured, at most.")
    tune_images: Integer = Field(500, ge=1, description="Training images that choose the grid's.")
    batch: Integer = Field(
        8, ge=1, description="Images of one grid that pass the backbone together."
    )
    k: Integer = Field(
        100, ge=1, description="Patches of lowest degree that LOST expands its seed with."
    )
    facets: Annotated[tuple[Literal["k", "q", "v"], ...], Distinct] = Field(
        ("k", "q", "v"), min_length=1, description="Features: keys, queries or values."
    )
    normalisations: Annotated[tuple[Literal["none", "l2", "centre+l2"], ...], Distinct] = Field(
        ("none", "l2", "centre+l2"), min_length=1, description="What is done to the features."
    )
    layers: Annotated[tuple[Annotated[int, Field(le=-1)], ...], Distinct] = Field(
        (-1, -2, -3, -4),
        min_length=1,
        description="Blocks, counted from the end; the published one is -1.",
    )
    biases: Annotated[tuple[float, ...], Distinct] = Field(
        (-0.6, -0.4, -0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1),
        min_length=1,
        description="Added to similarities, in units of the features' mean squared norm.",
    )
    pictures: Integer = Field(4, ge=0, description="Images whose steps Figs. 13 and 14 show.")
    size: Integer = Field(
        0,
        ge=0,
        description="Short side in pixels; 0 keeps the original size, as published. Large photos "
        "in small patches need a limit.",
    )


class DenseSettings(Section):
    """What the linear heads of segmentation and depth share."""

    train_images: Integer = Field(100000, ge=1, description="Training images, at most.")
    val_images: Integer = Field(100000, ge=1, description="Validation images, at most.")
    iterations: Integer = Field(40000, ge=1, description="Steps of training.")
    batch: Integer = Field(16, ge=1, description="Images per step.")
    lr: float = Field(1e-3, ge=0, description="Peak learning rate, for this batch and length.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay of AdamW.")
    warmup: Integer = Field(1500, ge=0, description="Steps over which the learning rate rises.")
    augment: bool = Field(
        True,
        description="false: features of the training images are computed once, without "
        "augmentation; the rows say so.",
    )
    pictures: Integer = Field(
        4, ge=0, description="Validation images whose prediction is kept for looking at."
    )


class SegmentationSettings(DenseSettings):
    """Linear segmentation; the defaults are ADE20k's (linear configs of dinov2, Denoising-ViT)."""

    size: Integer = Field(512, ge=1, description="Short side in pixels.")
    crop: Integer = Field(512, ge=1, description="Side of the window that slides over the image.")
    stride: Integer = Field(341, ge=1, description="Pixels from one window to the next.")

    @model_validator(mode="after")
    def _windows_leave_no_gaps(self):
        if self.stride > self.crop:
            raise UnsuitableError("stride", self.stride, f"at most crop {self.crop}")
        return self


class DepthSettings(DenseSettings):
    """Linear depth; the defaults are NYUd's (depth configs of dinov2)."""

    iterations: Integer = Field(38400, ge=1, description="Steps of training.")
    lr: float = Field(1e-4, ge=0, description="Peak learning rate, for this batch and length.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of AdamW.")
    warmup: Integer = Field(12800, ge=0, description="Steps over which the learning rate rises.")
    size: Integer = Field(
        0, ge=0, description="Short side in pixels; 0 keeps the original size, as published."
    )
    max_depth: float = Field(10.0, gt=0.001, description="Largest depth, in the data's unit.")
    log_mean_only: Integer = Field(
        100,
        ge=0,
        description="First steps with the loss's mean term alone (SigLoss warm_up).",
    )
    crop: Literal["none", "eigen"] = Field(
        "eigen", description="Pixels that count: all, or Eigen's crop of 480 x 640."
    )
