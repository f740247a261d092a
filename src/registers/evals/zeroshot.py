"""Zero-shot classification with a trained CLIP (paper, Table 2b).

Source: open_clip's zero_shot_classifier.py, zero_shot_metadata.py and its training's zero_shot.py.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from registers.data import prompts
from registers.data.prompts import Template
from registers.data.sample import Dataset
from registers.data.usable import labelled
from registers.evals.chance import most_frequent
from registers.intervals import wilson
from registers.measurements import Measured, Measurement
from registers.models import checkpoint
from registers.models.backbone import Backbone
from registers.models.text import TextTower, unpack
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings

BATCH = 64  # images that pass the backbone together


def measure(backbone: Backbone, data: list[EvaluationSet], settings: Settings) -> Measured:
    """`classify` the evaluation set with the text tower that lies beside the checkpoint.

    Raises ValueError where the checkpoint has no text tower.
    """
    (images,) = data
    extras = checkpoint.load_extras(backbone.path) if "text" in backbone.card else {}
    projection, text = unpack(extras, backbone.card)
    classes = images.val.classes
    folders = getattr(images.val, "folders", classes)
    rows = classify(
        backbone,
        projection.to(backbone.device),
        text.to(backbone.device),
        images.val,
        count=settings.linear.val_images,
        size=settings.image_size,
        classes=prompts.class_names(settings.zeroshot.classes, classes, folders),
        templates=prompts.templates(settings.zeroshot.templates),
        data=images.name,
    )
    return Measured(rows)


@torch.no_grad()
def classify(
    backbone: Backbone,
    projection: Tensor,
    text: TextTower,
    dataset: Dataset,
    *,
    count: int,
    size: int,
    classes: Sequence[str],
    templates: Sequence[Template],
    data: str = "",
) -> list[Measurement]:
    """Top-1 and top-5 accuracy in 0..1 on the first `count` images, with Wilson's interval.

    Top-5 is left out where there are at most five classes; chance is the most frequent class, or
    the five, of these images. Images are resized to `size` (shorter side, bicubic) and
    centre-cropped. The notes say how many prompts there were, how many class names have words that
    the text tower never saw, and which files could not be used.

    projection: (D, E), from the image tower's [CLS] to the shared space.
    classes: names in the order of the labels.
    templates: prompts, each a function of a class name.

    Raises ValueError where no image can be used.
    """
    # --- count hits
    weights_EC = classifier(text, classes, templates)
    ranks = [k for k in (1, 5) if k == 1 or k < len(classes)]
    right = dict.fromkeys(ranks, 0)
    truths = []
    usable = labelled(dataset, count, len(classes))
    samples = iter(usable)
    while batch := list(itertools.islice(samples, BATCH)):
        images = torch.stack([backbone.look(sample.image, size) for sample in batch])
        labels = torch.tensor([sample.label for sample in batch]).to(projection.device)
        truths += labels.tolist()
        embeddings = backbone.summary(images.to(projection.device)) @ projection
        batch_hits = hits(embeddings, labels, weights_EC, max(ranks))
        for k in ranks:
            right[k] += int(batch_hits[:, k - 1].sum())

    # --- rows
    note = f"{len(templates)} prompts{_unseen_words(text, classes)}{usable.note()}"
    rows = []
    for k in ranks:
        low, high = wilson(right[k], usable.used)
        row = Measurement(
            question="zeroshot",
            metric=f"top{k}",
            backbone=backbone.name,
            value=right[k] / usable.used,
            data=data,
            token="cls",
            low=low,
            high=high,
            n=usable.used,
            chance=most_frequent(np.array(truths), guesses=k),
            note=note,
        )
        rows.append(row)
    return rows


def classifier(text: TextTower, classes: Sequence[str], templates: Sequence[Template]) -> Tensor:
    """Weights (E, C): per class the mean of its prompts' unit embeddings, made a unit vector."""
    columns = []
    for name in classes:
        embeddings = F.normalize(text.encode([template(name) for template in templates]), dim=-1)
        columns.append(F.normalize(embeddings.mean(dim=0), dim=0))
    return torch.stack(columns, dim=1)


def hits(image_BE: Tensor, labels_B: Tensor, weights_EC: Tensor, most: int) -> Tensor:
    """(B, most) bool: whether the label is among the 1, 2... `most` classes of highest 100 cos."""
    logits_BC = 100 * F.normalize(image_BE, dim=-1) @ weights_EC
    order = logits_BC.topk(most, dim=1).indices
    return (order == labels_B[:, None]).cumsum(dim=1).bool()


def _unseen_words(text: TextTower, classes: Sequence[str]) -> str:
    unseen = text.unseen(classes)
    if not unseen:
        return ""
    names = f"{len(unseen)} of {len(classes)} class names"
    return f"; {names} with words that no caption had, the first: {unseen[0]}"
