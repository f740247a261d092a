"""The four conditions of the effect, asked of a finished model of the study with the same probes as the paper's backbones.

1. second_mode: patch norms after the last block have a second, higher mode (`outliers.find_cutoff`).
2. redundant: it sits in redundant patches. Neighbours' similarity at the input is above normal patches', and the share of redundant
   background among outliers is above its share among all patches (95 % intervals over images do not touch).
3. global_not_local: one outlier tells the scene's label better than one normal patch does, and its place or its own pixels worse
   (pixels: the error of a linear reconstruction over the error of guessing the mean patch, for the same patches). Patches that know
   the label by what they show (objects, and triggers that are asked for it) do not count; None where no outlier is left.
4. registers_take_over: asked of two runs, see `study.summary`.

Besides, whatever the norms: does a redundant patch tell more of the label than another patch that shows no object?
"""

from pathlib import Path

import numpy as np
import torch

from registers.outliers import find_cutoff, high_norm_tail
from registers.probes.kinds import (
    NORMAL,
    OUTLIER,
    TAIL,
    TAIL_SHARE,
    Kind,
    patch_kinds,
    standardised,
)
from registers.probes.neighbours import similarity
from registers.probes.position import locate
from registers.probes.reconstruction import patchify, reconstruct
from registers.probes.solvers import bootstrap
from registers.probes.token_class import classify
from registers.study.net import Net, local_targets
from registers.study.scenes import Scenes

STRENGTHS = 10.0 ** np.linspace(-4, 4, 9)  # C of the probes: enough for tokens of unit variance
LOCAL = 1024  # scenes for the probes of place and pixels, which have many tokens a scene
SHOWN = 8  # scenes whose norm maps are kept for the figures
REDUNDANT, OTHER = (
    "redundant",
    "other",
)  # background with nothing of its own; patches with a content but no object
SHORT = {NORMAL: "normal", OUTLIER: "outlier", TAIL: "tail", REDUNDANT: REDUNDANT, OTHER: OTHER}


@torch.no_grad()
def examine(net: Net, scenes: Scenes, maps: Path) -> dict:
    """{"numbers": name -> value or None, "intervals": name -> [low, high], "notes": name -> text, "conditions": name -> bool}.

    All on `scenes` that training never saw; probes train on one half and are scored on the other.
    """
    parts = [net(part) for part in scenes.images.split(256)]
    layers = [torch.cat(x) for x in zip(*(part.layers for part in parts))]
    depth, grid = len(layers), (net.regime.grid,) * 2
    norms = [
        net.split(x, layer).patches.norm(dim=-1).cpu().numpy() for layer, x in enumerate(layers)
    ]
    tokens = layers[-1].cpu().numpy()
    last = net.split(tokens, depth - 1)
    embeddings = torch.cat([part.embeddings for part in parts]).cpu().numpy()
    redundant, name = scenes.redundant.cpu().numpy(), "study-r0-s0"

    cutoff = find_cutoff(norms[-1])
    kinds = patch_kinds(norms[-1], cutoff, high_norm_tail(norms[-1], TAIL_SHARE))
    numbers: dict[str, float | None] = {
        "second_mode": float(cutoff.second_mode),
        "cutoff": cutoff.value,
        "share": cutoff.share,
    }
    intervals, notes = {}, {"second_mode": cutoff.reason}
    for layer, values in enumerate(norms):
        found = find_cutoff(values)
        numbers |= {
            f"layer{layer + 1}/second_mode": float(found.second_mode),
            f"layer{layer + 1}/share": found.share,
        }
        numbers[f"layer{layer + 1}/max_over_median"] = float(values.max() / np.median(values))
        notes[f"layer{layer + 1}"] = found.reason
        if found.second_mode:
            numbers[f"layer{layer + 1}/redundant_outlier"] = float(
                redundant[values > found.value].mean()
            )
    if redundant.sum() >= 64:
        alone = find_cutoff(norms[-1][redundant])
        numbers["second_mode_of_redundant"], notes["second_mode_of_redundant"] = (
            float(alone.second_mode),
            alone.reason,
        )

    def keep(key: str, value, low, high) -> None:
        numbers[key], intervals[key] = value, [low, high]

    alike = similarity(embeddings, grid)
    for kind in kinds:
        if kind.mask is None or not kind.mask.any():
            continue
        short, count = SHORT[kind.name], kind.mask.sum(1)
        keep(f"neighbours/{short}", *bootstrap((alike * kind.mask).sum(1), count))
        keep(f"redundant/{short}", *bootstrap((redundant & kind.mask).sum(1).astype(float), count))
    keep("redundant/all", *bootstrap(redundant.mean(1)))

    labels = {"label": scenes.label.cpu().numpy()}
    if net.regime.task == "presence":
        labels = {
            f"kind{k}": scenes.present[:, k].long().cpu().numpy()
            for k in range(0, net.regime.kinds, 6)
        }
    knows = ((scenes.kinds >= 0) | local_targets(scenes, net.regime)[1]).cpu().numpy()
    asked = [Kind(k.name, k.mask if k.mask is None else k.mask & ~knows, k.note) for k in kinds]
    asked += [Kind(REDUNDANT, redundant & ~knows), Kind(OTHER, ~redundant & ~knows)]
    asked = [k for k in asked if k.mask is not None and k.mask.any(1).sum() >= 100]
    numbers["objects/outlier"] = (
        float(knows[norms[-1] > cutoff.value].mean()) if cutoff.value else None
    )
    split_cls = last.cls is not None
    sequence = (
        tokens if split_cls else np.concatenate([np.zeros_like(tokens[:, :1]), tokens], 1)
    )  # `classify` expects a [CLS]
    rows = classify(
        standardised(sequence),
        net.registers,
        asked,
        labels,
        backbone=name,
        draws=2,
        strengths=STRENGTHS,
    )
    for row in rows:
        if (
            row.metric == "top1_mean"
            and row.value is not None
            and (split_cls or row.token != "cls")
        ):
            keep(f"class/{SHORT.get(row.token, row.token)}", row.value, row.low, row.high)
            numbers["class/chance"] = row.chance
    few = [Kind(k.name, k.mask if k.mask is None else k.mask[:LOCAL], k.note) for k in kinds]
    few += [Kind(REDUNDANT, redundant[:LOCAL]), Kind(OTHER, ~redundant[:LOCAL] & ~knows[:LOCAL])]
    patches, pixels = (
        standardised(last.patches[:LOCAL]),
        patchify(scenes.images[:LOCAL], net.regime.patch).cpu().numpy(),
    )
    rows = locate(patches, grid, few, backbone=name, strengths=STRENGTHS[2:7:2])
    rows += reconstruct(patches, pixels, few, backbone=name)
    for row in rows:
        if row.value is not None:
            unit = (
                row.chance if row.question == "reconstruction" else 1.0
            )  # a plain patch is easy to guess: errors over those of guessing
            keep(
                f"{row.question}/{row.metric}/{SHORT[row.token]}",
                row.value / unit,
                row.low / unit,
                row.high / unit,
            )

    numbers |= hidden(
        net,
        Scenes(*(x[:LOCAL] for x in scenes)),
        torch.from_numpy(knows[:LOCAL]).to(scenes.redundant.device),
    )
    shown = dict(images=scenes.images[:SHOWN].cpu().numpy(), redundant=redundant[:SHOWN])
    maps.parent.mkdir(parents=True, exist_ok=True)
    where = norms[-1] > cutoff.value if cutoff.value else np.zeros_like(norms[-1], dtype=bool)
    np.savez_compressed(
        maps,
        norms=np.stack([n[:SHOWN] for n in norms]),
        all_norms=norms[-1].astype(np.float32),
        where=where.mean(0),
        **shown,
    )
    return dict(
        numbers=numbers, intervals=intervals, notes=notes, conditions=conditions(numbers, intervals)
    )


def hidden(net: Net, scenes: Scenes, knows_BP: torch.Tensor) -> dict[str, float]:
    """Is what redundant patches hold read by anyone? The label's accuracy (that of triggers, where only they are asked for it) with all
    patches in sight, with redundant ones hidden from the second block on, and with as many others that show no object.

    {} where no label is asked for.
    """
    asked = (
        "accuracy"
        if net.regime.image_loss
        else "triggered"
        if net.regime.triggers and net.regime.asks == "label"
        else ""
    )
    if not asked:
        return {}
    other = ~scenes.redundant & ~knows_BP
    order = (
        torch.rand(other.shape, generator=torch.Generator().manual_seed(0))
        .to(other.device)
        .masked_fill(~other, 2.0)
        .argsort(1)
        .argsort(1)
    )
    as_many = other & (order < scenes.redundant.sum(1, keepdim=True))
    sights = {"all": None, "redundant": scenes.redundant} | (
        {"other": as_many} if other.any() else {}
    )
    return {
        f"hidden/{name}": float(net.losses(scenes, None, mask)[1][asked])
        for name, mask in sights.items()
    }


def conditions(numbers: dict, intervals: dict) -> dict[str, bool | None]:
    """Conditions 1 to 3 of one run, and "stored": a redundant patch tells the label better than other patches without an object.

    False also where a number is missing, which is so when there is no second mode; None where condition 3 cannot be asked.
    """

    def above(a: str, b: str) -> bool:
        """a is surely above b: 95 % intervals do not touch."""
        return a in intervals and b in intervals and intervals[a][0] > intervals[b][1]

    less_local = above("position/top1/normal", "position/top1/outlier") or above(
        "reconstruction/l2/outlier", "reconstruction/l2/normal"
    )
    second = bool(numbers["second_mode"])
    return {
        "second_mode": second,
        "redundant": above("neighbours/outlier", "neighbours/normal")
        and above("redundant/outlier", "redundant/all"),
        "global_not_local": None
        if second and "class/outlier" not in intervals
        else above("class/outlier", "class/normal") and less_local,
        "stored": above(f"class/{REDUNDANT}", f"class/{OTHER}"),
    }
