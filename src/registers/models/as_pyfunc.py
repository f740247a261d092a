"""A checkpoint as `mlflow.pyfunc.load_model` returns it; MLflow imports this module by name."""

import json
from pathlib import Path
from typing import Any

import torch

from registers.files import sha256
from registers.models import checkpoint
from registers.models.backbone import Backbone


class PyfuncBackbone:
    """A backbone with the methods that MLflow calls."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone.eval()

    def predict(self, images: Any, params: dict[str, Any] | None = None):
        """(B, D) outputs of [CLS]. images: (B, 3, S, S), normalised as the card says."""
        with torch.inference_mode():
            images = torch.as_tensor(images, dtype=torch.float32)
            return self.backbone.vit.forward_features(images)[:, 0].numpy()

    def get_raw_model(self) -> Backbone:
        """The backbone itself, `load_model(uri).get_raw_model()`."""
        return self.backbone


def _load_pyfunc(path: str) -> PyfuncBackbone:
    """Called by MLflow. Raises FileNotFoundError and ValueError for weights that are not these."""
    pointer = json.loads(Path(path, "checkpoint.json").read_text())
    weights = Path(pointer["weights"])
    if not weights.is_file():
        raise FileNotFoundError(
            f"{weights} is missing: load it in the project's folder, after `dvc pull`"
        )
    if pointer["sha256"] and sha256(weights) != pointer["sha256"]:
        raise ValueError(
            f"{weights} was trained again since, so it is no longer what this model names"
        )
    return PyfuncBackbone(checkpoint.load(weights))
