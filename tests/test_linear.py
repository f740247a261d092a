"""Linear evaluation: 52 heads at once equal 52 heads alone; planted classes are found."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import FakeDataset, fake_backbone
from torch import nn

from registers.data.transforms import Augment
from registers.data.usable import labelled
from registers.evals import linear as module
from registers.evals.linear import BLOCKS, MOMENTUM, RATES, Heads, features, kinds, linear
from registers.models.backbone import Architecture, build
from registers.settings.questions import LinearSettings

SETTINGS = LinearSettings(train_images=64, val_images=60, iterations=40, batch=16)


def run(train: FakeDataset, val: FakeDataset, **more) -> dict:
    """The two rows that are not of a single head, by metric."""
    backbone = fake_backbone(registers=2, name="dinov2-r2-s0")
    rows = linear(backbone, train, val, SETTINGS, size=16, progress=False, **more)
    assert len(rows) == 2 + 52
    return {row.metric: row for row in rows if row.metric != "top1_head"}


# --- heads


def test_the_grid_is_the_official_one():
    assert len(RATES) == 13
    assert kinds(12) == ((1, False), (1, True), (4, False), (4, True))
    assert kinds(2) == ((1, False), (1, True), (2, False), (2, True))
    assert kinds(1) == ((1, False), (1, True))


def test_heads_at_once_equal_heads_alone():
    """torch's own Linear, cross_entropy, SGD and CosineAnnealingLR, one head after the other."""
    torch.manual_seed(0)
    dims = {(1, False): 6, (1, True): 12, (4, False): 24, (4, True): 30}
    classes, iterations, batch = 5, 12, 32
    data = [
        ({k: torch.randn(batch, d) for k, d in dims.items()}, torch.randint(0, classes, (batch,)))
        for _ in range(iterations)
    ]
    heads = Heads(dims, classes, iterations, batch)
    alone = [alone_head(heads, i, data) for i in range(52)]
    losses = torch.stack([heads.step(x, labels) for x, labels in data])
    x, _ = data[0]
    logits = heads.logits(x)
    for i, (layer, losses_alone) in enumerate(alone):
        kind, _ = heads.heads[i]
        assert torch.allclose(losses[:, i], torch.tensor(losses_alone), atol=1e-5)
        assert torch.allclose(logits[:, i], layer(x[kind]), atol=1e-5)


def alone_head(heads: Heads, number: int, data: list) -> tuple[nn.Linear, list[float]]:
    """One head of the untrained `heads`, trained by torch; and its losses."""
    kind, rate = heads.heads[number]
    place = number % len(RATES) * heads.classes
    columns = slice(place, place + heads.classes)
    layer = nn.Linear(len(heads.weight[kind]), heads.classes)
    layer.weight.data = heads.weight[kind][:, columns].T.clone()
    layer.bias.data = heads.bias[kind][columns].clone()
    batch = len(data[0][1])
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate * batch / 256, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(data), eta_min=0)
    losses = []
    for x, labels in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(layer(x[kind]), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return layer, losses


def test_features_are_normed_and_leave_registers_out():
    torch.manual_seed(0)
    architecture = Architecture(width=16, depth=5, heads=2, patch=4, image=16, registers=3)
    backbone = build(architecture).eval()
    images = torch.randn(2, 3, 16, 16)
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
    by_kind = features(backbone, images)
    assert set(by_kind) == set(expected)
    for kind, parts in expected.items():
        assert torch.allclose(by_kind[kind], torch.cat(parts, 1), atol=1e-5), kind


# --- the whole


def test_a_planted_class_is_found(monkeypatch):
    """[CLS] of the fake says the class of an uncut image; training views would cut it."""
    monkeypatch.setattr(module, "linear_augment", lambda size: Augment(()))
    monkeypatch.setattr(module, "RESIZE", 1.0)
    rows = run(FakeDataset(64), FakeDataset(60, seed=1), data="fake-val")
    top1 = rows["top1"]
    assert top1.value == rows["top1_held_out"].value == 1
    assert (top1.n, top1.data) == (60, "fake-val")
    assert top1.chance == pytest.approx(19 / 60)  # the most frequent of the four classes here
    assert 0.93 < top1.low < 1
    assert "best of 52 heads" in top1.note


def test_each_head_has_its_row():
    backbone = fake_backbone(registers=2, name="dinov2-r2-s0")
    settings = LinearSettings(train_images=8, val_images=8, iterations=1, batch=8)
    train, val = FakeDataset(8), FakeDataset(8, seed=1)
    rows = linear(backbone, train, val, settings, size=16, progress=False)[2:]
    assert {row.metric for row in rows} == {"top1_head"}
    assert {row.at for row in rows if row.coordinate == "lr"} == set(RATES)
    assert {row.variant for row in rows} == {
        "[CLS], last 1 block",
        "[CLS] and mean patch, last 1 block",
        "[CLS], last 2 blocks",
        "[CLS] and mean patch, last 2 blocks",
    }


def test_without_a_class_the_held_out_choice_is_at_chance():
    """Labels without meaning: the official choice is optimistic, the held-out one is not."""

    class Shuffled(FakeDataset):
        def __getitem__(self, index):
            labels = np.random.default_rng(self.seed + 10).permutation(self.labels)
            return replace(super().__getitem__(index), label=int(labels[index]))

    rows = run(Shuffled(64), Shuffled(60, seed=1))
    held_out = rows["top1_held_out"]
    assert held_out.low <= 0.25 <= held_out.high
    assert rows["top1"].value >= held_out.value


def test_the_same_seed_gives_the_same_rows_and_leaves_the_generator_alone():
    random.seed(3)
    before = random.getstate()
    first, second = (run(FakeDataset(32), FakeDataset(30, seed=1)) for _ in range(2))
    assert first == second
    assert random.getstate() == before


# --- bad data


def test_bad_data_is_named():
    class Unlabelled(FakeDataset):
        def __getitem__(self, index):
            return replace(super().__getitem__(index), label=None)

    reason = r"the first: fake \d+: has no label"
    with pytest.raises(ValueError, match=f"none of 32 training images can be used; {reason}"):
        run(Unlabelled(32), FakeDataset(30))
    with pytest.raises(ValueError, match="4 classes in train, 3 in val; must be the same"):
        run(FakeDataset(32), FakeDataset(30, classes=3))


class Odd(FakeDataset):
    """Image 0 has a label out of range, image 1 is a line of one pixel's width."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        if index == 0:
            return replace(sample, label=4)
        return replace(sample, image=sample.image.resize((1, 500))) if index == 1 else sample


def test_labels_out_of_range_and_thin_lines_are_left_out():
    """A shorter side of one pixel, resized to the model's, would make an image of gigabytes."""
    samples = labelled(Odd(8), 6, classes=4)
    assert [sample.name for sample in samples] == [f"fake {i}" for i in range(2, 6)]
    label, shape = samples.left_out
    assert label == "fake 0: label 4 is out of range; must be 0 to 3"
    assert "fake 1: 1 x 500 pixels" in shape
    drawn = samples.draws([1, 2, 0, 5, *[1] * 7])
    assert [next(drawn).name, next(drawn).name] == ["fake 2", "fake 5"]
    with pytest.raises(ValueError, match="none of 6 images can be used; the first: fake 0"):
        next(drawn)
