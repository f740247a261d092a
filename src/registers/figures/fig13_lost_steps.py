"""Fig. 13: the intermediate steps of LOST for all models on one image (paper, appendix C)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import image_maps, lost_images, photos, style
from registers.figures.paint.lost_images import LostImage

MAPS = {
    "score": "score and seed",
    "similarity": "similarity to seed",
    "expansion": "seed expansion",
}
COMPONENT = "mask and box"


def table(lost: image_maps.ImageMaps) -> pd.DataFrame:
    """A row per patch of every map, and the box in pixels.

    panel: score, similarity, expansion, component, and box.x0 to box.y1.
    """
    cells = []
    boxes = []
    for id, image in lost_images.first_images(lost):
        steps = {step: image.step(step).astype(float) for step in (*MAPS, "component")}
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
    page = lost_images.page(rows, [*MAPS.values(), COMPONENT], facets=True)
    for axes, (_, image) in zip(page.axes, rows):
        _, photo, *maps, component = axes
        photos.boxes(photo, image.truths, "white")
        for ax, step in zip(maps, MAPS):
            photos.over(ax, image.step(step), image.rgb.shape, image.patch)
        photos.boxes(maps[0], _seed(image), style.CUTOFF)
        photos.photo(component, photos.shaded(image.rgb, image.step("component"), image.patch))
        photos.boxes(component, image.box(), style.CUTOFF)
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
        f"{'; '.join(findings)}{verdict}."
    )


def _seed(image: LostImage) -> np.ndarray:
    """The box of the seed's patch, cut off where the photo ends."""
    row, column = image.step("seed")
    height, width = image.rgb.shape[:2]
    box = np.array([column, row, column + 1, row + 1]) * image.patch
    return np.minimum(box, [width, height, width, height])
