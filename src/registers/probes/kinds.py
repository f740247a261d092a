"""Kinds of patch tokens by their output norm, and how probes are tested and scored by kind."""

from dataclasses import dataclass

import numpy as np

from registers.bank import TokenBank
from registers.intervals import bootstrap_mean
from registers.measurements import Measurement
from registers.outliers import Cutoff, find_cutoff, high_norm_tail
from registers.vocabulary import NORMAL, OUTLIER, TAIL

TAIL_SHARE = (
    0.02  # near the share of outliers that the paper states for ViT-g, 2.37 % (section 2.1)
)
HELD_OUT = 0.1  # share of the training images on which a probe's strength is chosen


@dataclass(frozen=True)
class Kind:
    """One kind of patch.

    mask: (B, P) bool, or None where the kind does not exist. note: why, or what it is.
    """

    name: str
    mask: np.ndarray | None
    note: str = ""


def patch_kinds(norms_BP: np.ndarray, cutoff: Cutoff, tail: Cutoff) -> list[Kind]:
    """Normal patches, outliers and the high-norm tail.

    norms_BP: after the last block, before the final norm. Where there is no second mode, no patch
    is an outlier, all are normal, and the outlier's mask is None with the reason. The tail overlaps
    the others: it is a quantile, shown under its own name, and never called outliers.
    """
    tail_kind = Kind(TAIL, np.asarray(tail.mask(norms_BP)), tail.reason)
    if not cutoff.second_mode:
        everything = np.ones(norms_BP.shape, dtype=bool)
        return [
            Kind(NORMAL, everything, "all patches: no second mode"),
            Kind(OUTLIER, None, cutoff.reason),
            tail_kind,
        ]
    outlier = np.asarray(cutoff.mask(norms_BP))
    return [Kind(NORMAL, ~outlier), Kind(OUTLIER, outlier), tail_kind]


def bank_kinds(bank: TokenBank, fixed: float | None = None) -> list[Kind]:
    """Kinds of the sample's patches, masks (sample, P); the cut-off comes from all images.

    fixed: a cut-off chosen by hand.
    """
    norms = bank.patch_norms()
    cutoff = find_cutoff(norms, fixed)
    return patch_kinds(norms[: bank.sample], cutoff, high_norm_tail(norms, TAIL_SHARE))


def halves(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of a bank: a seeded half each.

    The backbone was trained on neither (the bank holds its val split). Raises ValueError for fewer
    than two images.
    """
    if images < 2:
        raise ValueError(
            f"bank.sample: {images} is not allowed; must be at least 2, "
            "as a probe trains on one half of the images and is tested on the other"
        )
    order = np.random.default_rng(seed).permutation(images)
    return order[: images // 2], order[images // 2 :]


def hold_out(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tenth of the training images to choose a strength on, and the rest to fit.

    `halves` has shuffled them. A single image serves both.
    """
    if len(train) < 2:
        return train, train
    count = max(1, round(HELD_OUT * len(train)))
    return train[:count], train[count:]


def score(
    question: str,
    metric: str,
    backbone: str,
    values_TP: np.ndarray,
    kind: Kind,
    test: np.ndarray,
    chance: float | np.ndarray,
) -> Measurement:
    """One row: the mean of values over the tokens of a kind, with its interval over images.

    values_TP: one for each patch of the T test images.
    kind: whose tokens count. The row has no value, but the reason, where there are none.
    test: (T,) numbers of the test images.
    chance: the value of guessing, or (T, P) such values, averaged over the same tokens.
    """
    common = dict(question=question, metric=metric, backbone=backbone, token=kind.name)
    if kind.mask is None:
        return Measurement(value=None, note=kind.note, **common)
    mask = kind.mask[test]
    if not mask.any():
        return Measurement(value=None, note="no such token in the test images", **common)
    value, low, high = bootstrap_mean((values_TP * mask).sum(1), mask.sum(1))
    images = f"{mask.any(1).sum()} of {len(mask)} images"
    return Measurement(
        value=value,
        low=low,
        high=high,
        n=int(mask.sum()),
        chance=float(chance[mask].mean()) if isinstance(chance, np.ndarray) else chance,
        note=joined(kind.note, images),
        **common,
    )


def joined(*notes: str) -> str:
    """The notes that say something, in one line."""
    return "; ".join(note for note in notes if note)
