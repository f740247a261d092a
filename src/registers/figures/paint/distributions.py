"""Norm distributions as figures draw them: histograms, bands over layers or models, and the verdict on a second mode.

All functions take rows of question "norms" (see `registers.probes.norms`).
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


@dataclass(frozen=True)
class Verdict:
    """Whether one backbone's patch norms have a second mode, and the numbers that go with it. share, low, high: fractions."""

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
        chosen = (
            ""
            if np.isnan(self.cutoff)
            else f"\n{style.percent(self.share, 2)} above the chosen {style.number(self.cutoff)}"
        )
        return f"no second mode\nmax {style.number(self.max_over_median, 2)}× median{chosen}"


def verdict(rows: pd.DataFrame) -> Verdict:
    """The verdict on one backbone's rows. Raises ValueError where they hold none, or those of several backbones."""
    found = rows[(rows["question"] == "norms") & rows["metric"].isin(SUMMARY)].set_index("metric")
    if list(found.index).count("second_mode") != 1:
        raise ValueError(
            f"outliers: {list(found.index).count('second_mode')} rows second_mode; allowed is one backbone's"
        )

    def cell(metric: str, column: str = "value") -> float:
        return float(found.loc[metric, column]) if metric in found.index else float("nan")

    return Verdict(
        second_mode=cell("second_mode") == 1,
        cutoff=cell("cutoff"),
        share=cell("share"),
        low=cell("share", "low"),
        high=cell("share", "high"),
        max_over_median=cell("max_over_median"),
        images=int(cell("second_mode", "n")),
    )


def histogram(rows: pd.DataFrame, token: str = "patch", layer: int | None = None) -> pd.DataFrame:
    """Bins of one backbone, token kind and layer (default: the last): low, high (edges), share of the tokens, count.

    Empty bins between occupied ones are filled in with zero, so that a gap between two modes is drawn as one.
    """
    counts = rows[
        (rows["question"] == "norms") & (rows["metric"] == "count") & (rows["token"] == token)
    ]
    counts = counts[
        counts["layer"] == (counts["layer"].max() if layer is None else layer)
    ].sort_values("at")
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
    found = rows[
        (rows["question"] == "norms")
        & rows["metric"].str.fullmatch(r"q\d+")
        & (rows["token"] == token)
    ]
    return found.pivot(index="layer", columns="metric", values="value").sort_index()


def bars(
    ax: Axes,
    bins: pd.DataFrame,
    colour,
    cutoff: float = np.nan,
    floor: float | None = None,
    **kwargs,
) -> None:
    """A histogram on a log axis of norms and a log axis of shares; bins above the cut-off in the colour of cut-offs."""
    floor = bins.loc[bins["share"] > 0, "share"].min() / 2 if floor is None else floor
    edges = np.append(bins["low"], bins["high"].iloc[-1])
    shown = np.maximum(bins["share"].to_numpy(), floor)
    above = (bins["low"] >= cutoff).to_numpy() if np.isfinite(cutoff) else np.zeros(len(bins), bool)
    ax.stairs(
        np.where(above, floor, shown), edges, baseline=floor, fill=True, color=colour, **kwargs
    )
    if above.any():
        ax.stairs(
            np.where(above, shown, floor), edges, baseline=floor, fill=True, color=style.CUTOFF
        )
    if np.isfinite(cutoff):
        ax.axvline(
            cutoff, color=style.CUTOFF, linestyle=(0, (4, 2)), linewidth=0.9, ymax=1 - HEADROOM
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(False, axis="x")


def headroom(ax: Axes, shares: bool = False) -> None:
    """Room for words above what is drawn, on a log axis. shares: the axis shows shares, so ticks end at 1."""
    low, high = ax.get_ylim()
    top = high * (high / low) ** (HEADROOM / (1 - HEADROOM))
    if shares:
        ax.set_yticks([10.0**p for p in range(int(np.ceil(np.log10(low))), 1)])
        ax.yaxis.set_minor_locator(
            FixedLocator([s * 10.0**p for p in range(-8, 0) for s in range(2, 10)])
        )
    ax.set_ylim(low, top)


def columns(ax: Axes, histograms: dict[float, pd.DataFrame], colormap, half: float = 0.5) -> None:
    """Histograms side by side as columns of colour (log density): x is the key, y the norm, paler where fewer tokens are."""
    least = min(h.loc[h["share"] > 0, "share"].min() for h in histograms.values())
    most = max(h["share"].max() for h in histograms.values())
    scale = LogNorm(min(least, most / 10) / 2, most)
    for x, bins in histograms.items():
        edges = np.append(bins["low"], bins["high"].iloc[-1])
        seen = np.ma.masked_equal(bins["share"].to_numpy(), 0)[:, None]
        ax.pcolormesh([x - half, x + half], edges, seen, cmap=colormap, norm=scale, linewidth=0)
    ax.set_yscale("log")
    ax.grid(False, axis="x")


def lines(ax: Axes, x, quantile: pd.DataFrame, colour: str = style.INK) -> None:
    """Median and 99 % quantile as lines, the maximum as dots."""
    ax.plot(x, quantile["q50"], color=colour, linewidth=1.2, label="median")
    ax.plot(
        x,
        quantile["q99"],
        color=colour,
        linewidth=0.9,
        linestyle=(0, (3, 1.5)),
        label="99 % quantile",
    )
    ax.plot(
        x,
        quantile["q100"],
        color=colour,
        linestyle="none",
        marker=".",
        markersize=3.5,
        label="maximum",
    )
