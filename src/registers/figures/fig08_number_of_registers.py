"""Fig. 8 (bottom, classification): top-1 of a linear classifier on frozen features against the number of registers (section 3.2)."""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures import panels


def table(linear: pd.DataFrame) -> pd.DataFrame:
    """A row per backbone, in per cent: registers, seed, value, its interval low to high, images n, chance."""
    rows = linear[linear["metric"] == "top1"].sort_values(["registers", "seed"])
    frame = rows[["backbone", "data", "registers", "seed", "value", "low", "high", "n", "chance"]].reset_index(drop=True)
    frame[["value", "low", "high", "chance"]] *= 100
    return frame


def draw(linear: pd.DataFrame) -> Figure:
    rows = table(linear)
    method = linear["method"].iloc[0]
    figure, axes = panels.canvas(height=2.3, width=3.4)
    ax = axes[0, 0]
    counts = sorted(rows["registers"].unique())
    place = {r: i for i, r in enumerate(counts)}  # evenly spaced: most counts are small
    mean = rows.groupby("registers")["value"].mean()
    ax.plot([place[r] for r in mean.index], mean, color=panels.colour(method), zorder=2)
    seeds = sorted(rows["seed"].unique())
    for i, seed in enumerate(seeds):
        one = rows[rows["seed"] == seed]
        x = [place[r] + 0.12 * (i - (len(seeds) - 1) / 2) for r in one["registers"]]
        error = [(one["value"] - one["low"]).fillna(0), (one["high"] - one["value"]).fillna(0)]
        ax.errorbar(x, one["value"], error, fmt="o", color=panels.colour(method), ecolor=panels.GREY, elinewidth=0.8, capsize=2, zorder=3)
    chance = rows["chance"].mean()
    if chance == chance and chance > 0.8 * rows["low"].min():
        ax.axhline(chance, color=panels.GREY, linestyle=":", linewidth=0.9)
        panels.note(ax, f"chance {chance:.1f} %", "lower right")
    ax.set_xticks(range(len(counts)), [str(r) for r in counts])
    ax.set(xlabel="number of register tokens", ylabel="top-1 accuracy (%)", title=f"{panels.name(method)}, {rows['data'].iloc[0]}")
    ax.margins(x=0.08)
    return figure


def caption(linear: pd.DataFrame) -> str:
    rows = table(linear)
    by_count = rows.groupby("registers")[["value", "low", "high"]].mean()
    best, first = by_count["value"].idxmax(), by_count.index.min()
    name = panels.name(linear["method"].iloc[0])
    values = panels.listing(f"{v:.1f} % ({r})" for r, v in by_count["value"].items())
    apart = by_count.loc[best, "low"] > by_count.loc[first, "high"]
    if best == first:
        finding = f"no higher count improves on {first}"
    else:
        finding = f"{best} is best, {'beyond' if apart else 'within'} the intervals of the model with {first}"
    return f"Linear classification on {name} by number of registers, {values}: {finding} (n = {int(rows['n'].min())} images)."
