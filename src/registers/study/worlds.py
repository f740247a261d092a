"""The two worlds of the study: how a regime's scenes are drawn and its ViT is built."""

from typing import Any

import torch
from torch import nn

from registers.study.net import Net
from registers.study.regime import AnyRegime, TokenRegime
from registers.study.scenes import draw
from registers.study.tokens_drawn import draw_drawn
from registers.study.tokens_methods import LabelNet, SelfNet, TextNet
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import draw_tokens

OBJECTIVES = {
    "tasks": TokenNet,
    "deit3": LabelNet,
    "openclip": TextNet,
    "captions": TextNet,
    "dinov2": SelfNet,
    "dino": SelfNet,
    "ibot": SelfNet,
}


def build_net(regime: AnyRegime, registers: int) -> nn.Module:
    """A freshly initialised net."""
    if isinstance(regime, TokenRegime):
        return OBJECTIVES[regime.objective](regime, registers)
    return Net(regime, registers)


def scenes(regime: AnyRegime, count: int, seed: int, device: torch.device) -> Any:
    """`count` scenes that follow from the seed alone."""
    generator = torch.Generator(device=device).manual_seed(seed)
    if not isinstance(regime, TokenRegime):
        return draw(regime, count, generator)
    drawing = draw_drawn if regime.appearance == "drawn" else draw_tokens
    return drawing(regime, count, generator)


def part(scenes: Any, start: int, stop: int) -> Any:
    """Some of a batch of scenes."""
    return type(scenes)(*(values[start:stop] for values in scenes))
