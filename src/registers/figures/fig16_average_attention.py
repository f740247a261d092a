"""Fig. 16: attention of [CLS], each register and one patch to the patches, averaged over images.

Last layer (paper, appendix D.3).
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import grids, image_maps, style

NAMES = 0.32  # inches: two lines under a panel
ACROSS = 6  # panels side by side: [CLS], four registers and a patch, as in the paper


def table(positions: pd.DataFrame) -> pd.DataFrame:
    """A row per position of every map: see `image_maps.long`; panel: cls, reg0..., patch."""
    return image_maps.long([_cells(positions)])


def draw(positions: pd.DataFrame) -> Figure:
    cells = _cells(positions)
    columns = min(ACROSS, len(cells))
    lines = -(-len(cells) // columns)
    page = grids.page(lines, columns, side=1.05, below=NAMES + grids.BAR, row_gap=NAMES + grids.GAP)
    top = grids.attention_top(cells)
    panels = page.axes.ravel()
    for ax, letter, cell in zip(panels, "abcdefghijklmnopqrstuvwxyz", cells):
        image = grids.attention(ax, cell, top)
        over_even = image_maps.over_even(cell.values)
        ends = (over_even.min(), over_even.max())
        name = "[CLS]" if cell.panel == "cls" else cell.panel
        text = f"({letter}) {name}\n{style.span(style.number(end) for end in ends)} ×"
        ax.set_xlabel(text, fontsize=7.5, labelpad=3)
    for ax in panels[len(cells) :]:
        ax.set_visible(False)
    grids.attention_bar(page, image, 0, columns - 1, lower=NAMES)
    return page.figure


def caption(positions: pd.DataFrame) -> str:
    reach = {cell.panel: _reach(cell.values) for cell in _cells(positions)}
    registers = [share for panel, share in reach.items() if panel.startswith("reg")]
    sources = {"[CLS]": [reach["cls"]], "the registers": registers, "the patch": [reach["patch"]]}
    ranges = [
        f"{style.span(style.percent(end, 0) for end in (min(shares), max(shares)))} from {source}"
        for source, shares in sources.items()
        if shares
    ]
    focused = image_maps.NOTICEABLE * reach["patch"] < min([reach["cls"], *registers])
    verdict = "the patch is clearly the most focused, as in the paper"
    if not focused:
        verdict = "the patch is not clearly the most focused, unlike in the paper"
    images = int(positions.loc[positions["metric"] == "attention", "n"].min())
    return (
        f"In {style.name(positions['method'].iloc[0])}, averaged over "
        f"{style.plural(images, 'image')}, attention spreads over as many patches as "
        f"{style.listing(ranges)} (100 % would be even): {verdict}."
    )


def _reach(values: np.ndarray) -> float:
    """Share of the patches that an even attention of the same entropy would cover.

    exp(entropy) / P.
    """
    shares = values.ravel() / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()) / values.size)


def _cells(positions: pd.DataFrame) -> list[image_maps.MapCell]:
    """[CLS], the registers, then the patch."""
    rows = selection.first_seed(positions)
    backbone = rows["backbone"].iloc[0]
    tokens = rows.loc[rows["metric"] == "attention", "token"].unique()
    maps = {token: image_maps.by_position(rows, "attention", token) for token in tokens}
    return [
        image_maps.MapCell(backbone, "mean of all", token, values) for token, values in maps.items()
    ]
