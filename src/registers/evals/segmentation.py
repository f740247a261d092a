"""Linear segmentation on frozen features (paper, section 3.2, Table 2a): BatchNorm and a 1 x 1 convolution, mean IoU.

Head: dinov2/eval/segmentation/models/decode_heads/linear_head.py (BNHead on normed last-layer patches). Recipe: protocols of DINOv2's
re-implementations, Denoising-ViT evaluation/configs/vitb_ade20k_linear_config.py: AdamW (0.9, 0.999), poly of power 1, warm-up from 1e-6.
Evaluation at the labels' full resolution, no flip (dinov2 issue 385, Franca issue 2: shrinking the labels changes the number).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers.data.sample import Dataset, Sample
from registers.data.usable import UsableSamples
from registers.evals.dense import (
    Maps,
    feature_maps,
    normal_head,
    one_by_one,
    picture_arrays,
    resampled,
    set_rate,
    training_batches,
    warmed,
)
from registers.evals.dense_transforms import normalised, resized, segmentation_example
from registers.measurements import Measurement
from registers.models.backbone import Backbone
from registers.readers.annotated import IGNORE, same_size
from registers.settings.questions import SegmentationSettings

WARMUP_RATIO = 1e-6


class LinearHead(nn.Module):
    """Scores of classes for each patch: (B, D, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(width), normal_head(width, classes)

    def forward(self, patches: Tensor) -> Tensor:
        return self.conv(self.bn(patches))


def intersections(
    predicted: np.ndarray, mask: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(C,) pixels of intersection and of union by class, where mask is not IGNORE. Raises ValueError for a class id out of range."""
    counted = mask != IGNORE
    truth, predicted = mask[counted].astype(np.int64), predicted[counted].astype(np.int64)
    if truth.max(initial=0) >= classes:
        raise ValueError(
            f"class id {truth.max()}: allowed are 0 to {classes - 1}, and {IGNORE} for pixels that do not count"
        )
    inter = np.bincount(truth[truth == predicted], minlength=classes)
    return inter, np.bincount(truth, minlength=classes) + np.bincount(
        predicted, minlength=classes
    ) - inter


def mean_iou(inter: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Mean over classes of summed intersection over summed union, (..., C) -> (...); classes that occur nowhere do not count (mmseg)."""
    ratio = np.divide(
        inter,
        union,
        out=np.full(np.broadcast_shapes(np.shape(inter), np.shape(union)), np.nan),
        where=np.asarray(union) > 0,
    )
    seen = np.isfinite(ratio)
    return np.where(seen, ratio, 0).sum(-1) / np.maximum(seen.sum(-1), 1)


def windows(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one side: every `stride` pixels, the last one moved back to end at the border (mmseg slide_inference)."""
    count = max(side - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride + crop, side) - crop, 0) for i in range(count)]


@torch.no_grad()
def predict(
    backbone: Backbone, head: LinearHead, image_13HW: Tensor, settings: SegmentationSettings
) -> Tensor:
    """(1, C, H, W) scores: the mean over sliding windows of `crop` pixels every `stride`."""
    height, width = image_13HW.shape[2:]
    total = count = None
    for top in windows(height, settings.crop, settings.stride):
        for left in windows(width, settings.crop, settings.stride):
            part = image_13HW[:, :, top : top + settings.crop, left : left + settings.crop]
            maps = feature_maps(backbone, part, normed=True)
            scores = maps.to_pixels(head(maps.patches), part.shape[2:])
            if total is None:
                total, count = (
                    scores.new_zeros(1, scores.shape[1], height, width),
                    scores.new_zeros(1, 1, height, width),
                )
            total[:, :, top : top + settings.crop, left : left + settings.crop] += scores
            count[:, :, top : top + settings.crop, left : left + settings.crop] += 1
    return total / count


def loss(maps: Maps, scores: Tensor, masks_BHW: Tensor) -> Tensor:
    """Cross entropy at the labels' resolution; ignored pixels add 0 but count in the mean (mmseg's avg_non_ignore=False)."""
    scores = maps.to_pixels(scores, masks_BHW.shape[1:])
    return (
        F.cross_entropy(scores, masks_BHW.long(), ignore_index=IGNORE, reduction="sum")
        / masks_BHW.numel()
    )


def segment(
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    settings: SegmentationSettings,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    data: str = "",
    seed: int = 0,
    progress: bool = True,
) -> tuple[list[Measurement], dict[str, np.ndarray]]:
    """Train the head on `train`, count on `val`. Rows of question "segmentation", in 0..1, n = validation images:

    "miou", 95 % interval by bootstrap over images, chance = the most frequent class everywhere; "iou" of each class (token = its name)
    that occurs; "pixel_accuracy". Arrays: see `picture_arrays`, with "classes". Classes are `val.mask_classes` or, without, a background
    and val.classes (the embedded world). Files that cannot be used are left out and counted in the notes.
    Raises ValueError: training and validation classes differ, or nothing can be used.
    """
    names = classes_of(val)
    if names != classes_of(train) or len(names) < 2:
        raise ValueError(
            f"classes: {len(classes_of(train))} in train, {len(names)} in val; allowed are the same in both, at least 2"
        )
    backbone = backbone.to(device).eval()

    def check(sample: Sample) -> None:
        same_size(sample.mask, sample.image, sample.name)
        counted = sample.mask[sample.mask != IGNORE]
        if not counted.size:
            raise ValueError(f"{sample.name}: every pixel of its mask is ignored")
        if (top := counted.max()) >= len(names):
            raise ValueError(
                f"{sample.name}: class id {top} is out of range; allowed are 0 to {len(names) - 1}, {IGNORE} for ignored"
            )

    used = UsableSamples(train, settings.train_images, ["mask"], check=check, what="training images")
    head = fit(
        backbone,
        used,
        len(names),
        settings,
        mean,
        std,
        device,
        seed,
        "training segmentation" if progress else "",
    )
    stream = UsableSamples(val, settings.val_images, ["mask"], "segmentation" if progress else "", check)
    counts, kept = (
        np.zeros((3, stream.limit, len(names)), np.int64),
        [],
    )  # intersection, union, area; at once, so that the heap stays whole
    for sample, image in one_by_one(
        stream, device, lambda s: normalised(resized(s.image, settings.size), mean, std)
    ):
        scores = predict(backbone, head, image, settings)
        if scores.shape[2:] != sample.mask.shape:
            scores = F.interpolate(scores, sample.mask.shape, mode="bilinear", align_corners=False)
        predicted = scores.argmax(1).squeeze(0).cpu().numpy().astype(np.uint8)
        area = np.bincount(sample.mask[sample.mask != IGNORE], minlength=len(names))
        counts[:, stream.used - 1] = *intersections(predicted, sample.mask, len(names)), area
        if len(kept) < settings.pictures:
            kept.append((sample, sample.mask, predicted))
    rows = _rows(
        backbone.name, names, *counts[:, : stream.used], data or type(val).__name__.lower()
    )
    how = "augmented crops" if settings.augment else "features computed once, no augmentation"
    notes = f"linear head, {settings.iterations} iterations of {settings.batch}, {how}{used.note()}{stream.note()}"
    rows = [Measurement(**{**vars(row), "note": row.note or notes}) for row in rows]
    return rows, picture_arrays(kept, backbone.name, classes=names, data=rows[0].data)


def classes_of(dataset: Dataset) -> tuple[str, ...]:
    """Names of the values of Sample.mask."""
    return tuple(getattr(dataset, "mask_classes", None) or ("background", *dataset.classes))


def fit(
    backbone,
    stream: UsableSamples,
    classes: int,
    settings: SegmentationSettings,
    mean,
    std,
    device,
    seed: int,
    progress: str = "",
) -> LinearHead:
    """The trained head, in evaluation mode."""
    head = None

    def example(sample, rng):
        return segmentation_example(
            sample.image, sample.mask, settings.size, settings.crop, mean, std, rng
        )

    batches = training_batches(
        backbone,
        stream,
        example,
        settings,
        normed=True,
        device=device,
        seed=seed,
        progress=progress,
    )
    for step, (maps, masks) in enumerate(batches):
        if head is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = LinearHead(maps.patches.shape[1], classes).to(device)
            optimizer = torch.optim.AdamW(
                head.parameters(),
                lr=settings.lr,
                betas=(0.9, 0.999),
                weight_decay=settings.weight_decay,
            )
        set_rate(
            optimizer,
            settings.lr
            * (1 - step / settings.iterations)
            * warmed(step, settings.warmup, WARMUP_RATIO),
        )
        optimizer.zero_grad()
        loss(maps, head(maps.patches), masks).backward()
        optimizer.step()
    return head.eval()


def _rows(
    name: str,
    names: Sequence[str],
    inter: np.ndarray,
    union: np.ndarray,
    area: np.ndarray,
    data: str,
) -> list[Measurement]:
    """inter, union, area: (images, C)."""
    n, common = len(inter), dict(question="segmentation", backbone=name, data=data, n=len(inter))
    total = area.sum(0)
    chance = float(
        total.max() / total.sum() / (total > 0).sum()
    )  # the IoU of the most frequent class, 0 for the others

    def drawn(weights: np.ndarray) -> np.ndarray:
        """Classes of which no drawn image has a pixel do not count in that draw: else rare classes pull the interval below the value."""
        gone = (weights @ area == 0) & (total > 0)
        return mean_iou(weights @ inter, np.where(gone, 0, weights @ union))

    low, high = resampled(drawn, n)
    rows = [
        Measurement(
            metric="miou",
            value=float(mean_iou(inter.sum(0), union.sum(0))),
            low=low,
            high=high,
            chance=chance,
            **common,
        )
    ]
    right = float(inter.sum() / area.sum())
    low, high = resampled(lambda weights: (weights @ inter.sum(1)) / (weights @ area.sum(1)), n)
    rows.append(
        Measurement(
            metric="pixel_accuracy",
            value=right,
            low=low,
            high=high,
            chance=float(total.max() / total.sum()),
            **common,
        )
    )
    for c in np.flatnonzero(union.sum(0)):
        rows.append(
            Measurement(
                metric="iou",
                token=names[c],
                value=float(inter.sum(0)[c] / union.sum(0)[c]),
                **common,
            )
        )
    return rows
