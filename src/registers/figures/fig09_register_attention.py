"""Fig. 9: attention of [CLS] and of four registers in the last layer, side by side (paper, section 3.4)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, style

IMAGES = 3
SHOWN = ("reg0", "reg6", "reg8", "reg12")  # the paper's, of a model with 16


def table(maps: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map; panel: cls, reg0...: see `grids.long`."""
    return grids.long(_cells(maps))


def draw(maps: grids.Maps) -> Figure:
    rows = _cells(maps)
    page = grids.page(
        len(rows),
        1 + len(rows[0]),
        ["Input", *(f"[{c.panel.upper() if c.panel == 'cls' else c.panel}]" for c in rows[0])],
        [1],
    )
    for axes, picture, row in zip(page.axes, grids.inputs(maps), rows):
        axes[0].imshow(picture, aspect="auto")
        for ax, cell in zip(axes[1:], row):
            grids.show(ax, cell.values)
    return page.figure


def caption(maps: grids.Maps) -> str:
    rows, backbone = _cells(maps), _model(maps)
    model = f"{style.name(backbone.method)} {style.having(backbone.registers)}"
    registers = [[c.values.ravel() for c in row[1:]] for row in rows]
    if not registers[0]:
        return f"{model[0].upper()}{model[1:]}: only [CLS] can be shown."
    to_cls = np.mean(
        [
            [_correlation(row[0].values.ravel(), r) for r in found]
            for row, found in zip(rows, registers)
        ]
    )
    text = f"In {model}, the attention map of a register correlates with that of [CLS] at {to_cls:.2f} on average over {len(rows)} images"
    if len(registers[0]) < 2:
        return text + "."
    pairs = [
        _correlation(a, b) for found in registers for i, a in enumerate(found) for b in found[:i]
    ]
    return f"{text}, those of two registers at {np.mean(pairs):.2f} (lowest {min(pairs):.2f}; 1 would be the same map)."


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0


def _model(maps: grids.Maps):
    return grids.ends(maps)[-1][0]


def _cells(maps: grids.Maps) -> list[list[grids.Cell]]:
    backbone = _model(maps)
    arrays = maps[str(backbone)]
    there = [f"reg{r}" for r in range(backbone.registers)]
    even = (
        [
            there[i]
            for i in np.unique(
                np.linspace(0, len(there) - 1, min(4, len(there))).round().astype(int)
            )
        ]
        if there
        else []
    )
    queries = ["cls", *(SHOWN if set(SHOWN) <= set(there) else even)]
    names = [str(n) for n in arrays["names"][:IMAGES]]
    return [
        [grids.Cell(str(backbone), n, q, grids.query_attention(arrays, i, q)) for q in queries]
        for i, n in enumerate(names)
    ]
