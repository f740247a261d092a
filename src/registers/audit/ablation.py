"""What a model's output loses when register neurons, or its registers, are taken away.

Set to zero, and replaced by their mean: zero is a value that the layers behind have never seen, so
that zero-ablation alone overstates what registers are for (Parodi, arXiv 2604.14433).

Letters: B images, N tokens, P patches, D channels, F neurons.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers.audit.anatomy import neuron_writer
from registers.audit.audited import MEAN, MOVED, ZERO
from registers.audit.register_neurons import NeuronSearch, standing_out
from registers.audit.watched import AuditBank, watch_model
from registers.models.moved_neurons import MoveRecipe


@dataclass(frozen=True)
class Ablation:
    """One change to a model, and what it does to its tokens on the same images.

    what: "neurons" (register neurons, at the patches) or "registers" (the model's own, after every
    block). how: "zero", "mean" (neurons: over the image's other patches; registers: over images) or
    "moved" (to the added tokens).
    outliers: share of patches that still are outliers.
    norm: relative change of the other patches' median norm at the output, with its sign.
    patches, cls: 1 - cosine of the other patches, and of [CLS] (None without), with the untouched
    model's, behind the final norm; means over images.
    """

    what: str
    how: str
    outliers: float
    norm: float
    patches: float
    cls: float | None


def ablations(
    bank: AuditBank, recipe: MoveRecipe, chosen: NeuronSearch, moved: AuditBank
) -> list[Ablation]:
    """A row for every way. moved: the same model with its test-time registers, looked at."""
    rows = [_compared("neurons", MOVED, bank, moved, chosen)]
    for how in (ZERO, MEAN):
        with _neurons_replaced(bank, recipe, chosen.mask, how):
            rows.append(_compared("neurons", how, bank, _again(bank), chosen))
    if bank.layout.registers:
        for how in (ZERO, MEAN):
            with _registers_replaced(bank, how):
                rows.append(_compared("registers", how, bank, _again(bank), chosen))
    return rows


def _again(bank: AuditBank) -> AuditBank:
    return watch_model(bank.card, bank.module, bank.parts(), bank.images)


def _compared(
    what: str, how: str, before: AuditBank, after: AuditBank, chosen: NeuronSearch
) -> Ablation:
    ordinary = ~chosen.mask
    medians = [np.median(bank.patch_norms()[ordinary]) for bank in (before, after)]
    was, now = (_final(bank) for bank in (before, after))
    patches = _apart(_patches(was, before), _patches(now, after))
    cls = None
    if before.layout.cls is not None:
        tokens = was[:, before.layout.cls], now[:, after.layout.cls]
        cls = float(_apart(*tokens).mean())
    return Ablation(
        what=what,
        how=how,
        outliers=standing_out(after.patch_norms(chosen.layer), chosen.mask, chosen.cutoff),
        norm=float(medians[1] / medians[0] - 1),
        patches=float(patches[torch.from_numpy(ordinary)].mean()),
        cls=cls,
    )


@torch.no_grad()
def _final(bank: AuditBank) -> Tensor:
    """(B, N, D) behind the final norm, where there is one."""
    tokens = torch.from_numpy(bank.outputs)
    norm = bank.parts().norm
    if norm is None:
        return tokens
    return norm(tokens.to(next(norm.parameters()).device)).cpu()


def _patches(tokens_BND: Tensor, bank: AuditBank) -> Tensor:
    return tokens_BND[:, len(bank.layout.prefix) :]


def _apart(one: Tensor, other: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(one.float(), other.float(), dim=-1)


# --- neurons


class _Replaced:
    """A pre-hook of an MLP's last linear layer; sees the images in their order, batch by batch."""

    def __init__(self, neurons: list[int], mask_BP: np.ndarray, prefix: int, how: str) -> None:
        self.neurons = neurons
        self.ordinary_BP = torch.from_numpy(~mask_BP)
        self.prefix = prefix
        self.how = how
        self.done = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        x_BNF = inputs[0].clone()
        weights_BP = self.ordinary_BP[self.done : self.done + len(x_BNF)].to(x_BNF)
        self.done += len(x_BNF)
        value: Any = 0
        if self.how == MEAN:
            patches = x_BNF[:, self.prefix :, self.neurons]
            sums = torch.einsum("bp,bpk->bk", weights_BP, patches)
            value = (sums / weights_BP.sum(1, keepdim=True))[:, None]
        x_BNF[:, self.prefix :, self.neurons] = value
        return (x_BNF,)


@contextmanager
def _neurons_replaced(
    bank: AuditBank, recipe: MoveRecipe, mask_BP: np.ndarray, how: str
) -> Iterator[None]:
    with ExitStack() as hooks:
        for layer, neurons in recipe.by_layer().items():
            hook = _Replaced(neurons, mask_BP, len(bank.layout.prefix), how)
            writer = neuron_writer(bank.parts().blocks[layer - 1])
            hooks.callback(writer.register_forward_pre_hook(hook).remove)
        yield


# --- a model's own registers


@contextmanager
def _registers_replaced(bank: AuditBank, how: str) -> Iterator[None]:
    """After every block; the means are over all images, of one more forward pass."""
    where = bank.layout.registers
    sums: dict[int, Tensor] = {}

    def add(layer: int, output: Tensor) -> None:
        sums[layer] = sums.get(layer, 0) + output[:, where].sum(0)

    if how == MEAN:
        with _after_blocks(bank, add):
            _again(bank)

    def replace(layer: int, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, where] = sums[layer] / len(bank) if how == MEAN else 0
        return output

    with _after_blocks(bank, replace):
        yield


@contextmanager
def _after_blocks(bank: AuditBank, do: Any) -> Iterator[None]:
    with ExitStack() as hooks:
        for layer, block in enumerate(bank.parts().blocks):

            def hook(module, inputs, output, layer=layer) -> Tensor | None:
                return do(layer, output)

            hooks.callback(block.register_forward_hook(hook).remove)
        yield
