"""The look of all figures: fonts and colours, numbers and lists in words, axes and notes."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from registers.files import atomically
from registers.registry import METHODS

INK = "#1d1d1f"
GREY = "#6e6e73"
PALE = "#e3e3e6"
PANEL = "#f2f2f4"
CLAIMED = "#dcefe3"  # ground on which a claim holds
ON_COLOUR = "on colour"  # the gid of words that stand on a colour, which no dark page changes
CUTOFF = "#b3001b"  # cut-off lines, what lies above them, and claims that fail
GOOD = "#1a7f4b"  # claims that hold
OPEN = "#8a6100"  # claims that are undecided
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
    "text.parse_math": False,  # a class or folder may be called "$"
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
    """An empty figure in the project's style and its (rows, columns) axes.

    height, width: inches. kwargs: of `Figure.subplots`.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    return figure, axes


def save(figure: Figure, out: str | Path) -> None:
    """Write out.png (300 dpi) and out.pdf (fonts embedded), each at once or not at all.

    Neither holds a time stamp: the same figure gives the same bytes.
    """
    out = Path(out)
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    save_png(figure, out.with_suffix(".png"))
    atomically(
        out.with_suffix(".pdf"),
        lambda path: figure.savefig(path, format="pdf", metadata=undated),
    )


def save_png(figure: Figure, out: Path, share: float = 1.0) -> None:
    """Write one picture at 300 dpi, or a share of them, without a time stamp."""
    drawing = dict(format="png", dpi=round(share * DPI), metadata={"Software": None})
    atomically(out, lambda path: figure.savefig(path, **drawing))


# --- colours


def colour(method: str) -> str:
    """The method's colour (registry); dark grey for a method that is not registered."""
    return METHODS[method].colour if method in METHODS else "#444444"


def shade(method: str, position: float) -> tuple[float, float, float]:
    """The method's colour from pale (position 0) to itself (0.6) to dark (1)."""
    ends = ["#ffffff", colour(method), "#000000"]
    scale = colors.LinearSegmentedColormap.from_list("shade", list(zip([0, 0.6, 1], ends)))
    return scale(0.25 + 0.55 * position)[:3]


def colormap(method: str) -> colors.Colormap:
    """White to the method's colour, for densities."""
    return colors.LinearSegmentedColormap.from_list(method, ["#ffffff", colour(method)])


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1."""
    return colors.to_rgb(colour)


# --- words


def name(method: str) -> str:
    """The method's name as the paper prints it (registry); an unregistered one as it is."""
    return METHODS[method].title if method in METHODS else method


def registers_label(count: int, test_time: bool = False) -> str:
    """without registers, 1 register, 4 registers; 4 test-time registers."""
    kind = "test-time register" if test_time else "register"
    return "without registers" if count == 0 else plural(count, kind)


def having(count: int, test_time: bool = False) -> str:
    """In a sentence: without registers, with 1 register, with 4 test-time registers."""
    label = registers_label(count, test_time)
    return label if count == 0 else f"with {label}"


def model(method: str, registers: int, test_time: bool = False) -> str:
    """DINOv2 without registers, DINOv2 with 4 registers."""
    return f"{name(method)} {having(registers, test_time)}"


def plural(count: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def capitalised(text: str) -> str:
    """The text with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def listing(words: Iterable[str]) -> str:
    """a; a and b; a, b and c; none."""
    words = list(words)
    if len(words) > 1:
        return f"{', '.join(words[:-1])} and {words[-1]}"
    return words[0] if words else "none"


def remarked(findings: Iterable[tuple[str, list[tuple[str, str]]]]) -> str:
    """Findings with remarks, such as how sure they are; a remark that all share is made once.

    findings: (words before, [(finding, remark), ...]); a remark may be "". For example
    "top-1 changes by +1.0 for A and -2.0 for B (in each case one seed: not decided)".
    """
    findings = list(findings)
    remarks = [remark for _, texts in findings for _, remark in texts if remark]
    shared = len(remarks) > 1 and len(set(remarks)) == 1
    parts = []
    for before, texts in findings:
        told = [text if shared or not remark else f"{text} ({remark})" for text, remark in texts]
        parts.append(f"{before} {listing(told)}")
    ending = f" (in each case {remarks[0]})" if shared else ""
    return "; ".join(parts) + ending


def percent(value: float, digits: int = 1) -> str:
    """0.411 -> "41.1 %"; a share that would round to zero keeps two significant digits."""
    scaled = 100 * value
    if scaled and abs(scaled) < 0.5 * 10**-digits:
        return f"{number(scaled, 2)} %"
    return f"{scaled:.{digits}f} %"


def number(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent: 0.0123, 12.3, 1230."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")  # 0.9996 has as many decimals as 1.0
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(rounded)))))
    return f"{value:.{decimals}f}"


def count(value: int) -> str:
    """Many things: 54,800; 1.1 million; three or two digits of it."""
    if value >= 1e5:
        return f"{number(value / 1e6, 2)} million"
    return f"{float(f'{value:.3g}'):,.0f}"


def times(value: float) -> str:
    """How many times as large: 1.1, 9.0, 30.0, 672."""
    return number(value, 3 if value >= 10 else 2)


def span(texts: Iterable[str], joint: str = " to ") -> str:
    """Two ends of a range, or the one text where both read alike."""
    return joint.join(dict.fromkeys(texts))


def change(value: float, digits: int = 1) -> str:
    """A difference with its sign: +4.0, -0.4; without one where it rounds to zero."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


# --- axes


def letter(ax: Axes, label: str, title: str) -> None:
    """Panel title with its letter: (a) Norms along layers."""
    ax.set_title(f"({label}) {title}", loc="left")


def note(ax: Axes, text: str, where: str = "upper right", colour: str = GREY) -> None:
    """A short remark in a corner of a panel, on white."""
    vertical, horizontal = where.split()
    ax.text(
        0.98 if horizontal == "right" else 0.02,
        0.97 if vertical == "upper" else 0.03,
        text,
        transform=ax.transAxes,
        ha=horizontal,
        va="top" if vertical == "upper" else "bottom",
        fontsize=7,
        color=colour,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )


def logarithmic(axis) -> None:
    """Plain numbers on a log axis, three to six of them where that is possible.

    Whole decades where they suffice, else 1-2-5, else even steps.
    """
    low, high = sorted(axis.get_view_interval())
    powers = 10.0 ** np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2)
    step = 10.0 ** np.floor(np.log10((high - low) / 2))

    choices = [np.sort(np.outer(powers, factors).ravel()) for factors in ([1], [1, 3], [1, 2, 5])]
    for width in (5 * step, 2 * step, step, step / 2):
        choices.append(np.arange(np.ceil(low / width), high / width) * width)
    visible = [values[(values >= low) & (values <= high)] for values in choices]
    ticks = next((values for values in visible if 3 <= len(values) <= 6), visible[2])

    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
