"""Fig. 15: norms of patch tokens, [CLS] and each register, of DINOv2 without and with registers (paper, appendix D.1)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import distributions, style


def table(norms: pd.DataFrame) -> pd.DataFrame:
    """The bins of every curve: backbone, registers, token, low and high edge, share of that kind's tokens, count."""
    parts = [
        distributions.histogram(rows, token).assign(
            backbone=rows["backbone"].iloc[0], registers=registers, token=token
        )
        for registers, rows in _models(norms)
        for token in _kinds(rows)
    ]
    return pd.concat(parts, ignore_index=True)


def draw(norms: pd.DataFrame) -> Figure:
    models = _models(norms)
    figure, axes = style.canvas(1, len(models), height=2.5, sharex=True, sharey=True)
    for ax, label, (registers, rows) in zip(axes[0], "ab", models):
        method, found = rows["method"].iloc[0], distributions.verdict(rows)
        distributions.bars(
            ax,
            distributions.histogram(rows),
            style.shade(method, 0.15),
            found.cutoff,
            floor=1e-5,
            label="patch",
        )
        kinds = [k for k in _kinds(rows) if k != "patch"]
        for i, kind in enumerate(kinds):
            bins = distributions.histogram(rows, kind)
            ink = style.INK if kind == "cls" else style.register_colour(i - 1, len(kinds) - 1)
            edges = np.append(bins["low"], bins["high"].iloc[-1])
            ax.stairs(
                np.maximum(bins["share"], 1e-5),
                edges,
                baseline=1e-5,
                color=ink,
                linewidth=1.1,
                label=_label(kind),
            )
        style.letter(ax, label, f"{style.name(method)}, {style.registers_label(registers)}")
        style.note(
            ax, found.words, "upper right", style.CUTOFF if found.second_mode else style.GREY
        )
        ax.set_xlabel("L2 norm at the output")
    axes[0, 0].set_ylabel("share of this kind of token")
    least = min(
        h["share"][h["share"] > 0].min()
        for _, rows in models
        for h in [distributions.histogram(rows)]
    )
    axes[0, 0].set_ylim(least / 2, 1.1)
    distributions.headroom(axes[0, 0], shares=True)
    style.logarithmic(axes[0, 0].xaxis)
    handles = {label: h for ax in axes[0] for h, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(8, len(handles))
    )
    return figure


def caption(norms: pd.DataFrame) -> str:
    models = _models(norms)
    found = [(style.having(r), distributions.verdict(rows).second_mode) for r, rows in models]
    said = [f"{having} {'a' if there else 'no'} second mode" for having, there in found]
    registers, rows = models[-1]
    middle = {k: distributions.quantiles(rows, k)["q50"].iloc[-1] for k in _kinds(rows)}
    patch = middle.pop("patch")
    ratios = [f"{_label(k)} {v / patch:.2f}" for k, v in middle.items()]
    return (
        f"Patch norms of {style.name(rows['method'].iloc[0])} have {style.listing(said)}; {style.having(registers)} the median norms of "
        f"the other tokens, over that of patches, are {style.listing(ratios)}."
    )


def _models(norms: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    """DINOv2 (or else the first method) with the fewest and with the most registers given."""
    methods = style.in_order(norms["method"])
    rows = style.first_seed(
        norms[norms["method"] == ("dinov2" if "dinov2" in methods else methods[0])]
    )
    counts = sorted({int(r) for r in rows["registers"]})
    return [(r, rows[rows["registers"] == r]) for r in dict.fromkeys((counts[0], counts[-1]))]


def _kinds(rows: pd.DataFrame) -> list[str]:
    found = set(rows.loc[rows["metric"] == "count", "token"])
    return [k for k in ("patch", "cls") if k in found] + sorted(
        (k for k in found if k.startswith("reg")), key=lambda k: int(k[3:])
    )


def _label(kind: str) -> str:
    return "[CLS]" if kind == "cls" else kind
