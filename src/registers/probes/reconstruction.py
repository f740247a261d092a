"""Does a patch token still hold its pixels? Linear reconstruction: Fig. 5b and Table 5 (paper, section 2.2)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from registers.bank import TokenBank
from registers.data.sample import Dataset
from registers.data.transforms import evaluation
from registers.measurements import Measurement
from registers.models.sequence import split_tokens
from registers.probes.kinds import Kind, bank_kinds, halves, standardised
from registers.probes.position import hold_out, score
from registers.probes.solvers import ridge

QUESTION = "reconstruction"
STRENGTHS = 10.0 ** np.linspace(-6, 8, 29)  # ridge penalties; the paper states no training settings


def patchify(images_B3HW: Tensor, patch: int) -> Tensor:
    """(B, P, 3 * patch^2) pixels of each patch: colour, row, column within; patches row by row, as the ViT's tokens."""
    return F.unfold(images_B3HW, patch, stride=patch).transpose(1, 2)


def unpatchify(patches_BPK: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The images of `patchify`, (B, 3, H, W). grid: patches down and across."""
    return F.fold(
        patches_BPK.transpose(1, 2), (grid[0] * patch, grid[1] * patch), patch, stride=patch
    )


def pixels(bank: TokenBank, dataset: Dataset) -> np.ndarray:
    """(sample, P, 3 * patch^2) float32: normalised pixels of each patch of a bank's sample, seen as the bank saw them.

    dataset: the one the bank was written from; a ValueError says when it is not.
    """
    if dataset.fingerprint != bank.index["fingerprint"]:
        raise ValueError(
            f"dataset {dataset.fingerprint:.12}: the bank was written from {bank.index['fingerprint']:.12}"
        )
    look = evaluation(
        bank.index["size"], normalization=tuple(tuple(part) for part in bank.index["normalization"])
    )
    parts = [
        patchify(look(dataset[i].image)[None], bank.index["patch"]) for i in range(bank.sample)
    ]
    return torch.cat(parts).numpy()


def reconstruct(
    patches_BPD: np.ndarray,
    pixels_BPK: np.ndarray,
    kinds: list[Kind],
    *,
    backbone: str,
    strengths: Sequence[float] | np.ndarray = STRENGTHS,
    seed: int = 0,
) -> list[Measurement]:
    """One linear map from token to pixels, trained on all patch tokens of the training images; error by kind of token.

    patches_BPD: (B, P, D) tokens. pixels_BPK: (B, P, K) normalised pixels of the same patches. kinds: masks (B, P). Half of the
    images train, half test (`halves`); the ridge penalty is the best of `strengths` on a tenth of the training images.

    Rows "l2": mean over tokens of the un-squared L2 norm of the error of a patch, which is the scale of the paper's 18.38 and
    25.23 (sqrt(588) = 24.2 is the norm of a patch of unit variance). Chance: the mean patch of the training images, for the same
    tokens. Intervals by bootstrap over images. None where the kind does not exist.
    """
    if patches_BPD.shape[:2] != pixels_BPK.shape[:2]:
        raise ValueError(
            f"pixels of {pixels_BPK.shape[:2]} images and patches: allowed are those of the tokens, {patches_BPD.shape[:2]}"
        )
    train, test = halves(len(patches_BPD), seed)
    held, kept = hold_out(train)

    def flat(values: np.ndarray, images: np.ndarray) -> np.ndarray:
        return values[images].reshape(-1, values.shape[-1])

    model = ridge(flat(patches_BPD, kept), flat(pixels_BPK, kept), strengths)
    best = int(model.errors(flat(patches_BPD, held), flat(pixels_BPK, held)).argmin())
    truth, mean = pixels_BPK[test], flat(pixels_BPK, train).mean(0)
    predicted = model.predict(flat(patches_BPD, test), best).reshape(truth.shape)
    error, guess = np.linalg.norm(predicted - truth, axis=-1), np.linalg.norm(mean - truth, axis=-1)
    return [score(QUESTION, "l2", error, kind, test, backbone, guess) for kind in kinds]


def reconstruction(
    bank: TokenBank,
    pixels_BPK: np.ndarray,
    *,
    fixed: float | None = None,
    strengths=STRENGTHS,
    seed: int = 0,
    final_norm: bool = True,
) -> list[Measurement]:
    """`reconstruct` on a bank's sample; pixels_BPK from `pixels(bank, dataset)`.

    final_norm: tokens after the final norm (`standardised`), or before it. fixed: a cut-off chosen by hand.
    """
    patches = split_tokens(bank.outputs, bank.registers).patches
    patches = standardised(patches) if final_norm else np.asarray(patches, dtype=np.float32)
    return reconstruct(
        patches,
        pixels_BPK,
        bank_kinds(bank, fixed),
        backbone=bank.name,
        strengths=strengths,
        seed=seed,
    )
