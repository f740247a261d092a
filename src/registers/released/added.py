"""Test-time registers of a published model, as a checkpoint of its own beside the model's.

What the rule `add_registers` does: "with registers" of models that were published without. Neurons
are found on evaluation images, without labels, as `registers audit --test-time-registers` does
(`audit.test_time`). The weights are a hard link to the model's; the card says what is moved.

Where nothing can be moved (no outliers, or no neurons that write them) the run goes on: the tokens
are added and stay empty, the card says why, captions and the page repeat it, and no claim is judged
on such a model. Leaving it out would change the graph of a run that has begun.
"""

from dataclasses import asdict, replace

import torch

from registers.audit import test_time
from registers.audit.added_tokens import apply
from registers.audit.errors import AuditError
from registers.files import atomically
from registers.models import checkpoint
from registers.models.backbone import Backbone
from registers.models.device import choose_device
from registers.models.moved_neurons import TEST_TIME, MoveRecipe
from registers.readers.catalogue import evaluation_sets
from registers.released.fetch import link
from registers.settings.released import MOVED, UNMOVED, PublishedModel, catalogue
from registers.settings.run import Settings

IMAGES = 64  # on which neurons are found; Jiang et al. take 500 of ImageNet


def add_registers(settings: Settings, name: str) -> str:
    """Make a model of the catalogue that has `test_time_of`. Returns what was done, a line.

    The model that it is made of must be a checkpoint of this run. Raises ConfigError where it is
    not, or is damaged.
    """
    model = catalogue()[name]
    source = settings.layout.checkpoint(model.test_time_of)
    backbone = checkpoint.load(source, choose_device(settings.device))
    facts = {key: backbone.card[key] for key in ("weights_sha256", "method", "seed")}
    facts[checkpoint.PUBLISHED] = dict(backbone.card[checkpoint.PUBLISHED])

    recipe, reason = _recipe(settings, model, backbone)
    done = {UNMOVED: reason} if reason else {MOVED: recipe.words()}
    facts[checkpoint.PUBLISHED] |= {"test_time_of": model.test_time_of, **done}
    facts[TEST_TIME] = asdict(replace(recipe, source_sha256=facts["weights_sha256"]))

    path = settings.layout.checkpoint(name)
    atomically(path, lambda partial: link(source, partial))
    about = backbone.card["timm"]
    apply(backbone, recipe)
    backbone.name = name
    checkpoint.write_card(path, backbone, (about["name"], about["arguments"]), facts)
    return f"{name}: {reason or recipe.words()}"


def _recipe(
    settings: Settings, model: PublishedModel, backbone: Backbone
) -> tuple[MoveRecipe, str]:
    """What is moved, and "", or else tokens alone, and why nothing is."""
    registers = model.backbone.registers
    # the authors' choices are for models as published, not for changed ones
    known_as = "" if model.arguments else model.timm
    try:
        return test_time.recipe_for(backbone, _pixels(settings, backbone), registers, known_as), ""
    except AuditError as error:
        return MoveRecipe(registers, ()), str(error)


def _pixels(settings: Settings, backbone: Backbone) -> torch.Tensor:
    """(B, 3, H, W): images spread over those that are evaluated on, as the token bank sees them."""
    (evaluation,) = evaluation_sets(settings, "eval")
    images = evaluation.val
    step = max(1, len(images) // IMAGES)
    chosen = range(0, len(images), step)[:IMAGES]
    return torch.stack([backbone.look(images[i].image, settings.image_size) for i in chosen])
