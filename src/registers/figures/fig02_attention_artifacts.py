"""Fig. 2: artifacts in the attention of [CLS] in the last layer: models of all methods without registers, DINO among them."""

import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, style
from registers.settings.backbone_id import BackboneId

IMAGES = 3
ORDER = (
    "deit3",
    "openclip",
    "dino",
    "dinov2",
)  # the paper's columns: labels, text, self-supervision


def table(maps: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map: see `grids.long`."""
    return grids.long(_cells(maps))


def draw(maps: grids.Maps) -> Figure:
    shown, rows = _models(maps), _cells(maps)
    page = grids.page(
        len(rows), 1 + len(shown), ["Input", *(style.name(b.method) for b in shown)], [1]
    )
    for axes, picture, row in zip(page.axes, grids.inputs(maps), rows):
        axes[0].imshow(picture, aspect="auto")
        for ax, cell in zip(axes[1:], row):
            grids.show(ax, cell.values)
    return page.figure


def caption(maps: grids.Maps) -> str:
    rows, shown = _cells(maps), _models(maps)
    found = grids.peaks(rows)
    said = style.listing(f"{grids.times(found[str(b)])} in {style.name(b.method)}" for b in shown)
    count = shown[0].registers
    text = f"The largest attention of [CLS] to a patch over the median one (median of {len(rows)} images, {style.having(count)}) is {said}"
    dino = next((found[str(b)] for b in shown if b.method == "dino"), None)
    others = {b.method: found[str(b)] for b in shown if b.method != "dino"}
    if dino is None or not others:
        return text + "."
    peaky = [style.name(m) for m, value in others.items() if value > grids.NOTICEABLE * dino]
    return f"{text}: larger than in DINO for {style.listing(peaky)} (the paper: for all others)."


def _models(maps: grids.Maps) -> list[BackboneId]:
    """The models with the fewest registers, in the paper's order."""
    found = grids.ends(maps)[0]
    return sorted(found, key=lambda b: ORDER.index(b.method) if b.method in ORDER else len(ORDER))


def _cells(maps: grids.Maps) -> list[list[grids.Cell]]:
    return grids.cells(maps, _models(maps), IMAGES, "attention", grids.cls_attention)
