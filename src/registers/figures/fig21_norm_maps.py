"""Fig. 21: maps of output norms (last block, before the final norm), without and with registers; a
colour scale per method (paper, appendix H)."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from registers.figures import selection
from registers.figures.paint import grids, image_maps, style
from registers.settings.backbone_id import BackboneId


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map: see `image_maps.long`."""
    return image_maps.long(_cells(maps))


def draw(maps: image_maps.ImageMaps) -> Figure:
    rows = _cells(maps)
    tops = _tops(rows)

    def paint(ax: Axes, cell: image_maps.MapCell) -> AxesImage:
        return grids.show(ax, cell.values, low=0, high=tops[_method(cell)])

    page = grids.compare(maps, rows, paint, below=grids.BAR)
    for column, cell in enumerate(rows[0], start=1):
        image = page.axes[0, column].images[0]
        page.bar(image, column, column, "L2 norm", grids.ticks(0, tops[_method(cell)]))
    return page.figure


def caption(maps: image_maps.ImageMaps) -> str:
    peaks = image_maps.comparison(maps, partial(_of_models, maps))
    over = f"median of {style.plural(len(_cells(maps)), 'image')}"
    return f"The largest patch norm over the median one ({over}) is {peaks}."


def _tops(rows: list[list[image_maps.MapCell]]) -> dict[str, float]:
    """Where the colours of each method end, without and with registers."""
    maps: dict[str, list[np.ndarray]] = {}
    for row in rows:
        for cell in row:
            maps.setdefault(_method(cell), []).append(cell.values)
    return {method: grids.top(values) for method, values in maps.items()}


def _method(cell: image_maps.MapCell) -> str:
    return BackboneId.parse(cell.backbone).method


def _cells(maps: image_maps.ImageMaps) -> list[list[image_maps.MapCell]]:
    ids = [id for group in selection.ends(maps) for id in group]
    return _of_models(maps, ids)


def _of_models(maps: image_maps.ImageMaps, ids: list[BackboneId]) -> list[list[image_maps.MapCell]]:
    return image_maps.cells(maps, ids, None, "norm", image_maps.norms)
