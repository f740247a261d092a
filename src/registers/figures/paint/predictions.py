"""Further pictures, beyond the paper's: predictions for single photos of the validation split,
beside the truth.

Arrays come as questions "segmentation" and "depth" (`registers.evals.dense`) and "discovery" leave
them, each for the photos kept: IMAGE_rgb, IMAGE_truth, IMAGE_predicted, ...
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from registers import lost_arrays
from registers.figures.paint import grids, lost_images, palette, photos, style
from registers.figures.paint.image_maps import Arrays
from registers.settings.backbone_id import BackboneId
from registers.settings.data import ANNOTATED_ROLES
from registers.vocabulary import IGNORE

NAMED = 9  # classes that a row's legend names, the largest first
PROCEDURES = {  # beside LOST as published
    lost_arrays.TUNED: "LOST, tuned",
    lost_arrays.DINO_SEG: "DINO-seg, best head",
}
LOCALISED = 0.5  # overlap from which an object counts as localised (CorLoc)
SIDE = 1.65  # inches: a cell's width at most
LEGEND = 1.55  # inches: room for names of classes


def draw(question: str, arrays: Arrays) -> Figure:
    """A row per photo, in its own shape.

    question: segmentation, depth or discovery. Raises ValueError for another one, or where no
    photo was kept.
    """
    painters = {"segmentation": _segmentation, "depth": _depth, "discovery": _discovery}
    _check(question, arrays)
    return painters[question](arrays)


def caption(question: str, arrays: Arrays) -> str:
    """What the picture shows, in numbers of these photos alone. Raises as `draw` does."""
    results = {
        "segmentation": _accuracy,
        "depth": _errors,
        "discovery": _overlaps,
    }
    _check(question, arrays)
    id = BackboneId.parse(str(arrays["backbone"]))
    photos_of_data = f"{style.plural(len(arrays['names']), 'photo')} of {arrays['data']}"
    model = style.model(id.method, id.registers, id.test_time)
    return f"{question.capitalize()} by {model} on {photos_of_data}: {results[question](arrays)}."


def _check(question: str, arrays: Arrays) -> None:
    if question not in ANNOTATED_ROLES:
        raise ValueError(f"question: {question!r} must be one of {', '.join(ANNOTATED_ROLES)}")
    if not len(arrays.get("names", ())):
        raise ValueError(f"{question}.pictures: 0 keeps no photo to draw; must be at least 1")


def _page(arrays: Arrays, titles: list[str], **room) -> grids.Page:
    ratios = [photos.ratio(arrays[f"{i}_rgb"]) for i in range(len(arrays["names"]))]
    return grids.page(len(ratios), len(titles), titles, side=SIDE, ratios=ratios, **room)


def _pairs(arrays: Arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction of each photo."""
    photos_kept = range(len(arrays["names"]))
    return [(arrays[f"{i}_truth"], arrays[f"{i}_predicted"]) for i in photos_kept]


# --- segmentation


def _segmentation(arrays: Arrays) -> Figure:
    colours = np.tile(style.rgb(style.PALE), (256, 1))
    colours[: len(arrays["classes"])] = palette.distinct(len(arrays["classes"]))
    page = _page(arrays, ["Input", "Truth", "Predicted"], right=LEGEND)
    for i, (axes, (truth, predicted)) in enumerate(zip(page.axes, _pairs(arrays))):
        rgb = arrays[f"{i}_rgb"]
        photos.photo(axes[0], rgb)
        photos.over(axes[1], colours[truth], rgb.shape)
        photos.over(axes[2], colours[predicted], rgb.shape)
        axes[2].legend(
            handles=_legend(truth, predicted, arrays["classes"], colours),
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            fontsize=6,
            handlelength=1,
            labelspacing=0.25,
        )
    return page.figure


def _legend(
    truth: np.ndarray, predicted: np.ndarray, classes: np.ndarray, colours: np.ndarray
) -> list[Patch]:
    """The largest classes of one photo, and what is not counted."""
    areas = np.bincount(np.concatenate([truth.ravel(), predicted.ravel()]), minlength=256)
    areas[IGNORE] = 0
    largest = [int(c) for c in np.argsort(-areas, kind="stable")[:NAMED] if areas[c]]
    handles = [Patch(color=colours[c], label=str(classes[c])) for c in largest]
    if (truth == IGNORE).any():
        handles.append(Patch(color=colours[IGNORE], label="not counted"))
    return handles


def _accuracy(arrays: Arrays) -> str:
    correct = 0
    counted = 0
    for truth, predicted in _pairs(arrays):
        correct += int((predicted == truth)[truth != IGNORE].sum())
        counted += int((truth != IGNORE).sum())
    share = style.percent(correct / max(counted, 1))
    return f"{share} of the counted pixels are given their true class, of {len(arrays['classes'])}"


# --- depth


def _depth(arrays: Arrays) -> Figure:
    known = np.concatenate([truth[truth > 0] for truth, _ in _pairs(arrays)])
    scale = dict(cmap="magma_r", vmin=float(known.min()), vmax=float(known.max()))
    page = _page(arrays, ["Input", "Truth", "Predicted"], below=grids.BAR)
    for i, (axes, (truth, predicted)) in enumerate(zip(page.axes, _pairs(arrays))):
        rgb = arrays[f"{i}_rgb"]
        photos.photo(axes[0], rgb)
        axes[1].set_facecolor(style.PALE)  # where nothing is known
        photos.over(axes[1], np.ma.masked_equal(truth, 0), rgb.shape, **scale)
        image = photos.over(axes[2], predicted, rgb.shape, **scale)
    ticks = grids.ticks(scale["vmin"], scale["vmax"], 5)
    page.bar(image, 1, 2, "depth, in the unit of the data", ticks)
    return page.figure


def _errors(arrays: Arrays) -> str:
    errors = []
    for truth, predicted in _pairs(arrays):
        differences = (predicted.astype(float) - truth.astype(float))[truth > 0]
        errors.append(style.number(float(np.sqrt(np.mean(differences**2)))))
    return f"root mean squared error {style.listing(errors)}, in the unit of the data"


# --- discovery


def _discovery(arrays: Arrays) -> Figure:
    images = lost_images.images(arrays)
    others = _others(arrays)
    facet = lost_images.FACETS[images[0].facet]
    page = _page(arrays, ["True boxes", f"LOST ({facet})", *others.values()])
    for axes, image in zip(page.axes, images):
        photos.photo(axes[0], image.rgb)
        photos.boxes(axes[0], image.truths, "white")
        photos.photo(axes[1], photos.shaded(image.rgb, image.step("component"), image.patch))
        photos.boxes(axes[1], image.box(), style.CUTOFF)
        for ax, procedure in zip(axes[2:], others):
            photos.photo(ax, image.rgb)
            photos.boxes(ax, image.box(procedure), style.CUTOFF)
    return page.figure


def _others(arrays: Arrays) -> dict[str, str]:
    """The procedures beside LOST as published whose boxes were kept, with their titles."""
    return {key: title for key, title in PROCEDURES.items() if lost_arrays.has_box(arrays, key)}


def _overlaps(arrays: Arrays) -> str:
    images = lost_images.images(arrays)
    results = []
    for procedure, title in {None: "LOST as published", **_others(arrays)}.items():
        overlaps = [image.overlap(procedure) for image in images]
        localised = sum(overlap >= LOCALISED for overlap in overlaps)
        results.append(f"{title} {np.mean(overlaps):.2f} ({localised} of {len(images)} localised)")
    return (
        f"mean overlap (IoU) with the nearest true box {style.listing(results)}; an object counts "
        f"as localised from {LOCALISED}"
    )
