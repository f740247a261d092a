"""Fig. 8: attention of [CLS] by number of registers (top), and downstream performance against it (bottom) (paper, section 3.2)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from registers.figures.paint import grids, style

# panels of the bottom row, left to right: question: (metric, title, axis label, factor, whether a larger value is better)
TASKS = {
    "linear": ("top1", "classification", "top-1 accuracy (%)", 100, True),
    "segmentation": ("miou", "segmentation", "mIoU (%)", 100, True),
    "depth": ("rmse", "depth", "RMSE, lower is better", 1, False),
}
HEIGHT = 2.2  # inches: the bottom row with its labels


def table(
    maps: grids.Maps,
    linear: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Top: a row per patch of every map, panel attention. Bottom: a row per backbone, panel linear...: value, its interval low to high.

    Values of "linear" and "segmentation" are in per cent, of "depth" in the data's unit (metres for NYUd); several sets of a task are
    averaged. n: images, chance: the value of guessing. Drawn are means over seeds and their standard deviation (of one seed its interval).
    """
    bottom = [
        _rows(question, frame).assign(panel=question)
        for question, frame in _given(linear=linear, segmentation=segmentation, depth=depth).items()
    ]
    return pd.concat([grids.long(_cells(maps)), *bottom], ignore_index=True)


def draw(
    maps: grids.Maps,
    linear: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> Figure:
    cells, given = _cells(maps)[0], _given(linear=linear, segmentation=segmentation, depth=depth)
    titles = ["Input", *(f"{b.registers} [reg]" for b in _models(maps))]
    page = grids.page(1, len(titles), titles, [1], below=HEIGHT, whole=True)
    page.axes[0, 0].imshow(grids.inputs(maps)[0], aspect="auto")
    for ax, cell in zip(page.axes[0, 1:], cells):
        grids.show(ax, cell.values)
    width, methods = page.figure.get_size_inches()[0], []
    room = (width - 0.1) / max(
        2, len(given)
    )  # inches a panel, labels included; one panel alone stays narrower than the page
    start = (width - room * len(given)) / 2
    for i, (question, frame) in enumerate(given.items()):
        ax = page.figure.add_axes(page.box(start + i * room + 0.5, 0.6, room - 0.6, HEIGHT - 0.95))
        _curve(ax, question, _rows(question, frame))
        methods += list(frame["method"])
    methods = style.in_order(methods)
    handles = [
        Line2D([], [], color=style.colour(m), marker="o", label=style.name(m)) for m in methods
    ]
    page.figure.legend(
        handles=handles,
        loc="lower center",
        ncols=len(methods),
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=0.3,
    )
    return page.figure


def caption(
    maps: grids.Maps,
    linear: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> str:
    peaks, backbones = grids.peaks(_cells(maps, None)), _models(maps)
    by_count = style.listing(f"{grids.times(peaks[str(b)])} ({b.registers})" for b in backbones)
    attention = f"the largest [CLS] attention of {style.name(backbones[0].method)} over the median one is {by_count}"
    given = _given(linear=linear, segmentation=segmentation, depth=depth)
    said = [_finding(question, frame) for question, frame in given.items()]
    seeds = max(
        int(_points(_rows(question, frame))["seeds"].max()) for question, frame in given.items()
    )
    bars = (
        f"standard deviations over {seeds} seeds around their mean"
        if seeds > 1
        else "95 % intervals over images, of one seed"
    )
    return f"By number of registers, {attention}; {'; '.join(said)}; bars are {bars}."


def _finding(question: str, frame: pd.DataFrame) -> str:
    """What the curves of one task show, method by method."""
    rows, said = _rows(question, frame), []
    points = _points(rows)
    for method in style.in_order(rows["method"]):
        one = points[points["method"] == method].set_index("registers")
        better = TASKS[question][4]
        best, first = one["value"].idxmax() if better else one["value"].idxmin(), one.index.min()
        model, start, top = (
            style.name(method),
            style.number(one.loc[first, "value"]),
            style.number(one.loc[best, "value"]),
        )
        apart = (
            one.loc[best, "low"] > one.loc[first, "high"]
            if better
            else one.loc[best, "high"] < one.loc[first, "low"]
        )
        bars = "standard deviations" if one["seeds"].max() > 1 else "intervals"
        verdict = (
            f"{top} with {best}, where {best} is best, {'beyond' if apart else 'within'} the {bars}"
        )
        said.append(
            f"{model} {start} with {first} and {f'no higher count improves on {first}' if best == first else verdict}"
        )
    images, sets = int(rows["n"].min()), rows["data"].iloc[0].split(", ")
    averaged = f", averaged over {style.listing(sets)}" if len(sets) > 1 else ""
    return f"{TASKS[question][1]} ({TASKS[question][2]}{averaged}, n = {images}) gives for {'; '.join(said)}"


def _curve(ax: Axes, question: str, rows: pd.DataFrame) -> None:
    """One line per method through the means over seeds with their bars, beside them pale the seeds; counts are evenly spaced."""
    _, title, label, _, better = TASKS[question]
    counts, points, methods = (
        sorted(rows["registers"].unique()),
        _points(rows),
        style.in_order(rows["method"]),
    )
    for m, method in enumerate(methods):
        shift = 0.12 * (m - (len(methods) - 1) / 2)
        one, single = (frame[frame["method"] == method] for frame in (points, rows))
        x = [counts.index(r) + shift for r in one["registers"]]
        error = [(one["value"] - one["low"]).fillna(0), (one["high"] - one["value"]).fillna(0)]
        look = dict(
            color=style.colour(method),
            markersize=3.5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=1.5,
            zorder=3,
        )
        ax.errorbar(x, one["value"], error, fmt="o-", **look)
        if one["seeds"].max() > 1:
            x = [counts.index(r) + shift + 0.13 for r in single["registers"]]
            ax.plot(
                x,
                single["value"],
                "o",
                color=style.colour(method),
                alpha=0.45,
                markersize=1.8,
                markeredgewidth=0,
                zorder=2,
            )
    chance = rows["chance"].mean()
    if (
        chance > 0.8 * rows["low"].min() if better else chance < 1.2 * rows["high"].max()
    ):  # where it does not squeeze the curves
        ax.axhline(chance, color=style.GREY, linestyle=":", linewidth=0.9)
        words = {
            "fontsize": 6.5,
            "color": style.GREY,
            "ha": "center",
            "va": "bottom",
            "transform": ax.get_yaxis_transform(),
        }
        ax.text(0.5, chance, f"chance {style.number(chance)}", **words)
    ax.set_xticks(range(len(counts)), [str(r) for r in counts])
    sets = rows["data"].iloc[0].split(", ")
    ax.set(
        xlabel="number of [reg] tokens",
        title=f"{title}, {sets[0] if len(sets) == 1 else f'mean of {len(sets)} sets'}",
    )
    ax.set_ylabel(label)
    ax.margins(x=0.08)


def _given(**tasks: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    return {
        question: frame for question, frame in tasks.items() if frame is not None and len(frame)
    }


def _rows(question: str, frame: pd.DataFrame) -> pd.DataFrame:
    """backbone, method, registers, seed, data, value, low, high, n, chance of one task's metric: the mean over its data sets."""
    metric, _, _, factor, _ = TASKS[question]
    rows = frame[frame["metric"] == metric].dropna(subset=["value"])
    means = dict.fromkeys(("value", "low", "high", "chance"), "mean")
    rows = rows.groupby(["backbone", "method", "registers", "seed"], as_index=False).agg(
        {"data": ", ".join, **means, "n": "min"}
    )
    rows = rows.sort_values(["method", "registers", "seed"], ignore_index=True)
    rows[["value", "low", "high", "chance"]] *= factor
    return rows.astype({"seed": "Int64", "n": "Int64"})


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """method, registers, seeds, value, low, high: the mean over seeds, one standard deviation below and above; of one seed its interval."""
    means = {column: (column, "mean") for column in ("value", "low", "high")}
    points = rows.groupby(["method", "registers"], as_index=False).agg(
        seeds=("seed", "nunique"), deviation=("value", "std"), **means
    )
    several = points["seeds"] > 1
    for column, sign in (("low", -1), ("high", 1)):
        points[column] = points[column].where(
            ~several, points["value"] + sign * points["deviation"]
        )
    return points


def _models(maps: grids.Maps) -> list:
    method = grids.subject(maps).method
    return [b for b in grids.models(maps) if b.method == method]


def _cells(maps: grids.Maps, images: int | None = 1) -> list[list[grids.Cell]]:
    """The first image, as in the paper; all of them for the numbers in the caption."""
    return grids.cells(maps, _models(maps), images, "attention", grids.cls_attention)
