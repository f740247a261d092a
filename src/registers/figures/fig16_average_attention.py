"""Fig. 16: attention of [CLS], each register and one patch to the patches, last layer, averaged over images (paper, appendix D.3)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, style

ACROSS = 6  # panels side by side: [CLS], four registers and a patch, as in the paper


def table(positions: pd.DataFrame) -> pd.DataFrame:
    """A row per position of every map: see `grids.long`; panel: cls, reg0..., patch."""
    return grids.long([_cells(positions)])


def draw(positions: pd.DataFrame) -> Figure:
    cells = _cells(positions)
    columns = min(ACROSS, len(cells))
    page = grids.page(-(-len(cells) // columns), columns, side=1.05, below=0.32, row_gap=0.36)
    for ax in page.axes.ravel()[len(cells) :]:
        ax.set_visible(False)
    for ax, letter, cell in zip(page.axes.ravel(), "abcdefghijklmnopqrstuvwxyz", cells):
        grids.show(ax, cell.values)
        low, high = cell.values.min() / cell.values.mean(), cell.values.max() / cell.values.mean()
        name = "[CLS]" if cell.panel == "cls" else cell.panel
        ax.set_xlabel(
            f"({letter}) {name}\n{grids.times(low)} to {grids.times(high)} × mean",
            fontsize=7.5,
            labelpad=3,
        )
    return page.figure


def caption(positions: pd.DataFrame) -> str:
    cells = _cells(positions)
    reach = {c.panel: _reach(c.values) for c in cells}
    registers = [v for panel, v in reach.items() if panel.startswith("reg")]
    images = int(positions.loc[positions["metric"] == "attention", "n"].min())
    model = style.name(positions["method"].iloc[0])
    broad = {"[CLS]": [reach["cls"]]} | ({"the registers": registers} if registers else {})
    said = style.listing(
        f"{_range(values)} from {name}"
        for name, values in (broad | {"the patch": [reach["patch"]]}).items()
    )
    focused = grids.NOTICEABLE * reach["patch"] < min(
        v for values in broad.values() for v in values
    )
    return (
        f"In {model}, averaged over {images} images, attention spreads over as many patches as {said} (100 % would be even): the patch is "
        f"{'clearly the most focused, as' if focused else 'not clearly the most focused, other than'} in the paper."
    )


def _range(values: list[float]) -> str:
    low, high = style.percent(min(values), 0), style.percent(max(values), 0)
    return low if low == high else f"{low} to {high}"


def _reach(values: np.ndarray) -> float:
    """Share of the patches that an even attention of the same entropy would cover: exp(entropy) / P."""
    p = values.ravel() / values.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()) / values.size)


def _cells(positions: pd.DataFrame) -> list[grids.Cell]:
    """[CLS], the registers, then the patch."""
    rows = style.first_seed(positions)
    return [
        grids.Cell(
            rows["backbone"].iloc[0], "mean of all", token, grids.square(rows, "attention", token)
        )
        for token in dict.fromkeys(rows.loc[rows["metric"] == "attention", "token"])
    ]
