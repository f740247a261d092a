"""Zero-shot classification with a trained CLIP (Table 2 b; open_clip's zero_shot.py and zero_shot_metadata.py)."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from registers.data.prompts import Template, templates
from registers.data.sample import Dataset
from registers.data.transforms import evaluation
from registers.data.usable import labelled
from registers.measurements import Measurement
from registers.models.backbone import Backbone
from registers.models.text import TextTower, unpack

CONFIDENCE_Z = 1.959964  # 95 %


def classifier(
    text: TextTower, classes: Sequence[str], prompts: Sequence[Template] | None = None
) -> Tensor:
    """Weights (E, C): for each class the mean over prompts (OpenAI's 80 unless given) of unit text embeddings, made a unit vector again."""
    prompts = templates() if prompts is None else prompts
    columns = []
    for name in classes:
        embeddings = F.normalize(text.encode([prompt(name) for prompt in prompts]), dim=-1)
        columns.append(F.normalize(embeddings.mean(dim=0), dim=0))
    return torch.stack(columns, dim=1)


def hits(image_BE: Tensor, labels_B: Tensor, weights_EC: Tensor, most: int) -> Tensor:
    """Whether the label is among the 1, 2, ..., `most` classes of highest logit 100 cos: (B, most) bool."""
    logits_BC = 100 * F.normalize(image_BE, dim=-1) @ weights_EC
    order = logits_BC.topk(most, dim=1).indices
    return (order == labels_B[:, None]).cumsum(dim=1).bool()


@torch.no_grad()
def zero_shot(
    backbone: Backbone,
    projection: Tensor,
    text: TextTower,
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: Sequence[str],
    prompts: Sequence[Template] | None = None,
    data: str = "",
) -> list[Measurement]:
    """Top-1 and top-5 accuracy in [0, 1] with Wilson's 95 % interval; top-5 only where there are more than five classes.

    projection: (D, E). batches: normalised images (B, 3, H, W) and labels (B,). prompts: OpenAI's 80 unless given. The rows' note says
    how many prompts there are, and how many class names have words that the text tower never saw. Raises ValueError where there is
    no image.
    """
    prompts = templates() if prompts is None else prompts
    weights, unseen = classifier(text, classes, prompts), text.unseen(classes)
    note = f"{len(prompts)} prompts"
    if unseen:
        note += f"; {len(unseen)} of {len(classes)} class names with words that no caption had, the first: {unseen[0]}"
    tops = [k for k in (1, 5) if k == 1 or k < len(classes)]
    right, n = dict.fromkeys(tops, 0), 0
    for images, labels in batches:
        labels = labels.to(projection.device)
        found = hits(
            backbone.summary(images.to(projection.device)) @ projection, labels, weights, max(tops)
        )
        for k in tops:
            right[k] += int(found[:, k - 1].sum())
        n += len(labels)
    if not n:
        raise ValueError(f"zero-shot on {data or 'no data'}: 0 images; at least one is needed")
    rows = []
    for k in tops:
        low, high = wilson(right[k], n)
        rows.append(
            Measurement(
                question="zeroshot",
                metric=f"top{k}",
                backbone=backbone.name,
                value=right[k] / n,
                data=data,
                token="cls",
                low=low,
                high=high,
                n=n,
                chance=k / len(classes),
                note=note,
            )
        )
    return rows


def evaluate(
    backbone: Backbone,
    extras: dict[str, Tensor],
    facts: dict,
    dataset: Dataset,
    count: int,
    size: int,
    device: torch.device | str = "cpu",
    data: str = "",
    classes: Sequence[str] | None = None,
    prompts: Sequence[Template] | None = None,
) -> list[Measurement]:
    """`zero_shot` of a checkpoint on the first `count` images of a labelled data set.

    extras, facts: what the checkpoint holds beside the backbone, and its json. classes: names in the order of the labels, the data
    set's own unless given. Images are resized to `size` (shorter side, bicubic), centre-cropped, and normalised as in training. Files
    that cannot be used are left out and counted in the notes. Raises ValueError where the checkpoint has no text tower.
    """
    projection, text = unpack(extras, facts)
    pixels = evaluation(size, normalization=facts["normalization"])
    classes = classes or dataset.classes
    stream = labelled(dataset, count, len(classes))

    def batches(batch: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        samples = iter(stream)
        while group := [(pixels(s.image), s.label) for s in itertools.islice(samples, batch)]:
            images, labels = zip(*group)
            yield torch.stack(images), torch.tensor(labels)

    rows = zero_shot(
        backbone, projection.to(device), text.to(device), batches(), classes, prompts, data
    )
    return [replace(row, note=row.note + stream.note()) for row in rows]


def wilson(right: int, n: int, z: float = CONFIDENCE_Z) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent trials (Wilson 1927, equation of Brown, Cai, DasGupta 2001)."""
    p, shrink = right / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
