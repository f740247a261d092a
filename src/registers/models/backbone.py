"""Backbone: a plain timm ViT with registers."""

from dataclasses import dataclass

import timm
import torch
from timm.layers import Attention, DropPath, resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from registers.models.sequence import Tokens, split_tokens


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the ViT again; written into every checkpoint's json.

    width, depth, heads: D, L, H. patch, image: pixels. registers: R. ffn: "mlp" or "swiglu" (DINOv2 trains ViT-L with
    SwiGLU, dinov2/configs/train/vitl14.yaml). layer_scale: initial value or None. drop_path: constant over depth, as in
    DeiT-III and DINOv2 (timm's own default grows linearly). pre_norm: LayerNorm before the blocks, as CLIP has.
    antialias: position embeddings are interpolated with antialiasing (paper, appendix A).
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
    pre_norm: bool = False
    antialias: bool = True

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across at the training resolution."""
        return self.image // self.patch, self.image // self.patch

    def timm(self) -> tuple[str, dict]:
        """Name and keyword arguments with which plain `timm.create_model(name, **arguments)` builds this ViT.

        The names only stand for a family (MLP or SwiGLU); every size is overridden. Registers and [CLS] get no position
        (dinov2/models/vision_transformer.py adds one to [CLS], which is the same function: a sum of two free vectors).
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
        # hidden width 2/3 of 4 D, rounded up to a multiple of 8, gate and value packed (dinov2/layers/swiglu_ffn.py)
        hidden = (int(self.width * 4 * 2 / 3) + 7) // 8 * 8
        return "vit_giant_patch14_dinov2", arguments | dict(mlp_ratio=2 * hidden / self.width)


class Backbone(nn.Module):
    """A timm ViT, how it was built and, where it has one, its id. Trained and released backbones are the same type."""

    def __init__(self, vit: VisionTransformer, architecture: Architecture, name: str = "") -> None:
        super().__init__()
        self.vit, self.architecture, self.name = vit, architecture, name

    @property
    def registers(self) -> int:
        return self.architecture.registers

    def embed(
        self, images_B3HW: Tensor, mask_BP: Tensor | None = None, mask_token_D: Tensor | None = None
    ) -> Tensor:
        """Tokens that enter the first block, (B, N, D). Patches where mask_BP is True are replaced by the mask token.

        Order as in the official code: patches, mask token, [CLS], position (patches only), registers.
        """
        vit = self.vit
        x = vit.patch_embed(
            images_B3HW
        )  # (B, h, w, D): timm keeps the grid when dynamic_img_size is on
        if mask_BP is not None:
            x = torch.where(mask_BP.view(*x.shape[:3], 1), mask_token_D.to(x.dtype), x)
        if self.architecture.antialias:
            x = vit._pos_embed(x)  # interpolates with antialiasing whenever the grid differs
        else:
            position = resample_abs_pos_embed(
                vit.pos_embed, x.shape[1:3], vit.patch_embed.grid_size, 0, antialias=False
            )
            prefix = [
                p.expand(len(x), -1, -1) for p in (vit.cls_token, vit.reg_token) if p is not None
            ]
            x = torch.cat([*prefix, x.flatten(1, 2) + position], dim=1)
        return vit.norm_pre(x)

    def residual(
        self, images_B3HW: Tensor, mask_BP: Tensor | None = None, mask_token_D: Tensor | None = None
    ) -> Tensor:
        """The residual stream after the last block, before the final norm, (B, N, D): where outliers are measured."""
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
        """Final [CLS] alone, (B, D): forward(images).cls to rounding, but the last block is computed only where [CLS] needs it.

        One query (all keys and values) and one row of the MLP: what is left out feeds neither [CLS] nor a gradient.
        """
        vit, block = self.vit, self.vit.blocks[-1]
        attention = getattr(block, "attn", None)
        plain = (
            type(block) is Block
            and type(attention) is Attention
            and attention.gate is None
            and not attention.attn_drop.p
        )
        if not plain:  # a released model with a block of another kind
            return self(images_B3HW).cls
        x = self.embed(images_B3HW)
        for earlier in vit.blocks[:-1]:
            x = earlier(x)
        normed, (batch, tokens, _), heads = block.norm1(x), x.shape, attention.num_heads
        weight, bias = attention.qkv.weight, attention.qkv.bias
        inner = attention.attn_dim
        q = F.linear(normed[:, :1], weight[:inner], None if bias is None else bias[:inner])
        kv = F.linear(normed, weight[inner:], None if bias is None else bias[inner:])
        q = attention.q_norm(q.view(batch, 1, heads, -1).transpose(1, 2))
        k, v = kv.view(batch, tokens, 2, heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, attention.k_norm(k), v).transpose(1, 2).flatten(2)
        cls = x[:, :1] + block.drop_path1(
            block.ls1(attention.proj_drop(attention.proj(attention.norm(seen))))
        )
        cls = cls + block.drop_path2(block.ls2(block.mlp(block.norm2(cls))))
        return vit.norm(cls).squeeze(1)

    def split(self, x_BND: Tensor) -> Tokens:
        return split_tokens(x_BND, self.registers)


def build(architecture: Architecture, name: str = "") -> Backbone:
    """A freshly initialised backbone. Registers start at N(0, 1e-6), [CLS] likewise (as in the official code)."""
    timm_name, arguments = architecture.timm()
    vit = timm.create_model(timm_name, **arguments)
    if (
        architecture.drop_path
    ):  # constant over depth (DeiT-III, DINOv2); timm's own rate grows from 0
        for block in vit.blocks:
            block.drop_path1, block.drop_path2 = (
                DropPath(architecture.drop_path),
                DropPath(architecture.drop_path),
            )
    return Backbone(vit, architecture, name)
