"""How much boxes overlap, for CorLoc and for the captions of LOST's figures."""

from collections.abc import Sequence

import numpy as np


def iou(box: Sequence[float], boxes: np.ndarray) -> np.ndarray:
    """(K,) intersection over union of one box with (K, 4) others, as valeoai/LOST's bbox_iou.

    Areas are (x1 - x0) * (y1 - y0). Its eps of 1e-7 is below float32's resolution there and left
    out. An empty union gives 0.
    """
    box = np.asarray(box, np.float64)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    inter = np.maximum(sides, 0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
