"""Fig. 13: the intermediate steps of LOST for all models on one image (paper, appendix C).

Each step has one scale for all models, so that a map that hardly varies looks flat: the share of
the other patches that a patch is similar to (LOST's score, fewest first), and similarity and
expansion over the largest, around the 0 above which a patch counts to the object.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, image_maps, lost_images, photos, style
from registers.figures.paint.lost_images import LostImage

TITLES = {
    "score": "score and seed",
    "similarity": "similarity to seed",
    "expansion": "seed expansion",
    "component": "mask and box",
}
SCORE = "similar to (% of patches)"


def table(lost: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map, and the box in pixels.

    panel: score (% of the other patches that a patch is similar to), similarity and expansion (over
    the largest), component (0 or 1), and box.x0 to box.y1.
    """
    cells = []
    boxes = []
    for id, image in lost_images.first_images(lost):
        steps = {**_maps(image), "component": image.step("component").astype(float)}
        cells.append(
            [image_maps.MapCell(str(id), image.name, step, map) for step, map in steps.items()]
        )
        for edge, value in zip(("x0", "y0", "x1", "y1"), image.box().tolist()):
            row = {
                "backbone": str(id),
                "method": id.method,
                "registers": id.registers,
                "image": image.name,
                "panel": f"box.{edge}",
                "value": value,
            }
            boxes.append(row)
    return pd.concat([image_maps.long(cells), pd.DataFrame(boxes)], ignore_index=True)


def draw(lost: image_maps.ImageMaps) -> Figure:
    rows = lost_images.first_images(lost)
    page = lost_images.page(rows, list(TITLES.values()), facets=True)
    for axes, (_, image) in zip(page.axes, rows):
        _, photo, score, similarity, expansion, component = axes
        maps = _maps(image)
        photos.boxes(photo, image.truths, "white")
        # bright where LOST looks for its seed
        few = dict(cmap="viridis_r", vmin=0, vmax=100)
        shares = photos.over(score, maps["score"], image.rgb.shape, image.patch, **few)
        photos.boxes(score, _seed(image), style.CUTOFF)
        lost_images.ends(score, maps["score"], "{:.0f} %")
        painted = lost_images.relative(similarity, maps["similarity"], image)
        lost_images.relative(expansion, maps["expansion"], image)
        photos.photo(component, photos.shaded(image.rgb, image.step("component"), image.patch))
        photos.boxes(component, image.box(), style.CUTOFF)
    page.bar(shares, 2, 2, SCORE, grids.ticks(0, 100, 4), lower=grids.LABEL)
    lost_images.relative_bar(page, painted, 3, 4)
    return page.figure


def caption(lost: image_maps.ImageMaps) -> str:
    overlaps: dict[str, dict[int, float]] = {}
    for id, image in lost_images.first_images(lost):
        overlaps.setdefault(id.method, {})[id.registers] = round(image.overlap(), 2)
    findings = []
    for method, by_count in overlaps.items():
        ends = [f"{overlap:.2f} {style.having(count)}" for count, overlap in by_count.items()]
        findings.append(f"{style.name(method)} {style.listing(ends)}")
    verdict = ""
    pairs = {
        method: list(by_count.values())
        for method, by_count in overlaps.items()
        if len(by_count) > 1  # of published models not every method has registers
    }
    if pairs:
        larger = [method for method, (first, *_, last) in pairs.items() if last > first]
        verdict = f"; larger with registers for {image_maps.these(larger, pairs) or 'none'}"
    return (
        "Overlap (IoU) of LOST's box with the nearest true one, in the image shown: "
        f"{'; '.join(findings)}{verdict}; under each map are its least and its largest value."
    )


def _maps(image: LostImage) -> dict[str, np.ndarray]:
    """The three maps of a row as they are drawn, (h, w) each."""
    score = image.step("score").astype(float)
    return {
        "score": -100 * score / (score.size - 1),
        "similarity": image.relative("similarity"),
        "expansion": image.relative("expansion"),
    }


def _seed(image: LostImage) -> np.ndarray:
    """The box of the seed's patch, cut off where the photo ends."""
    row, column = image.step("seed")
    height, width = image.rgb.shape[:2]
    box = np.array([column, row, column + 1, row + 1]) * image.patch
    return np.minimum(box, [width, height, width, height])
