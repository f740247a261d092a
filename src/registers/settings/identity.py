"""What is made of the settings: parameters of the rules, and asked by a run that resumes."""

import hashlib
from pathlib import Path
from typing import Any

from registers.registry import METHODS
from registers.settings.backbone_id import BackboneId
from registers.settings.questions import ZeroshotSettings
from registers.settings.run import Settings


def training_identity(settings: Settings, id: BackboneId) -> dict[str, Any]:
    """Everything that decides the weights of one training, as plain JSON values.

    The evaluation set and the data sets of other methods are left out: changing them trains nothing
    again. The content of files on disk is not looked at; their fingerprints are the manifest's.
    """
    recipe = settings.recipes[id.method]
    size_name = id.size or recipe.size
    return {
        "backbone": str(id.trained),
        "method": id.method,
        "registers": id.registers,
        "seed": id.seed,
        "noaa": id.noaa,
        "recipe": recipe.model_dump(mode="json"),
        "size": settings.sizes[size_name].model_dump(mode="json"),
        "image_size": settings.image_size,
        "precision": settings.precision,
        "fractions": list(settings.fractions),
        "data": training_data(settings, METHODS[id.method].role),
    }


def training_data(settings: Settings, role: str) -> dict[str, Any]:
    """The data set of a role that trains: its spec, and what is drawn or named for it here."""
    spec = getattr(settings.data, role)
    data: dict[str, Any] = {"role": role, "spec": spec}
    if spec == "world":
        data |= {"pixels": settings.world.pixels, "train": settings.world.train}
    elif role == "text" and spec == settings.data.eval:
        # captions are made of the names that zero-shot classification gives the classes
        data["classes"] = words_digest(settings.zeroshot.classes)
    return data


def world_identity(settings: Settings, split: str) -> dict[str, Any]:
    """Everything that decides one drawn split of the built-in world."""
    return {"pixels": settings.world.pixels, "images": getattr(settings.world, split)}


def bank_identity(settings: Settings) -> dict[str, Any]:
    """Everything that decides a token bank, besides its checkpoint and images."""
    return {"bank": settings.bank.model_dump(mode="json"), "image_size": settings.image_size}


def words_digest(setting: str) -> str:
    """What a setting of names or prompts stands for: a hash of its file, or the setting itself.

    The words that stand for no file ("own", "openai") are the settings' defaults.
    """
    words = {field.default for field in ZeroshotSettings.model_fields.values()}
    path = Path(setting).expanduser()
    if setting in words or not path.is_file():
        return setting
    return hashlib.sha256(path.read_bytes()).hexdigest()
