"""Do outliers appear where a patch looks like its neighbours? Cosine similarity at the input.

Fig. 5a (paper, section 2.2).
"""

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measured, Measurement
from registers.probes.kinds import Kind, bank_kinds, score
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings

QUESTION = "neighbours"
BINS = np.linspace(-1, 1, 41)


def measure(bank: TokenBank, data: list[EvaluationSet], settings: Settings) -> Measured:
    kinds = bank_kinds(bank, fixed=settings.cutoff_of(bank.name))
    embeddings = np.asarray(bank.embeddings, dtype=np.float32)
    return Measured(similarity_rows(embeddings, bank.grid, kinds, backbone=bank.name))


def similarity(embeddings_BPD: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(B, P) mean cosine similarity of each patch to its neighbours above, below, left and right.

    embeddings_BPD: right after the patch embedding, before position. A patch at the border has
    three or two neighbours; the mean is over those that exist. Raises ValueError for a grid of one
    patch or one that does not fit.
    """
    batch, patches, width = embeddings_BPD.shape
    h, w = grid
    if h * w != patches or patches < 2:
        raise ValueError(
            f"grid: {h} x {w} is not allowed; must have {patches} patches, and at least 2"
        )
    x = _unit(embeddings_BPD).reshape(batch, h, w, width).transpose(1, 2, 0, 3)  # (h, w, B, D)
    total = np.zeros((h, w, batch))
    count = np.zeros((h, w, 1))
    for axis in (0, 1):  # each pair of neighbours, down and across, counts for both
        patch = np.moveaxis(x, axis, 0)  # this and the next two are views
        sums = np.moveaxis(total, axis, 0)
        counts = np.moveaxis(count, axis, 0)
        cosine = (patch[1:] * patch[:-1]).sum(-1)
        for side in (slice(1, None), slice(None, -1)):
            sums[side] += cosine
            counts[side] += 1
    return (total / count).reshape(patches, batch).T


def similarity_rows(
    embeddings_BPD: np.ndarray, grid: tuple[int, int], kinds: list[Kind], *, backbone: str
) -> list[Measurement]:
    """Means and densities of `similarity` by kind of token. kinds: masks (B, P).

    "mean": interval by bootstrap over images; chance is the mean cosine between any two patches of
    all images. "density" at the centre of a bin of cosines (40 bins from -1 to 1; integrates to 1).
    No linear model is trained, so all images count. A kind that does not exist has one "mean" row
    without a value, with the reason, and no densities.
    """
    values_BP = similarity(embeddings_BPD, grid)
    chance = _mean_cosine(embeddings_BPD)
    images = np.arange(len(values_BP))
    rows = []
    for kind in kinds:
        mean = score(QUESTION, "mean", backbone, values_BP, kind, images, chance)
        rows.append(mean)
        if mean.value is not None:
            rows += _densities(values_BP[kind.mask], kind.name, backbone)
    return rows


def _densities(cosines: np.ndarray, token: str, backbone: str) -> list[Measurement]:
    heights, _ = np.histogram(np.clip(cosines, -1, 1), BINS, density=True)
    centres = (BINS[1:] + BINS[:-1]) / 2
    return [
        Measurement(
            QUESTION,
            "density",
            backbone,
            float(height),
            token=token,
            coordinate="cosine",
            at=round(float(centre), 6),
            n=len(cosines),
        )
        for centre, height in zip(centres, heights)
    ]


def _mean_cosine(embeddings_BPD: np.ndarray) -> float:
    """Mean cosine of all ordered pairs of patches of all images, but of a patch with itself."""
    unit = _unit(embeddings_BPD).reshape(-1, embeddings_BPD.shape[-1])
    count = len(unit)
    total = unit.sum(0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
