"""Test-time registers: the planted neurons are found and moved, and nothing else is touched."""

import argparse
import csv
import io
import json

import numpy as np
import planted_vit
import pytest
import timm
import torch
from planted_vit import FAMILIES, NEURONS, PREFIX, TINY, WRITER
from test_audit_hooks import activate, attend

import registers
from registers.audit import command, register_neurons
from registers.audit.ablation import MEAN, ZERO, _Replaced
from registers.audit.added_tokens import apply
from registers.audit.api import audit, tokens
from registers.audit.errors import AuditError
from registers.audit.test_time import edited
from registers.models import checkpoint
from registers.models.moved_neurons import MovedNeurons, MoveRecipe

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
ADDED = "test-time register 1"


def planted(family, **changes):
    model = planted_vit.build(family, **changes)
    pixels, mask = planted_vit.images(model)
    return planted_vit.plant(model, pixels, mask), pixels, mask


@pytest.fixture(scope="module")
def dinov2():
    return planted("dinov2 reg4")


@pytest.fixture(scope="module")
def report(dinov2):
    model, pixels, _ = dinov2
    return audit(model, pixels, 1, name="planted")


@pytest.fixture(scope="module")
def backbone():
    return planted_vit.backbone()


# --- the planted neurons, found and moved ------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_planted_neurons_move_and_the_norm_goes_with_them(family):
    model, pixels, mask = planted(family)
    before = audit(model, pixels, 1).audits[0]
    change = before.change
    assert {*change.recipe.neurons} == {(WRITER + 1, neuron) for neuron in NEURONS}
    after = change.after
    assert not after.verdict.outliers and change.ablations[0].outliers == 0
    assert after.bank.layout.prefix == (*PREFIX[family], ADDED)

    # --- what the patches had is on the added token, from the writing layer on
    high = np.median(before.bank.patch_norms(WRITER + 1)[mask])
    added = after.bank.norms[:, WRITER:, after.bank.layout.added]
    np.testing.assert_allclose(added, high, rtol=0.02)
    assert after.bank.norms[:, WRITER - 1, after.bank.layout.added].max() < 0.1 * high

    # --- the other patches keep their content, and none is higher than any was without outliers
    was = before.bank.outputs[:, len(PREFIX[family]) :][~mask]
    now = after.bank.outputs[:, len(after.bank.layout.prefix) :][~mask]
    apart = np.linalg.norm(now - was, axis=-1) / np.linalg.norm(was, axis=-1)
    assert np.median(apart) < 0.01 and np.quantile(apart, 0.95) < 0.1
    assert after.bank.patch_norms().max() < 2 * np.median(before.bank.patch_norms())
    assert change.attention > 0.8, "the head that looked at outliers looks at the added token"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clean_twin_has_nothing_to_move(family):
    model = planted_vit.build(family)
    pixels, _ = planted_vit.images(model)
    with pytest.raises(AuditError, match="no outliers, nothing to move"):
        edited(model, pixels)


def test_the_audit_of_a_clean_twin_says_so():
    model = planted_vit.build("dinov2")
    found = audit(model, planted_vit.images(model)[0], 1)
    assert found.audits[0].change is None
    for shown in (found.text(), found.html(), json.dumps(found.audits[0].to_dict())):
        assert "no outliers, nothing to move" in shown


# --- against a forward pass written out, with the token at the end as Jiang et al. have it -----


def by_hand(model, pixels, recipe):
    """The residual stream after the last block: prefix, patches, and the added tokens last."""
    x = model._pos_embed(model.patch_embed(pixels))
    rope = None
    if isinstance(x, tuple):
        x, rope = x
    if hasattr(model, "norm_pre"):
        x = model.norm_pre(x)
    count = recipe.registers
    x = torch.cat([x, torch.zeros(len(x), count, x.shape[-1])], 1)
    if rope is not None:  # an added token is turned by no angle: sine 0, cosine 1
        half = rope.shape[-1] // 2
        still = torch.cat([torch.zeros(count, half), torch.ones(count, half)], -1)
        rope = torch.cat([rope, still], 0)
    for layer, block in enumerate(model.blocks, start=1):
        scales = [1.0, 1.0]
        if hasattr(block, "gamma_1") and block.gamma_1 is not None:
            scales = [block.gamma_1, block.gamma_2]
        elif hasattr(getattr(block, "ls1", None), "gamma"):
            scales = [block.ls1.gamma, block.ls2.gamma]
        x = x + scales[0] * attend(block.attn, block.norm1(x), rope)[-1]
        neurons = activate(block.mlp, block.norm2(x))
        for neuron in recipe.by_layer().get(layer, []):
            values = neurons[..., neuron].clone()
            largest = values.gather(1, values.abs().argmax(1, keepdim=True))
            neurons[:, -count:, neuron] = largest
            neurons[:, model.num_prefix_tokens : -count, neuron] = 0
        x = x + scales[1] * (neurons @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
    return x


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_edited_block_is_that_of_the_forward_pass_written_out(family):
    model, pixels, _ = planted(family)
    pixels = pixels[:2]
    recipe = MoveRecipe(2, ((1, 4), *((WRITER + 1, neuron) for neuron in NEURONS), (5, 0)))
    prefix = model.num_prefix_tokens
    hand = by_hand(model, pixels, recipe)
    apply(model, recipe)
    seen = torch.from_numpy(tokens(model, pixels).outputs)
    as_jiang = torch.cat([seen[:, :prefix], seen[:, prefix + 2 :], seen[:, prefix : prefix + 2]], 1)
    scale = hand.abs().max()
    np.testing.assert_allclose(as_jiang / scale, hand / scale, **TOLERANCE)


def test_the_activation_of_largest_magnitude_keeps_its_sign():
    x = torch.zeros(1, 5, 3)  # [CLS], one added token, three patches
    x[0, :, 0] = torch.tensor([1.0, 0.0, 2.0, -3.0, 0.5])
    x[0, :, 1] = 7.0
    (moved,) = MovedNeurons([0], 1, 1)(None, (x,))
    assert moved[0, :, 0].tolist() == [1, -3, 0, 0, 0]
    assert (moved[0, :, 1] == 7).all() and x[0, 3, 0] == -3, "the input is left as it was"


# --- as a module -------------------------------------------------------------------------------


@torch.no_grad()
def test_the_edited_model_counts_added_tokens_as_prefix(dinov2):
    model, pixels, _ = dinov2
    before = model(pixels)
    made = registers.add_test_time_registers(model, pixels, 3)
    assert made.num_prefix_tokens == model.num_prefix_tokens + 3 == 8
    features = made.forward_features(pixels[:2])
    assert features.shape == (2, 8 + 64, 48)
    assert torch.equal(made.pool(features), features[:, 0])
    maps, prefix = made.forward_intermediates(
        pixels[:2], indices=1, return_prefix_tokens=True, intermediates_only=True, norm=True
    )[0]
    assert maps.shape == (2, 48, 8, 8) and torch.equal(prefix, features[:, :8])
    assert torch.equal(maps.flatten(2).transpose(1, 2), features[:, made.num_prefix_tokens :])
    assert torch.equal(model(pixels), before), "the model that was given stays as it was"
    found = audit(made, pixels)
    assert not found.verdict.outliers and found.bank.layout.prefix[5:] == (
        ADDED,
        "test-time register 2",
        "test-time register 3",
    )


@torch.no_grad()
def test_images_of_any_size_and_the_position_of_cls():
    """timm resamples positions by its count of prefix tokens, which has grown."""
    fixed, pixels, _ = planted("clip quickgelu")
    fixed.pos_embed.normal_(std=0.1)
    name, arguments = FAMILIES["clip quickgelu"]
    free = timm.create_model(name, **TINY, **arguments, dynamic_img_size=True).eval()
    free.patch_embed.proj.bias = torch.nn.Parameter(torch.zeros(48))
    free.load_state_dict(fixed.state_dict())
    recipe = MoveRecipe(1, tuple((WRITER + 1, neuron) for neuron in NEURONS))
    shapes = {key: tensor.shape for key, tensor in free.state_dict().items()}
    small = pixels[:2, :, :96]
    untouched = free.forward_features(small)
    for model in (fixed, free):
        apply(model, recipe)
    torch.testing.assert_close(free(pixels[:2]), fixed(pixels[:2]))
    assert free.forward_features(small).shape == (2, untouched.shape[1] + 1, 48)
    assert {key: tensor.shape for key, tensor in free.state_dict().items()} == shapes


@torch.no_grad()
def test_open_clips_tower_gives_what_it_gave_without_the_added_tokens():
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(
        64, 16, width=48, layers=3, heads=3, mlp_ratio=4, output_dim=32, output_tokens=True
    ).eval()
    pixels = torch.randn(2, 3, 64, 64)
    apply(tower, MoveRecipe(2, ((2, 3),)))
    pooled, patches = tower(pixels)
    assert pooled.shape == (2, 32) and patches.shape == (2, 16, 48)
    bank = tokens(tower, pixels, size=64)
    assert bank.layout.prefix == ("[CLS]", ADDED, "test-time register 2") and bank.grid == (4, 4)
    assert (bank.neurons(2)[:, 3:, 3] == 0).all()


# --- as files ----------------------------------------------------------------------------------


@torch.no_grad()
def test_saved_and_opened_again_it_is_the_same(dinov2, tmp_path):
    model, pixels, _ = dinov2
    made = registers.add_test_time_registers(model, pixels)
    path = tmp_path / "edited.safetensors"
    with pytest.raises(AuditError, match="timm builds another"):
        made.save(path)
    _, arguments = FAMILIES["dinov2 reg4"]
    made.save(path, **TINY, **arguments)
    recipe = json.loads(path.with_suffix(".json").read_text())["test_time_registers"]
    assert {tuple(pair) for pair in recipe["neurons"]} == {(WRITER + 1, n) for n in NEURONS}
    assert len(recipe["source_sha256"]) == 64 and recipe["registers"] == 1

    opened = registers.load_test_time_registers(path)
    assert torch.equal(opened(pixels), made(pixels))
    opened.save(tmp_path / "again.safetensors", **TINY, **arguments)
    for kind in (".safetensors", ".json"):
        again = (tmp_path / "again").with_suffix(kind).read_bytes()
        assert again == path.with_suffix(kind).read_bytes()

    found = audit(path, pixels)
    assert ADDED in found.bank.layout.prefix and not found.verdict.outliers
    assert "4 neurons of layer 3 moved to 1 test-time register" in found.text()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(AuditError, match="damaged"):
        registers.load_test_time_registers(path)


@torch.no_grad()
def test_a_backbone_keeps_them_in_its_checkpoint(backbone, tmp_path):
    """So every question of the pipeline can be asked of it."""
    plain, pixels, _ = backbone
    made = edited(plain, pixels, 2)
    assert (plain.registers, made.registers) == (0, 2)
    checkpoint.save(tmp_path / "last.safetensors", made, made.card)
    opened = checkpoint.load(tmp_path / "last.safetensors")
    assert opened.card["test_time_registers"]["registers"] == opened.card["registers"] == 2
    seen = opened(pixels)
    assert torch.equal(seen.patches, made(pixels).patches) and seen.registers.shape[1] == 2
    torch.testing.assert_close(opened.summary(pixels), seen.cls)
    assert opened.observe(pixels).norms.shape == (16, 5, 1 + 2 + 64)
    assert ADDED in tokens(tmp_path, pixels).layout.prefix


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_sets_before_and_after_side_by_side(backbone, tmp_path, capsys, monkeypatch):
    plain, pixels, _ = backbone
    checkpoint.save(tmp_path / "last.safetensors", plain, {})
    monkeypatch.setattr("registers.audit.api.photos.prepare", lambda *_: _images(pixels))
    paths = [tmp_path / f"audit.{kind}" for kind in ("html", "json", "csv")]
    wanted = ("--html", paths[0], "--json", paths[1], "--csv", paths[2])
    assert run(tmp_path, "--test-time-registers", 1, *wanted) == 0
    printed = capsys.readouterr().out
    assert "with 1 test-time register\n" in printed and "LOST (keys of the last" in printed
    assert "register neurons replaced by their mean" in printed
    assert "1 test-time register, before and after" in paths[0].read_text()
    change = json.loads(paths[1].read_text())[0]["test_time_registers"]
    assert change["after"]["verdict"]["outliers"] is False
    assert np.shape(change["lost_boxes"]) == (2, 16, 4)
    assert [row["how"] for row in change["ablations"]] == ["moved", "zero", "mean"]
    rows = list(csv.DictReader(io.StringIO(paths[2].read_text())))
    folder = str(tmp_path)
    assert [row["model"] for row in rows][::5] == [folder, f"{folder} + 1 test-time register"]
    assert float(rows[-1]["added"]) > 20 * float(rows[-1]["median"]) and not rows[0]["added"]


def _images(pixels):
    from registers.audit.watched import AuditImages

    return AuditImages(pixels, tuple(str(i) for i in range(len(pixels))), None)


@pytest.mark.parametrize(
    ("make", "count", "reason"),
    [
        (lambda: planted("dinov2")[0], 0, "must be from 1 to 1024"),
        (lambda: apply(planted("dinov2")[0], MoveRecipe(1, ())), 1, "has test-time registers"),
        (
            lambda: timm.create_model("beit_base_patch16_224", img_size=64, **TINY),
            1,
            "relative positions",
        ),
    ],
)
def test_what_cannot_have_them_is_one_line(make, count, reason):
    with pytest.raises(AuditError, match=reason) as error:
        apply(make(), MoveRecipe(count, ()))
    assert "\n" not in str(error.value)


def test_features_without_a_model_say_why():
    features = np.random.default_rng(0).normal(size=(20, 65, 32)).astype(np.float32)
    features[:, 1::20] *= 12
    note = audit(features, None, 1, prefix=1).audits[0].change_note
    assert "features hold no attention and no neurons" in note


# --- set to zero, and replaced by the mean -----------------------------------------------------


def test_a_neuron_is_replaced_by_its_mean_over_the_other_patches():
    x = torch.arange(8.0).reshape(1, 4, 2)  # [CLS] and three patches; the last is an outlier
    mask = np.array([[False, False, True]])
    (mean,) = _Replaced([1], mask, 1, MEAN)(None, (x,))
    assert mean[0, :, 1].tolist() == [1, 4, 4, 4], "the mean of 3 and 5, [CLS] as it was"
    (zero,) = _Replaced([1], mask, 1, ZERO)(None, (x,))
    assert zero[0, :, 1].tolist() == [1, 0, 0, 0] and torch.equal(zero[..., 0], x[..., 0])


def test_zero_overstates_what_a_neuron_with_a_mean_is_for(backbone):
    """One of the neurons fires on every patch: set to zero all patches move, at its mean none."""
    from copy import deepcopy

    from registers.audit import ablation
    from registers.audit.watched import watch_model

    plain, pixels, mask = backbone
    model = deepcopy(plain.vit)
    block = model.blocks[WRITER].mlp
    block.fc1.weight[20] = 0
    block.fc1.bias[20] = 3.0
    block.fc2.weight[:, 20] = torch.randn(48, generator=torch.manual_seed(1))
    bank = tokens(model, pixels)
    recipe = MoveRecipe(1, ((WRITER + 1, 20),))
    chosen = register_neurons.NeuronSearch(WRITER + 1, 100.0, mask, WRITER + 1, 1, "this test")
    after = watch_model(bank.card, bank.module, bank.anatomy, bank.images)
    moved, zero, mean = ablation.ablations(bank, recipe, chosen, after)
    assert moved.patches == pytest.approx(0, abs=1e-6)
    assert zero.patches > 0.01 and abs(zero.norm) > 0.01
    assert mean.patches == pytest.approx(0, abs=1e-6) and mean.norm == pytest.approx(0, abs=1e-5)


def test_registers_of_a_model_are_ablated_as_well(report):
    rows = {(row.what, row.how): row for row in report.audits[0].change.ablations}
    assert {how for what, how in rows if what == "registers"} == {ZERO, MEAN}
    assert rows["registers", ZERO].cls > rows["registers", MEAN].cls > 0
    assert rows["neurons", ZERO].outliers == 0 and rows["registers", ZERO].outliers > 0.04
