"""Kinds of patch tokens by their output norm, under names that rows, figures and tables share."""

from dataclasses import dataclass

import numpy as np

from registers.bank import TokenBank
from registers.outliers import Cutoff, find_cutoff, high_norm_tail

NORMAL, OUTLIER, TAIL = "normal", "outlier", "high-norm tail (2 %)"
TAIL_SHARE = (
    0.02  # near the share of outliers that the paper states for ViT-g, 2.37 % (section 2.1)
)


@dataclass(frozen=True)
class Kind:
    """One kind of patch. mask: (B, P) bool, or None where the kind does not exist; note: why, or what it is."""

    name: str
    mask: np.ndarray | None
    note: str = ""


def patch_kinds(norms: np.ndarray, cutoff: Cutoff, tail: Cutoff) -> list[Kind]:
    """Normal patches, outliers and the high-norm tail. norms: (B, P), after the last block, before the final norm.

    Where there is no second mode, no patch is an outlier, all are normal, and the outlier's mask is None with the reason.
    The tail overlaps the others: it is a quantile, shown under its own name, and never called outliers.
    """
    outlier = np.asarray(cutoff.mask(norms)) if cutoff.second_mode else None
    normal = np.ones(norms.shape, dtype=bool) if outlier is None else ~outlier
    return [
        Kind(NORMAL, normal, "" if cutoff.second_mode else "all patches: no second mode"),
        Kind(OUTLIER, outlier, "" if cutoff.second_mode else cutoff.reason),
        Kind(TAIL, np.asarray(tail.mask(norms)), tail.reason),
    ]


def bank_kinds(bank: TokenBank, fixed: float | None = None) -> list[Kind]:
    """Kinds of the sample's patches, masks (sample, P); the cut-off comes from all images of the bank. fixed: one chosen by hand."""
    norms = np.asarray(bank.split_norms(bank.layers).patches)
    return patch_kinds(
        norms[: bank.sample], find_cutoff(norms, fixed), high_norm_tail(norms, TAIL_SHARE)
    )


def standardised(tokens: np.ndarray) -> np.ndarray:
    """Final tokens as a linear probe sees them: the final LayerNorm without its scale and shift, which are themselves linear.

    tokens: (..., D) before the final norm. Returns float32. eps as in timm's and the official ViTs, 1e-6.
    """
    x = np.asarray(tokens, dtype=np.float32)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def halves(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of a bank: a seeded half each. The backbone has seen neither (the bank holds its val split)."""
    if images < 2:
        raise ValueError(
            f"bank.sample = {images}: a probe needs at least 2 images, for training and for testing"
        )
    order = np.random.default_rng(seed).permutation(images)
    return order[: images // 2], order[images // 2 :]
