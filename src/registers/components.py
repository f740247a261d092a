"""What a kind of tokens is made of: a constant, something of its image, and something of its own.

Outliers that store global information (paper, section 2.2) differ from image to image and agree
within one; "massive activations" are nearly the same in all (Sun et al., arXiv 2402.17762, section
2). Both have high norms. Variance components of a one-way random-effects model tell them apart
without labels. With S the sum of an image's n tokens and Q that of their squares:

square = sum Q / sum n            the mean square of a token
own = sum n (Q/n - W) / sum n     W = (|S|^2 - Q) / (n (n - 1)), the mean product of its pairs
constant = (|sum S|^2 - sum |S|^2) / ((sum n)^2 - sum n^2), the mean product across images
image = square - own - constant

All four are of a token drawn at random from all those of images with at least two, so an image with
more tokens weighs more. Weighed by its pairs within instead, shares would leave 0 to 1 where images
with more tokens have larger ones. The four have no bias where counts do not depend on the tokens.
Shares are ratios of them, and those of few images are far off by chance: a share of the image of
0.8, along four directions and with four tokens in each image, is estimated in nine draws of ten as
0.16 to 1.48 with 2 images, 0.63 to 0.94 with 10, and 0.70 to 0.89 with 24.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Shares of a token's mean square, without unit, which add up to 1.

    constant: the same in all images. image: differs from image to image and is the same for all
    tokens of one. own: differs from token to token within an image, never below 0. A true share of
    0 may be estimated as slightly negative. image and own are None where only the constant can be
    told, as too few images have two tokens.
    images, tokens: how many the shares rest on. effective_images: (sum n)^2 / sum n^2 of images
    with n tokens, as many as `images` where all have equally many, and fewer where some dominate.
    """

    constant: float
    image: float | None
    own: float | None
    images: int
    tokens: int
    effective_images: float


def components(tokens_ND: np.ndarray, image_N: np.ndarray) -> Components | None:
    """Of tokens (N, D), each with the number of its image (N,), in any order; see `Sums.shares`.

    None where fewer than two images have two tokens, and where tokens are all 0 or not all finite.
    """
    x = np.asarray(tokens_ND, np.float64)
    numbers, place = np.unique(image_N, return_inverse=True)
    sums = np.zeros((len(numbers), x.shape[1]))
    np.add.at(sums, place, x)
    squares = np.bincount(place, (x**2).sum(1), len(numbers))
    added = Sums()
    added.add(sums, squares, np.bincount(place, minlength=len(numbers)))
    found = added.shares()
    return found if found is not None and found.image is not None else None


class Sums:
    """Tokens of one kind, added up some images at a time.

    It holds two vectors (D,) and a few numbers, whatever the number of images. every: all tokens.
    paired: those of images with at least two, as one alone does not tell its own from its image's.
    """

    def __init__(self) -> None:
        self.every, self.paired = Running(), Running()

    def add(self, sums_ID: np.ndarray, squares_I: np.ndarray, count_I: np.ndarray) -> None:
        """Add images that were not added before.

        sums_ID: (I, D), the sum of each image's tokens. squares_I: (I,), the sum of the squares of
        all their channels. count_I: (I,), how many they are; 0 is allowed.
        """
        for running, least in ((self.every, 1), (self.paired, 2)):
            kept = np.asarray(count_I) >= least
            running.add(*(np.asarray(a)[kept] for a in (sums_ID, squares_I, count_I)))

    def shares(self, least: float = 0.0) -> Components | None:
        """Shares of a token drawn at random from all those of images with at least two.

        Where these images are too few, only the constant, of all tokens. Too few are fewer than
        two, or effectively fewer than `least`. None where all images are too few, and where tokens
        are all 0 or not all finite.
        """
        if self.paired.tell(least):
            constant, own = self.paired.constant(), self.paired.own / self.paired.squares
            return self.paired.components(constant, 1 - constant - own, own)
        if self.every.tell(least):
            return self.every.components(self.every.constant(), None, None)
        return None


@dataclass
class Running:
    """Sums over images, in the module's letters: of 1, n, n^2, S (D,), |S|^2, Q and n (Q/n - W)."""

    images: int = 0
    tokens: int = 0
    tokens_squared: int = 0
    sum_D: np.ndarray | float = 0.0
    sums_squared: float = 0.0
    squares: float = 0.0
    own: float = 0.0

    def add(self, sums_ID: np.ndarray, squares_I: np.ndarray, count_I: np.ndarray) -> None:
        sums, count = sums_ID.astype(np.float64), count_I.astype(np.int64)
        lengths = (sums**2).sum(1)
        with np.errstate(invalid="ignore"):  # of infinite tokens, which have no shares
            apart = np.maximum(count * squares_I - lengths, 0)  # below 0 by rounding alone
        self.images += len(count)
        self.tokens += int(count.sum())
        self.tokens_squared += int((count**2).sum())
        self.sum_D = self.sum_D + sums.sum(0)
        self.sums_squared += float(lengths.sum())
        self.squares += float(squares_I.sum())
        self.own += float((apart / np.maximum(count - 1, 1)).sum())

    @property
    def effective_images(self) -> float:
        return self.tokens**2 / self.tokens_squared if self.tokens else 0.0

    def tell(self, least: float) -> bool:
        """Whether these tokens have shares, with at least so many effective images."""
        enough = self.images > 1 and self.effective_images >= least
        return enough and bool(np.isfinite(self.squares)) and self.squares > 0

    def constant(self) -> float:
        pairs = self.tokens**2 - self.tokens_squared
        across = ((self.sum_D**2).sum() - self.sums_squared) / pairs
        return float(across / (self.squares / self.tokens))

    def components(self, constant: float, image: float | None, own: float | None) -> Components:
        return Components(constant, image, own, self.images, self.tokens, self.effective_images)
