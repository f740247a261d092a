"""Training curves of a run, no figure of the paper: loss, and the largest norm over the median.

`dvc plots diff` shows them side by side for two experiments.
"""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import style

ROWS = {"loss": "loss", "norms/max_over_median": "largest norm over median"}


def draw(histories: pd.DataFrame) -> Figure:
    """A column for each method, a line for each number of registers.

    histories: rows of the trainings' history.csv, with the columns method and registers.
    """
    methods = list(dict.fromkeys(histories["method"]))
    counts = sorted(histories["registers"].unique())
    figure, axes = style.canvas(
        len(ROWS),
        len(methods),
        height=3.6,
        sharex="col",
        width=min(style.WIDTH, 2.4 * len(methods)),
    )
    for column, method in enumerate(methods):
        of_method = histories[histories["method"] == method]
        axes[0, column].set_title(style.name(method))
        axes[-1, column].set_xlabel("step")
        for row, metric in enumerate(ROWS):
            for position, count in enumerate(counts):
                line = of_method[of_method["registers"] == count]
                ink = style.shade(method, position / max(1, len(counts) - 1))
                axes[row, column].plot(line["step"], line[metric], color=ink, label=f"{count}")
    for row, label in enumerate(ROWS.values()):
        axes[row, 0].set_ylabel(label)
    axes[1, 0].legend(title="registers", ncols=2)
    return figure
