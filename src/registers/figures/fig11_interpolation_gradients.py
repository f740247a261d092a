"""Fig. 11: unit gradients through the bicubic resize of position embeddings, 16 x 16 to 7 x 7 (paper, appendix A). Exact.

The paper shows the resize without antialiasing; the one with antialiasing, which it recommends, stands beside it.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import style

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
        parts.append(
            pd.DataFrame(
                {
                    "mode": mode,
                    "row": row.ravel(),
                    "column": column.ravel(),
                    "gradient": grid.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def draw(interpolation: pd.DataFrame) -> Figure:
    maps = _maps(interpolation)
    figure, axes = style.canvas(1, len(maps), height=2.55, sharey=True)
    least, most = min(g.min() for g in maps.values()), max(g.max() for g in maps.values())
    for ax, label, (mode, grid) in zip(axes[0], "abcdef", maps.items()):
        image = ax.imshow(grid, cmap="viridis", vmin=least, vmax=most)
        style.letter(ax, label, TITLES.get(mode, mode))
        ax.set_xticks([0, grid.shape[1] - 1])
        ax.set_yticks([0, grid.shape[0] - 1])
        ax.grid(False)
        ax.set_xlabel(f"{grid.min():.2f} to {grid.max():.2f}")
    bar = figure.colorbar(image, ax=list(axes[0]), shrink=0.85, pad=0.02)
    bar.set_label("gradient")
    bar.outline.set_visible(False)
    return figure


def caption(interpolation: pd.DataFrame) -> str:
    spread = {mode: grid.max() - grid.min() for mode, grid in _maps(interpolation).items()}
    plain, smooth = (
        max((m for m in spread if "+aa" not in m), key=spread.get),
        next((m for m in spread if "+aa" in m), None),
    )
    grid = _maps(interpolation)[plain]
    text = f"Without antialiasing the weight of a position embedding ranges from {grid.min():.2f} to {grid.max():.2f} in stripes"
    if smooth:
        other = _maps(interpolation)[smooth]
        text += f"; with antialiasing from {other.min():.2f} to {other.max():.2f}, a {spread[plain] / spread[smooth]:.0f} times smaller range"
    return text + "."


def _maps(interpolation: pd.DataFrame) -> dict[str, np.ndarray]:
    """Gradient maps (rows, columns) by mode."""
    rows = interpolation[interpolation["metric"] == "gradient"]
    maps = {}
    for mode in rows["variant"].unique():
        values = rows[rows["variant"] == mode].sort_values("at")["value"].to_numpy()
        side = round(len(values) ** 0.5)
        maps[mode] = values.reshape(side, side)
    return maps
