"""Test-time registers for anyone's vision transformer: find the neurons, move them.

See `models.moved_neurons` for what is done to a model.
"""

from copy import deepcopy
from dataclasses import asdict

import numpy as np
import torch
from torch import nn

from registers.audit import images as photos
from registers.audit import load, register_neurons, watch
from registers.audit.added_tokens import apply, attach, check
from registers.audit.anatomy import anatomy_of
from registers.audit.register_neurons import Neurons, NeuronSearch
from registers.audit.verdict import judge
from registers.audit.watched import BATCH, AuditBank, device_of, evaluating, watch_model
from registers.models.backbone import Backbone
from registers.models.moved_neurons import TEST_TIME, MoveRecipe

JUDGES = 8  # images on which the fewest neurons are told, those with most outliers


def find(bank: AuditBank, chosen: NeuronSearch, registers: int = 1) -> MoveRecipe:
    """The recipe for a model that was looked at.

    Raises AuditError, one line: where no neuron writes the outliers, or the model cannot be given
    tokens.
    """
    check(bank.module, bank.parts(), registers)
    ranked = register_neurons.candidates(bank, chosen)
    neurons = tuple((row.layer, row.neuron) for row in ranked)
    if chosen.top is None:
        neurons = _fewest(bank, chosen, neurons, registers)
    return MoveRecipe(
        registers=registers,
        neurons=neurons,
        source_sha256=bank.card.sha256,
        found={
            "model": bank.card.name,
            "images": len(bank),
            "outliers_after_layer": chosen.layer,
            "cutoff": round(float(chosen.cutoff), 4),
            "outlier_share": round(float(chosen.mask.mean()), 6),
            "layers_searched": chosen.highest,
            "chosen_by": chosen.source,
        },
    )


def _fewest(bank: AuditBank, chosen: NeuronSearch, ranked: Neurons, registers: int) -> Neurons:
    """The fewest neurons that take the outliers away, on the images with most of them."""
    images = np.argsort(-chosen.mask.sum(1), kind="stable")[:JUDGES]
    pixels = bank.images.pixels[images.tolist()]
    mask = chosen.mask[images]
    module = deepcopy(bank.module)
    movers = attach(module, anatomy_of(module), registers, tuple(range(1, chosen.highest + 1)))
    anatomy = anatomy_of(module)

    def left(neurons: Neurons) -> float:
        for layer, mover in movers.items():
            mover.neurons = [neuron for at, neuron in neurons if at == layer]
        parts = []
        with evaluating(module):
            for batch in pixels.split(BATCH):
                parts.append(watch.norms(anatomy, batch.to(device_of(module)), chosen.layer).cpu())
        norms = torch.cat(parts)[:, len(anatomy.prefix) :].numpy()
        return register_neurons.standing_out(norms, mask, chosen.cutoff)

    return register_neurons.fewest(ranked, left, float(mask.mean()))


def edited(model: nn.Module, images: object, registers: int = 1) -> nn.Module:
    """A copy of a model, or of a Backbone, with test-time registers; the original stays as it is.

    images: normalised pixels (B, 3, H, W), a folder, files or PIL images; those on which neurons
    are found. A Backbone's card says what it is from then on (`test_time_registers`), so that
    `models.checkpoint.save(path, backbone, backbone.card)` keeps it and `load` gives it back.
    Raises AuditError, one line: "no outliers, nothing to move", or why it cannot be done.
    """
    return edited_by(model, recipe_for(model, images, registers))


def recipe_for(
    model: nn.Module, images: object, registers: int = 1, known_as: str = ""
) -> MoveRecipe:
    """The recipe for a model, which stays as it is.

    images: as in `edited`. known_as: timm's name, for the models of which the authors chose layers
    and counts. Raises AuditError as `edited` does.
    """
    loaded = load.load_module(model, known_as)
    looked_at = photos.prepare(images, loaded.size, loaded.normalization)
    bank = watch_model(loaded.card, loaded.module, loaded.anatomy, looked_at)
    rows, verdict = judge(bank.norms, bank.normed, bank.massive, bank.layout, bank.norm_note)
    return find(bank, register_neurons.choice(bank, rows, verdict), registers)


def edited_by(model: nn.Module, recipe: MoveRecipe) -> nn.Module:
    """A copy of a model, edited by a recipe that is there. Raises AuditError where it misfits."""
    copy = apply(deepcopy(model), recipe)
    if isinstance(copy, Backbone):
        facts = {"registers": copy.registers, TEST_TIME: asdict(recipe)}
        copy.card = {**copy.card, **facts}
    return copy
