"""The token world: patches are vectors, and a sink is the only way for a head to do nothing.

Every ordinary patch shows one of some symbols; a share of them also carries a trigger mark. A few
blank patches carry nothing that is asked for. One ordinary patch also carries a mark and one of
some codes, the scene's label; or two do, with a mark each, and the label is the ordered pair of
their codes, which the sum of all patches does not tell. Asked, through heads that all patches
share:

- of every patch that is not blank: its right neighbour's symbol (always on, so that no patch can
  defend itself against other patches' contents by growing);
- its own symbol or, where it carries the trigger mark, its left neighbour's, through one head (so
  that copying always and selecting later needs an MLP of some rank);
- in some regimes: its own symbol, trigger mark or not, through a head of its own;
- of the scene: the label, read once for all patches.

Neighbours are those on a ring of each row. Nothing is asked where the answer would be a blank's.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from registers.study.regime import TokenRegime

NOTHING = -1  # a patch of which a head asks nothing


class TokenScenes(NamedTuple):
    """A batch of scenes. images (B, P, C): what the patches show. again (B, P, C): the same scene
    with other textures and grain where a method wants two views, else the same. label (B,).
    symbols (B, P): also of blanks, whatever they show. own, right, kept (B, P): what the local
    heads are asked, or -1. redundant (B, P): blank. triggered (B, P): carries the trigger mark.
    marked (B, P): carries a code."""

    images: Tensor
    again: Tensor
    label: Tensor
    symbols: Tensor
    own: Tensor
    right: Tensor
    kept: Tensor
    redundant: Tensor
    triggered: Tensor
    marked: Tensor


class Book(NamedTuple):
    """The vectors that scenes are made of: symbols (V, C), codes (G, C), the marks of triggers and
    of blanks, (C,) each, and those of the patches with a code, (2, C). Norm 1."""

    symbols: Tensor
    codes: Tensor
    trigger: Tensor
    blank: Tensor
    keys: Tensor


def draw_tokens(regime: TokenRegime, batch: int, generator: torch.Generator) -> TokenScenes:
    """`batch` scenes from the generator's state, on the generator's device."""
    device = generator.device
    cells = regime.grid**2
    book = Book(*(part.to(device) for part in codebook(regime)))
    rows = torch.arange(batch, device=device)[:, None]

    # --- who is what
    symbols = torch.randint(regime.symbols, (batch, cells), generator=generator, device=device)
    if regime.echo:
        half = regime.grid // 2
        rows_of_symbols = symbols.view(batch, regime.grid, regime.grid)
        symbols = torch.cat([rows_of_symbols[..., :half]] * 2, -1).flatten(1)
    triggered = torch.rand(batch, cells, generator=generator, device=device) < regime.triggers
    order = torch.rand(batch, cells, generator=generator, device=device).argsort(1)
    blank = _blanks(regime, order)
    blanks_first = (~blank.gather(1, order)).int().argsort(stable=True, dim=1)
    order = order.gather(1, blanks_first)
    holders = order[:, regime.blanks :][:, : regime.keys]  # the first that are not blank
    shape = (batch, regime.keys)
    codes = torch.randint(regime.codes, shape, generator=generator, device=device)
    digits = regime.codes ** torch.arange(regime.keys, device=device)

    # --- what they show
    shown = book.symbols[symbols]
    if regime.signed:
        flips = torch.rand(batch, cells, 1, generator=generator, device=device) < 0.5
        shown = torch.where(flips, -shown, shown)
    shown = shown + triggered[..., None] * book.trigger
    shown[rows, holders] += book.keys[: regime.keys] + book.codes[codes]
    images = _picture(regime, book, symbols, blank, shown, generator)

    # --- what they are asked
    left, right = (
        neighbour(torch.arange(cells, device=device), step, regime.grid) for step in (-1, 1)
    )
    source = torch.where(triggered, left, torch.arange(cells, device=device))
    own = symbols.gather(1, source).masked_fill(blank.gather(1, source) | blank, NOTHING)
    told = symbols[:, right].masked_fill(blank[:, right] | blank, NOTHING)
    triggered = triggered & ~blank
    again = images
    if regime.objective == "dinov2":
        again = _picture(regime, book, symbols, blank, shown, generator)
    return TokenScenes(
        images=images,
        again=again,
        label=(codes * digits).sum(1),
        symbols=symbols,
        own=own,
        right=told,
        kept=symbols.masked_fill(blank, NOTHING),
        redundant=blank,
        triggered=triggered,
        marked=torch.zeros_like(blank).scatter_(1, holders, True),
    )


def _picture(
    regime: TokenRegime,
    book: Book,
    symbols: Tensor,
    blank: Tensor,
    shown: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """(B, P, C): blanks' contents in place of what they would have shown, then grain, then the
    scene's texture."""
    content = _content(regime, book, symbols, generator)
    images = torch.where(blank[..., None], regime.noise * content + regime.mark * book.blank, shown)
    if regime.paper:
        grain = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + regime.paper * grain / regime.channels**0.5
    if regime.texture:
        shape = (len(symbols), 1, regime.channels)
        pattern = torch.randn(shape, generator=generator, device=images.device)
        images = images + regime.texture * F.normalize(pattern, dim=-1)
    return images


def _blanks(regime: TokenRegime, order: Tensor) -> Tensor:
    """(B, P), True where a patch is blank. order (B, P): all patches of each scene, shuffled."""
    grid = regime.grid
    blank = torch.zeros_like(order, dtype=torch.bool)
    if regime.blanks_at == "random":
        return blank.scatter_(1, order[:, : regime.blanks], True)
    if regime.blanks_at == "together":
        places = [neighbour(order[:, 0], step, grid) for step in range(regime.blanks)]
        return blank.scatter_(1, torch.stack(places, 1), True)
    down = math.isqrt(regime.blanks)
    across = regime.blanks // down
    top = order[:, :1] // grid % (grid - down + 1)
    left = order[:, :1] % grid % (grid - across + 1)
    corners = torch.arange(regime.blanks, device=order.device)
    inside = corners // across * grid + corners % across
    return blank.scatter_(1, top * grid + left + inside, True)


def neighbour(cells: Tensor, step: int, grid: int) -> Tensor:
    """The patches that lie `step` to the right in the same row, which is a ring."""
    return cells // grid * grid + (cells + step) % grid


def _content(
    regime: TokenRegime, book: Book, symbols: Tensor, generator: torch.Generator
) -> Tensor:
    """(B, P, C), norm 1: what blanks show besides their mark."""
    if regime.content == "symbol":
        return book.symbols[symbols]
    if regime.content == "tile":
        shape = (len(symbols), 1)
        one = torch.randint(regime.symbols, shape, generator=generator, device=generator.device)
        return book.symbols[one].expand(-1, symbols.shape[1], -1)
    places = 1 if regime.content == "shared" else symbols.shape[1]
    shape = (len(symbols), places, regime.channels)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return F.normalize(noise, dim=-1).expand(-1, symbols.shape[1], -1)


_BOOKS: dict[tuple, Book] = {}


def codebook(regime: TokenRegime) -> Book:
    """The same vectors in all runs of these sizes; kept, as they are asked for at every step."""
    sizes = (regime.symbols, regime.codes, regime.channels, regime.appearance)
    if sizes not in _BOOKS:
        make = _glyphs if regime.appearance == "glyphs" else _vectors
        _BOOKS[sizes] = make(*sizes[:3])
    return _BOOKS[sizes]


def _vectors(symbols: int, codes: int, channels: int) -> Book:
    """Random directions."""
    fixed = torch.Generator().manual_seed(1234)

    def directions(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, channels, generator=fixed), dim=-1)

    return Book(
        symbols=directions(symbols),
        codes=directions(codes),
        trigger=directions(),
        blank=directions(),
        keys=torch.stack([directions(), directions()]),
    )


def _glyphs(symbols: int, codes: int, channels: int) -> Book:
    """Pictures of side x side pixels. Symbols: random strokes in the middle. A trigger has a line
    on the left edge, a patch with a code one at the top or, the second, on the right, and the code
    is a row of dots at the bottom. Blank paper has no mark: the blanks' is 0."""
    side = round(channels**0.5)
    fixed = torch.Generator().manual_seed(1234)
    pictures = torch.zeros(symbols + codes + 3, side, side)
    strokes = torch.rand(symbols, (side - 2) ** 2, generator=fixed)
    middle = (strokes.argsort(1) < (side - 2) ** 2 // 3).float()
    pictures[:symbols, 1:-1, 1:-1] = middle.view(symbols, side - 2, side - 2)
    bits = torch.arange(1, codes + 1)[:, None] >> torch.arange(side - 2) & 1
    pictures[symbols : symbols + codes, -1, 1:-1] = bits.float()
    pictures[-3, 1:-1, 0] = 1  # the trigger's line
    pictures[-2, 0, 1:-1] = 1  # the keys'
    pictures[-1, 1:-1, -1] = 1
    flat = F.normalize(pictures.flatten(1), dim=1)
    return Book(
        symbols=flat[:symbols],
        codes=flat[symbols : symbols + codes],
        trigger=flat[-3],
        blank=torch.zeros(channels),
        keys=flat[-2:],
    )
