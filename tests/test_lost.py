"""LOST against a plain procedure, patch for patch, and against facts that need none."""

import numpy as np
import pytest
import torch
from plain_lost import plain_lost

from registers.evals.lost import BLOCK, CHUNK, Lost, degrees, lost, prepared, to_pixels
from registers.evals.lost_search import observed, padded
from registers.models.backbone import Architecture, build
from registers.world.dataset import scene

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


def rounded(features):
    """In steps of 1/64: sums of products are then exact in float32, in any order."""
    return (features * 64).round() / 64


def assert_same(steps: Lost, features: np.ndarray, grid: tuple[int, int], k=100, bias=0.0) -> None:
    plain = plain_lost(features, grid, k, bias)
    assert steps.degree.tolist() == plain.degree
    assert steps.seed == plain.seed
    assert set(np.flatnonzero(steps.similars)) == plain.similars
    assert set(np.flatnonzero(steps.mask)) == plain.mask
    assert set(np.flatnonzero(steps.component)) == plain.component
    assert tuple(steps.box) == plain.box
    assert bool(steps.fallback) == (plain.seed not in plain.mask)


# --- against the plain procedure


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (7, 1), (5, 8), (14, 14)])
@pytest.mark.parametrize("bias", [0.0, 3.0, -3.0])
def test_random_features(grid, bias):
    rng = np.random.default_rng(hash((grid, bias)) % 2**32)
    features = rng.standard_normal((6, grid[0] * grid[1], 12)).astype(np.float32)
    # in half of the images a common direction, as real features have
    features[3:] += 0.4 * rng.standard_normal((3, 1, 12)).astype(np.float32)
    features = rounded(features)
    steps = lost(torch.from_numpy(features), grid, bias=bias)
    for index in range(len(features)):
        assert_same(steps[index], features[index], grid, bias=bias)


def test_features_of_a_backbone():
    """Keys, queries and values of a ViT on drawn scenes."""
    torch.manual_seed(0)
    architecture = Architecture(width=48, depth=3, heads=3, patch=4, image=32, registers=2)
    normalization = ((0.5,) * 3, (0.25,) * 3)
    backbone = build(architecture, "dinov2-r2-s0", normalization).eval()
    for block in backbone.vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.2)
    samples = [scene(0, index, pixels=56) for index in range(4)]
    images = torch.stack([padded(backbone.normalised(sample.image), 4) for sample in samples])
    facets, _ = observed(backbone, images, [-1, -2])
    for features in map(rounded, facets.values()):
        steps = lost(features, (14, 14))
        assert 1 < steps.mask.sum() < steps.mask.size
        for index in range(len(images)):
            assert_same(steps[index], features[index].contiguous().numpy(), (14, 14))


@pytest.mark.parametrize("k", [1, 3, 100])
def test_ties_go_to_the_first_patch(k):
    """Few values, so that nearly every degree is a tie."""
    rng = np.random.default_rng(k)
    features = rng.integers(-1, 2, (40, 30, 3)).astype(np.float32)
    steps = lost(torch.from_numpy(features), (5, 6), k=k)
    tied = [(degree == degree.min()).sum() > 1 for degree in steps.degree]
    assert sum(tied) > 10, "the case must contain ties for the seed"
    for index in range(len(features)):
        assert_same(steps[index], features[index], (5, 6), k)


def test_biases_that_break_the_seed_fall_back_to_it():
    rng = np.random.default_rng(0)
    features = rng.integers(-2, 3, (50, 24, 2)).astype(np.float32)
    steps = lost(torch.from_numpy(features), (4, 6), bias=-5.0)
    assert 0 < steps.fallback.sum() < 50
    for index in range(len(features)):
        assert_same(steps[index], features[index], (4, 6), bias=-5.0)
    alone = steps[steps.fallback.nonzero()[0][0]]
    assert alone.component.sum() == 1
    assert alone.component[alone.seed]


def test_chunks_blocks_and_batches_do_not_change_a_result(monkeypatch):
    features = rounded(torch.randn(7, 12 * 13, 6, generator=torch.Generator().manual_seed(0)))
    assert features.shape[1] > BLOCK, "the case must have several blocks"
    at_once = lost(features, (12, 13))
    monkeypatch.setitem(CHUNK, "cpu", 2 * 128 * 156)
    in_chunks = lost(features, (12, 13))
    for index in range(7):
        single = lost(features[index], (12, 13))
        assert_same(single, features[index].numpy(), (12, 13))
        for steps in (at_once[index], in_chunks[index]):
            assert steps.box.tolist() == single.box.tolist()
            assert steps.component.tolist() == single.component.tolist()


# --- facts


def test_a_planted_object_is_found():
    """Object and background each resemble themselves and nothing else: the box is the object's."""
    inside = torch.zeros(8, 10, dtype=torch.bool)
    inside[2:5, 3:9] = True
    features = torch.zeros(1, 8 * 10, 4)
    features[0, inside.flatten(), 0] = 1
    features[0, ~inside.flatten(), 1] = 1
    steps = lost(features, (8, 10))
    assert steps.box.tolist() == [[3, 2, 9, 5]]
    assert steps.degree[0, inside.flatten().numpy()].tolist() == [17] * 18
    assert steps.score.argmax() == steps.seed[0] == 23  # first of equals


def test_a_single_patch_and_a_single_patch_box():
    assert lost(torch.ones(1, 5), (1, 1)).box.tolist() == [0, 0, 1, 1]
    # nothing is similar to anything, not even to itself
    assert lost(torch.zeros(4, 5), (2, 2)).fallback
    features = torch.zeros(9, 3)
    features[:, 0] = 1
    features[4] = torch.tensor([-1.0, 1.0, 0.0])  # similar to none
    steps = lost(features, (3, 3))
    assert steps.box.tolist() == [1, 1, 2, 2]
    assert not steps.fallback


def test_normalisations_are_what_their_names_say():
    features = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))
    x = features.numpy().astype(np.float64)
    y = x - x.mean(axis=1, keepdims=True)
    expected = {
        "none": x,
        "l2": x / np.linalg.norm(x, axis=-1, keepdims=True),
        "centre+l2": y / np.linalg.norm(y, axis=-1, keepdims=True),
    }
    for name, z in expected.items():
        assert np.allclose(prepared(features, name).numpy(), z, atol=1e-6)
    with pytest.raises(ValueError, match="normalisation = 'l1': must be one of none, l2"):
        prepared(features, "l1")


def test_a_bias_shifts_every_entry_and_several_share_one_matrix():
    x = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(2))
    several = degrees(x, [0.0, 1e6, -1e6, 0.7])
    assert several[1].tolist() == [[11] * 12]
    assert several[2].tolist() == [[0] * 12]
    for number, bias in ((0, 0.0), (3, 0.7)):
        matrix = (x[0] @ x[0].T + bias).fill_diagonal_(0)
        expected = (matrix > 0).sum(1).tolist()
        assert several[number, 0].tolist() == expected
        assert lost(x, (3, 4), bias=bias).degree[0].tolist() == expected


def test_boxes_in_pixels_end_at_the_unpadded_image():
    boxes = to_pixels(np.array([[0, 0, 3, 2], [2, 1, 3, 2]]), 16, np.array([[40, 30], [48, 32]]))
    assert boxes.tolist() == [[0, 0, 40, 30], [32, 16, 48, 32]]


@pytest.mark.parametrize(
    ("features", "k", "message"),
    [
        (torch.zeros(5, 3), 100, r"features of shape \(1, 5, 3\): must be"),
        (torch.zeros(6, 3), 0, "k = 0: must be an integer of at least 1"),
        (torch.full((6, 3), torch.nan), 100, "NaN"),
    ],
)
def test_bad_input_is_one_clear_line(features, k, message):
    with pytest.raises(ValueError, match=message):
        lost(features, (2, 3), k=k)
