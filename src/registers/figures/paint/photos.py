"""Photos in their own shape, with boxes on them and maps over them: what Figs. 13 and 14 and the further pictures share.

Every cell has the photo's pixels as its coordinates, x to the right and y downwards from the upper left corner, so that boxes, maps of
patches and the photo lie on one another. A photo is padded, right and below, to whole patches; what is beyond it is not shown.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from registers.figures.paint import grids, style


def ratio(rgb: np.ndarray) -> float:
    """Height over width of a photo (H, W, 3)."""
    return rgb.shape[0] / rgb.shape[1]


def photo(ax: Axes, rgb: np.ndarray) -> None:
    over(ax, rgb, rgb.shape)


def over(ax: Axes, values: np.ndarray, shape: tuple[int, ...], patch: int = 1, **painting):
    """A map (h, w) or colours (h, w, 3), `patch` pixels a value, over a photo of shape (H, W, ...). painting: of `Axes.imshow`."""
    height, width = shape[:2]
    extent = (0, values.shape[1] * patch, values.shape[0] * patch, 0)
    painted = ax.imshow(
        values,
        extent=extent,
        aspect="auto",
        interpolation="nearest",
        **{"cmap": grids.ATTENTION, **painting},
    )
    ax.set(xlim=(0, width), ylim=(height, 0))
    return painted


def shaded(rgb: np.ndarray, inside: np.ndarray, patch: int) -> np.ndarray:
    """The photo, bright where the mask of patches (h, w) is."""
    rows, columns = (np.arange(side) // patch for side in rgb.shape[:2])
    return np.where(inside[rows][:, columns, None], rgb, (0.3 * rgb).astype(np.uint8))


def boxes(ax: Axes, corners: np.ndarray, colour: str) -> None:
    """Boxes (K, 4) as x0, y0, x1, y1 in pixels, ends exclusive; with a rim, to be seen on any photo and at its edge."""
    rim = withStroke(linewidth=1.8, foreground=style.INK if colour == "white" else "white")
    frame = dict(fill=False, edgecolor=colour, linewidth=1, clip_on=False, path_effects=[rim])
    for x0, y0, x1, y1 in np.reshape(corners, (-1, 4)):
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **frame))


def overlap(box: np.ndarray, truths: np.ndarray) -> float:
    """Intersection over union of a box (4,) with the nearest of the true ones (K, 4)."""
    box, truths = np.asarray(box, float), np.asarray(truths, float)
    inter = np.maximum(
        np.minimum(box[2:], truths[:, 2:]) - np.maximum(box[:2], truths[:, :2]), 0
    ).prod(axis=1)
    return float(
        (
            inter
            / ((box[2:] - box[:2]).prod() + (truths[:, 2:] - truths[:, :2]).prod(axis=1) - inter)
        ).max()
    )
