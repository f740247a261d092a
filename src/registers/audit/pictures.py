"""The pictures of an audit's page, each as PNG bytes.

Letters: B images, L layers, H heads, P patches, h x w the grid.
"""

import io
from collections.abc import Callable

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from registers.audit.audited import Audit
from registers.audit.verdict import PAPER_CUTOFF, percent
from registers.figures.paint import style

DPI = 150
BLUE = "#1f5fa8"
ORANGE = "#c8641b"
GREEN = "#2e7d4f"
NORMS = "magma"
ATTENTION = "viridis"
IMAGES = 6  # shown in the maps
BORDERLESS = dict(xticks=[], yticks=[])


_DEPTH = (
    "One image through the layers: norms of its patches after each block; every map has its own "
    "scale, written below it."
)
_PLACES = "In what share of images a patch is an outlier."
_NEURONS = (
    "Mean |activation| of these MLP neurons, after the non-linearity, at outliers and at the other "
    "patches."
)


def pictures(audit: Audit) -> dict[str, tuple[bytes, str]]:
    """Name of each picture: its PNG and what is to be seen on it."""
    has_grid = audit.bank.grid is not None
    drawn = {
        "curves": (curves(audit), _curves_caption(audit)),
        "histogram": (histogram(audit), _histogram_caption(audit)),
    }
    if has_grid:
        drawn["maps"] = (norm_maps(audit), _maps_caption(audit))
    if has_grid and audit.bank.layers > 1:
        drawn["depth"] = (through_depth(audit), _DEPTH)
    if has_grid and audit.verdict.outliers:
        drawn["places"] = (frequency(audit), _PLACES)
    if audit.heads:
        drawn["heads"] = (heads(audit), _heads_caption(audit))
    if audit.heads and has_grid:
        drawn["attention"] = (attention(audit), _attention_caption(audit))
    if audit.neurons:
        drawn["neurons"] = (neurons(audit), _NEURONS)
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


# --- norms


def curves(audit: Audit) -> Figure:
    """Norms along layers, before and behind the final norm."""
    rows = audit.rows
    has_normed = rows[0].normed_median is not None
    figure, axes = style.canvas(1, 2 if has_normed else 1, height=2.6)
    layers = [row.layer for row in rows]
    ax = axes[0, 0]
    ax.fill_between(
        layers,
        [row.median for row in rows],
        [row.maximum for row in rows],
        color=BLUE,
        alpha=0.13,
        linewidth=0,
    )
    line(ax, layers, [row.maximum for row in rows], BLUE, "patches, highest", ls=":")
    line(ax, layers, [row.median for row in rows], BLUE, "patches, median")
    line(ax, layers, [row.cls for row in rows], ORANGE, "[CLS]")
    line(ax, layers, [row.registers for row in rows], GREEN, "registers")
    cutoffs = [row.cutoff for row in rows]
    line(ax, layers, cutoffs, style.CUTOFF, "own cut-off", ls="none", marker="_")
    ax.set(yscale="log", xlabel="layer", ylabel="norm", title="before the final norm")
    if has_normed:
        ax = axes[0, 1]
        line(ax, layers, [row.normed_maximum for row in rows], BLUE, "patches, highest", ls=":")
        line(ax, layers, [row.normed_median for row in rows], BLUE, "patches, median")
        ax.set(yscale="log", xlabel="layer", title="behind the final norm, applied to every layer")
        low, high = axes[0, 0].get_ylim()
        ratio = (high / low) ** 0.5
        middle = np.median([row.normed_median for row in rows])
        ax.set_ylim(middle / ratio, middle * ratio)  # the same number of decades as on the left
    for ax in axes.flat:
        style.logarithmic(ax.yaxis)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(fontsize=6.5)
    return figure


def line(ax: Axes, x: list[int], y: list[float | None], colour: str, label: str, **how) -> None:
    if any(value is not None for value in y):
        values = [np.nan if value is None else value for value in y]
        marker = "o" if len(x) == 1 else None
        ax.plot(x, values, **{"color": colour, "label": label, "marker": marker, **how})


def _curves_caption(audit: Audit) -> str:
    text = "Norms after each block."
    if audit.rows[0].normed_median is not None:
        return text + " Right: the same tokens behind the model's final norm, on as many decades."
    return f"{text} Behind the final norm: nothing, as {audit.bank.norm_note}."


def _layer(audit: Audit) -> int:
    """The layer that is shown: where outliers stand out most, else the last."""
    return audit.verdict.layer or audit.bank.layers


def histogram(audit: Audit) -> Figure:
    """Norms of patches, [CLS] and registers at one layer."""
    bank = audit.bank
    layer = _layer(audit)
    patches = bank.patch_norms(layer).ravel()
    row = audit.rows[layer - 1]
    normed = bank.layout.patch_part(bank.normed[:, layer - 1]).ravel()
    has_normed = row.normed_median is not None
    figure, axes = style.canvas(1, 2 if has_normed else 1, height=2.3)
    _bars(axes[0, 0], patches, row.cutoff)
    marks = [(row.cls, ORANGE, "[CLS]"), (row.registers, GREEN, "registers")]
    for value, colour, label in marks:
        if value is not None:
            axes[0, 0].axvline(value, color=colour, lw=1.2, ls="--", label=f"{label}, median")
    axes[0, 0].axvline(PAPER_CUTOFF, color=style.GREY, lw=0.8, ls=":", label="150 (the paper's)")
    axes[0, 0].set(title=f"layer {layer}, before the final norm", ylabel="patches", xlabel="norm")
    axes[0, 0].legend(fontsize=6.5)
    if has_normed:
        _bars(axes[0, 1], normed, row.normed_cutoff)
        axes[0, 1].set(title=f"layer {layer}, behind the final norm", xlabel="norm")
    return figure


def _bars(ax: Axes, norms: np.ndarray, cutoff: float | None) -> None:
    low, high = norms.min() * 0.95, norms.max() * 1.05
    if high / low < 1.5:
        middle = (low * high) ** 0.5
        low, high = middle / 1.25, middle * 1.25
    edges = np.geomspace(low, high, 60)
    counts, _ = np.histogram(norms, edges)
    above = np.inf if cutoff is None else cutoff
    shades = [style.CUTOFF if edge >= above else BLUE for edge in edges[:-1]]
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=shades)
    if cutoff is not None:
        ax.axvline(cutoff, color=style.CUTOFF, lw=1, label=f"own cut-off, {cutoff:.3g}")
    ax.set(xscale="log", yscale="log", ylim=(0.7, None))
    style.logarithmic(ax.xaxis)
    style.logarithmic(ax.yaxis)
    ax.minorticks_off()


def _histogram_caption(audit: Audit) -> str:
    row = audit.rows[_layer(audit) - 1]
    if row.cutoff is None:
        return f"Norms of all patches: {row.reason}."
    return f"Norms of all patches; red: {percent(row.share)} of them are above its own cut-off."


# --- maps


def examples(audit: Audit, count: int = IMAGES) -> list[int]:
    """Images to show: those with most outliers first, at most `count`, all in their own order."""
    order = np.argsort(-audit.verdict.mask.sum(1), kind="stable")[:count]
    return sorted(int(i) for i in order)


def norm_maps(audit: Audit) -> Figure:
    """Photos and the norms of their patches at one layer, on one scale."""
    bank = audit.bank
    layer = _layer(audit)
    chosen = examples(audit)
    maps = bank.patch_norms(layer)[chosen].reshape(len(chosen), *bank.grid)
    rows = 2 if shows_pictures(audit) else 1
    figure, axes = style.canvas(rows, len(chosen), height=1.08 * rows)
    scale = colors.LogNorm(maps.min(), max(maps.max(), maps.min() * 1.01))
    for column, image in enumerate(chosen):
        if rows == 2:
            axes[0, column].imshow(bank.images.pictures[image])
        painted = axes[-1, column].imshow(maps[column], cmap=NORMS, norm=scale)
    bare(axes)
    bar = figure.colorbar(painted, ax=axes[-1, :].tolist(), fraction=0.025, pad=0.01)
    style.logarithmic(bar.ax.yaxis)
    bar.ax.tick_params(labelsize=6)
    return figure


def _maps_caption(audit: Audit) -> str:
    which = "where outliers stand out most" if audit.verdict.outliers else "the last"
    return f"Norms of the patches after layer {_layer(audit)}, {which}; one logarithmic scale."


def through_depth(audit: Audit) -> Figure:
    """Norms of one image's patches at several layers."""
    bank = audit.bank
    image = int(audit.verdict.mask.sum(1).argmax())
    count = min(8, bank.layers)
    layers = sorted({round(x) for x in np.linspace(1, bank.layers, count)} | {_layer(audit)})
    figure, axes = style.canvas(1, len(layers), height=1.25)
    for ax, layer in zip(axes.flat, layers):
        values = bank.patch_norms(layer)[image].reshape(bank.grid)
        ax.imshow(values, cmap=NORMS)
        ax.set_title(f"layer {layer}", fontsize=7)
        ax.set_xlabel(f"{values.min():.2g} to {values.max():.3g}", fontsize=6)
    bare(axes)
    return figure


def frequency(audit: Audit) -> Figure:
    figure, axes = style.canvas(1, 1, height=2.1, width=2.7)
    painted = axes[0, 0].imshow(audit.places.frequency, cmap="Reds", vmin=0)
    bare(axes)
    bar = figure.colorbar(painted, ax=axes[0, 0], fraction=0.046)
    bar.ax.tick_params(labelsize=6)
    return figure


# --- heads and neurons


def heads(audit: Audit) -> Figure:
    """One cell for each head: what it gives to outliers, or to its busiest patch."""
    value = _head_value(audit)
    layers = max(row.layer for row in audit.heads)
    count = max(row.head for row in audit.heads) + 1
    grid = np.full((count, layers), np.nan)
    for row in audit.heads:
        grid[row.head, row.layer - 1] = value(row)
    figure, axes = style.canvas(1, 1, height=min(3.2, 0.8 + 0.17 * count))
    ax = axes[0, 0]
    cells = ax.imshow(
        grid, cmap="Reds", vmin=0, aspect="auto", extent=(0.5, layers + 0.5, count - 0.5, -0.5)
    )
    ax.grid(False)
    ax.set(xlabel="layer", ylabel="head")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(cells, ax=ax, fraction=0.04, pad=0.02)
    bar.ax.tick_params(labelsize=6)
    return figure


def _head_value(audit: Audit) -> Callable:
    if audit.verdict.outliers:
        return lambda row: row.patches_to_outliers
    return lambda row: row.busiest


def _heads_caption(audit: Audit) -> str:
    if audit.verdict.outliers:
        return "Share of the ordinary patches' attention that goes to outliers, for every head."
    return "What the patch that is attended to most gets of all attention, for every head."


def attention(audit: Audit) -> Figure:
    """Where the heads look that look at outliers most, on the image with most of them."""
    bank = audit.bank
    image = int(audit.verdict.mask.sum(1).argmax())
    rows = audit.top_heads(4)
    panels = [
        (f"layer {row.layer} head {row.head}", gaze(audit, row.layer, row.head, image, "patches"))
        for row in rows
    ]
    if bank.layout.cls is not None:
        panels.append(("[CLS], last layer", gaze(audit, bank.layers, None, image, "cls")))
    if bank.layout.registers:
        panels.append(("registers, last", gaze(audit, bank.layers, None, image, "registers")))
    first = int(shows_pictures(audit))
    figure, axes = style.canvas(1, len(panels) + first, height=1.3)
    if first:
        axes[0, 0].imshow(bank.images.pictures[image])
        axes[0, 0].set_title("image", fontsize=7)
    for ax, (title, values) in zip(axes[0, first:], panels):
        ax.imshow(values, cmap=ATTENTION, vmin=0)
        ax.set_title(title, fontsize=7)
    bare(axes)
    return figure


def gaze(audit: Audit, layer: int, head: int | None, image: int, queries: str) -> np.ndarray:
    """(h, w) mean attention of some tokens to the patches."""
    rows_HQN = audit.bank.attention(layer, queries, [image])[0]
    mean_N = (rows_HQN.mean(0) if head is None else rows_HQN[head]).mean(0)
    return audit.bank.layout.patch_part(mean_N).reshape(audit.bank.grid)


def _attention_caption(audit: Audit) -> str:
    which = "look at outliers most" if audit.verdict.outliers else "have the busiest patch"
    return (
        f"The heads that {which}: attention of all patches, averaged, to each patch; then that of "
        "[CLS] and registers in the last layer, averaged over heads. Each map has its own scale."
    )


def neurons(audit: Audit) -> Figure:
    rows = audit.neurons[::-1]
    figure, axes = style.canvas(1, 1, height=0.6 + 0.19 * len(rows))
    ax = axes[0, 0]
    y = np.arange(len(rows))
    at_outliers = [row.at_outliers for row in rows]
    elsewhere = [row.elsewhere for row in rows]
    ax.barh(y + 0.19, at_outliers, 0.36, color=style.CUTOFF, label="at outliers")
    ax.barh(y - 0.19, elsewhere, 0.36, color=BLUE, label="elsewhere")
    ax.set_yticks(y, [f"layer {row.layer}, neuron {row.neuron}" for row in rows])
    ax.set(xlabel="mean |activation|")
    ax.grid(False, axis="y")
    ax.legend(loc="lower right")
    return figure


def shows_pictures(audit: Audit) -> bool:
    return audit.bank.images is not None and audit.bank.images.pictures is not None


def bare(axes: np.ndarray) -> None:
    for ax in axes.flat:
        ax.set(**BORDERLESS)
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
