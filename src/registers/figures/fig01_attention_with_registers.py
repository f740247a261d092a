"""Fig. 1: attention of [CLS] without and with registers, at higher than training resolution.

Last layer, mean over heads (paper, section 1).
"""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import cls_attention, grids, image_maps

IMAGES = 3


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map: see `image_maps.long`."""
    return image_maps.long(cls_attention.of_ends(maps, IMAGES))


def draw(maps: image_maps.ImageMaps) -> Figure:
    return grids.compare(maps, cls_attention.of_ends(maps, IMAGES)).figure


def caption(maps: image_maps.ImageMaps) -> str:
    return cls_attention.caption(maps, IMAGES)
