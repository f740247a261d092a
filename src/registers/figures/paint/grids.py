"""Pages of small square maps, placed to the inch: what the figures on attention, norms and
components share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from registers.figures import selection
from registers.figures.paint import style
from registers.figures.paint.image_maps import ImageMaps, MapCell, over_even, pictures

ATTENTION = "viridis"  # as DINO's visualize_attention.py, whose pictures the paper's resemble
FLAT = 2.0  # colours reach at least this many times the median, so that a flat map looks flat
CAP = 5.0  # and at most this many times an even attention, so that one peak darkens no other map

EVEN = "attention over an even one (1: the same to all patches)"

# inches
GAP = 0.04  # between cells
GROUP = 0.14  # between groups of columns
TITLE = 0.19  # a line of titles
HEAD = 0.24  # a heading over a group
LABEL = 0.13  # a number under a map
BAR = 0.36  # a colour bar
MARGIN = 0.04  # of the page
LARGEST = 1.3  # the side of a cell at most

Paint = Callable[[Axes, MapCell], AxesImage]


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
        y = top + TITLE + 0.035
        self.figure.text(
            (left + right) / 2 / w, (y + 0.035) / h, text, ha="center", va="bottom", fontsize=8.5
        )
        line = Axes(self.figure, self.box(left, y, right - left, 0.005))
        line.set_axis_off()
        line.axhline(0.5, color=style.GREY, linewidth=0.8)
        self.figure.add_axes(line)

    def bar(
        self,
        image: AxesImage,
        first: int,
        last: int,
        label: str = "",
        ticks: Sequence[float] | None = None,
        lower: float = 0.0,
        extend: str = "neither",
    ) -> None:
        """A thin horizontal colour bar below the columns first..last.

        lower: inches that it stands lower, below words under the cells. extend: "max" where
        values reach beyond the colours.
        """
        left, bottom, _, _ = self.inches(self.axes[-1, first])
        right = self.inches(self.axes[-1, last])[2]
        inset = 0.06 * (right - left)
        place = self.box(left + inset, bottom - 0.12 - lower, right - left - 2 * inset, 0.06)
        ax = self.figure.add_axes(place)
        bar = self.figure.colorbar(
            image, cax=ax, orientation="horizontal", ticks=ticks, extend=extend
        )
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
    """An empty page of rows x columns cells. All lengths are in inches.

    titles: over the columns.
    groups: the columns that a wider gap stands before.
    heads: leave room for `Page.head`.
    below, above, right: further room, e.g. BAR for `Page.bar`.
    width: of the page at most. side: of a cell at most.
    row_gap: between rows.
    whole: the page is `width` wide even where its cells are not; they stand in the middle.
    ratios: height over width of each row's cells, for photos in their own shape; squares otherwise.
    """
    # --- sizes
    gaps = (columns - 1) * GAP + len(groups) * (GROUP - GAP)
    side = min(side or LARGEST, (width - 2 * MARGIN - right - gaps) / columns)
    used = 2 * MARGIN + columns * side + gaps + right
    left = MARGIN + (max(0.0, width - used) / 2 if whole else 0.0)
    used = max(used, width) if whole else used
    top = MARGIN + above + (TITLE if titles else 0) + (HEAD if heads else 0)
    heights = [side * ratio for ratio in ratios or [1.0] * rows]
    height = top + sum(heights) + (rows - 1) * row_gap + MARGIN + below

    # --- cells
    figure = Figure(figsize=(used, height))
    axes = np.empty((rows, columns), dtype=object)
    for r in range(rows):
        x = left
        y = height - top - sum(heights[: r + 1]) - r * row_gap
        for c in range(columns):
            x += (GROUP - GAP) if c in groups else 0
            axes[r, c] = figure.add_axes([x / used, y / height, side / used, heights[r] / height])
            blank(axes[r, c])
            x += side + GAP
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=8, pad=3)
    return Page(figure, axes)


def blank(ax: Axes) -> None:
    """No ticks, grid or frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


# --- one map


def show(
    ax: Axes,
    values: np.ndarray,
    cmap: str = ATTENTION,
    low: float | None = None,
    high: float | None = None,
) -> AxesImage:
    """One map, a square per value; without low and high over its own range."""
    return ax.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="nearest", aspect="auto")


def top(maps: Iterable[np.ndarray], most: float = np.inf) -> float:
    """Where a scale of colours that begins at 0 ends, for maps that share it.

    At the largest value, or FLAT times the median where that is more; at `most` in any case.
    """
    values = np.concatenate([np.ravel(values) for values in maps])
    return float(min(max(values.max(), FLAT * np.median(values)), most))


def attention_top(cells: Iterable[MapCell]) -> float:
    """`top` of attention over an even one, for all maps of a figure."""
    return top([over_even(cell.values) for cell in cells], CAP)


def attention(ax: Axes, cell: MapCell, top: float) -> AxesImage:
    """A map of attention over an even one, from 0 to `top`, and under it its largest value."""
    values = over_even(cell.values)
    ax.set_xlabel(f"max {style.times(values.max())}×", fontsize=6, labelpad=1.5)
    return show(ax, values, low=0, high=top)


def attention_bar(
    page: Page, image: AxesImage, first: int, last: int, lower: float = LABEL
) -> None:
    """The scale of all attention maps of a page, below its columns first..last."""
    _, high = image.get_clim()
    extend = "max" if high == CAP else "neither"
    page.bar(image, first, last, EVEN, ticks(0, high, 6), lower, extend)


def ticks(low: float, high: float, count: int = 3) -> list[float]:
    """At most `count` round numbers inside a range, for a colour bar; three fit below one cell."""
    values = MaxNLocator(nbins=count, steps=[1, 2, 5, 10]).tick_values(low, high)
    inside = [float(value) for value in values if low <= value <= high]
    return inside[::2] if len(inside) > count else inside


# --- whole pages


def gallery(
    images: Sequence[np.ndarray],
    rows: Sequence[Sequence[MapCell]],
    titles: Sequence[str],
    paint: Paint | None = None,
    groups: Sequence[int] = (1,),
    below: float = 0.0,
    **room,
) -> Page:
    """A row per image: the image itself, then its maps.

    images: (y, x, 3) each. rows: the maps of each. titles: of the columns with maps.
    paint: draws one map; None: attention, all maps on one scale with its bar.
    groups, below, room: of `page`.
    """
    of_attention = paint is None
    if of_attention:
        paint = partial(attention, top=attention_top(cell for row in rows for cell in row))
    labels = LABEL if of_attention else 0.0
    gallery_page = page(
        len(rows),
        1 + len(titles),
        ["Input", *titles],
        groups,
        below=below + labels + (BAR if of_attention else 0.0),
        row_gap=GAP + labels,
        **room,
    )
    for axes, image, row in zip(gallery_page.axes, images, rows):
        axes[0].imshow(image, aspect="auto")
        for ax, cell in zip(axes[1:], row):
            painted = paint(ax, cell)
    if of_attention:
        attention_bar(gallery_page, painted, 1, len(titles))
    return gallery_page


def compare(
    maps: ImageMaps,
    rows: Sequence[Sequence[MapCell]],
    paint: Paint | None = None,
    below: float = 0.0,
) -> Page:
    """Figs. 1, 19, 20 and 21: Input | methods without registers | methods with registers.

    rows: a row per image, its maps in the order of `selection.ends`. paint: of `gallery`.
    """
    groups = selection.ends(maps)
    starts = [1 + sum(len(group) for group in groups[:i]) for i in range(len(groups))]
    mark = {False: "", True: "*"}
    titles = [style.name(id.method) + mark[id.test_time] for group in groups for id in group]
    both = gallery(pictures(maps), rows, titles, paint, starts, below, heads=True)
    for group, start in zip(groups, starts):
        text = style.capitalised(style.having(group[0].registers))
        if any(id.test_time for id in group):
            text += " (* test-time registers)"
        both.head(start, start + len(group) - 1, text)
    return both
