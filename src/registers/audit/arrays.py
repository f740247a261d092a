"""The door for tokens that somebody else computed: arrays and tensors, by kind and shape."""

from typing import Any

import numpy as np
import torch

from registers.audit.errors import AuditError

SHAPES = (
    "must be (images, tokens, channels), or such an array for each layer, all of one shape and "
    "none empty"
)


def layers_of(features: Any, name: str) -> list[np.ndarray]:
    """Arrays (images, N, D) of real numbers, one for each layer; they are not copied.

    features: such an array or tensor, several of them in a list, or (L, images, N, D). name: what
    messages call it. Raises AuditError, one line, for anything else.
    """
    if isinstance(features, list | tuple):
        layers = [_numbers(layer, name) for layer in features]
    else:
        array = _numbers(features, name)
        layers = list(array) if array.ndim == 4 else [array]
    shapes = sorted({layer.shape for layer in layers})
    if len(shapes) != 1 or len(shapes[0]) != 3 or 0 in shapes[0]:
        raise AuditError(f"{name}: features have shapes {shapes}: {SHAPES}")
    return layers


def _numbers(tokens: Any, name: str) -> np.ndarray:
    """An array of integers or of floating-point numbers; of a tensor, on the CPU."""
    kind = type(tokens).__name__
    try:
        if isinstance(tokens, torch.Tensor):
            tokens = tokens.detach().cpu()
            tokens = (tokens.float() if tokens.dtype == torch.bfloat16 else tokens).numpy()
        array = np.asarray(tokens)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise AuditError(f"{name}: {kind} is no array of numbers ({reason})") from None
    if array.dtype.kind not in "fiu":
        holds = kind if array.dtype.kind == "O" else f"values of type {array.dtype}"
        raise AuditError(f"{name}: {holds}; must be an array or a tensor of real numbers")
    return array
