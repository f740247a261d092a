"""The two worlds of the study: how a regime's scenes are drawn and its ViT is built."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from registers.settings.base import build
from registers.settings.errors import ConfigError, nearest
from registers.study.net import Net
from registers.study.regime import Regime, check
from registers.study.scenes import draw
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import TokenRegime, check_tokens, draw_tokens

AnyRegime = Regime | TokenRegime


class World(NamedTuple):
    """check(regime, key) raises ConfigError; draw(regime, count, generator) returns scenes;
    build(regime, registers) returns a net."""

    regime: type
    check: Callable[[Any, str], None]
    draw: Callable[..., Any]
    build: Callable[[Any, int], nn.Module]


WORLDS = {
    "scenes": World(Regime, check, draw, Net),
    "tokens": World(TokenRegime, check_tokens, draw_tokens, TokenNet),
}


def world_of(regime: AnyRegime) -> World:
    return next(world for world in WORLDS.values() if isinstance(regime, world.regime))


def regime_of(values: dict[str, Any], key: str) -> AnyRegime:
    """The checked regime of plain values; `world` says which kind. Raises ConfigError."""
    name = values.get("world", "scenes")
    if name not in WORLDS:
        near = nearest(name, WORLDS)
        raise ConfigError(f"{key}.world: {name} is not allowed; must be scenes or tokens{near}")
    world = WORLDS[name]
    regime = build(world.regime, values, key)
    world.check(regime, key)
    return regime


def values_of(regime: AnyRegime) -> dict[str, Any]:
    """Plain values that `regime_of` turns into the same regime."""
    return regime.model_dump()


def scenes(regime: AnyRegime, count: int, seed: int, device: torch.device) -> Any:
    """`count` scenes that follow from the seed alone."""
    generator = torch.Generator(device=device).manual_seed(seed)
    return world_of(regime).draw(regime, count, generator)


def part(scenes: Any, start: int, stop: int) -> Any:
    """Some of a batch of scenes."""
    return type(scenes)(*(values[start:stop] for values in scenes))
