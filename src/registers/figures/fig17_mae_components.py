"""Fig. 17: first three principal components of a masked autoencoder's output features, as red,
green and blue (paper, appendix E)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import grids, image_maps, style

IMAGES = 8
BLOCKS = 2  # pairs of Input | PCA side by side
STANDS_OUT = 2.0  # times the median norm, as a second mode must (registers.outliers.MIN_RATIO)


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch and colour, from 0 to 1; panel: components.red...: see `image_maps.long`."""
    return image_maps.long([cell] for cell in _cells(maps))


def draw(maps: image_maps.ImageMaps) -> Figure:
    cells = _cells(maps)
    blocks = min(BLOCKS, len(cells))
    rows = -(-len(cells) // blocks)
    titles = ["Input", "First 3 components"] * blocks
    groups = [2 * block for block in range(1, blocks)]
    page = grids.page(rows, 2 * blocks, titles, groups, side=1.25)
    for i, (cell, picture) in enumerate(zip(cells, image_maps.pictures(maps, IMAGES))):
        block, row = divmod(i, rows)
        page.axes[row, 2 * block].imshow(picture, aspect="auto")
        grids.show(page.axes[row, 2 * block + 1], cell.values)
    for ax in page.axes.ravel():
        ax.set_visible(bool(ax.images))
    return page.figure


def caption(maps: image_maps.ImageMaps) -> str:
    backbone = selection.subject_models(maps)[0]
    arrays = maps[str(backbone)]
    norms = arrays["norms"][:IMAGES]
    largest = max(image_maps.peak(of_image) for of_image in norms)
    farthest = float(np.abs(arrays["components"][:IMAGES]).max())
    verdict = (
        "no patch stands out by its norm, which sets it apart only from models in Figure 7 that "
        "have outliers"
    )
    if largest >= STANDS_OUT:
        verdict = "some patches stand out (unlike in the paper)"
    return (
        f"In {style.name(backbone.method)} {verdict}: over {style.plural(len(norms), 'image')} the "
        f"largest patch norm is {style.times(largest)} times the median of its image, and no value "
        f"of the three components lies farther than {farthest:.1f} standard deviations from the "
        "mean."
    )


def _cells(maps: image_maps.ImageMaps) -> list[image_maps.MapCell]:
    """Each component stretched over its own range, image by image."""
    backbone = str(selection.subject_models(maps)[0])
    arrays = maps[backbone]
    cells = []
    for name, components in zip(image_maps.image_names(arrays, IMAGES), arrays["components"]):
        low = components.min((1, 2), keepdims=True)
        high = components.max((1, 2), keepdims=True)
        colours = (components - low) / np.where(high > low, high - low, 1)
        cells.append(image_maps.MapCell(backbone, name, "components", np.moveaxis(colours, 0, 2)))
    return cells
