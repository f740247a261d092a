"""Fig. 20: first principal component of each image's patches, whitened, from -3 to +3 sigma, without and with registers (appendix H)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids

RANGE = 3  # sigma, as in the paper


def table(maps: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map, in standard deviations: see `grids.long`."""
    return grids.long(_cells(maps))


def draw(maps: grids.Maps) -> Figure:
    painted = []

    def paint(ax, cell):
        painted.append(grids.show(ax, cell.values, "RdBu_r", -RANGE, RANGE))

    groups = grids.ends(maps)
    page = grids.compare(maps, groups, _cells(maps), paint, below=grids.BAR)
    page.bar(
        painted[0],
        1,
        sum(map(len, groups)),
        "standard deviations from the mean of the image",
        [-3, -2, -1, 0, 1, 2, 3],
    )
    return page.figure


def caption(maps: grids.Maps) -> str:
    rows = _cells(maps)
    largest: dict[str, list[float]] = {}
    for cell in (c for row in rows for c in row):
        largest.setdefault(cell.backbone, []).append(float(np.abs(cell.values).max()))
    found = grids.comparison(
        grids.ends(maps), {b: float(np.median(v)) for b, v in largest.items()}, claim=""
    )
    return f"The farthest patch along the first component (median of {len(rows)} images), in standard deviations, is at {found}."


def _cells(maps: grids.Maps) -> list[list[grids.Cell]]:
    shown = [b for group in grids.ends(maps) for b in group]
    return grids.cells(
        maps, shown, None, "component 1", lambda arrays, i: arrays["components"][i, 0]
    )
