"""Linear depth on frozen features (paper, section 3.2, Table 2a): 256 bins from patch tokens and [CLS], RMSE by both definitions.

Head: dinov2/hub/depthers.py and dinov2/eval/depth/models/decode_heads ("lin.1": last layer, before the final norm, no BatchNorm).
Departure: bins end at the data's max_depth; the hub's linear heads end at 80 m for NYUd as well, as its range is never passed on.
Losses: dinov2/eval/depth/models/losses. Recipe: DINOv2's NYUd config: AdamW, warm-up from 1e-3, cosine to 1e-8, OneCycle momentum, gradient
clip 35; test: mean with the mirrored image, Eigen's crop.
"""

import itertools
import math
from collections import Counter
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
    one_by_one,
    picture_arrays,
    resampled,
    set_rate,
    training_batches,
    warmed,
)
from registers.evals.dense_transforms import (
    NYU_CROP,
    depth_example,
    normalised,
    resized,
    resized_truth,
)
from registers.measurements import Measurement
from registers.models.backbone import Backbone
from registers.readers.annotated import same_size
from registers.settings.questions import DepthSettings

SHAPE_IMAGES = 8  # the first images, the commonest size of which is what the head is trained on
BINS = 256  # decode_head.py: n_bins
MIN_DEPTH = 1e-3  # decode_head.py: min_depth
UPSAMPLE = 4  # depthers.py: upsample=4
SHARE_EPS = 0.1  # decode_head.py: added to every bin before they are normalised
LOG_EPS = 1e-3  # sigloss.py, gradientloss.py
MEAN_WEIGHT = 0.15  # sigloss.py: weight of the squared mean
GRADIENT_WEIGHT = 0.5  # DINOv2's depth configs: GradientLoss, loss_weight 0.5
WARMUP_RATIO, LAST_RATE, CLIP = 1e-3, 1e-8, 35.0
BETA, BETA_LOW, RISE = (
    0.95,
    0.85,
    0.3,
)  # mmcv OneCycleMomentumUpdater's defaults: beta1 falls to 0.85 over 30 % of training, and back
EIGEN = (
    slice(45, 471),
    slice(41, 601),
)  # rows, columns of 480 x 640 (Eigen et al. 2014, as in BTS and DINOv2)


class DepthHead(nn.Module):
    """Depth from the last layer's patches and [CLS]: relu(1 x 1 convolution) + 0.1, normalised, is the share of each bin."""

    def __init__(self, width: int, max_depth: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * width, BINS, 1)
        self.register_buffer("bins", torch.linspace(MIN_DEPTH, max_depth, BINS))

    def forward(self, maps: Maps) -> Tensor:
        """(B, 1, 4h, 4w). The convolution comes before the upsampling: both are linear and bilinear weights sum to 1."""
        to_patches, to_cls = self.conv.weight.split(self.conv.in_channels // 2, dim=1)
        scores = F.conv2d(maps.patches, to_patches, self.conv.bias) + F.conv2d(
            maps.cls[..., None, None], to_cls
        )
        scores = F.interpolate(
            scores, scale_factor=UPSAMPLE, mode="bilinear", align_corners=False
        ).relu_()
        sums = F.conv2d(
            scores, torch.stack([self.bins, torch.ones_like(self.bins)])[..., None, None]
        )  # over bins: of depth, of shares
        depth, share = (
            sums
            + SHARE_EPS * torch.stack([self.bins.sum(), self.bins.new_tensor(BINS)])[:, None, None]
        ).split(1, dim=1)
        return depth / share


def sig_loss(predicted: Tensor, depth: Tensor, max_depth: float, mean_only: bool = False) -> Tensor:
    """Scale-invariant loss over known pixels: sqrt(var(g) + 0.15 mean(g)^2), g the difference of logarithms. mean_only: its warm-up.

    Fewer than two known pixels, which have no variance, give 0.
    """
    known = (depth > 0) & (depth <= max_depth)
    if known.sum() < 2:
        return 0 * predicted.sum()
    g = torch.log(predicted[known] + LOG_EPS) - torch.log(depth[known] + LOG_EPS)
    mean = MEAN_WEIGHT * g.mean() ** 2
    return torch.sqrt(mean if mean_only else g.var() + mean)


def gradient_loss(predicted: Tensor, depth: Tensor, max_depth: float) -> Tensor:
    """Multi-scale gradients of the difference of logarithms: strides 1, 2, 4, 6, between pixels two apart (gradientloss.py).

    Departure: rows and columns are what it runs over, as meant (MegaDepth, Li and Snavely 2018). By reading, the release slices the
    first two dimensions of (B, 1, H, W), so that with two images on a device its sum is empty and the loss 0.
    """
    total = predicted.new_zeros(())
    for stride in (1, 2, 4, 6):
        p, d = predicted[..., ::stride, ::stride], depth[..., ::stride, ::stride]
        known = (d > 0) & (d <= max_depth)
        g = (torch.log(p + LOG_EPS) - torch.log(d + LOG_EPS)) * known
        down = (g[..., :-2, :] - g[..., 2:, :]).abs() * (known[..., :-2, :] & known[..., 2:, :])
        across = (g[..., :, :-2] - g[..., :, 2:]).abs() * (known[..., :, :-2] & known[..., :, 2:])
        total = total + (down.sum() + across.sum()) / known.sum().clamp(min=1)
    return total


def errors(
    predicted: np.ndarray, depth: np.ndarray, max_depth: float, crop: str = "none"
) -> tuple[float, int]:
    """(sum of squared errors, number of pixels) over known depths from MIN_DEPTH to max_depth, in Eigen's crop where asked.

    Raises ValueError for Eigen's crop of an image that has not 480 x 640 pixels.
    """
    known = (depth > MIN_DEPTH) & (depth < max_depth)
    if crop == "eigen":
        if depth.shape != (480, 640):
            raise ValueError(
                f"depth of {depth.shape[1]} x {depth.shape[0]} pixels: allowed with depth.crop eigen are 640 x 480"
            )
        inside = np.zeros_like(known)
        inside[EIGEN] = True
        known &= inside
    return float(((predicted[known].astype(np.float64) - depth[known]) ** 2).sum()), int(
        known.sum()
    )


@torch.no_grad()
def predict(backbone: Backbone, head: DepthHead, image_13HW: Tensor) -> Tensor:
    """(1, 1, H, W): mean of the prediction and that of the mirrored image, turned back."""
    shape = image_13HW.shape[2:]
    both = feature_maps(backbone, torch.cat([image_13HW, image_13HW.flip(3)]), normed=False)
    plain, mirrored = both.to_pixels(head(both), shape).split(1)
    return (plain + mirrored.flip(3)) / 2


def estimate_depth(
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    settings: DepthSettings,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    data: str = "",
    seed: int = 0,
    progress: bool = True,
) -> tuple[list[Measurement], dict[str, np.ndarray]]:
    """Train the head on `train`, measure on `val`. Rows of question "depth", in the data's unit (metres for NYUd), n = validation images:

    "rmse": root of the mean squared error over all pixels together; "rmse_mean_image": mean of each image's root (both are in use,
    dinov2 issue 484). Intervals by bootstrap over images; chance = the training images' mean depth everywhere. Arrays: see
    `picture_arrays`. Files that cannot be used, or have no known depth, are left out and counted in the notes.
    """
    backbone = backbone.to(device).eval()

    def check(sample: Sample, crop: str = "none") -> None:
        same_size(sample.depth, sample.image, sample.name)
        try:
            known = errors(sample.depth, sample.depth, settings.max_depth, crop)[1]
        except ValueError as error:
            raise ValueError(f"{sample.name}: {error}") from None
        if not known:
            where = " inside the crop" if crop != "none" else ""
            raise ValueError(
                f"{sample.name}: no depth between {MIN_DEPTH:g} and {settings.max_depth:g}{where}"
            )

    used = UsableSamples(train, settings.train_images, ["depth"], check=check, what="training images")
    head, constant = fit(
        backbone, used, settings, mean, std, device, seed, "training depth" if progress else ""
    )
    stream = UsableSamples(
        val,
        settings.val_images,
        ["depth"],
        "depth" if progress else "",
        lambda sample: check(sample, settings.crop),
    )
    sums, guesses, kept = [], [], []
    for sample, image in one_by_one(
        stream, device, lambda s: normalised(resized(s.image, settings.size), mean, std)
    ):
        predicted = predict(backbone, head, image)
        if predicted.shape[2:] != sample.depth.shape:
            predicted = F.interpolate(
                predicted, sample.depth.shape, mode="bilinear", align_corners=False
            )
        predicted = predicted.squeeze((0, 1)).cpu().numpy()
        sums.append(errors(predicted, sample.depth, settings.max_depth, settings.crop))
        guesses.append(
            errors(
                np.full_like(sample.depth, constant),
                sample.depth,
                settings.max_depth,
                settings.crop,
            )
        )
        if len(kept) < settings.pictures:
            kept.append((sample, sample.depth, predicted))
    how = "augmented crops" if settings.augment else "features computed once, no augmentation"
    note = f"linear head, {settings.iterations} iterations of {settings.batch}, {how}{used.note()}{stream.note()}"
    rows = _rows(
        backbone.name, np.array(sums), np.array(guesses), data or type(val).__name__.lower(), note
    )
    return rows, picture_arrays(kept, backbone.name, data=rows[0].data)


def fit(
    backbone,
    stream: UsableSamples,
    settings: DepthSettings,
    mean,
    std,
    device,
    seed: int,
    progress: str = "",
) -> tuple[DepthHead, float]:
    """The trained head, and the mean depth of what it was trained on."""
    first = itertools.islice(
        UsableSamples(stream.dataset, stream.limit, stream.needs, check=stream.check, what=stream.what),
        SHAPE_IMAGES,
    )
    size = Counter(resized(sample.image, settings.size).size for sample in first).most_common(1)[0][
        0
    ]
    shape = (
        tuple(min(pair) for pair in zip(NYU_CROP, size[::-1])) if settings.augment else size[::-1]
    )

    def example(sample: Sample, rng):
        image = resized(sample.image, settings.size)
        return depth_example(image, resized_truth(sample.depth, image.size), shape, mean, std, rng)

    head, total, count = None, 0.0, 0
    batches = training_batches(
        backbone,
        stream,
        example,
        settings,
        normed=False,
        device=device,
        seed=seed,
        progress=progress,
    )
    for step, (maps, depth) in enumerate(batches):
        if head is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = DepthHead(maps.patches.shape[1], settings.max_depth).to(device)
            optimizer = torch.optim.AdamW(
                head.parameters(),
                lr=settings.lr,
                betas=(BETA, 0.999),
                weight_decay=settings.weight_decay,
            )
        schedule(optimizer, step, settings)
        predicted = maps.to_pixels(head(maps), depth.shape[1:])
        depth = depth[:, None]
        known = (depth > MIN_DEPTH) & (depth < settings.max_depth)
        total, count = total + float(depth[known].sum()), count + int(known.sum())
        loss = sig_loss(predicted, depth, settings.max_depth, step < settings.log_mean_only)
        loss = loss + GRADIENT_WEIGHT * gradient_loss(predicted, depth, settings.max_depth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), CLIP)
        optimizer.step()
    return head.eval(), total / max(count, 1)


def schedule(optimizer: torch.optim.Optimizer, step: int, settings: DepthSettings) -> None:
    """Cosine to LAST_RATE with linear warm-up; beta1 from 0.95 to 0.85 and back, half cosines."""
    done = step / settings.iterations
    rate = LAST_RATE + (settings.lr - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
    set_rate(optimizer, rate * warmed(step, settings.warmup, WARMUP_RATIO))
    part = done / RISE if done < RISE else 1 - (done - RISE) / (1 - RISE)
    for group in optimizer.param_groups:
        group["betas"] = (BETA - (BETA - BETA_LOW) * (1 - math.cos(math.pi * part)) / 2, 0.999)


def _rows(
    name: str, sums: np.ndarray, guesses: np.ndarray, data: str, note: str
) -> list[Measurement]:
    """sums, guesses: (images, 2), squared error and pixels, of the head and of the constant."""
    common = dict(question="depth", backbone=name, data=data, n=len(sums), note=note)

    def pooled(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        squared, pixels = (weights @ x).T
        return np.sqrt(squared / pixels)

    def by_image(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        return weights @ np.sqrt(x[:, 0] / x[:, 1]) / weights.sum(-1)

    rows = []
    for metric, statistic in (("rmse", pooled), ("rmse_mean_image", by_image)):
        low, high = resampled(lambda weights, s=statistic: s(weights, sums), len(sums))
        value, chance = (float(statistic(np.ones((1, len(sums))), x)[0]) for x in (sums, guesses))
        rows.append(
            Measurement(metric=metric, value=value, low=low, high=high, chance=chance, **common)
        )
    return rows
