"""Fig. 21: maps of output norms (last block, before the final norm), without and with registers; a colour scale per method (appendix H)."""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids


def table(maps: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map: see `grids.long`."""
    return grids.long(_cells(maps))


def draw(maps: grids.Maps) -> Figure:
    groups, rows = grids.ends(maps), _cells(maps)
    method = {str(b): b.method for group in groups for b in group}
    limits: dict[str, list[float]] = {}
    for cell in (c for row in rows for c in row):
        limits.setdefault(method[cell.backbone], []).extend(
            (float(cell.values.min()), float(cell.values.max()))
        )
    painted = {}

    def paint(ax, cell):
        found = limits[method[cell.backbone]]
        painted[cell.backbone] = grids.show(
            ax, cell.values, grids.ATTENTION, min(found), max(found)
        )

    page = grids.compare(maps, groups, rows, paint, below=grids.BAR)
    for column, backbone in enumerate((b for group in groups for b in group), start=1):
        page.bar(
            painted[str(backbone)],
            column,
            column,
            "L2 norm",
            grids.ticks(*painted[str(backbone)].get_clim()),
        )
    return page.figure


def caption(maps: grids.Maps) -> str:
    rows = _cells(maps)
    found = grids.comparison(grids.ends(maps), grids.peaks(rows))
    return f"The largest patch norm over the median one (median of {len(rows)} images) is {found}."


def _cells(maps: grids.Maps) -> list[list[grids.Cell]]:
    shown = [b for group in grids.ends(maps) for b in group]
    return grids.cells(maps, shown, None, "norm", lambda arrays, i: arrays["norms"][i])
