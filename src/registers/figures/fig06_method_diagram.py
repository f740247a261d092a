"""Fig. 6: the method as a diagram: registers join after the patch embedding and are dropped at the output (paper, section 2.2)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from registers.figures.paint import style

PATCHES, REGISTERS = 6, 4
FACES = {
    "cls": "#CC79A7",
    "register": "#F2C14E",
    "patch": "#9CC3E0",
}  # registers in yellow, as in the paper
# kind of token: position added, enters the blocks, used at the output
STEPS = {"cls": (False, True, True), "register": (False, True, False), "patch": (True, True, True)}


def table() -> pd.DataFrame:
    """What the diagram says: a row per kind of token, with its number and what happens to it."""
    counts = {"cls": 1, "register": REGISTERS, "patch": PATCHES}
    rows = [(kind, counts[kind], *steps) for kind, steps in STEPS.items()]
    return pd.DataFrame(
        rows, columns=["token", "drawn", "position_added", "enters_blocks", "used_at_output"]
    )


def draw() -> Figure:
    figure, axes = style.canvas(height=2.75)
    ax = axes[0, 0]
    ax.set_axis_off()
    ax.set(xlim=(0, 13.5), ylim=(-0.1, 5.6), aspect="equal")
    kinds = ["cls"] + ["register"] * REGISTERS + ["patch"] * PATCHES
    for x, (i, kind) in zip(_places(kinds), enumerate(kinds)):
        _token(ax, x, 0.75, kind, _label(kind, i))
        _arrow(ax, (x, 1.2), (x, 1.85))
        used = STEPS[kind][2]
        _arrow(ax, (x, 3.05), (x, 3.6), faint=not used)
        _token(ax, x, 4.05, kind, _label(kind, i), faint=not used)
    width = _places(kinds)[-1] + 0.55
    ax.add_patch(
        FancyBboxPatch(
            (0.65, 1.9),
            width - 0.65,
            1.1,
            boxstyle="round,pad=0,rounding_size=0.15",
            facecolor="#f2f2f4",
            edgecolor=style.GREY,
        )
    )
    ax.text(
        (0.65 + width) / 2,
        2.45,
        "Transformer blocks: all tokens attend to all",
        ha="center",
        va="center",
        fontsize=9,
    )
    spans = {k: [x for x, kind in zip(_places(kinds), kinds) if kind == k] for k in STEPS}
    below = {
        "cls": "learnt",
        "register": "learnt, no position",
        "patch": "patch embeddings + position",
    }
    above = {"cls": "kept", "register": "dropped", "patch": "kept: features of the image"}
    for kind, xs in spans.items():
        middle = (xs[0] + xs[-1]) / 2
        ax.text(middle, 0.2, below[kind], ha="center", va="top", fontsize=7.5)
        ax.text(
            middle,
            4.65,
            above[kind],
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=style.CUTOFF if kind == "register" else style.INK,
        )
    for y, text in ((0.75, "input"), (4.05, "output")):
        ax.text(width + 0.25, y, text, va="center", color=style.GREY)
    return figure


def caption() -> str:
    return (
        "N learnable register tokens (yellow) join [CLS] and the patch embeddings before the first block, without a position, take part in "
        "every block, and are dropped at the output, in training and inference alike."
    )


def _places(kinds: list[str]) -> list[float]:
    """x of each token, with a gap where the kind changes."""
    x, places = 1.2, []
    for before, kind in zip([kinds[0], *kinds], kinds):
        x += 0.45 if kind != before else 0
        places.append(x)
        x += 1.0
    return places


def _label(kind: str, index: int) -> str:
    return {"cls": "CLS", "register": f"reg{index - 1}", "patch": f"p{index - 1 - REGISTERS}"}[kind]


def _token(ax: Axes, x: float, y: float, kind: str, label: str, faint: bool = False) -> None:
    look = {"linestyle": (0, (3, 2)), "alpha": 0.35} if faint else {}
    box = "round,pad=0,rounding_size=0.12"
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.42, y - 0.42),
            0.84,
            0.84,
            boxstyle=box,
            facecolor=FACES[kind],
            edgecolor=style.INK,
            linewidth=0.7,
            **look,
        )
    )
    ax.text(
        x, y, label, ha="center", va="center", fontsize=7, color=style.GREY if faint else style.INK
    )


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], faint: bool = False
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=6,
            shrinkA=0,
            shrinkB=0,
            linewidth=0.8,
            color=style.GREY,
            alpha=0.35 if faint else 1,
        )
    )
