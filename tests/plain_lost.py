"""LOST written down step by step for one image, slowly.

What `registers.evals.lost` must equal and what its benchmark is measured against. After the
description in valeoai/LOST (object_discovery.py at fcedbec) in plain loops; ties go to the patch
that comes first.
"""

from typing import NamedTuple

import numpy as np


class PlainLost(NamedTuple):
    degree: list[int]
    seed: int
    similars: set[int]
    mask: set[int]
    component: set[int]
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in patches, ends exclusive


def plain_lost(
    features: np.ndarray, grid: tuple[int, int], k: int = 100, bias: float = 0.0
) -> PlainLost:
    """features (P, D), patches in reading order."""
    height, width = grid
    count = len(features)
    assert count == height * width
    shift = np.asarray(bias, features.dtype)
    similarity = [features @ features[p] + shift for p in range(count)]  # row by row

    # --- degrees: to how many others a patch is similar
    degree = []
    for p in range(count):
        neighbours = 0
        for q in range(count):
            if q != p and similarity[p][q] > 0:
                neighbours += 1
        degree.append(neighbours)

    # --- seed and similars; Python's sort keeps equals in their order
    ranking = sorted(range(count), key=lambda p: degree[p])
    seed = ranking[0]
    similars = {p for p in ranking[:k] if similarity[seed][p] > 0}

    # --- expansion
    mask = set()
    for q in range(count):
        votes = sum((similarity[p][q] for p in similars), start=features.dtype.type(0))
        if votes > 0:
            mask.add(q)

    # --- the seed's component and its box
    component = {seed}
    waiting = [seed]
    while waiting and seed in mask:
        row, column = divmod(waiting.pop(), width)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            patch = r * width + c
            if 0 <= r < height and 0 <= c < width and patch in mask and patch not in component:
                component.add(patch)
                waiting.append(patch)
    rows = [p // width for p in component]
    columns = [p % width for p in component]
    box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
    return PlainLost(degree, seed, similars, mask, component, box)
