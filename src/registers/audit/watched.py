"""AuditBank: what forward passes over a few images show of one model.

Norms of all layers are kept. Attention, q, k, v and neurons are large: they are computed when asked
for, by another forward pass in batches, and not kept.

Letters: B images, L layers, N tokens, D channels, F neurons, H heads of d channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from registers.audit import watch
from registers.audit.anatomy import Anatomy
from registers.audit.arrays import layers_of
from registers.audit.errors import AuditError
from registers.audit.layout import TokenLayout
from registers.audit.verdict import counted
from registers.models.backbone import Projections

BATCH = 8  # images of one forward pass


@dataclass(frozen=True)
class ModelCard:
    """Who was audited: what the page, --json and --csv say of a model.

    name: as it was asked for. architecture: in words. sha256: of the file of its weights, or of its
    tensors where it came as an object; hashed: which of the two. revision: of the hub's repository,
    "" where there is none. source: where the weights come from. notes: what a reader must know.
    """

    name: str
    architecture: str = ""
    sha256: str = ""
    hashed: str = ""
    revision: str = ""
    source: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()


class AuditImages(NamedTuple):
    """What a model looks at.

    pixels: (B, 3, H, W), normalised as the model expects. names: of the images.
    pictures: (B, H, W, 3) uint8 to show; None where only tensors were given.
    notes: what was left out.
    """

    pixels: Tensor
    names: tuple[str, ...]
    pictures: np.ndarray | None
    notes: tuple[str, ...] = ()


@dataclass
class AuditBank:
    """Norms of every token after every block, and ways to ask for more.

    card: who was looked at. layout: which token is what.
    norms: (B, L, N) float32, of the residual stream after each block, before the final norm.
    normed: (B, L, N), the same behind the final norm; NaN where the model has none.
    massive: (B, L, N) int, how many activations of a token are massive (see `watch`).
    outputs: (B, N, D), after the last block, before the final norm.
    images, module, anatomy: what was looked at, and with what; None for raw features.
    """

    card: ModelCard
    layout: TokenLayout
    norms: np.ndarray
    normed: np.ndarray
    massive: np.ndarray
    outputs: np.ndarray
    norm_note: str = ""
    images: AuditImages | None = None
    module: nn.Module | None = field(default=None, repr=False)
    anatomy: Anatomy | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.norms)

    @property
    def layers(self) -> int:
        return self.norms.shape[1]

    @property
    def grid(self) -> tuple[int, int] | None:
        return self.layout.grid

    # --- norms

    def patch_norms(self, layer: int = -1) -> np.ndarray:
        """(B, P) norms of patches after block `layer`, 1 to L, or counted from the end."""
        return self.layout.patch_part(self.norms[:, self.layer_index(layer)])

    def layer_index(self, layer: int) -> int:
        """From 0, of a layer that is 1 to L or counted from the end. Raises AuditError."""
        if not 1 <= abs(layer) <= self.layers:
            raise AuditError(
                f"layer = {layer}: must be from 1 to {self.layers}, or -1 to -{self.layers}"
            )
        return layer - 1 if layer > 0 else self.layers + layer

    # --- what another forward pass shows

    def attention(
        self, layer: int = -1, queries: Any = "cls", images: Sequence[int] | None = None
    ) -> np.ndarray:
        """(B, H, Q, N) rows of the attention of block `layer`, softmax included.

        queries: "cls", "registers", "prefix", "patches", "all", a slice or token indices. images:
        indices; default: all. Raises AuditError where attention cannot be had, with the reason.
        """
        wanted = torch.tensor(self.layout.indices(queries))

        def rows(taken: watch.Taken) -> Tensor:
            parts = [rows for _, rows in watch.attention_rows(taken, wanted.to(taken.q.device))]
            return torch.cat(parts, dim=2)

        return self._of_layer(layer, rows, images)

    def qkv(self, layer: int = -1, images: Sequence[int] | None = None) -> Projections:
        """q, k and v (B, H, N, d) as attention takes them: after norms and rotary positions."""
        stacked = self._of_layer(layer, lambda taken: torch.stack(taken[:3], dim=1), images)
        return Projections(*(stacked[:, i] for i in range(3)))

    def neurons(self, layer: int = -1, images: Sequence[int] | None = None) -> np.ndarray:
        """(B, N, F) activations of the MLP of block `layer`: inputs of its last linear layer."""
        index = self.layer_index(layer)
        anatomy = self.parts()
        parts: list[Tensor] = []

        def look(pixels: Tensor, start: int) -> None:
            watch.neurons(anatomy, pixels, (index,), lambda _, x: parts.append(x.float().cpu()))

        self.each_batch(look, images)
        return torch.cat(parts).numpy()

    def _of_layer(
        self,
        layer: int,
        reduce: Callable[[watch.Taken], Tensor],
        images: Sequence[int] | None,
    ) -> np.ndarray:
        index = self.layer_index(layer)
        anatomy = self.parts()
        parts: list[Tensor] = []

        def look(pixels: Tensor, start: int) -> None:
            def take(_, taken: watch.Taken) -> None:
                parts.append(reduce(taken).float().cpu())

            watch.taken(anatomy, pixels, (index,), take)

        self.each_batch(look, images)
        return torch.cat(parts).numpy()

    def each_batch(
        self, look: Callable[[Tensor, int], Any], images: Sequence[int] | None = None
    ) -> None:
        """Call `look(pixels on the model's device, index of the first image)` batch by batch."""
        self.parts()
        pixels = self.images.pixels if images is None else self.images.pixels[list(images)]
        device = device_of(self.module)
        with evaluating(self.module):
            for start in range(0, len(pixels), BATCH):
                look(pixels[start : start + BATCH].to(device), start)

    def parts(self) -> Anatomy:
        """The anatomy of the model. Raises AuditError where only features were given."""
        if self.anatomy is None:
            raise AuditError(
                f"{self.card.name}: features hold no attention and no neurons; give the model"
            )
        return self.anatomy


def watch_model(
    card: ModelCard, module: nn.Module, anatomy: Anatomy, images: AuditImages
) -> AuditBank:
    """One forward pass over all images, in batches.

    Raises AuditError for a size that patches do not divide, and where norms are not finite.
    """
    grid = anatomy.grid(*images.pixels.shape[-2:])
    device = device_of(module)
    parts: list[watch.Residuals] = []
    with evaluating(module):
        for pixels in images.pixels.split(BATCH):
            batch = watch.residuals(anatomy, pixels.to(device))
            parts.append(watch.Residuals(*(tensor.cpu() for tensor in batch)))
    residuals = watch.Residuals(*(torch.cat(column).numpy() for column in zip(*parts)))
    _check_finite(card.name, residuals.norms)
    return AuditBank(
        card=card,
        layout=TokenLayout(anatomy.prefix, grid[0] * grid[1], grid),
        norms=residuals.norms,
        normed=residuals.normed,
        massive=residuals.massive,
        outputs=residuals.outputs,
        norm_note=anatomy.norm_note,
        images=images,
        module=module,
        anatomy=anatomy,
    )


def watch_features(
    card: ModelCard,
    features: Any,
    prefix: tuple[str, ...],
    grid: tuple[int, int] | None = None,
    images: AuditImages | None = None,
) -> AuditBank:
    """A bank of norms alone, from tokens that somebody else computed.

    features: (images, N, D), or one such array per layer (L, images, N, D). grid: patches down and
    across; default: square, where their number is. Raises AuditError for other shapes and where
    norms are not finite.
    """
    layers = layers_of(features, card.name)
    patches = layers[0].shape[1] - len(prefix)
    if patches < 1:
        raise AuditError(
            f"prefix = {len(prefix)}: must be below {layers[0].shape[1]}, the tokens there are"
        )
    side = int(patches**0.5)
    if grid is None and side * side == patches:
        grid = (side, side)
    if grid is not None and grid[0] * grid[1] != patches:
        raise AuditError(
            f"grid = {grid[0]}x{grid[1]}: must hold {patches} patches, the tokens without "
            f"{len(prefix)} prefix tokens"
        )
    found = []
    for layer in layers:  # one at a time is copied: a file may be larger than memory
        with np.errstate(over="ignore"):  # told by norms that are not finite
            layer = np.array(layer, np.float32)
        massive = watch.massive(torch.from_numpy(layer)).numpy()
        found.append((np.linalg.norm(layer, axis=-1), massive))
    norms, massive = (np.stack(column, axis=1) for column in zip(*found))
    _check_finite(card.name, norms)
    return AuditBank(
        card=card,
        layout=TokenLayout(prefix, patches, grid),
        norms=norms,
        normed=np.full_like(norms, np.nan),
        massive=massive,
        outputs=layer,
        norm_note="features come without the model's final norm",
        images=images,
    )


def _check_finite(name: str, norms_BLN: np.ndarray) -> None:
    """Raise AuditError where a token's norm is NaN or infinite; it names the first such layer."""
    wrong_L = (~np.isfinite(norms_BLN)).sum(axis=(0, 2))
    if wrong_L.any():
        layer = int(wrong_L.nonzero()[0][0])
        of = norms_BLN[:, layer].size
        raise AuditError(
            f"{name}: NaN, infinity, or numbers too large for float32 in {wrong_L[layer]} of "
            f"{counted(of, 'token')} of layer {layer + 1}; all must be finite"
        )


def device_of(module: nn.Module) -> torch.device:
    return next(iter(module.parameters())).device


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, and afterwards every part in the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
