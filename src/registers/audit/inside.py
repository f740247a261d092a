"""Which heads look at outliers, and which MLP neurons write them.

One more forward pass over the images, in which every block's attention and neurons are summed up
and not kept.

Letters: B images, L layers, N tokens, F neurons, H heads.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from registers.audit import watch
from registers.audit.anatomy import written_norms
from registers.audit.errors import AuditError
from registers.audit.layout import TokenLayout
from registers.audit.verdict import AuditVerdict, LayerRow
from registers.audit.watched import AuditBank

TOP = 10  # neurons and heads that are named
# Neurons are sought up to the first layer in which outliers reach half their height: later ones
# see outliers and fire without having written them (Jiang et al. name such a layer by hand).
HALF = 0.5


@dataclass(frozen=True)
class HeadRow:
    """What one head attends to, as shares of a query's attention; means over images.

    patches_to_outliers, cls_to_outliers: on average over the ordinary patches, and for [CLS]; over
    images that have outliers; None where there is none, or no [CLS].
    to_cls, to_registers: of patches; None where there is no such token.
    busiest: what the patch that is attended to most receives from an average query (an attention
    sink, whatever its norm).
    """

    layer: int
    head: int
    patches_to_outliers: float | None
    cls_to_outliers: float | None
    to_cls: float | None
    to_registers: float | None
    busiest: float


@dataclass(frozen=True)
class NeuronRow:
    """One MLP neuron at outliers and elsewhere.

    at_outliers: mean |activation| at outliers, after the non-linearity, averaged over images that
    have some (FindRegisterNeurons of Jiang et al., arXiv 2506.08010); elsewhere: at other patches.
    written: norm of what it adds to the residual stream of an outlier on average.
    """

    layer: int
    neuron: int
    at_outliers: float
    elsewhere: float
    written: float


def heads(bank: AuditBank, mask_BP: np.ndarray) -> list[HeadRow]:
    """A row for each head. mask: which patches are outliers. Raises AuditError as `watch.taken`."""
    layout = bank.layout
    marks_BN = torch.from_numpy(_full(mask_BP, layout)).float()
    sums: dict[int, list[Tensor]] = {}

    def look(pixels: Tensor, start: int) -> None:
        marks = marks_BN[start : start + len(pixels)]

        def take(layer: int, taken: watch.Taken) -> None:
            shares = _shares(taken, marks.to(taken.q.device), layout)
            sums.setdefault(layer, []).append(shares.cpu())

        watch.taken(bank.parts(), pixels, tuple(range(bank.layers)), take)

    bank.each_batch(look)
    rows = []
    for layer, parts in sorted(sums.items()):
        mean_H5 = torch.cat(parts).nanmean(dim=0).tolist()
        for head, values in enumerate(mean_H5):
            known = [None if value != value else value for value in values]
            rows.append(HeadRow(layer + 1, head, *known[:4], busiest=values[4]))
    return rows


def _shares(taken: watch.Taken, marks_BN: Tensor, layout: TokenLayout) -> Tensor:
    """(B, H, 5) the numbers of a `HeadRow`, NaN where there is nothing to average."""
    batch, head_count, tokens, _ = taken.k.shape
    ordinary_BN = 1 - marks_BN
    ordinary_BN[:, : len(layout.prefix)] = 0
    from_patches = torch.zeros(batch, head_count, tokens, device=marks_BN.device)
    from_all = torch.zeros_like(from_patches)
    from_cls = None
    for queries, rows in watch.attention_rows(taken, torch.arange(tokens, device=marks_BN.device)):
        from_all += rows.sum(2)
        from_patches += torch.einsum("bq,bhqn->bhn", ordinary_BN[:, queries].to(rows.dtype), rows)
        if layout.cls is not None and int(queries[0]) <= layout.cls <= int(queries[-1]):
            from_cls = rows[:, :, layout.cls - int(queries[0])]
    from_all /= tokens
    from_patches /= ordinary_BN.sum(1)[:, None, None]

    nothing = torch.full((batch, head_count), torch.nan, device=marks_BN.device)
    without = ~marks_BN.any(dim=1)
    to_outliers = torch.einsum("bhn,bn->bh", from_patches, marks_BN)
    to_outliers[without] = torch.nan
    cls_to_outliers = nothing
    if from_cls is not None:
        cls_to_outliers = torch.einsum("bhn,bn->bh", from_cls.float(), marks_BN)
        cls_to_outliers[without] = torch.nan
    to_cls = nothing if layout.cls is None else from_patches[..., layout.cls]
    to_registers = from_patches[..., layout.registers].sum(-1) if layout.registers else nothing
    busiest = layout.patch_part(from_all).amax(-1)
    return torch.stack([to_outliers, cls_to_outliers, to_cls, to_registers, busiest], dim=-1)


def neuron_layers(rows: list[LayerRow], verdict: AuditVerdict) -> tuple[int, ...]:
    """Layers from 1 whose neurons may write the outliers: up to half their height."""
    if not verdict.outliers:
        return ()
    top = rows[verdict.layer - 1].stand_out
    half = next(row.layer for row in rows if row.stand_out >= HALF * top)
    return tuple(range(1, min(half, verdict.layer) + 1))


def neurons(
    bank: AuditBank, mask_BP: np.ndarray, layers: tuple[int, ...], top: int = TOP
) -> list[NeuronRow]:
    """The neurons with the largest mean |activation| at outliers, largest first.

    layers: from 1. Raises AuditError where there are no outliers or the MLP is of no known kind.
    """
    if not mask_BP.any():
        raise AuditError("neurons: no patch is an outlier, so that none can be said to write them")
    marks_BN = torch.from_numpy(_full(mask_BP, bank.layout))
    sums: dict[int, list[Tensor]] = {}

    def look(pixels: Tensor, start: int) -> None:
        marks = marks_BN[start : start + len(pixels)]

        def take(layer: int, x_BNF: Tensor) -> None:
            means = _activations(x_BNF, marks.to(x_BNF.device), len(bank.layout.prefix))
            sums.setdefault(layer, []).append(means.cpu())

        watch.neurons(bank.parts(), pixels, tuple(layer - 1 for layer in layers), take)

    bank.each_batch(look)
    rows = []
    for layer, parts in sums.items():
        at, elsewhere = torch.cat(parts, dim=1).nanmean(dim=1)
        written = at * written_norms(bank.anatomy.blocks[layer]).cpu()
        for neuron in at.topk(min(top, len(at))).indices.tolist():
            values = (float(x[neuron]) for x in (at, elsewhere, written))
            rows.append(NeuronRow(layer + 1, neuron, *values))
    return sorted(rows, key=lambda row: -row.at_outliers)[:top]


def _activations(x_BNF: Tensor, marks_BN: Tensor, prefix: int) -> Tensor:
    """(2, B, F) mean |activation| at outliers and at other patches; NaN without outliers."""
    magnitudes = x_BNF.abs().float()
    others_BN = ~marks_BN
    others_BN[:, :prefix] = False
    return torch.stack(
        [
            torch.einsum("bn,bnf->bf", where.float(), magnitudes) / where.sum(1, keepdim=True)
            for where in (marks_BN, others_BN)
        ]
    )


def _full(mask_BP: np.ndarray, layout: TokenLayout) -> np.ndarray:
    """(B, N): no prefix token is an outlier."""
    return np.pad(mask_BP, ((0, 0), (len(layout.prefix), 0)))
