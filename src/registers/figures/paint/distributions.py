"""Distributions of norms: histograms, bands over layers or models, and the verdict on two modes.

All functions take rows of question "norms" (see `registers.probes.norms`): histograms (metric
"count"), quantiles ("q0" to "q100"), and whether there is a second mode, with the cut-off and the
share above it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator

from registers.figures.paint import style
from registers.vocabulary import BINS_PER_DECADE, bin_edges

SUMMARY = ("second_mode", "cutoff", "share", "max_over_median")
HEADROOM = 0.25  # of a panel's height, for the verdict in words
DASHED = (0, (4, 2))


@dataclass(frozen=True)
class ModeSummary:
    """Whether one backbone's patch norms have a second mode, and the numbers that go with it.

    cutoff: nan where there is none.
    share, low, high: of tokens above the cut-off, as fractions, with the 95 % interval.
    max_over_median: the largest norm over the median one.
    """

    second_mode: bool
    cutoff: float
    share: float
    low: float
    high: float
    max_over_median: float
    images: int

    @property
    def words(self) -> str:
        """For a panel. Without a second mode nothing is called an outlier."""
        if self.second_mode:
            return f"{style.percent(self.share, 2)} above {style.number(self.cutoff)}"
        text = f"no second mode\nmax {style.times(self.max_over_median)}× median"
        if np.isnan(self.cutoff):
            return text
        share = style.percent(self.share, 2)
        return f"{text}\n{share} above {style.number(self.cutoff)}, chosen by hand"

    @property
    def colour(self) -> str:
        """Of the words: that of cut-offs where there is a second mode."""
        return style.CUTOFF if self.second_mode else style.GREY


def mode_summary(rows: pd.DataFrame) -> ModeSummary:
    """Summarises one backbone's rows.

    Raises ValueError where the rows hold no verdict on a second mode, or several backbones'.
    """
    summary = rows[(rows["question"] == "norms") & rows["metric"].isin(SUMMARY)]
    summary = summary.set_index("metric")
    verdicts = list(summary.index).count("second_mode")
    if verdicts != 1:
        raise ValueError(f"norms: {verdicts} rows of second_mode; must be 1, of one backbone")

    def cell(metric: str, column: str = "value") -> float:
        return float(summary.loc[metric, column]) if metric in summary.index else float("nan")

    return ModeSummary(
        second_mode=cell("second_mode") == 1,
        cutoff=cell("cutoff"),
        share=cell("share"),
        low=cell("share", "low"),
        high=cell("share", "high"),
        max_over_median=cell("max_over_median"),
        images=int(cell("second_mode", "n")),
    )


def histogram(rows: pd.DataFrame, token: str = "patch", layer: int | None = None) -> pd.DataFrame:
    """Bins of one backbone, kind of token and layer (default: the last).

    Columns: low and high (edges), share of the tokens, count. Empty bins between occupied ones are
    filled in with zero, so that a gap between two modes is drawn as one. Raises ValueError where
    there are no counts.
    """
    of_token = rows[
        (rows["question"] == "norms") & (rows["metric"] == "count") & (rows["token"] == token)
    ]
    layer = of_token["layer"].max() if layer is None else layer
    counts = of_token[of_token["layer"] == layer].sort_values("at")
    if counts.empty:
        raise ValueError(f"norms: no counts for token {token}, layer {layer}")

    middles = counts["at"].to_numpy(float)
    index = np.rint(np.log10(middles / middles[0]) * BINS_PER_DECADE).astype(int)
    full = np.zeros(index[-1] + 1)
    full[index] = counts["value"]

    lowest, _ = bin_edges(middles[0])
    edges = lowest * 10 ** (np.arange(len(full) + 1) / BINS_PER_DECADE)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "share": full / full.sum(),
            "count": full.astype(int),
        }
    )


def quantiles(rows: pd.DataFrame, token: str = "patch") -> pd.DataFrame:
    """One backbone's quantiles, a row per layer: columns q0 ... q100, index layer."""
    of_token = rows[
        (rows["question"] == "norms")
        & rows["metric"].str.fullmatch(r"q\d+")
        & (rows["token"] == token)
    ]
    return of_token.pivot(index="layer", columns="metric", values="value").sort_index()


def smallest_share(histograms) -> float:
    """The smallest share of an occupied bin in several histograms."""
    return min(bins.loc[bins["share"] > 0, "share"].min() for bins in histograms)


# --- painters


def bars(
    ax: Axes, bins: pd.DataFrame, colour, cutoff: float = np.nan, floor: float | None = None
) -> None:
    """A histogram on log axes of norms and shares; bins above the cut-off in its colour.

    floor: where the bars stand; by default half the smallest share.
    """
    floor = smallest_share([bins]) / 2 if floor is None else floor
    edges = np.append(bins["low"], bins["high"].iloc[-1])
    heights = np.maximum(bins["share"].to_numpy(), floor)
    above = (bins["low"] >= cutoff).to_numpy()  # none where the cut-off is nan
    painting = dict(baseline=floor, fill=True)
    ax.stairs(np.where(above, floor, heights), edges, color=colour, **painting)
    if above.any():
        ax.stairs(np.where(above, heights, floor), edges, color=style.CUTOFF, **painting)
    if np.isfinite(cutoff):
        line = dict(color=style.CUTOFF, linestyle=DASHED, linewidth=0.9)
        ax.axvline(cutoff, ymax=1 - HEADROOM, **line)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(False, axis="x")


def headroom(ax: Axes, shares: bool = False) -> None:
    """Leaves room for words above what is drawn, on a log axis.

    shares: the axis shows shares, so ticks end at 1.
    """
    low, high = ax.get_ylim()
    top = high * (high / low) ** (HEADROOM / (1 - HEADROOM))
    if shares:
        decades = [10.0**p for p in range(int(np.ceil(np.log10(low))), 1)]
        ax.set_yticks(decades, [f"{100 * share:g} %" for share in decades])
        minor = np.outer(10.0 ** np.arange(-8, 0), np.arange(2, 10))
        ax.yaxis.set_minor_locator(FixedLocator(minor.ravel()))
    ax.set_ylim(low, top)


def density_scale(histograms) -> LogNorm:
    """One scale of colours for the shares of several histograms."""
    histograms = list(histograms)
    least = smallest_share(histograms)
    most = max(bins["share"].max() for bins in histograms)
    return LogNorm(min(least, most / 10) / 2, most)


def columns(ax: Axes, histograms: dict[float, pd.DataFrame], colormap, half: float = 0.5) -> None:
    """Histograms side by side as columns of colour, paler where fewer tokens are.

    histograms: by their place on the x axis; norms are on the y axis. half: half a column's width.
    """
    scale = density_scale(histograms.values())
    for x, bins in histograms.items():
        edges = np.append(bins["low"], bins["high"].iloc[-1])
        occupied = np.ma.masked_equal(bins["share"].to_numpy(), 0)[:, None]
        ax.pcolormesh([x - half, x + half], edges, occupied, cmap=colormap, norm=scale, linewidth=0)
    ax.set_yscale("log")
    ax.grid(False, axis="x")


def lines(ax: Axes, x, quantile: pd.DataFrame, colour: str = style.INK) -> None:
    """Median and 99 % quantile as lines, the maximum as dots."""
    dashed = dict(linewidth=0.9, linestyle=(0, (3, 1.5)))
    dots = dict(linestyle="none", marker=".", markersize=3.5)
    ax.plot(x, quantile["q50"], color=colour, linewidth=1.2, label="median")
    ax.plot(x, quantile["q99"], color=colour, label="99 % quantile", **dashed)
    ax.plot(x, quantile["q100"], color=colour, label="maximum", **dots)
