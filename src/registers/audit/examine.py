"""One audit: everything that a look at a model's tokens says, and what added tokens change."""

import time
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch

from registers.audit import ablation, added_tokens, inside, register_neurons, test_time
from registers.audit import images as photos
from registers.audit.anatomy import anatomy_of
from registers.audit.audited import Audit, Change
from registers.audit.contents import Contents, contents
from registers.audit.errors import AuditError
from registers.audit.verdict import judge, places
from registers.audit.watched import AuditBank, watch_model
from registers.evals.lost import lost
from registers.vocabulary import added


def examine(bank: AuditBank, began: float | None = None) -> Audit:
    """The audit of what was already looked at. began: when, for the seconds it took."""
    began = time.perf_counter() if began is None else began
    rows, verdict = judge(bank.norms, bank.normed, bank.massive, bank.layout, bank.norm_note)
    texture = None
    if bank.images is not None and bank.grid is not None:
        texture = photos.texture(bank.images.pixels, bank.grid)

    # --- heads, neurons and what outliers hold, or the reason why there is none to show
    heads: list[inside.HeadRow] = []
    neurons: list[inside.NeuronRow] = []
    held: Contents | None = None
    heads_note = neurons_note = held_note = ""
    try:
        held = contents(bank, verdict)
    except AuditError as error:
        held_note = str(error)
    try:
        heads = inside.heads(bank, verdict.mask)
    except AuditError as error:
        heads_note = str(error)
    try:
        neurons = inside.neurons(bank, verdict.mask, inside.neuron_layers(rows, verdict))
    except AuditError as error:
        neurons_note = str(error)
    return Audit(
        bank=bank,
        rows=tuple(rows),
        verdict=verdict,
        places=places(verdict.mask, bank.layout, texture),
        heads=tuple(heads),
        heads_note=heads_note,
        neurons=tuple(neurons),
        neurons_note=neurons_note,
        contents=held,
        contents_note=held_note,
        seconds=time.perf_counter() - began,
    )


def with_test_time_registers(audit: Audit, registers: int) -> Audit:
    """The audit, and that of the same model on the same images with test-time registers.

    Where there is nothing to move, or the model cannot be given tokens, the audit says why.
    """
    began = time.perf_counter()
    bank = audit.bank
    try:
        chosen = register_neurons.choice(bank, audit.rows, audit.verdict)
        recipe = test_time.find(bank, chosen, registers)
    except AuditError as error:
        return replace(audit, change_note=str(error))
    module = added_tokens.apply(deepcopy(bank.module), recipe)
    name = f"{bank.card.name} + {added(registers)}"
    moved = watch_model(replace(bank.card, name=name), module, anatomy_of(module), bank.images)

    # --- LOST as published, on both
    boxes, boxes_note = None, ""
    try:
        boxes = np.stack([_boxes(bank), _boxes(moved)])
    except AuditError as error:
        boxes_note = str(error)
    change = Change(
        recipe=recipe,
        after=examine(moved, began),
        attention=_attention_to_added(audit, moved),
        boxes=boxes,
        boxes_note=boxes_note,
        ablations=tuple(ablation.ablations(bank, recipe, chosen, moved)),
    )
    seconds = audit.seconds + time.perf_counter() - began
    return replace(audit, change=change, seconds=seconds)


def _attention_to_added(audit: Audit, moved: AuditBank) -> float | None:
    """What the head that looked at outliers most gives the added tokens now, of the patches'."""
    if not audit.heads:
        return None
    head = audit.top_heads(1)[0]
    rows_BQN = moved.attention(head.layer, "patches")[:, head.head]
    return float(rows_BQN[..., moved.layout.added].sum(-1).mean())


def _boxes(bank: AuditBank) -> np.ndarray:
    """(B, 4) LOST's boxes in pixels, from keys of the last block, as published."""
    k_BHNd = bank.qkv(-1).k[:, :, len(bank.layout.prefix) :]
    features = k_BHNd.transpose(0, 2, 1, 3).reshape(len(bank), bank.layout.patches, -1)
    down, across = bank.parts().patch
    found = lost(torch.from_numpy(np.ascontiguousarray(features)), bank.grid)
    return found.box * np.array([across, down, across, down])
