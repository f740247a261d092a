"""Differences between models, and how sure they are: one rule for claims, tables and captions.

One training is one sample. How registers change a model is judged on trainings from several seeds:
the difference of each seed, and Student's t over them. Validation images are those of the
benchmark, the same for all; results speak of these images. Intervals over images say how well one
given backbone was measured, and serve where that is the question.

Shares of 4,000 simulated claims "A is higher than B" that end with each verdict (accuracies in
points, seed sd 2, so that differences have 2.8; tests/test_claims_statistics.py):

| true difference | seeds | reproduced | contradicted | inconclusive |
|---|---|---|---|---|
| 0 | 3 | 3% | 2% | 95% |
| 0 | 5 | 2% | 2% | 95% |
| 0 | 10 | 2% | 3% | 95% |
| +5 | 3 | 39% | 0% | 61% |
| +5 | 5 | 83% | 0% | 17% |
| +5 | 10 | 100% | 0% | 0% |
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from registers.intervals import Z

ALPHA = 0.05  # chance of a false verdict, on both sides together
ROUNDING = 1e-12
LEAST_SEEDS = 2  # a spread needs two; with one nothing is said about training


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over images; low = value = high for an exact one."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f" [{self.low:.4g}, {self.high:.4g}]" if self.low < self.high else ""
        return f"{self.value:.4g}{interval}"


@dataclass(frozen=True)
class Difference:
    """A number, mostly a difference, and how it is distributed.

    below, above: its standard error towards lower and higher values; 0 for an exact number.
    freedom: degrees of freedom of Student's t; infinite for an interval over images.
    seeds: how many trainings (of each side) it rests on.
    """

    value: float
    below: float
    above: float
    freedom: float
    seeds: int

    @property
    def exact(self) -> bool:
        """Without any spread but rounding."""
        return max(self.below, self.above) <= ROUNDING * max(1.0, abs(self.value))

    @property
    def interval(self) -> tuple[float, float]:
        """At 95 %."""
        reach = Z if math.isinf(self.freedom) else float(stdtrit(self.freedom, 1 - ALPHA / 2))
        return self.value - reach * self.below, self.value + reach * self.above

    def p_above(self, bound: float) -> float:
        """One-sided p-value of a true value of at most `bound`: small if it surely lies above."""
        return self._tail(self.value - bound, self.below)

    def p_below(self, bound: float) -> float:
        """One-sided p-value of a true value of at least `bound`."""
        return self._tail(bound - self.value, self.above)

    def scaled(self, unit: float) -> "Difference":
        """In units of `unit`, which is above 0."""
        return Difference(
            self.value / unit, self.below / unit, self.above / unit, self.freedom, self.seeds
        )

    def _tail(self, distance: float, error: float) -> float:
        if not error:
            return 0.0 if distance > 0 else 1.0
        z = -distance / error
        return float(ndtr(z) if math.isinf(self.freedom) else stdtr(self.freedom, z))

    def __str__(self) -> str:
        low, high = self.interval
        return str(Estimate(self.value, low, high))


def newcombe(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates, from their intervals.

    Of two answers to the same images, which mostly agree, this interval is rather too wide.
    Source: Newcombe 1998, Statistics in Medicine 17, 873, method 10.
    """
    value = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - below, value + above)


def on_same_images(estimates: Collection[Estimate]) -> Estimate:
    """Mean of numbers of several backbones, all measured on the same images.

    What is odd about an image is odd for all of them and does not average out, so the interval is
    the mean of theirs. It is never too narrow, whatever the backbones have in common.
    """
    value, low, high = (
        float(np.mean([getattr(estimate, name) for estimate in estimates]))
        for name in ("value", "low", "high")
    )
    return Estimate(value, low, high)


def over_images(estimate: Estimate, seeds: int) -> Difference:
    """A number of given backbones as it is distributed over images.

    seeds: how many trainings it rests on.
    """
    below = (estimate.value - estimate.low) / Z
    above = (estimate.high - estimate.value) / Z
    return Difference(estimate.value, below, above, math.inf, seeds)


def over_samples(values: np.ndarray, seeds: int) -> Difference:
    """Mean of independent values (seeds, or images of one backbone) with its t interval.

    Raises ValueError for fewer than two values.
    """
    if len(values) < LEAST_SEEDS:
        raise ValueError(f"{len(values)} value: a spread needs at least {LEAST_SEEDS}")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Difference(float(np.mean(values)), error, error, len(values) - 1, seeds)


def by_seed(a: Mapping[int, float], b: Mapping[int, float]) -> np.ndarray:
    """a - b of each seed that both have."""
    return np.array([a[seed] - b[seed] for seed in sorted(set(a) & set(b))])


def in_words(a: Mapping[int, float], b: Mapping[int, float], chosen_from: int = 1) -> str:
    """What tables and captions say of a - b: "one seed", "beyond the interval over 3 seeds"...

    a, b: a number by seed. chosen_from: of how many models a is the best one; the more there are,
    the farther the best lies from b by accident (Bonferroni).
    """
    gaps = by_seed(a, b)
    if len(gaps) < LEAST_SEEDS:
        return "one seed: not decided"
    gap = over_samples(gaps, len(gaps))
    if gap.exact:
        return "equal in all seeds" if not gap.value else "the same in all seeds: not decided"
    p = chosen_from * min(gap.p_above(0), gap.p_below(0))
    where = "beyond" if p <= ALPHA / 2 else "within"
    best = f", for the best of {chosen_from}" if chosen_from > 1 else ""
    return f"{where} the interval over {len(gaps)} seeds{best}"
