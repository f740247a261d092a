"""What outliers hold: a constant, as massive activations are, or something of their image.

Two things have high norms. Global information differs from image to image (paper, section 2.2);
massive activations are nearly the same in all (Sun et al., arXiv 2402.17762). Shares of the mean
square tell them apart without labels (`registers.components`). They are shares: a tenth of the
square of a norm of ten medians is still as large as a whole ordinary patch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from registers.audit import watch
from registers.audit.errors import AuditError
from registers.audit.verdict import AuditVerdict
from registers.audit.watched import BATCH, AuditBank
from registers.components import Components, Totals

FEWEST = 10  # images with outliers, below which shares are too rough to be told


@dataclass(frozen=True)
class Contents:
    """Components of outliers and of the other patches, after block `layer`, where outliers stand
    out most. others: None where no image has any, or one alone."""

    layer: int
    outliers: Components
    others: Components | None


def contents(bank: AuditBank, verdict: AuditVerdict) -> Contents | None:
    """None without outliers. Raises AuditError where that layer's tokens cannot be had, or
    outliers are in too few images."""
    if not verdict.outliers:
        return None
    having = int(verdict.mask.any(1).sum())
    if having < FEWEST:
        raise AuditError(f"outliers are in {having} images, shares are told from {FEWEST} on")
    layer, mask_BP = verdict.layer, torch.from_numpy(verdict.mask)
    kinds = (Totals(), Totals())

    def add(tokens_BND: Tensor, start: int) -> None:
        patches = tokens_BND[:, len(bank.layout.prefix) :].cpu().double()  # MPS has no doubles
        marks = mask_BP[start : start + len(patches)]
        for totals, where in zip(kinds, (marks, ~marks)):
            kept = patches * where[..., None]
            totals.add(kept.sum(1).numpy(), where.sum(1).numpy(), (kept**2).sum((1, 2)).numpy())

    if layer == bank.layers:
        for start in range(0, len(bank), BATCH):  # in double precision all at once may not fit
            add(torch.from_numpy(bank.outputs[start : start + BATCH]), start)
    elif bank.anatomy is None:
        raise AuditError("tokens of inner layers are not kept of features; give the model")
    else:
        bank.each_batch(lambda pixels, start: add(watch.stream(bank.anatomy, pixels, layer), start))
    outliers, others = (totals.components() for totals in kinds)
    if outliers is None:
        raise AuditError(f"tokens after layer {layer} are no numbers")
    return Contents(layer, outliers, others)
