"""Grids of small maps: what the figures on attention, norms and components share, from the numbers to the page.

Maps come as `registers.evals.maps` writes them, {backbone id: {array name: array}}: "rgb" (M, y, x, 3), "names" (M,) of the images,
"attention" (M, Q, h, w) with "queries" (Q,), "heads" (M, H, h, w), "norms" (M, h, w), "components" (M, 3, h, w).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from registers.figures.paint import style
from registers.settings.backbone_id import BackboneId

Maps = dict[str, dict[str, np.ndarray]]
ATTENTION = "viridis"  # as DINO's visualize_attention.py, whose pictures the paper's resemble
GAP, GROUP, TITLE, HEAD, BAR, MARGIN = (
    0.04,
    0.14,
    0.19,
    0.24,
    0.36,
    0.04,
)  # inches: cells, groups, titles, group heads, colour bars, page
LARGEST = 1.3  # inches: the side of a cell at most
DIGITS = 4  # significant digits of a value in a table
NOTICEABLE = 1.1  # ratio of two numbers from which captions call one larger


@dataclass(frozen=True)
class Cell:
    """One map of a grid: values (h, w), or (h, w, 3) colours from 0 to 1; of what backbone, image and panel."""

    backbone: str
    image: str
    panel: str
    values: np.ndarray


# --- which models and images --------------------------------------------------------------------------------------------


def models(maps: Maps) -> list[BackboneId]:
    """The backbones of the first seed: methods in the paper's order, registers upwards."""
    ids = [BackboneId.parse(name) for name in maps]
    methods = style.in_order(b.method for b in ids)
    first = min(b.seed for b in ids)
    return sorted(
        (b for b in ids if b.seed == first),
        key=lambda b: (methods.index(b.method), b.registers, b.noaa),
    )


def ends(maps: Maps) -> list[list[BackboneId]]:
    """`models` with the fewest and with the most registers: the paper's two groups of columns (one where all have as many)."""
    found = models(maps)
    counts = sorted({b.registers for b in found})
    return [[b for b in found if b.registers == r] for r in dict.fromkeys((counts[0], counts[-1]))]


def subject(maps: Maps) -> BackboneId:
    """The paper's main focus among the models: DINOv2 (or else the first method), fewest registers."""
    found = models(maps)
    return next((b for b in found if b.method == "dinov2"), found[0])


def inputs(maps: Maps, images: int | None = None) -> list[np.ndarray]:
    """The pictures themselves, (y, x, 3) each: the same for all backbones."""
    return list(next(iter(maps.values()))["rgb"][:images])


def cls_attention(arrays: dict[str, np.ndarray], image: int) -> np.ndarray:
    """Attention (h, w) of [CLS] to the patches in the last block, mean over heads."""
    return query_attention(arrays, image, "cls")


def query_attention(arrays: dict[str, np.ndarray], image: int, query: str) -> np.ndarray:
    return arrays["attention"][image, list(arrays["queries"]).index(query)]


def cells(
    maps: Maps, shown: Sequence[BackboneId], images: int | None, panel: str, pick
) -> list[list[Cell]]:
    """A row per image, a column per backbone. pick(arrays, image) -> (h, w)."""
    names = [str(n) for n in next(iter(maps.values()))["names"][:images]]
    return [
        [Cell(str(b), name, panel, pick(maps[str(b)], i)) for b in shown]
        for i, name in enumerate(names)
    ]


# --- numbers ------------------------------------------------------------------------------------------------------------


def long(rows: Sequence[Sequence[Cell]]) -> pd.DataFrame:
    """A row per value drawn: backbone, method, registers, image, panel (with .red, .green, .blue for colours), row, column, value.

    Values have four significant digits; the input pictures are not among them.
    """
    parts = []
    for cell in (c for row in rows for c in row):
        backbone = BackboneId.parse(cell.backbone)
        colour = cell.values.ndim == 3
        for channel, values in (
            zip(("red", "green", "blue"), np.moveaxis(cell.values, 2, 0))
            if colour
            else [("", cell.values)]
        ):
            row, column = np.indices(values.shape)
            about = {
                "backbone": cell.backbone,
                "method": backbone.method,
                "registers": backbone.registers,
                "image": cell.image,
            }
            about["panel"] = f"{cell.panel}.{channel}" if colour else cell.panel
            numbers = {
                "row": row.ravel(),
                "column": column.ravel(),
                "value": rounded(values.ravel()),
            }
            parts.append(pd.DataFrame(about | numbers))
    return pd.concat(parts, ignore_index=True).astype(
        {"row": "Int64", "column": "Int64"}
    )  # whole also beside rows that have none


def rounded(values: np.ndarray) -> np.ndarray:
    """float64 values to DIGITS significant digits, so that a table of thousands stays small."""
    return np.array([float(f"{v:.{DIGITS}g}") for v in np.asarray(values, dtype=np.float64)])


def peak(values: np.ndarray) -> float:
    """How far a map's largest value stands out: over its median; 1 for a flat map."""
    median = float(np.median(values))
    return float(values.max()) / median if median > 0 else float("inf")


def peaks(rows: Sequence[Sequence[Cell]]) -> dict[str, float]:
    """`peak` by backbone: the median over its maps."""
    found: dict[str, list[float]] = {}
    for cell in (c for row in rows for c in row):
        found.setdefault(cell.backbone, []).append(peak(cell.values))
    return {backbone: float(np.median(values)) for backbone, values in found.items()}


def times(value: float) -> str:
    return f"{style.number(value, 3 if value >= 10 else 2)}"


def comparison(
    groups: list[list[BackboneId]],
    values: dict[str, float],
    claim: str = " (the paper: smaller in all)",
) -> str:
    """In words, how a number by backbone changes with registers. claim: what the paper shows of it.

    "9.0 and 2.0 in DeiT-III, ... (without registers and with 4 registers in turn): smaller with registers in 2 of 3 methods (...)".
    """
    counts = [group[0].registers for group in groups]
    by_method = {
        b.method: {c.registers: values[str(c)] for g in groups for c in g if c.method == b.method}
        for g in groups
        for b in g
    }
    said = [
        f"{style.listing(times(v) for v in one.values())} in {style.name(m)}"
        for m, one in by_method.items()
    ]
    text = f"{style.listing(said)} ({' and '.join(style.having(c) for c in counts)}{' in turn' if len(counts) > 1 else ''})"
    both = {m: (one[counts[0]], one[counts[-1]]) for m, one in by_method.items() if len(one) > 1}
    if not both:
        return text
    less = [style.name(m) for m, (fewest, most) in both.items() if fewest > NOTICEABLE * most]
    more = [style.name(m) for m, (fewest, most) in both.items() if most > NOTICEABLE * fewest]
    verdict = f"smaller with registers in {len(less)} of {len(both)} method{'' if len(both) == 1 else 's'}"
    verdict += f" ({style.listing(less)})" if less else ""
    verdict += f", larger in {style.listing(more)}" if more else ""
    return f"{text}: {verdict}{claim}"


# --- the page -----------------------------------------------------------------------------------------------------------


@dataclass
class Page:
    """A figure whose cells are placed to the inch. axes (rows, columns)."""

    figure: Figure
    axes: np.ndarray

    def box(self, x: float, y: float, width: float, height: float) -> list[float]:
        """Inches from the lower left corner, as fractions of the page."""
        w, h = self.figure.get_size_inches()
        return [x / w, y / h, width / w, height / h]

    def inches(self, ax: Axes) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of a cell."""
        w, h = self.figure.get_size_inches()
        place = ax.get_position(original=True)
        return place.x0 * w, place.y0 * h, place.x1 * w, place.y1 * h

    def head(self, first: int, last: int, text: str) -> None:
        """A heading over the columns first..last, with a line below it."""
        left, _, _, top = self.inches(self.axes[0, first])
        right = self.inches(self.axes[0, last])[2]
        w, h = self.figure.get_size_inches()
        y = (top + TITLE + 0.035) / h
        self.figure.text(
            (left + right) / 2 / w, y + 0.035 / h, text, ha="center", va="bottom", fontsize=8.5
        )
        line = Axes(self.figure, self.box(left, top + TITLE + 0.035, right - left, 0.005))
        line.set_axis_off()
        line.axhline(0.5, color=style.GREY, linewidth=0.8)
        self.figure.add_axes(line)

    def bar(
        self, image, first: int, last: int, label: str = "", ticks: Sequence[float] | None = None
    ) -> None:
        """A thin horizontal colour bar below the columns first..last."""
        left, bottom, _, _ = self.inches(self.axes[-1, first])
        right = self.inches(self.axes[-1, last])[2]
        inset = 0.06 * (right - left)
        ax = self.figure.add_axes(
            self.box(left + inset, bottom - 0.12, right - left - 2 * inset, 0.06)
        )
        bar = self.figure.colorbar(image, cax=ax, orientation="horizontal", ticks=ticks)
        bar.outline.set_visible(False)
        ax.tick_params(length=2, pad=1.5, labelsize=6)
        ax.grid(False)
        ax.minorticks_off()
        if label:
            ax.set_xlabel(label, fontsize=6.5, labelpad=1.5)


def page(
    rows: int,
    columns: int,
    titles: Sequence[str] = (),
    groups: Sequence[int] = (),
    heads: bool = False,
    below: float = 0.0,
    above: float = 0.0,
    width: float = style.WIDTH,
    side: float | None = None,
    row_gap: float = GAP,
    right: float = 0.0,
    whole: bool = False,
    ratios: Sequence[float] = (),
) -> Page:
    """An empty page of rows x columns cells, square unless ratios says so; a wider gap stands before each column in groups.

    titles: over the columns. heads: room for `Page.head`. below, above, right: further inches, e.g. BAR for `Page.bar`.
    whole: the page is `width` inches wide even where its cells are not; they stand in the middle. ratios: height over width of each
    row's cells, for photos in their own shape.
    """
    gaps = (columns - 1) * GAP + len(groups) * (GROUP - GAP)
    side = min(side or LARGEST, (width - 2 * MARGIN - right - gaps) / columns)
    used = 2 * MARGIN + columns * side + gaps + right
    left = MARGIN + (max(0.0, width - used) / 2 if whole else 0.0)
    used = max(used, width) if whole else used
    top = MARGIN + above + (TITLE if titles else 0) + (HEAD if heads else 0)
    heights = [side * ratio for ratio in ratios or [1.0] * rows]
    height = top + sum(heights) + (rows - 1) * row_gap + MARGIN + below
    figure = Figure(figsize=(used, height))
    axes = np.empty((rows, columns), dtype=object)
    for r in range(rows):
        x = left
        for c in range(columns):
            x += (GROUP - GAP) if c in groups else 0
            y = height - top - sum(heights[: r + 1]) - r * row_gap
            axes[r, c] = figure.add_axes([x / used, y / height, side / used, heights[r] / height])
            blank(axes[r, c])
            x += side + GAP
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=8, pad=3)
    return Page(figure, axes)


def blank(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def show(
    ax: Axes,
    values: np.ndarray,
    cmap: str = ATTENTION,
    low: float | None = None,
    high: float | None = None,
):
    """One map, a square a value; without low and high over its own range, as attention is shown in the paper."""
    return ax.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="nearest", aspect="auto")


def compare(
    maps: Maps, groups: list[list[BackboneId]], rows: list[list[Cell]], paint, below: float = 0.0
) -> Page:
    """The layout of Figs. 1, 19, 20 and 21: Input | methods without registers | methods with. paint(ax, cell) draws one map."""
    flat = [b for group in groups for b in group]
    starts = [1 + sum(len(g) for g in groups[:i]) for i in range(len(groups))]
    made = page(
        len(rows),
        1 + len(flat),
        ["Input", *(style.name(b.method) for b in flat)],
        starts,
        heads=True,
        below=below,
    )
    for group, start in zip(groups, starts):
        count = style.having(group[0].registers)
        made.head(start, start + len(group) - 1, count[0].upper() + count[1:])
    for axes, picture, row in zip(made.axes, inputs(maps), rows):
        axes[0].imshow(picture, aspect="auto")
        for ax, cell in zip(axes[1:], row):
            paint(ax, cell)
    return made


def ticks(low: float, high: float, count: int = 3) -> list[float]:
    """About `count` round numbers inside a range, for a colour bar; three fit below one cell."""
    found = MaxNLocator(nbins=count, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(t) for t in found if low <= t <= high]


def square(rows: pd.DataFrame, metric: str, token: str) -> np.ndarray:
    """Values of one metric and token of one backbone by position, as their square grid."""
    values = (
        rows[(rows["metric"] == metric) & (rows["token"] == token)]
        .sort_values("at")["value"]
        .to_numpy(float)
    )
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)
