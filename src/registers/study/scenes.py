"""Scenes drawn in batches on the device: objects that fill one patch each, on a background.

Every patch has a known kind and a known redundancy, so that "redundant patches" and "global
information" need no guessing.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from registers.study.regime import Regime

CODEBOOK = 64  # textures of a patch


class Scenes(NamedTuple):
    """A batch of scenes.

    images: (B, 3, H, W), about -1 to 1. label: (B,).
    present: (B, K), 1 where a kind appears.
    kinds: (B, P), 0..K - 1, or -1 for background.
    contents: (B, P), the kind, K + the texture, or -1 where there is neither.
    redundant: (B, P), background that looks like its surroundings, without a texture or noise of
    its own. texture: (B,), the background's, where all of it has one, else -1.
    """

    images: Tensor
    label: Tensor
    present: Tensor
    kinds: Tensor
    contents: Tensor
    redundant: Tensor
    texture: Tensor


class Background(NamedTuple):
    """What patches show where there is no object.

    patches: (B, P, 3, p, p). textures: (B, P), each patch's own, -1 for none. texture: (B,), the
    whole image's, -1 for none. unique: (B, P), has noise of its own, which has no name.
    """

    patches: Tensor
    textures: Tensor
    texture: Tensor
    unique: Tensor


def draw(regime: Regime, batch: int, generator: torch.Generator) -> Scenes:
    """`batch` scenes from the generator's state, on the generator's device."""
    device = generator.device
    cells = regime.grid**2
    where, active = _places(regime, batch, generator)
    kind, label = _objects(regime, batch, active, generator)

    # --- one extra column takes what is not active
    kinds = torch.full((batch, cells + 1), -1, device=device)
    kinds.scatter_(1, torch.where(active, where, cells), torch.where(active, kind, -1))
    kinds = kinds[:, :cells]
    shown = torch.where(active, kind, kind[:, :1])
    present = torch.zeros(batch, regime.kinds, device=device).scatter_(1, shown, 1.0)

    # --- objects before their background
    background = _background(regime, batch, generator)
    masks, palette = (part.to(device) for part in _alphabet(regime))
    known = kinds.clamp_min(0)
    # (B, P, p, p)
    glyph = masks[known // regime.colours] * (kinds >= 0)[..., None, None]
    colour = palette[known % regime.colours]
    patches = torch.where(glyph[:, :, None] > 0, colour[..., None, None], background.patches)
    textured = (kinds < 0) & (background.textures >= 0)
    contents = torch.where(textured, regime.kinds + background.textures, kinds)
    return Scenes(
        images=unpatch(patches, regime.grid),
        label=label,
        present=present,
        kinds=kinds,
        contents=contents,
        redundant=(contents < 0) & ~background.unique,
        texture=background.texture,
    )


def _places(regime: Regime, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where objects may lie, (B, most), and which of them there are, (B, most)."""
    device = generator.device
    fewest, most = regime.objects
    count = torch.randint(fewest, most + 1, (batch, 1), generator=generator, device=device)
    active = torch.arange(most, device=device) < count
    order = torch.rand(batch, regime.grid**2, generator=generator, device=device)
    if regime.plain_at == "corners":
        order[:, corners(regime.grid)] = 2.0  # last in line for an object
    return order.argsort(1)[:, :most], active


def _objects(
    regime: Regime, batch: int, active: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The objects' kinds, (B, most), and the scenes' labels, (B,)."""
    device = generator.device
    most = active.shape[1]

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator, device=device)

    if regime.task == "pair":
        shuffled = torch.rand(batch, regime.kinds, generator=generator, device=device).argsort(1)
        kind = shuffled[:, :most]
        kind[:, 1] = kind[:, 0]
        return kind, kind[:, 0]
    if regime.task == "sum":
        kind = integers(2 * regime.colours, regime.kinds, batch, most)
        kind[:, :2] = integers(0, regime.colours, batch, 2)
        label = kind[:, :2].sum(1) % regime.colours
        kind[:, 1] += regime.colours
        return kind, label
    if regime.task == "presence":
        kind = integers(0, regime.kinds, batch, most)
        colours = torch.zeros(batch, regime.colours, device=device)
        colours.scatter_add_(1, kind % regime.colours, active.float())
        return kind, colours.argmax(1)
    shuffled = torch.rand(regime.latents, regime.kinds, generator=_fixed()).argsort(1)
    members = shuffled[:, :4].to(device)
    label = integers(0, regime.latents, batch)
    return members[label].gather(1, integers(0, 4, batch, most)), label


def corners(grid: int) -> list[int]:
    """Numbers of the four corner patches."""
    return [0, grid - 1, grid * (grid - 1), grid**2 - 1]


def unpatch(patches: Tensor, grid: int) -> Tensor:
    """(B, P, 3, p, p) to images (B, 3, H, W), patches row by row."""
    batch, _, channels, size, _ = patches.shape
    cells = patches.view(batch, grid, grid, channels, size, size)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, grid * size, grid * size)


def _fixed() -> torch.Generator:
    """Shapes, textures and classes are the same in all runs."""
    return torch.Generator(device="cpu").manual_seed(12345)


def _alphabet(regime: Regime) -> tuple[Tensor, Tensor]:
    """Shape masks (S, p, p), half of the pixels each, all different; colours (C, 3)."""
    pixels = regime.patch**2
    fixed = _fixed()
    masks: dict[tuple[bool, ...], Tensor] = {}
    while len(masks) < regime.shapes:
        half = torch.rand(pixels, generator=fixed).argsort() < pixels // 2
        masks.setdefault(tuple(half.tolist()), half.float().view(regime.patch, regime.patch))
    angle = torch.arange(regime.colours) / regime.colours * 2 * torch.pi
    third = 2 * torch.pi / 3
    colours = [torch.cos(angle), torch.cos(angle - third), torch.cos(angle + third)]
    return torch.stack(list(masks.values())), torch.stack(colours, 1)


def _background(regime: Regime, batch: int, generator: torch.Generator) -> Background:
    device = generator.device
    size = regime.patch
    cells = regime.grid**2
    first = torch.rand(batch, 1, 3, 1, 1, generator=generator, device=device) - 0.5
    textures = torch.full((batch, cells), -1, device=device)
    flat = Background(
        patches=first.expand(batch, cells, 3, size, size),
        textures=textures,
        texture=torch.full((batch,), -1, device=device),
        unique=torch.zeros_like(textures, dtype=torch.bool),
    )
    if regime.background == "gradient":
        return flat._replace(patches=_gradient(regime, first, generator))
    if regime.background == "noise":
        noise = torch.randn(batch, cells, 3, size, size, generator=generator, device=device)
        unique = torch.ones_like(flat.unique)
        return flat._replace(patches=flat.patches + regime.contrast * noise, unique=unique)
    if regime.background == "tiled":  # the same in every patch, and different in every image
        texture = torch.randint(CODEBOOK, (batch,), generator=generator, device=device)
        pattern = regime.contrast * _codebook(size, device)[texture][:, None]
        return flat._replace(patches=flat.patches + pattern, texture=texture)
    if regime.background == "texture":
        return _textures(regime, flat, first, generator)
    return flat


def _codebook(size: int, device: torch.device) -> Tensor:
    return torch.randn(CODEBOOK, 3, size, size, generator=_fixed()).to(device)


def _gradient(regime: Regime, first: Tensor, generator: torch.Generator) -> Tensor:
    """From the first colour to a second, along any direction."""
    device = generator.device
    batch = len(first)
    grid = regime.grid
    size = regime.patch
    second = torch.rand(batch, 3, 1, 1, generator=generator, device=device) - 0.5
    angle = torch.rand(batch, 1, 1, 1, generator=generator, device=device) * 2 * torch.pi
    axis = torch.linspace(-0.5, 0.5, grid * size, device=device)
    along = torch.cos(angle) * axis[:, None] + torch.sin(angle) * axis[None] + 0.5
    mixed = first[:, 0] * (1 - along) + second * along  # (B, 3, H, W)
    patches = mixed.view(batch, 3, grid, size, grid, size).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, grid**2, 3, size, size)


def _textures(
    regime: Regime, flat: Background, first: Tensor, generator: torch.Generator
) -> Background:
    """Plain on one side of the scene, or in its corners; elsewhere one of the textures, each patch
    by itself."""
    device = generator.device
    grid = regime.grid
    size = regime.patch
    batch, cells = flat.textures.shape
    texture = torch.randint(CODEBOOK, (batch, cells), generator=generator, device=device)
    angle = torch.rand(batch, 1, generator=generator, device=device) * 2 * torch.pi
    axis = torch.arange(grid, device=device, dtype=torch.float32)
    down = torch.cos(angle) * axis.repeat_interleave(grid)
    along = down + torch.sin(angle) * axis.repeat(grid)
    plain = along.argsort(1).argsort(1) < round(regime.plain * cells)
    if regime.plain_at == "corners":
        at = torch.tensor(corners(grid), device=device)
        plain = torch.zeros_like(plain).index_fill_(1, at, True)
    patches = flat.patches
    if regime.tile:
        tile = torch.randn(batch, 1, 3, size, size, generator=generator, device=device)
        patches = patches + regime.tile * tile
    textured = first + regime.contrast * _codebook(size, device)[texture]
    return flat._replace(
        patches=torch.where(plain[..., None, None, None], patches, textured),
        textures=torch.where(plain, flat.textures, texture),
    )
