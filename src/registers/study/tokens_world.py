"""The token world: patches are vectors, and a sink is the only way for a head to do nothing.

Every ordinary patch shows one of some symbols; a share of them also carries a trigger mark. A few
blank patches at random places carry nothing that is asked for. One ordinary patch also carries a
mark and one of some codes, the scene's label. Asked, through heads that all patches share:

- of every patch that is not blank: its right neighbour's symbol (always on, so that no patch can
  defend itself against other patches' contents by growing);
- its own symbol or, where it carries the trigger mark, its left neighbour's, through one head (so
  that copying always and selecting later needs an MLP of some rank);
- of the scene: the code, read once for all patches.

Neighbours are those on a ring of each row. Nothing is asked where the answer would be a blank's.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from registers.settings.base import Section
from registers.settings.errors import ConfigError

NOTHING = -1  # a patch of which a head asks nothing


class TokenRegime(Section):
    """Scenes, ViT and optimisation of one training in the token world.

    Scenes. grid: patches down and across. channels: numbers that make a patch. symbols, codes:
    how many there are of each. blanks: patches of which nothing is asked; blanks_at: "random", or
    "together", in one row side by side. content: what a blank shows besides its mark, with norm
    `noise`: the vector of a random "symbol", Gaussian "noise" of its own, or noise "shared" by all
    blanks of the scene. mark: norm of the blanks' mark. triggers: share of patches that carry the
    trigger mark. appearance: all vectors are random directions ("vectors"), or pictures of
    8 x 8 pixels ("glyphs", see `Book`). paper: norm of the noise that every patch has besides.

    Losses. own, right: weights of the two local losses; label: weight of the label's.

    ViT. Pre-norm without biases in attention and MLPs. summary: where the label is read, by
    attention pooling with one learned "query" over all tokens, from "cls", or from a [CLS] that
    joins "late", before the last block. hidden: units of each MLP. attends_from: the first block
    that has attention; the blocks before are an MLP stem. mlps: blocks that have an MLP, from the
    first on. attention: the weights' non-linearity. spare_key: whether each head has one more,
    learned key whose value is 0 (an explicit way to do nothing). embed_norm: LayerNorm after the
    embedding and position.
    """

    world: Literal["tokens"] = "tokens"
    grid: int = Field(5, ge=2)
    channels: int = Field(64, ge=8)
    symbols: int = Field(48, ge=2)
    codes: int = Field(8, ge=2)
    blanks: int = Field(2, ge=1)
    blanks_at: Literal["random", "together"] = "random"
    content: Literal["symbol", "noise", "shared"] = "symbol"
    noise: float = Field(1.0, ge=0)
    mark: float = Field(1.0, ge=0)
    triggers: float = Field(0.3, ge=0)
    appearance: Literal["vectors", "glyphs"] = "vectors"
    paper: float = Field(0.0, ge=0)
    own: float = Field(1.0, ge=0)
    right: float = Field(1.0, ge=0)
    label: float = Field(1.0, ge=0)
    summary: Literal["query", "cls", "late"] = "query"
    width: int = Field(48, ge=4)
    depth: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    hidden: int = Field(6, ge=1)
    attends_from: int = Field(1, ge=0)
    mlps: int = Field(99, ge=0)
    activation: Literal["gelu", "relu"] = "gelu"
    attention: Literal["softmax", "relu", "sigmoid"] = "softmax"
    spare_key: bool = False
    embed_norm: bool = False
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(4e-3, ge=0)
    beta2: float = Field(0.99, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, ge=0)
    warmup: int = Field(100, ge=0)
    schedule: Literal["cosine", "constant"] = "constant"
    steps: int = Field(3000, ge=1)
    batch: int = Field(32, ge=1)


class TokenScenes(NamedTuple):
    """A batch of scenes. images (B, P, C): what the patches show. label (B,). symbols (B, P): also
    of blanks, whatever they show. own, right (B, P): what the two local heads are asked, or -1.
    redundant (B, P): blank. triggered (B, P): carries the trigger mark. marked (B, P): carries the
    code."""

    images: Tensor
    label: Tensor
    symbols: Tensor
    own: Tensor
    right: Tensor
    redundant: Tensor
    triggered: Tensor
    marked: Tensor


class Book(NamedTuple):
    """The vectors that scenes are made of: symbols (V, C), codes (G, C), and the marks of
    triggers, of blanks and of the patch with the code, (C,) each. Norm 1."""

    symbols: Tensor
    codes: Tensor
    trigger: Tensor
    blank: Tensor
    key: Tensor


def draw_tokens(regime: TokenRegime, batch: int, generator: torch.Generator) -> TokenScenes:
    """`batch` scenes from the generator's state, on the generator's device."""
    device = generator.device
    cells = regime.grid**2
    book = Book(*(part.to(device) for part in codebook(regime)))
    rows = torch.arange(batch, device=device)

    # --- who is what
    symbols = torch.randint(regime.symbols, (batch, cells), generator=generator, device=device)
    triggered = torch.rand(batch, cells, generator=generator, device=device) < regime.triggers
    order = torch.rand(batch, cells, generator=generator, device=device).argsort(1)
    blank = torch.zeros(batch, cells, dtype=torch.bool, device=device)
    if regime.blanks_at == "together":
        for step in range(regime.blanks):
            blank[rows, neighbour(order[:, 0], step, regime.grid)] = True
        blanks_first = (~blank.gather(1, order)).int().argsort(stable=True, dim=1)
        order = order.gather(1, blanks_first)
    else:
        blank.scatter_(1, order[:, : regime.blanks], True)
    key = order[:, regime.blanks]  # the first patch that is not blank
    marked = torch.zeros_like(blank)
    marked[rows, key] = True
    label = torch.randint(regime.codes, (batch,), generator=generator, device=device)

    # --- what they show
    images = book.symbols[symbols] + triggered[..., None] * book.trigger
    images[rows, key] += book.key + book.codes[label]
    content = _content(regime, book, symbols, generator)
    images = torch.where(
        blank[..., None], regime.noise * content + regime.mark * book.blank, images
    )
    if regime.paper:
        grain = torch.randn(images.shape, generator=generator, device=device)
        images = images + regime.paper * grain / regime.channels**0.5

    # --- what they are asked
    left, right = (
        neighbour(torch.arange(cells, device=device), step, regime.grid) for step in (-1, 1)
    )
    source = torch.where(triggered, left, torch.arange(cells, device=device))
    own = symbols.gather(1, source).masked_fill(blank.gather(1, source) | blank, NOTHING)
    told = symbols[:, right].masked_fill(blank[:, right] | blank, NOTHING)
    triggered = triggered & ~blank
    return TokenScenes(images, label, symbols, own, told, blank, triggered, marked)


def neighbour(cells: Tensor, step: int, grid: int) -> Tensor:
    """The patches that lie `step` to the right in the same row, which is a ring."""
    return cells // grid * grid + (cells + step) % grid


def _content(
    regime: TokenRegime, book: Book, symbols: Tensor, generator: torch.Generator
) -> Tensor:
    """(B, P, C), norm 1: what blanks show besides their mark."""
    if regime.content == "symbol":
        return book.symbols[symbols]
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

    return Book(directions(symbols), directions(codes), directions(), directions(), directions())


def _glyphs(symbols: int, codes: int, channels: int) -> Book:
    """Pictures of side x side pixels. Symbols: random strokes in the middle. A trigger has a line
    on the left edge, the patch with the code one at the top, and the code is a row of dots at the
    bottom. Blank paper has no mark: the blanks' is 0."""
    side = round(channels**0.5)
    fixed = torch.Generator().manual_seed(1234)
    pictures = torch.zeros(symbols + codes + 2, side, side)
    strokes = torch.rand(symbols, (side - 2) ** 2, generator=fixed)
    middle = (strokes.argsort(1) < (side - 2) ** 2 // 3).float()
    pictures[:symbols, 1:-1, 1:-1] = middle.view(symbols, side - 2, side - 2)
    bits = torch.arange(1, codes + 1)[:, None] >> torch.arange(side - 2) & 1
    pictures[symbols : symbols + codes, -1, 1:-1] = bits.float()
    pictures[-2, 1:-1, 0] = 1  # the trigger's line
    pictures[-1, 0, 1:-1] = 1  # the key's line
    flat = F.normalize(pictures.flatten(1), dim=1)
    return Book(
        flat[:symbols],
        flat[symbols : symbols + codes],
        flat[-2],
        torch.zeros(channels),
        flat[-1],
    )


def check_tokens(regime: TokenRegime, key: str) -> None:
    """What the types alone cannot say; raises ConfigError."""
    cells = regime.grid**2
    if regime.blanks >= cells - 1 or (
        regime.blanks_at == "together" and regime.blanks > regime.grid
    ):
        most = regime.grid if regime.blanks_at == "together" else cells - 2
        raise ConfigError(f"{key}.blanks: {regime.blanks} is not allowed; must be at most {most}")
    if regime.width % regime.heads:
        raise ConfigError(
            f"{key}.heads: {regime.heads} is not allowed; must divide width {regime.width}"
        )
    if regime.warmup > regime.steps:
        raise ConfigError(
            f"{key}.warmup: {regime.warmup} is not allowed; must be at most steps {regime.steps}"
        )
    if regime.attends_from >= regime.depth:
        raise ConfigError(
            f"{key}.attends_from: {regime.attends_from} is not allowed; "
            f"must be below depth {regime.depth}"
        )
    if regime.appearance == "glyphs" and round(regime.channels**0.5) ** 2 != regime.channels:
        raise ConfigError(
            f"{key}.channels: {regime.channels} is not allowed; must be a square for glyphs"
        )
