"""Method: what the training loop asks of a recipe. A recipe is one file that answers it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from registers.data.sample import Dataset, Sample
from registers.models import backbone
from registers.models.backbone import Architecture, Backbone, Normalization
from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.run import Settings


@dataclass(frozen=True)
class Progress:
    """Where training stands: step of steps, in optimizer steps; step runs from 0 to steps - 1."""

    step: int
    steps: int


class Method(nn.Module, ABC):
    """One recipe. Subclasses build every module in `__init__(settings, id, dataset)`.

    The loop (train.py) seeds all random generators from (seed, step) before each step and from
    (seed, number) before each example, so a recipe draws from the global generators of torch, numpy
    and random as it likes and stays resumable.
    """

    normalization: Normalization  # mean and deviation of its input's channels, pixels in 0..1
    backbone: Backbone  # what is saved and looked at (DINOv2: the EMA teacher)

    def __init__(self, settings: Settings, id: BackboneId, dataset: Dataset) -> None:
        super().__init__()
        self.settings = settings
        self.id = id
        self.recipe = settings.recipes[id.method]

    @property
    def size(self) -> str:
        """Name of the model size."""
        return self.id.size or self.recipe.size

    def build_backbone(self, **choices: Any) -> Backbone:
        """A fresh backbone: its size from the scale, `choices` from the recipe (ffn...)."""
        size = self.settings.sizes[self.size]
        architecture = Architecture(
            width=size.width,
            depth=size.depth,
            heads=size.heads,
            patch=self.recipe.patch,
            image=self.settings.image_size,
            registers=self.id.registers,
            antialias=not self.id.noaa,
            **choices,
        )
        return backbone.build(architecture, str(self.id), self.normalization)

    @abstractmethod
    def augment(self, sample: Sample) -> dict[str, Tensor]:
        """One training example from one sample.

        Runs in loader workers; the values of the examples are stacked to a batch.
        """

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        """Scalars of one step; "loss" is the one that is minimised, the others are logged."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over the trainable parameters, in groups."""

    @abstractmethod
    def schedule(self, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, float]:
        """Set learning rates, weight decays... for this step.

        Returns what is worth logging, the learning rate at least.
        """

    def before_update(self, progress: Progress) -> dict[str, float]:
        """After backward, before the optimizer: clip or cancel gradients.

        Returns what is worth logging.
        """
        return {}

    def after_step(self, progress: Progress) -> None:
        """After the optimizer: e.g. clamp a scale, move the EMA teacher."""

    def extras(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is saved besides the backbone: tensors, and facts for the checkpoint's card."""
        return {}, {}


def build(settings: Settings, id: BackboneId, samples: Dataset) -> Method:
    """The recipe of a backbone on its data, freshly initialised from its seed.

    Raises ConfigError where the scale has no such method.
    """
    if id.method not in settings.recipes:
        raise ConfigError(
            f"backbone = {id}: scale {settings.scale} has no recipe {id.method}; "
            f"must be one of {', '.join(settings.recipes)}"
        )
    _, _, name = METHODS[id.method].factory.partition(":")
    factory = getattr(import_module(recipe_module(id)), name)
    torch.manual_seed(id.seed)
    return factory(settings, id, samples)


def recipe_module(id: BackboneId) -> str:
    """Dotted name of the module of a backbone's method."""
    return METHODS[id.method].factory.partition(":")[0]


def decay_groups(
    module: nn.Module, weight_decay: float, exempt: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups, first with weight decay, then without.

    Without: everything 1-D (biases, norms, LayerScale), and every parameter whose last name is in
    `exempt`.
    """
    patterns = [f"*.{name}" for name in exempt]
    groups = param_groups_weight_decay(module, weight_decay, no_weight_decay_list=patterns)
    return groups[::-1]
