"""What a scale decides of model sizes and of each recipe: sizes and lengths."""

from dataclasses import dataclass
from typing import Literal

from registers.settings.schema import at_least

SIZES = ("tiny", "small", "base", "large", "huge", "giant")  # paper, section 2.1 and Fig. 4c


@dataclass(frozen=True)
class SizeSettings:
    """One rung of the ladder of model sizes. drop_path is a property of the size, as in DeiT-III (S 0.05, B 0.1, L 0.3)."""

    width: int = at_least(1)
    depth: int = at_least(1)
    heads: int = at_least(1)
    drop_path: float = at_least(0, 0.0)
    ffn: Literal["mlp", "swiglu"] = "mlp"


@dataclass(frozen=True)
class Recipe:
    """What a scale decides of a method: sizes and lengths. lr is the peak rate for this batch and length."""

    size: str
    patch: int = at_least(1)
    steps: int = at_least(1)
    batch: int = at_least(1)
    lr: float = at_least(0)
    warmup: int = at_least(0)


@dataclass(frozen=True)
class Deit3Recipe(Recipe):
    recipe: Literal["in22k", "in1k"] = "in22k"
    layer_scale: float = at_least(0, 1e-4)  # initial value, deit models_v2.py


@dataclass(frozen=True)
class OpenClipRecipe(Recipe):
    embed: int = at_least(1, 512)
    context: int = at_least(3, 77)
    text_width: int = at_least(1, 512)
    text_depth: int = at_least(1, 12)
    text_heads: int = at_least(1, 8)
    vocabulary: Literal["full", "corpus"] = (
        "full"  # corpus: only tokens that can occur get an embedding (same training, less memory)
    )


@dataclass(frozen=True)
class Dinov2Recipe(Recipe):
    temperature_warmup: int = at_least(0, 0)  # steps over which the teacher temperature rises
    freeze_last_layer: int = at_least(0, 0)  # steps during which the heads' last layer stands still
    prototypes: int = at_least(2, 131072)
    head_hidden: int = at_least(1, 2048)
    dino_bottleneck: int = at_least(1, 384)
    ibot_bottleneck: int = at_least(1, 256)
    local_crops: int = at_least(0, 8)
    local_size: int = at_least(1, 98)
    layer_scale: float = at_least(
        0, 1e-5
    )  # initial value, vitl14.yaml; a run of a few hundred steps needs a larger one
    momentum: float = at_least(
        0, 0.994
    )  # of the teacher at the start, rising to 1; a short run needs a smaller one


@dataclass(frozen=True)
class DinoRecipe(Recipe):
    temperature_warmup: int = at_least(0, 0)
    freeze_last_layer: int = at_least(0, 0)
    prototypes: int = at_least(2, 65536)
    head_hidden: int = at_least(1, 2048)
    bottleneck: int = at_least(1, 256)
    local_crops: int = at_least(0, 8)
    local_size: int = at_least(1, 96)
    momentum: float = at_least(
        0, 0.996
    )  # of the teacher at the start, rising to 1; a short run needs a smaller one


@dataclass(frozen=True)
class MaeRecipe(Recipe):
    decoder_width: int = at_least(1, 512)
    decoder_depth: int = at_least(1, 8)
    decoder_heads: int = at_least(1, 16)


RECIPES: dict[str, type[Recipe]] = {
    "deit3": Deit3Recipe,
    "openclip": OpenClipRecipe,
    "dinov2": Dinov2Recipe,
    "dino": DinoRecipe,
    "mae": MaeRecipe,
}
