"""What LOST did on the images kept, as figures read it from the arrays of question "discovery"
(`registers.lost_arrays`), and the layout of the figures that show its steps."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from registers import lost_arrays
from registers.figures import selection
from registers.figures.paint import grids, photos, style
from registers.figures.paint.image_maps import Arrays, ImageMaps
from registers.overlap import iou
from registers.settings.backbone_id import BackboneId

FACETS = dict(zip(lost_arrays.FACETS, ("keys", "queries", "values")))
RELATIVE = "over the largest (above 0: of the object)"
DIVERGING = "RdBu_r"  # white at 0, as in Fig. 20


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
        return lost_arrays.photo(self.arrays, self.index)

    @property
    def truths(self) -> np.ndarray:
        """The true boxes (K, 4)."""
        return lost_arrays.true_boxes(self.arrays, self.index)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.arrays["patch"])

    @property
    def facet(self) -> str:
        """The facet that LOST is run on: "k", "q" or "v"."""
        return lost_arrays.published_facet(self.arrays)

    def step(self, step: str, facet: str | None = None) -> np.ndarray:
        """score, similarity, expansion, mask, component (h, w); seed (row, column)."""
        return lost_arrays.step(self.arrays, self.index, step, facet)

    def relative(self, step: str, facet: str | None = None) -> np.ndarray:
        """A map (h, w) over its largest value on either side of 0: -1 to 1, in no unit.

        Features have no common scale, but LOST's limit between object and ground is 0 in each map.
        """
        values = self.step(step, facet).astype(float)
        return values / (np.abs(values).max() or 1.0)

    def box(self, procedure: str | None = None) -> np.ndarray:
        """The box of LOST as published, or of another procedure: "tuned", "dino_seg"."""
        return lost_arrays.box(self.arrays, self.index, procedure)

    def overlap(self, procedure: str | None = None) -> float:
        """Intersection over union of a procedure's box with the nearest true one."""
        return float(iou(self.box(procedure), self.truths).max())


def images(arrays: Arrays) -> list[LostImage]:
    """All images kept of one backbone."""
    return [LostImage(arrays, i) for i in range(len(arrays["names"]))]


def first_images(lost: ImageMaps) -> list[tuple[BackboneId, LostImage]]:
    """The first image, as the paper shows a single one, of every model of `selection.models`."""
    return [(id, LostImage(lost[str(id)])) for id in selection.models(lost)]


# --- pages


def page(rows: list[tuple[BackboneId, LostImage]], titles: list[str], facets: bool) -> grids.Page:
    """A row per model: its name, the input, and an empty cell for each title.

    facets: whether the name tells the facet that LOST is run on. There is room for `ends` under
    each cell, and for bars below them.
    """
    made = grids.page(
        len(rows),
        2 + len(titles),
        ["", "Input", *titles],
        [1],
        ratios=[photos.ratio(image.rgb) for _, image in rows],
        row_gap=grids.GAP + grids.LABEL,
        below=grids.LABEL + grids.BAR,
    )
    for axes, (id, image) in zip(made.axes, rows):
        label = style.registers_label(id.registers, id.test_time)
        lines = [style.name(id.method), label.replace("test-time ", "test-time\n")]
        lines += [f"({FACETS[image.facet]})"] if facets else []
        centre = dict(ha="center", va="center", transform=axes[0].transAxes)
        axes[0].text(0.5, 0.5, "\n".join(lines), fontsize=8, color=style.INK, **centre)
        axes[0].patch.set_visible(False)
        photos.photo(axes[1], image.rgb)
    return made


def relative(ax: Axes, values: np.ndarray, image: LostImage) -> AxesImage:
    """A map of `LostImage.relative` on the scale that all of them share, with its ends below."""
    ends(ax, values, "{:.2f}")
    scale = dict(cmap=DIVERGING, vmin=-1, vmax=1)
    return photos.over(ax, values, image.rgb.shape, image.patch, **scale)


def ends(ax: Axes, values: np.ndarray, written: str) -> None:
    """The least and the largest value of a map, under it."""
    texts = (written.format(end) for end in (values.min(), values.max()))
    ax.set_xlabel(style.span(texts), fontsize=6, labelpad=1.5)


def relative_bar(made: grids.Page, image: AxesImage, first: int, last: int) -> None:
    """The scale of all maps of `relative` on a page, below its columns first..last."""
    made.bar(image, first, last, RELATIVE, [-1, 0, 1], lower=grids.LABEL)
