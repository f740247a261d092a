"""The figures of pictures that are asked several labels: who tells them, and from where."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from registers.figures.paint import style
from registers.study.regime import CARRIERS
from registers.study.seeds import placed


def carriers(runs: Path, names: list[str]) -> Figure:
    """Who tells which label after each block; a row for each run."""
    with np.load(runs / names[0] / "maps.npz") as arrays:
        layers = arrays["told"].shape[1]  # the same in all, as they are of one variant
    figure, axes = style.canvas(len(names), layers, 0.5 + 1.15 * len(names))
    shown = {"cls": "[CLS]", "redundant": "one wall patch", "other": "another patch"}
    shown["register"] = "best register\nfor each label"
    for row, name in zip(axes, names, strict=True):
        with np.load(runs / name / "maps.npz") as arrays:
            told = arrays["told"]
        there = ~np.isnan(told[:, 0, 0])
        told = told[there]
        kinds = [shown[kind] for kind in np.array(CARRIERS)[there]]
        for layer, ax in enumerate(row):
            image = ax.imshow(told[:, layer], vmin=0, vmax=1, cmap="viridis", aspect="auto")
            for (kind, label), value in np.ndenumerate(told[:, layer]):
                ink = "white" if value < 0.6 else "black"
                ax.text(label, kind, f"{value:.2f}", ha="center", va="center", color=ink, size=6)
            ax.set_yticks(range(len(kinds)), kinds if layer == 0 else [])
            ax.set_xticks(range(told.shape[2]), [str(k + 1) for k in range(told.shape[2])])
            ax.grid(False)
            if name == names[0]:
                ax.set_title(f"after block {layer + 1}")
        run = json.loads((runs / name / "run.json").read_text())
        row[0].set_ylabel(style.registers_label(run["registers"]))
    for ax in axes[-1]:
        ax.set_xlabel("label")
    figure.colorbar(image, ax=axes, shrink=0.7, label="accuracy")
    return figure


def places(frame: pd.DataFrame) -> Figure:
    """Of each run with a [CLS] and no registers, the labels that are told where [CLS] may not look
    at blanks after the first block, against those where it may look at nothing else: where blanks
    alone hold labels, a run is at the lower right."""
    figure, axes = style.canvas(1, 2, 2.7)
    told = placed(frame)
    norms = told.redundant_over_others
    colours = ScalarMappable(Normalize(norms.min(), norms.max()), "viridis")
    for ax, wide in zip(axes[0], (False, True), strict=True):
        for predicted, marker in ((False, "o"), (True, "s")):
            mine = told[(told.wide == wide) & (told.predicted == predicted)]
            edges = colours.to_rgba(mine.redundant_over_others)
            second = mine.second_mode.fillna(False).astype(bool)
            ax.scatter(
                mine["hidden_cls/but_redundant"],
                mine["hidden_cls/redundant"],
                s=30,
                marker=marker,
                facecolors=[c if mode else "none" for c, mode in zip(edges, second, strict=True)],
                edgecolors=edges,
            )
        ax.set(title="wide MLPs" if wide else "narrow MLPs", xlim=(0.3, 1.03), ylim=(0.3, 1.03))
        ax.set_xlabel("labels told with bare wall alone in sight")
    axes[0][0].set_ylabel("labels told without bare wall")
    figure.colorbar(colours, ax=axes, label="norm of bare wall\nover the others'")
    return figure
