"""Backbone: a plain timm ViT with registers, how it sees an image, and what can be observed inside.

Letters: B images, N tokens, D channels, P patches, L layers, H heads of d channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from PIL import Image
from timm.layers import Attention, DropPath
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from registers.data.transforms import IMAGENET, evaluation, to_tensor
from registers.models.sequence import Tokens, split_tokens

OFFSET = 0.1  # dinov2/models/vision_transformer.py, interpolate_offset

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the ViT again; written into every checkpoint's json.

    width, depth, heads: D, L, H. patch, image: pixels. registers: R.
    ffn: "mlp" or "swiglu" (DINOv2 trains ViT-L with SwiGLU, dinov2/configs/train/vitl14.yaml).
    layer_scale: initial value or None.
    drop_path: constant over depth, as in DeiT-III and DINOv2. drop_path_rises: linearly from 0 to
        this share instead, as in DINO.
    pre_norm: LayerNorm before the blocks, as CLIP has.
    antialias: position embeddings are interpolated with antialiasing (paper, appendix A). Without,
        by a scale factor of (target + 0.1) / source, the official default of that time.
    """

    width: int
    depth: int
    heads: int
    patch: int
    image: int
    registers: int = 0
    ffn: str = "mlp"
    layer_scale: float | None = None
    drop_path: float = 0.0
    drop_path_rises: bool = False
    pre_norm: bool = False
    antialias: bool = True

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across at the training resolution."""
        return self.image // self.patch, self.image // self.patch

    def timm(self) -> tuple[str, dict[str, Any]]:
        """Name and arguments with which `timm.create_model(name, **arguments)` builds this ViT.

        The names only stand for a family (MLP or SwiGLU); every size is overridden. Registers and
        [CLS] get no position (dinov2/models/vision_transformer.py adds one to [CLS], which is the
        same function: a sum of two free vectors).
        """
        arguments = dict(
            img_size=self.image,
            patch_size=self.patch,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            num_classes=0,
            reg_tokens=self.registers,
            no_embed_class=True,
            dynamic_img_size=True,
            init_values=self.layer_scale,
            pre_norm=self.pre_norm,
        )
        if self.ffn == "mlp":
            return "vit_tiny_patch16_224", arguments
        # timm packs gate and value: int(mlp_ratio * width) must be twice the hidden width, which a
        # rounded quotient misses by one at some widths (752, 1456, 1504) without the half
        ratio = (2 * swiglu_width(self.width) + 0.5) / self.width
        return "vit_giant_patch14_dinov2", arguments | dict(mlp_ratio=ratio)


def swiglu_width(width: int) -> int:
    """Hidden width of SwiGLU: 2/3 of 4 D, rounded up to 8 (dinov2/layers/swiglu_ffn.py)."""
    return (8 * width // 3 + 7) // 8 * 8


class Projections(NamedTuple):
    """Queries, keys and values of one block, (B, H, N, d) each.

    As attention takes them: after q_norm and k_norm where a model has them, before the factor
    1 / sqrt d.
    """

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class Observation:
    """What one forward pass over a batch of images shows.

    norms: (B, L, N), L2 over channels of the residual stream after each block; the last is before
    the final norm (paper, section 2.1).
    outputs: (B, N, D), the residual stream after the last block, before the final norm.
    embeddings: (B, P, D), right after the patch embedding, before position (Fig. 5a).
    q, k, v: (B, H, N, d) by layer, see `Projections`; layers are counted from the end, -1 is last.
    """

    norms: Tensor
    outputs: Tensor
    embeddings: Tensor
    q: dict[int, Tensor]
    k: dict[int, Tensor]
    v: dict[int, Tensor]


class Backbone(nn.Module):
    """A timm ViT, how it was built, how it sees, and where it comes from.

    Trained and released backbones are the same type.

    name: its id, "" where it has none.
    normalization: mean and standard deviation of its input's channels; pixels are 0..1.
    card: its checkpoint's json; {} for a freshly built one.
    path: its checkpoint's weights; None for a freshly built one.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        architecture: Architecture,
        name: str = "",
        normalization: Normalization = IMAGENET,
    ) -> None:
        super().__init__()
        self.vit = vit
        self.architecture = architecture
        self.name = name
        self.normalization = normalization
        self.card: dict[str, Any] = {}
        self.path: Path | None = None

    @property
    def registers(self) -> int:
        """Trained ones, and those that were added at test time (`moved_neurons`)."""
        return self.architecture.registers + getattr(self.vit, "added_registers", 0)

    @property
    def device(self) -> torch.device:
        return self.vit.cls_token.device

    # --- how it sees

    def look(self, image: Image.Image, size: int, resize: int | None = None) -> Tensor:
        """(3, size, size): the shorter side resized to `resize` (default: size), the centre cut."""
        return evaluation(size, resize, self.normalization)(image)

    def normalised(self, image: Image.Image) -> Tensor:
        """(3, H, W): the pixels as they are, normalised."""
        return to_tensor(image, self.normalization)

    # --- forward

    def embed(
        self, images_B3HW: Tensor, mask_BP: Tensor | None = None, mask_token_D: Tensor | None = None
    ) -> Tensor:
        """Tokens that enter the first block, (B, N, D).

        Patches where mask_BP is True are replaced by the mask token. Order as in the official
        code: patches, mask token, [CLS], position (patches only), registers.
        """
        x = self.vit.patch_embed(images_B3HW)  # (B, h, w, D): dynamic_img_size keeps the grid
        if mask_BP is not None:
            x = torch.where(mask_BP.view(*x.shape[:3], 1), mask_token_D.to(x.dtype), x)
        return self._placed(x)

    def _placed(self, x_BhwD: Tensor) -> Tensor:
        """Patches with their positions, behind [CLS] and registers: (B, N, D)."""
        vit = self.vit
        if self.architecture.antialias:
            return vit.norm_pre(vit._pos_embed(x_BhwD))  # antialiased whenever the grid differs
        position = resized_positions(vit.pos_embed, vit.patch_embed.grid_size, x_BhwD.shape[1:3])
        tokens = (token for token in (vit.cls_token, vit.reg_token) if token is not None)
        prefix = [token.expand(len(x_BhwD), -1, -1) for token in tokens]
        return vit.norm_pre(torch.cat([*prefix, x_BhwD.flatten(1, 2) + position], dim=1))

    def residual(
        self, images_B3HW: Tensor, mask_BP: Tensor | None = None, mask_token_D: Tensor | None = None
    ) -> Tensor:
        """The residual stream after the last block, before the final norm, (B, N, D).

        This is where outliers are measured.
        """
        x = self.embed(images_B3HW, mask_BP, mask_token_D)
        for block in self.vit.blocks:
            x = block(x)
        return x

    def forward(
        self, images_B3HW: Tensor, mask_BP: Tensor | None = None, mask_token_D: Tensor | None = None
    ) -> Tokens:
        """Final tokens, after the norm, taken apart."""
        return self.split(self.vit.norm(self.residual(images_B3HW, mask_BP, mask_token_D)))

    def summary(self, images_B3HW: Tensor) -> Tensor:
        """Final [CLS] alone, (B, D), equal to forward(images).cls to rounding.

        The last block is computed only where [CLS] needs it: one query (all keys and values) and
        one row of the MLP. What is left out feeds neither [CLS] nor a gradient. A block of another
        kind than timm's plain one goes through `forward`.
        """
        vit = self.vit
        last = vit.blocks[-1]
        if not _is_plain(last):
            return self(images_B3HW).cls
        x = self.embed(images_B3HW)
        for earlier in vit.blocks[:-1]:
            x = earlier(x)
        cls = x[:, :1] + last.drop_path1(last.ls1(_attend_from_cls(last.attn, last.norm1(x))))
        cls = cls + last.drop_path2(last.ls2(last.mlp(last.norm2(cls))))
        return vit.norm(cls).squeeze(1)

    def split(self, x_BND: Tensor) -> Tokens:
        return split_tokens(x_BND, self.registers)

    # --- what is inside

    @torch.no_grad()
    def observe(self, images_B3HW: Tensor, layers: tuple[int, ...] = (-1,)) -> Observation:
        """One forward pass, with fused attention left on. Call it in evaluation mode.

        layers: whose q, k and v are kept, counted from the end. Raises ValueError for a layer that
        does not exist or has no fused `attn.qkv`.
        """
        blocks = self.vit.blocks
        for layer in layers:
            if not -len(blocks) <= layer <= -1:
                raise ValueError(
                    f"layers = {list(layers)}: must be from -{len(blocks)} to -1 "
                    f"for {self.name or 'this backbone'}"
                )
        norms = []
        with recorded_qkv({layer: blocks[layer] for layer in layers}) as projections:
            patches_BhwD = self.vit.patch_embed(images_B3HW)
            x = self._placed(patches_BhwD)
            for block in blocks:
                x = block(x)
                norms.append(torch.linalg.vector_norm(x, dim=-1))
        return Observation(
            norms=torch.stack(norms, dim=1),
            outputs=x,
            embeddings=patches_BhwD.flatten(1, 2),
            q={layer: projections[layer].q for layer in layers},
            k={layer: projections[layer].k for layer in layers},
            v={layer: projections[layer].v for layer in layers},
        )


def resized_positions(
    positions_1PD: Tensor, grid: tuple[int, int], target: tuple[int, int]
) -> Tensor:
    """Position embeddings of another grid without antialiasing, (1, h w, D).

    Source: dinov2/models/vision_transformer.py, interpolate_pos_encoding, with its default offset.
    """
    if tuple(grid) == tuple(target):
        return positions_1PD
    x = positions_1PD.float().unflatten(1, tuple(grid)).permute(0, 3, 1, 2)
    scale = tuple((to + OFFSET) / side for to, side in zip(target, grid))
    x = F.interpolate(x, scale_factor=scale, mode="bicubic", antialias=False)
    return x.flatten(2).transpose(1, 2).to(positions_1PD.dtype)


@contextmanager
def recorded_qkv(blocks: dict[int, Block]) -> Iterator[dict[int, Projections]]:
    """While it is open, every forward pass leaves the q, k and v of these blocks in the dict.

    blocks: by any key, which the dict repeats. A second forward pass overwrites the first.
    Raises ValueError where a block has no fused `attn.qkv`.
    """
    projections: dict[int, Projections] = {}
    hooks = []
    try:
        for key, block in blocks.items():
            attention = getattr(block, "attn", None)
            if not hasattr(attention, "qkv"):
                raise ValueError(
                    f"block {key} has no attn.qkv: must be a timm ViT with one linear for q, k, v"
                )

            def record(module, inputs, qkv_BNX, key=key, attention=attention) -> None:
                projections[key] = _projections(attention, qkv_BNX)

            hooks.append(attention.qkv.register_forward_hook(record))
        yield projections
    finally:
        for hook in hooks:
            hook.remove()


def _projections(attention: Attention, qkv_BNX: Tensor) -> Projections:
    batch, tokens, _ = qkv_BNX.shape
    parts = qkv_BNX.view(batch, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    return Projections(attention.q_norm(parts[0]), attention.k_norm(parts[1]), parts[2])


def _is_plain(block: nn.Module) -> bool:
    """Whether `Backbone.summary` knows this block: timm's own, without gate or dropout inside."""
    attention = getattr(block, "attn", None)
    return (
        type(block) is Block
        and type(attention) is Attention
        and attention.gate is None
        and not attention.attn_drop.p
    )


def _attend_from_cls(attention: Attention, x_BND: Tensor) -> Tensor:
    """timm's Attention.forward for the query of [CLS] alone, (B, 1, D)."""
    batch, tokens, _ = x_BND.shape
    heads = attention.num_heads
    weight = attention.qkv.weight
    bias = attention.qkv.bias
    inner = attention.attn_dim
    q = F.linear(x_BND[:, :1], weight[:inner], None if bias is None else bias[:inner])
    kv = F.linear(x_BND, weight[inner:], None if bias is None else bias[inner:])
    q = attention.q_norm(q.view(batch, 1, heads, -1).transpose(1, 2))
    k, v = kv.view(batch, tokens, 2, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, attention.k_norm(k), v).transpose(1, 2).flatten(2)
    return attention.proj_drop(attention.proj(attention.norm(mixed)))


def build(
    architecture: Architecture, name: str = "", normalization: Normalization = IMAGENET
) -> Backbone:
    """A freshly initialised backbone.

    Registers start at N(0, 1e-6), [CLS] likewise (as in the official code).
    """
    timm_name, arguments = architecture.timm()
    vit = timm.create_model(timm_name, **arguments)
    if architecture.drop_path:
        blocks = len(vit.blocks)
        for number, block in enumerate(vit.blocks):
            rises = number / max(1, blocks - 1) if architecture.drop_path_rises else 1.0
            block.drop_path1 = DropPath(architecture.drop_path * rises)
            block.drop_path2 = DropPath(architecture.drop_path * rises)
    return Backbone(vit, architecture, name, normalization)
