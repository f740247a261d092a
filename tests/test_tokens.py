"""Tokens: captures agree with timm's own attention and outputs; a bank reads back what was seen."""

import json

import numpy as np
import pytest
import timm
import torch
from fakes import CLASS_DIMS, PIXELS, FakeDataset, fake_backbone
from timm.utils import AttentionExtract

from registers.bank import TokenBank, standardised
from registers.models.backbone import Architecture, build
from registers.outliers import find_cutoff
from registers.tokens import attention, capture, write_bank

SIZES = dict(images=20, sample=7, batch=6, size=16, progress=False)
FILES = ["attention", "embeddings", "k", "norms", "outputs", "q", "v"]


def random_backbone(registers: int = 2, **more):
    torch.manual_seed(0)
    architecture = Architecture(
        width=32, depth=3, heads=4, patch=4, image=16, registers=registers, **more
    )
    backbone = build(architecture, name="dinov2-r2-s0", normalization=((0.5,) * 3, (0.5,) * 3))
    for parameter in backbone.parameters():  # far from the initial, almost uniform attention
        parameter.data += 0.3 * torch.randn_like(parameter)
    return backbone.eval().requires_grad_(False)


def write(folder, backbone, dataset, **more):
    return write_bank(folder, backbone, dataset, **SIZES | more)


# --- captures


@pytest.mark.parametrize("registers", [0, 2])
def test_attention_equals_timms_own_extraction(registers):
    backbone = random_backbone(registers).double()
    images = torch.randn(3, 3, 16, 16).double()
    captured = capture(backbone, images)
    rows = attention(captured.q, captured.k, slice(None))
    name, arguments = backbone.architecture.timm()
    unfused = timm.create_model(name, **arguments).double().eval().requires_grad_(False)
    unfused.load_state_dict(backbone.vit.state_dict())
    for block in unfused.blocks:
        block.attn.fused_attn = False
    extract = AttentionExtract(unfused, names=["blocks.2.attn.softmax"], mode="eval", method="fx")
    expected = next(iter(extract(images).values()))
    assert (rows - expected).abs().max() < 1e-12
    assert (rows.sum(-1) - 1).abs().max() < 1e-12
    some = attention(captured.q, captured.k, [0, 5])
    assert (some - rows[:, :, [0, 5]]).abs().max() < 1e-12
    single = capture(backbone.float(), images.float())  # and what is stored, to rounding
    assert (attention(single.q, single.k, slice(None)) - expected).abs().max() < 1e-5


def test_q_and_k_are_taken_after_their_norms():
    backbone = random_backbone()
    block = backbone.vit.blocks[-1]
    block.attn.q_norm = torch.nn.LayerNorm(8)
    block.attn.k_norm = torch.nn.LayerNorm(8)
    images = torch.randn(2, 3, 16, 16)
    captured = capture(backbone, images)
    rows = attention(captured.q, captured.k, slice(None))
    mixed = (rows @ captured.v).transpose(1, 2).flatten(2)
    inputs = []
    hook = block.attn.proj.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    backbone(images)
    hook.remove()
    assert (mixed - inputs[0]).abs().max() < 1e-5


def test_capture_is_the_residual_stream_before_the_final_norm():
    backbone = random_backbone()
    images = torch.randn(2, 3, 24, 24)  # above the training resolution
    captured = capture(backbone, images)
    outputs = backbone.residual(images)
    assert torch.equal(captured.outputs, outputs)
    assert captured.norms.shape == (2, 3, 1 + 2 + 36)
    assert torch.allclose(captured.norms[:, -1], outputs.norm(dim=-1))
    layers = backbone.vit.forward_intermediates(
        images, norm=False, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
    )
    for layer, (patches, prefix) in enumerate(layers):
        expected = torch.cat([prefix, patches], 1).norm(dim=-1)
        assert torch.allclose(captured.norms[:, layer], expected, atol=1e-5)
    assert torch.equal(captured.embeddings, backbone.vit.patch_embed(images).flatten(1, 2))


@pytest.mark.parametrize("registers", [0, 3])
def test_the_fake_backbone_keeps_its_promises(registers):
    data = FakeDataset(images=40)
    backbone = fake_backbone(registers)
    captured = capture(backbone, data.batch())
    tokens = backbone.split(captured.outputs)
    norms = backbone.split(captured.norms[:, -1]).patches
    labels = torch.from_numpy(data.labels)

    # --- outliers are the marked patches, and only they hold the class
    cutoff = find_cutoff(norms)
    assert cutoff.second_mode
    assert np.array_equal(cutoff.mask(norms).numpy(), data.marks)
    normal = ~torch.from_numpy(data.marks)
    told = tokens.patches[..., -CLASS_DIMS:]
    assert torch.equal(told.argmax(-1)[~normal], labels[:, None].expand(40, 16)[~normal])
    assert not told[normal].any()

    # --- normal patches hold their place, and no class among their pixels
    position = tokens.patches[..., PIXELS:-CLASS_DIMS].argmax(-1)
    assert torch.equal(position[normal], torch.arange(16).expand(40, 16)[normal])
    assert not tokens.patches[..., :CLASS_DIMS][normal].any()

    # --- [CLS] holds the class; embeddings are the normalised pixels
    assert torch.equal(tokens.cls[:, -CLASS_DIMS:].argmax(-1), labels)
    assert tokens.registers.shape == (40, registers, 72)
    first = torch.where(labels[:, None] == 0, 1.0, -1.0).expand(40, 16)
    assert torch.equal(captured.embeddings[..., 0], first)


# --- banks


def test_bank_reads_back_what_was_seen(tmp_path):
    backbone = random_backbone()
    data = FakeDataset(images=30, seed=3)
    bank = write(tmp_path / "bank", backbone, data, dtype="float32")
    captured = capture(backbone, data.batch(0, 20))
    assert bank.norms.shape == (20, 3, 19)
    assert np.allclose(bank.norms, captured.norms, rtol=1e-5)
    for name in ("outputs", "q", "k", "v", "embeddings"):
        np.testing.assert_allclose(
            getattr(bank, name), getattr(captured, name)[:7], atol=1e-4, err_msg=name
        )
    # [CLS], 2 registers, patch (2, 2) of 4 x 4
    rows = attention(captured.q, captured.k, [0, 1, 2, 3 + 10]).mean((0, 1))[:, 3:]
    assert bank.index["central_patch"] == 10
    np.testing.assert_allclose(bank.mean_attention, rows, atol=1e-6)


def test_bank_knows_what_was_looked_at(tmp_path):
    data = FakeDataset(images=30, seed=3)
    bank = write(tmp_path / "bank", random_backbone(), data, data="fake")
    assert (len(bank), bank.sample, bank.registers, bank.layers) == (20, 7, 2, 3)
    assert (bank.name, bank.data, bank.grid) == ("dinov2-r2-s0", "fake", (4, 4))
    assert bank.labels.tolist() == data.labels[:20].tolist()
    assert bank.attributes["parity"].tolist() == (data.labels[:20] % 2).tolist()
    assert bank.names[4] == "fake 4"
    norms = bank.split_norms(3)
    assert (norms.cls.shape, norms.registers.shape, norms.patches.shape) == (
        (20,),
        (20, 2),
        (20, 16),
    )
    np.testing.assert_array_equal(bank.patch_norms(), norms.patches)
    with pytest.raises(ValueError, match="layer: 0 is not allowed; must be from 1 to 3"):
        bank.split_norms(0)


def test_standardised_is_layer_norm():
    x = torch.randn(3, 5, 16) * 40 + 7
    expected = torch.nn.functional.layer_norm(x, (16,), eps=1e-6)
    np.testing.assert_allclose(standardised(x.numpy()), expected.numpy(), atol=1e-5)


def test_final_tokens_are_those_after_a_plain_final_norm(tmp_path):
    backbone = random_backbone()
    backbone.vit.norm = torch.nn.LayerNorm(32, eps=1e-6, elementwise_affine=False)
    data = FakeDataset(images=30, seed=3)
    bank = write(tmp_path / "bank", backbone, data, dtype="float32")
    for tokens, expected in zip(bank.final_tokens(), backbone(data.batch(0, 7)), strict=True):
        np.testing.assert_allclose(tokens, expected, atol=1e-4)


def test_half_precision_moves_attention_little(tmp_path):
    """On tokens with planted outliers of 10 times the norm."""
    data = FakeDataset(images=7)
    bank = write(tmp_path / "bank", fake_backbone(2), data)
    assert bank.q.dtype == np.float16
    assert bank.norms.dtype == np.float32
    captured = capture(fake_backbone(2), data.batch())
    half = [torch.from_numpy(x.astype(np.float32)) for x in (bank.q, bank.k)]
    rows = attention(captured.q, captured.k, slice(None))
    moved = (rows - attention(*half, slice(None))).abs().sum(-1).max() / 2
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


def test_the_same_pass_writes_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        write(tmp_path / name, random_backbone(), FakeDataset())
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted([*(f"{name}.npy" for name in FILES), "index.csv", "index.json"])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


# --- damage


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_and_the_remedy_is_named(tmp_path, name):
    write(tmp_path / "bank", random_backbone(), FakeDataset())
    flip(tmp_path / "bank" / f"{name}.npy")
    attribute = "mean_attention" if name == "attention" else name
    with pytest.raises(ValueError, match=rf"{name}\.npy: its SHA-256 .* delete the folder .*/bank"):
        getattr(TokenBank(tmp_path / "bank"), attribute)


def test_a_cut_table_a_lost_array_and_a_cut_index_are_found(tmp_path):
    folder = tmp_path / "bank"
    write(folder, random_backbone(), FakeDataset())
    table = folder / "index.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=r"index\.csv: its SHA-256"):
        _ = TokenBank(folder).labels
    (folder / "k.npy").unlink()
    with pytest.raises(ValueError, match=r"k\.npy: the file is missing; .* run snakemake again"):
        _ = TokenBank(folder).k
    index = folder / "index.json"
    index.write_text(index.read_text()[:100])
    with pytest.raises(ValueError, match=r"index\.json: not an index of this version; delete"):
        TokenBank(folder)


def test_bad_requests_are_named(tmp_path):
    with pytest.raises(ValueError, match="size: 18 is not allowed; must be a multiple of the patc"):
        write(tmp_path / "bank", random_backbone(), FakeDataset(), size=18)
    with pytest.raises(ValueError, match=r"no index\.json there"):
        TokenBank(tmp_path / "nothing")
    loud = random_backbone()
    loud.vit.blocks[-1].mlp.fc2.weight.data *= 1e7
    with pytest.raises(ValueError, match=r"outputs: values up to .* do not fit float16"):
        write(tmp_path / "bank", loud, FakeDataset())
    assert not (tmp_path / "bank").exists()
