"""Checkpoints: a backbone is one safetensors file and one small json, its card.

Plain timm loads it:

    card = json.load(open("last.json"))
    vit = timm.create_model(card["timm"]["name"], **card["timm"]["arguments"])
    vit.load_state_dict(safetensors.torch.load_file("last.safetensors"))
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from registers.files import atomically, sha256
from registers.models.backbone import Architecture, Backbone, build
from registers.models.moved_neurons import TEST_TIME, MoveRecipe, apply_to_backbone
from registers.settings.errors import ConfigError

PUBLISHED = "published"  # in the card of weights that were fetched: from where, under which licence


def save(
    path: str | Path,
    backbone: Backbone,
    facts: dict[str, Any],
    extras: dict[str, Tensor] | None = None,
) -> None:
    """Write the weights, what a method has besides its backbone, and last the card.

    path: of the weights, .safetensors; the card is .json beside it, extras .extras.safetensors.
    facts: what the card says besides the architecture: method, step, code, extras' own settings.
    """
    path = Path(path)
    digests = {"weights_sha256": save_tensors(path, backbone.vit.state_dict())}
    if extras:
        digests["extras_sha256"] = save_tensors(_extras(path), extras)
    write_card(path, backbone, backbone.architecture.timm(), {**facts, **digests})


def write_card(
    path: Path, backbone: Backbone, built_by: tuple[str, dict[str, Any]], facts: dict[str, Any]
) -> None:
    """Write the json beside weights. built_by: timm's name and arguments of the ViT.

    facts: what else it says, the SHA-256 of the weights among it ("weights_sha256"), and under
    `PUBLISHED` where weights come from that were not trained here.
    """
    name, arguments = built_by
    content = {
        "id": backbone.name,
        "architecture": asdict(backbone.architecture),
        "registers": backbone.registers,
        "timm": {"name": name, "arguments": arguments},
        "timm_version": timm.__version__,
        "normalization": backbone.normalization,
        **facts,
    }
    text = json.dumps(content | {"card_sha256": _digest_of(content)}, indent=2)
    atomically(path.with_suffix(".json"), lambda partial: partial.write_text(text), durable=True)


def card(path: str | Path) -> dict[str, Any]:
    """The json beside a checkpoint. Raises ConfigError where there is none or it cannot be read."""
    path = Path(path).with_suffix(".json")
    if not path.is_file():
        raise ConfigError(f"checkpoint = {path}: no such file; train it first")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); {_remake(path)}") from None
    if not isinstance(content, dict) or not {"id", "architecture", "normalization"} <= {*content}:
        raise ConfigError(f"{path}: not the card of a checkpoint; {_remake(path)}")
    if content.pop("card_sha256", None) not in (None, _digest_of(content)):
        raise ConfigError(f"{path}: edited or damaged since it was written; {_remake(path)}")
    return content


def load(path: str | Path, device: torch.device | str = "cpu", name: str = "") -> Backbone:
    """The backbone of a checkpoint, in evaluation mode, without gradients.

    name: the id it was asked for by; default: the card's, which is that of the training.
    Raises ConfigError where a file is missing, or is not the one that training wrote.
    """
    path = Path(path).with_suffix(".safetensors")
    about = card(path)
    backbone = _built(about, name or about["id"])
    tensors = _load_tensors(path, about.get("weights_sha256"))
    backbone.vit.load_state_dict(tensors, assign=PUBLISHED in about)
    if TEST_TIME in about:
        apply_to_backbone(backbone, MoveRecipe.of(about[TEST_TIME]))
    backbone.card = about
    backbone.path = path
    return backbone.to(device).eval().requires_grad_(False)


def _built(about: dict[str, Any], name: str) -> Backbone:
    """The backbone that a card describes, its weights still to be loaded.

    One that was trained here is built from its architecture; a published one as timm has it, with
    what no architecture of ours says (QuickGELU, positions of [CLS]), and without weights, which
    may take gigabytes.
    """
    mean, std = about["normalization"]
    normalization = (tuple(mean), tuple(std))
    architecture = Architecture(**about["architecture"])
    if PUBLISHED not in about:
        return build(architecture, name, normalization)
    with torch.device("meta"):
        vit = timm.create_model(about["timm"]["name"], **about["timm"]["arguments"])
    return Backbone(vit, architecture, name, normalization)


def load_extras(path: str | Path) -> dict[str, Tensor]:
    """What the method saved besides its backbone (OpenCLIP: projection and text tower)."""
    return _load_tensors(_extras(path), card(path).get("extras_sha256"))


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- the state of an unfinished training


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write all that a killed run resumes from; a kill during saving leaves the state before."""
    atomically(path, lambda partial: torch.save(state, partial), durable=True)


def load_state(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The last saved training state, or None where there is none.

    Raises ConfigError where the file is damaged.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zip, pickle and runtime errors: torch promises no one type
        raise ConfigError(
            f"{path}: damaged ({_first_line(error)}); delete it to train from the beginning"
        ) from None


# --- tensors on disk


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write them and return the file's SHA-256."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = ""

    def write(partial: Path) -> None:
        nonlocal digest
        save_file(plain, partial)
        digest = sha256(partial)

    atomically(path, write, durable=True)
    return digest


def _load_tensors(path: Path, expected: str | None) -> dict[str, Tensor]:
    """The tensors of a file whose SHA-256 is the one that its card gives."""
    if not path.is_file():
        raise ConfigError(f"checkpoint = {path}: no such file; {_remake(path)}")
    if expected is not None and sha256(path) != expected:
        raise ConfigError(
            f"{path}: damaged, its SHA-256 is not the one in its card; {_remake(path)}"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"{path}: damaged ({_first_line(error)}); {_remake(path)}") from None


def _extras(path: str | Path) -> Path:
    return Path(path).with_suffix(".extras.safetensors")


def _remake(path: Path) -> str:
    return f"delete the folder {path.parent} and run again: it is made anew"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
