"""Fig. 13: the intermediate steps of LOST for all models on one image (paper, appendix C)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from registers.figures.paint import grids, photos, style

STEPS = {
    "score": "score and seed",
    "similarity": "likeness to the seed",
    "expansion": "seed expansion",
    "component": "mask and box",
}
IMAGE = 0  # the first one, as in the paper


def table(lost: grids.Maps) -> pd.DataFrame:
    """A row per patch of every map (panel: score, similarity, expansion, component), and the box in pixels (box.x0 to box.y1)."""
    shown, boxes = _models(lost), []
    rows = [
        [
            grids.Cell(str(b), _name(lost[str(b)]), s, _step(lost[str(b)], s).astype(float))
            for s in STEPS
        ]
        for b in shown
    ]
    for b in shown:
        about = {
            "backbone": str(b),
            "method": b.method,
            "registers": b.registers,
            "image": _name(lost[str(b)]),
        }
        box = lost[str(b)][_key(lost[str(b)], "box")].tolist()
        boxes += [
            about | {"panel": f"box.{edge}", "value": value}
            for edge, value in zip(("x0", "y0", "x1", "y1"), box)
        ]
    return pd.concat([grids.long(rows), pd.DataFrame(boxes)], ignore_index=True)


def draw(lost: grids.Maps) -> Figure:
    shown = _models(lost)
    shape = [photos.ratio(lost[str(b)][f"{IMAGE}_rgb"]) for b in shown]
    page = grids.page(len(shown), 2 + len(STEPS), ["", "Input", *STEPS.values()], [1], ratios=shape)
    for axes, backbone in zip(page.axes, shown):
        arrays = lost[str(backbone)]
        picture, patch, (row, column) = (
            arrays[f"{IMAGE}_rgb"],
            int(arrays["patch"]),
            arrays[_key(arrays, "seed")],
        )
        facet = {"k": "keys", "q": "queries", "v": "values"}[str(arrays["facet"])]
        text = (
            f"{style.name(backbone.method)}\n{style.registers_label(backbone.registers)}\n({facet})"
        )
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
        photos.photo(axes[1], picture)
        photos.boxes(axes[1], arrays[f"{IMAGE}_truths"], "white")
        for ax, step in zip(axes[2:], STEPS):
            if step == "component":
                photos.photo(ax, photos.shaded(picture, _step(arrays, step), patch))
                photos.boxes(ax, arrays[_key(arrays, "box")], style.CUTOFF)
            else:
                photos.over(ax, _step(arrays, step), picture.shape, patch)
        seed = np.array([column, row, column + 1, row + 1]) * patch
        photos.boxes(axes[2], np.minimum(seed, [*picture.shape[1::-1]] * 2), style.CUTOFF)
    return page.figure


def caption(lost: grids.Maps) -> str:
    by_method: dict[str, list[tuple[int, float, int]]] = {}
    for backbone in _models(lost):
        overlaps = [
            _overlap(lost[str(backbone)], i) for i in range(len(lost[str(backbone)]["names"]))
        ]
        by_method.setdefault(backbone.method, []).append(
            (backbone.registers, float(np.mean(overlaps)), len(overlaps))
        )
    images = min(n for found in by_method.values() for _, _, n in found)
    said = [
        f"{style.name(m)} {style.listing(f'{v:.2f} {style.having(r)}' for r, v, _ in found)}"
        for m, found in by_method.items()
    ]
    better = [
        style.name(m)
        for m, found in by_method.items()
        if len(found) > 1 and found[-1][1] > found[0][1]
    ]
    verdict = (
        f", larger with registers for {style.listing(better)}"
        if any(len(f) > 1 for f in by_method.values())
        else ""
    )
    return f"Overlap of LOST's box with the nearest true one (IoU, mean of {images} images): {'; '.join(said)}{verdict}."


def _models(lost: grids.Maps) -> list:
    return grids.models(lost)


def _key(arrays: dict[str, np.ndarray], step: str, image: int = IMAGE) -> str:
    return f"{image}_{arrays['facet']}_{step}"


def _step(arrays: dict[str, np.ndarray], step: str) -> np.ndarray:
    return arrays[_key(arrays, step)]


def _name(arrays: dict[str, np.ndarray]) -> str:
    return str(arrays["names"][IMAGE])


def _overlap(arrays: dict[str, np.ndarray], image: int) -> float:
    return photos.overlap(arrays[_key(arrays, "box", image)], arrays[f"{image}_truths"])
