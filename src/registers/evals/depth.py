"""Linear depth on frozen features (paper, section 3.2, Table 2a): 256 bins, RMSE both ways.

Head: dinov2/hub/depthers.py and dinov2/eval/depth/models/decode_heads ("lin.1": patch tokens and
[CLS] of the last layer, before the final norm, no BatchNorm). Departure: bins end at the data's
max_depth; the hub's linear heads end at 80 m for NYUd as well, as its range is never passed on.
Losses: dinov2/eval/depth/models/losses. Recipe: DINOv2's NYUd config: AdamW, warm-up from 1e-3,
cosine to 1e-8, OneCycle momentum, gradient clip 35; test: mean with the mirrored image, Eigen's
crop.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers.data.sample import Dataset, Sample
from registers.data.usable import UsableSamples
from registers.evals.dense import (
    FeatureMaps,
    feature_maps,
    picture_arrays,
    set_rate,
    training_batches,
    warmup_factor,
)
from registers.evals.dense_transforms import NYU_CROP, depth_example, resized, resized_truth
from registers.intervals import bootstrap
from registers.measurements import Measured, Measurement
from registers.models.backbone import Backbone
from registers.readers.annotated import same_size
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.questions import DepthSettings
from registers.settings.run import Settings

SHAPE_IMAGES = 8  # the first images, the commonest size of which the head is trained on
BINS = 256  # decode_head.py: n_bins
MIN_DEPTH = 1e-3  # decode_head.py: min_depth
UPSAMPLE = 4  # depthers.py: upsample=4
SHARE_EPS = 0.1  # decode_head.py: added to every bin before they are normalised
LOG_EPS = 1e-3  # sigloss.py, gradientloss.py
MEAN_WEIGHT = 0.15  # sigloss.py: weight of the squared mean
GRADIENT_WEIGHT = 0.5  # DINOv2's depth configs: GradientLoss, loss_weight 0.5
WARMUP_RATIO = 1e-3
LAST_RATE = 1e-8
CLIP = 35.0
# mmcv OneCycleMomentumUpdater's defaults: beta1 falls to 0.85 over 30 % of training, and back
BETA = 0.95
BETA_LOW = 0.85
RISE = 0.3
# rows, columns of 480 x 640 (Eigen et al. 2014, as in BTS and DINOv2)
EIGEN_SHAPE = (480, 640)
EIGEN = (slice(45, 471), slice(41, 601))


def measure(backbone: Backbone, data: list[EvaluationSet], settings: Settings) -> Measured:
    """`estimate_depth` on each set; pictures are kept of the first."""
    results = [
        estimate_depth(backbone, images.train, images.val, settings.depth, data=images.name)
        for images in data
    ]
    return Measured([row for result in results for row in result.rows], results[0].arrays)


def estimate_depth(
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    settings: DepthSettings,
    *,
    data: str = "",
    seed: int = 0,
    progress: bool = True,
) -> Measured:
    """Train the head on `train` and measure on `val`. Rows in the data's unit, n = images.

    - "rmse": root of the mean squared error over all pixels together.
    - "rmse_mean_image": mean of each image's root (both are in use, dinov2 issue 484).

    95 % intervals by bootstrap over images; chance = the training images' mean depth everywhere.
    Arrays: see `picture_arrays`. Files that cannot be used, or have no known depth, are left out
    and counted in the notes. data: the name of the set in the rows. Raises ValueError where nothing
    can be used.
    """
    # --- train
    training = UsableSamples(
        train, settings.train_images, ["depth"], check=_checker(settings), what="training images"
    )
    bar = "training depth" if progress else ""
    head, constant = fit(backbone, training, settings, seed, bar)

    # --- measure
    check = _checker(settings, settings.crop)
    bar = "depth" if progress else ""
    validation = UsableSamples(val, settings.val_images, ["depth"], bar, check)
    head_errors = []
    constant_errors = []
    pictures = []
    for sample in validation:
        predicted = _predicted_depth(backbone, head, sample, settings)
        guess = np.full_like(sample.depth, constant)
        limits = (settings.max_depth, settings.crop)
        head_errors.append(errors(predicted, sample.depth, *limits))
        constant_errors.append(errors(guess, sample.depth, *limits))
        if len(pictures) < settings.pictures:
            pictures.append((sample, sample.depth, predicted))

    # --- rows
    how = "augmented crops" if settings.augment else "features computed once, no augmentation"
    note = f"linear head, {settings.iterations} iterations of {settings.batch}, {how}"
    note += training.note() + validation.note()
    rows = _rows(backbone.name, np.array(head_errors), np.array(constant_errors), data, note)
    return Measured(rows, picture_arrays(pictures, backbone.name, data=data))


def _checker(settings: DepthSettings, crop: str = "none") -> Callable[[Sample], None]:
    """What tells an unusable sample: another shape than its image's, or no known depth in range."""

    def check(sample: Sample) -> None:
        same_size(sample.depth, sample.image, sample.name)
        try:
            _, known = errors(sample.depth, sample.depth, settings.max_depth, crop)
        except ValueError as error:
            raise ValueError(f"{sample.name}: {error}") from None
        if not known:
            where = " inside the crop" if crop != "none" else ""
            raise ValueError(
                f"{sample.name}: no depth between {MIN_DEPTH:g} and {settings.max_depth:g}{where}"
            )

    return check


# --- the head


class DepthHead(nn.Module):
    """Depth from the last layer's patches and [CLS], as the expectation over bins.

    relu(1 x 1 convolution) + 0.1, normalised, is the share of each bin.
    """

    def __init__(self, width: int, max_depth: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * width, BINS, 1)
        self.register_buffer("bins", torch.linspace(MIN_DEPTH, max_depth, BINS))

    def forward(self, maps: FeatureMaps) -> Tensor:
        """(B, 1, 4h, 4w).

        The convolution comes before the upsampling: both are linear, and bilinear weights sum to 1.
        """
        # --- scores of bins, (B, BINS, 4h, 4w)
        to_patches, to_cls = self.conv.weight.split(self.conv.in_channels // 2, dim=1)
        of_patches = F.conv2d(maps.patches, to_patches, self.conv.bias)
        scores = of_patches + F.conv2d(maps.cls[..., None, None], to_cls)
        scores = F.interpolate(scores, scale_factor=UPSAMPLE, mode="bilinear", align_corners=False)

        # --- sums over bins: of depth and of shares, SHARE_EPS being added to every share
        weights = torch.stack([self.bins, torch.ones_like(self.bins)])[..., None, None]
        sums = F.conv2d(scores.relu_(), weights)
        of_eps = torch.stack([self.bins.sum(), self.bins.new_tensor(BINS)])[:, None, None]
        depth, share = (sums + SHARE_EPS * of_eps).split(1, dim=1)
        return depth / share


def fit(
    backbone: Backbone,
    samples: UsableSamples,
    settings: DepthSettings,
    seed: int,
    progress: str = "",
) -> tuple[DepthHead, float]:
    """The trained head, and the mean depth of what it was trained on.

    progress: the bar's title, "" for none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = DepthHead(backbone.architecture.width, settings.max_depth).to(backbone.device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, betas=(BETA, 0.999), weight_decay=settings.weight_decay
    )
    shape = _training_shape(samples, settings)

    def example(sample: Sample, rng: np.random.Generator | None) -> tuple[Tensor, np.ndarray]:
        image = resized(sample.image, settings.size)
        depth = resized_truth(sample.depth, image.size)
        return depth_example(image, depth, shape, backbone.normalised, rng)

    batches = training_batches(
        backbone, samples, example, settings, normed=False, seed=seed, progress=progress
    )

    # --- train; the constant to compare with is the mean of the depths on the way
    total = 0.0  # of known depths
    count = 0
    for step, (maps, depth) in enumerate(batches):
        schedule(optimizer, step, settings)
        predicted = maps.to_pixels(head(maps), depth.shape[1:])
        depth = depth[:, None]
        known = (depth > MIN_DEPTH) & (depth < settings.max_depth)
        total += float(depth[known].sum())
        count += int(known.sum())
        loss = sig_loss(predicted, depth, settings.max_depth, step < settings.log_mean_only)
        loss = loss + GRADIENT_WEIGHT * gradient_loss(predicted, depth, settings.max_depth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), CLIP)
        optimizer.step()
    return head.eval(), total / max(count, 1)


def _training_shape(samples: UsableSamples, settings: DepthSettings) -> tuple[int, int]:
    """Height and width trained on: the commonest of the first images, or with augment its crop."""
    usable = filter(None, map(samples.get, range(samples.limit)))
    first = itertools.islice(usable, SHAPE_IMAGES)
    sizes = Counter(resized(sample.image, settings.size).size for sample in first)
    if not sizes:
        raise samples.nothing()
    ((width, height), _) = sizes.most_common(1)[0]
    if not settings.augment:
        return height, width
    return min(NYU_CROP[0], height), min(NYU_CROP[1], width)


def schedule(optimizer: torch.optim.Optimizer, step: int, settings: DepthSettings) -> None:
    """Cosine to LAST_RATE with linear warm-up; beta1 from 0.95 to 0.85 and back, half cosines.

    Not `models.schedules.cosine`: mmcv's warm-up is a factor on a cosine that runs from the first
    step, not the start of one that begins after it; and its cosine is of step / steps, which rounds
    otherwise.
    """
    done = step / settings.iterations
    rate = LAST_RATE + (settings.lr - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
    set_rate(optimizer, rate * warmup_factor(step, settings.warmup, WARMUP_RATIO))
    part = done / RISE if done < RISE else 1 - (done - RISE) / (1 - RISE)
    beta = BETA - (BETA - BETA_LOW) * (1 - math.cos(math.pi * part)) / 2
    for group in optimizer.param_groups:
        group["betas"] = (beta, 0.999)


def sig_loss(predicted: Tensor, depth: Tensor, max_depth: float, mean_only: bool = False) -> Tensor:
    """Scale-invariant loss over known pixels: sqrt(var(g) + 0.15 mean(g)^2).

    g: the difference of logarithms. mean_only: the mean's term alone, its warm-up. Fewer than two
    known pixels, which have no variance, give 0.
    """
    known = (depth > 0) & (depth <= max_depth)
    if known.sum() < 2:
        return 0 * predicted.sum()
    g = torch.log(predicted[known] + LOG_EPS) - torch.log(depth[known] + LOG_EPS)
    mean = MEAN_WEIGHT * g.mean() ** 2
    return torch.sqrt(mean if mean_only else g.var() + mean)


def gradient_loss(predicted: Tensor, depth: Tensor, max_depth: float) -> Tensor:
    """Multi-scale gradients of the difference of logarithms (gradientloss.py).

    Strides 1, 2, 4 and 6, between pixels two apart. Departure: rows and columns are what it runs
    over, as meant (MegaDepth, Li and Snavely 2018). By reading, the release slices the first two
    dimensions of (B, 1, H, W), so that with two images on a device its sum is empty and the loss 0.
    """
    total = predicted.new_zeros(())
    for stride in (1, 2, 4, 6):
        p = predicted[..., ::stride, ::stride]
        d = depth[..., ::stride, ::stride]
        known = (d > 0) & (d <= max_depth)
        g = (torch.log(p + LOG_EPS) - torch.log(d + LOG_EPS)) * known
        down = (g[..., :-2, :] - g[..., 2:, :]).abs() * (known[..., :-2, :] & known[..., 2:, :])
        across = (g[..., :, :-2] - g[..., :, 2:]).abs() * (known[..., :, :-2] & known[..., :, 2:])
        total = total + (down.sum() + across.sum()) / known.sum().clamp(min=1)
    return total


# --- prediction


@torch.no_grad()
def predict(backbone: Backbone, head: DepthHead, image_13HW: Tensor) -> Tensor:
    """(1, 1, H, W): mean of the prediction and that of the mirrored image, turned back."""
    shape = image_13HW.shape[2:]
    both = feature_maps(backbone, torch.cat([image_13HW, image_13HW.flip(3)]), normed=False)
    plain, mirrored = both.to_pixels(head(both), shape).split(1)
    return (plain + mirrored.flip(3)) / 2


def _predicted_depth(
    backbone: Backbone, head: DepthHead, sample: Sample, settings: DepthSettings
) -> np.ndarray:
    """(H, W) float32 at the truth's own resolution."""
    image = backbone.normalised(resized(sample.image, settings.size))
    depth = predict(backbone, head, image[None].to(backbone.device))
    if depth.shape[2:] != sample.depth.shape:
        depth = F.interpolate(depth, sample.depth.shape, mode="bilinear", align_corners=False)
    return depth.squeeze((0, 1)).cpu().numpy()


# --- metrics


def errors(
    predicted: np.ndarray, depth: np.ndarray, max_depth: float, crop: str = "none"
) -> tuple[float, int]:
    """(sum of squared errors, number of pixels) over known depths from MIN_DEPTH to max_depth.

    crop: "none", or "eigen" for the pixels in Eigen's crop alone. Raises ValueError for Eigen's
    crop of an image that has not 480 x 640 pixels.
    """
    known = (depth > MIN_DEPTH) & (depth < max_depth)
    if crop == "eigen":
        if depth.shape != EIGEN_SHAPE:
            height, width = depth.shape
            raise ValueError(
                f"depth of {width} x {height} pixels: must be 640 x 480 with depth.crop eigen"
            )
        inside = np.zeros_like(known)
        inside[EIGEN] = True
        known &= inside
    difference = predicted[known].astype(np.float64) - depth[known]
    return float((difference**2).sum()), int(known.sum())


def _rows(
    name: str, head: np.ndarray, constant: np.ndarray, data: str, note: str
) -> list[Measurement]:
    """head, constant: (images, 2), squared error and pixels, of the head and of the constant."""

    def pooled(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
        squared, pixels = (weights @ sums).T
        return np.sqrt(squared / pixels)

    def mean_of_images(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return weights @ np.sqrt(sums[:, 0] / sums[:, 1]) / weights.sum(-1)

    n = len(head)
    once = np.ones((1, n))
    rows = []
    for metric, rmse in (("rmse", pooled), ("rmse_mean_image", mean_of_images)):
        low, high = bootstrap(lambda weights, rmse=rmse: rmse(weights, head), n)
        row = Measurement(
            question="depth",
            metric=metric,
            backbone=name,
            value=float(rmse(once, head)[0]),
            data=data,
            low=low,
            high=high,
            n=n,
            chance=float(rmse(once, constant)[0]),
            note=note,
        )
        rows.append(row)
    return rows
