"""Further pictures, beyond the paper's: what the linear heads and LOST say of single photos of the validation split, beside the truth.

Arrays come as `evals.dense.picture_arrays` (segmentation, depth) and `evals.discovery.discover` (discovery) leave them.
"""

import colorsys

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from registers.figures.paint import grids, photos, style
from registers.settings.backbone_id import BackboneId
from registers.settings.data import ANNOTATED_ROLES

Arrays = dict[str, np.ndarray]
IGNORE = 255  # the class id that no metric counts
NAMED = 9  # classes that a row's legend names, the largest first
BOXES = {"tuned": "LOST, tuned", "dino_seg": "DINO-seg, best head"}  # beside LOST as published
FACETS = {"k": "keys", "q": "queries", "v": "values"}
FOUND = 0.5  # overlap from which an object counts as found (CorLoc)
SIDE, LEGEND = 1.65, 1.55  # inches: a cell's width at most, the room for names of classes


def draw(question: str, arrays: Arrays) -> Figure:
    """A row per photo, in its own shape. question: segmentation, depth, discovery. Raises ValueError: another one, or no picture kept."""
    return {"segmentation": _segmentation, "depth": _depth, "discovery": _discovery}[
        _checked(question, arrays)
    ](arrays)


def caption(question: str, arrays: Arrays) -> str:
    """What the picture shows, in numbers of these photos alone; raises as `draw`."""
    said = {
        "segmentation": _said_of_segmentation,
        "depth": _said_of_depth,
        "discovery": _said_of_discovery,
    }[_checked(question, arrays)]
    backbone, shown = BackboneId.parse(str(arrays["backbone"])), len(arrays["names"])
    model = f"{style.name(backbone.method)} {style.having(backbone.registers)}"
    return f"{question.capitalize()} with {model}, {shown} photo{'s' if shown > 1 else ''} of {arrays['data']}: {said(arrays)}."


def _checked(question: str, arrays: Arrays) -> str:
    if question not in ANNOTATED_ROLES:
        raise ValueError(f"question = {question!r}: allowed are {', '.join(ANNOTATED_ROLES)}")
    if not len(arrays.get("names", ())):
        raise ValueError(
            f"{question}.pictures = 0: no picture was kept; allowed are numbers from 1"
        )
    return question


def _page(arrays: Arrays, titles: list[str], **room) -> grids.Page:
    shapes = [photos.ratio(arrays[f"{i}_rgb"]) for i in range(len(arrays["names"]))]
    return grids.page(len(shapes), len(titles), titles, side=SIDE, ratios=shapes, **room)


# --- segmentation -------------------------------------------------------------------------------------------------------


def palette(classes: int) -> np.ndarray:
    """(256, 3) colours of class ids: neighbours in number lie far apart in hue (golden angle); what is not counted is pale."""
    hues = np.arange(classes) * 0.381966 % 1
    colours = [
        colorsys.hls_to_rgb(hue, (0.45, 0.62, 0.32)[i % 3], (0.75, 0.55)[i % 2])
        for i, hue in enumerate(hues)
    ]
    filled = np.ones((256, 3))
    filled[:classes] = colours
    filled[IGNORE] = [int(style.PALE[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return filled


def _segmentation(arrays: Arrays) -> Figure:
    names, colours = [str(name) for name in arrays["classes"]], palette(len(arrays["classes"]))
    page = _page(arrays, ["Input", "Truth", "Predicted"], right=LEGEND)
    for i, axes in enumerate(page.axes):
        picture, both = arrays[f"{i}_rgb"], [arrays[f"{i}_truth"], arrays[f"{i}_predicted"]]
        photos.photo(axes[0], picture)
        for ax, ids in zip(axes[1:], both):
            photos.over(ax, colours[ids], picture.shape)
        areas = np.bincount(np.concatenate([ids.ravel() for ids in both]), minlength=256)
        areas[IGNORE] = 0
        largest = [int(c) for c in np.argsort(-areas, kind="stable")[:NAMED] if areas[c]]
        handles = [Patch(color=colours[c], label=names[c]) for c in largest]
        handles += [Patch(color=colours[IGNORE], label="not counted")] * bool(
            (both[0] == IGNORE).any()
        )
        axes[-1].legend(
            handles=handles,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            fontsize=6,
            handlelength=1,
            labelspacing=0.25,
        )
    return page.figure


def _said_of_segmentation(arrays: Arrays) -> str:
    right = counted = 0
    for i in range(len(arrays["names"])):
        truth = arrays[f"{i}_truth"]
        right += int((arrays[f"{i}_predicted"] == truth)[truth != IGNORE].sum())
        counted += int((truth != IGNORE).sum())
    return f"{style.percent(right / max(counted, 1))} of the pixels that count have their true one of {len(arrays['classes'])} classes"


# --- depth --------------------------------------------------------------------------------------------------------------


def _depth(arrays: Arrays) -> Figure:
    page = _page(arrays, ["Input", "Truth", "Predicted"], below=grids.BAR)
    known = np.concatenate(
        [truth[truth > 0] for truth in (arrays[f"{i}_truth"] for i in range(len(arrays["names"])))]
    )
    scale = dict(cmap="magma_r", vmin=float(known.min()), vmax=float(known.max()))
    for i, axes in enumerate(page.axes):
        picture, truth = arrays[f"{i}_rgb"], arrays[f"{i}_truth"]
        photos.photo(axes[0], picture)
        axes[1].set_facecolor(style.PALE)  # where nothing is known
        photos.over(axes[1], np.ma.masked_equal(truth, 0), picture.shape, **scale)
        painted = photos.over(axes[2], arrays[f"{i}_predicted"], picture.shape, **scale)
    page.bar(
        painted,
        1,
        2,
        "depth, in the unit of the data",
        grids.ticks(scale["vmin"], scale["vmax"], 5),
    )
    return page.figure


def _said_of_depth(arrays: Arrays) -> str:
    errors = []
    for i in range(len(arrays["names"])):
        truth, predicted = (arrays[f"{i}_{name}"].astype(float) for name in ("truth", "predicted"))
        errors.append(float(np.sqrt(np.mean((predicted - truth)[truth > 0] ** 2))))
    return f"root mean squared error {style.listing(style.number(e) for e in errors)}, in the unit of the data"


# --- discovery ----------------------------------------------------------------------------------------------------------


def _discovery(arrays: Arrays) -> Figure:
    others = {key: title for key, title in BOXES.items() if f"0_{key}_box" in arrays}
    facet, patch = str(arrays["facet"]), int(arrays["patch"])
    page = _page(arrays, ["True boxes", f"LOST ({FACETS[facet]})", *others.values()])
    for i, axes in enumerate(page.axes):
        picture = arrays[f"{i}_rgb"]
        photos.photo(axes[0], picture)
        photos.boxes(axes[0], arrays[f"{i}_truths"], "white")
        photos.photo(axes[1], photos.shaded(picture, arrays[f"{i}_{facet}_component"], patch))
        photos.boxes(axes[1], arrays[f"{i}_{facet}_box"], style.CUTOFF)
        for ax, key in zip(axes[2:], others):
            photos.photo(ax, picture)
            photos.boxes(ax, arrays[f"{i}_{key}_box"], style.CUTOFF)
    return page.figure


def _said_of_discovery(arrays: Arrays) -> str:
    shown, said = range(len(arrays["names"])), []
    for key, name in {str(arrays["facet"]): "LOST as published", **BOXES}.items():
        if f"0_{key}_box" in arrays:
            overlaps = [
                photos.overlap(arrays[f"{i}_{key}_box"], arrays[f"{i}_truths"]) for i in shown
            ]
            said.append(
                f"{name} {np.mean(overlaps):.2f} ({sum(o >= FOUND for o in overlaps)} found)"
            )
    return f"mean overlap with the nearest true box (IoU; found from {FOUND}) {style.listing(said)}"
