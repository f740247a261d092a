"""DeiT-III's recipe: its parts against their definitions, and a run that learns."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.loss import SoftTargetCrossEntropy

from registers.data.sample import Sample
from registers.methods.deit3 import Deit3, learning_rate
from registers.methods.method import Progress
from registers.settings.backbone_id import BackboneId
from registers.settings.errors import ConfigError
from registers.settings.load import load_settings

torch.set_num_threads(1)


class Stripes:
    """Images whose class is the direction of their stripes, in random colours and phases."""

    classes = ("across", "down")
    attributes = {}
    fingerprint = "stripes"

    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> Sample:
        draw = np.random.default_rng(index)
        wave = np.sin(np.arange(16) * np.pi / 2 + draw.uniform(0, 6))[:, None] * np.ones(16)
        label = index % 2
        picture = 128 + 100 * (wave if label == 0 else wave.T)[..., None] * draw.uniform(0.3, 1, 3)
        return Sample(image=Image.fromarray(picture.astype(np.uint8)), name=str(index), label=label)


def method(registers: int = 1, dataset=None, **recipe) -> Deit3:
    overrides = {f"recipes.deit3.{k}": v for k, v in recipe.items()}
    small = {
        "image_size": 16,
        "sizes.base.width": 32,
        "sizes.base.depth": 2,
        "sizes.base.heads": 2,
        "recipes.deit3.layer_scale": 1e-4,
    }
    settings = load_settings({"scale": "laptop", "overrides": {**small, **overrides}})
    torch.manual_seed(0)
    return Deit3(settings, BackboneId("deit3", registers, 0), dataset or Stripes())


def batch_of(deit: Deit3, size: int, start: int = 0) -> dict[str, torch.Tensor]:
    data = Stripes()
    examples = [deit.augment(data[(start + i) % len(data)]) for i in range(size)]
    return {k: torch.stack([e[k] for e in examples]) for k in examples[0]}


def seed(value: int) -> None:
    random.seed(value), np.random.seed(value), torch.manual_seed(value)


def test_it_learns_stripes_with_the_whole_recipe():
    steps = 240
    deit = method(lr=0.03, steps=steps, warmup=10, batch=32)
    optimizer = deit.optimizer()
    first_scale = deit.backbone.vit.blocks[0].ls1.gamma.detach().clone()
    for step in range(steps):
        seed(step)
        batch = batch_of(deit, 32, 32 * step)
        deit.schedule(optimizer, Progress(step, steps))
        optimizer.zero_grad()
        deit(batch, Progress(step, steps))["loss"].backward()
        optimizer.step()
    deit.eval()
    batch = batch_of(deit, 128)
    with torch.no_grad():
        right = (
            (deit.head(deit.backbone.summary(batch["image"])).argmax(1) == batch["label"])
            .float()
            .mean()
        )
    assert right > 0.9  # chance 0.5; standard error 0.03
    assert (first_scale == 1e-4).all()
    assert (deit.backbone.vit.blocks[0].ls1.gamma.abs().mean()) > 1e-3  # LayerScale opened


def test_loss_is_the_soft_target_cross_entropy_of_the_mixed_batch():
    deit = method().eval()
    batch = batch_of(deit, 8)
    seed(3)
    loss = deit({k: v.clone() for k, v in batch.items()}, Progress(0, 10))["loss"]
    seed(3)
    images, targets = deit.mix(batch["image"].clone(), batch["label"])
    assert not torch.equal(images, batch["image"])  # CutMix acted
    assert torch.allclose(targets.sum(1), torch.ones(8))
    assert targets.min() >= 0.1 / 2 - 1e-6  # smoothing 0.1 over two classes
    expected = SoftTargetCrossEntropy()(deit.head(deit.backbone(images).cls), targets)
    assert torch.allclose(loss, expected, rtol=1e-5)


def test_labels_are_smoothed_by_a_tenth():
    """main.py, --smoothing 0.1: of one class in the batch the other keeps 0.1 / 2 exactly."""
    deit = method()
    _, targets = deit.mix(torch.zeros(8, 3, 16, 16), torch.zeros(8, dtype=torch.long))
    assert torch.allclose(targets, torch.tensor([0.95, 0.05]).expand(8, 2))


def test_lamb_clips_the_global_norm_of_the_gradient():
    """apex' FusedLAMB, max_grad_norm 1: one huge gradient counts no more than one of norm 1."""

    def after(scale: float) -> torch.Tensor:
        deit = method()
        optimizer = deit.optimizer()
        draw = torch.Generator().manual_seed(0)
        for factor in (scale, 1.0):
            for parameter in deit.parameters():
                gradient = torch.randn(parameter.shape, generator=draw) if factor == 1 else 1.0
                parameter.grad = factor * gradient * torch.ones_like(parameter)
            optimizer.step()
        return deit.head.weight.detach()

    assert torch.allclose(after(10.0), after(1e6), atol=1e-7)


def test_mixing_a_shard_equals_a_shard_of_the_mixture():
    """Slots i and B-1-i share a process, and lambda comes from one seed."""
    deit = method().eval()
    batch = batch_of(deit, 16)
    seed(5)
    whole, targets = deit.mix(batch["image"].clone(), batch["label"])
    slots = [4, 5, 6, 7, 8, 9, 10, 11]  # the second of two processes
    seed(5)
    part, part_targets = deit.mix(batch["image"][slots].clone(), batch["label"][slots])
    assert torch.equal(part, whole[slots]) and torch.equal(part_targets, targets[slots])


def test_weight_decay_spares_one_dimensional_and_prefix_parameters():
    deit = method(registers=2)
    decayed, kept = deit.optimizer().param_groups
    names = {id(p): n for n, p in deit.named_parameters()}
    kept_names = {names[id(p)] for p in kept["params"]}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.02, 0.0)
    assert {
        "backbone.vit.pos_embed",
        "backbone.vit.cls_token",
        "backbone.vit.reg_token",
        "backbone.vit.blocks.0.ls1.gamma",
    } <= kept_names
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_drop_path_is_constant_and_layer_scale_starts_at_1e_4():
    deit = method(**{"size": "base"})
    assert deit.backbone.architecture.layer_scale == 1e-4
    settings = load_settings(
        {
            "scale": "laptop",
            "overrides": {
                "recipes.deit3.drop_path": {"base": 0.2},
                "recipes.deit3.layer_scale": 1e-4,
            },
        }
    )
    blocks = Deit3(settings, BackboneId("deit3", 0, 0), Stripes()).backbone.vit.blocks
    assert {b.drop_path1.drop_prob for b in blocks} | {b.drop_path2.drop_prob for b in blocks} == {
        0.2
    }


def test_learning_rate_equals_timms_schedule():
    from timm.scheduler import CosineLRScheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    official = CosineLRScheduler(
        optimizer, t_initial=240, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6
    )
    for step in range(240):
        official.step(step)
        assert math.isclose(
            optimizer.param_groups[0]["lr"], learning_rate(step, 240, 5, 1e-3), rel_tol=1e-9
        )


def test_the_last_block_for_cls_alone_gives_the_same_gradients():
    deit = method(registers=2)
    images = torch.randn(4, 3, 16, 16)
    parameters = [p for n, p in deit.backbone.named_parameters() if "cls_token" not in n]
    both = []
    for cls in (deit.backbone.summary, lambda x: deit.backbone(x).cls):
        out = cls(images)
        both.append((out, torch.autograd.grad(out.sin().sum(), parameters)))
    assert torch.allclose(both[0][0], both[1][0], atol=1e-5)
    for ours, full in zip(both[0][1], both[1][1]):
        assert (ours - full).norm() <= 1e-4 * full.norm() + 1e-12


def test_what_it_cannot_train_on_is_named():
    with pytest.raises(ConfigError, match=r"recipes.deit3.batch: 5 .* a multiple of 2"):
        method(batch=5)
    with pytest.raises(ValueError, match="sample x: no label"):
        method().augment(Sample(image=Image.new("RGB", (16, 16)), name="x"))
