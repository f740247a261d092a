"""Outliers: is there a second, higher mode of token norms, and where does it begin? Pure functions on norms, no files.

A quantile as cut-off finds "outliers" in anything, so none is used here. `find_cutoff` asks whether the norms have a second mode
and says "no second mode" with the reason where they have not. Norms are taken after the last block, before the final norm
(paper, section 2.1); a cut-off belongs to one backbone (the paper's 150 to DINOv2 ViT-g).
"""

from dataclasses import dataclass

import numpy as np

MIN_RATIO = 2.0  # second mode over median. Outliers: "roughly 10x higher" (section 2.1, ViT-g); parts of one picture: below 2x
MAX_SHARE = 0.2  # outliers are a minority: 2.37 % of ViT-g's patches (section 2.1); up to 20 % leaves room for small models
MAX_DEPTH = 0.5  # the valley is at most half as dense as the second mode
MIN_Z_TOKENS = 4.0  # the second mode is denser than the valley by 4 standard errors: 16 tokens against an empty valley
MIN_Z_IMAGES = 2.0  # and by 2 standard errors when whole images are the units: one odd picture is no second mode
MIN_TOKENS = 64  # fewer norms say nothing about modes
BIN = 0.05  # of log-norm: 5 % of a norm
WIDTHS = (2, 4, 8, 16)  # bands compared, in bins: factors of 1.1 to 2.2


@dataclass(frozen=True)
class Cutoff:
    """Where outliers begin. value: tokens above it are outliers; None where there is no second mode, hence no outlier.

    share: of all tokens, above the value. method: "valley", "fixed" or "high-norm tail". second_mode: whether the norms have
    one (also said when the value was given by hand). reason: the evidence, or why there is no second mode, one line.
    """

    value: float | None
    share: float
    method: str
    second_mode: bool
    reason: str

    def mask(self, norms):
        """True where a token is above the value; same shape and library (numpy or torch) as norms."""
        return norms > (np.inf if self.value is None else self.value)


def find_cutoff(norms, fixed: float | None = None) -> Cutoff:
    """The cut-off between the two modes of patch norms, or the verdict that there is no second mode.

    norms: (B, P), images by patches, or any one-dimensional set of norms; numpy or torch; at least 64 finite numbers >= 0.
    fixed: a hand-picked cut-off, used as it is (paper: 150 for ViT-g); whether there is a second mode is reported all the same.

    The test: in a distribution with one mode the density of log-norm falls all the way above that mode, so of two bands of
    equal width the upper one holds no more tokens, whatever the shape (skewed, heavy-tailed...). All pairs of bands above the
    median are compared, over four widths; z = (upper - lower) / sqrt(upper + lower) says how surely the upper one is denser.
    Tokens of an image are not independent, so the same difference is also tested with images as the units (robust variance).
    The upper band must lie at least 2x above the median, the valley be at most half as dense, and the tokens above it be
    at most 20 %. The cut-off is the middle, in log-norm, of the emptiest stretch of the valley.

    Raises ValueError: fewer than 64 norms, NaN, infinite or negative norms, a median of 0, a cut-off that is not positive.
    """
    norms = _checked(norms)
    if fixed is not None and not fixed > 0:
        raise ValueError(f"cutoff = {fixed}: allowed are numbers above 0")
    found = _second_mode(norms)
    if fixed is None:
        return found
    share = float((norms > fixed).mean())
    return Cutoff(
        float(fixed), share, "fixed", found.second_mode, f"chosen by hand; {found.reason}"
    )


def high_norm_tail(norms, share: float = 0.02) -> Cutoff:
    """The highest norms, `share` of all tokens: for showing a tail where there is no second mode. These are not outliers.

    Raises ValueError for norms as in `find_cutoff` and for a share outside 0 to 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share = {share}: allowed are numbers between 0 and 1")
    values = np.sort(_checked(norms), axis=None)
    value = float(values[-1 - max(1, round(share * values.size))])
    above = float((values > value).mean())
    return Cutoff(
        value,
        above,
        "high-norm tail",
        False,
        f"the {share:.3g} of highest norms; a quantile, not a second mode",
    )


def statistics(norms) -> dict[str, float]:
    """Cheap signs of outliers, for logging while training. norms: any shape, numpy or torch.

    median, max, max_over_median; kurtosis: fourth standardised moment (3 for a normal distribution, 0 if all are equal);
    share_above_3x_median: of all tokens. Raises ValueError for empty or non-finite norms.
    """
    x = _numpy(norms).ravel()
    if not x.size or not np.isfinite(x).all():
        raise ValueError(
            f"norms: {x.size} values of which {int((~np.isfinite(x)).sum())} are NaN or infinite; allowed are finite numbers"
        )
    median, highest, deviation = float(np.median(x)), float(x.max()), x - x.mean()
    variance = float((deviation**2).mean())
    return {
        "median": median,
        "max": highest,
        "max_over_median": highest / median if median else 0.0,
        "kurtosis": float((deviation**4).mean()) / variance**2 if variance > 0 else 0.0,
        "share_above_3x_median": float((x > 3 * median).mean()),
    }


def _numpy(norms) -> np.ndarray:
    if hasattr(norms, "detach"):  # a torch tensor; this module does not import torch
        norms = norms.detach().float().cpu().numpy()
    return np.asarray(norms, dtype=np.float64)


def _checked(norms) -> np.ndarray:
    x = _numpy(norms)
    if x.size < MIN_TOKENS:
        raise ValueError(f"norms: {x.size} values; allowed are at least {MIN_TOKENS}")
    bad = int((~np.isfinite(x)).sum())
    if bad:
        raise ValueError(
            f"norms: {bad} of {x.size} are NaN or infinite; allowed are finite numbers"
        )
    if x.min() < 0 or np.median(x) == 0:
        raise ValueError(
            f"norms: smallest {x.min():.3g}, median {np.median(x):.3g}; allowed are numbers >= 0 with a median above 0"
        )
    return x


def _second_mode(norms: np.ndarray) -> Cutoff:
    """The test described in `find_cutoff`."""

    def none(reason: str) -> Cutoff:
        return Cutoff(None, 0.0, "valley", False, f"no second mode: {reason}")

    median = float(np.median(norms))
    u = np.log(
        np.maximum(norms, median) / median
    )  # log-norm over the median; what lies below plays no part
    u = np.minimum(u, 20.0)
    if u.max() < np.log(MIN_RATIO):
        return none(
            f"the largest norm is {np.exp(u.max()):.3g}x the median, a mode of outliers lies at least {MIN_RATIO:.3g}x above it"
        )

    bins = (u / BIN).astype(np.int64)
    tokens = np.where(norms > median, bins, -1)
    counts = np.bincount(
        tokens[tokens >= 0].ravel(), minlength=bins.max() + 1 + max(WIDTHS)
    ).astype(np.float64)
    above = (
        np.append(counts[::-1].cumsum()[::-1], 0) / norms.size
    )  # share of all tokens from a bin upwards
    best = None
    for width in WIDTHS:
        band = np.convolve(
            counts, np.ones(width), "valid"
        )  # band[i]: tokens in bins i .. i + width - 1
        lower, upper = np.arange(len(band))[:, None], np.arange(len(band))[None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            z = (band[upper] - band[lower]) / np.sqrt(band[upper] + band[lower])
        allowed = (lower + width <= upper) & ((upper + width / 2) * BIN >= np.log(MIN_RATIO))
        allowed &= (
            (band[lower] <= MAX_DEPTH * band[upper])
            & (band[upper] > 0)
            & (above[lower + width] <= MAX_SHARE)
        )
        z = np.where(allowed, z, -np.inf)
        i, j = np.unravel_index(z.argmax(), z.shape)
        if best is None or z[i, j] > best[0]:
            best = (float(z[i, j]), int(i), int(j), width)
    z, low, high, width = best
    if z < MIN_Z_TOKENS:
        valley = (
            f"significant valley (z = {z:.2g}, needed {MIN_Z_TOKENS:.2g})"
            if np.isfinite(z)
            else "valley"
        )
        return none(f"above the median the density of log-norm falls without a {valley}")

    images = norms.shape[0] if norms.ndim > 1 else norms.size
    tokens = tokens.reshape(images, -1)
    in_band = [((tokens >= start) & (tokens < start + width)).sum(1) for start in (low, high)]
    difference = (in_band[1] - in_band[0]).astype(np.float64)
    z_images = difference.sum() / np.sqrt((difference**2).sum())
    if z_images < MIN_Z_IMAGES:
        holders = int((in_band[1] > 0).sum())
        return none(
            f"the high norms come from too few images ({holders} of {images}; z = {z_images:.2g}, needed {MIN_Z_IMAGES:.2g})"
        )

    peak = high + int(counts[high : high + width].argmax())
    value = median * float(np.exp(_emptiest(counts, low, peak) * BIN))
    share = float((norms > value).mean())
    ratio = float(np.median(norms[norms > value])) / median
    return Cutoff(
        value,
        share,
        "valley",
        True,
        f"second mode at {ratio:.3g}x the median, z = {z:.3g} over tokens, {z_images:.3g} over images",
    )


def _emptiest(counts: np.ndarray, low: int, peak: int) -> float:
    """Middle (in bins) of the longest stretch of least density around bins low .. peak."""
    smooth = np.convolve(np.pad(counts, 1, mode="edge"), np.ones(3) / 3, "valid")
    start = low
    while start > 0 and smooth[start - 1] <= smooth[low : peak + 1].min():
        start -= 1  # the valley may reach further down than the band that was compared
    valley = smooth[start:peak]
    least = np.flatnonzero(valley <= valley.min())
    runs = np.split(least, np.flatnonzero(np.diff(least) > 1) + 1)
    longest = max(runs, key=len)
    return start + float(longest[0] + longest[-1] + 1) / 2
