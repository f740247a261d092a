"""Fig. 8: attention of [CLS] by number of registers (top), and downstream performance against it
(bottom) (paper, section 3.2)."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from registers.differences import in_words
from registers.figures import selection
from registers.figures.paint import cls_attention, grids, image_maps, style

HEIGHT = 2.2  # inches: the bottom row with its labels


@dataclass(frozen=True)
class Task:
    """One panel of the bottom row.

    metric: of the question's rows. scale: 100 for per cent. higher_is_better: of the metric.
    """

    metric: str
    title: str
    label: str
    scale: int
    higher_is_better: bool

    def best(self, values: pd.Series) -> int:
        """The index of the best value."""
        return values.idxmax() if self.higher_is_better else values.idxmin()


TASKS = {  # by question, left to right
    "linear": Task("top1", "classification", "top-1 accuracy (%)", 100, True),
    "segmentation": Task("miou", "segmentation", "mIoU (%)", 100, True),
    "depth": Task("rmse", "depth", "RMSE, lower is better", 1, False),
}


def table(
    maps: image_maps.ImageMaps,
    linear: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Top: a row per patch of every map, panel attention. Bottom: a row per backbone.

    Panels linear and segmentation are in per cent, depth in the data's unit (metres for NYUd);
    several sets of a task are averaged. value, low, high: with its interval. n: images. chance: the
    value of guessing. Drawn are means over seeds and their standard deviation (of a single seed its
    interval).
    """
    parts = [image_maps.long(_cells(maps))]
    for question, rows in _tasks(linear, segmentation, depth).items():
        parts.append(rows.assign(panel=question))
    return pd.concat(parts, ignore_index=True)


def draw(
    maps: image_maps.ImageMaps,
    linear: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> Figure:
    # --- top
    titles = [f"{id.registers} [reg]" for id in selection.subject_models(maps)]
    images = image_maps.pictures(maps)
    page = grids.gallery(images, _cells(maps), titles, below=HEIGHT, whole=True)

    # --- bottom: panels side by side; a single one is half a page wide, in the middle
    tasks = _tasks(linear, segmentation, depth)
    width = page.figure.get_size_inches()[0]
    room = (width - 0.1) / max(2, len(tasks))
    start = (width - room * len(tasks)) / 2
    for i, (question, rows) in enumerate(tasks.items()):
        place = page.box(start + i * room + 0.5, 0.6, room - 0.6, HEIGHT - 0.95)
        _curves(page.figure.add_axes(place), TASKS[question], rows)

    methods = selection.in_order(method for rows in tasks.values() for method in rows["method"])
    page.figure.legend(
        handles=[
            Line2D([], [], color=style.colour(method), marker="o", label=_label(method, tasks))
            for method in methods
        ],
        loc="lower center",
        ncols=len(methods),
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=0.3,
    )
    return page.figure


def caption(
    maps: image_maps.ImageMaps,
    linear: pd.DataFrame,
    segmentation: pd.DataFrame | None = None,
    depth: pd.DataFrame | None = None,
) -> str:
    # --- top
    ids = selection.subject_models(maps)
    largest = cls_attention.largest_by_backbone(_cells(maps))
    by_count = style.listing(f"{style.times(largest[str(id)])} with {id.registers}" for id in ids)
    attention = (
        f"the largest attention of [CLS] in {style.name(ids[0].method)}, over an even one (under "
        f"each map), is {by_count}"
    )

    # --- bottom
    tasks = _tasks(linear, segmentation, depth)
    findings = style.remarked(_finding(TASKS[task], rows) for task, rows in tasks.items())
    seeds = max(int(_points(rows)["seeds"].max()) for rows in tasks.values())
    bars = "95 % intervals over images, of one seed"
    if seeds > 1:
        bars = f"standard deviations over {seeds} seeds around their mean"
    return f"By number of registers, {attention}; {findings}; bars are {bars}."


def _label(method: str, tasks: dict[str, pd.DataFrame]) -> str:
    """A line's name, and whether its registers were added at test time."""
    parts = (rows[rows["method"] == method] for rows in tasks.values())
    added = any(selection.is_test_time(part) for part in parts)
    return style.name(method) + (" (test-time registers)" if added else "")


def _finding(task: Task, rows: pd.DataFrame) -> tuple[str, list[tuple[str, str]]]:
    """What the curves of one task show, method by method, each with how sure it is."""
    findings = []
    for method, points in selection.by_method(_points(rows)).items():
        points = points.set_index("registers")
        seeds = _by_seed(rows[rows["method"] == method])
        first = points.index.min()
        best = task.best(points["value"].map(style.number).astype(float))  # as printed
        start = f"{style.name(method)} {style.number(points.loc[first, 'value'])} with {first}"
        if best == first:
            findings.append((f"{start}, which no higher count improves on", ""))
            continue
        top = style.number(points.loc[best, "value"])
        how_sure = in_words(seeds[best], seeds[first], len(points) - 1)
        findings.append((f"{start} and {top} with {best}, where {best} is best", how_sure))
    sets = _sets(rows)
    averaged = f", averaged over {style.listing(sets)}" if len(sets) > 1 else ""
    about = f"{task.label.replace(' (%)', ' in %')}{averaged}, n = {int(rows['n'].min())}"
    return f"{task.title} ({about}) gives for", findings


def _by_seed(rows: pd.DataFrame) -> dict[int, dict[int, float]]:
    """Numbers of one method by registers and seed."""
    return {
        int(registers): part.groupby("seed")["value"].mean().to_dict()
        for registers, part in rows.groupby("registers")
    }


def _curves(ax: Axes, task: Task, rows: pd.DataFrame) -> None:
    """One line per method through the means over seeds with their bars; counts evenly spaced.

    Beside them, pale, each seed where there are several.
    """
    counts = sorted(rows["registers"].unique())
    points = selection.by_method(_points(rows))
    for i, (method, means) in enumerate(points.items()):
        # methods stand a little apart, so that their bars do not hide one another
        shift = 0.12 * (i - (len(points) - 1) / 2)
        x = [counts.index(count) + shift for count in means["registers"]]
        error = means["value"] - means["low"], means["high"] - means["value"]
        ax.errorbar(
            x,
            means["value"],
            [side.fillna(0) for side in error],
            fmt="o-",
            color=style.colour(method),
            markersize=3.5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=1.5,
            zorder=3,
        )
        if means["seeds"].max() > 1:
            seeds = rows[rows["method"] == method]
            x = [counts.index(count) + shift + 0.13 for count in seeds["registers"]]
            pale = dict(alpha=0.45, markersize=1.8, markeredgewidth=0, zorder=2)
            ax.plot(x, seeds["value"], "o", color=style.colour(method), **pale)
    _chance(ax, task, rows)

    sets = _sets(rows)
    over = sets[0] if len(sets) == 1 else f"mean of {len(sets)} sets"
    ax.set_xticks(range(len(counts)), [str(count) for count in counts])
    ax.set(xlabel="number of [reg] tokens", title=f"{task.title}, {over}", ylabel=task.label)
    ax.margins(x=0.08)


def _chance(ax: Axes, task: Task, rows: pd.DataFrame) -> None:
    """The level of guessing, where it does not squeeze the curves."""
    chance = rows["chance"].mean()
    if task.higher_is_better:
        near = chance > 0.8 * rows["low"].min()
    else:
        near = chance < 1.2 * rows["high"].max()
    if near:
        ax.axhline(chance, color=style.GREY, linestyle=":", linewidth=0.9)
        words = dict(fontsize=6.5, color=style.GREY, ha="center", va="bottom")
        across = ax.get_yaxis_transform()
        ax.text(0.5, chance, f"chance {style.number(chance)}", transform=across, **words)


def _tasks(
    linear: pd.DataFrame, segmentation: pd.DataFrame | None, depth: pd.DataFrame | None
) -> dict[str, pd.DataFrame]:
    """`_rows` of the tasks that were run, by question."""
    frames = {"linear": linear, "segmentation": segmentation, "depth": depth}
    return {
        question: _rows(TASKS[question], frame)
        for question, frame in frames.items()
        if frame is not None and len(frame)
    }


def _rows(task: Task, frame: pd.DataFrame) -> pd.DataFrame:
    """One task's metric, a row per backbone: the mean over its data sets.

    Columns: backbone, method, registers, seed, data, value, low, high, chance, n.
    """
    rows = frame[frame["metric"] == task.metric].dropna(subset=["value"])
    numbers = ["value", "low", "high", "chance"]
    by_backbone = rows.groupby(["backbone", "method", "registers", "seed"], as_index=False)
    rows = by_backbone.agg({"data": ", ".join, **dict.fromkeys(numbers, "mean"), "n": "min"})
    rows = rows.sort_values(["method", "registers", "seed"], ignore_index=True)
    rows[numbers] *= task.scale
    return rows.astype({"seed": "Int64", "n": "Int64"})


def _sets(rows: pd.DataFrame) -> list[str]:
    """The data sets that a task is averaged over."""
    return rows["data"].iloc[0].split(", ")


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: method, registers, seeds, value, low, high.

    low and high lie one standard deviation away; of a single seed they are its interval.
    """
    means = {column: (column, "mean") for column in ("value", "low", "high")}
    points = rows.groupby(["method", "registers"], as_index=False).agg(
        seeds=("seed", "nunique"), deviation=("value", "std"), **means
    )
    single = points["seeds"] == 1
    for column, sign in (("low", -1), ("high", 1)):
        away = points["value"] + sign * points["deviation"]
        points[column] = points[column].where(single, away)
    return points


def _cells(maps: image_maps.ImageMaps) -> list[list[image_maps.MapCell]]:
    """A column per number of registers, for one image, as in the paper."""
    return cls_attention.of_models(maps, selection.subject_models(maps), 1)
