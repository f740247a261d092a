"""The pictures of what test-time registers change, each as PNG bytes.

Letters: B images, h x w the grid.
"""

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from registers.audit import pictures as paint
from registers.audit.audited import Audit
from registers.figures.paint import style

ROWS = 3  # images shown

_CURVES = (
    "Norms after each block, of the highest patch and of the added tokens: what the patches had is "
    "on the added tokens."
)


def pictures(audit: Audit) -> list[tuple[bytes, str]]:
    """PNG and what is to be seen on it. audit: one with a change."""
    drawn = [(curves(audit), _CURVES)]
    if audit.bank.grid is not None:
        drawn.insert(0, (maps(audit), _maps_caption(audit)))
    return [(paint.png(figure), caption) for figure, caption in drawn]


def maps(audit: Audit) -> Figure:
    """The same images before and after: norms, what a head and [CLS] look at, LOST's box."""
    images = paint.examples(audit, ROWS)
    columns = _columns(audit, images)
    has_boxes = audit.change.boxes is not None and paint.shows_pictures(audit)
    count = 2 * len(columns) + int(has_boxes)
    figure, axes = style.canvas(len(images), count, height=1.08 * len(images) + 0.2)
    for pair, (title, before_Bhw, after_Bhw, logarithmic) in enumerate(columns):
        for row in range(len(images)):
            maps_2hw = np.stack([before_Bhw[row], after_Bhw[row]])
            scale = _scale(maps_2hw, logarithmic)
            for side in (0, 1):
                ax = axes[row, 2 * pair + side]
                cmap = paint.NORMS if logarithmic else paint.ATTENTION
                ax.imshow(maps_2hw[side], cmap=cmap, norm=scale)
        for side, word in enumerate(("before", "after")):
            axes[0, 2 * pair + side].set_title(f"{title}\n{word}", fontsize=7)
    if has_boxes:
        for row, image in enumerate(images):
            _boxes(axes[row, -1], audit, image)
        axes[0, -1].set_title("LOST", fontsize=7)
    paint.bare(axes)
    return figure


def _columns(audit: Audit, images: list[int]) -> list[tuple]:
    """Title, (B, h, w) before and after, and whether the scale is logarithmic."""
    after = audit.change.after
    layer = audit.verdict.layer or audit.bank.layers
    norms = [
        each.bank.patch_norms(layer)[images].reshape(len(images), *each.bank.grid)
        for each in (audit, after)
    ]
    columns = [(f"norms, layer {layer}", *norms, True)]
    if not audit.heads:
        return columns
    head = audit.top_heads(1)[0]
    gazes = [("head", head.layer, head.head, "patches")]
    if audit.bank.layout.cls is not None:
        gazes.append(("[CLS]", audit.bank.layers, None, "cls"))
    for title, at, number, queries in gazes:
        seen = [
            np.stack([paint.gaze(each, at, number, image, queries) for image in images])
            for each in (audit, after)
        ]
        columns.append((f"{title}, layer {at}", *seen, False))
    return columns


def _scale(maps_2hw: np.ndarray, logarithmic: bool) -> colors.Normalize:
    """One scale for before and after."""
    if logarithmic:
        return colors.LogNorm(maps_2hw.min(), max(maps_2hw.max(), 1.01 * maps_2hw.min()))
    return colors.Normalize(0, maps_2hw.max())


def _boxes(ax: Axes, audit: Audit, image: int) -> None:
    ax.imshow(audit.bank.images.pictures[image])
    for (x0, y0, x1, y1), (colour, width) in zip(
        audit.change.boxes[:, image], ((style.CUTOFF, 2.4), (paint.GREEN, 1.2)), strict=True
    ):
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, lw=width))


def _maps_caption(audit: Audit) -> str:
    parts = ["The same images before and after, each pair on one scale: norms of the patches"]
    if audit.heads:
        head = audit.top_heads(1)[0]
        parts.append(f"; attention of all patches in layer {head.layer} head {head.head}")
        if audit.bank.layout.cls is not None:
            parts.append("; that of [CLS] in the last layer, averaged over heads")
    if audit.change.boxes is not None:
        parts.append("; LOST's boxes, red before and green after")
    return "".join(parts) + "."


def curves(audit: Audit) -> Figure:
    """The highest norm of patches before and after, and the added tokens' norm, along layers."""
    after = audit.change.after
    figure, axes = style.canvas(1, 1, height=2.4)
    ax = axes[0, 0]
    layers = [row.layer for row in audit.rows]
    paint.line(ax, layers, [row.maximum for row in audit.rows], style.CUTOFF, "patches, before")
    paint.line(ax, layers, [row.maximum for row in after.rows], paint.BLUE, "patches, after")
    paint.line(ax, layers, [row.added for row in after.rows], paint.GREEN, "added tokens", ls="--")
    ax.set(yscale="log", xlabel="layer", ylabel="norm, highest")
    style.logarithmic(ax.yaxis)
    ax.xaxis.set_major_locator(paint.MaxNLocator(integer=True))
    ax.legend(fontsize=6.5)
    return figure
