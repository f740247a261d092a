"""Does a patch token still know where it is? Position as classification over grid cells: Fig. 5b and Table 5 (section 2.2)."""

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measurement
from registers.models.sequence import split_tokens
from registers.probes.kinds import Kind, bank_kinds, halves, standardised
from registers.probes.solvers import bootstrap, logistic_path

QUESTION = "position"
STRENGTHS = 10.0 ** np.linspace(
    -4, 2, 7
)  # C; the paper states no training settings. Tokens are many, so the ends do not matter
HELD_OUT = 0.1  # share of training images on which C is chosen


def locate(
    patches_BPD: np.ndarray,
    grid: tuple[int, int],
    kinds: list[Kind],
    *,
    backbone: str,
    strengths: np.ndarray = STRENGTHS,
    seed: int = 0,
) -> list[Measurement]:
    """One linear classifier over the P = h * w cells, trained on all patch tokens of the training images; scores by kind of token.

    patches_BPD: (B, P, D), row by row as the grid. kinds: masks (B, P). Half of the images train, half test (`halves`). C is the
    best of `strengths` on a tenth of the training images; that fit is used as it is. Multinomial logistic regression by L-BFGS.

    Rows, on test images: "top1" (0 to 1, chance 1 / P) and "distance", the mean Euclidean distance between predicted and true
    cell in patch units (chance: a cell guessed uniformly). Intervals by bootstrap over images. None where the kind does not exist.
    Raises ValueError where the grid does not fit.
    """
    images, count, width = patches_BPD.shape
    h, w = grid
    if h * w != count:
        raise ValueError(f"grid = {h} x {w}: allowed are grids of {count} patches")
    cells = np.arange(count)
    place = np.stack([cells // w, cells % w], axis=1).astype(np.float64)
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1)  # (P, P), patch units

    train, test = halves(images, seed)
    held, kept = hold_out(train)
    x = patches_BPD.reshape(images * count, width)
    y = np.tile(cells, images).reshape(images, count)
    rows_of = np.arange(images * count).reshape(images, count)
    path = logistic_path(x[rows_of[kept].ravel()], y[kept].ravel(), strengths, tolerance=1e-5)
    guesses = path.predict(x[rows_of[held].ravel()])
    best = (guesses == y[held].ravel()).sum(1).argmax()
    logits = x[rows_of[test].ravel()] @ path.coefficients[best].T + path.intercepts[best]
    predicted = path.classes[logits.argmax(1)].reshape(len(test), count)
    right, distance = predicted == cells, apart[predicted, cells]

    rows = []
    for kind in kinds:
        for metric, values, chance in (
            ("top1", right, 1 / count),
            ("distance", distance, float(apart.mean())),
        ):
            rows.append(score(QUESTION, metric, values, kind, test, backbone, chance))
    return rows


def hold_out(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tenth of the training images (`halves` has shuffled them) to choose a strength on, and the rest to fit."""
    count = max(1, round(HELD_OUT * len(train)))
    return (train[:count], train[count:]) if len(train) > 1 else (train, train)


def score(
    question: str,
    metric: str,
    values_TP: np.ndarray,
    kind: Kind,
    test: np.ndarray,
    backbone: str,
    chance,
) -> Measurement:
    """One row: mean of values over the tokens of a kind, with its interval over images. values_TP: (test images, P).

    chance: a number, or values (test images, P) of guessing, averaged over the same tokens.
    """
    common = dict(question=question, metric=metric, backbone=backbone, token=kind.name)
    mask = None if kind.mask is None else kind.mask[test]
    if mask is None or not mask.any():
        return Measurement(
            **common,
            value=None,
            note=kind.note if mask is None else "no such token in the test images",
        )
    value, low, high = bootstrap((values_TP * mask).sum(1), mask.sum(1))
    guess = float(chance[mask].mean()) if isinstance(chance, np.ndarray) else chance
    note = "; ".join(
        part for part in (kind.note, f"{mask.any(1).sum()} of {len(mask)} images") if part
    )
    return Measurement(
        **common, value=value, low=low, high=high, n=int(mask.sum()), chance=guess, note=note
    )


def position(
    bank: TokenBank, *, fixed: float | None = None, strengths: np.ndarray = STRENGTHS, seed: int = 0
) -> list[Measurement]:
    """`locate` on a bank's sample; tokens after the final norm (`standardised`). fixed: a cut-off chosen by hand."""
    patches = standardised(split_tokens(bank.outputs, bank.registers).patches)
    return locate(
        patches,
        bank.grid,
        bank_kinds(bank, fixed),
        backbone=bank.name,
        strengths=strengths,
        seed=seed,
    )
