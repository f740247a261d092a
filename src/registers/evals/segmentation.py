"""Linear segmentation on frozen features (paper, section 3.2, Table 2a), by mean IoU.

Head: dinov2/eval/segmentation/models/decode_heads/linear_head.py (BNHead on normed last-layer
patches). Recipe: protocols of DINOv2's re-implementations, Denoising-ViT
evaluation/configs/vitb_ade20k_linear_config.py: AdamW (0.9, 0.999), poly of power 1, warm-up from
1e-6. Evaluation at the labels' full resolution, no flip (dinov2 issue 385, Franca issue 2:
shrinking the labels changes the number).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers.data.sample import Dataset, Sample
from registers.data.usable import UsableSamples
from registers.evals.dense import (
    FeatureMaps,
    feature_maps,
    normal_head,
    picture_arrays,
    set_rate,
    training_batches,
    warmup_factor,
)
from registers.evals.dense_transforms import resized, segmentation_example
from registers.intervals import bootstrap
from registers.measurements import Measured, Measurement
from registers.models.backbone import Backbone
from registers.readers.annotated import same_size
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.questions import SegmentationSettings
from registers.settings.run import Settings
from registers.vocabulary import IGNORE

WARMUP_RATIO = 1e-6


def measure(backbone: Backbone, data: list[EvaluationSet], settings: Settings) -> Measured:
    """`segment` each set; pictures are kept of the first."""
    results = [
        segment(backbone, images.train, images.val, settings.segmentation, data=images.name)
        for images in data
    ]
    return Measured([row for result in results for row in result.rows], results[0].arrays)


def segment(
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    settings: SegmentationSettings,
    *,
    data: str = "",
    seed: int = 0,
    progress: bool = True,
) -> Measured:
    """Train the head on `train` and count on `val`. Rows in 0..1, n = validation images.

    - "miou": 95 % interval by bootstrap over images; chance = the most frequent class everywhere.
    - "pixel_accuracy": the same.
    - "iou" of each class that occurs; variant = its name.

    Arrays: see `picture_arrays`, with "classes". Files that cannot be used are left out and counted
    in the notes. data: the name of the set in the rows.

    Raises ValueError: training and validation classes differ, or nothing can be used.
    """
    # --- classes and usable samples
    classes = mask_class_names(val)
    train_classes = mask_class_names(train)
    if classes != train_classes or len(classes) < 2:
        raise ValueError(
            f"classes: {len(train_classes)} in train, {len(classes)} in val; "
            "must be the same, at least 2"
        )

    def check(sample: Sample) -> None:
        _check_mask(sample, len(classes))

    training = UsableSamples(
        train, settings.train_images, ["mask"], check=check, what="training images"
    )
    bar = "segmentation" if progress else ""
    validation = UsableSamples(val, settings.val_images, ["mask"], bar, check)

    # --- train
    bar = "training segmentation" if progress else ""
    head = fit(backbone, training, len(classes), settings, seed, bar)

    # --- count; allocated up front: growing it per image fragments memory
    counts = np.zeros((3, validation.limit, len(classes)), np.int64)  # intersection, union, area
    pictures = []
    for sample in validation:
        predicted = _predicted_classes(backbone, head, sample, settings)
        area = np.bincount(sample.mask[sample.mask != IGNORE], minlength=len(classes))
        inter, union = intersections(predicted, sample.mask, len(classes))
        counts[:, validation.used - 1] = inter, union, area
        if len(pictures) < settings.pictures:
            pictures.append((sample, sample.mask, predicted))

    # --- rows
    how = "augmented crops" if settings.augment else "features computed once, no augmentation"
    note = f"linear head, {settings.iterations} iterations of {settings.batch}, {how}"
    note += training.note() + validation.note()
    rows = _rows(backbone.name, classes, *counts[:, : validation.used], data, note)
    return Measured(rows, picture_arrays(pictures, backbone.name, classes=classes, data=data))


def mask_class_names(dataset: Dataset) -> tuple[str, ...]:
    """Names of the values of Sample.mask: `mask_classes`, or else a background and the classes.

    The latter is the built-in world's.
    """
    return tuple(getattr(dataset, "mask_classes", None) or ("background", *dataset.classes))


def _check_mask(sample: Sample, classes: int) -> None:
    same_size(sample.mask, sample.image, sample.name)
    counted = sample.mask[sample.mask != IGNORE]
    if not counted.size:
        raise ValueError(f"{sample.name}: every pixel of its mask is ignored")
    if (top := counted.max()) >= classes:
        raise ValueError(
            f"{sample.name}: class id {top} is out of range; "
            f"must be 0 to {classes - 1}, or {IGNORE} for ignored"
        )


# --- the head


class LinearHead(nn.Module):
    """Scores of classes for each patch: (B, D, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width)
        self.conv = normal_head(width, classes)

    def forward(self, patches: Tensor) -> Tensor:
        return self.conv(self.bn(patches))


def fit(
    backbone: Backbone,
    samples: UsableSamples,
    classes: int,
    settings: SegmentationSettings,
    seed: int,
    progress: str = "",
) -> LinearHead:
    """The trained head, in evaluation mode. progress: the bar's title, "" for none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = LinearHead(backbone.architecture.width, classes).to(backbone.device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, betas=(0.9, 0.999), weight_decay=settings.weight_decay
    )

    def example(sample: Sample, rng: np.random.Generator | None) -> tuple[Tensor, np.ndarray]:
        return segmentation_example(
            sample.image, sample.mask, settings.size, settings.crop, backbone.normalised, rng
        )

    batches = training_batches(
        backbone, samples, example, settings, normed=True, seed=seed, progress=progress
    )
    for step, (maps, masks) in enumerate(batches):
        rate = settings.lr * (1 - step / settings.iterations)
        set_rate(optimizer, rate * warmup_factor(step, settings.warmup, WARMUP_RATIO))
        optimizer.zero_grad()
        loss(maps, head(maps.patches), masks).backward()
        optimizer.step()
    return head.eval()


def loss(maps: FeatureMaps, scores: Tensor, masks_BHW: Tensor) -> Tensor:
    """Cross entropy at the labels' resolution.

    Ignored pixels add 0 but count in the mean (mmseg's avg_non_ignore=False).
    """
    scores = maps.to_pixels(scores, masks_BHW.shape[1:])
    total = F.cross_entropy(scores, masks_BHW.long(), ignore_index=IGNORE, reduction="sum")
    return total / masks_BHW.numel()


# --- prediction


def windows(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one side: every `stride` pixels (mmseg's slide_inference).

    The last one is moved back to end at the border.
    """
    count = max(side - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride + crop, side) - crop, 0) for i in range(count)]


@torch.no_grad()
def predict(
    backbone: Backbone, head: LinearHead, image_13HW: Tensor, settings: SegmentationSettings
) -> Tensor:
    """(1, C, H, W) scores: the mean over sliding windows of `crop` pixels every `stride`."""
    height, width = image_13HW.shape[2:]
    classes = head.conv.out_channels
    total = image_13HW.new_zeros(1, classes, height, width)
    count = image_13HW.new_zeros(1, 1, height, width)
    for top in windows(height, settings.crop, settings.stride):
        for left in windows(width, settings.crop, settings.stride):
            down = slice(top, top + settings.crop)
            across = slice(left, left + settings.crop)
            part = image_13HW[:, :, down, across]
            maps = feature_maps(backbone, part, normed=True)
            total[:, :, down, across] += maps.to_pixels(head(maps.patches), part.shape[2:])
            count[:, :, down, across] += 1
    return total / count


def _predicted_classes(
    backbone: Backbone, head: LinearHead, sample: Sample, settings: SegmentationSettings
) -> np.ndarray:
    """(H, W) uint8 class ids at the mask's own resolution."""
    image = backbone.normalised(resized(sample.image, settings.size))
    scores = predict(backbone, head, image[None].to(backbone.device), settings)
    if scores.shape[2:] != sample.mask.shape:
        scores = F.interpolate(scores, sample.mask.shape, mode="bilinear", align_corners=False)
    return scores.argmax(1).squeeze(0).cpu().numpy().astype(np.uint8)


# --- metrics


def intersections(
    predicted: np.ndarray, mask: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(C,) pixels of intersection and of union by class, where the mask is not IGNORE.

    Raises ValueError for a class id out of range.
    """
    counted = mask != IGNORE
    truth = mask[counted].astype(np.int64)
    predicted = predicted[counted].astype(np.int64)
    if truth.max(initial=0) >= classes:
        raise ValueError(
            f"class id {truth.max()}: must be 0 to {classes - 1}, "
            f"or {IGNORE} for pixels that do not count"
        )
    inter = np.bincount(truth[truth == predicted], minlength=classes)
    areas = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    return inter, areas - inter


def mean_iou(inter: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Mean over classes of summed intersection over summed union, (..., C) -> (...).

    Classes that occur nowhere do not count (mmseg).
    """
    unknown = np.full(np.broadcast_shapes(np.shape(inter), np.shape(union)), np.nan)
    ratio = np.divide(inter, union, out=unknown, where=np.asarray(union) > 0)
    occurs = np.isfinite(ratio)
    return np.where(occurs, ratio, 0).sum(-1) / np.maximum(occurs.sum(-1), 1)


def _rows(
    name: str,
    classes: Sequence[str],
    inter: np.ndarray,
    union: np.ndarray,
    area: np.ndarray,
    data: str,
    note: str,
) -> list[Measurement]:
    """inter, union, area: (images, C) pixels."""
    n = len(inter)
    common = dict(question="segmentation", backbone=name, data=data, n=n, note=note)
    total = area.sum(0)
    most = float(total.max() / total.sum())  # share of the most frequent class

    def drawn_miou(weights: np.ndarray) -> np.ndarray:
        """Classes of which no drawn image has a pixel do not count in that draw.

        Otherwise rare classes would pull the interval below the value.
        """
        gone = (weights @ area == 0) & (total > 0)
        return mean_iou(weights @ inter, np.where(gone, 0, weights @ union))

    def drawn_accuracy(weights: np.ndarray) -> np.ndarray:
        return (weights @ inter.sum(1)) / (weights @ area.sum(1))

    # --- over all classes
    low, high = bootstrap(drawn_miou, n)
    miou = Measurement(
        metric="miou",
        value=float(mean_iou(inter.sum(0), union.sum(0))),
        low=low,
        high=high,
        # the IoU of the most frequent class, 0 for the others
        chance=float(total.max() / total.sum() / (total > 0).sum()),
        **common,
    )
    low, high = bootstrap(drawn_accuracy, n)
    right = float(inter.sum() / area.sum())
    accuracy = Measurement(
        metric="pixel_accuracy", value=right, low=low, high=high, chance=most, **common
    )

    # --- class by class
    rows = [miou, accuracy]
    for c in np.flatnonzero(union.sum(0)):
        iou = float(inter.sum(0)[c] / union.sum(0)[c])
        rows.append(Measurement(metric="iou", variant=classes[c], value=iou, **common))
    return rows
