"""Do patches look something up in registers? In the first block with attention registers are the
same in every scene, so which of them a head prefers follows from the patch alone: a head can weigh
them by what a patch shows, as an MLP's units are (learned keys and values in place of MLPs:
Sukhbaatar et al., 2019, "Augmenting Self-attention with Persistent Memory")."""

from collections.abc import Callable

import torch
from torch import Tensor

from registers.study.tokens_net import TokenBlock, TokenNet
from registers.study.tokens_world import NOTHING, TokenScenes


@torch.no_grad()
def lookup(net: TokenNet, scenes: TokenScenes) -> dict[str, float]:
    """Signs of a table in the registers.

    "own", "right": accuracy of a patch's answers to what it shows (where it carries no trigger) and
    to what its right neighbour does. Where patches see registers, also, of what they read from them
    in the first block with attention: "read", the norm of its part that differs from patch to patch
    over the norm of the patches that it is added to, medians; "by_symbol" and "by_place", the
    shares of that part's variance over ordinary patches that are explained by the symbol that a
    patch shows and by its place (far from 0 for the symbol in untrained nets, too);
    "own_levelled", "right_levelled": the answers where each patch reads what patches read on
    average; "own_table", "right_table": where it reads the average over patches that show the same.
    """
    signs = answers(net, scenes)
    if not net.registers or not net.regime.patches_see_registers:
        return signs
    update, stream = read_from_registers(net, scenes.images)
    ordinary = ~scenes.redundant & ~scenes.marked
    update, stream = update[ordinary], stream[ordinary]
    place = torch.arange(ordinary.shape[1], device=ordinary.device).expand_as(ordinary)[ordinary]
    varying = (update - update.mean(0)).norm(dim=-1)
    signs["read"] = float(varying.median() / stream.norm(dim=-1).median())
    signs["by_symbol"] = explained(update, scenes.symbols[ordinary])
    signs["by_place"] = explained(update, place)
    shown = ~scenes.redundant
    groups = {"levelled": torch.zeros_like(scenes.symbols), "table": scenes.symbols}
    for name, group in groups.items():
        told = replaced(net, scenes, shown, group[shown])
        signs |= {f"{task}_{name}": value for task, value in told.items()}
    return signs


def read_from_registers(net: TokenNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """What attention of the first block that has any brings patches from registers, as it is added
    to them, and the patches before it, (B, P, D) each."""
    block = first_block(net)
    inputs: list[Tensor] = []

    def keep(_, given: tuple[Tensor], normed: Tensor) -> None:
        inputs.extend([*given, normed])

    handle = block.norm1.register_forward_hook(keep)
    try:
        weights = net(images).attention[net.regime.attends_from]
    finally:
        handle.remove()
    stream, normed = inputs
    first = stream.shape[1] - len(net.pos_embed)  # patch
    read = block.attn.read(normed, weights, slice(first - net.registers, first), net.gain(normed))
    return block.scale1(read)[:, first:], stream[:, first:]


def replaced(
    net: TokenNet, scenes: TokenScenes, shown_BP: Tensor, group_N: Tensor
) -> dict[str, float]:
    """Answers where each of the patches `shown` reads from registers what those of its group do on
    average, in the first block with attention; all weights of attention stay as they are."""

    def levelled(read_BPD: Tensor) -> Tensor:
        values = read_BPD[shown_BP]
        return read_BPD.masked_scatter(shown_BP[..., None], means(values, group_N)[group_N])

    handle = first_block(net).attn.register_forward_hook(_changing(net, levelled))
    try:
        return answers(net, scenes)
    finally:
        handle.remove()


def _changing(net: TokenNet, change: Callable[[Tensor], Tensor]) -> Callable:
    """A hook of attention that changes what patches, (B, P, D), read from registers."""

    def hook(attention, given: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        update, weights = output
        first = update.shape[1] - len(net.pos_embed)
        registers = slice(first - net.registers, first)
        read = attention.read(given[0], weights, registers, net.gain(update))[:, first:]
        front, patches = update[:, :first], update[:, first:]
        return torch.cat([front, patches - read + change(read)], 1), weights

    return hook


def first_block(net: TokenNet) -> TokenBlock:
    """The first block with attention."""
    return net.blocks[net.regime.attends_from]


def explained(x_ND: Tensor, group_N: Tensor) -> float:
    """The share of the variance of x that the means of its groups have."""
    total = x_ND - x_ND.mean(0)
    return float((means(total, group_N)[group_N] ** 2).sum() / (total**2).sum())


def means(x_ND: Tensor, group_N: Tensor) -> Tensor:
    """(G, D): the mean of each group."""
    count = torch.bincount(group_N).clamp(min=1)
    sums = torch.zeros(len(count), x_ND.shape[1], dtype=x_ND.dtype, device=x_ND.device)
    return sums.index_add_(0, group_N, x_ND) / count[:, None]


def answers(net: TokenNet, scenes: TokenScenes) -> dict[str, float]:
    """Accuracy of the two local heads, "own" without the patches that carry a trigger."""
    right, own, *_ = net.local(net(scenes.images).last.patches, scenes)
    where = {"own": ~scenes.triggered, "right": torch.ones_like(scenes.triggered)}
    accuracies = {}
    for name, task in (("own", own), ("right", right)):
        asked = (task.asked != NOTHING) & where[name]
        accuracies[name] = float((task.logits.argmax(-1) == task.asked)[asked].float().mean())
    return accuracies
