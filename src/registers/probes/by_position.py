"""What depends on the place in the grid: high norms (Fig. 10) and average attention (Fig. 16)."""

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measured, Measurement
from registers.outliers import find_cutoff, high_norm_tail
from registers.readers.evaluation_set import EvaluationSet
from registers.settings.run import Settings

QUESTION = "by_position"


def measure(bank: TokenBank, data: list[EvaluationSet], settings: Settings) -> Measured:
    return Measured(position_rows(bank, fixed=settings.cutoff_of(bank.name)))


def position_rows(bank: TokenBank, fixed: float | None = None) -> list[Measurement]:
    """Rows of one bank; the coordinate "patch" is the position, 0..P-1, row by row.

    fixed: a hand-picked cut-off. Norms are those of the last block, before the final norm (paper,
    appendix A).
    - "share_above": share of the images whose patch norm at this position lies above the cut-off
      between the two modes, or above `fixed`; n = images. No rows where there is neither.
    - "share_tail": the same above the norm that 2 % of all patches exceed
      (`outliers.high_norm_tail`): a quantile, no outliers.
    - "cutoff" and "tail": these two norms; "second_mode": 1 or 0. Each with its reason as note.
    - "attention": mean over all images and heads of the attention of "cls", "reg0"... and "patch"
      (the central one) to this position, last block.

    Raises ValueError where the grid is not square, as figures draw it.
    """
    height, width = bank.grid
    if height != width:
        raise ValueError(f"grid: {height} x {width} is not allowed; must be square")
    norms = np.asarray(bank.patch_norms(), dtype=np.float64)
    cutoff = find_cutoff(norms, fixed)
    tail = high_norm_tail(norms)
    common = dict(question=QUESTION, backbone=bank.name, data=bank.data, layer=bank.layers)

    def row(metric: str, value: float | None, note: str) -> Measurement:
        return Measurement(
            metric=metric, value=value, note=note, token="patch", n=len(norms), **common
        )

    def grid(metric: str, values: np.ndarray, token: str = "patch") -> list[Measurement]:
        more = dict(token=token, n=len(norms), coordinate="patch", **common)
        return [
            Measurement(metric=metric, value=float(value), at=at, **more)
            for at, value in enumerate(values)
        ]

    rows = [
        row("second_mode", int(cutoff.second_mode), cutoff.reason),
        row("cutoff", cutoff.value, cutoff.reason),
        row("tail", tail.value, tail.reason),
        *grid("share_tail", tail.mask(norms).mean(0)),
    ]
    if cutoff.value is not None:
        rows += grid("share_above", cutoff.mask(norms).mean(0))
    queries = ["cls", *(f"reg{r}" for r in range(bank.registers)), "patch"]
    for token, mean in zip(queries, np.asarray(bank.mean_attention, dtype=np.float64), strict=True):
        rows += grid("attention", mean, token)
    return rows
