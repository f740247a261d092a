"""Linear classification on frozen features: DINOv2's protocol (dinov2/eval/linear.py; paper, Table 2 and Fig. 8).

52 linear heads are trained at once, on the same batches: 13 learning rates x {last block, last 4 blocks} x {[CLS], [CLS] and mean
patch token}. A head's features are the *normed* [CLS] of the last n blocks side by side, optionally with the mean of the normed patch
tokens of the last. SGD with momentum 0.9, no weight decay, cosine to 0; weights start at N(0, 0.01), biases at 0.

Departures: one process, so the batch is the global batch (the official lr x batch / 256 holds as it is); length, batch and numbers of
images come from the scale; a backbone of fewer than 4 blocks uses all it has. Features are computed in float32, not fp16.
"""

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from registers.data.sample import Dataset
from registers.data.transforms import evaluation, linear_augment
from registers.data.usable import UsableSamples, labelled
from registers.evals.zeroshot import wilson
from registers.measurements import Measurement
from registers.models.backbone import Backbone
from registers.settings.questions import LinearSettings

RATES = (
    1e-5,
    2e-5,
    5e-5,
    1e-4,
    2e-4,
    5e-4,
    1e-3,
    2e-3,
    5e-3,
    1e-2,
    2e-2,
    5e-2,
    0.1,
)  # eval/linear.py, --learning-rates
BLOCKS = (1, 4)  # eval/linear.py, setup_linear_classifiers
MOMENTUM = 0.9
INIT_STD = 0.01
RESIZE = (
    256 / 224
)  # data/transforms.py, make_classification_eval_transform: Resize(256), CenterCrop(224)

Kind = tuple[int, bool]  # how many last blocks; with the mean patch token or without


def kinds(depth: int) -> tuple[Kind, ...]:
    """The kinds of features of a backbone with so many blocks."""
    return tuple(
        (n, mean) for n in sorted({min(n, depth) for n in BLOCKS}) for mean in (False, True)
    )


@torch.no_grad()
def features(backbone: Backbone, images_B3HW: Tensor) -> dict[Kind, Tensor]:
    """Frozen features of a batch, (B, n D) or (B, (n + 1) D) per kind; all from one forward pass."""
    vit, first = backbone.vit, len(backbone.vit.blocks) - max(BLOCKS)
    x, cls = backbone.embed(images_B3HW), []
    for i, block in enumerate(vit.blocks):
        x = block(x)
        if i >= first:
            cls.append(vit.norm(backbone.split(x).cls))
    mean_patch = vit.norm(backbone.split(x).patches).mean(dim=1)
    return {
        (n, mean): torch.cat([*cls[-n:], *([mean_patch] if mean else [])], dim=1)
        for n, mean in kinds(len(vit.blocks))
    }


class Heads:
    """Many linear classifiers trained as one: per kind of features one matrix product serves the heads of all learning rates.

    dims: features of each kind. rates: learning rates per 256 images. The gradient of softmax cross-entropy is written out;
    each head follows exactly what torch's LinearSettings, SGD and CosineAnnealingLR would do with it alone (see the tests).
    """

    def __init__(
        self,
        dims: dict[Kind, int],
        classes: int,
        iterations: int,
        batch: int,
        rates: Sequence[float] = RATES,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.classes, self.iterations, self.rates, self.done = classes, iterations, tuple(rates), 0
        self.heads = [(kind, rate) for kind in dims for rate in self.rates]
        self.lr = (
            torch.tensor(self.rates, device=device)[:, None].expand(-1, classes).flatten()
            * batch
            / 256
        )  # (heads C,)
        wide = len(self.rates) * classes
        self.weight = {
            k: (INIT_STD * torch.randn(d, wide, generator=draw)).to(device) for k, d in dims.items()
        }
        self.bias = {k: torch.zeros(wide, device=device) for k in dims}
        self.momentum = {
            k: (torch.zeros_like(self.weight[k]), torch.zeros_like(self.bias[k])) for k in dims
        }

    def logits(self, x: dict[Kind, Tensor]) -> Tensor:
        """(B, heads, C), heads in the order of `self.heads`."""
        found = [torch.addmm(self.bias[k], x[k], self.weight[k]) for k in self.weight]
        return torch.cat([f.view(len(f), len(self.rates), self.classes) for f in found], dim=1)

    def step(self, x: dict[Kind, Tensor], labels_B: Tensor) -> Tensor:
        """One SGD step of all heads on one batch. Returns each head's loss before it, (heads,)."""
        log_p = self.logits(x).log_softmax(dim=-1)
        wrong = log_p.exp()
        at = labels_B[:, None, None].expand(-1, len(self.heads), 1)
        loss = -log_p.gather(2, at).squeeze(2).mean(dim=0)
        wrong.scatter_add_(2, at, torch.full_like(wrong[..., :1], -1.0))
        wrong /= len(labels_B)  # d mean loss / d logits
        lr = self.lr * (1 + math.cos(math.pi * self.done / self.iterations)) / 2
        for i, kind in enumerate(self.weight):
            slope = wrong[:, i * len(self.rates) : (i + 1) * len(self.rates)].flatten(1)
            for value, gradient, moving in zip(
                (self.weight[kind], self.bias[kind]),
                (x[kind].T @ slope, slope.sum(dim=0)),
                self.momentum[kind],
            ):
                moving.mul_(MOMENTUM).add_(gradient)
                value.sub_(lr * moving)
        self.done += 1
        return loss


def linear(
    backbone: Backbone,
    train: Dataset,
    val: Dataset,
    settings: LinearSettings,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    data: str = "",
    seed: int = 0,
    progress: bool = True,
) -> list[Measurement]:
    """Train the heads on `train`, classify `val`; images are streamed. Rows of question "linear", accuracies in 0..1, n = images:

    - "top1": the best head, chosen on these very images as the official code does; Wilson's 95 % interval.
    - "top1_held_out": the same without that optimism: the head is chosen on one half of the images and counted on the other,
      both ways round.
    - "top1_head": each head; x = learning rate, token = "cls" or "cls+patch", layer = how many last blocks (1 or 4).
    Files that cannot be used, or have no label, are left out and counted in the notes. Raises ValueError where none is left, and for
    classes that are fewer than two or differ.
    """
    classes = len(train.classes)
    if classes < 2 or tuple(train.classes) != tuple(val.classes):
        raise ValueError(
            f"classes: {classes} in train, {len(val.classes)} in val; allowed are the same in both, at least 2"
        )
    normalization = (tuple(mean), tuple(std))
    backbone = backbone.to(device).eval()
    look = dataclasses.replace(linear_augment(size), normalization=normalization)
    used = labelled(train, settings.train_images, classes, "training images")
    heads = None
    for seen, labels in tqdm(
        _train_batches(used, look, settings.batch, settings.iterations, seed),
        total=settings.iterations,
        disable=not progress,
    ):
        x = features(backbone, seen.to(device))
        if heads is None:
            dims = {kind: value.shape[1] for kind, value in x.items()}
            heads = Heads(
                dims, classes, settings.iterations, settings.batch, device=device, seed=seed
            )
        heads.step(x, labels.to(device))

    look = evaluation(size, resize=round(size * RESIZE), normalization=normalization)
    stream, n = labelled(val, settings.val_images, classes), 0
    samples, hits = (
        iter(stream),
        np.zeros((stream.limit, len(heads.heads)), bool),
    )  # at once: pieces in between would scatter the heap
    while batch := list(itertools.islice(samples, settings.batch)):
        seen, labels = (
            torch.stack([look(s.image) for s in batch]),
            torch.tensor([s.label for s in batch], device=device),
        )
        right = heads.logits(features(backbone, seen.to(device))).argmax(-1) == labels[:, None]
        hits[n : n + len(batch)] = right.cpu().numpy()
        n += len(batch)
    return _rows(
        backbone.name,
        heads,
        hits[:n],
        data or type(val).__name__.lower(),
        used.note() + stream.note(),
    )


def _train_batches(
    stream: UsableSamples, look, batch: int, iterations: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for so many iterations, a new order each epoch; the same for each seed. The global generator is left as it was."""
    rng = np.random.default_rng(seed)
    drawn = stream.draws(int(i) for _ in itertools.count() for i in rng.permutation(stream.limit))
    for step in range(iterations):
        before = random.getstate()
        random.seed(f"linear {seed} {step}")  # the augmentations draw from it
        samples = list(itertools.islice(drawn, batch))
        seen = torch.stack([look(s.image) for s in samples])
        random.setstate(before)
        yield seen, torch.tensor([s.label for s in samples])


def _rows(name: str, heads: Heads, hits: np.ndarray, data: str, left_out: str) -> list[Measurement]:
    """hits: (images, heads), whether each head was right. left_out: what to add to each note."""
    n, right = len(hits), hits.sum(axis=0)
    common = dict(question="linear", backbone=name, data=data, n=n, chance=1 / heads.classes)

    def said(head: int) -> str:
        (blocks, patch), rate = heads.heads[head]
        return f"lr {rate:g}, last {blocks} block{'s' * (blocks > 1)}, {'[CLS] and mean patch' if patch else '[CLS]'}"

    def row(metric: str, count: int, note: str, token: str = "cls", **more) -> Measurement:
        low, high = wilson(count, n)
        return Measurement(
            metric=metric,
            value=count / n,
            low=low,
            high=high,
            token=token,
            note=note + left_out,
            **common,
            **more,
        )

    best = int(right.argmax())
    even, odd = (hits[part::2].sum(axis=0) for part in (0, 1))
    choices = int(even.argmax()), int(odd.argmax())
    held_out = int(odd[choices[0]] + even[choices[1]])
    rows = [
        row(
            "top1",
            int(right[best]),
            f"best of {len(heads.heads)} heads, chosen on these images as in the official code: {said(best)}",
        ),
        row(
            "top1_held_out",
            held_out,
            f"head chosen on one half, counted on the other: {said(choices[0])}; {said(choices[1])}",
        ),
    ]
    for head, ((blocks, patch), rate) in enumerate(heads.heads):
        rows.append(
            row(
                "top1_head",
                int(right[head]),
                said(head),
                token="cls+patch" if patch else "cls",
                x=rate,
                layer=blocks,
            )
        )
    return rows
