"""The four conditions of the effect, asked of a finished net with the paper's own probes.

1. second_mode: patch norms after the last block have a second, higher mode
   (`outliers.find_cutoff`).
2. redundant: it sits in redundant patches. Neighbours' similarity at the input is above normal
   patches', and the share of redundant patches among outliers is above their share among all
   patches (95 % intervals over images do not touch).
3. global_not_local: one outlier tells the scene's label better than one normal patch does, and its
   place or its own pixels worse (pixels: the error of a linear reconstruction over the error of
   guessing the mean patch, for the same patches). Patches that know the label by what they show
   do not count; None where no outlier is left.
4. registers_take_over: asked of two runs, see `study.results`.

Besides, whatever the norms: does a redundant patch tell more of the label than another patch that
does not show it ("stored"), and what is lost when redundant patches are hidden (`hidden`)?
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from registers import files
from registers.bank import standardised
from registers.intervals import bootstrap_mean
from registers.models.sequence import Tokens
from registers.outliers import Cutoff, find_cutoff, high_norm_tail
from registers.probes.kinds import TAIL_SHARE, Kind, patch_kinds
from registers.probes.neighbours import similarity
from registers.probes.position import locate
from registers.probes.reconstruction import reconstruct
from registers.probes.token_class import classify
from registers.study.division import counts, division
from registers.study.exchange import as_many, asked, exchange
from registers.study.worlds import part
from registers.vocabulary import NORMAL, OUTLIER, TAIL

STRENGTHS = 10.0 ** np.linspace(-4, 4, 9)  # C of the probes: enough for tokens of unit variance
LOCAL = 1024  # scenes for the probes of place and pixels, which have many tokens a scene
SHOWN = 8  # scenes whose norm maps are kept for the figures
ONCE = 256  # scenes in one forward pass
FEWEST = 64  # redundant patches in all scenes, below which their norms say nothing about modes
CLASSIFIED = 100  # scenes with a patch of a kind, below which its probe is left out
REDUNDANT = "redundant"  # shows nothing of its own
OTHER = "other"  # has a content, but does not show the label
SHORT = {NORMAL: "normal", OUTLIER: "outlier", TAIL: "tail", REDUNDANT: REDUNDANT, OTHER: OTHER}
BACKBONE = "study-r0-s0"  # the probes' rows want a name


@dataclass
class Findings:
    """numbers: name -> value or None. intervals: name -> [low, high]. notes: name -> text."""

    numbers: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, value: float, low: float, high: float) -> None:
        self.numbers[name] = value
        self.intervals[name] = [low, high]


@dataclass(frozen=True)
class Subject:
    """A net's view of scenes that training never saw, as arrays.

    norms: of each layer, (B, P). last: tokens after the last block, standardised for probes.
    embeddings (B, P, D). redundant and knows, (B, P): which patches show nothing of their own, and
    which know the label by what they show. labels: name -> (B,). pixels (B, P, K).
    """

    norms: list[np.ndarray]
    last: Tokens
    embeddings: np.ndarray
    redundant: np.ndarray
    knows: np.ndarray
    labels: dict[str, np.ndarray]
    pixels: np.ndarray
    grid: tuple[int, int]


@torch.no_grad()
def examine(net: nn.Module, scenes: Any, maps: Path) -> dict:
    """{"numbers", "intervals", "notes", "conditions": name -> bool or None}; writes `maps`.

    Probes train on one half of the scenes and are scored on the other.
    """
    subject = view(net, scenes)
    cutoff = find_cutoff(subject.norms[-1])
    tail = high_norm_tail(subject.norms[-1], TAIL_SHARE)
    kinds = patch_kinds(subject.norms[-1], cutoff, tail)
    findings = Findings()
    ask_norms(findings, subject, cutoff)
    ask_redundancy(findings, subject, kinds)
    ask_label(findings, subject, kinds, cutoff)
    ask_local(findings, subject, kinds)
    few = part(scenes, 0, LOCAL)
    knows = torch.from_numpy(subject.knows[:LOCAL]).to(few.redundant.device)
    findings.numbers |= hidden(net, few, knows)
    arrays = pictures(net, scenes, subject, cutoff)
    if len(subject.labels) > 1:
        arrays["told"] = division(net, scenes)
        findings.numbers |= counts(arrays["told"])
    if asked(net):
        findings.numbers |= exchange(net, few)
    files.write_arrays(maps, arrays)
    numbers, intervals = findings.numbers, findings.intervals
    return dict(
        numbers=numbers,
        intervals=intervals,
        notes=findings.notes,
        conditions=conditions(numbers, intervals),
    )


def view(net: nn.Module, scenes: Any) -> Subject:
    """Pass the scenes through the net, some at a time."""
    parts = [net(images) for images in scenes.images.split(ONCE)]
    layers = [torch.cat(x) for x in zip(*(seen.layers for seen in parts), strict=True)]
    norms = [net.split(x, layer).patches.norm(dim=-1) for layer, x in enumerate(layers)]
    last = net.split(layers[-1], len(layers) - 1)
    return Subject(
        norms=[_array(x) for x in norms],
        last=Tokens(*(x if x is None else standardised(_array(x)) for x in last)),
        embeddings=_array(torch.cat([seen.embeddings for seen in parts])),
        redundant=_array(scenes.redundant),
        knows=_array(net.knows(scenes)),
        labels={name: _array(values) for name, values in net.labels(scenes).items()},
        pixels=_array(net.pixels(part(scenes, 0, LOCAL))),
        grid=(net.regime.grid, net.regime.grid),
    )


def _array(x: Tensor) -> np.ndarray:
    return x.cpu().numpy()


def ask_norms(findings: Findings, subject: Subject, cutoff: Cutoff) -> None:
    """Is there a second mode, in which layers, and where does it sit?"""
    numbers, notes = findings.numbers, findings.notes
    numbers |= {
        "second_mode": float(cutoff.second_mode),
        "cutoff": cutoff.value,
        "share": cutoff.share,
    }
    notes["second_mode"] = cutoff.reason
    redundant = subject.redundant
    mixed = redundant.any() and not redundant.all()
    if mixed:
        embedded = np.linalg.norm(subject.embeddings, axis=-1)
        numbers["redundant_over_others/embedding"] = _over_others(embedded, redundant)
    for number, norms in enumerate(subject.norms, start=1):
        verdict = find_cutoff(norms)
        name = f"layer{number}"
        numbers[f"{name}/second_mode"] = float(verdict.second_mode)
        numbers[f"{name}/share"] = verdict.share
        numbers[f"{name}/max_over_median"] = float(norms.max() / np.median(norms))
        if mixed:
            numbers[f"{name}/redundant_over_others"] = _over_others(norms, redundant)
        notes[name] = verdict.reason
        if verdict.second_mode:
            inside = redundant[norms > verdict.value]
            numbers[f"{name}/redundant_outlier"] = float(inside.mean())
    if redundant.sum() >= FEWEST:
        alone = find_cutoff(subject.norms[-1][redundant])
        numbers["second_mode_of_redundant"] = float(alone.second_mode)
        notes["second_mode_of_redundant"] = alone.reason


def _over_others(norms: np.ndarray, redundant: np.ndarray) -> float:
    """Median norm of redundant patches over that of the others."""
    return float(np.median(norms[redundant]) / np.median(norms[~redundant]))


def ask_redundancy(findings: Findings, subject: Subject, kinds: list[Kind]) -> None:
    """Are outliers like their neighbours, and redundant more often than other patches?"""
    alike = similarity(subject.embeddings, subject.grid)
    redundant = subject.redundant
    for kind in kinds:
        if kind.mask is None or not kind.mask.any():
            continue
        name, count = SHORT[kind.name], kind.mask.sum(1)
        share = (redundant & kind.mask).sum(1).astype(float)
        findings.keep(f"neighbours/{name}", *bootstrap_mean((alike * kind.mask).sum(1), count))
        findings.keep(f"redundant/{name}", *bootstrap_mean(share, count))
    findings.keep("redundant/all", *bootstrap_mean(redundant.mean(1)))


def ask_label(findings: Findings, subject: Subject, kinds: list[Kind], cutoff: Cutoff) -> None:
    """Which single tokens tell the label?"""
    knows, redundant = subject.knows, subject.redundant
    asked = [Kind(k.name, k.mask if k.mask is None else k.mask & ~knows, k.note) for k in kinds]
    asked += [Kind(REDUNDANT, redundant & ~knows), Kind(OTHER, ~redundant & ~knows)]
    asked = [k for k in asked if k.mask is not None and k.mask.any(1).sum() >= CLASSIFIED]
    findings.numbers["objects/outlier"] = None
    if cutoff.value:
        outliers = subject.norms[-1] > cutoff.value
        findings.numbers["objects/outlier"] = float(knows[outliers].mean())
    rows = classify(
        subject.last,
        asked,
        subject.labels,
        backbone=BACKBONE,
        draws=2,
        strengths=STRENGTHS,
    )
    for row in rows:
        if row.metric == "top1_mean" and row.value is not None:
            name = SHORT.get(row.token, row.token)
            findings.keep(f"class/{name}", row.value, row.low, row.high)
            findings.numbers["class/chance"] = row.chance


def ask_local(findings: Findings, subject: Subject, kinds: list[Kind]) -> None:
    """Do tokens tell their place and their own pixels? On fewer scenes, as tokens are many."""
    redundant = subject.redundant[:LOCAL]
    knows = subject.knows[:LOCAL]
    few = [Kind(k.name, k.mask if k.mask is None else k.mask[:LOCAL], k.note) for k in kinds]
    few += [Kind(REDUNDANT, redundant), Kind(OTHER, ~redundant & ~knows)]
    patches = subject.last.patches[:LOCAL]
    rows = locate(patches, subject.grid, few, backbone=BACKBONE, strengths=STRENGTHS[2:7:2])
    rows += reconstruct(patches, subject.pixels, few, backbone=BACKBONE)
    for row in rows:
        if row.value is None:
            continue
        # a plain patch is easy to guess: errors are divided by those of guessing
        unit = row.chance if row.question == "reconstruction" else 1.0
        name = f"{row.question}/{row.metric}/{SHORT[row.token]}"
        findings.keep(name, row.value / unit, row.low / unit, row.high / unit)


def hidden(net: nn.Module, scenes: Any, knows_BP: Tensor) -> dict[str, float]:
    """Does anyone use redundant patches? Accuracies with all patches in sight, with redundant ones
    hidden from the second block on, and with as many others that do not show the label.

    "hidden/...": of the label (where only triggers are asked for it: theirs); "hidden_local/...":
    of the local answers; "unread/...": of the label where only the pooling query leaves these
    patches out. {} where no label is asked for.
    """
    if not net.asked:
        return {}
    other = ~scenes.redundant & ~knows_BP
    sights = {"all": None, "redundant": scenes.redundant}
    if other.any():
        sights["other"] = as_many(other, scenes.redundant)
    accuracies = {}
    for name, hidden_BP in sights.items():
        metrics = net.losses(scenes, None, hidden_BP)[1]
        accuracies[f"hidden/{name}"] = float(metrics[net.asked])
        if "local" in metrics:
            accuracies[f"hidden_local/{name}"] = float(metrics["local"])
        if hidden_BP is not None and net.query is not None and hasattr(net, "unread"):
            accuracies[f"unread/{name}"] = net.unread(scenes, hidden_BP)
    return accuracies


def pictures(
    net: nn.Module, scenes: Any, subject: Subject, cutoff: Cutoff
) -> dict[str, np.ndarray]:
    """What the figures show of a run: some scenes, their norms after each block, the attention of
    one head, of [CLS] in the last block (mean over heads) and of the pooling query; all norms after
    the last block; and how often each place holds an outlier."""
    last = subject.norms[-1]
    where = last > cutoff.value if cutoff.value else np.zeros_like(last, dtype=bool)
    few = part(scenes, 0, SHOWN)
    arrays = {name: _array(values) for name, values in few._asdict().items()}
    if hasattr(net, "observe"):
        arrays["attention"] = _array(idle_attention(net, few))
        if subject.last.cls is not None:
            weights = net.observe(few.images).attention[-1]
            arrays["cls"] = _array(weights[:, :, 0].mean(1))
    if net.query is not None:
        arrays["pool"] = _array(net.pool(net(few.images).last))
    return arrays | dict(
        norms=np.stack([norms[:SHOWN] for norms in subject.norms]),
        all_norms=last.astype(np.float32),
        all_redundant=subject.redundant,
        where=where.mean(0),
    )


def idle_attention(net: nn.Module, scenes: Any) -> Tensor:
    """(B, N): mean over queries of what tokens receive from the head that gives redundant patches
    and registers most."""
    best = torch.zeros(())
    received = torch.zeros(())
    for weights in net.observe(scenes.images).attention:
        if weights is None:
            continue
        by_head = weights.mean(2)  # (B, H, N)
        patches = scenes.redundant.shape[1]
        given = (by_head[..., -patches:] * scenes.redundant[:, None]).sum(2)
        first = by_head.shape[2] - patches - net.registers
        given = (given + by_head[..., first : by_head.shape[2] - patches].sum(2)).mean(0)
        if given.max() > best:
            best = given.max()
            received = by_head[:, int(given.argmax())]
    return received


def conditions(numbers: dict, intervals: dict) -> dict[str, bool | None]:
    """Conditions 1 to 3 of one run, and "stored": a redundant patch tells the label better than
    other patches that do not show it.

    False also where a number is missing, which is so when there is no second mode; None where
    condition 3 cannot be asked.
    """

    def above(a: str, b: str) -> bool:
        """a is surely above b: 95 % intervals do not touch."""
        return a in intervals and b in intervals and intervals[a][0] > intervals[b][1]

    place = above("position/top1/normal", "position/top1/outlier")
    pixels = above("reconstruction/l2/outlier", "reconstruction/l2/normal")
    second = bool(numbers["second_mode"])
    askable = not second or "class/outlier" in intervals
    told = above("class/outlier", "class/normal") and (place or pixels)
    return {
        "second_mode": second,
        "redundant": above("neighbours/outlier", "neighbours/normal")
        and above("redundant/outlier", "redundant/all"),
        "global_not_local": told if askable else None,
        "stored": above(f"class/{REDUNDANT}", f"class/{OTHER}"),
    }
