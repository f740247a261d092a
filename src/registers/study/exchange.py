"""Does [CLS] take labels from blanks, in which block, and would it take another scene's?

That labels are lost where blanks are hidden from all tokens (`examine.hidden`) does not say who
used them, or whether it was for what they hold. Here they are hidden from [CLS] alone, and in
another test exchanged for those of another scene: if [CLS] reads them, it tells the other's labels.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor

from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import TokenScenes

Inputs = tuple[Tensor, Tensor | None, Tensor | None]  # of a block: tokens, sight and gain


@torch.no_grad()
def exchange(net: TokenNet, scenes: TokenScenes) -> dict[str, float]:
    """How often labels are told, mean over labels, where [CLS] stands in the sequence throughout.

    "hidden_cls/redundant", "hidden_cls/last": blanks are hidden from [CLS] alone, from the second
    block on or in the last one; "hidden_cls/other": all patches but blanks that show no code are,
    from the second block on. "exchanged/own", "exchanged/donor": after the first block each scene
    has the blanks of the scene before it in the batch, and its own labels are told, or that one's.
    """
    depth = len(net.blocks)
    blank, plain = scenes.redundant, ~scenes.redundant & ~scenes.marked
    later, labels = range(1, depth), scenes.labels
    swapped = [(1, lambda inputs: (_swapped(inputs[0], blank), *inputs[1:]))]
    donor = labels.roll(1, 0)
    return {
        "hidden_cls/redundant": _told(net, scenes, [(n, _blind(blank)) for n in later], labels),
        "hidden_cls/last": _told(net, scenes, [(depth - 1, _blind(blank))], labels),
        "hidden_cls/other": _told(net, scenes, [(n, _blind(plain)) for n in later], labels),
        "exchanged/own": _told(net, scenes, swapped, labels),
        "exchanged/donor": _told(net, scenes, swapped, donor),
    }


def asked(net: torch.nn.Module) -> bool:
    """Whether a net can be asked: it answers several labels from a [CLS] of all its blocks."""
    if not isinstance(net, TokenNet) or net.regime.objective not in ("tasks", "deit3"):
        return False
    return net.regime.labels == "each" and net.enters == 0 and len(net.blocks) > 1


def _told(
    net: TokenNet,
    scenes: TokenScenes,
    changes: list[tuple[int, Callable[[Inputs], Inputs]]],
    labels_BK: Tensor,
) -> float:
    """The labels' accuracy where the inputs of some blocks, by their number, are changed."""
    with ExitStack() as stack:
        for number, change in changes:
            hook = net.blocks[number].register_forward_pre_hook(
                lambda block, inputs, change=change: change(inputs)
            )
            stack.callback(hook.remove)
        answers = net.answers(net.summary(net(scenes.images).last), scenes)
    return float((answers.argmax(1) == labels_BK).float().mean())


def _blind(of_BP: Tensor) -> Callable[[Inputs], Inputs]:
    """[CLS], the first token, may not look at these patches, the last ones."""

    def change(inputs: Inputs) -> Inputs:
        x, allowed, gain = inputs
        batch, tokens, _ = x.shape
        sight = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool, device=x.device)
        sight[:, 0, 0, tokens - of_BP.shape[1] :] = ~of_BP
        return x, sight if allowed is None else sight & allowed, gain

    return change


def _swapped(x_BND: Tensor, blank_BP: Tensor) -> Tensor:
    """Each scene's blanks in the order of their places, of which all have as many, take the tokens
    of those of the scene before."""
    batch, patches = blank_BP.shape
    places = blank_BP.nonzero()[:, 1].view(batch, -1) + x_BND.shape[1] - patches
    rows = torch.arange(batch, device=x_BND.device)[:, None]
    x = x_BND.clone()
    x[rows, places] = x_BND[rows, places].roll(1, 0)
    return x
