"""Fig. 18: attention of [CLS] to the patches in the last layer, head by head, without registers
(paper, appendix F)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import grids, image_maps, style

IMAGES = 3
ACROSS = 8  # heads side by side; with more of them one image fills the page


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map; panel: head 1...: see `image_maps.long`."""
    return image_maps.long(_cells(maps))


def draw(maps: image_maps.ImageMaps) -> Figure:
    rows = _cells(maps)
    if len(rows[0]) <= ACROSS:
        titles = [cell.panel for cell in rows[0]]
        return grids.gallery(image_maps.pictures(maps), rows, titles).figure
    return _one_image(image_maps.pictures(maps)[0], rows[0])


def caption(maps: image_maps.ImageMaps) -> str:
    rows = _cells(maps)
    backbone = selection.subject_models(maps)[0]
    largest = image_maps.largest_over_even
    peaks = np.median([[largest(cell.values) for cell in row] for row in rows], axis=0)
    most = int(peaks.argmax())
    least = int(peaks.argmin())
    over = f"(under each map; median of {style.plural(len(rows), 'image')})"
    over = over if len(rows) > 1 else "(under each map)"
    text = (
        f"In {style.model(backbone.method, backbone.registers)} the largest attention of [CLS] is"
    )
    if style.times(peaks[most]) == style.times(peaks[least]):
        value = style.times(peaks[most])
        return f"{text} {value} times an even one {over} in each of the {len(peaks)} heads."
    lowest, highest = (style.times(peaks[head]) for head in (least, most))
    factor = style.times(float(highest) / float(lowest))  # as printed
    return (
        f"{text} {lowest} (head {least + 1}) to {highest} (head {most + 1}) times an even one "
        f"{over}, so the peaks of the {len(peaks)} heads differ by a factor of up to {factor}."
    )


def _one_image(picture: np.ndarray, cells: list[image_maps.MapCell]) -> Figure:
    """The image, and right of it the maps of its heads in several lines."""
    lines = -(-len(cells) // ACROSS)
    gap = grids.TITLE + grids.LABEL
    below = grids.LABEL + grids.BAR
    page = grids.page(lines, 1 + ACROSS, ["Input"], [1], row_gap=gap, below=below)
    top = grids.attention_top(cells)
    page.axes[0, 0].imshow(picture, aspect="auto")
    panels = [ax for line in page.axes for ax in line[1:]]
    for ax, cell in zip(panels, cells):
        image = grids.attention(ax, cell, top)
        ax.set_title(cell.panel, fontsize=8, pad=3)
    for ax in page.axes.ravel():
        ax.set_visible(bool(ax.images))
    grids.attention_bar(page, image, 1, ACROSS)
    return page.figure


def _cells(maps: image_maps.ImageMaps) -> list[list[image_maps.MapCell]]:
    """A row per image, a column per head."""
    backbone = str(selection.subject_models(maps)[0])
    arrays = maps[backbone]
    heads = range(arrays["heads"].shape[1])
    names = image_maps.image_names(arrays, IMAGES if len(heads) <= ACROSS else 1)
    return [
        [
            image_maps.MapCell(backbone, name, f"head {head + 1}", arrays["heads"][i, head])
            for head in heads
        ]
        for i, name in enumerate(names)
    ]
