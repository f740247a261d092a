"""The figures of the emergence study, but those of the search before it
(search_figures.py) and of pictures that are asked several labels (label_figures.py)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from registers.figures.paint import style
from registers.study.sweep import Sweep

WITHOUT = style.colour("deit3")
WITH = style.colour("dinov2")


# --- the headline: one scene, without and with registers


READERS = {
    "pool": "attention of the query",
    "attention": "attention of one head",
    "cls": "attention of [CLS]",
}


def headline(runs: Path, names: list[str], reader: str, scene: int = 0) -> Figure:
    """A row for each run: one scene, its norms, what attention falls on, and the norms of all
    scenes. reader: whose attention, that of the query that pools the label ("pool"), of the head
    that gives redundant patches and registers most ("attention") or of [CLS] in the last block,
    mean over heads ("cls")."""
    figure, axes = style.canvas(
        len(names), 4, 1.55 * len(names), gridspec_kw={"width_ratios": [1.35, 1.55, 1.9, 1.6]}
    )
    every = []
    for name in names:
        with np.load(runs / name / "maps.npz") as arrays:
            every.append({key: arrays[key] for key in arrays.files})
    highest = max(np.max(maps["all_norms"]) / np.median(maps["all_norms"]) for maps in every)
    for panels, name, maps in zip(axes, names, every, strict=True):
        run = json.loads((runs / name / "run.json").read_text())
        if run["regime"]["appearance"] == "glyphs":
            draw_wall(panels[0], maps, scene)
        else:
            draw_scene(panels[0], maps, scene)
        image = draw_norms(panels[1], maps, scene, highest)
        weights = draw_attention(panels[2], maps[reader][scene], maps, run["registers"])
        draw_histogram(panels[3], maps, run["numbers"]["cutoff"], highest)
        panels[0].set_ylabel(style.registers_label(run["registers"]))
        figure.colorbar(image, ax=panels[1], shrink=0.6)
        figure.colorbar(weights, ax=panels[2], shrink=0.6)
    titles = ("scene", "norm / median", READERS[reader], "norms of all patches")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    axes[-1][3].set_xlabel("norm / median")
    kinds = axes[0][3].get_legend_handles_labels()
    figure.legend(*kinds, loc="outside lower right", ncols=2)
    return figure


def bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def draw_scene(ax: Axes, maps: dict[str, np.ndarray], scene: int) -> None:
    """A symbol's number in its colour. A triangle: tells its left neighbour's symbol; a frame:
    carries the code; hatched: blank."""
    grid = round(maps["redundant"].shape[1] ** 0.5)
    hues = colormaps["twilight"](maps["symbols"][scene] / (maps["symbols"].max() + 1))[:, :3]
    tints = 0.45 * hues + 0.55
    tints[maps["redundant"][scene]] = 1.0
    ax.imshow(tints.reshape(grid, grid, 3), interpolation="nearest")
    for cell in range(grid**2):
        y, x = divmod(cell, grid)
        if maps["redundant"][scene, cell]:
            ax.add_patch(square(x, y, ec=style.GREY, hatch="////", lw=0.4))
            continue
        number = str(maps["symbols"][scene, cell])
        ax.text(x, y, number, ha="center", va="center", fontsize=6)
        if maps["triggered"][scene, cell]:
            ax.plot(x - 0.34, y - 0.3, marker="<", ms=2.5, color=style.INK, lw=0)
        if maps["marked"][scene, cell]:
            ax.add_patch(square(x, y, size=0.86, ec=style.CUTOFF, lw=1.2))
    bare(ax)


def draw_wall(ax: Axes, maps: dict[str, np.ndarray], scene: int) -> None:
    """The picture as the ViT gets it, with lines between patches; a frame: carries the code."""
    patches = maps["images"][scene]
    grid, side = (round(number**0.5) for number in patches.shape)
    picture = patches.reshape(grid, grid, side, side).swapaxes(1, 2).reshape(2 * [grid * side])
    extent = (-0.5, grid - 0.5, grid - 0.5, -0.5)
    bounds = np.quantile(picture, (0.01, 0.99))
    ax.imshow(-picture, vmin=-bounds[1], vmax=-bounds[0], extent=extent, cmap="gray")
    for line in np.arange(0.5, grid - 1):
        ax.axhline(line, color="white", lw=0.7)
        ax.axvline(line, color="white", lw=0.7)
    for cell in np.flatnonzero(maps["marked"][scene]):
        y, x = divmod(cell, grid)
        ax.add_patch(square(x, y, size=0.98, ec=style.CUTOFF, lw=1.4))
    bare(ax)


def square(x: float, y: float, size: float = 1.0, **look) -> Rectangle:
    return Rectangle((x - size / 2, y - size / 2), size, size, fill=False, **look)


def draw_norms(ax: Axes, maps: dict[str, np.ndarray], scene: int, highest: float):
    """After the last block, over the median of all patches."""
    norms = maps["norms"][-1][scene] / np.median(maps["all_norms"])
    grid = round(len(norms) ** 0.5)
    image = ax.imshow(norms.reshape(grid, grid), vmin=0, vmax=highest, cmap="magma")
    bare(ax)
    return image


def draw_attention(ax: Axes, weights: np.ndarray, maps: dict[str, np.ndarray], registers: int):
    """Weights (N,) on tokens, patches last; registers stand in a column of their own."""
    patches = weights[-maps["redundant"].shape[1] :]
    grid = round(len(patches) ** 0.5)
    shown = np.full((max(grid, registers), grid + 2), np.nan)
    shown[:grid, :grid] = patches.reshape(grid, grid)
    if registers:
        first = len(weights) - len(patches) - registers
        shown[:registers, -1] = weights[first : first + registers]
    image = ax.imshow(shown, vmin=0, cmap="viridis")
    if registers:
        ax.text(grid + 1, registers - 0.2, "reg.", ha="center", va="top", fontsize=6)
    bare(ax)
    return image


def draw_histogram(
    ax: Axes, maps: dict[str, np.ndarray], cutoff: float | None, highest: float
) -> None:
    """All patches, those that are blank in colour; the cut-off, where there is a second mode."""
    norms = maps["all_norms"] / np.median(maps["all_norms"])
    blank = maps["all_redundant"]
    bins = np.linspace(0, 1.05 * highest, 80)
    ax.hist(norms[~blank], bins, color=style.GREY, alpha=0.7, label="other patches")
    ax.hist(norms[blank], bins, color=style.CUTOFF, alpha=0.8, label="blank patches")
    if cutoff:
        ax.axvline(cutoff / np.median(maps["all_norms"]), color=style.INK, lw=0.8, ls=":")
    else:
        style.note(ax, "no second mode", "upper right")
    ax.set_ylim(bottom=0.7)
    ax.set_yscale("log")
    style.logarithmic(ax.yaxis)
    ax.set_ylabel("patches")


# --- which ingredients are needed


def ingredients(frame: pd.DataFrame, sweep: Sweep) -> Figure:
    """A row a variant, a dot a seed: norms of blanks, what the query that pools the label gives
    them, and what the label loses where it may not read them."""
    rows = [row for row in sweep.ingredients.items() if (frame.variant == row[0]).any()]
    figure, axes = style.canvas(1, 4, 0.9 + 0.21 * len(rows), sharey=True)
    chance = frame["class/chance"].median()
    even = frame["redundant/all"].median()
    # column, label, a line for nothing, the least extent
    columns = (
        ("most_over_others", "norm of blanks / others,\nlargest of the layers", 1, 0),
        ("redundant_over_others", "norm of blanks / others,\nat the output", 1, 0),
        ("pool_on_redundant", "weight of the query\non blanks", even, 1),
        ("unread/redundant", "label's accuracy where\nblanks are not read", chance, 1),
    )
    for ax, (column, title, nothing, extent) in zip(axes[0], columns, strict=True):
        for place, (variant, _) in enumerate(rows):
            runs = frame[(frame.variant == variant) & (frame.registers == 0)].sort_values("seed")
            spread = place + np.linspace(-0.2, 0.2, len(runs))
            second = runs.second_mode.astype(bool).to_numpy()
            for chosen, face in ((second, style.CUTOFF), (~second, "white")):
                ax.scatter(
                    runs[column].to_numpy()[chosen],
                    spread[chosen],
                    s=15,
                    color=style.CUTOFF,
                    facecolors=face,
                    linewidths=0.8,
                )
        ax.set_xlabel(title, fontsize=7)
        ax.axvline(nothing, color=style.INK, lw=0.6)
        ax.set_xlim(0, max(1.08 * extent, 1.08 * _largest(frame, rows, column)))
    names = [name for _, name in rows]
    axes[0][0].set_yticks(range(len(rows)), names)
    axes[0][0].invert_yaxis()
    return figure


def _largest(frame: pd.DataFrame, rows: list[tuple[str, str]], column: str) -> float:
    """The largest number of a column in the runs of these rows."""
    return float(frame[frame.variant.isin([name for name, _ in rows])][column].max())


def withdrawal(runs: Path, seeds: list[list[str]]) -> Figure:
    """The label's way into bare wall along training. seeds: of each seed the runs without and with
    registers. Dotted: the step from which dense tasks are asked."""
    run = json.loads((runs / seeds[0][0] / "run.json").read_text())
    norm = f"layer{run['regime']['depth']}/redundant_over_others"
    # panel, run, column, label, colour
    lines = (
        (0, 0, "told_by_redundant", "bare wall", style.CUTOFF),
        (0, 0, "told_by_others", "another patch", style.GREY),
        (1, 0, "pool_on_redundant", "bare wall", style.CUTOFF),
        (2, 1, "pool_on_redundant", "bare wall", style.CUTOFF),
        (2, 1, "pool_on_registers", "registers", WITH),
        (3, 0, norm, "without registers", style.CUTOFF),
        (3, 1, norm, "with four", WITH),
    )
    titles = (
        "label told by one patch,\nwithout registers",
        "weight of the query,\nwithout registers",
        "weight of the query,\nwith four registers",
        "norm of bare wall / others,\nat the output",
    )
    figure, axes = style.canvas(1, 4, 2.4)
    for names in seeds:
        histories = [pd.read_csv(runs / name / "history.csv") for name in names]
        for panel, number, column, label, colour in lines:
            history = histories[number]
            named = label if names is seeds[0] else None
            axes[0][panel].plot(history.step, history[column], color=colour, lw=1, label=named)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.axvline(run["regime"]["local_from"], color=style.INK, lw=0.6, ls=":")
        ax.set_xlabel("step")
        ax.set_title(title, fontsize=7)
        ax.set_ylim(bottom=0)
    axes[0][3].legend(loc="lower right", fontsize=6)
    told, weights = (axes[0][panel].get_legend_handles_labels() for panel in (0, 2))
    handles, labels = (some + more[1:] for some, more in zip(told, weights, strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def lookup(runs: Path, frame: pd.DataFrame, seen: str, unseen: str) -> Figure:
    """What patches answer against the number of registers, and heads of the first block along
    training. seen, unseen: variants whose patches may and may not look at registers."""
    kinds = ((seen, style.CUTOFF, "patches see registers"), (unseen, WITH, "they do not"))
    columns = (
        ("answers/right", "neighbour's glyph"),
        ("answers/own_levelled", "own glyph, readings of\nregisters levelled"),
    )
    figure, axes = style.canvas(1, 3, 2.5)
    numbers = sorted(frame[frame.variant.isin((seen, unseen))].registers.unique())
    for ax, (column, title) in zip(axes[0], columns, strict=False):
        for shift, (variant, colour, label) in zip((-0.15, 0.15), kinds, strict=True):
            mine = frame[(frame.variant == variant) & frame[column].notna()]
            aside = 0.08 * (mine.seed - mine.seed.mean())  # so that equal seeds are seen
            places = [numbers.index(number) + shift for number in mine.registers] + aside
            ax.scatter(places, mine[column], s=15, color=colour, alpha=0.7, label=label)
        ax.set_xticks(range(len(numbers)), [str(int(number)) for number in numbers])
        ax.set(xlabel="registers", title=title)
    axes[0][0].set_ylabel("accuracy")
    heads = axes[0][2]
    some = [number for number in numbers if number]
    hues = dict(zip(some, colormaps["viridis"](np.linspace(0.85, 0.1, len(some))), strict=True))
    trained = frame[(frame.variant == seen) & (frame.registers > 0)]
    for row in trained.sort_values(["registers", "seed"]).itertuples():
        history = pd.read_csv(runs / row.run / "history.csv")
        label = style.registers_label(row.registers) if row.seed == trained.seed.min() else None
        column = history["layer1/head_on_registers"]
        heads.plot(history.step, column, color=hues[row.registers], lw=1, label=label)
    heads.set(xlabel="step", title="attention on registers,\na head of block 1")
    for ax in axes[0]:
        ax.set_ylim(0, 1.05)
    told, dosed = (ax.get_legend_handles_labels() for ax in (axes[0][0], heads))
    handles, labels = (first + more for first, more in zip(told, dosed, strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=6)
    return figure


LOSSES = {  # what is asked -> printed name and colour
    "tasks": ("labels and glyphs", style.CUTOFF),
    "copies": ("the same and copies by position", "#6a4fa3"),
    "openclip": ("OpenCLIP's loss", style.colour("openclip")),
    "captions": ("captions of labels; glyphs asked", style.colour("mae")),
    "deit3": ("DeiT-III's loss", style.colour("deit3")),
    "dinov2": ("DINOv2's loss", style.colour("dinov2")),
    "dino": ("DINO's loss and glyphs", style.colour("dino")),
    "ibot": ("labels and iBOT's loss", "#888888"),
}


def kinds(frame: pd.DataFrame) -> Figure:
    """Blanks of every run that tells what they are made of: their norm against the part of their
    square that is the same in all scenes. A store lies on the left, a constant on the right."""
    figure, axes = style.canvas(1, 1, 2.9)
    ax = axes[0][0]
    told = frame[frame.redundant_constant.notna()]
    copies = (told["regime.objective"] == "tasks") & (told["regime.triggers"].astype(float) > 0)
    asked = told["regime.objective"].mask(copies, "copies")
    for name, (label, colour) in LOSSES.items():
        some = told[asked == name]
        if not len(some):
            continue
        for with_registers, marker in ((False, "o"), (True, "s")):
            mine = some[(some.registers > 0) == with_registers]
            second = mine.second_mode.fillna(False).astype(bool)
            ax.scatter(
                mine.redundant_constant,
                mine.redundant_over_others,
                s=20,
                marker=marker,
                facecolors=[colour if mode else "none" for mode in second],
                edgecolors=colour,
                linewidths=0.9,
            )
        ax.plot([], [], lw=4, color=colour, label=label)
    ax.plot([], [], "o", ms=4, mfc="none", color=style.INK, label="without registers")
    ax.plot([], [], "s", ms=4, mfc="none", color=style.INK, label="with registers")
    ax.plot([], [], "o", ms=4, color=style.INK, label="filled: a second mode")
    ax.axhline(1, color=style.INK, lw=0.6)
    ax.set(
        xlabel="part of blanks' mean square that is the same in all pictures",
        ylabel="norm of blanks\nover the others'",
        xlim=(0, 1),
        yscale="log",
    )
    ticks = [1, 2, 4, 8, 16, 32, 64, 128]
    ax.set_yticks(ticks, [str(tick) for tick in ticks])
    ax.set_yticks([], minor=True)
    figure.legend(loc="outside right upper", fontsize=6)
    return figure
