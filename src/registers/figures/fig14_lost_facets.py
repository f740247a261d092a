"""Fig. 14: the seed expansion of LOST in OpenCLIP for keys, queries and values, without and with registers (paper, appendix C)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, photos, style

FACETS = {"k": "keys", "q": "queries", "v": "values"}
IMAGE = 0  # the first one, as in the paper


def table(lost: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map; panel: keys, queries, values."""
    return grids.long(
        [
            [grids.Cell(str(b), str(a["names"][IMAGE]), n, _map(a, f)) for f, n in FACETS.items()]
            for b, a in _models(lost)
        ]
    )


def draw(lost: grids.Maps) -> Figure:
    shown = _models(lost)
    shape = [photos.ratio(arrays[f"{IMAGE}_rgb"]) for _, arrays in shown]
    page = grids.page(
        len(shown), 2 + len(FACETS), ["", "Input", *FACETS.values()], [1], ratios=shape
    )
    for axes, (backbone, arrays) in zip(page.axes, shown):
        text = f"{style.name(backbone.method)}\n{style.registers_label(backbone.registers)}"
        axes[0].text(
            0.5,
            0.5,
            text,
            transform=axes[0].transAxes,
            ha="center",
            va="center",
            fontsize=8,
            color=style.INK,
        )
        axes[0].patch.set_visible(False)
        picture = arrays[f"{IMAGE}_rgb"]
        photos.photo(axes[1], picture)
        for ax, facet in zip(axes[2:], FACETS):
            photos.over(ax, _map(arrays, facet), picture.shape, int(arrays["patch"]))
    return page.figure


def caption(lost: grids.Maps) -> str:
    said, spotty = [], {}
    for backbone, arrays in _models(lost):
        images = range(len(arrays["names"]))
        smooth = {
            name: float(np.mean([_smoothness(_map(arrays, facet, i)) for i in images]))
            for facet, name in FACETS.items()
        }
        words = style.listing(f"{value:.2f} ({name})" for name, value in smooth.items())
        said.append(f"{words} {style.having(backbone.registers)}")
        spotty[backbone.registers] = smooth
    counts = sorted(spotty)
    verdict = ""
    if len(counts) > 1:
        better = [
            name for name in FACETS.values() if spotty[counts[-1]][name] > spotty[counts[0]][name]
        ]
        verdict = f", so registers make it smoother for {style.listing(better)} of the three"
    model = style.name(_models(lost)[0][0].method)
    return f"In {model} the seed expansion of neighbouring patches correlates (1 is smooth) at {'; '.join(said)}{verdict}."


def _models(lost: grids.Maps) -> list[tuple]:
    return [(b, lost[str(b)]) for b in grids.models(lost)]


def _map(arrays: dict[str, np.ndarray], facet: str, image: int = IMAGE) -> np.ndarray:
    return arrays[f"{image}_{facet}_expansion"].astype(float)


def _smoothness(values: np.ndarray) -> float:
    """Correlation of a patch's value with those to its right and below it."""
    here = np.concatenate([np.delete(values, -1, axis).ravel() for axis in (0, 1)])
    there = np.concatenate([np.delete(values, 0, axis).ravel() for axis in (0, 1)])
    return float(np.corrcoef(here, there)[0, 1]) if here.std() and there.std() else 1.0
