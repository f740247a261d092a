"""Tokens: captures agree with timm's own attention and outputs; a bank reads back what was seen."""

import json

import numpy as np
import pytest
import timm
import torch
from fakes import CLASS_DIMS, MEAN, PIXELS, STD, FakeDataset, fake_backbone
from timm.utils import AttentionExtract

from registers.bank import TokenBank
from registers.models.backbone import Architecture, build
from registers.outliers import find_cutoff
from registers.tokens import attention, capture, captures, write_bank


def random_backbone(registers: int = 2, **more):
    torch.manual_seed(0)
    backbone = build(
        Architecture(width=32, depth=3, heads=4, patch=4, image=16, registers=registers, **more),
        name="dinov2-r2-s0",
    )
    for parameter in backbone.parameters():  # far from the initial, almost uniform attention
        parameter.data += 0.3 * torch.randn_like(parameter)
    return backbone.eval().requires_grad_(False)


def write(folder, backbone, dataset, **more):
    settings = (
        dict(images=20, sample=7, batch=6, size=16, mean=MEAN, std=STD, progress=False) | more
    )
    return write_bank(folder, backbone, dataset, **settings)


@pytest.mark.parametrize("registers", [0, 2])
def test_attention_equals_timms_own_extraction(registers):
    backbone, images = random_backbone(registers).double(), torch.randn(3, 3, 16, 16).double()
    seen = capture(backbone, images)
    rows = attention(seen.q, seen.k, slice(None))
    name, arguments = backbone.architecture.timm()
    unfused = timm.create_model(name, **arguments).double().eval().requires_grad_(False)
    unfused.load_state_dict(backbone.vit.state_dict())
    for block in unfused.blocks:
        block.attn.fused_attn = False
    found = AttentionExtract(unfused, names=["blocks.2.attn.softmax"], mode="eval", method="fx")(
        images
    )
    expected = next(iter(found.values()))
    assert (rows - expected).abs().max() < 1e-12
    assert (rows.sum(-1) - 1).abs().max() < 1e-12
    single = capture(backbone.float(), images.float())  # and what is stored, to rounding
    assert (attention(single.q, single.k, slice(None)) - expected).abs().max() < 1e-5
    some = attention(seen.q, seen.k, [0, 5])
    assert (some - rows[:, :, [0, 5]]).abs().max() < 1e-12


def test_q_and_k_are_taken_after_their_norms():
    backbone = random_backbone()
    block = backbone.vit.blocks[-1]
    block.attn.q_norm, block.attn.k_norm = torch.nn.LayerNorm(8), torch.nn.LayerNorm(8)
    images = torch.randn(2, 3, 16, 16)
    seen = capture(backbone, images)
    mixed = (attention(seen.q, seen.k, slice(None)) @ seen.v).transpose(1, 2).flatten(2)
    given = []
    hook = block.attn.proj.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    backbone(images)
    hook.remove()
    assert (mixed - given[0]).abs().max() < 1e-5


def test_capture_is_the_residual_stream_before_the_final_norm():
    backbone, images = random_backbone(), torch.randn(2, 3, 24, 24)  # above the training resolution
    seen = capture(backbone, images)
    outputs = backbone.residual(images)
    assert torch.equal(seen.outputs, outputs)
    assert seen.norms.shape == (2, 3, 1 + 2 + 36) and torch.allclose(
        seen.norms[:, -1], outputs.norm(dim=-1)
    )
    states = backbone.vit.forward_intermediates(
        images, norm=False, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
    )
    for layer, (patches, prefix) in enumerate(states):
        assert torch.allclose(
            seen.norms[:, layer], torch.cat([prefix, patches], 1).norm(dim=-1), atol=1e-5
        )
    assert torch.equal(seen.embeddings, backbone.vit.patch_embed(images).flatten(1, 2))
    assert (
        not backbone.vit.patch_embed._forward_hooks
        and not backbone.vit.blocks[-1].attn.qkv._forward_hooks
    )


def test_the_fake_backbone_keeps_its_promises():
    data = FakeDataset(images=40)
    for registers in (0, 3):
        backbone = fake_backbone(registers)
        seen = capture(backbone, data.batch())
        tokens = backbone.split(seen.outputs)
        norms = backbone.split(seen.norms[:, -1]).patches
        cutoff = find_cutoff(norms)
        assert cutoff.second_mode and np.array_equal(cutoff.mask(norms).numpy(), data.marks)
        normal = ~torch.from_numpy(data.marks)
        position = tokens.patches[..., PIXELS:-CLASS_DIMS].argmax(-1)
        assert torch.equal(position[normal], torch.arange(16).expand(40, 16)[normal])
        labels = torch.from_numpy(data.labels)
        assert torch.equal(tokens.cls[:, -CLASS_DIMS:].argmax(-1), labels)
        assert torch.equal(
            tokens.patches[..., -CLASS_DIMS:].argmax(-1)[~normal],
            labels[:, None].expand(40, 16)[~normal],
        )
        assert (
            not tokens.patches[..., -CLASS_DIMS:][normal].any()
            and not tokens.patches[..., :CLASS_DIMS][normal].any()
        )
        assert tokens.registers.shape == (40, registers, 72)
        assert torch.equal(
            seen.embeddings[..., 0], torch.where(labels[:, None] == 0, 1.0, -1.0).expand(40, 16)
        )


def test_bank_reads_back_what_was_seen(tmp_path):
    backbone, data = random_backbone(), FakeDataset(images=30, seed=3)
    bank = write(tmp_path / "bank", backbone, data, dtype="float32")
    seen = capture(backbone, data.batch(0, 20))
    assert bank.norms.shape == (20, 3, 19) and np.allclose(bank.norms, seen.norms, rtol=1e-5)
    assert (
        len(bank) == 20
        and bank.sample == 7
        and bank.grid == (4, 4)
        and bank.registers == 2
        and bank.layers == 3
    )
    parts = list(captures(bank, batch=3))
    assert [len(p.outputs) for p in parts] == [3, 3, 1]
    for name in ("norms", "outputs", "q", "k", "v", "embeddings"):
        assert torch.allclose(
            torch.cat([getattr(p, name) for p in parts]), getattr(seen, name)[:7], atol=1e-4
        ), name
    rows = attention(seen.q, seen.k, [0, 1, 2, 3 + 10]).mean((0, 1))[
        :, 3:
    ]  # [CLS], 2 registers, patch (2, 2) of 4 x 4
    assert bank.mean_attention.shape == (4, 16) and np.allclose(
        bank.mean_attention, rows, atol=1e-6
    )
    assert bank.index["central_patch"] == 10
    assert bank.labels.tolist() == data.labels[:20].tolist()
    assert (
        bank.attributes["parity"].tolist() == (data.labels[:20] % 2).tolist()
        and bank.names[4] == "fake 4"
    )
    split = bank.split_norms(3)
    assert (split.cls.shape, split.registers.shape, split.patches.shape) == (
        (20,),
        (20, 2),
        (20, 16),
    )
    with pytest.raises(ValueError, match="layer = 0: allowed are 1 to 3"):
        bank.split_norms(0)


def test_half_precision_moves_attention_little(tmp_path):
    """On tokens with planted outliers of 10 times the norm."""
    data = FakeDataset(images=7)
    bank = write(tmp_path / "bank", fake_backbone(2), data)
    assert bank.q.dtype == np.float16 and bank.norms.dtype == np.float32
    seen, half = capture(fake_backbone(2), data.batch()), next(captures(bank))
    moved = (
        attention(seen.q, seen.k, slice(None)) - attention(half.q, half.k, slice(None))
    ).abs().sum(-1).max() / 2
    assert 0 < moved < 5e-3  # total variation of a row


def test_bank_is_whole_or_not_there(tmp_path):
    class Broken(FakeDataset):
        def __getitem__(self, index):
            if index == 8:
                raise OSError("disk is gone")
            return super().__getitem__(index)

    folder = tmp_path / "bank"
    with pytest.raises(OSError, match="disk is gone"):
        write(folder, random_backbone(), Broken())
    assert not folder.exists()
    write(folder, random_backbone(), FakeDataset())
    first = json.loads((folder / "index.json").read_text())
    write(folder, random_backbone(), FakeDataset(seed=1))  # a second time replaces the first
    assert json.loads((folder / "index.json").read_text())["fingerprint"] != first["fingerprint"]
    assert [p.name for p in tmp_path.iterdir()] == ["bank"]


def test_bad_requests_are_named(tmp_path):
    with pytest.raises(ValueError, match="size = 18: allowed are multiples of the patch, 4"):
        write(tmp_path / "bank", random_backbone(), FakeDataset(), size=18)
    with pytest.raises(ValueError, match=r"no index\.json there"):
        TokenBank(tmp_path / "nothing")
    loud = random_backbone()
    loud.vit.blocks[-1].mlp.fc2.weight.data *= 1e7
    with pytest.raises(ValueError, match=r"outputs: values up to .* do not fit float16"):
        write(tmp_path / "bank", loud, FakeDataset())
    assert not (tmp_path / "bank").exists()
