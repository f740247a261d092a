"""Do patches look something up in registers? In the first block with attention registers are the
same in every scene: what a patch reads there depends on the patch alone, as what an MLP adds does
(learned keys and values in place of an MLP: Sukhbaatar et al., 2019, "Augmenting Self-attention
with Persistent Memory")."""

import torch
from torch import Tensor

from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import NOTHING, TokenScenes


@torch.no_grad()
def lookup(net: TokenNet, scenes: TokenScenes) -> dict[str, float]:
    """Signs of a table in the registers.

    "own", "right": accuracy of a patch's answers to what it shows and to what its right neighbour
    does. With registers also "own_unaided", "right_unaided": the same where patches cannot look at
    registers, in a net that was trained with them; "looked_up": of what patches read from
    registers in the first block with attention, the share of its variance over ordinary patches
    that is told by which symbol a patch shows (by chance about symbols over patches); "read": the
    norm of that over the norm of the patches it is added to, medians.
    """
    signs = _answers(net, scenes)
    if not net.registers:
        return signs
    seen = net.regime.patches_see_registers
    regime = net.regime
    try:
        net.regime = regime.model_copy(update={"patches_see_registers": False})
        signs |= {f"{name}_unaided": value for name, value in _answers(net, scenes).items()}
    finally:
        net.regime = regime
    if seen:
        update, stream = read_from_registers(net, scenes.images)
        shown = ~scenes.redundant & ~scenes.marked
        signs["looked_up"] = explained(update[shown], scenes.symbols[shown])
        sizes = [float(x[shown].norm(dim=-1).median()) for x in (update, stream)]
        signs["read"] = sizes[0] / sizes[1]
    return signs


def read_from_registers(net: TokenNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """What attention of the first block that has any brings patches from registers, and the
    patches before it, (B, P, D) each."""
    block = next(block for block in net.blocks if block.attn is not None)
    inputs: list[Tensor] = []
    keep = lambda _, given, normed: inputs.extend([*given, normed])  # noqa: E731
    handle = block.norm1.register_forward_hook(keep)
    try:
        weights = net(images).attention[net.regime.attends_from]
    finally:
        handle.remove()
    stream, normed = inputs
    first = stream.shape[1] - len(net.pos_embed)  # patch
    place = slice(first - net.registers, first)
    return block.attn.read(normed, weights, place)[:, first:], stream[:, first:]


def explained(x_ND: Tensor, group_N: Tensor) -> float:
    """The share of the variance of x that the means of its groups have."""
    count = torch.bincount(group_N).clamp(min=1)
    total = x_ND - x_ND.mean(0)
    sums = torch.zeros(len(count), x_ND.shape[1], dtype=x_ND.dtype, device=x_ND.device)
    means = sums.index_add_(0, group_N, total) / count[:, None]
    return float((means[group_N] ** 2).sum() / (total**2).sum())


def _answers(net: TokenNet, scenes: TokenScenes) -> dict[str, float]:
    tasks = net.local(net(scenes.images).last.patches, scenes)
    accuracies = []
    for task in tasks[:2]:
        asked = task.asked != NOTHING
        accuracies.append(float((task.logits.argmax(-1) == task.asked)[asked].float().mean()))
    return dict(zip(("right", "own"), accuracies, strict=True))
