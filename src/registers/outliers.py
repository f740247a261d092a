"""Outliers: is there a second, higher mode of token norms, and where does it begin?

Pure functions on norms, no files. A quantile as cut-off finds "outliers" in anything, so none is
used here: `find_cutoff` asks whether the norms have a second mode, and answers "no second mode"
with the reason where they have not. Norms are taken after the last block, before the final norm
(paper, section 2.1). A cut-off belongs to one backbone (the paper's 150 to DINOv2 ViT-g).
"""

from dataclasses import dataclass

import numpy as np

from registers.norm_statistics import as_numbers

# What counts as a second mode.
# Its distance from the median: of the centre of the band in which it shows; the median of all
# that lies above the valley may be a little less. Outliers are "roughly 10x higher" (section 2.1,
# ViT-g); different parts of one picture stay below 2x.
MIN_RATIO = 2.0
# Outliers are a minority: 2.37 % of ViT-g's patches (section 2.1). 20 % leaves room for small
# models.
MAX_SHARE = 0.2
# The valley below it is at most half as dense as the mode.
MAX_DEPTH = 0.5
# The mode is denser than the valley by 4 standard errors: 16 tokens against an empty valley,
MIN_Z_TOKENS = 4.0
# and by 2 standard errors when whole images are the units: one odd picture is no second mode.
MIN_Z_IMAGES = 2.0
# Fewer norms say nothing about modes.
MIN_TOKENS = 64

# The histogram of log-norm in which modes are sought.
BIN = 0.05  # width of a bin in log-norm: 5 % of a norm
MAX_LOG = 20.0  # norms above e^20 medians share the last bin, so that the histogram stays small
WIDTHS = (4, 8, 16)  # widths of the bands compared, in bins: factors of 1.2 to 2.2


@dataclass(frozen=True)
class Cutoff:
    """Where outliers begin.

    value: tokens with a higher norm are outliers; None where there is no second mode, hence none.
    share: of all tokens, how many lie above the value.
    method: "valley", "fixed" or "high-norm tail".
    second_mode: whether the norms have one (also answered when the value was given by hand).
    reason: the evidence, or why there is no second mode, in one line.
    """

    value: float | None
    share: float
    method: str
    second_mode: bool
    reason: str

    def mask(self, norms):
        """True where a token is above the value; of norms' shape and library (numpy or torch)."""
        return norms > (np.inf if self.value is None else self.value)


def find_cutoff(norms, fixed: float | None = None) -> Cutoff:
    """The cut-off between the two modes of patch norms, or the finding that there is one mode.

    norms: (B, P), images by patches, or any one-dimensional set of norms; numpy or torch; at least
    64 finite numbers >= 0. fixed: a hand-picked cut-off, used as it is (paper: 150 for ViT-g);
    whether there is a second mode is reported all the same.

    The test: in a distribution with one mode the density of norms falls all the way above that
    mode, whatever the shape (skewed, heavy-tailed...). All pairs of bands above the median are
    compared, of equal width in log-norm, over three widths. The upper one spans r times as many
    norms, so a density that falls gives it at most r times the tokens of the lower one;
    z = (upper - r lower) / sqrt(upper + r^2 lower) measures how surely it holds more. Tokens of one
    image are not independent, so the same difference is also tested with images as the units
    (robust variance). The upper band must lie at least 2x above the median, the valley be at most
    half as dense, and the tokens above the cut-off be at most 20 %. The cut-off is the middle, in
    log-norm, of the emptiest stretch of the valley.

    Outliers stand out of their own image: norms over each image's median must pass the same test,
    or a few images that are bright as a whole would be a second mode.

    Raises ValueError: fewer than 64 norms, NaN, infinite or negative norms, a median of 0, a
    cut-off that is not positive.
    """
    norms = _checked(norms)
    if fixed is not None and not fixed > 0:
        raise ValueError(f"cutoff: {fixed} is not allowed; must be a number above 0")
    tested = _second_mode(norms)
    if tested.second_mode and norms.ndim > 1:
        tested = _inside_images(tested, norms)
    if fixed is None:
        return tested
    share = float((norms > fixed).mean())
    reason = f"chosen by hand; {tested.reason}"
    return Cutoff(float(fixed), share, "fixed", tested.second_mode, reason)


def high_norm_tail(norms, share: float = 0.02) -> Cutoff:
    """The highest norms, `share` of all tokens: a tail to show where there is no second mode.

    These are not outliers. Raises ValueError for norms as in `find_cutoff` and for a share outside
    0 to 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: {share} is not allowed; must be a number between 0 and 1")
    ascending = np.sort(_checked(norms), axis=None)
    value = float(ascending[-1 - max(1, round(share * ascending.size))])
    above = float((ascending > value).mean())
    reason = f"the {share:.3g} of highest norms; a quantile, not a second mode"
    return Cutoff(value, above, "high-norm tail", False, reason)


# --- the test for a second mode


@dataclass(frozen=True)
class _Rise:
    """Two bands of the histogram of which the upper one is denser, as one mode cannot explain.

    lower, upper: first bin of each band; width: of both, in bins. z: standard errors between them,
    tokens being the units; -inf where no pair of bands qualifies.
    """

    lower: int
    upper: int
    width: int
    z: float


def _second_mode(norms: np.ndarray) -> Cutoff:
    """The test that `find_cutoff` describes."""
    median = float(np.median(norms))
    log_norms = np.minimum(np.log(np.maximum(norms, median) / median), MAX_LOG)

    # --- does anything lie high enough?
    if log_norms.max() < np.log(MIN_RATIO):
        return _one_mode(
            f"the largest norm is {np.exp(log_norms.max()):.3g}x the median, "
            f"a mode of outliers lies at least {MIN_RATIO:.3g}x above it"
        )

    # --- does the density rise again above the median?
    bins = (log_norms / BIN).astype(np.int64)
    bins[norms <= median] = -1  # the lower half plays no part
    counts = _histogram(bins)
    rise = max((_clearest_rise(counts, norms.size, width) for width in WIDTHS), key=lambda r: r.z)
    if rise.z < MIN_Z_TOKENS:
        z = f" (z = {rise.z:.2g}, needed {MIN_Z_TOKENS:.2g})" if np.isfinite(rise.z) else ""
        valley = f"significant valley{z}" if z else "valley"
        return _one_mode(f"above the median the density of norms falls without a {valley}")

    # --- does it in many images?
    images = norms.shape[0] if norms.ndim > 1 else norms.size
    in_lower, in_upper = _per_image(bins.reshape(images, -1), rise)
    wider = np.exp((rise.upper - rise.lower) * BIN)
    z_images = _z_over_images(in_upper - wider * in_lower)
    if z_images < MIN_Z_IMAGES:
        holders = int((in_upper > 0).sum())
        return _one_mode(
            f"the high norms come from too few images ({holders} of {images}; "
            f"z = {z_images:.2g}, needed {MIN_Z_IMAGES:.2g})"
        )

    # --- where is the valley emptiest?
    peak = rise.upper + int(counts[rise.upper : rise.upper + rise.width].argmax())
    value = median * float(np.exp(_emptiest(counts, rise.lower, peak) * BIN))
    above = norms > value
    if above.mean() > MAX_SHARE:
        return _one_mode(
            f"{100 * above.mean():.3g} % of tokens lie above the valley, "
            f"outliers are at most {100 * MAX_SHARE:.3g} %"
        )
    ratio = float(np.median(norms[above])) / median
    evidence = (
        f"second mode at {ratio:.3g}x the median, "
        f"z = {rise.z:.3g} over tokens, {z_images:.3g} over images"
    )
    return Cutoff(value, float(above.mean()), "valley", True, evidence)


def _inside_images(cutoff: Cutoff, norms: np.ndarray) -> Cutoff:
    """The same finding, unless the high norms are those of whole images."""
    medians = np.median(norms, axis=tuple(range(1, norms.ndim)), keepdims=True)
    inside = _second_mode(norms / np.where(medians > 0, medians, np.median(norms)))
    if inside.second_mode:
        return cutoff
    reason = inside.reason.removeprefix("no second mode: ")
    return _one_mode(f"there is one over all images, but none inside them: {reason}")


def _one_mode(reason: str) -> Cutoff:
    return Cutoff(None, 0.0, "valley", False, f"no second mode: {reason}")


def _histogram(bins: np.ndarray) -> np.ndarray:
    """Tokens in each bin, float64; ends in as many empty bins as the widest band has."""
    above_median = bins[bins >= 0]
    length = bins.max() + 1 + max(WIDTHS)
    return np.bincount(above_median, minlength=length).astype(np.float64)


def _clearest_rise(counts: np.ndarray, tokens: int, width: int) -> _Rise:
    """The pair of bands of this width with the highest z among those that qualify.

    counts: tokens in each bin above the median. tokens: how many there are in all.
    """
    # band[i]: tokens in bins i .. i + width - 1
    band = np.convolve(counts, np.ones(width), "valid")
    share_above = np.append(counts[::-1].cumsum()[::-1], 0) / tokens  # from a bin upwards
    lower = np.arange(len(band))[:, None]
    upper = np.arange(len(band))[None, :]
    wider = np.exp((upper - lower) * BIN)  # the upper band spans so many times more norms
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        expected = wider * band[lower]
        z = (band[upper] - expected) / np.sqrt(band[upper] + wider * expected)
    qualifies = (
        (lower + width <= upper)
        & ((upper + width / 2) * BIN >= np.log(MIN_RATIO))
        & (band[lower] <= MAX_DEPTH * band[upper])
        & (band[upper] > 0)
        & (share_above[lower + width] <= MAX_SHARE)
    )
    z = np.where(qualifies, z, -np.inf)
    i, j = np.unravel_index(z.argmax(), z.shape)
    return _Rise(lower=int(i), upper=int(j), width=width, z=float(z[i, j]))


def _per_image(bins_BP: np.ndarray, rise: _Rise) -> tuple[np.ndarray, np.ndarray]:
    """(B,) tokens of each image in the lower and in the upper band."""
    lower, upper = (
        ((bins_BP >= start) & (bins_BP < start + rise.width)).sum(1)
        for start in (rise.lower, rise.upper)
    )
    return lower, upper


def _z_over_images(difference_B: np.ndarray) -> float:
    """Standard errors by which the sum of the images' differences is above 0 (robust variance)."""
    difference = difference_B.astype(np.float64)
    return float(difference.sum() / np.sqrt((difference**2).sum()))


def _emptiest(counts: np.ndarray, lower: int, peak: int) -> float:
    """Middle, in bins, of the longest stretch of least density from bin `lower` to bin `peak`.

    The valley may reach further down than the band that was compared; its lower end is sought.
    """
    smooth = np.convolve(np.pad(counts, 1, mode="edge"), np.ones(3) / 3, "valid")
    least = smooth[lower : peak + 1].min()
    start = lower
    while start > 0 and smooth[start - 1] <= least:
        start -= 1
    valley = smooth[start:peak]
    emptiest = np.flatnonzero(valley <= valley.min())
    stretches = np.split(emptiest, np.flatnonzero(np.diff(emptiest) > 1) + 1)
    longest = max(stretches, key=len)
    return start + float(longest[0] + longest[-1] + 1) / 2


# --- input


def _checked(norms) -> np.ndarray:
    x = as_numbers(norms)
    if x.size < MIN_TOKENS:
        raise ValueError(f"norms: {x.size} values; must be at least {MIN_TOKENS}")
    bad = int((~np.isfinite(x)).sum())
    if bad:
        raise ValueError(f"norms: {bad} of {x.size} are NaN or infinite; must be finite")
    median = np.median(x)
    if x.min() < 0 or median == 0:
        raise ValueError(
            f"norms: smallest {x.min():.3g}, median {median:.3g}; "
            "must be at least 0, with a median above 0"
        )
    return x
