"""Backbone: what is observed inside is what the blocks compute."""

import pytest
import torch

from registers.models.backbone import Architecture, build, recorded_qkv

torch.set_num_threads(1)


def backbone(**choices):
    torch.manual_seed(0)
    shape = Architecture(width=24, depth=3, heads=2, patch=4, image=16, registers=2, **choices)
    return build(shape, "dinov2-r2-s0").eval()


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("antialias", [True, False])
def test_an_observation_is_the_forward_pass(antialias):
    vit = backbone(antialias=antialias)
    images = torch.nn.functional.interpolate(IMAGES, size=24)  # another grid than in training
    observed = vit.observe(images, layers=(-1, -3))
    assert torch.equal(observed.outputs, vit.residual(images))
    assert observed.norms.shape == (2, 3, 39)
    assert torch.equal(observed.norms[:, -1], observed.outputs.norm(dim=-1))
    assert torch.equal(observed.embeddings, vit.vit.patch_embed(images).flatten(1, 2))
    assert not any(block.attn.qkv._forward_hooks for block in vit.vit.blocks)


def test_q_k_and_v_are_as_attention_takes_them():
    vit = backbone()
    for block in vit.vit.blocks:
        block.attn.q_norm = torch.nn.LayerNorm(12)
        block.attn.k_norm = torch.nn.LayerNorm(12)
        torch.nn.init.normal_(block.attn.q_norm.weight)
    observed = vit.observe(IMAGES, layers=(-3, -1))
    first = vit.vit.blocks[0]
    mixed = torch.nn.functional.scaled_dot_product_attention(
        observed.q[-3], observed.k[-3], observed.v[-3]
    )
    attended = first.attn.proj(mixed.transpose(1, 2).flatten(2))
    expected = first.attn(first.norm1(vit.embed(IMAGES)))
    torch.testing.assert_close(attended, expected)
    assert {*observed.q} == {*observed.k} == {*observed.v} == {-3, -1}


@pytest.mark.parametrize("layers", [(0,), (-4,), (-1, 2)])
def test_a_layer_that_does_not_exist_is_named(layers):
    with pytest.raises(ValueError, match="must be from -3 to -1 for dinov2-r2-s0"):
        backbone().observe(IMAGES, layers=layers)


def test_hooks_vanish_whatever_happens():
    vit = backbone()
    blocks = dict(enumerate(vit.vit.blocks))
    with pytest.raises(KeyboardInterrupt), recorded_qkv(blocks) as projections:
        vit(IMAGES)
        assert projections[2].k.shape == (2, 2, 19, 12)
        raise KeyboardInterrupt
    assert not any(block.attn.qkv._forward_hooks for block in vit.vit.blocks)
    blocks[9] = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"block 9 has no attn\.qkv"), recorded_qkv(blocks):
        pass
    assert not any(block.attn.qkv._forward_hooks for block in vit.vit.blocks)


def test_the_summary_of_another_kind_of_block_goes_through_the_whole_pass():
    vit = backbone()
    plain = vit.summary(IMAGES)
    torch.testing.assert_close(plain, vit(IMAGES).cls)
    last = vit.vit.blocks[-1]
    last.__class__ = type("Other", (type(last),), {})
    assert torch.equal(vit.summary(IMAGES), vit(IMAGES).cls)
