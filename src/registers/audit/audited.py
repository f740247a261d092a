"""All that was found out about one model, in numbers and sentences."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from registers.audit.verdict import AuditVerdict, LayerRow, Places, counted, percent, times

if TYPE_CHECKING:  # these modules need torch, which pages of finished audits do without
    from registers.audit.ablation import Ablation
    from registers.audit.contents import Contents
    from registers.audit.inside import HeadRow, NeuronRow
    from registers.audit.watched import AuditBank
    from registers.models.moved_neurons import MoveRecipe

ZERO, MEAN, MOVED = "zero", "mean", "moved"  # what happens to neurons or tokens in an ablation
TOP_HEADS = 5
PACKAGES = ("registers", "timm", "torch", "numpy")
CONDITIONS = ("outliers", "outliers-at-output")  # of --fail-on


@dataclass(frozen=True)
class Audit:
    """All that was found out about one model.

    rows: one for each layer. contents: what outliers hold, None without any and where it cannot be
    told. heads_note, neurons_note, contents_note: why there are none, "" where there are.
    seconds: from loading the model to the verdict.
    change: what test-time registers make of it, where they were asked for; change_note: why they
    were not added, "" where they were.
    """

    bank: AuditBank
    rows: tuple[LayerRow, ...]
    verdict: AuditVerdict
    places: Places
    heads: tuple[HeadRow, ...]
    heads_note: str
    neurons: tuple[NeuronRow, ...]
    neurons_note: str
    contents: Contents | None
    contents_note: str
    seconds: float
    change: Change | None = None
    change_note: str = ""

    @property
    def name(self) -> str:
        return self.bank.card.name

    def top_heads(self, count: int = TOP_HEADS) -> list[HeadRow]:
        """Heads that look at outliers most; without outliers, those with the busiest patch."""
        known = [row for row in self.heads if row.patches_to_outliers is not None]
        if known:
            return sorted(known, key=lambda row: -row.patches_to_outliers)[:count]
        return sorted(self.heads, key=lambda row: -row.busiest)[:count]

    def sentences(self) -> list[str]:
        """The verdict and its details, one line each."""
        lines = [self.verdict.words, *self.verdict.details, *_where(self.places)]
        lines += [_contents(self), _heads(self), _neurons(self)]
        return [line for line in lines if line]

    def fails(self, condition: str) -> bool:
        """Whether `--fail-on condition` holds."""
        return self.verdict.at_output if condition == CONDITIONS[1] else self.verdict.outliers

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        bank = self.bank
        verdict = asdict(self.verdict)
        verdict.pop("mask")
        placed = asdict(self.places)
        if placed["frequency"] is not None:
            placed["frequency"] = np.round(placed["frequency"], 4).tolist()
        return {
            "model": asdict(bank.card),
            "versions": versions(),
            "images": {
                "count": len(bank),
                "names": list(bank.images.names) if bank.images else [],
                "size": list(bank.images.pixels.shape[-2:]) if bank.images else None,
            },
            "tokens": {"prefix": list(bank.layout.prefix), "grid": bank.grid},
            "verdict": verdict,
            "sentences": self.sentences(),
            "places": placed,
            "contents": asdict(self.contents) if self.contents else self.contents_note,
            "layers": [asdict(row) for row in self.rows],
            "heads": [asdict(row) for row in self.heads] or self.heads_note,
            "neurons": [asdict(row) for row in self.neurons] or self.neurons_note,
            "test_time_registers": self.change.to_dict() if self.change else self.change_note,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Change:
    """The same model on the same images with test-time registers, and what they change.

    recipe: what was done. after: its audit.
    attention: share of the patches' attention that the added tokens get from the head that looked
    at outliers most; None where attention cannot be had.
    boxes: (2, B, 4) pixels, LOST's boxes before and after; None where it cannot run, boxes_note
    says why. ablations: the register neurons zeroed, replaced by their mean, and moved.
    """

    recipe: MoveRecipe
    after: Audit
    attention: float | None
    boxes: np.ndarray | None
    boxes_note: str
    ablations: tuple[Ablation, ...]

    @property
    def layer(self) -> int:
        """From 1, whose norms tell outliers."""
        return self.recipe.found["outliers_after_layer"]

    def sentences(self, before: Audit) -> list[str]:
        """What was moved, where the norm went, and what LOST finds; no weight is changed."""
        lines = [
            f"{self.recipe.words()}, found with {self.recipe.found['chosen_by']}",
            f"after: {self.after.verdict.words}",
        ]
        if self.attention is not None:
            head = before.top_heads(1)[0]
            lines.append(
                f"layer {head.layer} head {head.head}: of the patches' attention "
                f"{percent(head.patches_to_outliers)} went to outliers, {percent(self.attention)} "
                "goes to the added now"
            )
        if self.boxes is not None:
            other = int((self.boxes[0] != self.boxes[1]).any(1).sum())
            lines.append(
                f"LOST (keys of the last block, not normalised, bias 0): another box in {other} of "
                f"{counted(len(before.bank), 'image')}"
            )
        elif self.boxes_note:
            lines.append(f"LOST: {self.boxes_note}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        return {
            "recipe": asdict(self.recipe),
            "attention_to_added": self.attention,
            "ablations": [asdict(row) for row in self.ablations],
            "lost_boxes": self.boxes_note if self.boxes is None else self.boxes.tolist(),
            "after": self.after.to_dict(),
        }


# --- sentences


def _where(placed: Places):
    if placed.border_share is not None:
        yield (
            f"where: {percent(placed.border_share)} of them at the image's border, where "
            f"{percent(placed.border_expected)} of all patches are"
        )
    if placed.texture is not None:
        much = times(placed.texture) if placed.texture >= 0.05 else "less than 0.05 x"
        flat = " (flat places)" if placed.texture < 0.7 else ""
        yield f"on what: pixels inside them vary {much} as much as in other patches{flat}"


def _contents(audit: Audit) -> str:
    if audit.contents_note:
        return f"what they hold: {audit.contents_note}"
    held = audit.contents
    if held is None:
        return ""

    def shares(part: str) -> str:
        told = [
            f"{100 * min(max(getattr(each, part), 0.0), 1.0):.0f} %"  # estimates may leave 0 to 1
            for each in (held.outliers, held.others)
            if each is not None and getattr(each, part) is not None
        ]
        return " (other patches: ".join(told) + ")" * (len(told) - 1)

    words = (
        f"what they hold, after layer {held.layer} ({held.outliers.tokens} outliers in "
        f"{held.outliers.images} images): of their mean square {shares('constant')} is the same in "
        "all images"
    )
    if held.note:
        return f"{words}; {held.note}"
    return (
        f"{words}, {shares('image')} is shared by the outliers of one image but not by those of "
        f"others, and {shares('own')} is each outlier's own"
    )


def _heads(audit: Audit) -> str:
    if audit.heads_note:
        return f"heads: {audit.heads_note}"
    rows = audit.top_heads(3)
    if not rows:
        return ""
    if rows[0].patches_to_outliers is None:
        row = rows[0]
        return (
            f"heads: the patch that is attended to most gets {percent(row.busiest)} of all "
            f"attention (layer {row.layer}, head {row.head})"
        )
    tokens = audit.verdict.mask.any(1)
    chance = audit.verdict.mask[tokens].sum(1).mean() / audit.bank.layout.tokens
    listed = ", ".join(
        f"layer {row.layer} head {row.head} ({percent(row.patches_to_outliers)})" for row in rows
    )
    return (
        f"heads that look at them: {listed} of the other patches' attention; an even gaze would "
        f"give them {percent(chance)}"
    )


def _neurons(audit: Audit) -> str:
    if not audit.verdict.outliers:
        return ""
    if audit.neurons_note:
        return f"neurons: {audit.neurons_note}"
    listed = ", ".join(
        f"layer {row.layer} neuron {row.neuron} ({row.at_outliers:.3g}, elsewhere "
        f"{row.elsewhere:.2g})"
        for row in audit.neurons[:3]
    )
    return f"neurons that write them, mean |activation| there: {listed}"


def versions() -> dict[str, str]:
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            numbers[package] = "not installed as a package"
    return numbers
