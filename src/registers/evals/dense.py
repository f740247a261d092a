"""What the linear heads of segmentation and depth share: feature maps of a frozen backbone, batches to train on, prediction, intervals.

Letters: B images, D channels, h x w patches, H x W pixels, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from registers.data.sample import Sample
from registers.data.usable import UsableSamples
from registers.evals.dense_transforms import resized_truth
from registers.evals.feature_cache import Held
from registers.models.backbone import Backbone
from registers.probes.solvers import DRAWS
from registers.settings.questions import DenseSettings

LOADERS = 4  # threads that read and augment while the head trains
SHOWN = 512  # pixels: the longer side of a picture that is kept for looking at, at most


@dataclass(frozen=True)
class Maps:
    """Frozen features of images: patches (B, D, h, w) and cls (B, D). pad: rows above and columns left that were added."""

    patches: Tensor
    cls: Tensor
    pad: tuple[int, int]
    patch: int

    def to_pixels(self, values_BChw: Tensor, shape: tuple[int, int]) -> Tensor:
        """(B, C, H, W): bilinear to the padded image, then the padding cut off; shape: the image's H and W.

        Departure: dinov2 stretches the padded map over the unpadded image (CenterPadding: 518 to 512 pixels), 1 % out of place.
        """
        h, w = self.patches.shape[2:]
        whole = F.interpolate(
            values_BChw, (h * self.patch, w * self.patch), mode="bilinear", align_corners=False
        )
        top, left = self.pad
        return whole[:, :, top : top + shape[0], left : left + shape[1]]


@torch.no_grad()
def feature_maps(backbone: Backbone, images_B3HW: Tensor, normed: bool) -> Maps:
    """Last-layer tokens, after the final norm or before it. Images are padded with zeros on all sides to whole patches (CenterPadding)."""
    patch = backbone.architecture.patch
    rows, columns = (-side % patch for side in images_B3HW.shape[2:])
    x = F.pad(images_B3HW, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    tokens = backbone(x) if normed else backbone.split(backbone.residual(x))
    grid = x.shape[2] // patch, x.shape[3] // patch
    return Maps(
        tokens.patches.transpose(1, 2).unflatten(2, grid),
        tokens.cls,
        (rows // 2, columns // 2),
        patch,
    )


Example = Callable[[Sample, np.random.Generator | None], tuple[Tensor, np.ndarray]]


def training_batches(
    backbone: Backbone,
    stream: UsableSamples,
    example: Example,
    settings: DenseSettings,
    *,
    normed: bool,
    device: torch.device | str,
    seed: int,
    progress: str,
) -> Iterator[tuple[Maps, Tensor]]:
    """settings.iterations batches of frozen features and truths (B, H, W); a new order each epoch, the same for each seed.

    With augment, each image is read and augmented anew (in threads, ahead of the training step). Without, features of all training images
    are computed once and held in half precision, in a file. Either way memory does not depend on how many there are.
    """
    if not settings.augment:
        yield from _held(backbone, stream, example, settings, normed, device, seed, progress)
        return
    order = _order(stream.limit, settings.iterations * settings.batch, seed)

    def load(place: int) -> tuple[Tensor, np.ndarray] | None:
        sample = stream.get(order(place))
        return None if sample is None else example(sample, np.random.default_rng((seed, place)))

    with ThreadPoolExecutor(LOADERS) as pool:
        ahead = [pool.submit(load, place) for place in range(2 * settings.batch)]
        asked = len(ahead)
        for _ in tqdm(
            range(settings.iterations), desc=progress, disable=not progress, mininterval=1
        ):
            batch, failures = [], 0
            while len(batch) < settings.batch:
                loaded = ahead.pop(0).result()
                ahead.append(pool.submit(load, asked))
                asked += 1
                failures = failures + 1 if loaded is None else 0
                if failures > stream.limit:
                    raise stream.nothing()
                batch += [] if loaded is None else [loaded]
            images, truths = zip(*batch)
            yield (
                feature_maps(backbone, torch.stack(images).to(device), normed),
                torch.from_numpy(np.stack(truths)).to(device),
            )
        for waiting in ahead:
            waiting.cancel()


def _held(
    backbone, stream, example, settings, normed, device, seed, progress
) -> Iterator[tuple[Maps, Tensor]]:
    held, waiting, pad = Held(), [], (0, 0)

    def flush() -> tuple[int, int]:
        maps = feature_maps(
            backbone, torch.stack([image for image, _ in waiting]).to(device), normed
        )
        patches = maps.patches.movedim(1, -1).half()  # channels last, as they lie in memory
        held.append(
            patches, maps.cls.half(), torch.from_numpy(np.stack([truth for _, truth in waiting]))
        )
        waiting.clear()
        return maps.pad

    for sample in stream:
        waiting.append(example(sample, None))
        if len(waiting) == settings.batch:
            pad = flush()
    if waiting:
        pad = flush()
    order = _order(len(held), settings.iterations * settings.batch, seed)
    for step in tqdm(
        range(settings.iterations), desc=progress, disable=not progress, mininterval=1
    ):
        chosen = [order(step * settings.batch + place) for place in range(settings.batch)]
        patches, cls, truths = (x.to(device) for x in held[chosen])
        yield (
            Maps(patches.movedim(-1, 1).float(), cls.float(), pad, backbone.architecture.patch),
            truths,
        )


def _order(images: int, draws: int, seed: int) -> Callable[[int], int]:
    """Which image is drawn at each place: every epoch a permutation of its own."""
    epochs: dict[int, np.ndarray] = {}

    def at(place: int) -> int:
        epoch = place // images
        if epoch not in epochs:
            for old in [e for e in epochs if e < epoch - 2]:
                epochs.pop(old, None)
            epochs[epoch] = np.random.default_rng((seed, epoch, 7)).permutation(images)
        return int(epochs[epoch][place % images])

    return at


def warmed(step: int, warmup: int, ratio: float) -> float:
    """mmcv's linear warm-up: the factor on the schedule's rate rises from `ratio` to 1 over `warmup` iterations."""
    return 1.0 if step >= warmup else 1 - (1 - step / warmup) * (1 - ratio)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def one_by_one(
    stream: UsableSamples, device: torch.device | str, make: Callable[[Sample], Tensor]
) -> Iterator[tuple[Sample, Tensor]]:
    """Validation: each sample with its image (1, 3, H, W)."""
    for sample in stream:
        yield sample, make(sample)[None].to(device)


def resampled(
    statistic: Callable[[np.ndarray], np.ndarray], images: int, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic over images: statistic(weights (draws, n)) -> (draws,); images are drawn with replacement."""
    rng = np.random.default_rng(seed)
    values = []
    for start in range(0, DRAWS, 250):  # parts: 250 x 20,000 weights are 40 MB
        values.append(
            statistic(
                rng.multinomial(images, np.full(images, 1 / images), size=min(250, DRAWS - start))
            )
        )
    values = np.concatenate(values)
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def normal_head(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1 x 1 convolution initialised as mmseg's heads: N(0, 0.01), no bias at the start."""
    conv = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv


def picture_arrays(
    kept: Sequence[tuple[Sample, np.ndarray, np.ndarray]], backbone: str, **more
) -> dict[str, np.ndarray]:
    """Small arrays for looking at predictions: i_rgb (H, W, 3) uint8, i_truth and i_predicted (H, W) of each image i; names, backbone.

    kept: samples with their truth and prediction, at the image's own size. Pictures whose longer side exceeds SHOWN are shrunk to it,
    truths and predictions by nearest neighbour, so that every value shown is one that was counted.
    """
    arrays = {
        "names": np.array([sample.name for sample, *_ in kept]),
        "backbone": np.array(backbone),
    }
    for i, (sample, truth, predicted) in enumerate(kept):
        ratio = min(1.0, SHOWN / max(sample.image.size))
        size = tuple(max(1, round(side * ratio)) for side in sample.image.size)
        image = sample.image if ratio == 1 else sample.image.resize(size, Image.Resampling.BILINEAR)
        arrays[f"{i}_rgb"] = np.asarray(image)
        arrays |= {
            f"{i}_{name}": resized_truth(values, size)
            for name, values in (("truth", truth), ("predicted", predicted))
        }
    return arrays | {name: np.array(value) for name, value in more.items()}
