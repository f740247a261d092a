"""What a scale decides of model sizes and of each recipe: sizes and lengths.

A size is width, depth and heads. Feed-forward layer, drop path and LayerScale belong to the recipe:
the official codes differ in them at one size (DINOv2's ViT-L has SwiGLU, MAE's has not).
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from registers.settings.base import Integer, Section, Text
from registers.settings.errors import UnsuitableError

SIZES = ("tiny", "small", "base", "large", "huge", "giant")  # paper, section 2.1 and Fig. 4c


DropPath = Annotated[float, Field(ge=0, lt=1)]


class SizeSettings(Section):
    """One model size."""

    width: Integer = Field(ge=1, description="Channels of a token.")
    depth: Integer = Field(ge=1, description="Blocks.")
    heads: Integer = Field(ge=1, description="Attention heads; they divide the width.")

    @model_validator(mode="after")
    def _heads_divide_width(self):
        return _divides(self, "heads", "width")


class Form(Section):
    """What every method's backbones have, trained or published: a size and patches."""

    size: Text = Field(description="Name of the model size, one of `sizes`.")
    patch: Integer = Field(ge=1, description="Side of a patch in pixels.")


class Recipe(Form):
    """What a scale decides of every method that is trained: sizes and lengths."""

    steps: Integer = Field(ge=1, description="Training steps.")
    batch: Integer = Field(ge=1, description="Images per step, over all processes.")
    lr: float = Field(ge=0, description="Peak learning rate, for this batch and this length.")
    warmup: Integer = Field(ge=0, description="Steps over which the learning rate rises.")

    @model_validator(mode="after")
    def _warmup_ends_within_training(self):
        if self.warmup > self.steps:
            raise UnsuitableError("warmup", self.warmup, f"at most its {self.steps} steps")
        return self


def _drop_path(official: str) -> dict:
    """The setting of a method that drops residual branches. official: its published shares."""
    return Field(
        default_factory=dict,
        description="Share of residual branches dropped in training, by size; sizes that are not "
        f"named drop none. Official: {official}.",
    )


class Deit3Recipe(Recipe):
    """DeiT-III: supervised training on labels."""

    batch: Integer = Field(
        ge=2, multiple_of=2, description="Images per step; even, as CutMix pairs images."
    )
    drop_path: dict[str, DropPath] = _drop_path(
        "small 0.05, base 0.1, large 0.3, huge 0.5 on ImageNet-21k (deit README_revenge.md)"
    )
    layer_scale: float = Field(
        1e-4, ge=0, description="LayerScale at the start (deit models_v2.py); 0 for none."
    )


class OpenClipRecipe(Recipe):
    """OpenCLIP: contrastive training on images and their captions."""

    embed: Integer = Field(512, ge=1, description="Channels of the joint embedding.")
    context: Integer = Field(77, ge=3, description="Text tokens of a caption.")
    text_width: Integer = Field(512, ge=1, description="Channels of the text transformer.")
    text_depth: Integer = Field(12, ge=1, description="Blocks of the text transformer.")
    text_heads: Integer = Field(8, ge=1, description="Its attention heads; they divide its width.")
    vocabulary: Literal["full", "corpus"] = Field(
        "full",
        description="corpus: only tokens that can occur get an embedding; the training is the "
        "same and takes less memory.",
    )

    @model_validator(mode="after")
    def _text_heads_divide_text_width(self):
        return _divides(self, "text_heads", "text_width")


class DistillationRecipe(Recipe):
    """What DINO and DINOv2 share: a student learns prototypes from its own moving average."""

    temperature_warmup: Integer = Field(
        0, ge=0, description="Steps over which the teacher's temperature rises."
    )
    freeze_last_layer: Integer = Field(
        0, ge=0, description="Steps during which the last layer of the heads is kept as it is."
    )
    prototypes: Integer = Field(ge=2, description="Outputs of the heads.")
    head_hidden: Integer = Field(2048, ge=1, description="Hidden channels of the heads.")
    local_crops: Integer = Field(8, ge=0, description="Small crops per image.")
    local_size: Integer = Field(ge=1, description="Side of a small crop, a multiple of `patch`.")
    momentum: float = Field(
        ge=0,
        le=1,
        description="The teacher's momentum at the start, rising to 1; short runs need less.",
    )

    @model_validator(mode="after")
    def _local_crops_are_whole_patches(self):
        if self.local_size % self.patch:
            must = f"a multiple of patch {self.patch}"
            raise UnsuitableError("local_size", self.local_size, must)
        return self


class Dinov2Recipe(DistillationRecipe):
    """DINOv2: DINO on crops, iBOT on masked patches, KoLeo."""

    prototypes: Integer = Field(131072, ge=2, description="Outputs of each head.")
    dino_bottleneck: Integer = Field(384, ge=1, description="Bottleneck of DINO's head.")
    ibot_bottleneck: Integer = Field(256, ge=1, description="Bottleneck of iBOT's head.")
    local_size: Integer = Field(
        98, ge=1, description="Side of a small crop, a multiple of `patch`."
    )
    ffn: Literal["mlp", "swiglu"] = Field(
        "mlp", description="Kind of feed-forward layer. Official: swiglu (vitl14.yaml)."
    )
    drop_path: dict[str, DropPath] = _drop_path("large and giant 0.4 (vitl14.yaml, vitg14.yaml)")
    layer_scale: float = Field(
        1e-5,
        ge=0,
        description="LayerScale at the start (vitl14.yaml); a few hundred steps need more.",
    )
    momentum: float = Field(
        0.994,
        ge=0,
        le=1,
        description="The teacher's momentum at the start, rising to 1; short runs need less.",
    )


class DinoRecipe(DistillationRecipe):
    """DINO: self-distillation without labels."""

    prototypes: Integer = Field(65536, ge=2, description="Outputs of the head.")
    bottleneck: Integer = Field(256, ge=1, description="Bottleneck of the head.")
    drop_path: dict[str, DropPath] = _drop_path(
        "0.1 at every size, rising from 0 over the blocks (main_dino.py)"
    )
    local_size: Integer = Field(
        96, ge=1, description="Side of a small crop, a multiple of `patch`."
    )
    momentum: float = Field(
        0.996,
        ge=0,
        le=1,
        description="The teacher's momentum at the start, rising to 1; short runs need less.",
    )


class MaeRecipe(Recipe):
    """MAE: masked patches are painted by a decoder."""

    decoder_width: Integer = Field(
        512, ge=4, multiple_of=4, description="Channels of the decoder; sines take multiples of 4."
    )
    decoder_depth: Integer = Field(8, ge=1, description="Blocks of the decoder.")
    decoder_heads: Integer = Field(16, ge=1, description="Its attention heads.")

    @model_validator(mode="after")
    def _decoder_heads_divide_decoder_width(self):
        return _divides(self, "decoder_heads", "decoder_width")


RECIPES: dict[str, type[Recipe]] = {
    "deit3": Deit3Recipe,
    "openclip": OpenClipRecipe,
    "dinov2": Dinov2Recipe,
    "dino": DinoRecipe,
    "mae": MaeRecipe,
}


def _divides(section: Section, part: str, whole: str) -> Section:
    """The section, if its value `part` divides its value `whole`."""
    divisor = getattr(section, part)
    total = getattr(section, whole)
    if total % divisor:
        raise UnsuitableError(part, divisor, f"a divisor of {whole} {total}")
    return section
