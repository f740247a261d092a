"""The token world: patches are vectors, and a sink is the only way for a head to do nothing.

Every ordinary patch shows one of some symbols; a share of them also carries a trigger mark. A few
blank patches carry nothing that is asked for. One ordinary patch also carries a mark and one of
some codes, the scene's label; or several do; or several do, with a mark each, and
the label is the ordered list of their codes, which the sum of all patches does not tell, or there
are as many labels. Asked, through heads that
all patches share:

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

KEYS = 16  # marks of patches with a code, at most
NOTHING = -1  # a patch of which a head asks nothing
CHANGED, RECODED = 0.05, 0.3  # among scenes that are alike: patches, and labels, that differ


class TokenScenes(NamedTuple):
    """A batch of scenes. images (B, P, C): what the patches show. again (B, P, C): a second view
    where a method wants one, else the same. labels (B, K): what the picture is asked; label (B,):
    the first of them. symbols (B, P): also of blanks, whatever
    they show. own, right, kept (B, P): what the local heads are asked, or -1. redundant (B, P):
    blank. triggered (B, P): carries the trigger mark. marked (B, P): carries a code."""

    images: Tensor
    again: Tensor
    label: Tensor
    labels: Tensor
    symbols: Tensor
    own: Tensor
    right: Tensor
    kept: Tensor
    redundant: Tensor
    triggered: Tensor
    marked: Tensor


class Book(NamedTuple):
    """The vectors that scenes are made of: symbols (V, C), codes (G, C), the marks of triggers and
    of blanks, (C,) each, and those of the patches with a code, (KEYS, C). Norm 1."""

    symbols: Tensor
    codes: Tensor
    trigger: Tensor
    blank: Tensor
    keys: Tensor


def draw_tokens(regime: TokenRegime, batch: int, generator: torch.Generator) -> TokenScenes:
    """`batch` scenes from the generator's state, on the generator's device."""
    device = generator.device
    plan = _plan(regime, batch, generator)
    shape = (batch, regime.keys)
    codes = torch.randint(regime.codes, shape, generator=generator, device=device)
    if regime.alike > 1:
        plan, codes = _alike(regime.alike, plan, codes, generator)
    labels = codes
    if regime.labels == "one":
        digits = regime.codes ** torch.arange(regime.keys, device=device)
        labels = (codes * digits).sum(1, keepdim=True)
    images = again = _picture(regime, plan, codes, generator)
    if regime.objective in ("dinov2", "dino", "ibot"):
        other = plan if regime.views == "scene" else _plan(regime, batch, generator)
        again = _picture(regime, other, codes, generator)

    # --- what they are asked
    symbols, triggered, blank, holders = plan
    cells = torch.arange(symbols.shape[1], device=device)
    left, right = (neighbour(cells, step, regime.grid) for step in (-1, 1))
    source = torch.where(triggered, left, cells)
    own = symbols.gather(1, source).masked_fill(blank.gather(1, source) | blank, NOTHING)
    told = symbols[:, right].masked_fill(blank[:, right] | blank, NOTHING)
    return TokenScenes(
        images=images,
        again=again,
        label=labels[:, 0],
        labels=labels,
        symbols=symbols,
        own=own,
        right=told,
        kept=symbols.masked_fill(blank, NOTHING),
        redundant=blank,
        triggered=triggered & ~blank,
        marked=torch.zeros_like(blank).scatter_(1, holders, True),
    )


class _Plan(NamedTuple):
    """Who is what. symbols, triggered, blank (B, P); holders (B, H): the patches with a code, one
    for each key or several for a single one."""

    symbols: Tensor
    triggered: Tensor
    blank: Tensor
    holders: Tensor


def _plan(regime: TokenRegime, batch: int, generator: torch.Generator) -> _Plan:
    device, cells = generator.device, regime.grid**2
    symbols = torch.randint(regime.symbols, (batch, cells), generator=generator, device=device)
    if regime.echo:
        left, _ = symbols.view(batch, regime.grid, 2, -1).unbind(2)
        symbols = torch.stack([left, left], 2).flatten(1)
    triggered = torch.rand(batch, cells, generator=generator, device=device) < regime.triggers
    order = torch.rand(batch, cells, generator=generator, device=device).argsort(1)
    blank = _blanks(regime, order)
    blanks_first = (~blank.gather(1, order)).int().argsort(stable=True, dim=1)
    order = order.gather(1, blanks_first)
    carry = max(regime.keys, regime.holders)
    holders = order[:, regime.blanks :][:, :carry]  # the first that are not blank
    return _Plan(symbols, triggered, blank, holders)


def _alike(
    group: int, plan: _Plan, codes: Tensor, generator: torch.Generator
) -> tuple[_Plan, Tensor]:
    """Each scene of a group takes over the group's first but for some symbols, drawn patch by
    patch, and its codes."""

    def differs(x: Tensor, share: float) -> Tensor:
        return torch.rand(x.shape, generator=generator, device=x.device) < share

    def first(x: Tensor) -> Tensor:
        return x[::group].repeat_interleave(group, 0)[: len(x)]

    changed, recoded = differs(plan.symbols, CHANGED), differs(codes, RECODED)
    shared = _Plan(*(first(x) for x in plan))
    symbols = torch.where(changed, plan.symbols, shared.symbols)
    return shared._replace(symbols=symbols), torch.where(recoded, codes, first(codes))


def _picture(regime: TokenRegime, plan: _Plan, codes: Tensor, generator: torch.Generator) -> Tensor:
    """(B, P, C): symbols, triggers and codes (B, keys), blanks' contents in their place, then
    grain, then the scene's texture."""
    device = generator.device
    book = Book(*(part.to(device) for part in codebook(regime)))
    symbols, triggered, blank, holders = plan
    images = book.symbols[symbols]
    if regime.signed:
        flips = torch.rand(*symbols.shape, 1, generator=generator, device=device) < 0.5
        images = torch.where(flips, -images, images)
    images = images + triggered[..., None] * book.trigger
    rows = torch.arange(len(symbols), device=device)[:, None]
    images[rows, holders] += book.keys[: regime.keys] + book.codes[codes]
    content = regime.noise * _content(regime, book, symbols, generator)
    images = torch.where(blank[..., None], content + regime.mark * book.blank, images)
    if regime.paper:
        grain = torch.randn(images.shape, generator=generator, device=device)
        images = images + regime.paper * grain / regime.channels**0.5
    if regime.texture:
        shape = (len(symbols), 1, regime.channels)
        pattern = torch.randn(shape, generator=generator, device=device)
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
        keys=directions(KEYS),
    )


def _glyphs(symbols: int, codes: int, channels: int) -> Book:
    """Pictures of side x side pixels. Symbols: random strokes in the middle. A trigger has a line
    on the left edge, a patch with a code one at the top or, the second, on the right, from the
    third on one at the top and its number in dots on the right; the code is a row of dots at the
    bottom. Blank paper has no mark: the blanks' is 0."""
    side = round(channels**0.5)
    fixed = torch.Generator().manual_seed(1234)
    pictures = torch.zeros(symbols + codes + KEYS + 1, side, side)
    strokes = torch.rand(symbols, (side - 2) ** 2, generator=fixed)
    middle = (strokes.argsort(1) < (side - 2) ** 2 // 3).float()
    pictures[:symbols, 1:-1, 1:-1] = middle.view(symbols, side - 2, side - 2)
    bits = torch.arange(1, codes + 1)[:, None] >> torch.arange(side - 2) & 1
    pictures[symbols : symbols + codes, -1, 1:-1] = bits.float()
    pictures[-1, 1:-1, 0] = 1  # the trigger's line
    keys = pictures[symbols + codes : -1]
    keys[0, 0, 1:-1] = 1
    keys[1, 1:-1, -1] = 1
    for number in range(2, KEYS):
        keys[number, 0, 1:-1] = 1
        keys[number, 1:-1, -1] = (number >> torch.arange(side - 2) & 1).float()
    flat = F.normalize(pictures.flatten(1), dim=1)
    return Book(
        symbols=flat[:symbols],
        codes=flat[symbols : symbols + codes],
        trigger=flat[-1],
        blank=torch.zeros(channels),
        keys=flat[symbols + codes : -1],
    )
