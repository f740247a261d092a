"""Fig. 12: increase in FLOPs and in parameters against the number of registers (appendix B). Exact.

The paper's models and this run's have panels of their own: registers weigh much more beside the few
patches of a small image.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from registers.figures.paint import style

MARKERS = "osD^vPX"
INKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D00", "#444444", "#56B4E9")
METRICS = {"macs_increase": "flops", "params_increase": "parameters"}
PAPER = "ViT-"  # how names of the paper's models begin


def table(cost: pd.DataFrame) -> pd.DataFrame:
    """A row per model and count: model, registers, increase of FLOPs and parameters in per cent."""
    increases = cost[cost["metric"].isin(METRICS)]
    frame = 100 * increases.pivot(index=["data", "at"], columns="metric", values="value")
    names = {"data": "model", "at": "registers", **METRICS}
    frame = frame.reset_index().rename(columns=names).rename_axis(columns=None)
    order = {model: i for i, model in enumerate(cost["data"].unique())}
    frame["order"] = frame["model"].map(order)
    frame = frame.sort_values(["order", "registers"], ignore_index=True)
    return frame.astype({"registers": int})[["model", "registers", *METRICS.values()]]


def draw(cost: pd.DataFrame) -> Figure:
    rows = table(cost)
    styles = {
        model: dict(color=INKS[i % len(INKS)], marker=MARKERS[i % len(MARKERS)])
        for i, model in enumerate(rows["model"].unique())
    }
    of_paper = rows["model"].str.startswith(PAPER)
    panels = {
        "FLOPs, the paper's models": (rows[of_paper], "flops"),
        "FLOPs, this run's models": (rows[~of_paper], "flops"),
        "Parameters, all models": (rows[rows["registers"] > 0], "parameters"),
    }
    panels = {title: panel for title, panel in panels.items() if len(panel[0])}
    figure, axes = style.canvas(1, len(panels), height=2.6)
    for ax, letter, (title, (part, column)) in zip(axes[0], "abc", panels.items()):
        _curves(ax, part, column, styles)
        style.letter(ax, letter, title)
    axes[0, 0].set_ylabel("increase (%)")
    axes[0, -1].set_yscale("log")
    for ax in axes[0]:
        ax.set_xlabel("number of register tokens")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def caption(cost: pd.DataFrame) -> str:
    rows = table(cost).set_index(["model", "registers"])
    models = list(dict.fromkeys(model for model, _ in rows.index))

    def added_flops(count: int) -> str:
        texts = []
        for whose, is_paper in (("the paper's models", True), ("this run's", False)):
            numbers = [
                f"{style.number(rows.loc[(model, count), 'flops'])} % ({model})"
                for model in models
                if model.startswith(PAPER) == is_paper and (model, count) in rows.index
            ]
            texts += [f"{style.listing(numbers)} to the FLOPs of {whose}"] if numbers else []
        return style.listing(texts)

    largest = rows["parameters"].groupby("model").max()
    ends = (largest.min(), largest.max())
    parameters = style.span(f"{style.number(value, 2)} %" for value in ends)
    return (
        f"Four registers add {added_flops(4)}; sixteen add {added_flops(16)}; parameters grow by "
        f"at most {parameters}, depending on the model (size/patch@pixels)."
    )


def _curves(ax: Axes, rows: pd.DataFrame, column: str, styles: dict[str, dict]) -> None:
    """A line per model over its numbers of registers."""
    for model in rows["model"].unique():
        line = rows[rows["model"] == model]
        dashes = "-" if model.startswith(PAPER) else (0, (3, 1.5))
        drawing = dict(styles[model], linestyle=dashes, linewidth=1.2, markersize=4)
        ax.plot(line["registers"], line[column], label=model, **drawing)
    # 1 and 2 lie too close for both to be named
    counts = [count for count in sorted(rows["registers"].unique()) if count != 1]
    ax.set_xticks(counts, [str(count) for count in counts])
