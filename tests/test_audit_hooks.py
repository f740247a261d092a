"""What the audit sees inside a model against forward passes written out by hand."""

import numpy as np
import planted_vit
import pytest
import timm
import torch
from planted_vit import FAMILIES, PREFIX
from timm.layers import set_fused_attn
from torch.nn import functional as F

from registers.audit.anatomy import anatomy_of
from registers.audit.api import tokens

TOLERANCE = dict(rtol=1e-5, atol=1e-5)


def pixels_of(model, count=2, seed=0):
    torch.manual_seed(seed)
    height, width = model.patch_embed.img_size
    return torch.randn(count, 3, height, width)


# --- the forward pass of one block, written out ------------------------------------------------


def attend(attention, x, rope):
    """q, k, v as attention takes them, its rows and its output."""
    batch, count, _ = x.shape
    bias = attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    projected = x @ attention.qkv.weight.T + (0 if bias is None else bias)
    parts = projected.reshape(batch, count, 3, attention.num_heads, -1)
    q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
    if rope is not None:
        prefix = attention.num_prefix_tokens
        q, k = (
            torch.cat([t[:, :, :prefix], rotated(t[:, :, prefix:], rope, attention)], 2)
            for t in (q, k)
        )
    rows = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    mixed = (rows @ v).transpose(1, 2).reshape(batch, count, -1)
    return q, k, v, rows, mixed @ attention.proj.weight.T + attention.proj.bias


def rotated(x, rope, attention):
    sin, cos = rope.chunk(2, -1)
    if attention.rotate_half:
        first, second = x.chunk(2, -1)
        turned = torch.cat([-second, first], -1)
    else:
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos + turned * sin


def activate(mlp, x):
    """The inputs of the second linear layer, after the non-linearity and the gate."""
    kind = type(mlp).__name__
    if kind == "SwiGLU":
        gate, value = mlp.fc1_g(x), mlp.fc1_x(x)
        return gate * torch.sigmoid(gate) * value
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    if kind == "GluMlp":
        gate, value = hidden.chunk(2, -1)
        return gate * torch.sigmoid(gate) * value
    if "Quick" in repr(mlp.act):
        return hidden * torch.sigmoid(1.702 * hidden)
    return 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))


def by_hand(model, pixels):
    """Everything that the audit records, of every layer."""
    x = model.patch_embed(pixels)
    rope = None
    positions = model._pos_embed(x)
    if isinstance(positions, tuple):
        x, rope = positions[:2]
        rope = None if rope is None else rope.to(x.dtype)
    else:
        x = positions
    if hasattr(model, "norm_pre"):
        x = model.norm_pre(x)
    recorded = []
    for block in model.blocks:
        scales = [1.0, 1.0]
        if hasattr(block, "gamma_1") and block.gamma_1 is not None:
            scales = [block.gamma_1, block.gamma_2]
        elif hasattr(getattr(block, "ls1", None), "gamma"):
            scales = [block.ls1.gamma, block.ls2.gamma]
        q, k, v, rows, attended = attend(block.attn, block.norm1(x), rope)
        x = x + scales[0] * attended
        neurons = activate(block.mlp, block.norm2(x))
        x = x + scales[1] * (neurons @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
        recorded.append(dict(x=x, q=q, k=k, v=v, rows=rows, neurons=neurons))
    return recorded


@pytest.fixture(params=[True, False], ids=["fused", "not fused"])
def fused(request):
    set_fused_attn(request.param)
    yield request.param
    set_fused_attn(True)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_everything_recorded_is_that_of_the_forward_pass_written_out(family, fused):
    model = planted_vit.build(family)
    assert model.blocks[0].attn.fused_attn is fused
    pixels = pixels_of(model)
    bank = tokens(model, pixels)
    hand = by_hand(model, pixels)
    assert bank.layout.prefix == PREFIX[family]
    for layer, truth in enumerate(hand, start=1):
        np.testing.assert_allclose(bank.norms[:, layer - 1], truth["x"].norm(dim=-1), **TOLERANCE)
        norm = model.norm
        behind = F.layer_norm(truth["x"], norm.weight.shape, norm.weight, norm.bias, norm.eps)
        np.testing.assert_allclose(bank.normed[:, layer - 1], behind.norm(dim=-1), **TOLERANCE)
    np.testing.assert_allclose(bank.outputs, hand[-1]["x"], **TOLERANCE)
    for layer in (1, bank.layers):
        truth = hand[layer - 1]
        projections = bank.qkv(layer)
        for name in "qkv":
            np.testing.assert_allclose(getattr(projections, name), truth[name], **TOLERANCE)
        np.testing.assert_allclose(bank.attention(layer, "all"), truth["rows"], **TOLERANCE)
        np.testing.assert_allclose(bank.neurons(layer), truth["neurons"], **TOLERANCE)
    assert model.blocks[0].attn.fused_attn is fused, "the model is left as it was"


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_timms_own_intermediates_agree(family):
    model = planted_vit.build(family)
    pixels = pixels_of(model)
    bank = tokens(model, pixels)
    layers = model.forward_intermediates(
        pixels, norm=False, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    for layer, parts in enumerate(layers):  # without prefix tokens, patches alone
        x = torch.cat(parts[::-1], 1) if isinstance(parts, tuple) else parts
        norms = x.norm(dim=-1)
        np.testing.assert_allclose(bank.norms[:, layer], norms, **TOLERANCE)


@pytest.mark.parametrize("family", ["dinov2 reg4", "clip quickgelu", "dinov3", "siglip"])
@torch.no_grad()
def test_an_odd_size_that_is_no_square(family):
    side = planted_vit.build(family).patch_embed.patch_size[0]
    model = planted_vit.build(family, img_size=(5 * side, 7 * side))
    pixels = pixels_of(model)
    bank = tokens(model, pixels)
    hand = by_hand(model, pixels)
    assert bank.grid == (5, 7) and bank.patch_norms().shape == (2, 35)
    np.testing.assert_allclose(bank.norms[:, -1], hand[-1]["x"].norm(dim=-1), **TOLERANCE)
    rows = bank.attention(-1, "patches", images=[1])
    np.testing.assert_allclose(rows, hand[-1]["rows"][1:, :, len(PREFIX[family]) :], **TOLERANCE)


@torch.no_grad()
def test_long_sequences_are_attended_in_chunks(monkeypatch):
    from registers.audit import watch

    model = planted_vit.build("dinov2 reg4")
    pixels = pixels_of(model)
    whole = tokens(model, pixels).attention(3, "all")
    monkeypatch.setattr(watch, "CHUNK", 1000)
    np.testing.assert_allclose(tokens(model, pixels).attention(3, "all"), whole, rtol=1e-6)
    np.testing.assert_allclose(whole.sum(-1), 1, rtol=1e-5)


@torch.no_grad()
def test_relative_position_bias_is_part_of_attention():
    model = timm.create_model(
        "beit_base_patch16_224", img_size=64, embed_dim=48, depth=2, num_heads=3, num_classes=0
    ).eval()
    for block in model.blocks:
        block.attn.relative_position_bias_table.normal_()
    pixels = pixels_of(model)
    attention = model.blocks[1].attn
    set_fused_attn(False)
    kept = []
    attention.attn_drop.register_forward_hook(lambda module, inputs, output: kept.append(output))
    attention.fused_attn = False
    model.forward_features(pixels)
    set_fused_attn(True)
    np.testing.assert_allclose(tokens(model, pixels).attention(2, "all"), kept[0], **TOLERANCE)


@torch.no_grad()
def test_open_clips_own_tower():
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(
        image_size=64, patch_size=16, width=48, layers=3, heads=3, mlp_ratio=4, output_dim=32
    ).eval()
    pixels = torch.randn(2, 3, 64, 64)
    bank = tokens(tower, pixels, size=64)
    _, rows = 0, bank.attention(2, "all")
    block = tower.transformer.resblocks[1]
    x = tower._embeds(pixels)
    x = tower.transformer.resblocks[0](x)
    normed = block.ln_1(x)
    _, expected = block.attn(normed, normed, normed, need_weights=True, average_attn_weights=False)
    np.testing.assert_allclose(rows, expected, **TOLERANCE)
    hidden = block.mlp.gelu(block.mlp.c_fc(block.ln_2(x + block.attention(normed))))
    np.testing.assert_allclose(bank.neurons(2), hidden, **TOLERANCE)
    x = tower.transformer.resblocks[2](block(x))
    np.testing.assert_allclose(bank.outputs, x, **TOLERANCE)
    np.testing.assert_allclose(bank.normed[:, -1], tower.ln_post(x).norm(dim=-1), **TOLERANCE)
    assert bank.layout.prefix == ("[CLS]",) and bank.grid == (4, 4)


def test_modes_and_hooks_are_left_as_they_were():
    model = planted_vit.build("dinov2").train()
    model.blocks[1].eval()
    bank = tokens(model, pixels_of(model))
    bank.attention(1)
    bank.neurons(1)
    assert model.training and not model.blocks[1].training and model.blocks[2].training
    for part in model.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet18", "ConvNet"),
        ("convnext_atto", "ConvNet"),
        ("efficientnet_b0", "ConvNet"),
        ("swin_tiny_patch4_window7_224", "merge patches"),
    ],
)
def test_what_has_no_patch_tokens_is_refused_with_the_reason(name, reason):
    from registers.audit.errors import AuditError

    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(AuditError, match=reason):
        anatomy_of(model)
