"""Fig. 4: norms over the layers (a), over training (b) and over model sizes (c) of DINOv2 without registers (paper, section 2.1)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from registers.figures.paint import distributions, style
from registers.settings.recipes import SIZES

LETTERS = {
    "tiny": "T",
    "small": "S",
    "base": "B",
    "large": "L",
    "huge": "H",
    "giant": "g",
}  # as in Fig. 4c


def table(steps: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """A row per column of a panel: panel, at (layer, per cent of training, size), quantiles, verdict at the output of that model."""
    parts = []
    last = _by_percent(steps)[-1][1]
    layers = (
        distributions.quantiles(last)
        .reset_index()
        .assign(panel="a")
        .rename(columns={"layer": "at"})
    )
    layers["backbone"] = last["backbone"].iloc[0]
    parts.append(layers)
    for panel, models in (("b", _by_percent(steps)), ("c", _by_size(sizes))):
        for at, rows in models:
            found = distributions.verdict(rows)
            parts.append(
                distributions.quantiles(rows)
                .tail(1)
                .assign(
                    panel=panel,
                    at=at,
                    backbone=rows["backbone"].iloc[0],
                    second_mode=found.second_mode,
                )
                .assign(
                    cutoff=found.cutoff, share=found.share, max_over_median=found.max_over_median
                )
            )
    frame = pd.concat(parts, ignore_index=True)
    first = ["panel", "at", "backbone"]
    return frame[first + [c for c in frame.columns if c not in first]]


def draw(steps: pd.DataFrame, sizes: pd.DataFrame) -> Figure:
    figure, axes = style.canvas(1, 3, height=2.5)
    along, by_size = _by_percent(steps), _by_size(sizes)
    last = along[-1][1]
    method = last["method"].iloc[0]

    ax = axes[0, 0]
    quantile = distributions.quantiles(last)
    histograms = {layer: distributions.histogram(last, layer=layer) for layer in quantile.index}
    distributions.columns(ax, histograms, style.colormap(method))
    distributions.lines(ax, quantile.index, quantile)
    style.letter(ax, "a", "Norms along layers")
    ax.set(xlabel="layer", ylabel="L2 norm of patch tokens")
    ax.xaxis.get_major_locator().set_params(integer=True)
    _remark(ax, [last], "at the output")

    ax = axes[0, 1]
    _models(ax, method, along)
    ax.set_xticks(
        range(len(along)),
        [f"{p} %" if i % (1 + len(along) // 7) == 0 else "" for i, (p, _) in enumerate(along)],
    )
    ax.set_xlabel("training done")
    style.letter(ax, "b", "Norms along iterations")
    _remark(ax, [rows for _, rows in along], "at any time")

    ax = axes[0, 2]
    _models(ax, method, by_size)
    ax.set_xticks(range(len(by_size)), [LETTERS[s] for s, _ in by_size])
    ax.set_xlabel("model size")
    style.letter(ax, "c", "Norms across model size")
    _remark(ax, [rows for _, rows in by_size], "at any size")

    for ax in axes[0]:
        distributions.headroom(ax)
        style.logarithmic(ax.yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def caption(steps: pd.DataFrame, sizes: pd.DataFrame) -> str:
    along, by_size = _by_percent(steps), _by_size(sizes)
    found = {p: distributions.verdict(rows) for p, rows in along}
    late = [f"{p} %" for p, v in found.items() if v.second_mode]
    big = [s for s, rows in by_size if distributions.verdict(rows).second_mode]
    last = along[-1][1]
    model = f"{style.name(last['method'].iloc[0])} {style.registers_label(int(last['registers'].iloc[0]))}"
    growth = distributions.quantiles(along[-1][1])
    spread = growth["q100"] / growth["q50"]
    largest = {s: distributions.verdict(rows).max_over_median for s, rows in by_size}
    layers = f"the largest patch norm is farthest from the median in layer {spread.idxmax()} of {len(spread)} ({spread.max():.1f} times)"
    if late or big:
        return (
            f"In {model} a second mode of norms is there in {_count(late, along)} checkpoints along training and in "
            f"{_count(big, by_size)} sizes; {layers}."
        )
    return (
        f"In {model} no second mode of norms appears in any of {len(along)} checkpoints along training or "
        f"{len(by_size)} sizes (largest norm at most {max(largest.values()):.1f} times the median); {layers}."
    )


def _count(found: list[str], models: list[tuple]) -> str:
    """ "3 of 5 (50 %, 75 % and 100 %)" """
    return f"{len(found)} of {len(models)}" + (f" ({style.listing(found)})" if found else "")


def _models(ax: Axes, method: str, models: list[tuple]) -> None:
    """One column a model, its cut-off as a short line where there is one."""
    distributions.columns(
        ax,
        {i: distributions.histogram(rows) for i, (_, rows) in enumerate(models)},
        style.colormap(method),
        half=0.42,
    )
    quantile = pd.concat([distributions.quantiles(rows).tail(1) for _, rows in models])
    distributions.lines(ax, range(len(models)), quantile)
    for i, (_, rows) in enumerate(models):
        cutoff = distributions.verdict(rows).cutoff
        if cutoff == cutoff:
            ax.hlines(
                cutoff, i - 0.45, i + 0.45, color=style.CUTOFF, linestyle=(0, (4, 2)), linewidth=0.9
            )


def _remark(ax: Axes, models: list[pd.DataFrame], where: str) -> None:
    with_mode = sum(distributions.verdict(rows).second_mode for rows in models)
    if not with_mode:
        style.note(ax, f"no second mode {where}", "upper left")
    elif len(models) > 1:
        style.note(ax, f"second mode in {with_mode} of {len(models)}", "upper left", style.CUTOFF)
    else:
        style.note(ax, distributions.verdict(models[0]).words, "upper left", style.CUTOFF)


def _by_percent(steps: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    return [(int(p), rows) for p, rows in style.first_seed(steps).groupby("percent")]


def _by_size(sizes: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = dict(list(style.first_seed(sizes).groupby("size")))
    return [(s, groups[s]) for s in SIZES if s in groups]
