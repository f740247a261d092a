"""Does a patch token still hold its pixels? Linear reconstruction.

Fig. 5b and Table 5 (paper, section 2.2).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from registers.bank import TokenBank
from registers.data.sample import Dataset
from registers.data.transforms import evaluation
from registers.measurements import Measured, Measurement
from registers.probes.kinds import Kind, bank_kinds, halves, hold_out, score
from registers.probes.solvers import ridge
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings

QUESTION = "reconstruction"
STRENGTHS = 10.0 ** np.linspace(-6, 8, 29)  # ridge penalties; the paper states no training settings


def measure(bank: TokenBank, data: list[EvaluationSet], settings: Settings) -> Measured:
    """`reconstruct` on a bank's sample and the pixels that it was made from."""
    kinds = bank_kinds(bank, fixed=settings.cutoff_of(bank.name))
    patches = bank.final_tokens().patches
    return Measured(reconstruct(patches, pixels(bank, data[0].val), kinds, backbone=bank.name))


def patchify(images_B3HW: Tensor, patch: int) -> Tensor:
    """(B, P, 3 * patch^2) pixels of each patch: colour, row, column within.

    Patches come row by row, as the ViT's tokens do.
    """
    return F.unfold(images_B3HW, patch, stride=patch).transpose(1, 2)


def pixels(bank: TokenBank, dataset: Dataset) -> np.ndarray:
    """(sample, P, 3 * patch^2) float32: normalised pixels of each patch, as the backbone saw them.

    dataset: the one from which the bank was written; a ValueError says when it is not.
    """
    recorded = bank.index["fingerprint"]
    if dataset.fingerprint != recorded:
        raise ValueError(
            f"data set with fingerprint {dataset.fingerprint:.12}: "
            f"must be {recorded:.12}, from which the bank was written"
        )
    mean, std = bank.index["normalization"]
    transform = evaluation(bank.index["size"], normalization=(tuple(mean), tuple(std)))
    parts = [
        patchify(transform(dataset[i].image)[None], bank.index["patch"]) for i in range(bank.sample)
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
    """One linear map from token to pixels; its error by kind of token.

    It is trained on all patch tokens of the training images. Half of the images train, half test
    (`halves`); the ridge penalty is the best of `strengths` on a tenth of the training images.

    patches_BPD: tokens.
    pixels_BPK: normalised pixels of the same patches.
    kinds: masks (B, P).
    backbone: its id, for the rows.
    strengths: ridge penalties.
    seed: of the halves.

    Rows "l2": mean over tokens of the un-squared L2 norm of a patch's error, which is the scale of
    the paper's 18.38 and 25.23 (sqrt(588) = 24.2 is the norm of a patch of unit variance). Chance:
    the mean patch of the training images, for the same tokens. Intervals by bootstrap over images.
    None where the kind does not exist. Raises ValueError where tokens and pixels do not match.
    """
    if patches_BPD.shape[:2] != pixels_BPK.shape[:2]:
        raise ValueError(
            f"pixels of {pixels_BPK.shape[:2]} images and patches: "
            f"must be those of the tokens, {patches_BPD.shape[:2]}"
        )
    train, test = halves(len(patches_BPD), seed)
    held, kept = hold_out(train)

    def flat(values: np.ndarray, images: np.ndarray) -> np.ndarray:
        return values[images].reshape(-1, values.shape[-1])

    # --- fit all strengths, keep the best
    model = ridge(flat(patches_BPD, kept), flat(pixels_BPK, kept), strengths)
    best = int(model.errors(flat(patches_BPD, held), flat(pixels_BPK, held)).argmin())

    # --- test it
    truth = pixels_BPK[test]
    predicted = model.predict(flat(patches_BPD, test), best).reshape(truth.shape)
    error = np.linalg.norm(predicted - truth, axis=-1)
    guess = np.linalg.norm(flat(pixels_BPK, train).mean(0) - truth, axis=-1)
    return [score(QUESTION, "l2", backbone, error, kind, test, guess) for kind in kinds]
