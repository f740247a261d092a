"""MAE: what is removed cannot leak, positions and targets are official, order does not matter."""

import numpy as np
import pytest
import torch
from lightly.models import utils as lightly
from PIL import Image

from registers.data.sample import Sample
from registers.methods.mae import Mae, patch_targets, sincos
from registers.methods.method import Progress
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings
from registers.settings.recipes import MaeRecipe, SizeSettings

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

TINY = {"tiny": SizeSettings(width=32, depth=4, heads=2)}
SIZES = dict(
    size="tiny",
    patch=4,
    steps=6,
    batch=4,
    lr=1e-3,
    warmup=2,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
)


def recipe(registers: int = 2, **changes) -> Mae:
    loaded = load_settings({"scale": "smoke"})
    settings = loaded.model_copy(
        update={
            "image_size": 32,
            "sizes": TINY,
            "recipes": {"mae": MaeRecipe(**{**SIZES, **changes})},
        }
    )
    torch.manual_seed(0)
    return Mae(settings, BackboneId("mae", registers, 0), dataset=None).train()


def examples(method: Mae, size: int = 4) -> dict[str, torch.Tensor]:
    return {
        "image": torch.randn(size, 3, 32, 32, generator=torch.Generator().manual_seed(1)),
        "order": torch.stack([torch.randperm(method.patches) for _ in range(size)]),
    }


def test_three_quarters_are_removed_and_nothing_of_them_reaches_the_encoder():
    method = recipe()
    assert (method.patches, method.kept) == (64, 16)
    batch = examples(method)
    kept = batch["order"][:, : method.kept]
    encoded = method.encode(batch["image"], kept)
    mask = torch.ones(4, 64).scatter(1, kept, 0).view(4, 1, 8, 8)
    pixels = torch.nn.functional.interpolate(mask, scale_factor=4)
    elsewhere = method.encode(batch["image"] + 10 * pixels, kept)
    torch.testing.assert_close(encoded, elsewhere)
    assert encoded[1].shape == (4, 16, 32)
    changed = method.encode(batch["image"] + 1 - pixels, kept)
    assert (changed[1] - encoded[1]).abs().max() > 1e-3


@pytest.mark.parametrize("registers", [0, 3])
def test_with_all_patches_kept_the_encoder_is_the_backbone(registers):
    method = recipe(registers).eval()
    images, order = torch.randn(2, 3, 32, 32), torch.stack([torch.randperm(64), torch.arange(64)])
    whole = method.backbone(images)
    cls, patches = method.encode(images, order)
    torch.testing.assert_close(cls, whole.cls, rtol=1e-4, atol=1e-5)
    for i in range(2):
        torch.testing.assert_close(patches[i], whole.patches[i, order[i]], rtol=1e-4, atol=1e-5)


def test_registers_change_what_patches_become():
    method = recipe().eval()
    batch = examples(method)
    kept = batch["order"][:, :16]
    before = method.encode(batch["image"], kept)[1]
    torch.nn.init.normal_(method.backbone.vit.reg_token)
    assert (method.encode(batch["image"], kept)[1] - before).abs().max() > 1e-3


def test_the_loss_does_not_depend_on_the_order_of_what_is_kept_or_removed():
    method = recipe().eval()
    batch = examples(method)
    kept, removed = batch["order"].split([16, 48], dim=1)
    reordered = torch.cat([kept.flip(1), removed.roll(5, dims=1)], dim=1)
    one, other = (
        method({**batch, "order": o}, Progress(0, 6))["loss"] for o in (batch["order"], reordered)
    )
    torch.testing.assert_close(one, other)


def test_loss_is_the_official_one_on_removed_patches():
    """models_mae.py, forward_loss: (squared error, mean over pixels) x mask / sum of mask."""
    method = recipe().eval()
    batch = examples(method)
    order = batch["order"]
    predicted = method.decode(*method.encode(batch["image"], order[:, :16]), order)
    full = torch.zeros(4, 64, 48).scatter(1, order[:, 16:, None].expand(-1, -1, 48), predicted)
    mask = torch.ones(4, 64).scatter(1, order[:, :16], 0)
    patches = lightly.patchify(batch["image"], 4).unflatten(2, (16, 3))
    patches = patches.transpose(2, 3).flatten(2)  # theirs has colours last
    target = (patches - patches.mean(-1, keepdim=True)) / (
        patches.var(-1, keepdim=True) + 1e-6
    ) ** 0.5
    expected = (((full - target) ** 2).mean(-1) * mask).sum() / mask.sum()
    torch.testing.assert_close(method(batch, Progress(0, 6))["loss"], expected)


def test_targets_of_each_patch_have_mean_zero_and_variance_one():
    targets = patch_targets(torch.rand(2, 3, 12, 8), 4)
    assert targets.shape == (2, 6, 48)
    torch.testing.assert_close(targets.mean(-1), torch.zeros(2, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(-1), torch.ones(2, 6), atol=1e-3, rtol=0)
    flat = torch.full((1, 3, 8, 8), 0.3)  # no division by zero
    assert patch_targets(flat, 4).abs().max() < 1e-3


def test_positions_are_the_official_sin_cos_and_are_not_trained():
    expected = lightly.get_2d_sine_cosine_positional_embedding(24, 5, cls_token=False)
    torch.testing.assert_close(
        sincos((5, 5), 24), torch.as_tensor(np.asarray(expected)).float(), rtol=1e-5, atol=1e-6
    )
    method = recipe()
    optimizer = method.optimizer()
    assert not method.backbone.vit.pos_embed.requires_grad
    torch.testing.assert_close(method.backbone.vit.pos_embed[0], sincos((8, 8), 32))
    assert all(
        p is not method.backbone.vit.pos_embed for g in optimizer.param_groups for p in g["params"]
    )


def test_learning_reconstructs_what_can_be_known():
    """Each image is one colour ramp, so removed patches follow from kept ones.

    Predicting the mean alone has a loss of about 1.
    """
    method = recipe(lr=0.005, warmup=0)
    ramp = torch.linspace(-1, 1, 32)
    angles = torch.arange(8) * torch.pi / 4
    images = torch.stack([a.cos() * ramp[:, None] + a.sin() * ramp[None, :] for a in angles])[
        :, None
    ].expand(-1, 3, -1, -1)
    optimizer, losses = method.optimizer(), []
    for i in range(80):
        method.schedule(optimizer, Progress(i, 100))
        batch = {"image": images, "order": torch.stack([torch.randperm(64) for _ in range(8)])}
        loss = method(batch, Progress(i, 100))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9 and np.mean(losses[-5:]) < 0.5


def test_augment_is_seeded():
    method = recipe()
    sample = Sample(Image.new("RGB", (40, 30), (9, 99, 199)))
    torch.manual_seed(3)
    first = method.augment(sample)["order"]
    torch.manual_seed(3)
    assert torch.equal(first, method.augment(sample)["order"])
    assert method.augment(sample)["image"].shape == (3, 32, 32)
