"""Scenes of the emergence study, drawn in batches on the device: objects that fill one patch each, on a background.

Every patch has a known kind and a known redundancy, so that "redundant patches" and "global information" need no guessing.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from registers.study.regime import Regime

CODEBOOK = 64  # textures of a patch


class Scenes(NamedTuple):
    """images (B, 3, H, W), about -1 to 1. label (B,). present (B, K): 1 where a kind appears. kinds (B, P): 0..K - 1, or -1 for
    background. contents (B, P): the kind, K + the texture, or -1 where there is neither. redundant (B, P): background that looks like
    its surroundings, without a texture or noise of its own. texture (B,): the background's, where all of it has one, else -1."""

    images: Tensor
    label: Tensor
    present: Tensor
    kinds: Tensor
    contents: Tensor
    redundant: Tensor
    texture: Tensor


def draw(regime: Regime, batch: int, generator: torch.Generator) -> Scenes:
    """`batch` scenes from the generator's state, on the generator's device."""
    device, cells, most = generator.device, regime.grid**2, regime.objects[1]
    rand = lambda *shape: torch.rand(*shape, generator=generator, device=device)  # noqa: E731
    count = torch.randint(
        regime.objects[0], most + 1, (batch, 1), generator=generator, device=device
    )
    active = torch.arange(most, device=device) < count  # (B, most)
    order = rand(batch, cells)
    if regime.plain_at == "corners":
        order[:, corners(regime.grid)] = 2.0  # last in line for an object
    where = order.argsort(1)[:, :most]
    if regime.task == "pair":
        kind = rand(batch, regime.kinds).argsort(1)[:, :most]
        kind[:, 1] = kind[:, 0]
        label = kind[:, 0]
    elif regime.task == "sum":
        kind = torch.randint(
            2 * regime.colours, regime.kinds, (batch, most), generator=generator, device=device
        )
        kind[:, :2] = torch.randint(regime.colours, (batch, 2), generator=generator, device=device)
        label = kind[:, :2].sum(1) % regime.colours
        kind[:, 1] += regime.colours
    elif regime.task == "presence":
        kind = torch.randint(regime.kinds, (batch, most), generator=generator, device=device)
        colours = torch.zeros(batch, regime.colours, device=device)
        colours.scatter_add_(1, kind % regime.colours, active.float())
        label = colours.argmax(1)
    else:
        vocabulary = (
            torch.rand(regime.latents, regime.kinds, generator=_fixed())
            .argsort(1)[:, :4]
            .to(device)
        )
        label = torch.randint(regime.latents, (batch,), generator=generator, device=device)
        kind = vocabulary[label].gather(
            1, torch.randint(4, (batch, most), generator=generator, device=device)
        )

    kinds = torch.full((batch, cells + 1), -1, device=device)
    kinds.scatter_(1, torch.where(active, where, cells), torch.where(active, kind, -1))
    kinds = kinds[:, :cells]
    present = torch.zeros(batch, regime.kinds, device=device).scatter_(
        1, torch.where(active, kind, kind[:, :1]), 1.0
    )

    background, textures, texture, unique = _background(regime, batch, generator)
    shape_masks, palette = _alphabet(regime)
    known = kinds.clamp_min(0)
    glyph = (
        shape_masks.to(device)[known // regime.colours] * (kinds >= 0)[..., None, None]
    )  # (B, P, p, p)
    colour = palette.to(device)[known % regime.colours]  # (B, P, 3)
    patches = torch.where(glyph[:, :, None] > 0, colour[..., None, None], background)
    contents = torch.where((kinds < 0) & (textures >= 0), regime.kinds + textures, kinds)
    return Scenes(
        unpatch(patches, regime.grid),
        label,
        present,
        kinds,
        contents,
        (contents < 0) & ~unique,
        texture,
    )


def corners(grid: int) -> list[int]:
    """Numbers of the four corner patches."""
    return [0, grid - 1, grid * (grid - 1), grid**2 - 1]


def unpatch(patches: Tensor, grid: int) -> Tensor:
    """(B, P, 3, p, p) to images (B, 3, H, W), patches row by row."""
    batch, _, channels, size, _ = patches.shape
    return (
        patches.view(batch, grid, grid, channels, size, size)
        .permute(0, 3, 1, 4, 2, 5)
        .reshape(batch, channels, grid * size, grid * size)
    )


def _fixed() -> torch.Generator:
    """Shapes, textures and classes are the same in all runs."""
    return torch.Generator(device="cpu").manual_seed(12345)


def _alphabet(regime: Regime) -> tuple[Tensor, Tensor]:
    """Shape masks (S, p, p), half of the pixels each, all different; colours (C, 3)."""
    pixels, fixed = regime.patch**2, _fixed()
    masks, seen = [], set()
    while len(masks) < regime.shapes:
        chosen = torch.rand(pixels, generator=fixed).argsort() < pixels // 2
        if tuple(chosen.tolist()) not in seen:
            seen.add(tuple(chosen.tolist()))
            masks.append(chosen.float().view(regime.patch, regime.patch))
    angle = torch.arange(regime.colours) / regime.colours * 2 * torch.pi
    colours = torch.stack(
        [
            torch.cos(angle),
            torch.cos(angle - 2 * torch.pi / 3),
            torch.cos(angle + 2 * torch.pi / 3),
        ],
        1,
    )
    return torch.stack(masks), colours


def _background(
    regime: Regime, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, P, 3, p, p); each patch's own texture, (B, P); the image's texture, (B,); -1 for none; noise of a patch's own, (B, P)."""
    device, grid, size, cells = generator.device, regime.grid, regime.patch, regime.grid**2
    first = torch.rand(batch, 1, 3, 1, 1, generator=generator, device=device) - 0.5
    textures = torch.full((batch, cells), -1, device=device)
    unique = torch.zeros_like(
        textures, dtype=torch.bool
    )  # shows something that no other patch shows, and that has no name
    texture = torch.full((batch,), -1, device=device)
    image = first.expand(batch, cells, 3, size, size)
    if regime.background == "gradient":
        second = torch.rand(batch, 3, 1, 1, generator=generator, device=device) - 0.5
        angle = torch.rand(batch, 1, 1, 1, generator=generator, device=device) * 2 * torch.pi
        axis = torch.linspace(-0.5, 0.5, grid * size, device=device)
        along = torch.cos(angle) * axis[:, None] + torch.sin(angle) * axis[None] + 0.5
        mixed = first[:, 0] * (1 - along) + second * along  # (B, 3, H, W)
        image = (
            mixed.view(batch, 3, grid, size, grid, size)
            .permute(0, 2, 4, 1, 3, 5)
            .reshape(batch, cells, 3, size, size)
        )
    elif regime.background == "noise":
        image = image + regime.contrast * torch.randn(
            batch, cells, 3, size, size, generator=generator, device=device
        )
        unique = torch.ones_like(textures, dtype=torch.bool)
    elif (
        regime.background == "tiled"
    ):  # one texture an image, the same in every patch: as redundant as can be, and different in every image
        book = torch.randn(CODEBOOK, 3, size, size, generator=_fixed()).to(device)
        texture = torch.randint(CODEBOOK, (batch,), generator=generator, device=device)
        image = image + regime.contrast * book[texture][:, None]
    elif (
        regime.background == "texture"
    ):  # a half plane is plain, all else is one of the textures, each patch by itself
        book = torch.randn(CODEBOOK, 3, size, size, generator=_fixed()).to(device)
        chosen = torch.randint(CODEBOOK, (batch, cells), generator=generator, device=device)
        angle = torch.rand(batch, 1, generator=generator, device=device) * 2 * torch.pi
        axis = torch.arange(grid, device=device, dtype=torch.float32)
        along = torch.cos(angle) * axis.repeat_interleave(grid) + torch.sin(angle) * axis.repeat(
            grid
        )
        plain = along.argsort(1).argsort(1) < round(regime.plain * cells)
        if regime.plain_at == "corners":
            plain = torch.zeros_like(plain).index_fill_(
                1, torch.tensor(corners(grid), device=device), True
            )
        if regime.tile:
            image = image + regime.tile * torch.randn(
                batch, 1, 3, size, size, generator=generator, device=device
            )
        image = torch.where(
            plain[..., None, None, None], image, first + regime.contrast * book[chosen]
        )
        textures = torch.where(plain, textures, chosen)
    return image, textures, texture, unique
