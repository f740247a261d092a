"""Do outliers appear where a patch looks like its neighbours? Cosine similarity at the input: Fig. 5a (paper, section 2.2)."""

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measurement
from registers.probes.kinds import Kind, bank_kinds
from registers.probes.position import score

QUESTION = "neighbours"
BINS = np.linspace(-1, 1, 41)


def similarity(embeddings_BPD: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(B, P) mean cosine similarity of each patch embedding to its neighbours above, below, left and right.

    embeddings_BPD: right after the patch embedding, before position. A patch at the border has three or two neighbours; the mean
    is over those that exist. Raises ValueError for a grid of one patch or one that does not fit.
    """
    batch, patches, width = embeddings_BPD.shape
    h, w = grid
    if h * w != patches or patches < 2:
        raise ValueError(f"grid = {h} x {w}: allowed are grids of {patches} patches, at least 2")
    x = _unit(embeddings_BPD).reshape(batch, h, w, width).transpose(1, 2, 0, 3)  # (h, w, B, D)
    total, count = np.zeros((h, w, batch)), np.zeros((h, w, 1))
    for axis in (0, 1):  # each pair of neighbours, down and across, counts for both
        patch, sums, counts = (
            np.moveaxis(values, axis, 0) for values in (x, total, count)
        )  # views
        cosine = (patch[1:] * patch[:-1]).sum(-1)
        for side in (slice(1, None), slice(None, -1)):
            sums[side] += cosine
            counts[side] += 1
    return (total / count).reshape(patches, batch).T


def densities(
    embeddings_BPD: np.ndarray, grid: tuple[int, int], kinds: list[Kind], *, backbone: str
) -> list[Measurement]:
    """Densities of `similarity` by kind of token, and their means. kinds: masks (B, P).

    Rows: "density" at x = bin centre (integrates to 1; 40 bins over -1 to 1) and "mean", with interval by bootstrap over images;
    chance: the mean cosine between any two patches of all images. No linear model is trained, so all images count.
    A kind that does not exist has one "mean" row without a value, with the reason, and no densities.
    """
    values = similarity(embeddings_BPD, grid)
    unit = _unit(embeddings_BPD).reshape(-1, embeddings_BPD.shape[-1])
    count, sum_of_all = len(unit), unit.sum(0, dtype=np.float64)
    chance = float(
        (sum_of_all @ sum_of_all - count) / (count * (count - 1))
    )  # all ordered pairs but a patch with itself
    rows = []
    everything = np.arange(len(values))
    for kind in kinds:
        rows.append(score(QUESTION, "mean", values, kind, everything, backbone, chance))
        if rows[-1].value is None:
            continue
        inside = np.clip(values[kind.mask], -1, 1)
        density, _ = np.histogram(inside, BINS, density=True)
        for centre, height in zip((BINS[1:] + BINS[:-1]) / 2, density):
            rows.append(
                Measurement(
                    QUESTION,
                    "density",
                    backbone,
                    float(height),
                    token=kind.name,
                    x=round(float(centre), 6),
                    n=len(inside),
                )
            )
    return rows


def neighbours(bank: TokenBank, *, fixed: float | None = None) -> list[Measurement]:
    """`densities` of a bank's sample, tokens told apart by their output norm. fixed: a cut-off chosen by hand."""
    return densities(
        np.asarray(bank.embeddings, dtype=np.float32),
        bank.grid,
        bank_kinds(bank, fixed),
        backbone=bank.name,
    )


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
