"""What a kind of tokens is made of: a constant, something of its image, and something of its own.

Outliers that store global information (paper, section 2.2) differ from image to image and agree
within one; "massive activations" are nearly the same in all (Sun et al., arXiv 2402.17762, section
2). Both have high norms. Variance components of a one-way random-effects model tell them apart
without labels. They come from means of products of pairs, which have no bias from small numbers;
the shares are ratios of such means, and of few images they are rough.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Shares of the mean square of a token that is drawn from all, which add up to 1.

    constant: the same in all images. image: differs from image to image and is the same for all
    tokens of one. own: differs from token to token within an image. A true share of 0 may be
    estimated as slightly negative. image and own are None where no image has two tokens, which
    leaves them together: 1 - constant.

    images, tokens: of how many.
    """

    constant: float
    image: float | None
    own: float | None
    images: int
    tokens: int


class Totals:
    """Running numbers of which components are made; each image comes with all its tokens at once.

    Their size does not grow with the number of images.
    """

    def __init__(self) -> None:
        self.sum: float | np.ndarray = 0.0  # (D,) of all tokens
        self.square = 0.0  # of all tokens
        self.square_of_sums = 0.0  # |sum of an image's tokens|^2, over images
        self.images = self.tokens = 0
        self.pairs_within = 0  # ordered, of two tokens of an image
        self.own = self.square_paired = 0.0  # of images with two tokens or more

    def add(self, sums_ID: np.ndarray, count_I: np.ndarray, squares_I: np.ndarray) -> None:
        """Of each image the sum of its tokens, (I, D), their number, (I,), and the sum of their
        squares, (I,)."""
        sums, squares = np.asarray(sums_ID, np.float64), np.asarray(squares_I, np.float64)
        count = np.asarray(count_I, np.int64)
        square_of_sums = (sums**2).sum(1)
        self.sum = self.sum + sums.sum(0)
        self.square += float(squares.sum())
        self.square_of_sums += float(square_of_sums.sum())
        self.images += int((count > 0).sum())
        self.tokens += int(count.sum())
        self.pairs_within += int((count * (count - 1)).sum())
        paired = count > 1
        n, square = count[paired], squares[paired]
        # n times the mean square less the mean product of two
        self.own += float((square - (square_of_sums[paired] - square) / (n - 1)).sum())
        self.square_paired += float(square.sum())

    def components(self) -> Components | None:
        """None where no two tokens are of different images, all are 0 or one is no number."""
        pairs_across = self.tokens * (self.tokens - 1) - self.pairs_within
        if not (pairs_across and self.square > 0 and np.isfinite(self.square)):
            return None
        across = (float(np.sum(self.sum**2)) - self.square_of_sums) / pairs_across
        constant = across / (self.square / self.tokens)
        if not self.square_paired:
            return Components(constant, None, None, self.images, self.tokens)
        own = self.own / self.square_paired
        return Components(constant, 1 - constant - own, own, self.images, self.tokens)


def components(tokens_ND: np.ndarray, image_N: np.ndarray) -> Components | None:
    """Of tokens, (N, D), each with the number of its image, (N,), in any order; None as
    `Totals.components`."""
    x = np.asarray(tokens_ND, np.float64)
    numbers, place = np.unique(image_N, return_inverse=True)
    sums = np.zeros((len(numbers), x.shape[1]))
    np.add.at(sums, place, x)
    totals = Totals()
    totals.add(sums, np.bincount(place), np.bincount(place, (x**2).sum(1)))
    return totals.components()
