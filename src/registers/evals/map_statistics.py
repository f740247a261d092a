"""What a map of patches looks like, as numbers.

Letters: M maps, P patches, h x w down and across.
"""

import numpy as np

TOP = 0.02  # outliers are around 2 % of the patches (paper, section 1)


def peak(values_MP: np.ndarray) -> np.ndarray:
    """(M,) the largest value of each image over the median."""
    return values_MP.max(-1) / np.maximum(np.median(values_MP, axis=-1), 1e-12)


def top_count(patches: int) -> int:
    """How many patches 2 % are, at least one."""
    return max(1, round(TOP * patches))


def overlap(a_MP: np.ndarray, b_MP: np.ndarray) -> np.ndarray:
    """(M,) share of the highest 2 % of a that are among the highest 2 % of b."""
    count = top_count(a_MP.shape[-1])
    highest_a = np.argsort(a_MP, axis=-1)[:, -count:]
    highest_b = np.argsort(b_MP, axis=-1)[:, -count:]
    return np.array([np.isin(a, b).mean() for a, b in zip(highest_a, highest_b)])


def roughness(maps_Mhw: np.ndarray) -> np.ndarray:
    """(M,) mean squared step between neighbours over twice the variance."""
    across = np.diff(maps_Mhw, axis=2) ** 2
    down = np.diff(maps_Mhw, axis=1) ** 2
    steps = across.sum((1, 2)) + down.sum((1, 2))
    count = across[0].size + down[0].size
    return steps / count / np.maximum(2 * maps_Mhw.var(axis=(1, 2)), 1e-12)
