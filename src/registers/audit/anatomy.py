"""Where things are in a vision transformer: blocks, final norm, prefix tokens, patches, neurons.

Known are the layouts of timm (VisionTransformer, its distilled form, Eva, Beit...), of open_clip's
own image tower, of the torch.hub code of DINOv2, and of anything that names its parts alike. What
has no patch tokens is refused with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from registers.audit.errors import AuditError
from registers.audit.layout import ADDED, CLS, DISTILLED, REGISTER
from registers.models.backbone import Backbone

# Linear layers whose inputs are an MLP's neurons after the non-linearity (and after the gate):
# timm's Mlp, GluMlp and SwiGLU; open_clip; DINOv2's own SwiGLUFFN; timm's parallel blocks.
_WRITERS = ("mlp.fc2", "mlp.c_proj", "mlp.w3", "mlp_out_proj")
_LAYER_SCALES = ("ls2.gamma", "gamma_2", "ls_2.gamma", "ls.gamma")
# Submodules in which a model keeps its image tower.
_WRAPPERS = ("vit", "visual", "trunk", "backbone", "vision_model", "model", "module")


@dataclass(frozen=True)
class Anatomy:
    """The parts of one model.

    blocks: the transformer blocks in order, each (B, N, D) to (B, N, D).
    norm: the final norm over tokens; None where a model has none.
    norm_note: why there is none; "" where there is one.
    prefix: what the tokens before the patches are, in order: "[CLS]", "[DIST]", "register 1"...,
        "test-time register 1"...
    patch: height and width of a patch in pixels.
    run: one forward pass over (B, 3, H, W).
    """

    blocks: tuple[nn.Module, ...]
    norm: nn.Module | None
    norm_note: str
    prefix: tuple[str, ...]
    patch: tuple[int, int]
    run: Callable[[Tensor], Any]

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches down and across of an image. Raises AuditError where they do not fit."""
        down, across = self.patch
        if height % down or width % across:
            raise AuditError(
                f"size = {height}x{width}: must be a multiple of the patch, {down}x{across}"
            )
        return height // down, width // across


def anatomy_of(model: nn.Module) -> Anatomy:
    """The parts of a vision transformer.

    Raises AuditError, with the reason, for what has no patch tokens or hides its parts.
    """
    trunk = trunk_of(model)
    blocks = _blocks(trunk)
    norm, norm_note = _final_norm(trunk)
    return Anatomy(
        blocks=blocks,
        norm=norm,
        norm_note=norm_note,
        prefix=_prefix(trunk),
        patch=_patch(trunk),
        run=_forward(model, trunk),
    )


def trunk_of(model: nn.Module) -> nn.Module:
    """The module that holds the blocks: the model itself, or the image tower inside it.

    Raises AuditError, with the reason, where there is none.
    """
    trunk = _trunk(model)
    if trunk is None or _convolutions(model) > 1:
        raise AuditError(_why_not(model))
    return trunk


def neuron_writer(block: nn.Module) -> nn.Linear:
    """The linear layer whose inputs are the block's MLP neurons.

    Raises AuditError where the block has no MLP of a known kind.
    """
    for path in _WRITERS:
        layer = _reach(block, path)
        if isinstance(layer, nn.Linear):
            return layer
    raise AuditError(
        f"{type(block).__name__} has no {', '.join(_WRITERS)}: its neurons are not known"
    )


def written_norms(block: nn.Module) -> Tensor:
    """(F,) norm of what each neuron adds to the residual stream per unit of activation.

    The column of the second linear layer, times LayerScale where there is one.
    """
    weight_DF = neuron_writer(block).weight.detach().float()
    for path in _LAYER_SCALES:
        gamma_D = _reach(block, path)
        if isinstance(gamma_D, Tensor):
            weight_DF = weight_DF * gamma_D.detach().float()[:, None]
            break
    return torch.linalg.vector_norm(weight_DF, dim=0)


# --- finding the parts


def _trunk(model: nn.Module) -> nn.Module | None:
    if _block_list(model) is not None:
        return model
    for name in _WRAPPERS:
        inner = getattr(model, name, None)
        trunk = _trunk(inner) if isinstance(inner, nn.Module) else None
        if trunk is not None:
            return trunk
    return None


def _block_list(module: nn.Module) -> nn.Module | None:
    for path in ("blocks", "transformer.resblocks"):
        blocks = _reach(module, path)
        if isinstance(blocks, nn.ModuleList | nn.Sequential) and len(blocks):
            return blocks
    return None


def _blocks(trunk: nn.Module) -> tuple[nn.Module, ...]:
    """The blocks, without the empty places of DINOv2's chunks (its BlockChunk is a ModuleList)."""
    flat = []
    for block in _block_list(trunk):
        flat += list(block) if isinstance(block, nn.ModuleList) else [block]
    return tuple(block for block in flat if not isinstance(block, nn.Identity))


def _final_norm(trunk: nn.Module) -> tuple[nn.Module | None, str]:
    for name in ("norm", "ln_post"):
        norm = getattr(trunk, name, None)
        if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
            return norm, ""
    if isinstance(getattr(trunk, "fc_norm", None), nn.Module):
        return None, "the only norm (fc_norm) comes after the patches are averaged"
    return None, "the model has no norm after its blocks"


def _prefix(trunk: nn.Module) -> tuple[str, ...]:
    """Names of the tokens before the patches: [CLS], a distilled token, registers, added ones."""
    names = []
    if any(_has(trunk, name) for name in ("cls_token", "class_embedding")):
        names.append(CLS)
    if _has(trunk, "dist_token"):
        names.append(DISTILLED)
    registers = 0
    for name in ("reg_token", "register_tokens", "storage_tokens"):
        if _has(trunk, name):
            registers = getattr(trunk, name).shape[-2]
    added = getattr(trunk, "added_registers", 0)
    total = getattr(trunk, "num_prefix_tokens", len(names) + registers + added) - added
    if total < len(names):
        names = names[:total]
    names += [f"{REGISTER} {r + 1}" for r in range(total - len(names))]
    return (*names, *(f"{ADDED} {r + 1}" for r in range(added)))


def _has(module: nn.Module, name: str) -> bool:
    return isinstance(getattr(module, name, None), Tensor)


def _patch(trunk: nn.Module) -> tuple[int, int]:
    for path in ("patch_embed.patch_size", "embeds.patch_size", "stem.patch_size", "patch_size"):
        size = _reach(trunk, path)
        if isinstance(size, int):
            return size, size
        if isinstance(size, tuple | list) and len(size) == 2:
            return int(size[0]), int(size[1])
    raise AuditError(
        f"{type(trunk).__name__} has no patch_embed.patch_size: the grid of its patches is unknown"
    )


def _forward(model: nn.Module, trunk: nn.Module) -> Callable[[Tensor], Any]:
    if isinstance(model, Backbone):
        return model.residual  # it knows how its training interpolated positions
    return getattr(trunk, "forward_features", trunk)


def _reach(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


# --- what has no patch tokens


def _has_attention(model: nn.Module) -> bool:
    return any("attn" in name for name, _ in model.named_modules())


def _convolutions(model: nn.Module) -> int:
    """How many convolutions a model without attention has; 0 for one with attention."""
    if _has_attention(model):
        return 0
    return sum(isinstance(part, nn.Conv2d) for part in model.modules())


def _why_not(model: nn.Module) -> str:
    name = type(model).__name__
    convolutions = _convolutions(model)
    if convolutions > 1:
        return (
            f"{name} cannot be audited: it is a ConvNet ({convolutions} convolutions, no "
            "attention); it has no patch tokens whose norms could be compared"
        )
    if any(hasattr(model, part) for part in ("layers", "stages")) and _has_attention(model):
        return (
            f"{name} cannot be audited: its stages merge patches (it has `layers` or `stages` and "
            "no `blocks`), so that no token can be followed from the first layer to the last"
        )
    return (
        f"{name} cannot be audited: it has no list of transformer blocks; must be `blocks` (timm, "
        "DINOv2) or `transformer.resblocks` (open_clip), or give a callable that returns tokens"
    )
