"""Fig. 7: output norms of each method, without (top) and with registers (bottom) (paper, section 3.2)."""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import distributions, style


def table(norms: pd.DataFrame) -> pd.DataFrame:
    """The bins of every panel: backbone, method, registers, low and high edge, share of tokens, count; and the panel's verdict."""
    parts = []
    for (method, registers), rows in _panels(norms).items():
        found = distributions.verdict(rows)
        bins = distributions.histogram(rows)
        bins = bins.assign(
            backbone=rows["backbone"].iloc[0],
            method=method,
            registers=registers,
            second_mode=found.second_mode,
        )
        parts.append(
            bins.assign(
                cutoff=found.cutoff, share_above=found.share, max_over_median=found.max_over_median
            )
        )
    return pd.concat(parts, ignore_index=True)


def draw(norms: pd.DataFrame) -> Figure:
    shown = _panels(norms)
    methods, counts = list(dict.fromkeys(m for m, _ in shown)), sorted({r for _, r in shown})
    figure, axes = style.canvas(
        len(counts), len(methods), height=1.35 * len(counts) + 0.5, sharex="col", sharey=True
    )
    histograms = {key: distributions.histogram(rows) for key, rows in shown.items()}
    floor = min(h.loc[h["share"] > 0, "share"].min() for h in histograms.values()) / 2
    for (method, registers), rows in shown.items():
        ax = axes[counts.index(registers), methods.index(method)]
        found = distributions.verdict(rows)
        distributions.bars(
            ax,
            histograms[method, registers],
            style.shade(method, 0.3 if registers else 0.75),
            found.cutoff,
            floor,
        )
        median = distributions.quantiles(rows)["q50"].iloc[-1]
        ax.axvline(median, color=style.INK, linewidth=0.8, ymax=1 - distributions.HEADROOM)
        style.note(ax, found.words, colour=style.CUTOFF if found.second_mode else style.GREY)
        if registers == counts[0]:
            ax.set_title(style.name(method))
        if method == methods[0]:
            ax.set_ylabel(f"{style.registers_label(registers)}\nshare of tokens")
    for ax in axes[-1]:
        style.logarithmic(ax.xaxis)
    figure.supxlabel("L2 norm of patch tokens at the output (black line: median)", fontsize=8)
    axes[0, 0].set_ylim(floor, max(h["share"].max() for h in histograms.values()) * 1.3)
    distributions.headroom(axes[0, 0], shares=True)
    return figure


def caption(norms: pd.DataFrame) -> str:
    shown = {key: distributions.verdict(rows) for key, rows in _panels(norms).items()}
    methods, counts = list(dict.fromkeys(m for m, _ in shown)), sorted({r for _, r in shown})
    if not any(v.second_mode for v in shown.values()):
        ratios = [v.max_over_median for v in shown.values()]
        return (
            f"No second mode of norms in any of these {len(shown)} models, with or without registers: the largest patch norm is "
            f"{min(ratios):.2f} to {max(ratios):.2f} times the median, so there is nothing for registers to remove here."
        )
    said = []
    for count in counts:
        high = [
            f"{style.name(m)} ({style.percent(shown[m, count].share, 2)})"
            for m in methods
            if (m, count) in shown and shown[m, count].second_mode
        ]
        said.append(
            f"{style.having(count)} {style.listing(high) if high else 'no model'} {'have' if len(high) > 1 else 'has'} high-norm outliers"
        )
    text = "; ".join(said)
    return text[0].upper() + text[1:] + "."


def _panels(norms: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """Rows by (method, registers), for the fewest and the most registers given: the paper's columns and rows."""
    norms = style.first_seed(norms)
    counts = sorted({int(r) for r in norms["registers"]})
    wanted = [
        (m, r)
        for r in dict.fromkeys((counts[0], counts[-1]))
        for m in style.in_order(norms["method"])
    ]
    found = {(m, r): norms[(norms["method"] == m) & (norms["registers"] == r)] for m, r in wanted}
    return {key: rows for key, rows in found.items() if len(rows)}
