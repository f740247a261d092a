"""Words and grids that rows, figures, tables and claims share, each written down once."""

# Kinds of patch tokens by their output norm (probes/kinds.py tells them apart).
NORMAL = "normal"
OUTLIER = "outlier"
# the tail is a quantile, shown where there is no second mode, and never called outliers
TAIL = "high-norm tail (2 %)"

IGNORE = 255  # the value of a mask that no metric counts

# Histograms of norms (question "norms", metric "count"): logarithmic bins on a grid that all
# backbones share, so that a bin is known by its middle. Each is 10^(1/40), 5.9 % of a norm, wide.
BINS_PER_DECADE = 40


def bin_edges(middle: float) -> tuple[float, float]:
    """Lower and upper edge of the histogram bin with this geometric middle."""
    half = 10 ** (0.5 / BINS_PER_DECADE)
    return middle / half, middle * half


def added(registers: int) -> str:
    """1 test-time register, 4 test-time registers."""
    return f"{registers} test-time register{'s' if registers > 1 else ''}"
