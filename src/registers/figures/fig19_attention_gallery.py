"""Fig. 19: Fig. 1 for all images kept: attention of [CLS] without and with registers.

Paper, appendix H.
"""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import cls_attention, grids, image_maps


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map: see `image_maps.long`."""
    return image_maps.long(cls_attention.of_ends(maps))


def draw(maps: image_maps.ImageMaps) -> Figure:
    return grids.compare(maps, cls_attention.of_ends(maps)).figure


def caption(maps: image_maps.ImageMaps) -> str:
    return cls_attention.caption(maps)
