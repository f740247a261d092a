"""What segmentation and depth share: feature maps, their cache, transforms, pictures."""

import numpy as np
import pytest
import torch
from fakes import fake_backbone
from PIL import Image
from torch.nn import functional as F

from registers.data.sample import Sample
from registers.evals.dense import feature_maps, picture_arrays, warmup_factor
from registers.evals.dense_transforms import (
    centre,
    colour_jitter,
    depth_example,
    photometric,
    resized,
    segmentation_example,
)
from registers.evals.feature_cache import FeatureCache

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@pytest.fixture(scope="module")
def backbone():
    return fake_backbone(registers=1)


def as_pixels(image: Image.Image) -> torch.Tensor:
    """(3, H, W) in 0..1: normalisation by nothing."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


# --- feature maps


def test_padding_is_on_all_sides_and_taken_off_again(backbone):
    image = torch.zeros(1, 3, 10, 14)
    image[..., :5, :] = 1
    maps = feature_maps(backbone, image, normed=True)
    assert maps.patches.shape[2:] == (3, 4)
    assert maps.pad == (1, 1)
    rows = torch.arange(3.0).view(1, 1, 3, 1).expand(-1, -1, -1, 4)
    pixels = maps.to_pixels(rows, (10, 14))
    padded = F.interpolate(rows, (12, 16), mode="bilinear", align_corners=False)
    assert torch.equal(pixels, padded[..., 1:11, 1:15])


def test_normed_and_raw_features_differ_by_the_final_norm(backbone):
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    normed = feature_maps(backbone, image, True)
    raw = feature_maps(backbone, image, False)
    patches = backbone.vit.norm(raw.patches.permute(0, 2, 3, 1))
    assert torch.allclose(patches, normed.patches.permute(0, 2, 3, 1), atol=1e-5)
    assert torch.allclose(backbone.vit.norm(raw.cls), normed.cls, atol=1e-5)


def test_cached_rows_come_back():
    cache = FeatureCache()
    patches = torch.randn(5, 3, 2, 2).half()
    truths = torch.randint(0, 9, (5, 4), dtype=torch.uint8)
    for part in (slice(0, 2), slice(2, 5)):
        cache.append(patches[part], truths[part])
    assert len(cache) == 5
    rows = [4, 0, 0, 2]
    cached_patches, cached_truths = cache[rows]
    assert torch.equal(cached_patches, patches[rows])
    assert torch.equal(cached_truths, truths[rows])
    with pytest.raises(ValueError, match="must be as the first"):
        cache.append(patches[:, :1], truths)


def test_warm_up_is_mmcvs():
    assert warmup_factor(0, 10, 1e-3) == pytest.approx(1e-3)
    assert warmup_factor(5, 10, 0.0) == 0.5
    assert warmup_factor(10, 10, 0.1) == 1
    assert warmup_factor(0, 0, 0.1) == 1


# --- transforms


def fields() -> tuple[Image.Image, np.ndarray]:
    """80 x 60 pixels in 12 fields; the truth of each pixel is written in its colour."""
    ys, xs = np.mgrid[0:60, 0:80]
    truth = (ys // 20 * 4 + xs // 20).astype(np.uint8)
    return Image.fromarray(np.repeat((truth * 20 + 10)[..., None], 3, axis=2)), truth


@pytest.mark.parametrize("seed", range(20))
def test_augmentation_moves_pixels_and_depth_together(seed):
    image, truth = fields()
    depth = truth.astype(np.float32) + 1
    rng = np.random.default_rng(seed)
    pixels, cropped = depth_example(image, depth, (30, 40), as_pixels, rng)
    assert pixels.shape == (3, 30, 40)
    assert cropped.shape == (30, 40)
    assert cropped.dtype == np.float32
    assert np.corrcoef(pixels.mean(0).numpy().ravel(), cropped.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("seed", range(20))
def test_augmentation_moves_pixels_and_mask_together(seed):
    image, truth = fields()
    rng = np.random.default_rng(seed)
    pixels, mask = segmentation_example(image, truth, 60, 48, as_pixels, rng)
    assert pixels.shape == (3, 48, 48)
    assert mask.shape == (48, 48)
    assert mask.dtype == np.uint8
    level = pixels.mean(0).numpy()
    classes = np.setdiff1d(mask, [255])
    means = [level[mask == c].mean() for c in classes]
    assert np.corrcoef(means, classes)[0, 1] > 0.9
    assert (level[mask == 255] == 0).all()


def test_no_two_seeds_give_the_same_example_and_one_seed_always_does():
    image, truth = fields()
    depth = truth.astype(np.float32) + 1

    def pixels(seed: int) -> torch.Tensor:
        return depth_example(image, depth, (30, 40), as_pixels, np.random.default_rng(seed))[0]

    state = torch.get_rng_state()
    assert torch.equal(pixels(3), pixels(3))
    assert not torch.equal(pixels(3), pixels(4))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("distort", [photometric, colour_jitter])
def test_colours_change_and_stay_in_range(distort):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    distorted = [np.asarray(distort(image, np.random.default_rng(seed))) for seed in range(12)]
    assert all(x.shape == (16, 16, 3) and x.dtype == np.uint8 for x in distorted)
    assert sum((x != pixels).any() for x in distorted) >= 8


def test_a_slim_picture_stays_small():
    """mmseg's img_scale: the long side is at most 4 times the short side that was asked for."""
    assert resized(Image.new("RGB", (1, 5000)), 512).size == (1, 2048)
    assert resized(Image.new("RGB", (100, 400)), 16).size == (16, 64)
    assert resized(Image.new("RGB", (100, 401)), 16).size == (16, 64)
    assert resized(Image.new("RGB", (30, 20)), 40).size == (60, 40)
    assert resized(Image.new("RGB", (7, 900)), 0).size == (7, 900)
    assert resized(Image.new("RGB", (1, 1)), 8).size == (8, 8)
    assert resized(Image.new("RGB", (3, 6)), 0).size == (3, 6)


def test_small_pictures_are_padded_with_unknown():
    pixels, mask = centre(torch.ones(3, 1, 1), np.zeros((1, 1), np.uint8), (2, 3))
    assert mask.tolist() == [[0, 255, 255], [255, 255, 255]]
    assert pixels.sum() == 3
    _, depth = centre(torch.ones(3, 1, 1), np.ones((1, 1), np.float32), (1, 2))
    assert depth.tolist() == [[1, 0]]


# --- pictures


def test_pictures_keep_their_shape_and_their_values():
    """A large photo is shrunk to 512 pixels; no value appears that was not there, none moves."""
    mask = np.repeat(np.array([0, 7, 255], np.uint8), 400)[None].repeat(600, 0)
    big = Sample(Image.new("RGB", (1200, 600)), name="big", mask=mask)
    small = Sample(Image.new("RGB", (30, 50)), name="small", mask=np.zeros((50, 30), np.uint8))
    depth = np.linspace(0, 9, mask.size, dtype=np.float32).reshape(mask.shape)
    pictures = [(big, mask, depth), (small, small.mask, small.mask)]
    arrays = picture_arrays(pictures, "dinov2-r0-s0", data="x")
    assert arrays["data"] == "x"
    assert arrays["0_rgb"].shape == (256, 512, 3)
    assert arrays["1_rgb"].shape == (50, 30, 3)
    assert arrays["0_truth"].shape == arrays["0_predicted"].shape == (256, 512)
    assert set(np.unique(arrays["0_truth"])) == {0, 7, 255}
    assert arrays["0_truth"][128, [80, 256, 430]].tolist() == [0, 7, 255]
    assert np.isin(arrays["0_predicted"], depth).all()
