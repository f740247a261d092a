"""Test-time registers for anyone's vision transformer: find the neurons, move them, keep the model.

model = add_test_time_registers("vit_base_patch16_clip_224.openai", "photos/")
model(pixels), model.forward_features(pixels)      # as timm's
model.save("edited.safetensors")                   # and edited.json, its recipe

See `models.moved_neurons` for what is done to a model.
"""

from copy import deepcopy
from dataclasses import asdict

import numpy as np
import torch
from torch import nn

from registers.audit import images as photos
from registers.audit import load, register_neurons, watch
from registers.audit.anatomy import Anatomy, anatomy_of, neuron_writer, trunk_of
from registers.audit.errors import AuditError
from registers.audit.layout import ADDED
from registers.audit.register_neurons import Choice, Neurons
from registers.audit.verdict import AuditVerdict, LayerRow, judge
from registers.audit.watched import BATCH, AuditBank, device_of, evaluating, watch_model
from registers.models.backbone import Backbone
from registers.models.moved_neurons import (
    TEST_TIME,
    MovedNeurons,
    Recipe,
    TakenOff,
    add_tokens,
)

JUDGES = 8  # images on which the fewest neurons are told, those with most outliers


def find(
    bank: AuditBank, rows: list[LayerRow], verdict: AuditVerdict, registers: int = 1
) -> Recipe:
    """The recipe for a model that was looked at.

    Raises AuditError, one line: where there is nothing to move, no neuron writes the outliers, or
    the model cannot be given tokens.
    """
    anatomy = bank.parts()
    check(bank.module, anatomy, registers)
    chosen = register_neurons.choice(bank, rows, verdict)
    ranked = register_neurons.candidates(bank, chosen)
    neurons = tuple((row.layer, row.neuron) for row in ranked)
    if chosen.top is None:
        neurons = _fewest(bank, chosen, neurons, registers)
    return Recipe(
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


def apply(module: nn.Module, recipe: Recipe) -> nn.Module:
    """Give a model its test-time registers, in place. Returns it.

    timm's models count them from then on: `num_prefix_tokens` includes them, so that
    `forward_features` gives [CLS], the model's registers, the added tokens, patches, and pooling
    and `forward_intermediates` leave them out as they do registers. A Backbone counts them among
    its `registers`. open_clip's tower gives what it gave, without them. Raises AuditError for a
    model that cannot be given tokens, or that the recipe does not fit.
    """
    anatomy = anatomy_of(module)
    check(module, anatomy, recipe.registers)
    deepest = max(recipe.by_layer(), default=0)
    if deepest > anatomy.depth:
        raise AuditError(f"recipe: names layer {deepest}, the model has {anatomy.depth}")
    movers = _attach(module, anatomy, recipe.registers, tuple(recipe.by_layer()))
    for layer, neurons in recipe.by_layer().items():
        width = neuron_writer(anatomy.blocks[layer - 1]).in_features
        if max(neurons) >= width:
            raise AuditError(f"recipe: layer {layer} has {width} neurons, none is {max(neurons)}")
        movers[layer].neurons = neurons
    return module


def check(module: nn.Module, anatomy: Anatomy, registers: int) -> None:
    """Raise AuditError where a model cannot be given tokens: one line that says why."""
    kind = type(trunk_of(module)).__name__
    if registers < 1:
        raise AuditError(f"test-time registers = {registers}: must be at least 1")
    if any(name.startswith(ADDED) for name in anatomy.prefix):
        raise AuditError(f"{kind} has test-time registers already: start from the model without")
    for name, _ in module.named_modules():
        if "rel_pos" in name:
            raise AuditError(_relative(kind))
    for name, _ in module.named_parameters():
        if "relative_position" in name:
            raise AuditError(_relative(kind))


def _relative(kind: str) -> str:
    return (
        f"{kind} cannot have test-time registers: its attention adds a bias for each pair of "
        "places (relative positions), and an added token has no place"
    )


def _attach(
    module: nn.Module, anatomy: Anatomy, registers: int, layers: tuple[int, ...]
) -> dict[int, MovedNeurons]:
    """Add the tokens, and a mover of no neurons yet in each layer, from 1. In place."""
    trunk = trunk_of(module)
    behind = len(anatomy.prefix)
    add_tokens(trunk, anatomy.blocks, behind, registers)
    if hasattr(trunk, "transformer"):  # open_clip's tower slices at fixed places
        trunk.transformer.register_forward_hook(TakenOff(behind, registers))
    movers = {}
    for layer in layers:
        movers[layer] = MovedNeurons([], behind, registers)
        neuron_writer(anatomy.blocks[layer - 1]).register_forward_pre_hook(movers[layer])
    return movers


def _fewest(bank: AuditBank, chosen: Choice, ranked: Neurons, registers: int) -> Neurons:
    """The fewest neurons that take the outliers away, on the images with most of them."""
    images = np.argsort(-chosen.mask.sum(1), kind="stable")[:JUDGES]
    pixels = bank.images.pixels[images.tolist()]
    mask = chosen.mask[images]
    module = deepcopy(bank.module)
    movers = _attach(module, anatomy_of(module), registers, tuple(range(1, chosen.highest + 1)))
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
    loaded = load.load_module(model)
    looked_at = photos.prepare(images, loaded.size, loaded.normalization)
    bank = watch_model(loaded.card, loaded.module, loaded.anatomy, looked_at)
    rows, verdict = judge(bank.norms, bank.normed, bank.massive, bank.layout, bank.norm_note)
    recipe = find(bank, rows, verdict, registers)
    copy = apply(deepcopy(model), recipe)
    if isinstance(copy, Backbone):
        facts = {"registers": copy.registers, TEST_TIME: asdict(recipe)}
        copy.card = {**copy.card, **facts}
    return copy
