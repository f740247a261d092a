"""Norms of tokens in a few numbers, cheap enough to log at every step of a training.

Apart from `outliers`, so that another cut-off makes no weights stale.
"""

import numpy as np


def statistics(norms) -> dict[str, float]:
    """Cheap signs of outliers, to log while training. norms: any shape, numpy or torch.

    median, max, max_over_median; kurtosis: the fourth standardised moment (3 for a normal
    distribution, 0 if all are equal); share_above_3x_median: of all tokens. Raises ValueError for
    empty or non-finite norms.
    """
    x = as_numbers(norms).ravel()
    if not x.size or not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).sum())
        raise ValueError(f"norms: {bad} of {x.size} values are NaN or infinite; must be finite")
    median = float(np.median(x))
    highest = float(x.max())
    deviation = x - x.mean()
    variance = float((deviation**2).mean())
    return {
        "median": median,
        "max": highest,
        "max_over_median": highest / median if median else 0.0,
        "kurtosis": float((deviation**4).mean()) / variance**2 if variance > 0 else 0.0,
        "share_above_3x_median": float((x > 3 * median).mean()),
    }


def as_numbers(norms) -> np.ndarray:
    """Numpy or torch, any shape, as float64 on the CPU."""
    if hasattr(norms, "detach"):  # a torch tensor; this module does not import torch
        norms = norms.detach().float().cpu().numpy()
    return np.asarray(norms, dtype=np.float64)
