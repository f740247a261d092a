"""DINO: lightly's loss with a moving centre, clipping per parameter, a teacher that follows."""

import random

import numpy as np
import pytest
import torch
from lightly.loss import DINOLoss
from PIL import Image
from torch.nn import functional as F

from registers.data.sample import Sample
from registers.methods.dino import Dino
from registers.methods.method import Progress
from registers.models.schedules import cosine
from registers.settings.backbone_id import BackboneId
from registers.settings.load import load_settings
from registers.settings.recipes import DinoRecipe, SizeSettings

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

TINY = {"tiny": SizeSettings(width=32, depth=4, heads=2)}
SIZES = dict(
    size="tiny",
    patch=4,
    steps=6,
    batch=4,
    lr=1e-3,
    warmup=0,
    prototypes=32,
    head_hidden=24,
    bottleneck=16,
    local_crops=2,
    local_size=16,
)


def recipe(registers: int = 1, **changes) -> Dino:
    loaded = load_settings({"scale": "smoke"})
    settings = loaded.model_copy(
        update={
            "image_size": 32,
            "sizes": TINY,
            "recipes": {"dino": DinoRecipe(**{**SIZES, **changes})},
        }
    )
    torch.manual_seed(0)
    return Dino(settings, BackboneId("dino", registers, 0), dataset=None).train()


def batch(method: Dino, size: int = 4) -> dict[str, torch.Tensor]:
    """Examples from gradients between two random colours."""
    random.seed(0)
    examples = []
    for i in range(size):
        low, high = np.random.default_rng(i).uniform(0, 255, (2, 3))
        ramp = np.linspace(0, 1, 40)[:, None, None]
        image = Image.fromarray(
            np.broadcast_to(low + (high - low) * ramp, (40, 40, 3)).astype(np.uint8)
        )
        examples.append(method.augment(Sample(image)))
    return {key: torch.stack([e[key] for e in examples]) for key in examples[0]}


def test_loss_and_centre_agree_with_lightly_over_three_steps():
    method, theirs = recipe(temperature_warmup=3), DINOLoss(output_dim=32, center_momentum=0.9)
    examples = batch(method)
    for i in range(3):
        progress = Progress(i, 6)
        with torch.no_grad():
            views = [*examples["global"].unbind(1), *examples["local"].unbind(1)]
            teacher = [method.teacher_head(method.backbone(view).cls) for view in views[:2]]
            student = [method.head(method.student(view).cls) for view in views]
            expected = theirs(teacher, student, teacher_temp=method.temperature(progress))
            ours = method(examples, progress)["loss"]
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(method.center, theirs.center.flatten(), rtol=1e-4, atol=1e-6)
    assert method.center.abs().max() > 0


def test_the_centre_stands_still_outside_training():
    method = recipe().eval()
    method(batch(method), Progress(0, 6))
    assert not method.center.any()


def test_gradients_are_clipped_parameter_by_parameter_and_the_last_layer_waits():
    method = recipe(freeze_last_layer=1)
    (20 * method(batch(method), Progress(0, 6))["loss"]).backward()
    before = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
    method.before_update(Progress(0, 6))
    assert max(g.norm() for g in before.values()) > 3 > min(g.norm() for g in before.values())
    for name, parameter in method.named_parameters():
        if name == "head.last_layer.direction":
            assert parameter.grad is None
        elif name in before:
            expected = before[name] * min(1.0, 3 / (before[name].norm().item() + 1e-6))
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-7)
    method(batch(method), Progress(1, 6))["loss"].backward()
    method.before_update(Progress(1, 6))
    assert method.head.last_layer.direction.grad is not None


def test_prototypes_keep_their_norm():
    method = recipe()
    assert not method.head.last_layer.length.requires_grad
    logits = method.head(torch.randn(50, 32))
    assert logits.abs().max() <= 1 + 1e-5  # cosines


def test_one_step_moves_the_student_and_the_teacher_follows():
    method = recipe(momentum=0.5)
    optimizer = method.optimizer()
    rates = method.schedule(optimizer, Progress(2, 6))
    assert rates["weight_decay"] == pytest.approx(cosine(2, 6, 0.04, 0.4))
    assert [g["weight_decay"] for g in optimizer.param_groups] == [rates["weight_decay"], 0.0]
    old = {n: p.clone() for n, p in method.backbone.named_parameters()}
    method(batch(method), Progress(2, 6))["loss"].backward()
    method.before_update(Progress(2, 6))
    optimizer.step()
    method.after_step(Progress(2, 6))
    m = cosine(2, 6, 0.5, 1.0)
    student = dict(method.student.named_parameters())
    for name, parameter in method.backbone.named_parameters():
        torch.testing.assert_close(parameter, m * old[name] + (1 - m) * student[name].detach())
        assert parameter.grad is None
    assert any(not torch.equal(old[n], student[n]) for n in old)


def test_the_student_learns_what_a_teacher_that_stands_still_says():
    """The loss falls only then: a moving centre sharpens or flattens the targets as it goes."""
    method = recipe(lr=0.003, momentum=1.0)
    optimizer, examples, losses = method.optimizer(), batch(method, 8), []
    images = examples["global"].transpose(0, 1).flatten(0, 1)
    for _ in range(40):  # the centre arrives at the mean of the teacher's outputs
        method.teach(images, 0.04)
    torch.testing.assert_close(
        method.center,
        method.teacher_head(method.backbone.summary(images)).mean(dim=0),
        rtol=0.1,
        atol=1e-3,
    )
    for i in range(40):
        method.schedule(optimizer, Progress(i, 60))
        loss = method(examples, Progress(i, 60))["loss"]
        optimizer.zero_grad()
        loss.backward()
        method.before_update(Progress(i, 60))
        optimizer.step()
        method.after_step(Progress(i, 60))
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < losses[0] - 0.2
    with torch.no_grad():
        cls = F.normalize(method.student.summary(images), dim=-1)
    assert cls.std(dim=0).mean() > 0.02  # no collapse
