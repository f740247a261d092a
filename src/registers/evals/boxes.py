"""Boxes: when one counts as right, and two baselines that read a box off [CLS]'s attention.

A box is x0, y0, x1, y1; x1 and y1 are exclusive.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from registers.evals.lost import NEIGHBOURS, box_of
from registers.overlap import iou

IOU = 0.5  # CorLoc's threshold (Deselaers et al. 2010; LOST, section 4.1)
# share of the attention that is foreground (valeoai/LOST object_discovery.py: official_th; DINO)
MASS = 0.6


def overlaps_any(box: Sequence[float], true_boxes: np.ndarray) -> bool:
    """Whether a box overlaps any of an image's true boxes (K, 4) by at least one half.

    CorLoc is the share of images of which this holds.
    """
    return bool((iou(box, true_boxes) >= IOU).any())


def attended(attention: Tensor, mass: float = MASS) -> np.ndarray:
    """(..., P) bool: the fewest patches that hold at least `mass` of the attention to patches.

    attention: (..., P). As DINO's visualisation: sorted upwards, the patches beyond the first
    1 - mass of the sum.
    """
    values, order = attention.double().sort(dim=-1, stable=True)
    beyond = (values / values.sum(dim=-1, keepdim=True)).cumsum(dim=-1) > 1 - mass
    return torch.zeros_like(beyond).scatter_(-1, order, beyond).cpu().numpy()


def dino_seg(attention_BP: Tensor, grid: tuple[int, int], mass: float = MASS) -> np.ndarray:
    """(B, 4) boxes in patches: LOST's baseline DINO-seg (section 4.2).

    Around the component with most patches of where one head's [CLS] looks. attention_BP: rows of
    one head. Departure: the release never considers the last component, nor clips; both are slips.
    """
    return component_boxes(attended(attention_BP, mass).reshape(-1, *grid), by="patches")


def largest_box(attention_BP: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """(B, 4) boxes in patches: the largest around where one head's [CLS] looks.

    Of the components where it looks more than on average, that with the largest box.
    """
    above = attention_BP > attention_BP.mean(dim=-1, keepdim=True)
    return component_boxes(above.cpu().numpy().reshape(-1, *grid), by="box")


def component_boxes(mask_BHW: np.ndarray, by: Literal["patches", "box"]) -> np.ndarray:
    """(B, 4): the box of each mask's largest 4-connected component, the first of equals.

    by: what is compared, the number of patches or the area of the box. An empty mask gives the box
    of the whole grid.
    """
    labels_BHW, _ = ndimage.label(mask_BHW, NEIGHBOURS)
    boxes = np.empty((len(labels_BHW), 4), np.int64)
    for index, labels in enumerate(labels_BHW):
        components, patches = np.unique(labels[labels > 0], return_counts=True)
        if not len(components):
            boxes[index] = (0, 0, labels.shape[1], labels.shape[0])
            continue
        around = box_of(labels[None] == components[:, None, None])
        area = (around[:, 2] - around[:, 0]) * (around[:, 3] - around[:, 1])
        boxes[index] = around[(patches if by == "patches" else area).argmax()]
    return boxes
