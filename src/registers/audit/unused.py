"""Options that would do nothing for a model are refused: whoever gives them expects something."""

from pathlib import Path
from typing import Any

import timm

from registers.audit import edited_file, hub, load
from registers.audit.errors import AuditError

_OF_MODELS = ("images", "arch", "size", "limit")
_SCHEMES = ("hf-hub", "open_clip", "random")


def refuse_of_features(name: str, **options: Any) -> None:
    """Raise AuditError for an option of models, where tokens are there already."""
    for option in _OF_MODELS:
        value = options.get(option)
        if value is not None and not (isinstance(value, str) and not value):
            raise AuditError(f"{option}: is for models; {name} holds tokens that are there already")
    refuse_device(options.get("device", ""), name, "holds tokens that are there already")


def refuse_device(device: str, name: str, why: str) -> None:
    """Raise AuditError for a device other than the CPU where nothing of ours would run on it."""
    if device not in ("", "cpu"):
        raise AuditError(f"device = {device}: is for models by name or file; {name} {why}")


def refuse_of_model(prefix: int | None, grid: Any) -> None:
    """Raise AuditError for an option of features, where a model says it itself."""
    if prefix is not None:
        raise AuditError("prefix: is for arrays and callables; a model names its own tokens")
    if grid is not None:
        raise AuditError("grid: is for arrays and callables; a model names its own patches")


def refuse_arch(arch: str, *models: Any) -> None:
    """Raise AuditError for an architecture that none of these models takes."""
    if arch and not any(takes_arch(model) for model in models):
        raise AuditError(
            f"arch = {arch}: is for files of weights that do not say their architecture; "
            "leave it out here"
        )


def takes_arch(model: Any) -> bool:
    """Whether a model is a file of weights and nothing that says its architecture.

    True also for what is none of all that is known: loading it says so.
    """
    if not isinstance(model, str | Path) or str(model).endswith(".npy"):
        return False
    name, path = str(model), Path(model).expanduser()
    if name.partition(":")[0] in _SCHEMES or hub.dinov2_timm_name(name) or path.is_dir():
        return False
    if not path.exists():
        return not timm.is_model(name.partition(".")[0])
    if path.suffix != ".safetensors":
        return True
    return not (edited_file.is_edited(path) or load.is_ours(path.with_suffix(".json")))
