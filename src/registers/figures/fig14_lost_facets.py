"""Fig. 14: the seed expansion of LOST in OpenCLIP for keys, queries and values, without and with
registers (paper, appendix C).

All maps share a scale: over the largest value, around the 0 above which a patch counts to the
object.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import image_maps, lost_images, style
from registers.figures.paint.lost_images import FACETS, LostImage


def table(lost: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map, over the largest; panel: keys, queries, values."""
    rows = []
    for id, image in lost_images.first_images(lost):
        maps = {name: image.relative("expansion", facet) for facet, name in FACETS.items()}
        rows.append(
            [image_maps.MapCell(str(id), image.name, name, map) for name, map in maps.items()]
        )
    return image_maps.long(rows)


def draw(lost: image_maps.ImageMaps) -> Figure:
    rows = lost_images.first_images(lost)
    page = lost_images.page(rows, list(FACETS.values()), facets=False)
    for axes, (_, image) in zip(page.axes, rows):
        for ax, facet in zip(axes[2:], FACETS):
            painted = lost_images.relative(ax, image.relative("expansion", facet), image)
    lost_images.relative_bar(page, painted, 2, 1 + len(FACETS))
    return page.figure


def caption(lost: image_maps.ImageMaps) -> str:
    rows = lost_images.first_images(lost)
    smoothness = {id.registers: _by_facet(image) for id, image in rows}
    findings = []
    for registers, by_facet in smoothness.items():
        numbers = style.listing(f"{value:.2f} ({name})" for name, value in by_facet.items())
        findings.append(f"{numbers} {style.having(registers)}")
    text = (
        f"In {style.name(rows[0][0].method)} the seed expansion of neighbouring patches correlates "
        f"(1 is smooth), in the image shown, at {'; '.join(findings)}"
    )
    below = "under each map are its least and its largest value"
    if len(smoothness) == 1:
        return f"{text}; {below}."
    before = smoothness[min(smoothness)]
    after = smoothness[max(smoothness)]
    smoother = [name for name in before if after[name] > before[name]]
    verdict = f"registers make it smoother for {style.listing(smoother)} of the three"
    return f"{text}; {verdict}; {below}."


def _by_facet(image: LostImage) -> dict[str, float]:
    """Smoothness of the expansion for keys, queries and values, to the two digits printed."""
    maps = {name: image.relative("expansion", facet) for facet, name in FACETS.items()}
    return {name: round(_smoothness(map), 2) for name, map in maps.items()}


def _smoothness(values: np.ndarray) -> float:
    """Correlation of a patch's value with those to its right and below it."""
    here = np.concatenate([np.delete(values, -1, axis).ravel() for axis in (0, 1)])
    there = np.concatenate([np.delete(values, 0, axis).ravel() for axis in (0, 1)])
    if not here.std() or not there.std():
        return 1.0
    return float(np.corrcoef(here, there)[0, 1])
