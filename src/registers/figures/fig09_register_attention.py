"""Fig. 9: attention of [CLS] and of four registers in the last layer, side by side
(paper, section 3.4)."""

from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures import selection
from registers.figures.paint import grids, image_maps, style
from registers.settings.backbone_id import BackboneId

IMAGES = 3
PAPER = ("reg0", "reg6", "reg8", "reg12")  # the registers that the paper shows, of 16


def table(maps: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map; panel: cls, reg0...: see `image_maps.long`."""
    return image_maps.long(_cells(maps))


def draw(maps: image_maps.ImageMaps) -> Figure:
    rows = _cells(maps)
    titles = ["[CLS]" if cell.panel == "cls" else f"[{cell.panel}]" for cell in rows[0]]
    return grids.gallery(image_maps.pictures(maps), rows, titles).figure


def caption(maps: image_maps.ImageMaps) -> str:
    rows = _cells(maps)
    backbone = _model(maps)
    model = style.model(backbone.method, backbone.registers, backbone.test_time)
    if len(rows[0]) == 1:
        return f"{model} has no registers, so only [CLS] is shown."

    to_cls = []
    pairs = []
    for cls, *registers in rows:
        to_cls += [_correlation(cls, register) for register in registers]
        pairs += [_correlation(a, b) for a, b in combinations(registers, 2)]
    over = style.plural(len(rows), "image")
    text = (
        f"In {model}, the attention map of a register correlates with that of [CLS] at "
        f"{np.mean(to_cls):.2f} on average over {over}"
    )
    if pairs:
        lowest = f"lowest {min(pairs):.2f}; 1 would be the same map"
        text += f", those of two registers at {np.mean(pairs):.2f} ({lowest})"
    return f"{text}; under each map is its largest value, over an even one."


def _correlation(a: image_maps.MapCell, b: image_maps.MapCell) -> float:
    if not a.values.std() or not b.values.std():
        return 0.0
    return float(np.corrcoef(a.values.ravel(), b.values.ravel())[0, 1])


def _model(maps: image_maps.ImageMaps) -> BackboneId:
    return selection.ends(maps)[-1][0]


def _queries(registers: int) -> list[str]:
    """[CLS] and the paper's registers, or else up to four that are spread evenly."""
    names = [f"reg{r}" for r in range(registers)]
    if set(PAPER) <= set(names):
        return ["cls", *PAPER]
    if not names:
        return ["cls"]
    even = np.linspace(0, registers - 1, min(len(PAPER), registers)).round().astype(int)
    return ["cls", *(names[i] for i in np.unique(even))]


def _cells(maps: image_maps.ImageMaps) -> list[list[image_maps.MapCell]]:
    backbone = _model(maps)
    arrays = maps[str(backbone)]
    rows = []
    for i, image in enumerate(image_maps.image_names(arrays, IMAGES)):
        queries = _queries(backbone.registers)
        attention = [image_maps.query_attention(arrays, i, query) for query in queries]
        rows.append(
            [
                image_maps.MapCell(str(backbone), image, query, values)
                for query, values in zip(queries, attention)
            ]
        )
    return rows
