"""LOST against a plain procedure, patch for patch, and against facts that need none."""

import numpy as np
import pytest
import torch
from plain_lost import plain_lost

from registers.evals.discovery import look, padded
from registers.evals.lost import BLOCK, CHUNK, Lost, degrees, lost, prepared, to_pixels
from registers.models.backbone import Architecture, build
from registers.world.dataset import scene

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


def same(found: Lost, features: np.ndarray, grid: tuple[int, int], k: int, bias: float) -> None:
    plain = plain_lost(features, grid, k, bias)
    assert found.degree.tolist() == plain.degree
    assert found.seed == plain.seed
    assert set(np.flatnonzero(found.similars)) == plain.similars
    assert set(np.flatnonzero(found.mask)) == plain.mask
    assert set(np.flatnonzero(found.component)) == plain.component
    assert tuple(found.box) == plain.box
    assert bool(found.fallback) == (plain.seed not in plain.mask)


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (7, 1), (5, 8), (14, 14)])
@pytest.mark.parametrize("bias", [0.0, 3.0, -3.0])
def test_equals_the_plain_procedure_on_random_features(grid, bias):
    rng = np.random.default_rng(hash((grid, bias)) % 2**32)
    features = rng.standard_normal((6, grid[0] * grid[1], 12)).astype(np.float32)
    features[3:] += 0.4 * rng.standard_normal((3, 1, 12)).astype(
        np.float32
    )  # a common direction, as real features have
    features = (
        features * 64
    ).round() / 64  # sums of products are then exact in float32, in any order
    found = lost(torch.from_numpy(features), grid, bias=bias)
    for index in range(len(features)):
        same(found[index], features[index], grid, 100, bias)


def test_equals_the_plain_procedure_on_features_of_a_backbone():
    """Keys, queries and values of a ViT on drawn scenes; rounded, so that sums are exact and the comparison holds on every machine."""
    torch.manual_seed(0)
    backbone = build(
        Architecture(width=48, depth=3, heads=3, patch=4, image=32, registers=2),
        name="dinov2-r2-s0",
    ).eval()
    for block in backbone.vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.2)
    samples = [scene(0, index, pixels=56) for index in range(4)]
    images = torch.stack([padded(sample, 4, (0.5,) * 3, (0.25,) * 3) for sample in samples])
    for features in look(backbone, images, [-1, -2])[0].values():
        features = (features * 64).round() / 64
        found = lost(features, (14, 14))
        assert 1 < found.mask.sum() < found.mask.size
        for index in range(len(images)):
            same(found[index], features[index].contiguous().numpy(), (14, 14), 100, 0.0)


@pytest.mark.parametrize("k", [1, 3, 100])
def test_ties_go_to_the_first_patch(k):
    rng = np.random.default_rng(k)
    features = rng.integers(-1, 2, (40, 30, 3)).astype(
        np.float32
    )  # few values: nearly every degree is a tie
    found = lost(torch.from_numpy(features), (5, 6), k=k)
    assert sum((d == d.min()).sum() > 1 for d in found.degree) > 10, (
        "the case must contain ties for the seed"
    )
    for index in range(len(features)):
        same(found[index], features[index], (5, 6), k, 0.0)


def test_biases_that_break_the_seed_fall_back_to_it():
    rng = np.random.default_rng(0)
    features = rng.integers(-2, 3, (50, 24, 2)).astype(np.float32)
    found = lost(torch.from_numpy(features), (4, 6), bias=-5.0)
    assert 0 < found.fallback.sum() < 50
    for index in range(len(features)):
        same(found[index], features[index], (4, 6), 100, -5.0)
    alone = found[found.fallback.nonzero()[0][0]]
    assert alone.component.sum() == 1 and alone.component[alone.seed]


def test_a_planted_object_is_found():
    """Object patches resemble each other and nothing else; the background resembles itself: the box is the object's."""
    features = torch.zeros(1, 8 * 10, 4)
    inside = torch.zeros(8, 10, dtype=torch.bool)
    inside[2:5, 3:9] = True
    features[0, inside.flatten(), 0] = 1
    features[0, ~inside.flatten(), 1] = 1
    found = lost(features, (8, 10))
    assert found.box.tolist() == [[3, 2, 9, 5]]
    assert found.degree[0, inside.flatten().numpy()].tolist() == [17] * 18
    assert found.score.argmax() == found.seed[0] == 23  # first of equals


def test_a_single_patch_and_a_single_patch_box():
    assert lost(torch.ones(1, 5), (1, 1)).box.tolist() == [0, 0, 1, 1]
    assert lost(
        torch.zeros(4, 5), (2, 2)
    ).fallback  # nothing is similar to anything, not even to itself
    features = torch.zeros(9, 3)
    features[:, 0] = 1
    features[4] = torch.tensor([-1.0, 1.0, 0.0])  # similar to none
    found = lost(features, (3, 3))
    assert found.box.tolist() == [1, 1, 2, 2] and not found.fallback


def test_chunks_blocks_and_batches_do_not_change_a_result(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features = (torch.randn(7, 12 * 13, 6, generator=generator) * 64).round() / 64
    assert features.shape[1] > BLOCK, "the case must have several blocks"
    whole = lost(features, (12, 13))
    monkeypatch.setitem(CHUNK, "cpu", 2 * 128 * 156)
    parts = lost(features, (12, 13))
    for index in range(7):
        one = lost(features[index], (12, 13))
        same(one, features[index].numpy(), (12, 13), 100, 0.0)
        for found in (whole[index], parts[index]):
            assert (
                found.box.tolist() == one.box.tolist()
                and found.component.tolist() == one.component.tolist()
            )


def test_normalisations_are_what_they_say():
    features = torch.randn(
        2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).float()
    x = features.numpy().astype(np.float64)
    y = x - x.mean(axis=1, keepdims=True)
    for name, z in (
        ("none", x),
        ("l2", x / np.linalg.norm(x, axis=-1, keepdims=True)),
        ("centre+l2", y / np.linalg.norm(y, axis=-1, keepdims=True)),
    ):
        assert np.allclose(prepared(features, name).numpy(), z, atol=1e-6)
    with pytest.raises(ValueError, match="normalisation = 'l1': allowed are none, l2"):
        prepared(features, "l1")


def test_a_bias_shifts_every_entry_and_several_share_one_matrix():
    x = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(2))
    several = degrees(x, [0.0, 1e6, -1e6, 0.7])
    assert several[1].tolist() == [[11] * 12] and several[2].tolist() == [[0] * 12]
    for number, bias in ((0, 0.0), (3, 0.7)):
        matrix = (x[0] @ x[0].T + bias).fill_diagonal_(0)
        assert (
            several[number, 0].tolist()
            == (matrix > 0).sum(1).tolist()
            == lost(x, (3, 4), bias=bias).degree[0].tolist()
        )


def test_boxes_in_pixels_end_at_the_unpadded_image():
    boxes = to_pixels(np.array([[0, 0, 3, 2], [2, 1, 3, 2]]), 16, np.array([[40, 30], [48, 32]]))
    assert boxes.tolist() == [[0, 0, 40, 30], [32, 16, 48, 32]]


@pytest.mark.parametrize(
    ("features", "grid", "k", "message"),
    [
        (torch.zeros(5, 3), (2, 3), 100, "allowed are"),
        (torch.zeros(6, 3), (2, 3), 0, "k = 0"),
        (torch.full((6, 3), torch.nan), (2, 3), 100, "NaN"),
    ],
)
def test_bad_input_is_one_clear_line(features, grid, k, message):
    with pytest.raises(ValueError, match=message):
        lost(features, grid, k=k)
