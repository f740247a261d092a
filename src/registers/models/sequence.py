"""How a token sequence is laid out: the only place that knows.

Works on torch tensors and numpy arrays alike.
"""

from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """A sequence taken apart. cls: (B, D) or None, registers: (B, R, D), patches: (B, P, D)."""

    cls: Any
    registers: Any
    patches: Any


def split_tokens(x_BND: Any, registers: int, cls: bool = True) -> Tokens:
    """[CLS], registers and patches of a sequence in timm's order: [CLS], registers, patches.

    x_BND: (B images, N = 1 + registers + patches, D channels). Norms, (B, N), split the same way.
    cls: False for a sequence without [CLS] (only regimes of the emergence study have one).
    """
    first = int(cls)
    return Tokens(
        x_BND[:, 0] if cls else None,
        x_BND[:, first : first + registers],
        x_BND[:, first + registers :],
    )
