"""Projection heads of self-distillation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DinoHead(nn.Module):
    """Three-layer MLP, L2 norm, then a linear layer whose rows have a norm of their own.

    (..., width) -> (..., prototypes): cosines with the prototypes, times a norm per prototype (as
    dinov2/layers/dino_head.py). The norms start at 1 and are trained in DINOv2; DINO holds them
    there (dino/main_dino.py, --norm_last_layer).
    """

    def __init__(
        self, width: int, hidden: int, bottleneck: int, prototypes: int, train_norm: bool = True
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck, prototypes, train_norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class Prototypes(nn.Module):
    """A linear layer without bias, with weight normalisation: length x direction / |direction|.

    The same function as torch.nn.utils.weight_norm, with `direction` and `length` as parameters.
    """

    def __init__(self, features: int, prototypes: int, train_norm: bool) -> None:
        super().__init__()
        initial = nn.Linear(features, prototypes, bias=False).weight  # as the official code
        self.direction = nn.Parameter(initial.detach().clone())
        self.length = nn.Parameter(torch.ones(prototypes), requires_grad=train_norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.direction, dim=-1) * self.length[:, None])
