"""Which architecture a file of weights has, where its shapes leave no doubt.

Width, depth, patch, registers, LayerScale and the kind of MLP can be read from shapes; the number
of heads and the activation cannot. So a file is compared with published architectures, each built
without memory (PyTorch's meta device): one that fits is taken, of several none.
"""

from pathlib import Path

import timm
import torch
from torch import Tensor

from registers.audit import weights
from registers.audit.errors import AuditError

# One name for each published architecture; those that differ in weights alone are one.
KNOWN = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_small_patch8_224",
    "vit_base_patch16_224",
    "vit_base_patch8_224",
    "vit_base_patch32_224",
    "vit_large_patch16_224",
    "vit_huge_patch14_224",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit3_small_patch16_224",
    "deit3_medium_patch16_224",
    "deit3_base_patch16_224",
    "deit3_large_patch16_224",
    "deit3_huge_patch14_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "vit_large_patch14_dinov2",
    "vit_giant_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_reg4_dinov2",
    "vit_large_patch14_reg4_dinov2",
    "vit_giant_patch14_reg4_dinov2",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch32_clip_224",
    "vit_base_patch32_clip_quickgelu_224",
    "vit_large_patch14_clip_224",
    "vit_large_patch14_clip_quickgelu_224",
    "vit_huge_patch14_clip_224",
    "vit_huge_patch14_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
    "vit_large_patch16_siglip_256",
    "vit_so400m_patch14_siglip_224",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_dinov3_qkvb",
    "vit_base_patch16_dinov3",
    "vit_base_patch16_dinov3_qkvb",
    "vit_large_patch16_dinov3",
    "vit_large_patch16_dinov3_qkvb",
    "vit_huge_plus_patch16_dinov3",
    "vit_base_patch14_reg1_tipsv2",
)

# Width and depth by the second part of a name.
_SIZES = {
    "tiny": (192, 12),
    "small": (384, 12),
    "medium": (512, 12),
    "base": (768, 12),
    "large": (1024, 24),
    "so400m": (1152, 27),
    "huge": (1280, 32),
    "giant": (1536, 40),
}


def architecture_of(tensors: dict[str, Tensor], path: Path) -> str:
    """timm's name of the architecture of a state dict.

    Raises AuditError where none or several of the known ones fit: then --arch must say it.
    """
    width, depth = _size(tensors)
    if not width:
        raise AuditError(
            f"{path}: holds no blocks of a vision transformer; name its architecture with --arch"
        )
    patch = _patch(tensors)
    candidates = [
        name
        for name in KNOWN
        if _SIZES[name.split("_")[1]] == (width, depth) and f"_patch{patch}_" in f"{name}_"
    ]
    fitting = [name for name in candidates if _fits(name, tensors, path)]
    if len(fitting) == 1:
        return fitting[0]
    size = f"width {width}, {depth} blocks"
    if fitting:
        raise AuditError(
            f"{path}: its shapes fit several architectures ({size}), which differ in heads or "
            f"activation; name one: --arch {' or --arch '.join(fitting)}"
        )
    raise AuditError(f"{path}: no known architecture has its shapes ({size}); name it with --arch")


def _patch(tensors: dict[str, Tensor]) -> int:
    """The patch's side in pixels, from the embedding's kernel; 0 where it is not known."""
    for key in ("patch_embed.proj.weight", "visual.conv1.weight"):
        if key in tensors and tensors[key].ndim == 4:
            return tensors[key].shape[-1]
    return 0


def _size(tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Width and depth, from the first norm of each block; (0, 0) where there is none."""
    blocks = set()
    width = 0
    for key, tensor in tensors.items():
        head, _, rest = key.partition("blocks.")
        if head in ("", "visual.transformer.res") and rest.endswith(
            ("norm1.weight", "ln_1.weight")
        ):
            blocks.add(rest.partition(".")[0])
            width = len(tensor)
    return width, len(blocks)


def _fits(name: str, tensors: dict[str, Tensor], path: Path) -> bool:
    if not timm.is_model(name):
        return False
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    try:
        weights.check(model, weights.converted(model, tensors, path), path)
    except AuditError:
        return False
    return True
