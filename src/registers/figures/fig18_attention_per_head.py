"""Fig. 18: attention of [CLS] to the patches in the last layer, head by head, without registers (paper, appendix F)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, style

IMAGES = 3
ACROSS = 8  # heads side by side; with more of them one image fills the page


def table(maps: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map; panel: head 1...: see `grids.long`."""
    return grids.long(_cells(maps))


def draw(maps: grids.Maps) -> Figure:
    rows = _cells(maps)
    heads = len(rows[0])
    if heads <= ACROSS:
        page = grids.page(len(rows), 1 + heads, ["Input", *(c.panel for c in rows[0])], [1])
        for axes, picture, row in zip(page.axes, grids.inputs(maps), rows):
            axes[0].imshow(picture, aspect="auto")
            for ax, cell in zip(axes[1:], row):
                grids.show(ax, cell.values)
        return page.figure
    lines = -(-heads // ACROSS)
    page = grids.page(lines, 1 + ACROSS, ["Input"], [1], row_gap=grids.TITLE)
    page.axes[0, 0].imshow(grids.inputs(maps)[0], aspect="auto")
    for i, cell in enumerate(rows[0]):
        ax = page.axes[i // ACROSS, 1 + i % ACROSS]
        grids.show(ax, cell.values)
        ax.set_title(cell.panel, fontsize=8, pad=3)
    for ax in page.axes.ravel():
        ax.set_visible(ax is page.axes[0, 0] or bool(ax.images))
    return page.figure


def caption(maps: grids.Maps) -> str:
    rows, backbone = _cells(maps), grids.subject(maps)
    by_head = np.array([[grids.peak(c.values) for c in row] for row in rows])
    value = np.median(by_head, axis=0)
    most, least = int(value.argmax()), int(value.argmin())
    model = f"{style.name(backbone.method)} {style.having(backbone.registers)}"
    images = f"{len(rows)} image{'s' if len(rows) > 1 else ''}"
    return (
        f"In {model} the largest attention of [CLS] is {grids.times(value[least])} (head {least + 1}) to {grids.times(value[most])} "
        f"(head {most + 1}) times the median one, median of {images}, so the {len(value)} heads differ "
        f"{grids.times(value[most] / value[least])}-fold in their peaks."
    )


def _cells(maps: grids.Maps) -> list[list[grids.Cell]]:
    backbone = grids.subject(maps)
    arrays = maps[str(backbone)]
    heads = arrays["heads"].shape[1]
    names = [str(n) for n in arrays["names"][: IMAGES if heads <= ACROSS else 1]]
    return [
        [grids.Cell(str(backbone), n, f"head {h + 1}", arrays["heads"][i, h]) for h in range(heads)]
        for i, n in enumerate(names)
    ]
