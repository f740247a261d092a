"""Boxes: CorLoc, and the two baselines that read a box off the [CLS] token's attention.

A box is x0, y0, x1, y1; x1 and y1 are exclusive.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from registers.evals.lost import NEIGHBOURS, box_of

IOU = 0.5  # CorLoc's threshold (Deselaers et al. 2010; LOST, section 4.1)
MASS = 0.6  # share of the attention that counts as foreground (valeoai/LOST object_discovery.py: official_th; DINO's visualisation)


def iou(box: Sequence[float], boxes: np.ndarray) -> np.ndarray:
    """(K,) intersection over union of one box with (K, 4) others, areas being (x1 - x0) * (y1 - y0), as valeoai/LOST's bbox_iou.

    Its eps of 1e-7 is below float32's resolution there and left out. An empty union gives 0.
    """
    box, boxes = np.asarray(box, np.float64), np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    inter = np.maximum(sides, 0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def found(box: Sequence[float], truths: np.ndarray) -> bool:
    """Whether a box overlaps any of an image's true boxes (K, 4) by at least one half."""
    return bool((iou(box, truths) >= IOU).any())


def corloc(boxes: Iterable[Sequence[float]], truths: Iterable[np.ndarray]) -> float:
    """Share of images whose one box is `found`. Raises ValueError for no image, or an image without a true box."""
    hits = []
    for box, truth in zip(boxes, truths, strict=True):
        if not len(truth):
            raise ValueError(f"image {len(hits)}: has no true box; leave such images out")
        hits.append(found(box, truth))
    if not hits:
        raise ValueError("corloc of 0 images: allowed are at least 1")
    return float(np.mean(hits))


def attended(attention: Tensor, mass: float = MASS) -> np.ndarray:
    """(..., P) bool: the fewest patches that hold at least `mass` of the attention (..., P) that goes to patches.

    As DINO's visualisation: sorted upwards, the patches beyond the first 1 - mass of the sum.
    """
    values, order = attention.double().sort(dim=-1, stable=True)
    beyond = (values / values.sum(dim=-1, keepdim=True)).cumsum(dim=-1) > 1 - mass
    return torch.zeros_like(beyond).scatter_(-1, order, beyond).cpu().numpy()


def dino_seg(attention_BP: Tensor, grid: tuple[int, int], mass: float = MASS) -> np.ndarray:
    """(B, 4) boxes in patches: around the component with most patches of where one head's [CLS] looks (LOST, section 4.2, DINO-seg).

    attention_BP: rows of one head. Departure: the release never considers the last component, nor clips; both are slips.
    """
    return component_boxes(attended(attention_BP, mass).reshape(-1, *grid), by="patches")


def largest_box(attention_BP: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """(B, 4) boxes in patches: of the components where one head's [CLS] looks more than on average, that with the largest box."""
    above = attention_BP > attention_BP.mean(dim=-1, keepdim=True)
    return component_boxes(above.cpu().numpy().reshape(-1, *grid), by="box")


def component_boxes(mask_BHW: np.ndarray, by: str) -> np.ndarray:
    """(B, 4): the box of each mask's largest 4-connected component, by number of patches or area of box; the first of equals.

    An empty mask gives the box of the whole grid.
    """
    labels, _ = ndimage.label(mask_BHW, NEIGHBOURS)
    boxes = np.empty((len(labels), 4), np.int64)
    for index, one in enumerate(labels):
        numbers, sizes = np.unique(one[one > 0], return_counts=True)
        if not len(numbers):
            boxes[index] = 0, 0, one.shape[1], one.shape[0]
            continue
        around = box_of(one[None] == numbers[:, None, None])
        area = (around[:, 2] - around[:, 0]) * (around[:, 3] - around[:, 1])
        boxes[index] = around[(sizes if by == "patches" else area).argmax()]
    return boxes
