"""What LOST did on the images kept: the one reader of the arrays that question "discovery" leaves,
and the layout of the figures that show its steps.

Arrays are named IMAGE_rgb, IMAGE_truths (K, 4), IMAGE_FACET_STEP and IMAGE_PROCEDURE_box; facets
are keys, queries and values of the attention, "facet" the one that this model is run on.
"""

from dataclasses import dataclass

import numpy as np

from registers.figures import selection
from registers.figures.paint import grids, photos, style
from registers.figures.paint.image_maps import Arrays, ImageMaps
from registers.overlap import iou
from registers.settings.backbone_id import BackboneId

FACETS = {"k": "keys", "q": "queries", "v": "values"}


@dataclass(frozen=True)
class LostImage:
    """One image of one backbone. Boxes are x0, y0, x1, y1 in pixels."""

    arrays: Arrays
    index: int = 0

    @property
    def name(self) -> str:
        return str(self.arrays["names"][self.index])

    @property
    def rgb(self) -> np.ndarray:
        return self.arrays[f"{self.index}_rgb"]

    @property
    def truths(self) -> np.ndarray:
        """The true boxes (K, 4)."""
        return self.arrays[f"{self.index}_truths"]

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.arrays["patch"])

    @property
    def facet(self) -> str:
        """The facet that LOST is run on: "k", "q" or "v"."""
        return str(self.arrays["facet"])

    def step(self, step: str, facet: str = "") -> np.ndarray:
        """score, similarity, expansion, mask, component (h, w); seed (row, column); box (4,)."""
        return self.arrays[f"{self.index}_{facet or self.facet}_{step}"]

    def box(self, procedure: str = "") -> np.ndarray:
        """The box of LOST as published, or of another procedure: "tuned", "dino_seg"."""
        return self.arrays[f"{self.index}_{procedure}_box"] if procedure else self.step("box")

    def has(self, procedure: str) -> bool:
        return f"{self.index}_{procedure}_box" in self.arrays

    def overlap(self, procedure: str = "") -> float:
        """Intersection over union of a procedure's box with the nearest true one."""
        return float(iou(self.box(procedure), self.truths).max())


def images(arrays: Arrays) -> list[LostImage]:
    """All images kept of one backbone."""
    return [LostImage(arrays, i) for i in range(len(arrays["names"]))]


def first_images(lost: ImageMaps) -> list[tuple[BackboneId, LostImage]]:
    """The first image, as the paper shows a single one, of every model of `selection.models`."""
    return [(id, LostImage(lost[str(id)])) for id in selection.models(lost)]


def page(rows: list[tuple[BackboneId, LostImage]], titles: list[str], facets: bool) -> grids.Page:
    """A row per model: its name, the input, and an empty cell for each title.

    facets: whether the name tells the facet that LOST is run on.
    """
    ratios = [photos.ratio(image.rgb) for _, image in rows]
    made = grids.page(len(rows), 2 + len(titles), ["", "Input", *titles], [1], ratios=ratios)
    for axes, (id, image) in zip(made.axes, rows):
        lines = [style.name(id.method), style.registers_label(id.registers)]
        lines += [f"({FACETS[image.facet]})"] if facets else []
        centre = dict(ha="center", va="center", transform=axes[0].transAxes)
        axes[0].text(0.5, 0.5, "\n".join(lines), fontsize=8, color=style.INK, **centre)
        axes[0].patch.set_visible(False)
        photos.photo(axes[1], image.rgb)
    return made
