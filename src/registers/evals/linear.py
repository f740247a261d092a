"""Linear classification on frozen features, after DINOv2's protocol (paper, Table 2 and Fig. 8).

Source: dinov2/eval/linear.py. 52 linear heads are trained at once, on the same batches: 13 learning
rates x {last block, last 4 blocks} x {[CLS], [CLS] and mean patch token}. A head's features are the
*normed* [CLS] of the last n blocks side by side, optionally with the mean of the normed patch
tokens of the last. SGD with momentum 0.9, no weight decay, cosine to 0; weights start at
N(0, 0.01), biases at 0.

Departures: one process, so the batch is the global batch (the official lr x batch / 256 holds as it
is); length, batch and numbers of images come from the scale; a backbone of fewer than 4 blocks uses
all it has. Features are computed in float32, not fp16.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from registers.data.sample import Dataset
from registers.data.transforms import linear_augment
from registers.data.usable import UsableSamples, labelled
from registers.evals.chance import most_frequent
from registers.intervals import wilson
from registers.measurements import Measured, Measurement
from registers.models.backbone import Backbone
from registers.models.schedules import cosine
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.questions import LinearSettings
from registers.settings.run import Settings

# eval/linear.py, --learning-rates
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
BLOCKS = (1, 4)  # eval/linear.py, setup_linear_classifiers
MOMENTUM = 0.9
INIT_STD = 0.01
# data/transforms.py, make_classification_eval_transform: Resize(256), CenterCrop(224)
RESIZE = 256 / 224


class FeatureKind(NamedTuple):
    """What a head looks at: [CLS] of the last `blocks` blocks, with the mean patch or without."""

    blocks: int
    mean_patch: bool

    def __str__(self) -> str:
        tokens = "[CLS] and mean patch" if self.mean_patch else "[CLS]"
        return f"{tokens}, last {self.blocks} block{'s' if self.blocks > 1 else ''}"


def measure(backbone: Backbone, data: list[EvaluationSet], settings: Settings) -> Measured:
    """`linear` on the evaluation set: heads are trained on its train split, counted on its val."""
    (images,) = data
    rows = linear(
        backbone,
        images.train,
        images.val,
        settings.linear,
        size=settings.image_size,
        data=images.name,
    )
    return Measured(rows)


def linear(
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    settings: LinearSettings,
    *,
    size: int,
    data: str = "",
    seed: int = 0,
    progress: bool = True,
) -> list[Measurement]:
    """Train the heads on `train` and classify `val`. Rows of accuracies in 0..1, n = images.

    - "top1": the best head, chosen on these very images as the official code does.
    - "top1_held_out": the same without that optimism: the head is chosen on one half of the images
      and counted on the other, both ways round.
    - "top1_head": each head; variant = its features, at = its learning rate.

    Intervals are Wilson's; chance = the most frequent class of these images. Files that cannot be
    used, or have no label, are left out and counted in the notes. size: pixels of the views. data:
    the name of the set in the rows.

    Raises ValueError where no image is left, and for classes that are fewer than two or differ
    between the splits.
    """
    classes = len(train.classes)
    if classes < 2 or tuple(train.classes) != tuple(val.classes):
        raise ValueError(
            f"{classes} classes in train, {len(val.classes)} in val; must be the same, at least 2"
        )
    training = labelled(train, settings.train_images, classes, "training images")
    heads = _train(backbone, training, settings, classes, size, seed, progress)
    validation = labelled(val, settings.val_images, classes)
    hits, labels = _hits(backbone, heads, validation, settings.batch, size)
    chance = most_frequent(labels)
    return _rows(backbone.name, heads, hits, chance, data, training.note() + validation.note())


# --- features


def kinds(depth: int) -> tuple[FeatureKind, ...]:
    """The kinds of features of a backbone with so many blocks."""
    blocks = sorted({min(n, depth) for n in BLOCKS})
    return tuple(FeatureKind(*pair) for pair in itertools.product(blocks, (False, True)))


@torch.no_grad()
def features(backbone: Backbone, images_B3HW: Tensor) -> dict[FeatureKind, Tensor]:
    """Frozen features of a batch, (B, n D) or (B, (n + 1) D) per kind, from one forward pass."""
    vit = backbone.vit
    first = len(vit.blocks) - max(BLOCKS)
    x = backbone.embed(images_B3HW)
    cls = []
    for i, block in enumerate(vit.blocks):
        x = block(x)
        if i >= first:
            cls.append(vit.norm(backbone.split(x).cls))
    mean_patch = vit.norm(backbone.split(x).patches).mean(dim=1)
    by_kind = {}
    for kind in kinds(len(vit.blocks)):
        parts = cls[-kind.blocks :] + ([mean_patch] if kind.mean_patch else [])
        by_kind[kind] = torch.cat(parts, dim=1)
    return by_kind


# --- heads


class Heads:
    """Many linear classifiers trained as one.

    Per kind of features, one matrix product serves the heads of all learning rates. The gradient of
    softmax cross-entropy is written out; each head follows exactly what torch's Linear, SGD and
    CosineAnnealingLR would do with it alone (see the tests).

    dims: number of features of each kind.
    rates: learning rates per 256 images.
    """

    def __init__(
        self,
        dims: dict[FeatureKind, int],
        classes: int,
        iterations: int,
        batch: int,
        rates: Sequence[float] = RATES,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.classes = classes
        self.iterations = iterations
        self.rates = tuple(rates)
        self.done = 0  # iterations
        self.heads = [(kind, rate) for kind in dims for rate in self.rates]
        rates_C = torch.tensor(self.rates, device=device)[:, None].expand(-1, classes)
        self.lr = rates_C.flatten() * batch / 256  # (rates * C,)

        draw = torch.Generator().manual_seed(seed)
        width = len(self.rates) * classes
        self.weight: dict[FeatureKind, Tensor] = {}
        self.bias: dict[FeatureKind, Tensor] = {}
        self.momentum: dict[FeatureKind, tuple[Tensor, Tensor]] = {}
        for kind, dim in dims.items():
            weight = (INIT_STD * torch.randn(dim, width, generator=draw)).to(device)
            bias = torch.zeros(width, device=device)
            self.weight[kind] = weight
            self.bias[kind] = bias
            self.momentum[kind] = (torch.zeros_like(weight), torch.zeros_like(bias))

    def logits(self, x: dict[FeatureKind, Tensor]) -> Tensor:
        """(B, heads, C), heads in the order of `self.heads`."""
        products = (torch.addmm(self.bias[k], x[k], self.weight[k]) for k in self.weight)
        shape = (-1, len(self.rates), self.classes)
        return torch.cat([product.view(shape) for product in products], dim=1)

    def step(self, x: dict[FeatureKind, Tensor], labels_B: Tensor) -> Tensor:
        """One SGD step of all heads on one batch. Returns each head's loss before it, (heads,)."""
        # --- the loss and its gradient over logits: (softmax - one-hot) / B
        log_p = self.logits(x).log_softmax(dim=-1)
        gradient = log_p.exp()
        index = labels_B[:, None, None].expand(-1, len(self.heads), 1)
        loss = -log_p.gather(2, index).squeeze(2).mean(dim=0)
        gradient.scatter_add_(2, index, torch.full_like(gradient[..., :1], -1.0))
        gradient /= len(labels_B)

        # --- one step with momentum
        lr = self.lr * cosine(self.done, self.iterations, base=1.0, final=0.0)
        for i, kind in enumerate(self.weight):
            heads = slice(i * len(self.rates), (i + 1) * len(self.rates))
            slope = gradient[:, heads].flatten(1)
            weight_momentum, bias_momentum = self.momentum[kind]
            weight_momentum.mul_(MOMENTUM).add_(x[kind].T @ slope)
            bias_momentum.mul_(MOMENTUM).add_(slope.sum(dim=0))
            self.weight[kind].sub_(lr * weight_momentum)
            self.bias[kind].sub_(lr * bias_momentum)
        self.done += 1
        return loss


# --- training and counting


def _train(
    backbone: Backbone,
    training: UsableSamples,
    settings: LinearSettings,
    classes: int,
    size: int,
    seed: int,
    progress: bool,
) -> Heads:
    width = backbone.architecture.width
    dims = {
        kind: width * (kind.blocks + kind.mean_patch) for kind in kinds(len(backbone.vit.blocks))
    }
    device = backbone.device
    heads = Heads(dims, classes, settings.iterations, settings.batch, device=device, seed=seed)
    augment = dataclasses.replace(linear_augment(size), normalization=backbone.normalization)
    batches = _train_batches(training, augment, settings.batch, settings.iterations, seed)
    for images, labels in tqdm(batches, total=settings.iterations, disable=not progress):
        heads.step(features(backbone, images.to(device)), labels.to(device))
    return heads


def _train_batches(
    training: UsableSamples,
    augment: Callable[[Image.Image], Tensor],
    batch: int,
    iterations: int,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for so many iterations, a new order each epoch; the same for each seed.

    Python's global generator, from which the augmentations draw, is left as it was.
    """
    rng = np.random.default_rng(seed)
    epochs = (rng.permutation(training.limit) for _ in itertools.count())
    samples = training.draws(int(index) for epoch in epochs for index in epoch)
    for step in range(iterations):
        before = random.getstate()
        random.seed(f"linear {seed} {step}")
        group = list(itertools.islice(samples, batch))
        images = torch.stack([augment(sample.image) for sample in group])
        random.setstate(before)
        yield images, torch.tensor([sample.label for sample in group])


def _hits(
    backbone: Backbone, heads: Heads, validation: UsableSamples, batch: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(images, heads) bool, whether each head was right, and (images,) labels."""
    # allocated up front; growing it per batch fragments memory
    hits = np.zeros((validation.limit, len(heads.heads)), bool)
    samples = iter(validation)
    truths = []
    counted = 0
    while group := list(itertools.islice(samples, batch)):
        views = [backbone.look(sample.image, size, resize=round(size * RESIZE)) for sample in group]
        images = torch.stack(views).to(backbone.device)
        labels = torch.tensor([sample.label for sample in group], device=backbone.device)
        right = heads.logits(features(backbone, images)).argmax(-1) == labels[:, None]
        hits[counted : counted + len(group)] = right.cpu().numpy()
        counted += len(group)
        truths += [sample.label for sample in group]
    return hits[:counted], np.array(truths)


def _rows(
    name: str, heads: Heads, hits: np.ndarray, chance: float, data: str, left_out: str
) -> list[Measurement]:
    """hits: (images, heads), whether each head was right. left_out: what to add to each note."""
    n = len(hits)
    right = hits.sum(axis=0)

    def words(head: int) -> str:
        kind, rate = heads.heads[head]
        return f"lr {rate:g}, {kind}"

    def row(metric: str, count: int, note: str, **more) -> Measurement:
        low, high = wilson(count, n)
        return Measurement(
            question="linear",
            metric=metric,
            backbone=name,
            value=count / n,
            data=data,
            token="cls",
            low=low,
            high=high,
            n=n,
            chance=chance,
            note=note + left_out,
            **more,
        )

    # --- the best head, on all images and across halves
    best = int(right.argmax())
    even = hits[::2].sum(axis=0)
    odd = hits[1::2].sum(axis=0)
    best_of_even = int(even.argmax())
    best_of_odd = int(odd.argmax())
    official = f"best of {len(heads.heads)} heads, chosen on these images as in the official code"
    halves = "head chosen on one half, counted on the other"
    rows = [
        row("top1", int(right[best]), f"{official}: {words(best)}"),
        row(
            "top1_held_out",
            int(odd[best_of_even] + even[best_of_odd]),
            f"{halves}: {words(best_of_even)}; {words(best_of_odd)}",
        ),
    ]

    # --- every head
    for head, (kind, rate) in enumerate(heads.heads):
        place = dict(variant=str(kind), coordinate="lr", at=rate)
        rows.append(row("top1_head", int(right[head]), words(head), **place))
    return rows
