"""Fig. 20: first principal component of each image's patches, whitened, without and with registers
(paper, appendix H)."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from registers.figures import selection
from registers.figures.paint import grids, image_maps, style
from registers.settings.backbone_id import BackboneId

RANGE = 3  # sigma, as in the paper


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map, in standard deviations: see `image_maps.long`."""
    return image_maps.long(_cells(maps))


def draw(maps: image_maps.ImageMaps) -> Figure:
    page = grids.compare(maps, _cells(maps), _paint, below=grids.BAR)
    image = page.axes[0, 1].images[0]
    label = "standard deviations from the mean of the image"
    page.bar(image, 1, page.axes.shape[1] - 1, label, range(-RANGE, RANGE + 1), extend="both")
    return page.figure


def caption(maps: image_maps.ImageMaps) -> str:
    comparison = image_maps.comparison(maps, partial(_of_models, maps), _farthest, in_paper=False)
    over = f"median of {style.plural(len(_cells(maps)), 'image')}"
    return (
        f"The farthest patch along the first component ({over}), in standard deviations, is at "
        f"{comparison}."
    )


def _paint(ax: Axes, cell: image_maps.MapCell) -> AxesImage:
    return grids.show(ax, cell.values, "RdBu_r", -RANGE, RANGE)


def _farthest(component: np.ndarray) -> float:
    return float(np.abs(component).max())


def _cells(maps: image_maps.ImageMaps) -> list[list[image_maps.MapCell]]:
    ids = [id for group in selection.ends(maps) for id in group]
    return _of_models(maps, ids)


def _of_models(maps: image_maps.ImageMaps, ids: list[BackboneId]) -> list[list[image_maps.MapCell]]:
    return image_maps.cells(
        maps, ids, None, "component 1", lambda arrays, image: arrays["components"][image, 0]
    )
