"""Fig. 13: the intermediate steps of LOST for all models on one image (paper, appendix C)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from registers.figures import grids, panels

STEPS = {"score": "score and seed", "similarity": "likeness to the seed", "expansion": "seed expansion", "component": "mask and box"}
IMAGE = 0  # the first one, as in the paper


def table(lost: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map (panel: score, similarity, expansion, component), and the box in pixels (box.x0 to box.y1)."""
    shown, boxes = _models(lost), []
    rows = [[grids.Cell(str(b), _name(lost[str(b)]), s, _step(lost[str(b)], s).astype(float)) for s in STEPS] for b in shown]
    for b in shown:
        about = {"backbone": str(b), "method": b.method, "registers": b.registers, "image": _name(lost[str(b)])}
        box = lost[str(b)][_key(lost[str(b)], "box")].tolist()
        boxes += [about | {"panel": f"box.{edge}", "value": value} for edge, value in zip(("x0", "y0", "x1", "y1"), box)]
    return pd.concat([grids.long(rows), pd.DataFrame(boxes)], ignore_index=True)


def draw(lost: grids.Maps) -> Figure:
    shown = _models(lost)
    page = grids.page(len(shown), 2 + len(STEPS), ["", "Input", *STEPS.values()], [1])
    for axes, backbone in zip(page.axes, shown):
        arrays = lost[str(backbone)]
        picture, (row, column) = arrays[f"{IMAGE}_rgb"], arrays[_key(arrays, "seed")]
        facet = {"k": "keys", "q": "queries", "v": "values"}[str(arrays["facet"])]
        text = f"{panels.name(backbone.method)}\n{panels.registers_label(backbone.registers)}\n({facet})"
        axes[0].text(0.5, 0.5, text, transform=axes[0].transAxes, ha="center", va="center", fontsize=8, color=panels.INK)
        axes[0].patch.set_visible(False)
        axes[1].imshow(picture, aspect="auto")
        _box(axes[1], arrays[f"{IMAGE}_truths"], "white")
        for ax, step in zip(axes[2:], STEPS):
            if step == "component":
                ax.imshow(_shaded(picture, _step(arrays, step)), aspect="auto")
                _box(ax, arrays[_key(arrays, "box")][None], panels.CUTOFF)
            else:
                grids.show(ax, _step(arrays, step))
        axes[2].plot(column, row, marker="s", markersize=4, markerfacecolor="none", markeredgecolor=panels.CUTOFF)
    return page.figure


def caption(lost: grids.Maps) -> str:
    by_method: dict[str, list[tuple[int, float, int]]] = {}
    for backbone in _models(lost):
        overlaps = [_overlap(lost[str(backbone)], i) for i in range(len(lost[str(backbone)]["names"]))]
        by_method.setdefault(backbone.method, []).append((backbone.registers, float(np.mean(overlaps)), len(overlaps)))
    images = min(n for found in by_method.values() for _, _, n in found)
    said = [f"{panels.name(m)} {panels.listing(f'{v:.2f} {panels.having(r)}' for r, v, _ in found)}" for m, found in by_method.items()]
    better = [panels.name(m) for m, found in by_method.items() if len(found) > 1 and found[-1][1] > found[0][1]]
    verdict = f", larger with registers for {panels.listing(better)}" if any(len(f) > 1 for f in by_method.values()) else ""
    return f"Overlap of LOST's box with the nearest true one (IoU, mean of {images} images): {'; '.join(said)}{verdict}."


def _models(lost: grids.Maps) -> list:
    return grids.models(lost)


def _key(arrays: dict[str, np.ndarray], step: str, image: int = IMAGE) -> str:
    return f"{image}_{arrays['facet']}_{step}"


def _step(arrays: dict[str, np.ndarray], step: str) -> np.ndarray:
    return arrays[_key(arrays, step)]


def _name(arrays: dict[str, np.ndarray]) -> str:
    return str(arrays["names"][IMAGE])


def _shaded(picture: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The picture, bright where the mask is; patches that reach beyond the picture are cut off."""
    rows = np.minimum(np.arange(picture.shape[0]) * inside.shape[0] // picture.shape[0], inside.shape[0] - 1)
    columns = np.minimum(np.arange(picture.shape[1]) * inside.shape[1] // picture.shape[1], inside.shape[1] - 1)
    return np.where(inside[rows][:, columns, None], picture, (0.3 * picture).astype(np.uint8))


def _box(ax, boxes: np.ndarray, colour: str) -> None:
    for x0, y0, x1, y1 in boxes:
        ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1))


def _overlap(arrays: dict[str, np.ndarray], image: int) -> float:
    box, truths = arrays[_key(arrays, "box", image)].astype(float), arrays[f"{image}_truths"].astype(float)
    sides = np.maximum(np.minimum(box[2:], truths[:, 2:]) - np.maximum(box[:2], truths[:, :2]), 0)
    inter = sides.prod(axis=1)
    return float((inter / ((box[2:] - box[:2]).prod() + (truths[:, 2:] - truths[:, :2]).prod(axis=1) - inter)).max())
