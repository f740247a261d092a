"""The look of all figures: one style, one colour per method, registers as its shades, and the painters that figures share."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

NAMES = {
    "deit3": "DeiT-III",
    "openclip": "OpenCLIP",
    "dinov2": "DINOv2",
    "dino": "DINO",
    "mae": "MAE",
}
# Okabe and Ito's palette, told apart by colour-blind readers (Wong, Nature Methods 8, 441, 2011)
COLOURS = {
    "deit3": "#D55E00",
    "openclip": "#009E73",
    "dinov2": "#0072B2",
    "dino": "#CC79A7",
    "mae": "#8C6D00",
}
INK, GREY, PALE = "#1d1d1f", "#6e6e73", "#e3e3e6"
CUTOFF = "#B3001B"  # cut-off lines and what lies above them
WIDTH = 6.75  # inches: a page of text
DPI = 300

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "pdf.fonttype": 42,  # fonts are embedded whole, so that text stays text
    "svg.fonttype": "none",
}


matplotlib.rcParams.update(STYLE)


def canvas(
    rows: int = 1, columns: int = 1, height: float = 2.4, width: float = WIDTH, **kwargs
) -> tuple[Figure, np.ndarray]:
    """An empty figure in the project's style and its (rows, columns) axes. height, width: inches. kwargs: of `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    return figure, axes


def save(figure: Figure, out: str | Path) -> None:
    """Write out.png (300 dpi) and out.pdf (fonts embedded). No time stamp: the same figure gives the same bytes."""
    out = Path(out)
    figure.savefig(out.with_suffix(".png"), dpi=DPI, metadata={"Software": None})
    figure.savefig(
        out.with_suffix(".pdf"), metadata={"CreationDate": None, "Producer": None, "Creator": None}
    )


def name(method: str) -> str:
    """A method as the paper writes it; others as they are."""
    return NAMES.get(method, method)


def colour(method: str) -> str:
    return COLOURS.get(method, "#444444")


def shade(method: str, position: float) -> tuple[float, float, float]:
    """The method's colour from pale (position 0) to itself (0.6) to dark (1), for register counts and other ordered things."""
    ends = ["#ffffff", colour(method), "#000000"]
    scale = colors.LinearSegmentedColormap.from_list("shade", list(zip([0, 0.6, 1], ends)))
    return scale(0.25 + 0.55 * position)[:3]


def register_colour(index: int, count: int) -> tuple[float, float, float]:
    """One of several registers: from orange to violet, apart from [CLS] (ink) and patches (the method's colour)."""
    return matplotlib.colormaps["plasma_r"](0.25 + 0.6 * index / max(1, count - 1))[:3]


def colormap(method: str) -> colors.Colormap:
    """White to the method's colour, for densities."""
    return colors.LinearSegmentedColormap.from_list(method, ["#ffffff", colour(method)])


def registers_label(count: int) -> str:
    return "without registers" if count == 0 else f"{count} register{'s' if count > 1 else ''}"


def having(count: int) -> str:
    """In a sentence: without registers, with 1 register, with 4 registers."""
    return registers_label(count) if count == 0 else f"with {registers_label(count)}"


def letter(ax: Axes, label: str, title: str) -> None:
    """Panel title with its letter: (a) Norms along layers."""
    ax.set_title(f"({label}) {title}", loc="left")


def note(ax: Axes, text: str, where: str = "upper right", colour: str = GREY) -> None:
    """A short remark in a corner of a panel, on white."""
    vertical, horizontal = where.split()
    x, y = (0.98 if horizontal == "right" else 0.02), (0.97 if vertical == "upper" else 0.03)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    ax.text(
        x,
        y,
        text,
        transform=ax.transAxes,
        ha=horizontal,
        va="top" if vertical == "upper" else "bottom",
        fontsize=7,
        color=colour,
        bbox=box,
    )


def logarithmic(axis) -> None:
    """Plain numbers on a log axis, three to six of them: whole decades where they suffice, else 1-2-5, else even steps."""
    low, high = sorted(axis.get_view_interval())
    powers = 10.0 ** np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2)
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    even = [np.arange(np.ceil(low / s), high / s) * s for s in (5 * step, 2 * step, step, step / 2)]
    choices = [np.sort(np.outer(powers, s).ravel()) for s in ([1], [1, 3], [1, 2, 5])] + even
    shown = [c[(c >= low) & (c <= high)] for c in choices]
    ticks = next((t for t in shown if 3 <= len(t) <= 6), shown[2])
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def percent(value: float, digits: int = 1) -> str:
    """0.0237 -> "2.4 %"; shares that would round to nothing keep two significant digits."""
    shown = 100 * value
    return (
        f"{shown:.{digits}f} %"
        if shown == 0 or abs(shown) >= 0.5 * 10**-digits
        else f"{shown:.2g} %"
    )


def number(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent: 0.0123, 12.3, 1230."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def listing(words: Iterable[str]) -> str:
    """a; a and b; a, b and c."""
    words = list(words)
    return (
        words[0]
        if len(words) == 1
        else f"{', '.join(words[:-1])} and {words[-1]}"
        if words
        else "none"
    )


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the paper's column order (Figs. 1 and 7: DeiT-III, OpenCLIP, DINOv2), then the others."""
    found = list(dict.fromkeys(m for m in methods if isinstance(m, str) and m))
    return [m for m in NAMES if m in found] + [m for m in found if m not in NAMES]


def first_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first seed: a distribution is shown for one model, never pooled over several."""
    return frame[frame["seed"] == frame["seed"].min()]
