"""Photos in their own shape, with boxes on them and maps over them.

Every cell has the photo's pixels as its coordinates, x to the right and y downwards from the upper
left corner, so that boxes, maps of patches and the photo lie on one another. A photo is padded,
right and below, to whole patches; what lies beyond the photo is not shown.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from registers.figures.paint import grids, style


def ratio(rgb: np.ndarray) -> float:
    """Height over width of a photo (H, W, 3)."""
    return rgb.shape[0] / rgb.shape[1]


def photo(ax: Axes, rgb: np.ndarray) -> None:
    """The photo itself."""
    over(ax, rgb, rgb.shape)


def over(
    ax: Axes, values: np.ndarray, shape: tuple[int, ...], patch: int = 1, **painting
) -> AxesImage:
    """A map over a photo.

    values: (h, w), or colours (h, w, 3). shape: of the photo, (H, W, ...).
    patch: pixels per value. painting: of `Axes.imshow`.
    """
    height, width = shape[:2]
    image = ax.imshow(
        values,
        extent=(0, values.shape[1] * patch, values.shape[0] * patch, 0),
        aspect="auto",
        interpolation="nearest",
        **{"cmap": grids.ATTENTION, **painting},
    )
    ax.set(xlim=(0, width), ylim=(height, 0))
    return image


def shaded(rgb: np.ndarray, inside: np.ndarray, patch: int) -> np.ndarray:
    """The photo, dark outside a mask of patches (h, w)."""
    rows, columns = (np.arange(side) // patch for side in rgb.shape[:2])
    return np.where(inside[rows][:, columns, None], rgb, (0.3 * rgb).astype(np.uint8))


def boxes(ax: Axes, corners: np.ndarray, colour: str) -> None:
    """Boxes (K, 4) as x0, y0, x1, y1 in pixels, ends exclusive.

    A rim keeps them visible on any photo and at its edge.
    """
    rim = withStroke(linewidth=1.8, foreground=style.INK if colour == "white" else "white")
    frame = dict(fill=False, edgecolor=colour, linewidth=1, clip_on=False, path_effects=[rim])
    frame["gid"] = style.ON_COLOUR  # a white box stays white on a dark page
    for x0, y0, x1, y1 in np.reshape(corners, (-1, 4)):
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **frame))
