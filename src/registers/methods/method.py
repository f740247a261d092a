"""Method: the questions that the training loop asks of a recipe. A recipe is one file that answers them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from registers.data.sample import Dataset, Sample
from registers.models.backbone import Architecture, Backbone
from registers.settings.backbone_id import BackboneId
from registers.settings.run import Settings


@dataclass(frozen=True)
class Progress:
    """Where training stands: step of steps, both counted in optimizer steps; step runs from 0 to steps - 1."""

    step: int
    steps: int


class Method(nn.Module):
    """One recipe. Subclasses build every module in `__init__(settings, id, dataset)`.

    The loop (train.py) seeds all random generators from (seed, step) before each step and from (seed, step, slot) before
    each sample, so a recipe draws from the global generators of torch, numpy and random as it likes and stays resumable.
    """

    role = "images"  # which of Settings.data it trains on: "labels", "text" or "images"
    repeats = 1  # how often each drawn image enters a batch (repeated augmentation)
    normalization: tuple[
        tuple[float, ...], tuple[float, ...]
    ]  # mean and std of its input pixels, in [0, 1]
    backbone: Backbone  # what is saved and looked at (DINOv2: the EMA teacher)

    def __init__(self, settings: Settings, id: BackboneId, dataset: Dataset) -> None:
        super().__init__()
        self.settings, self.id, self.recipe = settings, id, settings.recipes[id.method]

    def architecture(self, **choices) -> Architecture:
        """The backbone's architecture: sizes from the scale, `choices` from the recipe (layer_scale, pre_norm...)."""
        size = self.settings.sizes[self.id.size or self.recipe.size]
        return Architecture(
            width=size.width,
            depth=size.depth,
            heads=size.heads,
            ffn=size.ffn,
            drop_path=size.drop_path,
            patch=self.recipe.patch,
            image=self.settings.image_size,
            registers=self.id.registers,
            antialias=not self.id.noaa,
            **choices,
        )

    def augment(self, sample: Sample) -> dict[str, Tensor]:
        """One training example from one sample; runs in loader workers; the values are stacked to a batch."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        """Scalars of one step; "loss" is the one that is minimised, the others are logged."""
        raise NotImplementedError

    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over the trainable parameters, in groups."""
        raise NotImplementedError

    def schedule(self, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, float]:
        """Set learning rates, weight decays... for this step; returns what is worth logging (lr at least)."""
        raise NotImplementedError

    def before_update(self, progress: Progress) -> dict[str, float]:
        """After backward, before the optimizer: clip or cancel gradients. Returns what is worth logging."""
        return {}

    def after_step(self, progress: Progress) -> None:
        """After the optimizer: e.g. clamp a scale, move the EMA teacher."""

    def extras(self) -> tuple[dict[str, Tensor], dict]:
        """What is saved beside the backbone: tensors (for `.extras.safetensors`) and facts (merged into the json)."""
        return {}, {}


def decay_groups(module: nn.Module, weight_decay: float, exempt: tuple[str, ...]) -> list[dict]:
    """Trainable parameters in two groups, with and without weight decay.

    Without: everything 1-D (biases, norms, LayerScale), and every parameter whose last name is in `exempt`
    (timm.optim.param_groups_weight_decay does the same with full names).
    """
    decayed, kept = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (kept if parameter.ndim <= 1 or name.rpartition(".")[2] in exempt else decayed).append(
                parameter
            )
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
