"""Published weights in the place of a training: fetched, checked, and a card written beside them.

What the rule `fetch` does. Weights are never unpickled: safetensors, or `weights_only`. A file that
is as timm builds the model becomes the checkpoint by a hard link to the hub's cache, so that it
lies on the disk once; another one is put under timm's names first.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from registers.audit import hub, weights
from registers.files import atomically, sha256
from registers.models import checkpoint
from registers.models.backbone import Architecture, Backbone, Normalization
from registers.settings.errors import ConfigError, one_of, refusal
from registers.settings.released import PublishedModel, catalogue
from registers.settings.run import Settings


def fetch(settings: Settings, name: str) -> str:
    """Fetch a model of paper/released.yaml as a checkpoint of this run. Returns what it is, a line.

    Raises ConfigError in one line: an unknown model, no network, a gated repository, a file that is
    cut off, damaged, another one than is pinned, or another model's.
    """
    models = catalogue()
    if name not in models:
        raise refusal("model", name, one_of(name, models))
    model = models[name]
    file = hub.fetch(model.repository, hub.WEIGHT_FILES, model.revision)
    digest = _digest(file.path)
    if model.sha256 and digest != model.sha256:
        raise ConfigError(
            f"{name}: {file.path.name} of {model.repository} has the SHA-256 {digest[:12]}..., but "
            f"{model.sha256[:12]}... is pinned; must be the pinned file, or be pinned anew"
        )
    path = settings.layout.checkpoint(name)
    vit, arguments, facts = _place(model, file.path, digest, path)
    facts |= {"method": model.backbone.method, "seed": model.backbone.seed}
    facts[checkpoint.PUBLISHED] |= {
        "repository": model.repository,
        "revision": model.revision,
        "commit": file.revision,
        "file": file.path.name,
        "sha256": digest,
        "licence": model.licence,
        "non_commercial": model.non_commercial,
    }
    backbone = Backbone(vit, _architecture(vit), name, _normalization(vit))
    checkpoint.write_card(path, backbone, (model.timm, arguments), facts)
    return f"{name}: {model.repository} at {file.revision or model.revision}, {model.licence}"


def _place(
    model: PublishedModel, source: Path, digest: str, path: Path
) -> tuple[VisionTransformer, dict[str, Any], dict[str, Any]]:
    """Make a fetched file, of this SHA-256, the weights of a checkpoint.

    Returns timm's model, the arguments that build it, and what the card says of the weights.
    """
    arguments = {"dynamic_img_size": True, **model.arguments}
    vit = _timm(model, arguments)
    notes: tuple[str, ...] = ()
    if _is_as_built(source, vit):
        atomically(path, lambda partial: link(source, partial))
    else:
        arguments["num_classes"] = 0  # heads come in many forms, and nothing here asks them
        vit = timm.create_model(model.timm, **arguments)
        notes = weights.fill(vit, weights.read(source), source)
        digest = checkpoint.save_tensors(path, vit.state_dict())
    facts = {"weights_sha256": digest, checkpoint.PUBLISHED: {"notes": list(notes)}}
    return vit, arguments, facts


def _timm(model: PublishedModel, arguments: dict[str, Any]) -> VisionTransformer:
    """timm's model without weights. Raises ConfigError for what no `Backbone` can be."""
    if not timm.is_model(model.timm.partition(".")[0]):
        raise ConfigError(f"{model.id}: timm {timm.__version__} has no model {model.timm}")
    with torch.device("meta"):
        vit = timm.create_model(model.timm, **arguments)
    if not isinstance(vit, VisionTransformer) or vit.cls_token is None:
        raise ConfigError(
            f"{model.id}: {model.timm} has no [CLS] or no position embeddings, which the paper's "
            f"analyses need; `registers audit {model.timm}` looks at it"
        )
    return vit


def _architecture(vit: VisionTransformer) -> Architecture:
    """A published ViT in the terms of those that are trained here, for sizes and formulas."""
    block = vit.blocks[0]
    return Architecture(
        width=vit.embed_dim,
        depth=len(vit.blocks),
        heads=block.attn.num_heads,
        patch=vit.patch_embed.patch_size[0],
        image=vit.patch_embed.img_size[0],
        registers=vit.num_reg_tokens,
        ffn="swiglu" if type(block.mlp).__name__ in ("GluMlp", "SwiGLU") else "mlp",
        layer_scale=getattr(block.ls1, "init_values", None),
        pre_norm=not isinstance(vit.norm_pre, nn.Identity),
    )


def _normalization(vit: VisionTransformer) -> Normalization:
    config = resolve_model_data_config(vit)
    return tuple(config["mean"]), tuple(config["std"])


# --- the file


def _is_as_built(path: Path, vit: VisionTransformer) -> bool:
    """Whether a file holds float32 tensors of just the names and shapes of the model."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
            types = {part.get_dtype() for part in parts.values()}
    except (SafetensorError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{path}: damaged ({reason}); delete it to fetch it anew") from None
    built = {name: tuple(tensor.shape) for name, tensor in vit.state_dict().items()}
    return shapes == built and types == {"F32"}


def _digest(path: Path) -> str:
    """The SHA-256 of a file of the hub's cache. Raises ConfigError where its name is another one.

    Large files are called by their SHA-256 there.
    """
    digest = sha256(path)
    blob = path.resolve()
    if len(blob.name) == len(digest) and blob.name != digest:
        raise ConfigError(
            f"{blob}: damaged, its SHA-256 is not the one that the hub announced; delete it and "
            "run again"
        )
    return digest


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the source lies on another disk. Its date is that of today."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
    os.utime(target)
