"""What outliers hold: a constant, as massive activations are, or something of their image.

Two things have high norms. Global information differs from image to image (paper, section 2.2);
massive activations are nearly the same in all (Sun et al., arXiv 2402.17762). Shares of the mean
square tell them apart without labels (`registers.components`). A share says nothing about size: a
tenth of the square of a norm of ten medians is a vector of three medians.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from registers.audit import watch
from registers.audit.errors import AuditError
from registers.audit.verdict import AuditVerdict
from registers.audit.watched import BATCH, AuditBank
from registers.components import Components, Running, Sums

LEAST_IMAGES = 10  # effective ones; shares of fewer are far off by chance (`registers.components`)


@dataclass(frozen=True)
class Contents:
    """Components of outliers and of the other patches, after block `layer`, where outliers stand
    out most. others: None where no share of them can be told. note: why outliers have a constant
    alone, "" where they have all shares."""

    layer: int
    outliers: Components
    others: Components | None
    note: str = ""


def contents(bank: AuditBank, verdict: AuditVerdict) -> Contents | None:
    """None without outliers. Raises AuditError where that layer's tokens cannot be had, and where
    outliers lie in fewer than LEAST_IMAGES images."""
    if not verdict.outliers:
        return None
    layer, mask_BP = verdict.layer, torch.from_numpy(verdict.mask)
    kinds = (Sums(), Sums())

    def add(tokens_BND: Tensor, start: int) -> None:
        # on the CPU, as some devices (MPS) have no double precision
        patches = tokens_BND[:, len(bank.layout.prefix) :].cpu().double()
        marks = mask_BP[start : start + len(patches)]
        for sums, where in zip(kinds, (marks, ~marks)):
            kept = patches.where(where[..., None], 0)
            added = kept.sum(1), (kept**2).sum((1, 2)), where.sum(1)
            sums.add(*(tensor.numpy() for tensor in added))

    if layer == bank.layers:
        for start in range(0, len(bank), BATCH):  # in double precision all at once may not fit
            add(torch.from_numpy(bank.outputs[start : start + BATCH]), start)
    elif bank.anatomy is None:
        raise AuditError("tokens of inner layers are not kept of features; give the model")
    else:
        bank.each_batch(lambda pixels, start: add(watch.stream(bank.anatomy, pixels, layer), start))
    held, others = (sums.shares(LEAST_IMAGES) for sums in kinds)
    if held is None:
        raise AuditError(
            f"cannot be told: outliers are in {_images(kinds[0].every)}, and at least "
            f"{LEAST_IMAGES} are needed"
        )
    note = ""
    if held.image is None:
        note = (
            "of the rest it cannot be told what one image shares: two outliers or more are in "
            f"{_images(kinds[0].paired)}, and at least {LEAST_IMAGES} are needed"
        )
    return Contents(layer, held, others, note)


def _images(kind: Running) -> str:
    """12 images; where most outliers are in a few: 12 images but unevenly, as if in 3.1."""
    if kind.images < LEAST_IMAGES:
        return f"{kind.images} image{'' if kind.images == 1 else 's'}"
    return f"{kind.images} images but unevenly, as if in {kind.effective_images:.1f}"
