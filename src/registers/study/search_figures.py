"""The figures of the search in drawn scenes, before the effect was found."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import style
from registers.outliers import MIN_RATIO
from registers.study.figures import WITH, WITHOUT, bare, square

HIGHEST = 4.0  # norm over the median at which the colours of norm maps end


def landscape(frame: pd.DataFrame) -> Figure:
    """Every run without registers: how far its largest norm is above the median, and whether its
    highest norms lie in redundant patches."""
    figure, axes = style.canvas(1, 2, 3.0)
    where, before = axes[0]
    known = frame[(frame.registers == 0) & frame.ratio.notna()]
    second = known.second_mode.astype(bool)
    share = known["redundant/tail"] / known["redundant/all"]
    for ax, x, y in ((where, known.ratio, share), (before, known.start_ratio, known.ratio)):
        ax.scatter(x[~second], y[~second], s=14, color=style.GREY, label="one mode of norms")
        ax.scatter(x[second], y[second], s=18, color=style.CUTOFF, label="second mode")
    where.axhline(1, color=style.INK, lw=0.6)
    where.axvline(MIN_RATIO, color=style.INK, lw=0.6, ls=":")
    where.set(
        xlabel="largest patch norm / median",
        ylabel="highest 2 % of norms:\nshare in redundant patches / chance",
    )
    where.legend(loc="center right")
    ends = [1, 1.05 * known.ratio.max()]
    before.plot(ends, ends, color=style.INK, lw=0.6)
    before.set(xlabel="largest norm / median before training", ylabel="after training")
    return figure


def course(runs: Path, frame: pd.DataFrame, variants: list[str]) -> Figure:
    """Largest over median norm after the last block along training; one panel a variant, without
    and with registers, all seeds."""
    figure, axes = style.canvas(1, len(variants), 2.3, sharey=True)
    for ax, variant in zip(axes[0], variants, strict=True):
        for row in frame[frame.variant == variant].sort_values("registers").itertuples():
            history = pd.read_csv(runs / row.run / "history.csv")
            depth = json.loads((runs / row.run / "run.json").read_text())["regime"]["depth"]
            first = row.seed == frame[frame.variant == variant].seed.min()
            ax.plot(
                history.step,
                history[f"layer{depth}/max_over_median"],
                color=WITH if row.registers else WITHOUT,
                lw=1.1,
                label=style.registers_label(row.registers) if first else None,
            )
        ax.axhline(MIN_RATIO, color=style.INK, lw=0.6, ls=":")
        ax.set(title=variant, xlabel="step")
        ax.legend(loc="upper right")
    axes[0, 0].set_ylabel("largest patch norm / median")
    return figure


def maps(runs: Path, names: list[str], scenes: int = 4) -> Figure:
    """Scenes and their patch norms after the last block over the median, a row a run; a frame
    marks patches above the cut-off."""
    figure, axes = style.canvas(len(names), 2 * scenes, 0.95 * len(names) + 0.3)
    for row, name in zip(axes, names, strict=True):
        arrays = np.load(runs / name / "maps.npz")
        cutoff = json.loads((runs / name / "run.json").read_text())["numbers"]["cutoff"]
        norms = arrays["norms"][-1]
        median = np.median(arrays["all_norms"])
        grid = int(norms.shape[1] ** 0.5)
        for i in range(scenes):
            picture = np.clip(arrays["images"][i].transpose(1, 2, 0) / 2.4 + 0.5, 0, 1)
            row[2 * i].imshow(picture, interpolation="nearest")
            ax = row[2 * i + 1]
            ratios = norms[i].reshape(grid, grid) / median
            image = ax.imshow(ratios, vmin=0, vmax=HIGHEST, cmap="magma")
            for cell in np.flatnonzero(norms[i] > (cutoff or np.inf)):
                y, x = divmod(cell, grid)
                ax.add_patch(square(x, y, ec="white", lw=0.8))
        for ax in row:
            bare(ax)
        row[0].set_ylabel(name, fontsize=5)
    figure.colorbar(image, ax=axes, shrink=0.7, label="norm / median")
    return figure
