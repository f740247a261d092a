"""95 % confidence intervals: Wilson's for shares, bootstraps over images for all else."""

import math
from collections.abc import Callable

import numpy as np

Z = 1.959964  # 95 %, two-sided
LEVEL = (0.025, 0.975)
DRAWS = 2000  # bootstrap samples
PART = 250  # draws at a time: 250 x 20,000 weights take 40 MB


def wilson(successes: int, n: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent trials.

    Source: Wilson 1927; the equation of Brown, Cai and DasGupta 2001. Raises ValueError for n = 0.
    """
    if n < 1:
        raise ValueError("n = 0: an interval needs at least one trial")
    share = successes / n
    shrink = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_mean(totals, counts=None, *, seed: int = 0) -> tuple[float, float, float]:
    """Mean of tokens and its percentile interval, images being the units: (value, low, high).

    totals: (B,) sum over each image's tokens. counts: (B,) how many tokens, default 1. The
    statistic is sum / count over images, so that tokens of one image stay together. Images without
    a token do not count. Raises ValueError where nothing is left.
    """
    totals = np.asarray(totals, dtype=np.float64)
    counts = np.ones_like(totals) if counts is None else np.asarray(counts, dtype=np.float64)
    counted = counts > 0
    totals, counts = totals[counted], counts[counted]
    if not len(totals):
        raise ValueError("bootstrap of 0 images: at least one must be counted")
    weights = _weights(np.random.default_rng(seed), len(totals), DRAWS)
    low, high = np.quantile((weights @ totals) / (weights @ counts), LEVEL)
    return float(totals.sum() / counts.sum()), float(low), float(high)


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], images: int, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of any statistic over images.

    statistic: weights (draws, images), how often each image was drawn -> values (draws,); NaN where
    a draw has none. Weights come in parts, so that memory stays flat.
    """
    rng = np.random.default_rng(seed)
    values = [
        statistic(_weights(rng, images, min(PART, DRAWS - start)))
        for start in range(0, DRAWS, PART)
    ]
    low, high = np.nanquantile(np.concatenate(values), LEVEL)
    return float(low), float(high)


def bootstrap_images(
    per_image: np.ndarray, statistic: Callable[[np.ndarray], float], draws: int = 1000
) -> tuple[float, float]:
    """Percentile interval of a statistic that is no weighted mean, such as a maximum."""
    rng = np.random.default_rng(0)
    images = len(per_image)
    values = [statistic(per_image[rng.integers(0, images, images)]) for _ in range(draws)]
    low, high = np.percentile(values, [100 * level for level in LEVEL])
    return float(low), float(high)


def _weights(rng: np.random.Generator, images: int, draws: int) -> np.ndarray:
    """(draws, images) how often each image is drawn, with replacement."""
    return rng.multinomial(images, np.full(images, 1 / images), size=draws)
