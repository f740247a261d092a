"""Fig. 8: attention of [CLS] by number of registers (top), and downstream performance against it (bottom) (paper, section 3.2)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from registers.figures import grids, panels

# panels of the bottom row, left to right: question: (metric, title, axis label, factor, whether a larger value is better)
TASKS = {
    "linear": ("top1", "classification", "top-1 accuracy (%)", 100, True),
    "segmentation": ("miou", "segmentation", "mIoU (%)", 100, True),
    "depth": ("rmse", "depth", "RMSE", 1, False),
}
HEIGHT = 2.2  # inches: the bottom row with its labels


def table(
    maps: grids.Maps, linear: pd.DataFrame, segmentation: pd.DataFrame | None = None, depth: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Top: a row per patch of every map, panel attention. Bottom: a row per backbone, panel linear...: value, its interval low to high.

    Values of "linear" and "segmentation" are in per cent, of "depth" in the data's unit (metres for NYUd); several sets of a task are
    averaged. n: images, chance: the value of guessing.
    """
    bottom = [
        _rows(question, frame).assign(panel=question)
        for question, frame in _given(linear=linear, segmentation=segmentation, depth=depth).items()
    ]
    return pd.concat([grids.long(_cells(maps)), *bottom], ignore_index=True)


def draw(maps: grids.Maps, linear: pd.DataFrame, segmentation: pd.DataFrame | None = None, depth: pd.DataFrame | None = None) -> Figure:
    cells, given = _cells(maps)[0], _given(linear=linear, segmentation=segmentation, depth=depth)
    titles = ["Input", *(f"{b.registers} [reg]" for b in _models(maps))]
    page = grids.page(1, len(titles), titles, [1], below=HEIGHT, whole=True)
    page.axes[0, 0].imshow(grids.inputs(maps)[0], aspect="auto")
    for ax, cell in zip(page.axes[0, 1:], cells):
        grids.show(ax, cell.values)
    width, methods = page.figure.get_size_inches()[0], []
    room = (width - 0.1) / max(2, len(given))  # inches a panel, labels included; one panel alone stays narrower than the page
    start = (width - room * len(given)) / 2
    for i, (question, frame) in enumerate(given.items()):
        ax = page.figure.add_axes(page.box(start + i * room + 0.5, 0.6, room - 0.6, HEIGHT - 0.95))
        _curve(ax, question, _rows(question, frame))
        methods += list(frame["method"])
    methods = panels.in_order(methods)
    handles = [Line2D([], [], color=panels.colour(m), marker="o", label=panels.name(m)) for m in methods]
    page.figure.legend(handles=handles, loc="lower center", ncols=len(methods), bbox_to_anchor=(0.5, 0.0), borderaxespad=0.3)
    return page.figure


def caption(maps: grids.Maps, linear: pd.DataFrame, segmentation: pd.DataFrame | None = None, depth: pd.DataFrame | None = None) -> str:
    peaks, backbones = grids.peaks(_cells(maps, None)), _models(maps)
    by_count = panels.listing(f"{grids.times(peaks[str(b)])} ({b.registers})" for b in backbones)
    attention = f"the largest [CLS] attention of {panels.name(backbones[0].method)} over the median one is {by_count}"
    said = [_finding(question, frame) for question, frame in _given(linear=linear, segmentation=segmentation, depth=depth).items()]
    return f"By number of registers, {attention}; {'; '.join(said)}."


def _finding(question: str, frame: pd.DataFrame) -> str:
    """What the curves of one task show, method by method."""
    rows, said = _rows(question, frame), []
    for method in panels.in_order(rows["method"]):
        one = rows[rows["method"] == method].groupby("registers")[["value", "low", "high"]].mean()
        better = TASKS[question][4]
        best, first = one["value"].idxmax() if better else one["value"].idxmin(), one.index.min()
        model, start, top = panels.name(method), panels.number(one.loc[first, "value"]), panels.number(one.loc[best, "value"])
        apart = one.loc[best, "low"] > one.loc[first, "high"] if better else one.loc[best, "high"] < one.loc[first, "low"]
        verdict = f"{top} with {best}, where {best} is best, {'beyond' if apart else 'within'} the intervals"
        said.append(f"{model} {start} with {first} and {f'no higher count improves on {first}' if best == first else verdict}")
    images = int(rows["n"].min())
    return f"{TASKS[question][1]} ({TASKS[question][2]}, n = {images}) gives for {'; '.join(said)}"


def _curve(ax: Axes, question: str, rows: pd.DataFrame) -> None:
    """One line per method, one point and interval per seed, at evenly spaced counts: most are small."""
    _, title, label, _, _ = TASKS[question]
    counts = sorted(rows["registers"].unique())
    methods, seeds = panels.in_order(rows["method"]), sorted(rows["seed"].unique())
    for m, method in enumerate(methods):
        of_method = rows[rows["method"] == method]
        shift = 0.06 * (m - (len(methods) - 1) / 2)
        mean = of_method.groupby("registers")["value"].mean()
        ax.plot([counts.index(r) + shift for r in mean.index], mean, color=panels.colour(method), zorder=2)
        for i, seed in enumerate(seeds):
            one = of_method[of_method["seed"] == seed]
            x = [counts.index(r) + shift + 0.12 * (i - (len(seeds) - 1) / 2) for r in one["registers"]]
            error = [(one["value"] - one["low"]).fillna(0), (one["high"] - one["value"]).fillna(0)]
            ax.errorbar(x, one["value"], error, fmt="o", markersize=3.5, color=panels.colour(method), elinewidth=0.8, capsize=1.5, zorder=3)
    chance = rows["chance"].mean()
    if chance == chance and chance > 0.8 * rows["low"].min():
        ax.axhline(chance, color=panels.GREY, linestyle=":", linewidth=0.9)
        words = {"fontsize": 6.5, "color": panels.GREY, "ha": "center", "va": "bottom", "transform": ax.get_yaxis_transform()}
        ax.text(0.5, chance, f"chance {panels.number(chance)}", **words)
    ax.set_xticks(range(len(counts)), [str(r) for r in counts])
    ax.set(xlabel="number of [reg] tokens", title=f"{title}, {rows['data'].iloc[0]}")
    ax.set_ylabel(label)
    ax.margins(x=0.08)


def _given(**tasks: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    return {question: frame for question, frame in tasks.items() if frame is not None and len(frame)}


def _rows(question: str, frame: pd.DataFrame) -> pd.DataFrame:
    """backbone, method, registers, seed, data, value, low, high, n, chance of one task's metric: the mean over its data sets."""
    metric, _, _, factor, _ = TASKS[question]
    rows = frame[frame["metric"] == metric].dropna(subset=["value"])
    means = dict.fromkeys(("value", "low", "high", "chance"), "mean")
    rows = rows.groupby(["backbone", "method", "registers", "seed"], as_index=False).agg({"data": ", ".join, **means, "n": "min"})
    rows = rows.sort_values(["method", "registers", "seed"], ignore_index=True)
    rows[["value", "low", "high", "chance"]] *= factor
    return rows.astype({"seed": "Int64", "n": "Int64"})


def _models(maps: grids.Maps) -> list:
    method = grids.subject(maps).method
    return [b for b in grids.models(maps) if b.method == method]


def _cells(maps: grids.Maps, images: int | None = 1) -> list[list[grids.Cell]]:
    """The first image, as in the paper; all of them for the numbers in the caption."""
    return grids.cells(maps, _models(maps), images, "attention", grids.cls_attention)
