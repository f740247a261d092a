"""Adding test-time registers to a model: its tokens, its counts, and movers of neurons."""

from torch import nn

from registers.audit.anatomy import Anatomy, anatomy_of, neuron_writer, trunk_of
from registers.audit.errors import AuditError
from registers.audit.layout import ADDED
from registers.models.moved_neurons import MovedNeurons, MoveRecipe, TakenOff, add_tokens

MOST = 1024  # test-time registers; more than images of ordinary sizes have patches


def apply(module: nn.Module, recipe: MoveRecipe) -> nn.Module:
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
        raise AuditError(f"recipe: names layer {deepest}, but the model has {anatomy.depth}")
    movers = attach(module, anatomy, recipe.registers, tuple(recipe.by_layer()))
    for layer, neurons in recipe.by_layer().items():
        width = neuron_writer(anatomy.blocks[layer - 1]).in_features
        if max(neurons) >= width:
            raise AuditError(
                f"recipe: layer {layer} has {width} neurons, numbered from 0, not {max(neurons)}"
            )
        movers[layer].neurons = neurons
    return module


def check(module: nn.Module, anatomy: Anatomy, registers: int) -> None:
    """Raise AuditError where a model cannot be given tokens: one line that says why."""
    kind = type(trunk_of(module)).__name__
    if not 1 <= registers <= MOST:
        raise AuditError(f"test-time registers = {registers}: must be from 1 to {MOST}")
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


def attach(
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
