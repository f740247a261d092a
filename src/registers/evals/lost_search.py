"""What LOST finds on facets of attention, in many images, for many settings; and tuning them.

Images keep their own size and are padded with zeros, right and below, to whole patches
(valeoai/LOST main_lost.py); images of the same grid go through the backbone together.
"""

import copy
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from registers.data.sample import Dataset, Sample
from registers.data.usable import UsableSamples
from registers.evals.boxes import dino_seg, largest_box, overlaps_any
from registers.evals.dense_transforms import resized
from registers.evals.lost import Normalisation, degrees, expand, prepared, to_pixels
from registers.models.backbone import Backbone
from registers.settings.questions import DiscoverySettings
from registers.tokens import attention

# paper, section 3.3; LOST's own choice, keys, for other methods
PAPER_FACET = {"deit3": "v", "openclip": "v", "dinov2": "k"}
BASELINES = (dino_seg, largest_box)
WINDOW = 8  # batches read ahead, so that images of the same grid meet
# images on which a facet's mean squared norm is taken, the unit of a bias on raw features
SCALE_IMAGES = 8
# LOST compares every patch with every other. The paper's own protocols have at most 2,116 (a photo
# of COCO, 640 x 640 pixels in patches of 14). A photo of 500 x 375 pixels in patches of 4 has
# 11,750 and takes 16 core-seconds for nine kinds of features and nine biases; 4,096 patches take 2.
MOST_PATCHES = 4096
log = logging.getLogger(__name__)

Grid = tuple[int, int]  # patches down and across
Facets = dict[tuple[str, int], Tensor]  # (facet, layer) -> (B, P, D)


# --- settings of LOST


@dataclass(frozen=True)
class Choice:
    """What LOST is run on.

    layer: counted from the end, -1 is the last block.
    bias: added to the Gram matrix, in its own units.
    """

    facet: str = "k"
    layer: int = -1
    normalisation: Normalisation = "none"
    bias: float = 0.0

    def __str__(self) -> str:
        place = f"facet {self.facet}, layer {self.layer}"
        return f"{place}, normalisation {self.normalisation}, bias {self.bias:.4g}"


def published(backbone: Backbone) -> Choice:
    """LOST as published with the paper's facet, on the last layer, without a bias."""
    return Choice(facet=PAPER_FACET.get(backbone.name.split("-")[0], "k"))


def choices(
    settings: DiscoverySettings, units: dict[tuple[str, int], float] | None = None
) -> list[Choice]:
    """The grid: every facet, layer, normalisation and bias.

    units: mean squared norm of raw features by (facet, layer), in which their biases are given;
    without, raw features get no bias but 0.
    """
    grid = []
    biases = sorted(settings.biases, key=abs)
    kinds = itertools.product(settings.facets, settings.layers, settings.normalisations)
    for facet, layer, normalisation in kinds:
        unit = 1.0
        if normalisation == "none":
            unit = (units or {}).get((facet, layer), 0.0)
        scaled = dict.fromkeys(bias * unit + 0.0 for bias in biases)  # + 0.0: no negative zero
        grid += [Choice(facet, layer, normalisation, bias) for bias in scaled]
    return grid


# --- features of images at their own size


@dataclass(frozen=True)
class FeatureBatch:
    """Images of one grid and what LOST and the baselines look at.

    numbers: which usable image of the data set each is.
    facets: (B, P, D) by facet and layer, heads side by side.
    attention: (B, H, P), from [CLS] to patches in the last block.
    """

    grid: Grid
    numbers: list[int]
    samples: list[Sample]
    facets: Facets
    attention: Tensor

    @property
    def sizes(self) -> np.ndarray:
        """(B, 2): width and height of each image before padding."""
        return np.array([sample.image.size for sample in self.samples])


class ShortSide:
    """A data set for LOST: images (bilinear) and their boxes, resized where they must be.

    short: the short side in pixels; 0 keeps an image as it is. patch: a patch's side; an image of
    more than MOST_PATCHES of them becomes smaller, which the log and the rows' notes say. 0: never.
    """

    def __init__(self, dataset: Dataset, short: int, patch: int = 0) -> None:
        if getattr(dataset, "strict", True) is False:  # see UsableSamples
            dataset = copy.copy(dataset)
            dataset.strict = True
        self.dataset = dataset
        self.short = short
        self.patch = patch
        self.made_smaller: set[int] = set()

    @property
    def part(self) -> str:
        """What the rows' notes say of the images: of which part they are, how many are smaller."""
        words = [getattr(self.dataset, "part", "")]
        if self.made_smaller:
            words.append(f"{len(self.made_smaller)} made smaller, to {MOST_PATCHES} patches")
        return "; ".join(filter(None, words))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        image = resized(sample.image, self.short)
        short = self._short_of_most(image)
        if short < min(image.size):
            self._say(index, sample.name, image)
            image = resized(sample.image, short)
        if image is sample.image:
            return sample
        if sample.boxes is None:
            return replace(sample, image=image)
        ratio = np.tile(np.divide(image.size, sample.image.size), 2)
        return replace(sample, image=image, boxes=(sample.boxes * ratio).astype(np.float32))

    def _short_of_most(self, image: Image.Image) -> int:
        """The short side, in whole patches, that leaves about MOST_PATCHES; or an image's own."""
        height, width = grid_of(image, self.patch) if self.patch else (1, 1)
        if height * width <= MOST_PATCHES:
            return min(image.size)
        smaller = min(image.size) * (MOST_PATCHES / (height * width)) ** 0.5
        return max(1, int(smaller) // self.patch) * self.patch

    def _say(self, index: int, name: str, image: Image.Image) -> None:
        if not self.made_smaller:
            height, width = grid_of(image, self.patch)
            log.warning(
                "%s: %d x %d patches of %d pixels; LOST compares each with each, so such images "
                "are made smaller, to %d patches (discovery.size sets their short side)",
                *(name, width, height, self.patch, MOST_PATCHES),
            )
        self.made_smaller.add(index)


def grid_of(image: Image.Image, patch: int) -> Grid:
    """Patches down and across that cover an image."""
    return -(-image.height // patch), -(-image.width // patch)


def feature_batches(
    backbone: Backbone, samples: Iterable[Sample], batch: int, layers: Iterable[int]
) -> Iterator[FeatureBatch]:
    """All samples, at most `batch` of the same grid at a time."""
    patch = backbone.architecture.patch
    for grid, group in same_grid(samples, batch, patch):
        images = [padded(backbone.normalised(sample.image), patch) for _, sample in group]
        facets, attention_BHP = observed(backbone, torch.stack(images).to(backbone.device), layers)
        numbers = [number for number, _ in group]
        yield FeatureBatch(grid, numbers, [sample for _, sample in group], facets, attention_BHP)


def same_grid(
    samples: Iterable[Sample], batch: int, patch: int
) -> Iterator[tuple[Grid, list[tuple[int, Sample]]]]:
    """Numbered samples of the same grid, at most `batch`.

    A window of WINDOW batches is held at a time, so memory stays flat.
    """
    numbered = enumerate(samples)
    while window := list(itertools.islice(numbered, batch * WINDOW)):
        groups = defaultdict(list)
        for number, sample in window:
            groups[grid_of(sample.image, patch)].append((number, sample))
        for grid, group in groups.items():
            for start in range(0, len(group), batch):
                yield grid, group[start : start + batch]


def padded(image_3HW: Tensor, patch: int) -> Tensor:
    """Zeros right and below, up to whole patches."""
    height, width = image_3HW.shape[1:]
    return torch.nn.functional.pad(image_3HW, (0, -width % patch, 0, -height % patch))


def observed(
    backbone: Backbone, images_B3HW: Tensor, layers: Iterable[int]
) -> tuple[Facets, Tensor]:
    """Facets of patches, and (B, H, P) where [CLS] looks in the last block.

    Raises ValueError for a layer that does not exist.
    """
    layers = tuple(sorted({*layers, -1}))
    observation = backbone.observe(images_B3HW, layers)
    facets = {}
    for layer in layers:
        for facet in ("q", "k", "v"):
            x_BNHd = getattr(observation, facet)[layer].transpose(1, 2)
            facets[facet, layer] = backbone.split(x_BNHd.flatten(2)).patches
    cls_BH1N = attention(observation.q[-1], observation.k[-1], [0])
    batch, heads, _, tokens = cls_BH1N.shape
    rows = backbone.split(cls_BH1N.reshape(batch * heads, tokens)).patches
    return facets, rows.view(batch, heads, -1)


# --- counting


@dataclass(frozen=True)
class Counts:
    """Which boxes overlap a true one by at least one half, image by image.

    lost: (images, choices).
    baselines: (images, heads, 2): DINO-seg, largest box.
    whole: (images,), the box of the whole image.
    fallbacks: (images, choices): the seed alone was LOST's component.
    left_out: a note on images that could not be used.
    """

    lost: np.ndarray
    baselines: np.ndarray
    whole: np.ndarray
    fallbacks: np.ndarray
    left_out: str

    def best_heads(self) -> list[int]:
        """The head that does best, for DINO-seg and for the largest box."""
        return [int(head) for head in self.baselines.sum(axis=0).argmax(axis=0)]


def count(
    backbone: Backbone,
    dataset: Dataset,
    limit: int,
    candidates: Sequence[Choice],
    settings: DiscoverySettings,
    progress: str = "",
) -> Counts:
    """One pass over the first `limit` images: all choices and all heads on each."""
    samples = UsableSamples(dataset, limit, ["boxes"])
    layers = {choice.layer for choice in candidates}
    heads = backbone.vit.blocks[-1].attn.num_heads
    # allocated up front; growing them per batch fragments memory
    lost = np.zeros((samples.limit, len(candidates)), bool)
    fallbacks = np.zeros_like(lost)
    baselines = np.zeros((samples.limit, heads, len(BASELINES)), bool)
    whole = np.zeros(samples.limit, bool)

    patch = backbone.architecture.patch
    shown = dict(desc=progress, unit="image", disable=not progress, mininterval=1)
    with tqdm(total=samples.limit, **shown) as bar:  # of images that are done, not read ahead
        for batch in feature_batches(backbone, samples, settings.batch, layers):
            lost[batch.numbers], fallbacks[batch.numbers] = _lost_hits(
                batch, candidates, settings.k, patch
            )
            baselines[batch.numbers] = _baseline_hits(batch, patch)
            whole[batch.numbers] = [
                overlaps_any((0, 0, *sample.image.size), sample.boxes) for sample in batch.samples
            ]
            bar.update(len(batch.numbers))
        bar.update(samples.limit - samples.used)  # what cannot be used
    used = slice(samples.used)
    return Counts(lost[used], baselines[used], whole[used], fallbacks[used], samples.note())


def _lost_hits(
    batch: FeatureBatch, candidates: Sequence[Choice], k: int, patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """(B, choices) each: whether LOST's box overlaps, and whether it fell back to the seed.

    Choices that differ in their bias alone share one pass over the Gram matrix.
    """
    by_features = defaultdict(list)
    for place, choice in enumerate(candidates):
        by_features[choice.facet, choice.layer, choice.normalisation].append(place)
    hits = np.zeros((len(batch.samples), len(candidates)), bool)
    fallbacks = np.zeros_like(hits)
    for (facet, layer, normalisation), places in by_features.items():
        x = prepared(batch.facets[facet, layer], normalisation)
        biases = [candidates[place].bias for place in places]
        for place, bias, degree in zip(places, biases, degrees(x, biases)):
            steps = expand(x, degree, batch.grid, k, bias)
            hits[:, place] = _overlaps(steps.box, batch, patch)
            fallbacks[:, place] = steps.fallback
    return hits, fallbacks


def _baseline_hits(batch: FeatureBatch, patch: int) -> np.ndarray:
    """(B, heads, 2): for DINO-seg and the largest box."""
    heads = batch.attention.shape[1]
    hits = np.zeros((len(batch.samples), heads, len(BASELINES)), bool)
    for head in range(heads):
        for place, baseline in enumerate(BASELINES):
            boxes = baseline(batch.attention.select(1, head), batch.grid)
            hits[:, head, place] = _overlaps(boxes, batch, patch)
    return hits


def _overlaps(boxes: np.ndarray, batch: FeatureBatch, patch: int) -> list[bool]:
    """boxes: (B, 4) in patches, one an image."""
    in_pixels = to_pixels(boxes, patch, batch.sizes)
    return [overlaps_any(box, sample.boxes) for box, sample in zip(in_pixels, batch.samples)]


# --- tuning


@dataclass(frozen=True)
class Tuning:
    """All choices and their counts on the tuning split."""

    candidates: list[Choice]
    counts: Counts

    @property
    def best(self) -> Choice:
        """The first of equals; the published normalisation and layer come first in the grid."""
        return self.candidates[int(self.counts.lost.sum(axis=0).argmax())]


def tune(
    backbone: Backbone, dataset: Dataset, settings: DiscoverySettings, progress: bool = True
) -> Tuning:
    """Try every choice on the first tune_images of a data set."""
    candidates = choices(settings, squared_norms(backbone, dataset, settings))
    bar = "tuning LOST" if progress else ""
    counts = count(backbone, dataset, settings.tune_images, candidates, settings, bar)
    return Tuning(candidates, counts)


def squared_norms(
    backbone: Backbone, dataset: Dataset, settings: DiscoverySettings
) -> dict[tuple[str, int], float]:
    """Mean squared norm of raw features by facet and layer, over the first usable images."""
    samples = UsableSamples(dataset, settings.tune_images, ["boxes"])
    first = itertools.islice(samples, SCALE_IMAGES)
    sums = defaultdict(float)
    images = 0
    for batch in feature_batches(backbone, first, settings.batch, settings.layers):
        images += len(batch.samples)
        for key, x in batch.facets.items():
            sums[key] += float(x.float().square().sum(-1).mean(-1).sum())
    return {key: total / images for key, total in sums.items()}
