"""Fig. 17: first three principal components of a masked autoencoder's output features, as red, green and blue (paper, appendix E)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, style

IMAGES = 8
BLOCKS = 2  # pairs of Input | PCA side by side
STANDS_OUT = (
    2.0  # times the median norm: what a second mode is held to (registers.outliers.MIN_RATIO)
)


def table(maps: grids.Maps) -> pd.DataFrame:
    """A row per patch and colour, from 0 to 1; panel: components.red...: see `grids.long`."""
    return grids.long(_cells(maps))


def draw(maps: grids.Maps) -> Figure:
    shown, pictures = [row[0] for row in _cells(maps)], grids.inputs(maps, IMAGES)
    blocks = min(BLOCKS if len(shown) > 1 else 1, len(shown))
    rows = -(-len(shown) // blocks)
    page = grids.page(
        rows,
        2 * blocks,
        ["Input", "First 3 components"] * blocks,
        [2 * b for b in range(1, blocks)],
        side=1.25,
    )
    for i, (cell, picture) in enumerate(zip(shown, pictures)):
        left, right = page.axes[i % rows, 2 * (i // rows)], page.axes[i % rows, 2 * (i // rows) + 1]
        left.imshow(picture, aspect="auto")
        grids.show(right, cell.values)
    for ax in page.axes.ravel():
        ax.set_visible(bool(ax.images))
    return page.figure


def caption(maps: grids.Maps) -> str:
    backbone = grids.subject(maps)
    arrays = maps[str(backbone)]
    largest = max(grids.peak(n) for n in arrays["norms"][:IMAGES])
    sigma = float(np.abs(arrays["components"][:IMAGES]).max())
    stands = (
        "some patches stand out" if largest >= STANDS_OUT else "no patch stands out by its norm"
    )
    agrees = "unlike in the paper" if largest >= STANDS_OUT else "as in the paper"
    images = len(arrays["norms"][:IMAGES])
    return (
        f"In {style.name(backbone.method)} {stands} ({agrees}): over {images} images the largest patch norm is {grids.times(largest)} "
        f"times the median of its image, and no value of the three components lies farther than {sigma:.1f} standard deviations from the "
        "mean."
    )


def _cells(maps: grids.Maps) -> list[list[grids.Cell]]:
    """Each component stretched over its own range, image by image."""
    backbone = grids.subject(maps)
    arrays = maps[str(backbone)]
    rows = []
    for name, components in zip(arrays["names"][:IMAGES], arrays["components"]):
        low, high = components.min((1, 2), keepdims=True), components.max((1, 2), keepdims=True)
        colours = (components - low) / np.where(high > low, high - low, 1)
        rows.append(
            [grids.Cell(str(backbone), str(name), "components", np.moveaxis(colours, 0, 2))]
        )
    return rows
