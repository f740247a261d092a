"""Early signs of the effect, cheap enough to be logged while a net trains."""

import math
import statistics
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registers import norm_statistics
from registers.components import components
from registers.models.sequence import Tokens
from registers.study.lookup import explained, lookup
from registers.study.tokens_net import TokenNet
from registers.study.tokens_world import TokenScenes

RIDGE = 1e-3  # of the mean square of an input
EPSILON = 1e-6


@torch.no_grad()
def watch(net: nn.Module, probe: Any) -> dict[str, float]:
    """Accuracies, and by layer: norms of patches, attention on single tokens, where the highest
    norms lie. Names of a layer's signs begin with "layer1/", "layer2/"..."""
    _, metrics = net.losses(probe, None)
    seen = net.observe(probe.images)
    row = {name: float(value) for name, value in metrics.items()}
    before = seen.start.norm(dim=-1)
    for layer, x in enumerate(seen.layers):
        tokens = net.split(x, layer)
        signs = norm_signs(net, tokens, probe.redundant)
        weights = seen.attention[layer]
        if weights is not None:
            signs |= attention_signs(net, weights, layer, probe.redundant, before)
        before = tokens.patches.norm(dim=-1)
        row |= {f"layer{layer + 1}/{name}": value for name, value in signs.items()}
    if net.query is not None:
        pool = net.pool(seen.last)
        row["pool_on_registers"] = float(pool[:, : net.registers].sum(1).mean())
        on_patches = pool[:, net.registers :]
        row["pool_on_redundant"] = float((on_patches * probe.redundant).sum(1).mean())
        if isinstance(probe, TokenScenes):
            row["pool_on_marked"] = float((on_patches * probe.marked).sum(1).mean())
            others = probe.triggered & ~probe.marked
            row["pool_on_triggered"] = float((on_patches * others).sum(1).mean())
    if isinstance(probe, TokenScenes):
        patches = tokens.patches  # of the last block
        row["told_by_redundant"] = told(patches, probe.redundant, probe.labels)
        row["told_by_others"] = told(patches, ~probe.redundant & ~probe.marked, probe.labels)
        row |= contents(patches, probe.redundant, probe.labels)
    if type(net) is TokenNet:
        row |= {f"answers/{name}": value for name, value in lookup(net, probe).items()}
    row["redundant"] = float(probe.redundant.float().mean())
    return row


def norm_signs(net: nn.Module, tokens: Tokens, redundant: Tensor) -> dict[str, float]:
    """Of one layer. "top_percent_redundant": share of the highest 1 % of norms that lies in
    redundant patches; "redundant_over_others": median norm of those over that of the others."""
    norms = tokens.patches.norm(dim=-1)
    every = norm_statistics.statistics(norms)
    names = ("median", "max_over_median", "kurtosis", "share_above_3x_median")
    signs = {name: every[name] for name in names}
    top = norms >= norms.flatten().kthvalue(int(0.99 * norms.numel())).values
    signs["top_percent_redundant"] = float(redundant[top].float().mean())
    if redundant.any() and not redundant.all():
        signs["redundant_over_others"] = float(norms[redundant].median()) / float(
            norms[~redundant].median()
        )
    if tokens.cls is not None:
        size = float(tokens.cls.norm(dim=-1).mean())
        signs["cls_over_median"] = size / every["median"]
    if net.registers:
        size = float(tokens.registers.norm(dim=-1).mean(0).max())
        signs["registers_over_median"] = size / every["median"]
    return signs


def attention_signs(
    net: nn.Module, weights: Tensor, layer: int, redundant: Tensor, before: Tensor
) -> dict[str, float]:
    """Of one layer's attention.

    weights: (B, H, N, N), softmax weights or others. before: (B, P), norms at the block's input.

    "attention_on_a_patch": what the most attended patch of a scene takes, mean over heads and
    queries; "sink_redundant": how often it is redundant; "sink_over_median": its norm.
    "attention_of_a_head": as the first, of the one head that gives a patch most.
    "head_on_redundant", "head_on_registers": what one head, the one that gives most, gives to all
    redundant patches or registers together, mean over the queries of all other patches.
    "cls_on_redundant", "cls_on_registers": what [CLS] gives to these together, mean over heads.
    """
    received = net.split(weights.mean((1, 2))[..., None], layer)
    mass, sink = received.patches[..., 0].max(1)
    by_head = net.split(weights.mean(2).transpose(1, 2), layer)
    signs = {
        "attention_of_a_head": float(by_head.patches.amax(1).mean(0).max()),
        "attention_on_a_patch": float(mass.mean()),
        "sink_redundant": float(redundant.gather(1, sink[:, None]).float().mean()),
        "sink_over_median": float(before.gather(1, sink[:, None]).mean() / before.median()),
    }
    # (B, H, P, N): the queries are patches
    queries = weights[:, :, weights.shape[2] - redundant.shape[1] :]
    keys = net.split(queries.permute(0, 3, 1, 2), layer)  # (B, tokens, H, P) each
    others = (~redundant)[:, None].float()

    def head(mass_BHP: Tensor) -> float:
        return float(((mass_BHP * others).sum((0, 2)) / others.sum()).max())

    signs["head_on_redundant"] = head((keys.patches * redundant[..., None, None]).sum(1))
    if received.cls is not None:
        signs["attention_on_cls"] = float(received.cls.mean())
        by_cls = net.split(weights[:, :, 0].mean(1)[..., None], layer)  # a mean over heads
        signs["cls_on_redundant"] = float(by_cls.patches[..., 0][redundant].sum() / len(redundant))
        signs["cls_on_registers"] = float(by_cls.registers.sum((1, 2)).mean())
    if net.registers:
        signs["attention_on_registers"] = float(received.registers.sum((1, 2)).mean())
        signs["head_on_registers"] = head(keys.registers.sum(1))
    return signs


def contents(patches_BPD: Tensor, redundant_BP: Tensor, labels_BK: Tensor) -> dict[str, float]:
    """What makes redundant patches large? Shares of their mean square: "redundant_constant", the
    same in all scenes, "redundant_of_scene" and "redundant_own" (see `components`). And
    "redundant_by_label", the share of their variance that a label explains, a mean over labels
    (for n scenes and k classes, by chance k / n of what differs from scene to scene)."""
    scene_N = redundant_BP.nonzero()[:, 0]
    tokens_ND = patches_BPD[redundant_BP]
    parts = components(tokens_ND.cpu().numpy(), scene_N.cpu().numpy())
    if parts is None or parts.own is None:
        return {}
    return {
        "redundant_constant": parts.constant,
        "redundant_of_scene": parts.image,
        "redundant_own": parts.own,
        "redundant_by_label": statistics.fmean(
            explained(tokens_ND, label_B[scene_N]) for label_B in labels_BK.T
        ),
    }


def told(patches_BPD: Tensor, of_BP: Tensor, labels_BK: Tensor) -> float:
    """How often one of these patches tells a label of its scene, a mean over labels, by a ridge
    regression on one half of the scenes that is asked about the other: a quick look, where the
    examination has a probe that is trained. NaN where a half has none of these patches."""
    scene_N, token = of_BP.nonzero()[:, 0], patches_BPD[of_BP]
    fits = scene_N < len(of_BP) // 2
    if not fits.any() or fits.all():
        return math.nan
    x = (token - token[fits].mean(0)) / (token[fits].std(0) + EPSILON)
    x = F.pad(x, (0, 1), value=1.0)
    square = x[fits].T @ x[fits]
    ridge = RIDGE * fits.sum() * torch.eye(len(square), dtype=x.dtype, device=x.device)
    right = []
    for label_B in labels_BK.T:
        label = label_B[scene_N]
        target = F.one_hot(label[fits], int(label_B.max()) + 1).to(x.dtype)
        answers = x[~fits] @ torch.linalg.solve(square + ridge, x[fits].T @ target)
        right.append(float((answers.argmax(1) == label[~fits]).float().mean()))
    return statistics.fmean(right)
