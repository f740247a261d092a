"""Fig. 7: output norms of each method, without (top) and with registers (bottom) (section 3.2)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import distributions, style


def table(norms: pd.DataFrame) -> pd.DataFrame:
    """The bins of every panel: their edges low and high, share of the tokens, count.

    Beside them backbone, method, registers, and the panel's verdict.
    """
    parts = []
    for (method, registers), rows in _panels(norms).items():
        summary = distributions.mode_summary(rows)
        bins = distributions.histogram(rows).assign(
            backbone=rows["backbone"].iloc[0],
            method=method,
            registers=registers,
            second_mode=summary.second_mode,
            cutoff=summary.cutoff,
            share_above=summary.share,
            max_over_median=summary.max_over_median,
        )
        parts.append(bins)
    return pd.concat(parts, ignore_index=True)


def draw(norms: pd.DataFrame) -> Figure:
    panels = _panels(norms)
    methods = list(dict.fromkeys(method for method, _ in panels))
    counts = sorted({registers for _, registers in panels})
    figure, axes = style.canvas(
        len(counts), len(methods), height=1.35 * len(counts) + 0.5, sharex="col", sharey=True
    )
    histograms = {key: distributions.histogram(rows) for key, rows in panels.items()}
    floor = distributions.smallest_share(histograms.values()) / 2
    for (method, registers), rows in panels.items():
        ax = axes[counts.index(registers), methods.index(method)]
        colour = style.shade(method, 0.3 if registers else 0.75)
        _panel(ax, rows, histograms[method, registers], colour, floor)

    for ax, method in zip(axes[0], methods):
        ax.set_title(style.name(method))
    for ax, registers in zip(axes[:, 0], counts):
        ax.set_ylabel(f"{style.registers_label(registers)}\nshare of tokens")
    for ax in axes[-1]:
        style.logarithmic(ax.xaxis)
    figure.supxlabel("L2 norm of patch tokens at the output (line: median)", fontsize=8)
    axes[0, 0].set_ylim(floor, max(bins["share"].max() for bins in histograms.values()) * 1.3)
    distributions.headroom(axes[0, 0], shares=True)
    return figure


def caption(norms: pd.DataFrame) -> str:
    summaries = {key: distributions.mode_summary(rows) for key, rows in _panels(norms).items()}
    others = _of_all_seeds(norms)
    if not any(summary.second_mode for summary in summaries.values()):
        return f"{_nothing_to_remove(summaries)}{others}."
    findings = []
    for count in sorted({registers for _, registers in summaries}):
        affected = [
            f"{style.name(method)} ({style.percent(summary.share, 2)})"
            for (method, registers), summary in summaries.items()
            if registers == count and summary.second_mode
        ]
        verb = "have" if len(affected) > 1 else "has"
        who = style.listing(affected) if affected else "no model"
        findings.append(f"{style.having(count)} {who} {verb} high-norm outliers")
    return f"{style.capitalised('; '.join(findings))}{others}."


def _of_all_seeds(norms: pd.DataFrame) -> str:
    """How many models of several seeds have a second mode; "" where there is one seed."""
    seeds = norms["seed"].nunique()
    if seeds == 1:
        return ""
    ends = norms[norms["registers"].isin(selection.fewest_and_most(norms["registers"]))]
    modes = ends.loc[ends["metric"] == "second_mode", "value"]
    having = f"{int(modes.sum())} of {style.plural(len(modes), 'model')} have a second mode"
    return f"; over all {seeds} seeds, {having}"


def _nothing_to_remove(summaries: dict[tuple[str, int], distributions.ModeSummary]) -> str:
    ratios = [summary.max_over_median for summary in summaries.values()]
    largest = style.span(style.times(ratio) for ratio in (min(ratios), max(ratios)))
    (method, registers), *others = summaries
    which = f"any of these {len(summaries)} models" if others else style.model(method, registers)
    return (
        f"Norms have no second mode in {which}: the largest patch norm is {largest} times the "
        "median, so there is nothing for registers to remove here"
    )


def _panel(ax: Axes, rows: pd.DataFrame, bins: pd.DataFrame, colour, floor: float) -> None:
    summary = distributions.mode_summary(rows)
    distributions.bars(ax, bins, colour, summary.cutoff, floor)
    median = distributions.quantiles(rows)["q50"].iloc[-1]
    ax.axvline(median, color=style.INK, linewidth=0.8, ymax=1 - distributions.HEADROOM)
    added = "\ntest-time registers" if selection.is_test_time(rows) else ""
    style.note(ax, summary.words + added, colour=summary.colour)


def _panels(norms: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """Rows by (method, registers): the paper's columns, and the fewest and most registers."""
    norms = selection.first_seed(norms)
    return {
        (method, registers): rows[rows["registers"] == registers]
        for registers in selection.fewest_and_most(norms["registers"])
        for method, rows in selection.by_method(norms).items()
        if (rows["registers"] == registers).any()
    }
