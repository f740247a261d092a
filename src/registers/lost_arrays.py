"""The small arrays that object discovery leaves for Figs. 13 and 14 and for pictures: their keys.

Written by `evals.discovery`, read by figures; nobody else spells a key. For image i and facet f:

    i_rgb (H, W, 3) uint8, i_truths (K, 4)            the photo and its true boxes, in pixels
    i_f_score, i_f_similarity, i_f_similars,          LOST's steps on facet f, as published, one
    i_f_expansion, i_f_mask, i_f_component (h, w)     value a patch
    i_f_seed (2,), i_f_box (4,)                       row and column of a patch; pixels
    i_dino_seg_box, i_tuned_box (4,)                  boxes of other procedures, in pixels
    names, backbone, data, facets, facet, patch       about all images; patch in pixels

Images are whole; the steps cover them padded, right and below, to whole patches. "facet" is the one
that the published setting uses.
"""

from collections.abc import Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]

STEPS = ("score", "similarity", "similars", "expansion", "mask", "component")
FACETS = ("k", "q", "v")
DINO_SEG = "dino_seg"
TUNED = "tuned"


# --- writing


def photo_entries(image: int, rgb: np.ndarray, truths: np.ndarray) -> dict[str, np.ndarray]:
    """rgb: (H, W, 3) uint8. truths: (K, 4) pixels."""
    return {f"{image}_rgb": rgb, f"{image}_truths": truths}


def step_entries(
    image: int, facet: str, steps: Arrays, seed: tuple[int, int], box: np.ndarray
) -> dict[str, np.ndarray]:
    """steps: the maps of `STEPS`, (h, w) each. seed: row and column. box: (4,) pixels."""
    maps = {_step_key(image, facet, step): steps[step] for step in STEPS}
    return maps | {_step_key(image, facet, "seed"): np.array(seed), _box_key(image, facet): box}


def box_entry(image: int, procedure: str, box: np.ndarray) -> dict[str, np.ndarray]:
    """procedure: DINO_SEG or TUNED. box: (4,) pixels."""
    return {_box_key(image, procedure): box}


# --- reading


def photo(arrays: Arrays, image: int) -> np.ndarray:
    return arrays[f"{image}_rgb"]


def true_boxes(arrays: Arrays, image: int) -> np.ndarray:
    return arrays[f"{image}_truths"]


def published_facet(arrays: Arrays) -> str:
    return str(arrays["facet"])


def step(arrays: Arrays, image: int, name: str, facet: str | None = None) -> np.ndarray:
    """One of `STEPS`, (h, w), or "seed", (2,). facet: the published setting's unless named."""
    return arrays[_step_key(image, facet or published_facet(arrays), name)]


def box(arrays: Arrays, image: int, procedure: str | None = None) -> np.ndarray:
    """(4,) pixels. procedure: a facet, DINO_SEG or TUNED; the published setting's unless named."""
    return arrays[_box_key(image, procedure or published_facet(arrays))]


def has_box(arrays: Arrays, procedure: str) -> bool:
    """Whether a procedure's boxes were kept; without a tuning split nothing is TUNED."""
    return _box_key(0, procedure) in arrays


def _step_key(image: int, facet: str, step: str) -> str:
    return f"{image}_{facet}_{step}"


def _box_key(image: int, procedure: str) -> str:
    return f"{image}_{procedure}_box"
