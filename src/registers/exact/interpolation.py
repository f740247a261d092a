"""Gradients through the bicubic resize of position embeddings (paper, appendix A and Fig. 11).

Exact; no backbone needed. DINOv2 resizes its 16 x 16 position embeddings (224 pixels) to 7 x 7 for
local crops (98 pixels) at every step. Without antialiasing most output positions read few input
positions, so some embeddings get large gradients and others hardly any.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from registers.measurements import Measured, Measurement
from registers.models.backbone import OFFSET
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.recipes import DistillationRecipe
from registers.settings.run import Settings

QUESTION = "interpolation"
SOURCE = 16  # side of the grid of 224 pixels at patch 14 (dinov2/configs/train/vitl14.yaml)
TARGET = 7  # and of 98 pixels
MODES = {
    "offset": "scale factor (7 + 0.1) / 16, no antialiasing: the official default",
    "size": "target size, no antialiasing",
    "size+aa": "target size with antialiasing: as in the paper",
}


def measure(subject: None, data: list[EvaluationSet], settings: Settings) -> Measured:
    return Measured([*interpolation_rows(), *grid_rows(settings)])


def resize(x_BCHW: Tensor, target: int, mode: str) -> Tensor:
    """Bicubic resize of a grid to target x target in one of three modes (see MODES).

    Raises ValueError for any other mode.
    """
    if mode == "offset":
        scale = tuple((target + OFFSET) / side for side in x_BCHW.shape[-2:])
        return F.interpolate(x_BCHW, scale_factor=scale, mode="bicubic", antialias=False)
    if mode not in MODES:
        raise ValueError(f"mode: {mode} is not allowed; must be one of {', '.join(MODES)}")
    return F.interpolate(x_BCHW, size=(target, target), mode="bicubic", antialias=mode == "size+aa")


def gradient(mode: str, source: int = SOURCE, target: int = TARGET) -> Tensor:
    """d sum(resized) / d input, (source, source): how much each position embedding weighs."""
    x = torch.zeros(1, 1, source, source, dtype=torch.float64, requires_grad=True)
    resize(x, target, mode).sum().backward()
    return x.grad[0, 0]


def profile(mode: str, source: int = SOURCE, target: int = TARGET) -> Tensor:
    """The same along one axis, (source,).

    The resize is separable: the gradient is the outer product of the profile with itself.
    """
    return gradient(mode, source, target).sum(0) / target  # each axis sums to target


def unevenness(mode: str, source: int = SOURCE, target: int = TARGET) -> float:
    """How far the weights of positions lie apart, the highest less the lowest over their mean.

    At 0 no stripes can come from the resize: at 8 to 4 by target size all positions weigh the same.
    The outermost positions (two on each side of a grid of 8 or more) are left out: padding by
    repetition gives the border weights of its own in every mode.
    """
    outer = 2 if source >= 8 else 1
    inner = profile(mode, source, target)[outer:-outer]
    return float((inner.max() - inner.min()) / inner.mean())


def interpolation_rows() -> list[Measurement]:
    """Rows by mode (`variant`): "gradient" at 16 row + column, "profile" at the position.

    And "unevenness", see there.
    """
    rows = []
    for mode, note in MODES.items():
        weights = {"gradient": gradient(mode).flatten(), "profile": profile(mode)}
        common = dict(variant=mode, coordinate="position", note=note)
        for metric, values in weights.items():
            rows += [
                Measurement(QUESTION, metric, "", value, at=position, **common)
                for position, value in enumerate(values.tolist())
            ]
        rows.append(_uneven(mode, SOURCE, TARGET))
    return rows


def grid_rows(settings: Settings) -> list[Measurement]:
    """ "unevenness" of this scale's own resizes, whole images to local crops, by method.

    data: "METHOD: 16 to 7". Fig. 10 can show stripes only where they are uneven.
    """
    rows = []
    for method, recipe in settings.recipes.items():
        if isinstance(recipe, DistillationRecipe) and recipe.local_crops:
            source = settings.image_size // recipe.patch
            target = recipe.local_size // recipe.patch
            rows += [_uneven(mode, source, target, f"{method}: ") for mode in MODES]
    return rows


def _uneven(mode: str, source: int, target: int, whose: str = "") -> Measurement:
    return Measurement(
        QUESTION,
        "unevenness",
        "",
        unevenness(mode, source, target),
        data=f"{whose}{source} to {target}",
        variant=mode,
        note=MODES[mode],
    )
