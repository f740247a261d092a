"""From which tokens does [CLS] take labels, in which block, and would it take another scene's?

That labels are lost where blanks are hidden from all tokens (`examine.hidden`) does not say who
used them, or whether it was for what they hold. Here they are hidden from [CLS] alone, and in
another test exchanged for those of another scene: if [CLS] reads them, it tells the other's labels.
Hiding shows what cannot be missed, exchanging what is used: where several tokens hold a label, none
of them is missed, and a vector that is the same in all scenes can be missed but not exchanged.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor

from registers.study.division import TOLD
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import TokenScenes

Inputs = tuple[Tensor, Tensor | None, Tensor | None]  # of a block: tokens, sight and gain
Changes = dict[int, Callable[[Inputs], Inputs]]  # by the block's number


@torch.no_grad()
def exchange(net: TokenNet, scenes: TokenScenes) -> dict[str, float]:
    """How often labels are told, mean over labels, where [CLS] stands in the sequence throughout.

    "hidden_cls/...": some patches are hidden from [CLS] alone, from the second block on: blanks
    ("redundant"); patches that show a code ("marked"); those that do neither ("other"); all but
    blanks ("but_redundant"); all ("patches"), so that [CLS] has what it took in the first block,
    and registers. "hidden_cls/last": blanks are, in the last block alone.

    "exchanged/own", "exchanged/donor": after the first block each scene has the blanks of the scene
    before it in the batch, and its own labels are told, or that one's; "exchanged/labels": how many
    labels are told as that one's in more than half of the scenes. "exchanged_.../...": the same
    with blanks before the last block ("last"), as many patches that are "other", and all
    "registers", where there are any.
    """
    depth, labels = len(net.blocks), scenes.labels
    blank, marked = scenes.redundant, scenes.marked
    other = ~blank & ~marked
    hidden = {
        "redundant": blank,
        "marked": marked,
        "other": other,
        "but_redundant": ~blank,
        "patches": torch.ones_like(blank),
    }
    changes: dict[str, Changes] = {
        name: dict.fromkeys(range(1, depth), _blind(patches)) for name, patches in hidden.items()
    } | {"last": {depth - 1: _blind(blank)}}
    found = {
        f"hidden_cls/{name}": float(_right(_answers(net, scenes, change), labels).mean())
        for name, change in changes.items()
    }
    taken = {"": (blank, 1), "_last": (blank, depth - 1), "_other": (as_many(other, blank), 1)}
    if net.registers:
        taken["_registers"] = torch.ones_like(blank[:, : net.registers]), 1
    for name, (tokens, before) in taken.items():
        last = 0 if name != "_registers" else blank.shape[1]  # tokens behind them
        answers = _answers(net, scenes, {before: _swapped(tokens, last)})
        of_donor = _right(answers, labels.roll(1, 0))
        found[f"exchanged{name}/own"] = float(_right(answers, labels).mean())
        found[f"exchanged{name}/donor"] = float(of_donor.mean())
        found[f"exchanged{name}/labels"] = float((of_donor > TOLD).sum())
    return found


def asked(net: torch.nn.Module) -> bool:
    """Whether a net can be asked: it answers several labels from a [CLS] of all its blocks."""
    if not isinstance(net, TokenNet) or net.regime.objective not in ("tasks", "deit3"):
        return False
    return net.regime.labels == "each" and net.enters == 0 and len(net.blocks) > 1


def as_many(of_BP: Tensor, like_BP: Tensor) -> Tensor:
    """(B, P): as many of these patches as of others, drawn at random in each scene, the same in
    every call; all of them where there are fewer."""
    draws = torch.rand(of_BP.shape, generator=torch.Generator().manual_seed(0)).to(of_BP.device)
    order = draws.masked_fill(~of_BP, 2.0).argsort(1).argsort(1)
    return of_BP & (order < like_BP.sum(1, keepdim=True))


def _answers(net: TokenNet, scenes: TokenScenes, changes: Changes) -> Tensor:
    """(B, K), the labels that are told where the inputs of some blocks are changed."""
    with ExitStack() as stack:
        for number, change in changes.items():
            hook = net.blocks[number].register_forward_pre_hook(
                lambda block, inputs, change=change: change(inputs)
            )
            stack.callback(hook.remove)
        return net.answers(net.summary(net(scenes.images).last), scenes).argmax(1)


def _right(answers_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """(K,): of each label, the share of scenes in which it is told."""
    return (answers_BK == labels_BK).float().mean(0)


def _blind(to_BP: Tensor) -> Callable[[Inputs], Inputs]:
    """[CLS], the first token, may not look at these patches, the last ones."""

    def change(inputs: Inputs) -> Inputs:
        x, allowed, gain = inputs
        batch, tokens, _ = x.shape
        sight = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool, device=x.device)
        sight[:, 0, 0, tokens - to_BP.shape[1] :] = ~to_BP
        return x, sight if allowed is None else sight & allowed, gain

    return change


def _swapped(these_BP: Tensor, behind: int) -> Callable[[Inputs], Inputs]:
    """These tokens, behind which so many others stand, become those of the scene before, in the
    order of their places. Every scene has as many."""

    def change(inputs: Inputs) -> Inputs:
        x, *rest = inputs
        batch, width = these_BP.shape
        places = these_BP.nonzero()[:, 1].view(batch, int(these_BP[0].sum()))
        places = places + x.shape[1] - width - behind
        rows = torch.arange(batch, device=x.device)[:, None]
        swapped = x.clone()
        swapped[rows, places] = x[rows, places].roll(1, 0)
        return swapped, *rest

    return change
