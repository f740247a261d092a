"""A model with test-time registers, as a module and as a file that opens again.

The file of weights is that of the model, which no edit changes; the json beside it says how timm
builds the model and the recipe: which neurons move, in which layers, and the SHA-256 of the weights
it was made for.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import BaseModel, FiniteFloat, NonNegativeInt, PositiveInt
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import nn

from registers.audit import config
from registers.audit.added_tokens import apply
from registers.audit.config import Positive
from registers.audit.errors import AuditError
from registers.files import sha256, write_json
from registers.models import checkpoint
from registers.models.backbone import Backbone
from registers.models.moved_neurons import TEST_TIME, MoveRecipe
from registers.settings.errors import ConfigError


class _Timm(BaseModel):
    name: str
    arguments: dict[str, Any]


class _Moved(BaseModel):
    registers: PositiveInt
    neurons: list[tuple[PositiveInt, NonNegativeInt]]
    source_sha256: str = ""
    found: dict[str, Any] = {}


class _Recipe(BaseModel):
    """The json beside the weights."""

    name: str
    timm: _Timm
    normalization: tuple[
        tuple[FiniteFloat, FiniteFloat, FiniteFloat], tuple[Positive, Positive, Positive]
    ]
    test_time_registers: _Moved
    weights_sha256: str


class EditedModel(nn.Module):
    """A model with test-time registers, to be used as the model itself.

    Calls and attributes are those of `vit`, the edited model (timm's, open_clip's tower, or a
    Backbone): `forward`, `forward_features`, `forward_intermediates`... `num_prefix_tokens` counts
    the added tokens: `forward_features` gives [CLS], the model's registers, the added tokens and
    then patches, so that x[:, num_prefix_tokens:] are patches, as in every model of timm.
    """

    def __init__(self, vit: nn.Module, recipe: MoveRecipe, name: str = "") -> None:
        super().__init__()
        self.vit = vit
        self.recipe = recipe
        self.name = name

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.vit(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("vit"), name)

    def save(self, path: str | Path, **arguments: Any) -> Path:
        """Write the weights (.safetensors) and their recipe (.json). Returns the path.

        arguments: those of `timm.create_model` that a model was built with which is none of timm's
        own sizes. Raises AuditError where timm would build another model than this one.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise AuditError(f"{path}: must end in .safetensors")
        if isinstance(self.vit, Backbone):
            checkpoint.save(path, self.vit, self.vit.card)
            return path
        name, built = _built_by(self.vit, arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        config = resolve_model_data_config(self.vit)
        facts = {
            "name": self.name,
            "timm": {"name": name, "arguments": built},
            "timm_version": timm.__version__,
            "normalization": [list(config["mean"]), list(config["std"])],
            TEST_TIME: asdict(self.recipe),
        }
        digest = checkpoint.save_tensors(path, self.vit.state_dict())
        write_json(path.with_suffix(".json"), {**facts, "weights_sha256": digest})
        return path


def is_edited(path: Path) -> bool:
    """Whether a file of weights has a recipe of `EditedModel.save` beside it."""
    content = _recipe(path.with_suffix(".json"))
    return TEST_TIME in content and "architecture" not in content  # that is a backbone's card


def load(path: str | Path) -> EditedModel:
    """The model of a file that `EditedModel.save` wrote, in evaluation mode.

    Raises AuditError where a file is missing, damaged or not of this kind.
    """
    path = Path(path)
    if path.with_suffix(".json").is_file() and "architecture" in _recipe(path.with_suffix(".json")):
        backbone = load_checkpoint(path)
        if TEST_TIME not in backbone.card:
            raise AuditError(f"{path}: a checkpoint without test-time registers")
        return EditedModel(backbone, MoveRecipe.of(backbone.card[TEST_TIME]), backbone.name)
    if not is_edited(path):
        raise AuditError(f"{path}: has no recipe beside it ({path.with_suffix('.json').name})")
    place = path.with_suffix(".json")
    content = config.valid(_Recipe, _recipe(place), place)
    if not path.is_file():
        raise AuditError(f"{path}: no such file; only its recipe is there")
    if sha256(path) != content.weights_sha256:
        raise AuditError(f"{path}: damaged, its SHA-256 is not the one beside it; save it again")
    try:
        vit = timm.create_model(content.timm.name, pretrained=False, **content.timm.arguments)
        vit.load_state_dict(load_file(path))
    except Exception as error:  # arguments come from a file: any of timm's and torch's errors
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:160]
        raise AuditError(
            f"{place}: timm cannot build the model of its weights ({reason})"
        ) from None
    mean, std = content.normalization
    vit.pretrained_cfg = {**(vit.pretrained_cfg or {}), "mean": mean, "std": std}
    recipe = MoveRecipe.of(content.test_time_registers.model_dump())
    apply(vit.eval().requires_grad_(False), recipe)
    return EditedModel(vit, recipe, content.name).eval()


def load_checkpoint(path: Path) -> Backbone:
    """A backbone of this project.

    Raises AuditError where it is damaged, without the advice to delete its folder: a file that was
    copied may lie among others.
    """
    try:
        return checkpoint.load(path)
    except ConfigError as error:
        raise AuditError(str(error).partition("; delete the folder")[0]) from None


def _recipe(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _built_by(vit: nn.Module, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments with which timm builds this model, tried without making weights."""
    config = getattr(vit, "pretrained_cfg", None) or {}
    name = config.get("architecture")
    if not name:
        raise AuditError(
            f"save: {type(vit).__name__} is not a model of timm, so its file could not be opened"
        )
    arguments = {"num_classes": vit.num_classes, "img_size": list(vit.patch_embed.img_size)}
    arguments = {**arguments, **given}
    with torch.device("meta"):
        built = timm.create_model(name, **arguments)
    if _shape(built) != _shape(vit):
        raise AuditError(
            f"save: timm builds another {name} with {arguments}: give save(path, ...) the "
            "other arguments of timm.create_model that this model was built with"
        )
    return name, arguments


def _shape(vit: nn.Module) -> tuple:
    """What tells two models of timm apart besides their weights: parts, tensors, heads."""
    tensors = {name: tuple(tensor.shape) for name, tensor in vit.state_dict().items()}
    return repr(vit), tensors, getattr(vit.blocks[0].attn, "num_heads", None)
