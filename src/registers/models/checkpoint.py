"""Checkpoints: the first door. A backbone is one safetensors file and one small json; plain timm loads it in two lines.

facts = json.load(open("last.json"))
vit = timm.create_model(facts["timm"]["name"], **facts["timm"]["arguments"])
vit.load_state_dict(safetensors.torch.load_file("last.safetensors"))
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from registers.models.backbone import Architecture, Backbone, build
from registers.settings.errors import ConfigError


def atomically(path: str | Path, write: Callable[[str], None]) -> None:
    """Let `write` fill a neighbour file, flush it to disk, then rename: the file is either the old one or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    write(str(partial))
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save(
    path: str | Path,
    backbone: Backbone,
    facts: dict[str, Any],
    extras: dict[str, Tensor] | None = None,
) -> None:
    """Write `path` (.safetensors), its .json and, where a method has more than a backbone, `.extras.safetensors`.

    facts: what the json says besides the architecture: method, step, config hash, normalization, extras' own settings.
    """
    path = Path(path)
    weights = {k: v.detach().cpu().contiguous() for k, v in backbone.vit.state_dict().items()}
    atomically(path, lambda p: save_file(weights, p))
    if extras:
        tensors = {k: v.detach().cpu().contiguous() for k, v in extras.items()}
        atomically(path.with_suffix(".extras.safetensors"), lambda p: save_file(tensors, p))
    name, arguments = backbone.architecture.timm()
    content = {
        "id": backbone.name,
        "architecture": asdict(backbone.architecture),
        "registers": backbone.registers,
        "timm": {"name": name, "arguments": arguments},
        "timm_version": timm.__version__,
        **facts,
    }
    text = json.dumps(content, indent=2)
    atomically(path.with_suffix(".json"), lambda p: Path(p).write_text(text))


def facts(path: str | Path) -> dict[str, Any]:
    """The json beside a checkpoint. Raises ConfigError where there is none."""
    path = Path(path).with_suffix(".json")
    if not path.is_file():
        raise ConfigError(f"checkpoint = {path}: no such file; train it first")
    return json.loads(path.read_text())


def load(path: str | Path, device: torch.device | str = "cpu") -> Backbone:
    """The backbone of a checkpoint, in evaluation mode, without gradients."""
    about = facts(path)
    backbone = build(Architecture(**about["architecture"]), name=about["id"])
    backbone.vit.load_state_dict(load_file(Path(path).with_suffix(".safetensors")))
    return backbone.to(device).eval().requires_grad_(False)


def load_extras(path: str | Path) -> dict[str, Tensor]:
    """What the method saved beside its backbone (OpenCLIP: projection and text tower)."""
    return load_file(Path(path).with_suffix(".extras.safetensors"))


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """All that a killed run needs to go on: written atomically, so that a kill during saving loses nothing."""
    atomically(path, lambda p: torch.save(state, p))


def load_state(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The last saved training state, or None where there is none."""
    path = Path(path)
    return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None
