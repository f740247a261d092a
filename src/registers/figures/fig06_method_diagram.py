"""Fig. 6: the method as a diagram: registers join after the patch embedding and are dropped at the
output (paper, section 2.2)."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from registers.figures.paint import style


@dataclass(frozen=True)
class TokenKind:
    """A kind of token of the diagram: how it is drawn, and what happens to it."""

    drawn: int
    face: str
    input: str
    output: str
    position_added: bool
    used_at_output: bool
    enters_blocks: bool = True


# registers in yellow, as in the paper
KINDS = {
    "cls": TokenKind(1, "#CC79A7", "learnt", "kept", False, True),
    "register": TokenKind(4, "#F2C14E", "learnt, no position", "dropped", False, False),
    "patch": TokenKind(
        6, "#9CC3E0", "patch embeddings + position", "kept: features of the image", True, True
    ),
}
PREFIX = {"cls": "CLS", "register": "reg", "patch": "p"}

# heights in the diagram, whose tokens stand 1 apart
INPUT = 0.75
BLOCKS = (1.9, 3.0)
OUTPUT = 4.05
HALF = 0.42  # of a token's side


def table() -> pd.DataFrame:
    """What the diagram shows: a row per kind of token, its number and what happens to it."""
    columns = ["drawn", "position_added", "enters_blocks", "used_at_output"]
    rows = [
        {"token": name} | {column: getattr(kind, column) for column in columns}
        for name, kind in KINDS.items()
    ]
    return pd.DataFrame(rows)


def draw() -> Figure:
    figure, axes = style.canvas(height=2.75)
    ax = axes[0, 0]
    ax.set_axis_off()
    ax.set(xlim=(0, 13.5), ylim=(-0.1, 5.6), aspect="equal")
    places = _places()

    # --- tokens
    for name, xs in places.items():
        kind = KINDS[name]
        for i, x in enumerate(xs):
            label = PREFIX[name] + ("" if kind.drawn == 1 else str(i))
            _token(ax, x, INPUT, kind.face, label)
            _arrow(ax, x, INPUT + 0.45, BLOCKS[0] - 0.05)
            _arrow(ax, x, BLOCKS[1] + 0.05, OUTPUT - 0.45, faint=not kind.used_at_output)
            _token(ax, x, OUTPUT, kind.face, label, faint=not kind.used_at_output)
        middle = dict(x=(xs[0] + xs[-1]) / 2, ha="center", fontsize=7.5)
        ax.text(y=0.2, s=kind.input, va="top", **middle)
        ink = style.INK if kind.used_at_output else style.CUTOFF
        ax.text(y=4.65, s=kind.output, va="bottom", color=ink, **middle)

    # --- blocks
    left = 0.65
    right = places["patch"][-1] + 0.55
    box = FancyBboxPatch(
        (left, BLOCKS[0]),
        right - left,
        BLOCKS[1] - BLOCKS[0],
        boxstyle="round,pad=0,rounding_size=0.15",
        facecolor=style.PANEL,
        edgecolor=style.GREY,
    )
    ax.add_patch(box)
    centre = dict(ha="center", va="center", fontsize=9)
    text = "Transformer blocks: all tokens attend to all"
    ax.text((left + right) / 2, sum(BLOCKS) / 2, text, **centre)
    for y, text in ((INPUT, "input"), (OUTPUT, "output")):
        ax.text(right + 0.25, y, text, va="center", color=style.GREY)
    return figure


def caption() -> str:
    return (
        "N learnable register tokens (yellow) join [CLS] and the patch embeddings before the first "
        "block, without a position, take part in every block, and are dropped at the output, in "
        "training and inference alike."
    )


def _places() -> dict[str, list[float]]:
    """x of each token by kind, with a gap where the kind changes."""
    x = 1.2
    places = {}
    for name, kind in KINDS.items():
        places[name] = [x + i for i in range(kind.drawn)]
        x += kind.drawn + 0.45
    return places


def _token(ax: Axes, x: float, y: float, face: str, label: str, faint: bool = False) -> None:
    drawing = {"linestyle": (0, (3, 2)), "alpha": 0.35} if faint else {}
    box = FancyBboxPatch(
        (x - HALF, y - HALF),
        2 * HALF,
        2 * HALF,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=face,
        edgecolor=style.INK,
        linewidth=0.7,
        **drawing,
    )
    ax.add_patch(box)
    # a faint box lets a dark page through, so its label changes with the page
    words = {"color": style.GREY} if faint else {"color": style.INK, "gid": style.ON_COLOUR}
    ax.text(x, y, label, ha="center", va="center", fontsize=7, **words)


def _arrow(ax: Axes, x: float, start: float, end: float, faint: bool = False) -> None:
    drawing = dict(linewidth=0.8, color=style.GREY, alpha=0.35 if faint else 1)
    arrow = FancyArrowPatch(
        (x, start), (x, end), arrowstyle="-|>", mutation_scale=6, shrinkA=0, shrinkB=0, **drawing
    )
    ax.add_patch(arrow)
