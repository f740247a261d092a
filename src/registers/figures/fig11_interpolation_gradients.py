"""Fig. 11: unit gradients through the bicubic resize of position embeddings, 16 x 16 to 7 x 7
(paper, appendix A). Exact.

The paper shows the resize without antialiasing; the one with antialiasing, which it recommends,
stands beside it.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import image_maps, style

TITLES = {
    "offset": "7.1 / 16, no antialiasing",
    "size": "to 7 × 7, no antialiasing",
    "size+aa": "to 7 × 7, antialiasing",
}


def table(interpolation: pd.DataFrame) -> pd.DataFrame:
    """A row per pixel: mode, row, column, gradient."""
    parts = []
    for mode, grid in _maps(interpolation).items():
        row, column = np.indices(grid.shape)
        pixels = {"row": row.ravel(), "column": column.ravel(), "gradient": grid.ravel()}
        parts.append(pd.DataFrame({"mode": mode, **pixels}))
    return pd.concat(parts, ignore_index=True)


def draw(interpolation: pd.DataFrame) -> Figure:
    maps = _maps(interpolation)
    figure, axes = style.canvas(1, len(maps), height=2.55, sharey=True)
    scale = dict(
        vmin=min(grid.min() for grid in maps.values()),
        vmax=max(grid.max() for grid in maps.values()),
    )
    for ax, letter, (mode, grid) in zip(axes[0], "abcdef", maps.items()):
        image = ax.imshow(grid, cmap="viridis", **scale)
        style.letter(ax, letter, TITLES.get(mode, mode))
        ax.set_xticks([0, grid.shape[1] - 1])
        ax.set_yticks([0, grid.shape[0] - 1])
        ax.grid(False)
        ax.set_xlabel(_range(grid))
    bar = figure.colorbar(image, ax=list(axes[0]), shrink=0.85, pad=0.02)
    bar.set_label("gradient")
    bar.outline.set_visible(False)
    return figure


def caption(interpolation: pd.DataFrame) -> str:
    maps = _maps(interpolation)
    spread = {mode: grid.max() - grid.min() for mode, grid in maps.items()}
    striped = max((mode for mode in spread if "+aa" not in mode), key=spread.get)
    smooth = next((mode for mode in spread if "+aa" in mode), None)
    text = (
        "Without antialiasing the weight of a position embedding ranges from "
        f"{_range(maps[striped])} in stripes"
    )
    if smooth:
        ratio = spread[striped] / spread[smooth]
        text += (
            f"; with antialiasing from {_range(maps[smooth])}, a range {ratio:.0f} times smaller"
        )
    return f"{text}."


def _range(grid: np.ndarray) -> str:
    return f"{grid.min():.2f} to {grid.max():.2f}"


def _maps(interpolation: pd.DataFrame) -> dict[str, np.ndarray]:
    """Gradient maps (rows, columns) by mode."""
    gradients = interpolation[interpolation["metric"] == "gradient"]
    return {
        mode: image_maps.by_position(gradients[gradients["variant"] == mode], "gradient", "")
        for mode in gradients["variant"].unique()
    }
