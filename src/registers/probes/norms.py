"""Norms of a bank as rows: distributions by layer and kind of token (Figs. 3, 4, 7, 15), the cut-off and what lies above it."""

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measurement
from registers.outliers import find_cutoff, high_norm_tail, statistics

PER_DECADE = 40  # bins of the histograms: each 10^(1/40), 5.9 % of a norm, on a grid that all backbones share
QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)  # per cent
RESAMPLES = 1000  # bootstrap over images
PERCENTILES = (2.5, 97.5)  # 95 % interval


def norm_rows(bank: TokenBank, fixed: float | None = None) -> list[Measurement]:
    """All that the figures on norms draw, of one bank. fixed: a hand-picked cut-off (paper: 150 for ViT-g).

    question "norms", layer 1..L for token "patch", the last layer also for "cls", "reg0"...; n = number of tokens:
    - "count": tokens in one bin; x is the bin's (geometric) middle and low, high are its *edges*. Bins are logarithmic, the same for
      all backbones; empty ones are left out.
    - "q0", "q5", "q25", "q50", "q75", "q95", "q99", "q100": quantiles.
    question "outliers", patches of the last layer; low and high are 95 % bootstrap intervals over images, n = images:
    - "second_mode": 1 or 0, the reason in the note. "cutoff", "share": above the cut-off; no value but the reason where
      there is no second mode (and no cut-off was given).
    - "high_norm_tail": the norm that 2 % of tokens exceed; not a cut-off for outliers.
    - "max_over_median" (interval at the median found), "kurtosis", "share_above_3x_median".
    """
    rows = []
    for layer in range(1, bank.layers + 1):
        tokens = bank.split_norms(layer)
        kinds = {"patch": tokens.patches}
        if layer == bank.layers:
            kinds |= {"cls": tokens.cls} | {
                f"reg{r}": tokens.registers[:, r] for r in range(bank.registers)
            }
        for kind, norms in kinds.items():
            rows += _distribution(bank, layer, kind, np.asarray(norms, dtype=np.float64).ravel())
    return rows + _outliers(
        bank, np.asarray(bank.split_norms(bank.layers).patches, dtype=np.float64), fixed
    )


def _distribution(bank: TokenBank, layer: int, kind: str, norms: np.ndarray) -> list[Measurement]:
    common = dict(
        question="norms",
        backbone=bank.name,
        data=bank.index["data"],
        token=kind,
        layer=layer,
        n=norms.size,
    )
    bins, counts = np.unique(
        np.floor(np.log10(np.maximum(norms, 1e-6)) * PER_DECADE), return_counts=True
    )
    edge = [
        (10 ** (b / PER_DECADE), 10 ** ((b + 0.5) / PER_DECADE), 10 ** ((b + 1) / PER_DECADE))
        for b in bins
    ]
    rows = [
        Measurement(metric="count", value=int(c), low=a, x=m, high=b, **common)
        for c, (a, m, b) in zip(counts, edge)
    ]
    found = np.percentile(norms, QUANTILES)
    return rows + [
        Measurement(metric=f"q{q}", value=float(v), **common) for q, v in zip(QUANTILES, found)
    ]


def _outliers(bank: TokenBank, norms: np.ndarray, fixed: float | None) -> list[Measurement]:
    cutoff, tail, signs = find_cutoff(norms, fixed), high_norm_tail(norms), statistics(norms)
    common = dict(
        question="outliers",
        backbone=bank.name,
        data=bank.index["data"],
        token="patch",
        layer=bank.layers,
        n=len(norms),
    )

    def row(
        metric: str,
        value: float | None,
        interval: tuple[float, float] | None = None,
        note: str = "",
    ) -> Measurement:
        low, high = interval or (None, None)
        return Measurement(metric=metric, value=value, low=low, high=high, note=note, **common)

    rows = [row("second_mode", int(cutoff.second_mode), note=cutoff.reason)]
    if cutoff.value is None:
        rows += [row("cutoff", None, note=cutoff.reason), row("share", None, note=cutoff.reason)]
    else:
        by_image = cutoff.mask(norms).mean(axis=1)
        rows += [row("cutoff", cutoff.value, note=f"{cutoff.method}: {cutoff.reason}")]
        rows += [row("share", cutoff.share, _bootstrap(by_image, np.mean), note=cutoff.method)]
    highest = _bootstrap(norms.max(axis=1), np.max)
    above = _bootstrap((norms > 3 * signs["median"]).mean(axis=1), np.mean)
    return [
        *rows,
        row("high_norm_tail", tail.value, note=tail.reason),
        row(
            "max_over_median", signs["max_over_median"], tuple(h / signs["median"] for h in highest)
        ),
        row("kurtosis", signs["kurtosis"]),
        row("share_above_3x_median", signs["share_above_3x_median"], above),
    ]


def _bootstrap(per_image: np.ndarray, statistic) -> tuple[float, float]:
    """95 % percentile interval of a statistic over images drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = [
        statistic(per_image[rng.integers(0, len(per_image), len(per_image))])
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, PERCENTILES)
    return float(low), float(high)
