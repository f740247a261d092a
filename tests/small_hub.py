"""A catalogue of tiny published models, with random weights, and the hub that serves them."""

import timm
import torch
import yaml
from hub_server import Hub
from safetensors.torch import save

TINY = dict(embed_dim=32, depth=2, num_heads=2)
AT14 = TINY | dict(img_size=56)
AT16 = TINY | dict(img_size=64)
MODELS = {
    "dinov2-small-r0-s0": ("vit_small_patch14_dinov2.lvd142m", AT14 | dict(embed_dim=16)),
    "dinov2-base-r0-s0": ("vit_base_patch14_dinov2.lvd142m", AT14),
    "dinov2-base-r4-s0": ("vit_base_patch14_reg4_dinov2.lvd142m", AT14),
    "dino-base-r0-s0": ("vit_base_patch16_224.dino", AT16),
    "deit3-base-r0-s0": ("deit3_base_patch16_224.fb_in22k_ft_in1k", AT16),
    "openclip-base-r0-s0": ("vit_base_patch16_clip_224.laion2b", AT16),
    "clip-base-r0-s0": ("vit_base_patch16_clip_quickgelu_224.openai", AT16),
    "dinov2-giant-r0-s0": ("vit_giant_patch14_dinov2.lvd142m", AT14 | dict(mlp_ratio=4.0)),
}


def model(id, seed=0, **changes):
    """A tiny model as timm builds it, every weight random: also LayerScale, which starts small."""
    name, arguments = MODELS[id]
    torch.manual_seed(seed)
    vit = timm.create_model(name, **arguments, **changes).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.1 if parameter.ndim > 1 else 0.3)
    return vit


def entry(id):
    """A row of the catalogue, as paper/released.yaml has them."""
    name, arguments = MODELS[id]
    return {
        "id": id,
        "timm": name,
        "arguments": arguments,
        "repository": f"timm/{name}",
        "licence": "apache-2.0",
        "mb": 1,
        "paper": "a test",
        "default": True,
    }


def write_catalogue(path, ids=tuple(MODELS), others=()):
    content = {"models": [*(entry(id) for id in ids), *others], "audited": []}
    path.write_text(yaml.safe_dump(content))


def filled_hub(ids=tuple(MODELS)):
    """A hub that has all these models' weights."""
    hub = Hub()
    for id in ids:
        hub.put(f"timm/{MODELS[id][0]}", "model.safetensors", save(model(id).state_dict()))
    return hub


def asked(address, cache, patch):
    """Let huggingface_hub of this process ask the hub at an address. patch: a MonkeyPatch."""
    from huggingface_hub import constants, file_download

    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.setenv("HF_HUB_OFFLINE", "0")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # else 10 MB, kept or lost whole
    patch.setattr(file_download.time, "sleep", lambda seconds: None)
    patch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
