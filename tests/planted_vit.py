"""Vision transformers of many families with outliers planted by hand, and their clean twins.

Images are textured except for a few flat patches. In block WRITER four MLP neurons see the flat
patches (their embedding is the patch embedding's bias, a known direction) and write a large vector;
in the next block one head has keys that see that vector and queries that always look for it. So the
truth is known: layer, places, neurons, head and share. The clean twin is the same model before the
planting. All other weights are timm's random ones.
"""

import numpy as np
import timm
import torch
from torch import Tensor, nn

WRITER = 2  # from 0: outliers are there from layer 3 on
HEAD = 1
NEURONS = (3, 5, 8, 13)
HEIGHT = 40.0  # norm that the neurons write, in medians of a patch

TINY = dict(embed_dim=48, depth=5, num_heads=3, num_classes=0)
# name of the family: timm's name and what makes it small
FAMILIES = {
    "dinov2": ("vit_small_patch14_dinov2", dict(img_size=112)),
    "dinov2 reg4": ("vit_small_patch14_reg4_dinov2", dict(img_size=112)),
    "clip quickgelu": ("vit_base_patch16_clip_quickgelu_224", dict(img_size=128)),
    "deit3": ("deit3_small_patch16_224", dict(img_size=128)),
    "deit distilled": ("deit_tiny_distilled_patch16_224", dict(img_size=128)),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", dict(img_size=128)),
    "siglip": ("vit_base_patch16_siglip_224", dict(img_size=128, global_pool="avg", fc_norm=False)),
    "giant": ("vit_giant_patch14_dinov2", dict(img_size=112, mlp_ratio=4.0)),
    "dinov3 swiglu": (
        "vit_huge_plus_patch16_dinov3",
        dict(img_size=128, mlp_ratio=2.0, qkv_bias=True),
    ),
}
PREFIX = {
    "dinov2": ("[CLS]",),
    "dinov2 reg4": ("[CLS]", *(f"register {r}" for r in (1, 2, 3, 4))),
    "clip quickgelu": ("[CLS]",),
    "deit3": ("[CLS]",),
    "deit distilled": ("[CLS]", "[DIST]"),
    "dinov3": ("[CLS]", *(f"register {r}" for r in (1, 2, 3, 4))),
    "siglip": (),
    "giant": ("[CLS]",),
    "dinov3 swiglu": ("[CLS]", *(f"register {r}" for r in (1, 2, 3, 4))),
}


def build(family: str, seed: int = 0, **changes) -> nn.Module:
    """A tiny model of a family at its random start, in evaluation mode: the clean twin.

    Positions are set to zero and the patch embedding's bias to a known direction of moderate norm.
    """
    torch.manual_seed(seed)
    name, arguments = FAMILIES[family]
    model = timm.create_model(name, pretrained=False, **{**TINY, **arguments, **changes}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:  # LayerScale starts at 1e-5, which hides every block
                parameter.fill_(0.5)
        if getattr(model, "pos_embed", None) is not None:
            model.pos_embed.zero_()
        direction = torch.randn(model.embed_dim)
        weight = model.patch_embed.proj.weight
        weight.normal_(std=2.0 / weight[0].numel() ** 0.5)
        model.patch_embed.proj.bias = nn.Parameter(direction * 0.7)
    return model.requires_grad_(False)


def images(model: nn.Module, count: int = 16, flat: int = 3, seed: int = 0):
    """(B, 3, H, W) of noise with `flat` flat patches each, and (B, P) where they are."""
    rng = np.random.default_rng(seed)
    patch = model.patch_embed.patch_size[0]
    down, across = model.patch_embed.grid_size
    pixels = rng.standard_normal((count, 3, down * patch, across * patch)).astype(np.float32)
    mask = np.zeros((count, down * across), bool)
    for i in range(count):
        for place in rng.choice(down * across, flat, replace=False):
            row, column = divmod(place, across)
            pixels[i, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 0
            mask[i, place] = True
    return torch.from_numpy(pixels), mask


def plant(
    model: nn.Module,
    pixels: Tensor,
    mask: np.ndarray,
    writer: int = WRITER,
    others: np.ndarray | None = None,
) -> nn.Module:
    """Neurons of block `writer` write on the flat patches; a head of the next one looks there.

    others: (B, P), the patches on which they are silent; default: all others. Photos have patches
    in between, on which they may do either.
    """
    others = ~mask if others is None else others
    block = model.blocks[writer]
    with torch.no_grad():
        inputs = _entering(model, block.mlp, pixels)[:, _prefix(model) :]
        flat = inputs[torch.from_numpy(mask)]
        silent = inputs[torch.from_numpy(others)]
        spread = silent.T.cov() + 0.01 * torch.eye(silent.shape[1])
        direction = torch.linalg.solve(spread, flat.mean(0) - silent.mean(0))
        low = (silent @ direction).max()
        high = (flat @ direction).min()
        assert high > low, "the flat patches are not told apart by one direction"
        height = 4.0  # what the neurons' pre-activation is at a flat patch; below -4 elsewhere
        gain = 2 * height / (high - low)
        seeing, bias = gain * direction, -gain * (high + low) / 2
        written = torch.zeros(model.embed_dim)
        written[7] = 1.0
        _write(block, seeing, bias, written * HEIGHT * 4)
        _look(model, model.blocks[writer + 1], pixels, mask)
    return model


def backbone():
    """A backbone of this project with planted outliers, its pixels and their places."""
    from registers.models.backbone import Architecture
    from registers.models.backbone import build as built

    torch.manual_seed(0)
    made = built(Architecture(48, 5, 3, 16, 128, layer_scale=0.5), "planted")
    vit = made.eval().requires_grad_(False).vit
    vit.pos_embed.zero_()
    vit.patch_embed.proj.weight.normal_(std=2 / 768**0.5)
    vit.patch_embed.proj.bias.normal_(std=0.7)
    pixels, mask = images(vit)
    plant(vit, pixels, mask)
    return made, pixels, mask


def _prefix(model: nn.Module) -> int:
    return model.num_prefix_tokens


def _entering(model: nn.Module, part: nn.Module, pixels: Tensor) -> Tensor:
    kept = []
    hook = part.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    model.forward_features(pixels)
    hook.remove()
    return kept[0]


def _write(block: nn.Module, seeing: Tensor, bias: Tensor, written: Tensor) -> None:
    mlp = block.mlp
    rows = list(NEURONS)
    if hasattr(mlp, "fc1_g"):  # SwiGLU: the gate sees, the value is one
        mlp.fc1_g.weight[rows], mlp.fc1_g.bias[rows] = seeing, bias
        mlp.fc1_x.weight[rows], mlp.fc1_x.bias[rows] = 0, 1
    else:
        mlp.fc1.weight[rows], mlp.fc1.bias[rows] = seeing, bias
    if type(mlp).__name__ == "GluMlp":  # packed: gate first, value in the second half
        values = [row + mlp.fc2.in_features for row in rows]
        mlp.fc1.weight[values], mlp.fc1.bias[values] = 0, 1
    mlp.fc2.weight[:, rows] = written[:, None] / len(rows)


def _look(model: nn.Module, block: nn.Module, pixels: Tensor, mask: np.ndarray) -> None:
    """One head whose queries are constant and whose keys see what the neurons wrote."""
    attention = block.attn
    inputs = _entering(model, attention, pixels)[:, _prefix(model) :]
    where = torch.from_numpy(mask)
    direction = inputs[where].mean(0) - inputs[~where].mean(0)
    direction = direction / direction.norm()
    gap = (inputs[where] @ direction).mean() - (inputs[~where] @ direction).mean()
    size = attention.head_dim
    width = attention.attn_dim if hasattr(attention, "attn_dim") else size * attention.num_heads
    q = slice(HEAD * size, (HEAD + 1) * size)
    k = slice(width + HEAD * size, width + (HEAD + 1) * size)
    constant = 3.0 / size**0.5 * torch.ones(size)
    attention.qkv.weight[q] = 0
    if getattr(attention, "q_bias", None) is not None:
        attention.q_bias[q] = constant
    else:
        attention.qkv.bias[q] = constant
        attention.qkv.bias[k] = 0
    logit = 12.0 / gap / 3.0  # of q k^T / sqrt d between outliers and others: 12
    attention.qkv.weight[k] = direction * logit * torch.ones(size, 1)


# --- the example of docs/audit.md: drawn scenes ---------------------------------------------------


def scene_example():
    """A planted ViT-S/16 with random weights, and scenes of the built-in world with outliers in it.

    The scenes get some grain. A few of the flattest patches of each are painted in their mean
    colour, so that they are flat to the last bit; the patch embedding sees no colour.
    """
    from registers.audit import images as photos
    from registers.data.transforms import OPENAI
    from registers.world.dataset import scene

    # --- the images
    rng = np.random.default_rng(0)
    views = [scene(0, index, 224, "test").image for index in range(24)]
    pixels = photos.prepare(views, (224, 224), OPENAI).pixels
    texture = photos.texture(pixels, (14, 14))
    pixels += 0.1 * torch.from_numpy(rng.standard_normal(pixels.shape).astype(np.float32))
    mask = np.zeros(texture.shape, bool)
    for image in range(len(pixels)):
        flattest = np.argsort(texture[image])[:24]
        mask[image, rng.choice(flattest, rng.integers(2, 8), replace=False)] = True
    for image, place in zip(*mask.nonzero()):
        row, column = divmod(int(place), 14)
        cell = pixels[image, :, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        cell[:] = cell.mean((1, 2), keepdim=True)

    # --- the model
    torch.manual_seed(0)
    sizes = dict(embed_dim=384, depth=12, num_heads=6, img_size=224, num_classes=0)
    model = timm.create_model("vit_base_patch16_clip_224", **sizes).eval().requires_grad_(False)
    with torch.no_grad():
        model.pos_embed.zero_()
        model.cls_token.normal_()
        weight = model.patch_embed.proj.weight
        weight.normal_(std=24.0 / weight[0].numel() ** 0.5)
        weight -= weight.mean((2, 3), keepdim=True)
        model.patch_embed.proj.bias = nn.Parameter(0.3 * torch.randn(384), requires_grad=False)

        # --- neurons of layer 7 that see flat patches, and a head of layer 8 that looks there
        block = model.blocks[6]
        inputs = _entering(model, block.mlp, pixels)[:, model.num_prefix_tokens :]
        where = torch.from_numpy(mask)
        seeing = inputs[where].mean(0)
        high = (inputs[where] @ seeing).quantile(0.02)
        low = (inputs[~where] @ seeing).max()
        assert high > low, "the flat patches are not told apart by one direction"
        gain = 6 / (high - low)
        for neuron in NEURONS:
            block.mlp.fc1.weight[neuron] = gain * seeing
            block.mlp.fc1.bias[neuron] = -gain * (high + low) / 2
            block.mlp.fc2.weight[:, neuron] = 1.4 * torch.randn(384)
        _look(model, model.blocks[7], pixels, mask)
    return model, pixels


if __name__ == "__main__":
    import sys

    from registers.audit.api import audit

    model, pixels = scene_example()
    added = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    report = audit(model, pixels, added, name="a planted ViT-S/16 (random weights)")
    print(report.text())
    report.save(sys.argv[1])
