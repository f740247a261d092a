"""Fig. 19: Fig. 1 for all images shown: attention of [CLS] in the last layer, mean over heads, without and with registers (appendix H)."""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids


def table(maps: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map: see `grids.long`."""
    return grids.long(_cells(maps))


def draw(maps: grids.Maps) -> Figure:
    return grids.compare(
        maps, grids.ends(maps), _cells(maps), lambda ax, cell: grids.show(ax, cell.values)
    ).figure


def caption(maps: grids.Maps) -> str:
    rows = _cells(maps)
    found = grids.comparison(grids.ends(maps), grids.peaks(rows))
    return f"Over {len(rows)} images, the median of the largest attention of [CLS] to a patch over the median one is {found}."


def _cells(maps: grids.Maps) -> list[list[grids.Cell]]:
    shown = [b for group in grids.ends(maps) for b in group]
    return grids.cells(maps, shown, None, "attention", grids.cls_attention)
