"""Banks of tokens that somebody else computed: callables, arrays, tensors and .npy files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from registers.audit import images as photos
from registers.audit import weights
from registers.audit.arrays import layers_of
from registers.audit.errors import AuditError
from registers.audit.layout import CLS, REGISTER
from registers.audit.load import SIZE, Size
from registers.audit.watched import AuditBank, ModelCard, watch_features
from registers.data.transforms import IMAGENET

ACCEPTED = "must be one array of numbers, as numpy.save writes it"
UNKNOWN = "features of unknown origin: whether they are before the final norm cannot be told"


def called(
    model: Callable,
    images: object,
    name: str,
    size: Size | None,
    prefix: int | None,
    grid: Size | None,
    limit: int | None,
) -> AuditBank:
    """Tokens of a callable: one call per batch, a layer or a list of layers each."""
    name = name or getattr(model, "__name__", type(model).__name__)
    looked_at = photos.prepare(images, size or (SIZE, SIZE), IMAGENET, limit)
    batches: list[list[np.ndarray]] = []
    with torch.no_grad():
        for pixels in looked_at.pixels.split(8):
            layers = layers_of(model(pixels), name)
            if len(layers[0]) != len(pixels):
                raise AuditError(
                    f"{name}: gave {len(layers[0])} token sequences for {len(pixels)} images; must "
                    "be (images, tokens, channels), in a list where there are several layers"
                )
            batches.append([np.array(layer, np.float32) for layer in layers])
    shapes = sorted({(len(layers), *layers[0].shape[1:]) for layers in batches})
    if len(shapes) > 1:
        raise AuditError(
            f"{name}: gave different (layers, tokens, channels) for different images: {shapes}; "
            "must be the same for all"
        )
    layers = [np.concatenate(parts) for parts in zip(*batches)]
    card = ModelCard(
        name,
        architecture="a callable",
        source="tokens that a callable returned",
        notes=looked_at.notes,
    )
    return watch_features(card, layers, _prefix(name, prefix), grid, looked_at)


def given(
    features: Any, name: str, prefix: int | None, grid: Size | None, path: Path | None = None
) -> AuditBank:
    """Tokens as arrays or tensors. path: of the file that they come from."""
    layers = layers_of(features, name)
    shape = layers[0].shape if len(layers) == 1 else (len(layers), *layers[0].shape)
    card = ModelCard(
        name=name,
        architecture=f"features {shape}",
        sha256=weights.digest(path) if path else "",
        hashed="the features" if path else "",
        source=str(path or "an array"),
        notes=(UNKNOWN,),
    )
    return watch_features(card, layers, _prefix(name, prefix), grid)


def _prefix(name: str, prefix: int | None) -> tuple[str, ...]:
    """The first of some prefix tokens is [CLS], the others are registers."""
    if prefix is None:
        raise AuditError(
            f"{name}: prefix must say how many tokens come before the patches, as [CLS] and "
            "registers counted as patches make the verdict wrong (--prefix K, 0 for none)"
        )
    if prefix < 0:
        raise AuditError(f"prefix = {prefix}: must be at least 0")
    return tuple([CLS][:prefix]) + tuple(f"{REGISTER} {r + 1}" for r in range(prefix - 1))


def load_array(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped. Raises AuditError for a damaged file or another kind."""
    head = weights.first_bytes(path, "an array")
    if not head.startswith(np.lib.format.MAGIC_PREFIX):
        weights.refuse_page(head, path, "an array")
        raise AuditError(f"{path}: damaged or not a .npy file ({weights.begins(head)}); {ACCEPTED}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises what Python's parser raises
        if "Python objects" in str(error):
            raise AuditError(f"{path}: holds Python objects; {ACCEPTED}") from None
        reason = " ".join(str(error).split())[:80]
        raise AuditError(f"{path}: damaged ({reason}); {ACCEPTED}") from None
