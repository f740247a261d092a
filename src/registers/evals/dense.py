"""What the linear heads of segmentation and depth share: frozen feature maps and training batches.

Letters: B images, D channels, h x w patches, H x W pixels, C classes.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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
from registers.evals.feature_cache import FeatureCache
from registers.models.backbone import Backbone
from registers.settings.questions import DenseSettings

LOADERS = 4  # threads that read and augment while the head trains
PICTURE_SIDE = 512  # pixels: the longer side of a picture that is kept for looking at, at most

# An image and its truth (H, W) to train on; the generator is None without augmentation.
Example = Callable[[Sample, np.random.Generator | None], tuple[Tensor, np.ndarray]]


@dataclass(frozen=True)
class FeatureMaps:
    """Frozen features of images.

    patches: (B, D, h, w).
    cls: (B, D).
    pad: rows above and columns left that were added to the images.
    patch: pixels of a patch's side.
    """

    patches: Tensor
    cls: Tensor
    pad: tuple[int, int]
    patch: int

    def to_pixels(self, values_BChw: Tensor, shape: tuple[int, int]) -> Tensor:
        """(B, C, H, W): bilinear to the padded image, then the padding cut off.

        shape: the image's H and W. Departure: dinov2 stretches the padded map over the unpadded
        image (CenterPadding: 518 to 512 pixels), 1 % out of place.
        """
        h, w = self.patches.shape[2:]
        padded = (h * self.patch, w * self.patch)
        pixels = F.interpolate(values_BChw, padded, mode="bilinear", align_corners=False)
        top, left = self.pad
        return pixels[:, :, top : top + shape[0], left : left + shape[1]]


@torch.no_grad()
def feature_maps(backbone: Backbone, images_B3HW: Tensor, normed: bool) -> FeatureMaps:
    """Last-layer tokens, after the final norm or before it.

    Images are padded with zeros on all sides to whole patches (dinov2's CenterPadding).
    """
    patch = backbone.architecture.patch
    rows, columns = (-side % patch for side in images_B3HW.shape[2:])
    top, left = rows // 2, columns // 2
    x = F.pad(images_B3HW, (left, columns - left, top, rows - top))
    tokens = backbone(x) if normed else backbone.split(backbone.residual(x))
    grid = (x.shape[2] // patch, x.shape[3] // patch)
    patches = tokens.patches.transpose(1, 2).unflatten(2, grid)
    return FeatureMaps(patches, tokens.cls, (top, left), patch)


# --- batches to train on


def training_batches(
    backbone: Backbone,
    samples: UsableSamples,
    example: Example,
    settings: DenseSettings,
    *,
    normed: bool,
    seed: int,
    progress: str,
) -> Iterator[tuple[FeatureMaps, Tensor]]:
    """settings.iterations batches of frozen features and truths (B, H, W).

    A new order each epoch, the same for each seed. With augment, each image is read and augmented
    anew (in threads, ahead of the training step). Without, features of all training images are
    computed once and cached in half precision on disk. Either way memory does not depend on how
    many there are. progress: the bar's title, "" for none.
    """
    batches = _augmented_batches if settings.augment else _cached_batches
    steps = batches(backbone, samples, example, settings, normed, seed)
    yield from tqdm(
        steps, desc=progress, total=settings.iterations, disable=not progress, mininterval=1
    )


def _augmented_batches(
    backbone: Backbone,
    samples: UsableSamples,
    example: Example,
    settings: DenseSettings,
    normed: bool,
    seed: int,
) -> Iterator[tuple[FeatureMaps, Tensor]]:
    order = _order(samples.limit, seed)

    def load(draw: int) -> tuple[Tensor, np.ndarray] | None:
        sample = samples.get(order(draw))
        return None if sample is None else example(sample, np.random.default_rng((seed, draw)))

    with (
        ThreadPoolExecutor(LOADERS) as pool,
        closing(_ahead(pool, load, 2 * settings.batch, samples)) as examples,
    ):
        for _ in range(settings.iterations):
            images, truths = zip(*itertools.islice(examples, settings.batch))
            maps = feature_maps(backbone, torch.stack(images).to(backbone.device), normed)
            yield maps, torch.from_numpy(np.stack(truths)).to(backbone.device)


def _ahead(
    pool: ThreadPoolExecutor,
    load: Callable[[int], tuple[Tensor, np.ndarray] | None],
    ahead: int,
    samples: UsableSamples,
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Examples in the order of the draws, loaded `ahead` of being asked for; endless.

    Raises ValueError when as many in a row as there are samples cannot be used.
    """
    waiting = [pool.submit(load, draw) for draw in range(ahead)]
    failures = 0
    try:
        for draw in itertools.count(ahead):
            loaded = waiting.pop(0).result()
            waiting.append(pool.submit(load, draw))
            failures = failures + 1 if loaded is None else 0
            if failures > samples.limit:
                raise samples.nothing()
            if loaded is not None:
                yield loaded
    finally:
        for future in waiting:
            future.cancel()


def _cached_batches(
    backbone: Backbone,
    samples: UsableSamples,
    example: Example,
    settings: DenseSettings,
    normed: bool,
    seed: int,
) -> Iterator[tuple[FeatureMaps, Tensor]]:
    cache = FeatureCache()
    examples = (example(sample, None) for sample in samples)
    while group := list(itertools.islice(examples, settings.batch)):
        images, truths = zip(*group)
        maps = feature_maps(backbone, torch.stack(images).to(backbone.device), normed)
        patches = maps.patches.movedim(1, -1).half()  # channels last, as they lie in memory
        cache.append(patches, maps.cls.half(), torch.from_numpy(np.stack(truths)))
    order = _order(len(cache), seed)
    for step in range(settings.iterations):
        rows = [order(step * settings.batch + place) for place in range(settings.batch)]
        patches, cls, truths = (column.to(backbone.device) for column in cache[rows])
        patches = patches.movedim(-1, 1).float()
        yield FeatureMaps(patches, cls.float(), maps.pad, maps.patch), truths


def _order(images: int, seed: int) -> Callable[[int], int]:
    """Which image each draw is: every epoch a permutation of its own."""
    epochs: dict[int, np.ndarray] = {}

    def image_of(draw: int) -> int:
        epoch = draw // images
        if epoch not in epochs:
            for old in [e for e in epochs if e < epoch - 2]:
                epochs.pop(old, None)
            epochs[epoch] = np.random.default_rng((seed, epoch, 7)).permutation(images)
        return int(epochs[epoch][draw % images])

    return image_of


# --- heads and optimizers


def normal_head(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1 x 1 convolution initialised as mmseg's heads: N(0, 0.01), no bias at the start."""
    conv = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv


def warmup_factor(step: int, warmup: int, ratio: float) -> float:
    """mmcv's linear warm-up: the factor on the rate rises from `ratio` to 1 over `warmup` steps."""
    return 1.0 if step >= warmup else 1 - (1 - step / warmup) * (1 - ratio)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


# --- pictures


def picture_arrays(
    pictures: Sequence[tuple[Sample, np.ndarray, np.ndarray]], backbone: str, **more
) -> dict[str, np.ndarray]:
    """Small arrays for looking at predictions.

    i_rgb (H, W, 3) uint8, i_truth and i_predicted (H, W) of each image i; names, backbone, and
    what is in `more`. Pictures whose longer side exceeds PICTURE_SIDE are shrunk to it, truths and
    predictions by nearest neighbour, so that every value shown is one that was counted.

    pictures: samples with their truth and prediction, at the image's own size.
    """
    arrays = {
        "names": np.array([sample.name for sample, *_ in pictures]),
        "backbone": np.array(backbone),
    }
    for i, (sample, truth, predicted) in enumerate(pictures):
        ratio = min(1.0, PICTURE_SIDE / max(sample.image.size))
        size = tuple(max(1, round(side * ratio)) for side in sample.image.size)
        image = sample.image if ratio == 1 else sample.image.resize(size, Image.Resampling.BILINEAR)
        arrays[f"{i}_rgb"] = np.asarray(image)
        arrays[f"{i}_truth"] = resized_truth(truth, size)
        arrays[f"{i}_predicted"] = resized_truth(predicted, size)
    return arrays | {name: np.array(value) for name, value in more.items()}
