"""The library: `tokens`, `outliers` and `audit` for anyone's vision transformer.

bank = tokens("vit_base_patch14_dinov2.lvd142m", "photos/")
bank.norms, bank.attention(layer=-1, queries="registers")
outliers(bank).words
audit(model, "photos/").show()
add_test_time_registers(model, "photos/").save("edited.safetensors")
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from registers.audit import edited_file, features, load, register_neurons, test_time, unused
from registers.audit import images as photos
from registers.audit.added_tokens import MOST
from registers.audit.audited import Audit
from registers.audit.edited_file import EditedModel
from registers.audit.errors import AuditError
from registers.audit.examine import examine, with_test_time_registers
from registers.audit.results import AuditReport
from registers.audit.verdict import AuditVerdict, judge
from registers.audit.watched import AuditBank, watch_model
from registers.models.device import choose_device
from registers.models.moved_neurons import MoveRecipe
from registers.vocabulary import added

Size = tuple[int, int]
Model = str | Path | nn.Module | np.ndarray | torch.Tensor | Callable


def tokens(
    model: Model,
    images: object = None,
    *,
    name: str = "",
    arch: str = "",
    size: int | Size | None = None,
    prefix: int | None = None,
    grid: Size | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> AuditBank:
    """Norms of all tokens after every block of a model, and attention and neurons on demand.

    model: a name (see `load`), a module (timm's, open_clip's, a Backbone), a callable from
        normalised pixels (B, 3, H, W) to tokens (B, N, D) or a list of them, one for each layer; or
        such tokens themselves, an array or tensor (B, N, D) or (L, B, N, D), several (B, N, D) in a
        list, or a .npy file of them.
    images: None for views of photos that come with installed packages, a folder, files, PIL images,
        or a tensor (B, 3, H, W) that is normalised already.
    name: for the reports. arch: timm's name, for files that do not say their architecture.
    size: height and width in pixels, or one number for both.
    prefix: of callables and arrays: how many tokens come before the patches ([CLS], registers).
    grid: of callables and arrays: patches down and across, where they are no square.
    limit: images at most. device: "cpu", "cuda", "mps" or "auto", of names and files; a module
        stays where it is.

    Raises AuditError, one line, for what cannot be audited.
    """
    pair = (size, size) if isinstance(size, int) else size
    of_models = dict(images=images, arch=arch, size=size, limit=limit, device=device)
    if isinstance(model, str | Path) and str(model).endswith(".npy"):
        unused.refuse_of_features(str(model), **of_models)
        path = Path(model).expanduser()
        return features.given(features.load_array(path), name or str(model), prefix, grid, path)
    if isinstance(model, np.ndarray | torch.Tensor | list | tuple):
        name = name or "features"
        unused.refuse_of_features(name, **of_models)
        return features.given(model, name, prefix, grid)
    unused.refuse_arch(arch, model)
    if callable(model) and not isinstance(model, nn.Module):
        unused.refuse_device(device, "a callable", "chooses its own")
        return features.called(model, images, name, pair, prefix, grid, limit)
    unused.refuse_of_model(prefix, grid)
    if isinstance(model, EditedModel):
        name = name or model.name
        model = model.vit
    device = choose_device(device)  # before anything is fetched
    if isinstance(model, nn.Module):
        loaded = load.load_module(model, name, pair)
    elif isinstance(model, str | Path):
        loaded = load.load(str(model), arch, pair)
        if name:
            loaded = replace(loaded, card=replace(loaded.card, name=name))
    else:
        raise AuditError(
            f"model: {type(model).__name__}; must be a name, a module, a callable, an array or a "
            "tensor"
        )
    if not isinstance(model, nn.Module):
        loaded.module.to(device)
    seen_images = photos.prepare(images, loaded.size, loaded.normalization, limit)
    card = replace(loaded.card, notes=(*loaded.card.notes, *seen_images.notes))
    return watch_model(card, loaded.module, loaded.anatomy, seen_images)


def outliers(bank: AuditBank) -> AuditVerdict:
    """Whether a bank's patches have outliers, from which layer on, and how high they are."""
    _, verdict = judge(bank.norms, bank.normed, bank.massive, bank.layout, bank.norm_note)
    return verdict


def audit(
    model: Model | Sequence[Model], images: object = None, test_time_registers: int = 0, **options
) -> AuditReport:
    """Everything at once: table, verdict, places, heads, neurons; `.show()` it.

    model: as in `tokens`, or a list of them to be set side by side (also arrays: layers of one
        model come as one array (L, B, N, D)).
    test_time_registers: how many tokens to add (Jiang et al. 2025): the same model on the same
        images before and after; 0 for none.
    options: those of `tokens`. Of several models, `arch` is of those that are files of weights.
    """
    if not 0 <= test_time_registers <= MOST:
        raise AuditError(
            f"test_time_registers = {test_time_registers}: must be from 0 (none) to {MOST}"
        )
    models = list(model) if isinstance(model, list | tuple) else [model]
    unused.refuse_arch(options.get("arch", ""), *models)
    audits = []
    for each in models:
        own = dict(options)
        if len(models) > 1 and not unused.takes_arch(each):  # beside a file that needs it
            own.pop("arch", None)
        audits.append(_audit_one(each, images, test_time_registers, **own))
    return AuditReport(tuple(audits))


def add_test_time_registers(
    model: Model,
    images: object = None,
    registers: int = 1,
    *,
    arch: str = "",
    size: int | Size | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> EditedModel:
    """A model whose register neurons write on added tokens instead of on patches: no training.

    model: a name or a module, as in `tokens`; it stays as it is. images: those on which neurons are
    found. Returns a module to be used as the model itself; `.recipe` says what was done and
    `.save("edited.safetensors")` keeps it for `registers audit` and `load_test_time_registers`.

    Raises AuditError, one line: "no outliers, nothing to move", or why it cannot be done.
    """
    options = dict(arch=arch, size=size, limit=limit, device=device)
    bank = tokens(model, images, **options)
    rows, verdict = judge(bank.norms, bank.normed, bank.massive, bank.layout, bank.norm_note)
    return _edited(
        bank, test_time.find(bank, register_neurons.choice(bank, rows, verdict), registers)
    )


def edited_model(audited: Audit) -> EditedModel:
    """The model of an audit with the test-time registers that it was looked at with.

    Raises AuditError, one line, where it was looked at without: nothing to move, or why not.
    """
    if audited.change is None:
        reason = audited.change_note or "audit it with test-time registers first"
        raise AuditError(f"{audited.name}: has no test-time registers to save; {reason}")
    return _edited(audited.bank, audited.change.recipe)


def _edited(bank: AuditBank, recipe: MoveRecipe) -> EditedModel:
    name = f"{bank.card.name} + {added(recipe.registers)}"
    return EditedModel(test_time.edited_by(bank.module, recipe), recipe, name).eval()


def load_test_time_registers(path: str | Path) -> EditedModel:
    """The model of a file that `add_test_time_registers(...).save` wrote. Raises AuditError."""
    return edited_file.load(path)


def _audit_one(model: Model, images: object, test_time_registers: int, **options) -> Audit:
    began = time.perf_counter()
    examined = examine(tokens(model, images, **options), began)
    if test_time_registers:
        return with_test_time_registers(examined, test_time_registers)
    return examined
