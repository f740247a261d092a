"""The number that a part of a claim is about: what a forest plot shows of it."""

import math
from dataclasses import dataclass

from registers.claims import wording
from registers.differences import Difference

FARTHEST = 100.0  # of the logarithm of a ratio: two seeds can have any interval


@dataclass(frozen=True)
class Effect:
    """The number that one part of a claim is about, beside what is claimed of it.

    about: the models, "DINOv2"; "" for all. unit: of `wording`; all numbers are in that of the
    rows. signed: whether it is a difference. low, high: the 95 % interval; low = value = high for
    an exact number. claimed: lower and upper end, None where open. paper: the paper's number, None
    where it prints none.
    """

    about: str
    unit: str
    signed: bool
    value: float
    low: float
    high: float
    claimed: tuple[float | None, float | None]
    paper: float | None = None

    @property
    def words(self) -> str:
        """+1.3 [-2.0, +4.6] points."""
        return wording.number(self.value, self.low, self.high, self.unit, self.signed)

    @property
    def words_of_paper(self) -> str:
        """The paper's number; "" where it prints none."""
        if self.paper is None:
            return ""
        return wording.number(self.paper, self.paper, self.paper, self.unit, self.signed)


def effect_of(
    gap: Difference,
    claimed: tuple[float, float],
    about: str,
    unit: str,
    signed: bool,
    paper: float | None,
    shift: float = 0.0,
) -> Effect:
    """A difference as it is shown. shift: of the value and of what is claimed."""
    value = gap.value + shift
    low, high = (value, value) if gap.exact else (end + shift for end in gap.interval)
    ends = tuple(end + shift if math.isfinite(end) else None for end in claimed)
    return Effect(about, unit, signed, value, low, high, ends, paper)


def ratio_of(
    gap: Difference, claimed: tuple[float, float], about: str, paper: float | None
) -> Effect:
    """A difference of logarithms, shown as the ratio that it is, up to e^100."""

    def ratio(logarithm: float) -> float:
        return math.exp(min(max(logarithm, -FARTHEST), FARTHEST))

    value = ratio(gap.value)
    low, high = (value, value) if gap.exact else (ratio(end) for end in gap.interval)
    ends = (claimed[0] or None, claimed[1] if math.isfinite(claimed[1]) else None)
    return Effect(about, wording.TIMES, False, value, low, high, ends, paper)
