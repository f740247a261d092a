"""Fig. 12: increase in FLOPs and in parameters against the number of registers (paper, appendix B). Exact."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from registers.figures.paint import style

MARKERS = "osD^vPX"
INKS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D00", "#444444", "#56B4E9"]
METRICS = {"macs_increase": "flops", "params_increase": "parameters"}


def table(cost: pd.DataFrame) -> pd.DataFrame:
    """A row per model and count: model, registers, increase of FLOPs and of parameters in per cent."""
    rows = cost[cost["metric"].isin(METRICS)]
    frame = (
        rows.pivot(index=["data", "at"], columns="metric", values="value").rename(columns=METRICS)
        * 100
    )
    frame = (
        frame.reset_index()
        .rename(columns={"data": "model", "at": "registers"})
        .rename_axis(columns=None)
    )
    order = {m: i for i, m in enumerate(cost["data"].unique())}
    frame = frame.sort_values(
        ["model", "registers"], key=lambda c: c.map(order) if c.name == "model" else c
    )
    return frame.astype({"registers": int}).reset_index(drop=True)[
        ["model", "registers", *METRICS.values()]
    ]


def draw(cost: pd.DataFrame) -> Figure:
    rows = table(cost)
    figure, axes = style.canvas(1, 2, height=2.6)
    for ax, column, title in zip(axes[0], METRICS.values(), ("FLOPs", "Parameters")):
        for i, model in enumerate(rows["model"].unique()):
            one = rows[rows["model"] == model]
            if column == "parameters":
                one = one[one["registers"] > 0]
            line = dict(
                color=INKS[i % len(INKS)],
                marker=MARKERS[i % len(MARKERS)],
                linestyle="-" if i < 2 else (0, (3, 1.5)),
            )
            ax.plot(one["registers"], one[column], label=model, linewidth=1.2, markersize=4, **line)
        counts = sorted(rows["registers"].unique())
        ax.set_xticks(counts, [str(c) for c in counts])
        ax.set(xlabel="number of register tokens", ylabel="increase (%)", title=title)
    axes[0, 1].set_yscale("log")
    for axis in (axes[0, 0].yaxis, axes[0, 1].yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def caption(cost: pd.DataFrame) -> str:
    rows = table(cost).set_index(["model", "registers"])
    models = list(dict.fromkeys(m for m, _ in rows.index))

    def each(count: int) -> str:
        return style.listing(
            f"{style.number(rows.loc[(m, count), 'flops'])} % ({m})"
            for m in models
            if (m, count) in rows.index
        )

    largest = rows["parameters"].groupby("model").max()
    least, most = style.number(largest.min()), style.number(largest.max())
    return f"Four registers add {each(4)} to the FLOPs, sixteen add {each(16)}; parameters grow by at most {least} to {most} %."
