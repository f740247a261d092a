"""Fig. 15: norms of patch tokens, [CLS] and each register, of DINOv2 without and with registers
(paper, appendix D.1).

The paper draws all histograms on one another; here [CLS] and registers have a strip each, darker
where more of their tokens are, so that none hides another.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import distributions, style

PATCHES = 1.5  # inches: the height of the patches' histogram
STRIP = 0.14  # inches: the height of a strip


def table(norms: pd.DataFrame) -> pd.DataFrame:
    """The bins of every histogram: backbone, registers, token, low and high edge, count.

    share: of that kind's tokens.
    """
    parts = []
    for registers, rows in _models(norms).items():
        for token in ("patch", *_others(rows)):
            bins = distributions.histogram(rows, token)
            parts.append(
                bins.assign(backbone=rows["backbone"].iloc[0], registers=registers, token=token)
            )
    return pd.concat(parts, ignore_index=True)


def draw(norms: pd.DataFrame) -> Figure:
    models = _models(norms)
    strips = max(len(_others(rows)) for rows in models.values())
    below = STRIP * (strips + 1)
    figure, axes = style.canvas(
        2,
        len(models),
        height=PATCHES + below + 0.75,
        sharex=True,
        sharey="row",
        height_ratios=[PATCHES, below],
    )
    least = distributions.smallest_share(distributions.histogram(r) for r in models.values())
    for i, (registers, rows) in enumerate(models.items()):
        upper, lower = axes[:, i]
        method = rows["method"].iloc[0]
        summary = distributions.mode_summary(rows)
        bins = distributions.histogram(rows)
        distributions.bars(upper, bins, style.shade(method, 0.3), summary.cutoff, least / 2)
        style.note(upper, summary.words, colour=summary.colour)
        label = style.registers_label(registers, selection.is_test_time(rows))
        style.letter(upper, "ab"[i], f"{style.name(method)}, {label}")
        _strips(lower, method, {t: distributions.histogram(rows, t) for t in _others(rows)})
        lower.set_xlabel("L2 norm at the output")

    first = axes[0, 0]
    first.set_ylabel("share of patches")
    first.set_ylim(least / 2, 1.1)
    distributions.headroom(first, shares=True)
    names = _others(list(models.values())[-1])  # with the most registers
    axes[1, 0].set_yticks(range(len(names)), [_label(name) for name in names])
    axes[1, 0].set_ylim(strips - 0.3, -0.7)
    style.logarithmic(first.xaxis)
    return figure


def caption(norms: pd.DataFrame) -> str:
    models = _models(norms)
    counts: dict[str, list[str]] = {}
    for registers, rows in models.items():
        article = "a" if distributions.mode_summary(rows).second_mode else "no"
        counts.setdefault(article, []).append(style.having(registers))
    verdicts = [
        f"{article} second mode {style.listing(having)}" for article, having in counts.items()
    ]

    registers, rows = list(models.items())[-1]
    patch = distributions.quantiles(rows)["q50"].iloc[-1]
    ratios = []
    for token in _others(rows):
        median = distributions.quantiles(rows, token)["q50"].iloc[-1]
        ratios.append(f"{_label(token)} {style.times(median / patch)}")
    return (
        f"Patch norms of {style.name(rows['method'].iloc[0])} have {style.listing(verdicts)}; "
        f"{style.having(registers)} the median norms of the other tokens, over that of patches, "
        f"are {style.listing(ratios)}."
    )


def _strips(ax: Axes, method: str, histograms: dict[str, pd.DataFrame]) -> None:
    """A horizontal strip per kind of token, from the top, darker where more tokens are."""
    scale = distributions.density_scale(histograms.values())
    for y, bins in enumerate(histograms.values()):
        edges = np.append(bins["low"], bins["high"].iloc[-1])
        occupied = np.ma.masked_equal(bins["share"].to_numpy(), 0)[None]
        painting = dict(cmap=style.colormap(method), norm=scale, linewidth=0)
        ax.pcolormesh(edges, [y - 0.42, y + 0.42], occupied, **painting)
    ax.set_xscale("log")
    ax.grid(False, axis="x")


def _models(norms: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """DINOv2 (or else the first method) with the fewest and with the most registers."""
    return selection.by_registers(selection.of_subject(norms))


def _others(rows: pd.DataFrame) -> list[str]:
    """The kinds of tokens beside patches: [CLS], then registers by number."""
    tokens = set(rows.loc[rows["metric"] == "count", "token"])
    registers = sorted((t for t in tokens if t.startswith("reg")), key=lambda t: int(t[3:]))
    return [token for token in ("cls", *registers) if token in tokens]


def _label(token: str) -> str:
    return "[CLS]" if token == "cls" else token
