"""Does a patch token still know where it is? Position as classification over grid cells.

Fig. 5b and Table 5 (paper, section 2.2).
"""

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measured, Measurement
from registers.probes.kinds import Kind, bank_kinds, halves, hold_out, score
from registers.probes.solvers import logistic_path
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings

QUESTION = "position"
# C; the paper states no training settings. Tokens are many, so the ends do not matter.
STRENGTHS = 10.0 ** np.linspace(-4, 2, 7)


def measure(bank: TokenBank, data: list[EvaluationSet], settings: Settings) -> Measured:
    kinds = bank_kinds(bank, fixed=settings.cutoff_of(bank.name))
    return Measured(locate(bank.final_tokens().patches, bank.grid, kinds, backbone=bank.name))


def locate(
    patches_BPD: np.ndarray,
    grid: tuple[int, int],
    kinds: list[Kind],
    *,
    backbone: str,
    strengths: np.ndarray = STRENGTHS,
    seed: int = 0,
) -> list[Measurement]:
    """One linear classifier over the P = h * w cells of the grid; scores by kind of token.

    It is trained on all patch tokens of the training images: multinomial logistic regression by
    L-BFGS. Half of the images train, half test (`halves`); C is the best of `strengths` on a tenth
    of the training images, and that fit is used as it is.

    patches_BPD: row by row as the grid.
    kinds: masks (B, P).
    backbone: its id, for the rows.
    strengths: of C, as scikit-learn defines it.
    seed: of the halves.

    Rows, on test images: "top1" (0 to 1, chance 1 / P) and "distance", the mean Euclidean distance
    between predicted and true cell in patch units (chance: a cell guessed uniformly). Intervals by
    bootstrap over images. None where the kind does not exist. Raises ValueError where the grid does
    not fit.
    """
    images, count, width = patches_BPD.shape
    h, w = grid
    if h * w != count:
        raise ValueError(f"grid: {h} x {w} is not allowed; must have {count} patches")
    cells = np.arange(count)
    train, test = halves(images, seed)
    held, kept = hold_out(train)

    # --- fit all strengths, keep the best
    path = logistic_path(
        patches_BPD[kept].reshape(-1, width), np.tile(cells, len(kept)), strengths, tolerance=1e-5
    )
    guesses = path.predict(patches_BPD[held].reshape(-1, width))
    best = (guesses == np.tile(cells, len(held))).sum(1).argmax()

    # --- test it
    tokens = patches_BPD[test].reshape(-1, width)
    logits = tokens @ path.coefficients[best].T + path.intercepts[best]
    predicted = path.classes[logits.argmax(1)].reshape(len(test), count)
    apart = _distances(h, w)
    metrics = {
        "top1": (predicted == cells, 1 / count),
        "distance": (apart[predicted, cells], float(apart.mean())),
    }
    return [
        score(QUESTION, metric, backbone, values, kind, test, chance)
        for kind in kinds
        for metric, (values, chance) in metrics.items()
    ]


def _distances(h: int, w: int) -> np.ndarray:
    """(P, P) distances between the cells of a grid, in patches."""
    cells = np.arange(h * w)
    place = np.stack([cells // w, cells % w], axis=1).astype(np.float64)
    return np.linalg.norm(place[:, None] - place[None], axis=-1)
