"""Norms of a bank as rows: distributions by layer and kind of token, and what is above the cut-off.

Figs. 3, 4, 7 and 15.
"""

from functools import partial

import numpy as np

from registers.bank import TokenBank
from registers.intervals import bootstrap_images
from registers.measurements import Measured, Measurement
from registers.norm_statistics import statistics
from registers.outliers import find_cutoff, high_norm_tail
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings
from registers.vocabulary import BINS_PER_DECADE

QUESTION = "norms"
QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)  # per cent
LEVEL_DRAWS = 400  # bootstrap samples; a median over all tokens is slow
SMALLEST = 1e-6  # lower norms share its bin


def measure(bank: TokenBank, data: list[EvaluationSet], settings: Settings) -> Measured:
    return Measured(norm_rows(bank, fixed=settings.cutoff_of(bank.name)))


def norm_rows(bank: TokenBank, fixed: float | None = None) -> list[Measurement]:
    """All that the figures on norms draw, of one bank. fixed: a hand-picked cut-off.

    Distributions, layer 1..L for token "patch", the last layer also for "cls", "reg0"...; n is the
    number of tokens:
    - "count": tokens in one bin of norms, which `at` names by its geometric middle. Bins are
      logarithmic, the same for all backbones (vocabulary.bin_edges); empty ones are left out.
    - "q0", "q5", "q25", "q50", "q75", "q95", "q99", "q100": quantiles.

    Outliers, patches of the last layer; intervals by bootstrap over images, n is their number:
    - "second_mode": 1 or 0, the reason in the note.
    - "cutoff", and "share" above it; no value but the reason where there is no second mode (and no
      cut-off was given).
    - "outlier_level": the median norm above the cut-off over the median of all. A few freak tokens
      do not move it, unlike "max_over_median".
    - "first_layer": the lowest layer, as a share of all, from which on every layer has a second
      mode; no value where the last has none.
    - "high_norm_tail": the norm that 2 % of tokens exceed; not a cut-off for outliers.
    - "max_over_median" (its interval leaves the median as it is), "kurtosis",
      "share_above_3x_median".

    Registers, last layer, intervals likewise:
    - "registers_over_patches": the median of their norms over the norm that 99 % of patches stay
      below. Above 1, what norms are high are theirs.
    - "register_quantisation": share of the variance of their norms that lies between registers; 1
      where each has a norm of its own in all images. Needs at least two.
    """
    rows = []
    for layer in range(1, bank.layers + 1):
        for token, norms in _tokens(bank, layer).items():
            rows += _distribution(bank, layer, token, np.asarray(norms, dtype=np.float64).ravel())
    return rows + _outliers(bank, fixed) + _registers(bank)


def _tokens(bank: TokenBank, layer: int) -> dict[str, np.ndarray]:
    """Norms by kind of token: patches, after the last layer also [CLS] and registers."""
    norms = bank.split_norms(layer)
    if layer < bank.layers:
        return {"patch": norms.patches}
    registers = {f"reg{r}": norms.registers[:, r] for r in range(bank.registers)}
    return {"patch": norms.patches, "cls": norms.cls} | registers


def _distribution(bank: TokenBank, layer: int, token: str, norms: np.ndarray) -> list[Measurement]:
    """Histogram and quantiles of one kind of token after one layer. norms: (n,)."""
    common = dict(
        question=QUESTION,
        backbone=bank.name,
        data=bank.data,
        token=token,
        layer=layer,
        n=norms.size,
    )
    numbers = np.floor(np.log10(np.maximum(norms, SMALLEST)) * BINS_PER_DECADE)
    bins, counts = np.unique(numbers, return_counts=True)
    middles = [10 ** ((b + 0.5) / BINS_PER_DECADE) for b in bins]
    histogram = [
        Measurement(metric="count", value=int(count), coordinate="norm", at=middle, **common)
        for middle, count in zip(middles, counts)
    ]
    quantiles = [
        Measurement(metric=f"q{q}", value=float(value), **common)
        for q, value in zip(QUANTILES, np.percentile(norms, QUANTILES))
    ]
    return histogram + quantiles


def _outliers(bank: TokenBank, fixed: float | None) -> list[Measurement]:
    """Whether there is a second mode, where it begins, and cheap signs of it."""
    norms = np.asarray(bank.patch_norms(), dtype=np.float64)
    cutoff = find_cutoff(norms, fixed)
    tail = high_norm_tail(norms)
    signs = statistics(norms)
    median = signs["median"]

    row = partial(_row, bank, "patch")
    rows = [row("second_mode", int(cutoff.second_mode), note=cutoff.reason)]
    if cutoff.value is None:
        rows += [
            row(metric, None, note=cutoff.reason) for metric in ("cutoff", "share", "outlier_level")
        ]
    else:
        share = bootstrap_images(cutoff.mask(norms).mean(axis=1), np.mean)
        rows.append(row("cutoff", cutoff.value, note=f"{cutoff.method}: {cutoff.reason}"))
        rows.append(row("share", cutoff.share, share, note=cutoff.method))
        rows.append(row("outlier_level", *_level(norms, cutoff.value), note=cutoff.method))
    low, high = bootstrap_images(norms.max(axis=1), np.max)
    above = bootstrap_images((norms > 3 * median).mean(axis=1), np.mean)
    first = _first_layer(bank) if cutoff.second_mode else None
    return [
        *rows,
        row("first_layer", first, note=cutoff.reason),
        row("high_norm_tail", tail.value, note=tail.reason),
        row("max_over_median", signs["max_over_median"], (low / median, high / median)),
        row("kurtosis", signs["kurtosis"]),
        row("share_above_3x_median", signs["share_above_3x_median"], above),
    ]


def _row(
    bank: TokenBank,
    token: str,
    metric: str,
    value: float | None,
    interval: tuple[float | None, float | None] = (None, None),
    note: str = "",
) -> Measurement:
    """A row about the norms of all images after the last layer."""
    return Measurement(
        question=QUESTION,
        metric=metric,
        backbone=bank.name,
        value=value,
        data=bank.data,
        token=token,
        layer=bank.layers,
        low=interval[0],
        high=interval[1],
        n=len(bank),
        note=note,
    )


def _level(norms: np.ndarray, cutoff: float) -> tuple[float | None, tuple[float, float]]:
    """Median of the norms above the cut-off over the median of all, and its interval over images.

    None where no norm lies above a cut-off that was given by hand.
    """

    def level(norms: np.ndarray) -> float:
        above = norms[norms > cutoff]
        return float(np.median(above) / np.median(norms)) if len(above) else float("nan")

    value = level(norms)
    if np.isnan(value):
        return None, (None, None)
    rng = np.random.default_rng(0)
    drawn = [level(norms[rng.integers(0, len(norms), len(norms))]) for _ in range(LEVEL_DRAWS)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return value, (float(low), float(high))


def _first_layer(bank: TokenBank) -> float:
    """The lowest layer, over their number, from which on all have a second mode."""
    first = bank.layers
    while first > 1:
        norms = np.asarray(bank.split_norms(first - 1).patches, dtype=np.float64)
        if not find_cutoff(norms).second_mode:
            break
        first -= 1
    return first / bank.layers


def _registers(bank: TokenBank) -> list[Measurement]:
    """Where the norms of registers lie, and whether each has its own."""
    if not bank.registers:
        return []
    tokens = bank.split_norms(bank.layers)
    registers = np.asarray(tokens.registers, dtype=np.float64)  # (images, R)
    patches = np.asarray(tokens.patches, dtype=np.float64)
    tokens_BN = np.concatenate([registers, patches], axis=1)

    def above_patches(drawn_BN: np.ndarray) -> float:
        registers_of_it, patches_of_it = np.split(drawn_BN, [bank.registers], axis=1)
        return float(np.median(registers_of_it) / np.percentile(patches_of_it, 99))

    row = partial(_row, bank, "registers")
    spread = bootstrap_images(tokens_BN, above_patches, LEVEL_DRAWS)
    rows = [row("registers_over_patches", above_patches(tokens_BN), spread)]
    quantised = between_share(registers)
    if quantised is None:
        return [*rows, row("register_quantisation", None, note="needs at least two registers")]
    spread = bootstrap_images(registers, lambda drawn: between_share(drawn) or 0.0, LEVEL_DRAWS)
    return [*rows, row("register_quantisation", quantised, spread)]


def between_share(norms_BR: np.ndarray) -> float | None:
    """Share of the variance that lies between columns, whose number inflates nothing (omega^2)."""
    images, registers = norms_BR.shape
    if registers < 2 or images < 2 or norms_BR.var() == 0:
        return None
    within = norms_BR.var(axis=0, ddof=1).mean()
    between = norms_BR.mean(axis=0).var(ddof=1) - within / images
    return float(max(0.0, between) / (max(0.0, between) + within))
