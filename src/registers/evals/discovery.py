"""Unsupervised object discovery: CorLoc of LOST on facets of attention (paper, section 3.3).

Table 3, Figs. 13 and 14. The paper's bias on the Gram matrix is printed nowhere, so facet, layer,
normalisation and bias are settings: rows give LOST as published ("untuned") and with what does best
on a declared other split ("tuned").
"""

import itertools
from collections.abc import Sequence

import numpy as np

from registers import lost_arrays
from registers.data.sample import Dataset
from registers.data.usable import UsableSamples
from registers.evals.boxes import dino_seg
from registers.evals.lost import Lost, lost, to_pixels
from registers.evals.lost_search import (
    Choice,
    Counts,
    FeatureBatch,
    ShortSide,
    Tuning,
    count,
    feature_batches,
    published,
    tune,
)
from registers.evals.map_statistics import roughness
from registers.intervals import wilson
from registers.measurements import Measured, Measurement
from registers.models.backbone import Backbone
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.questions import DiscoverySettings
from registers.settings.run import Settings

BASELINE_METRICS = ("corloc_dino_seg", "corloc_largest_box")  # in the order of Counts.baselines


def measure(backbone: Backbone, data: list[EvaluationSet], settings: Settings) -> Measured:
    """`discover` in each set (Table 3 has three); the steps are kept of the first."""
    results = [
        discover(backbone, images.val, settings.discovery, tune_on=images.train, data=images.name)
        for images in data
    ]
    return Measured([row for result in results for row in result.rows], results[0].arrays)


def discover(
    backbone: Backbone,
    dataset: Dataset,
    settings: DiscoverySettings,
    *,
    tune_on: Dataset | None = None,
    data: str = "",
    progress: bool = True,
) -> Measured:
    """CorLoc of LOST, untuned and tuned, and of two baselines. Rows in 0..1, n = images.

    - "corloc": LOST as published.
    - "corloc_tuned": with the best of `choices` on tune_on; absent without it.
    - "corloc_choice": each choice there, its data marked as tuning.
    - "score_roughness", "expansion_roughness": of the pictures' maps, see `step_rows`.
    - "corloc_dino_seg", "corloc_largest_box": from the attention of the best head on tune_on, or,
      without, on these images.

    Of LOST: variant = facet, layer = 1..L, at = bias, note = the rest; of the baselines: at = head.
    Intervals are Wilson's; chance = the box of the whole image. Arrays: see `lost_arrays`, of the
    first `settings.pictures` images with the published setting. Images without a true box, or whose
    file cannot be used, are left out and counted in the notes.

    tune_on: a declared other split; None: nothing is tuned. data: the name of the set in the rows.
    """
    origin = "" if tune_on is None else origin_of(tune_on)
    patch = backbone.architecture.patch
    dataset = ShortSide(dataset, settings.size, patch)
    tune_on = None if tune_on is None else ShortSide(tune_on, settings.size, patch)

    # --- tune and count
    tuning = None if tune_on is None else tune(backbone, tune_on, settings, progress)
    compared = [published(backbone)]
    if tuning:
        compared.append(tuning.best)
    bar = "LOST" if progress else ""
    counts = count(backbone, dataset, settings.images, compared, settings, bar)
    heads = (tuning.counts if tuning else counts).best_heads()

    # --- rows
    where = "these images, as published"
    if tuning:
        where = f"{len(tuning.counts.lost)} images of {origin}"
    rows = _lost_rows(backbone, data, compared, counts, tuning, where)
    rows += _baseline_rows(backbone, data, heads, counts, where)
    if tuning:
        rows += _choice_rows(backbone, data, tuning)

    # --- pictures
    if not settings.pictures:
        return Measured(rows, {})
    arrays = picture_arrays(backbone, dataset, settings, compared, heads[0])
    rows += step_rows(arrays, data)
    return Measured(rows, arrays | {"data": np.array(data)})


def origin_of(dataset: Dataset) -> str:
    """A data set in a row's words, its folder and its split: "VOC2007 trainval"."""
    root = getattr(getattr(dataset, "whole", dataset), "root", None)
    name = root.name if root else type(dataset).__name__.lower()
    return f"{name} {getattr(dataset, 'split', '')}".strip()


# --- rows


def _lost_rows(
    backbone: Backbone,
    data: str,
    compared: Sequence[Choice],
    counts: Counts,
    tuning: Tuning | None,
    where: str,
) -> list[Measurement]:
    """LOST as published and, where something was tuned, tuned."""
    notes = {"corloc": "untuned: "}
    if tuning:
        notes["corloc_tuned"] = f"tuned on {where}, best of {len(tuning.candidates)}: "
    return [
        _lost_row(backbone, data, metric, choice, counts, place, note)
        for place, (choice, (metric, note)) in enumerate(zip(compared, notes.items()))
    ]


def _choice_rows(backbone: Backbone, data: str, tuning: Tuning) -> list[Measurement]:
    """Every choice that was tried, on the tuning split."""
    note = "on the tuning split: "
    return [
        _lost_row(backbone, f"{data} (tuning)", "corloc_choice", choice, tuning.counts, place, note)
        for place, choice in enumerate(tuning.candidates)
    ]


def _baseline_rows(
    backbone: Backbone, data: str, heads: Sequence[int], counts: Counts, where: str
) -> list[Measurement]:
    """DINO-seg and the largest box, each with its best head."""
    rows = []
    for place, (metric, head) in enumerate(zip(BASELINE_METRICS, heads)):
        note = f"head {head} of {counts.baselines.shape[1]}, chosen on {where}{counts.left_out}"
        row = _row(
            backbone,
            data,
            metric,
            counts.baselines[:, head, place],
            counts,
            token="cls",
            layer=len(backbone.vit.blocks),
            coordinate="head",
            at=head,
            note=note,
        )
        rows.append(row)
    return rows


def _lost_row(
    backbone: Backbone,
    data: str,
    metric: str,
    choice: Choice,
    counts: Counts,
    place: int,
    note: str,
) -> Measurement:
    fallbacks = int(counts.fallbacks[:, place].sum())
    note += str(choice)
    if fallbacks:
        note += f"; the seed alone in {fallbacks} images"
    return _row(
        backbone,
        data,
        metric,
        counts.lost[:, place],
        counts,
        variant=choice.facet,
        layer=len(backbone.vit.blocks) + 1 + choice.layer,
        coordinate="bias",
        at=choice.bias,
        note=note + counts.left_out,
    )


def _row(
    backbone: Backbone, data: str, metric: str, hits: np.ndarray, counts: Counts, **more
) -> Measurement:
    """hits: (images,), whether an object was found."""
    n = len(hits)
    right = int(hits.sum())
    low, high = wilson(right, n)
    return Measurement(
        question="discovery",
        metric=metric,
        backbone=backbone.name,
        value=right / n,
        data=data,
        low=low,
        high=high,
        n=n,
        chance=float(np.mean(counts.whole)),
        **more,
    )


def step_rows(arrays: lost_arrays.Arrays, data: str) -> list[Measurement]:
    """How rough LOST's maps are, image by image: see `map_statistics.roughness`.

    "score_roughness" and "expansion_roughness"; variant = the facet, and "published" for the one
    that the published setting uses. Constant maps have no answer and are left out.
    """
    published_facet = lost_arrays.published_facet(arrays)
    variants = {facet: facet for facet in lost_arrays.FACETS} | {"published": published_facet}
    rows = []
    for metric, name in (("score_roughness", "score"), ("expansion_roughness", "expansion")):
        for variant, facet in variants.items():
            for image in range(len(arrays["names"])):
                one = np.asarray(lost_arrays.step(arrays, image, name, facet), dtype=np.float64)
                if one.std() == 0:
                    continue
                row = Measurement(
                    question="discovery",
                    metric=metric,
                    backbone=str(arrays["backbone"]),
                    value=float(roughness(one[None])[0]),
                    data=data,
                    variant=variant,
                    coordinate="image",
                    at=image,
                    n=one.size,
                )
                rows.append(row)
    return rows


# --- steps for figures


def picture_arrays(
    backbone: Backbone,
    dataset: Dataset,
    settings: DiscoverySettings,
    compared: Sequence[Choice],
    head: int,
) -> dict[str, np.ndarray]:
    """The arrays of `lost_arrays` for the first usable images.

    compared: the published choice and, perhaps, the tuned one. head: DINO-seg's.
    """
    arrays: dict[str, np.ndarray] = {
        "backbone": np.array(backbone.name),
        "facets": np.array(lost_arrays.FACETS),
        "facet": np.array(compared[0].facet),
        "patch": np.array(backbone.architecture.patch),
    }
    names: dict[int, str] = {}
    layers = {choice.layer for choice in compared}
    samples = UsableSamples(dataset, settings.images, ["boxes"])
    first = itertools.islice(samples, settings.pictures)
    for batch in feature_batches(backbone, first, settings.batch, layers):
        arrays |= _photo_arrays(batch)
        arrays |= _step_arrays(backbone, batch, compared[0], settings.k)
        arrays |= _other_boxes(backbone, batch, compared[1:], head, settings.k)
        names |= {n: sample.name for n, sample in zip(batch.numbers, batch.samples)}
    return arrays | {"names": np.array([names[number] for number in sorted(names)])}


def _photo_arrays(batch: FeatureBatch) -> dict[str, np.ndarray]:
    arrays = {}
    for number, sample in zip(batch.numbers, batch.samples):
        arrays |= lost_arrays.photo_entries(number, np.asarray(sample.image), sample.boxes)
    return arrays


def _step_arrays(
    backbone: Backbone, batch: FeatureBatch, choice: Choice, k: int
) -> dict[str, np.ndarray]:
    """LOST on each facet, all else as the choice says."""
    arrays = {}
    for facet in lost_arrays.FACETS:
        features = batch.facets[facet, choice.layer]
        steps = lost(features, batch.grid, k, choice.bias, choice.normalisation)
        boxes = steps.pixels(backbone.architecture.patch, batch.sizes)
        for place, number in enumerate(batch.numbers):
            one = steps[place]
            seed = divmod(int(one.seed), batch.grid[1])
            maps = _maps(one, batch.grid)
            arrays |= lost_arrays.step_entries(number, facet, maps, seed, boxes[place])
    return arrays


def _maps(steps: Lost, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """One image's steps as maps (h, w)."""
    return {name: getattr(steps, name).reshape(grid) for name in lost_arrays.STEPS}


def _other_boxes(
    backbone: Backbone, batch: FeatureBatch, tuned: Sequence[Choice], head: int, k: int
) -> dict[str, np.ndarray]:
    """Boxes of DINO-seg and of LOST as tuned, if it was."""
    patch = backbone.architecture.patch
    seg = dino_seg(batch.attention.select(1, head), batch.grid)
    boxes = {lost_arrays.DINO_SEG: to_pixels(seg, patch, batch.sizes)}
    for choice in tuned:
        features = batch.facets[choice.facet, choice.layer]
        steps = lost(features, batch.grid, k, choice.bias, choice.normalisation)
        boxes[lost_arrays.TUNED] = steps.pixels(patch, batch.sizes)
    arrays = {}
    for procedure, boxes_B4 in boxes.items():
        for number, box in zip(batch.numbers, boxes_B4):
            arrays |= lost_arrays.box_entry(number, procedure, box)
    return arrays
