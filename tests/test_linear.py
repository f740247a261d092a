"""Linear evaluation: 52 heads at once equal 52 heads alone; planted classes are found; chance is chance."""

import numpy as np
import pytest
import torch
from fakes import MEAN, STD, FakeDataset, fake_backbone
from torch import nn

from registers.data.usable import labelled
from registers.evals.linear import BLOCKS, MOMENTUM, RATES, Heads, features, kinds, linear
from registers.models.backbone import Architecture, build
from registers.settings.questions import LinearSettings


def test_the_grid_is_the_official_one():
    assert len(RATES) == 13 and kinds(12) == ((1, False), (1, True), (4, False), (4, True))
    assert len(RATES) * len(kinds(12)) == 52
    assert kinds(2) == ((1, False), (1, True), (2, False), (2, True)) and kinds(1) == (
        (1, False),
        (1, True),
    )


def test_heads_at_once_equal_heads_alone():
    """torch's own LinearSettings, cross_entropy, SGD and CosineAnnealingLR, one head after the other."""
    torch.manual_seed(0)
    dims, classes, iterations, batch = (
        {(1, False): 6, (1, True): 12, (4, False): 24, (4, True): 30},
        5,
        12,
        32,
    )
    data = [
        ({k: torch.randn(batch, d) for k, d in dims.items()}, torch.randint(0, classes, (batch,)))
        for _ in range(iterations)
    ]
    heads = Heads(dims, classes, iterations, batch)
    alone = []
    for i, (kind, rate) in enumerate(heads.heads):
        layer = nn.Linear(dims[kind], classes)
        columns = slice(i % 13 * classes, (i % 13 + 1) * classes)
        layer.weight.data, layer.bias.data = (
            heads.weight[kind][:, columns].T.clone(),
            heads.bias[kind][columns].clone(),
        )
        optimizer = torch.optim.SGD(
            layer.parameters(), lr=rate * batch / 256, momentum=MOMENTUM, weight_decay=0
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, eta_min=0)
        losses = []
        for x, labels in data:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(layer(x[kind]), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        alone.append((layer, losses))
    assert len(alone) == 52
    losses = torch.stack([heads.step(x, labels) for x, labels in data])
    x, _ = data[0]
    logits = heads.logits(x)
    for i, (kind, _) in enumerate(heads.heads):
        layer, expected = alone[i]
        assert torch.allclose(losses[:, i], torch.tensor(expected), atol=1e-5)
        assert torch.allclose(logits[:, i], layer(x[kind]), atol=1e-5)


def test_features_are_normed_and_leave_registers_out():
    torch.manual_seed(0)
    backbone = build(
        Architecture(width=16, depth=5, heads=2, patch=4, image=16, registers=3)
    ).eval()
    images = torch.randn(2, 3, 16, 16)
    found = features(backbone, images)
    layers = backbone.vit.get_intermediate_layers(images, n=4, norm=True, return_prefix_tokens=True)
    cls = [prefix[:, 0] for _, prefix in layers]
    mean = layers[-1][0].mean(1)
    assert BLOCKS == (1, 4)
    expected = {
        (1, False): cls[-1:],
        (1, True): [cls[-1], mean],
        (4, False): cls,
        (4, True): [*cls, mean],
    }
    for kind, parts in expected.items():
        assert torch.allclose(found[kind], torch.cat(parts, 1), atol=1e-5), kind


def run(train, val, **more) -> dict:
    settings = LinearSettings(train_images=64, val_images=60, iterations=40, batch=16)
    backbone = fake_backbone(registers=2, name="dinov2-r2-s0")
    rows = linear(
        backbone, train, val, settings, size=16, mean=MEAN, std=STD, progress=False, **more
    )
    assert len(rows) == 2 + 52
    return {r.metric: r for r in rows if r.metric != "top1_head"}


def test_a_planted_class_is_found(monkeypatch):
    """[CLS] of the fake says the class of an image that is not cut; training views would cut it."""
    import registers.evals.linear as module
    from registers.data.transforms import Augment

    monkeypatch.setattr(module, "linear_augment", lambda size: Augment(()))
    monkeypatch.setattr(module, "RESIZE", 1.0)
    found = run(FakeDataset(64), FakeDataset(60, seed=1), data="fake-val")
    assert found["top1"].value == found["top1_held_out"].value == 1
    assert (
        found["top1"].n == 60 and found["top1"].chance == 0.25 and found["top1"].data == "fake-val"
    )
    assert 0.93 < found["top1"].low < 1 and "best of 52 heads" in found["top1"].note


def test_without_a_class_the_held_out_choice_is_at_chance():
    """Labels that say nothing: the official choice is optimistic, the held-out one is not."""

    class Shuffled(FakeDataset):
        def __init__(self, images, seed):
            super().__init__(images, seed=seed)
            self.told = np.random.default_rng(seed + 10).permutation(self.labels)

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return type(sample)(sample.image, sample.name, label=int(self.told[index]))

    found = run(Shuffled(64, 0), Shuffled(60, 1))
    assert found["top1_held_out"].low <= 0.25 <= found["top1_held_out"].high
    assert found["top1"].value >= found["top1_held_out"].value


def test_same_seed_same_rows_and_random_state_untouched():
    import random

    random.seed(3)
    before = random.getstate()
    assert run(FakeDataset(32), FakeDataset(30, seed=1)) == run(
        FakeDataset(32), FakeDataset(30, seed=1)
    )
    assert random.getstate() == before


def test_bad_data_is_named():
    class Unlabelled(FakeDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return type(sample)(sample.image, sample.name)

    with pytest.raises(
        ValueError,
        match=r"none of 32 training images can be used; the first: fake \d+: has no label",
    ):
        run(Unlabelled(32), FakeDataset(30))
    with pytest.raises(ValueError, match="classes: 4 in train, 3 in val"):
        run(FakeDataset(32), FakeDataset(30, classes=3))


def test_labels_out_of_range_and_slim_lines_are_left_out():
    """A shorter side of one pixel, resized to the model's, would make a picture of gigabytes."""

    class Odd(FakeDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            image = sample.image if index != 1 else sample.image.resize((1, 500))
            return type(sample)(image, sample.name, label=sample.label if index else 4)

    stream = labelled(Odd(8), 6, classes=4)
    assert [sample.name for sample in stream] == [f"fake {i}" for i in range(2, 6)]
    assert (
        stream.left_out[0] == "fake 0: label 4 is out of range; must be 0 to 3"
        and "fake 1: 1 x 500 pixels" in stream.left_out[1]
    )
    drawn = stream.draws([1, 2, 0, 5, *[1] * 7])
    assert [next(drawn).name, next(drawn).name] == ["fake 2", "fake 5"]
    with pytest.raises(ValueError, match="none of 6 images can be used; the first: fake 0"):
        next(drawn)
