"""What a kind of tokens is made of: a constant, something of its image, and something of its own.

Outliers that store global information (paper, section 2.2) differ from image to image and agree
within one; "massive activations" are nearly the same in all (Sun et al., arXiv 2402.17762, section
2). Both have high norms. Variance components of a one-way random-effects model tell them apart
without labels: means of products of pairs, which have no bias from small numbers.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Shares of the tokens' mean square, which add up to 1.

    constant: the same in all images. image: differs from image to image and is the same for all
    tokens of one. own: differs from token to token within an image. A share that is 0 is estimated
    as a little above or below it.
    """

    constant: float
    image: float
    own: float


def components(tokens_ND: np.ndarray, image_N: np.ndarray) -> Components | None:
    """Of some tokens, each with the number of its image; None as `from_sums`."""
    x = np.asarray(tokens_ND, np.float64)
    numbers, place = np.unique(image_N, return_inverse=True)
    sums = np.zeros((len(numbers), x.shape[1]))
    np.add.at(sums, place, x)
    return from_sums(sums, np.bincount(place, minlength=len(numbers)), float((x**2).sum()))


def from_sums(sums_ID: np.ndarray, count_I: np.ndarray, squares: float) -> Components | None:
    """Of tokens that were added up on the way: the sum of each image's, their number, and the sum
    of all squares. None where no two tokens are of different images or no two of the same, or all
    are 0."""
    sums, count = np.asarray(sums_ID, np.float64), np.asarray(count_I, np.float64)
    pairs_within = (count**2).sum() - count.sum()
    pairs_across = count.sum() ** 2 - (count**2).sum()
    if not (pairs_within and pairs_across and squares):
        return None
    within = ((sums**2).sum() - squares) / pairs_within
    across = ((sums.sum(0) ** 2).sum() - (sums**2).sum()) / pairs_across
    square = squares / count.sum()
    return Components(
        constant=float(across / square),
        image=float((within - across) / square),
        own=float(1 - within / square),
    )
