"""What depends on the place in the grid: the share of high norms at each position (Fig. 10) and average attention (Fig. 16), as rows."""

import numpy as np

from registers.bank import TokenBank
from registers.measurements import Measurement
from registers.outliers import find_cutoff, high_norm_tail


def position_rows(bank: TokenBank, fixed: float | None = None) -> list[Measurement]:
    """Rows of question "positions" of one bank; x is the position, row by row of a square grid, 0..P-1. fixed: a hand-picked cut-off.

    - "share_above": share of the images whose patch norm at x lies above the cut-off between the two modes, or above `fixed`; n = images.
      No rows where there is neither.
    - "share_tail": the same above the norm that 2 % of all patches exceed (`outliers.high_norm_tail`): a quantile, no outliers.
    - "cutoff" and "tail": these two norms; "second_mode": 1 or 0. Each with its reason as note. Norms are those of the last block, before
      the final norm (paper, appendix A).
    - "attention": mean over all images and heads of the attention of "cls", "reg0"... and "patch" (the central one) to x, last block.
    Raises ValueError where the grid is not square.
    """
    height, width = bank.grid
    if height != width:
        raise ValueError(f"grid = {height} x {width}: allowed are square ones")
    norms = np.asarray(bank.split_norms(bank.layers).patches, dtype=np.float64)
    cutoff, tail = find_cutoff(norms, fixed), high_norm_tail(norms)
    common = dict(
        question="positions", backbone=bank.name, data=bank.index["data"], layer=bank.layers
    )

    def shares(metric: str, above: np.ndarray) -> list[Measurement]:
        found = enumerate(above.mean(0))
        return [
            Measurement(metric=metric, value=float(v), x=i, token="patch", n=len(above), **common)
            for i, v in found
        ]

    rows = [
        Measurement(
            metric="second_mode",
            value=int(cutoff.second_mode),
            note=cutoff.reason,
            token="patch",
            n=len(norms),
            **common,
        ),
        Measurement(
            metric="cutoff",
            value=cutoff.value,
            note=cutoff.reason,
            token="patch",
            n=len(norms),
            **common,
        ),
        Measurement(
            metric="tail", value=tail.value, note=tail.reason, token="patch", n=len(norms), **common
        ),
        *shares("share_tail", tail.mask(norms)),
    ]
    if cutoff.value is not None:
        rows += shares("share_above", cutoff.mask(norms))
    kinds = ["cls", *(f"reg{r}" for r in range(bank.registers)), "patch"]
    for kind, mean in zip(kinds, np.asarray(bank.mean_attention, dtype=np.float64), strict=True):
        rows += [
            Measurement(metric="attention", value=float(v), x=i, token=kind, n=len(bank), **common)
            for i, v in enumerate(mean)
        ]
    return rows
