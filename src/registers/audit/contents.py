"""What outliers hold: a constant, as massive activations are, or something of their image.

Two things have high norms. Global information differs from image to image (paper, section 2.2);
massive activations are nearly the same in all (Sun et al., arXiv 2402.17762). Shares of the mean
square tell them apart without labels (`registers.components`). They are shares: a tenth of the
square of a norm of ten medians is still as large as a whole ordinary patch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from registers.audit import watch
from registers.audit.errors import AuditError
from registers.audit.verdict import AuditVerdict
from registers.audit.watched import BATCH, AuditBank
from registers.components import Components, from_sums


@dataclass(frozen=True)
class Contents:
    """Components of outliers and of the other patches, after block `layer`, where outliers stand
    out most. None where too few share an image, or all are in one."""

    layer: int
    outliers: Components | None
    others: Components | None


def contents(bank: AuditBank, verdict: AuditVerdict) -> Contents | None:
    """None without outliers. Raises AuditError where that layer's tokens cannot be had."""
    if not verdict.outliers:
        return None
    layer, mask_BP = verdict.layer, torch.from_numpy(verdict.mask)
    kinds = (Sums(), Sums())

    def add(tokens_BND: Tensor, start: int) -> None:
        patches = tokens_BND[:, len(bank.layout.prefix) :]
        marks = mask_BP[start : start + len(patches)].to(patches.device)
        for sums, where in zip(kinds, (marks, ~marks)):
            sums.add(patches, where)

    if layer == bank.layers:
        for start in range(0, len(bank), BATCH):  # in double precision all at once may not fit
            add(torch.from_numpy(bank.outputs[start : start + BATCH]), start)
    elif bank.anatomy is None:
        raise AuditError("tokens of inner layers are not kept of features; give the model")
    else:
        bank.each_batch(lambda pixels, start: add(watch.stream(bank.anatomy, pixels, layer), start))
    return Contents(layer, *(sums.components() for sums in kinds))


class Sums:
    """Tokens of one kind, added up image by image."""

    def __init__(self) -> None:
        self.sums: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []
        self.squares = 0.0

    def add(self, patches_BPD: Tensor, where_BP: Tensor) -> None:
        kept = patches_BPD.double() * where_BP[..., None]
        self.sums.append(kept.sum(1).cpu().numpy())
        self.counts.append(where_BP.sum(1).cpu().numpy())
        self.squares += float((kept**2).sum())

    def components(self) -> Components | None:
        return from_sums(np.concatenate(self.sums), np.concatenate(self.counts), self.squares)
