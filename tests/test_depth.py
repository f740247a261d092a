"""Depth: planted truths, RMSE against torchmetrics, published head and losses in closed form."""

import numpy as np
import pytest
import torch
from bands import DEPTH, Bands, ShuffledBands
from fakes import fake_backbone
from PIL import Image
from torch.nn import functional as F
from torchmetrics.regression import MeanSquaredError

from registers.data.sample import Sample
from registers.evals.dense import FeatureMaps
from registers.evals.depth import (
    BINS,
    DepthHead,
    _rows,
    errors,
    estimate_depth,
    gradient_loss,
    predict,
    schedule,
    sig_loss,
)
from registers.settings.questions import DepthSettings

torch.set_num_threads(1)  # tiny tensors: threads only wait for each other


@pytest.fixture(scope="module")
def backbone():
    return fake_backbone(registers=1)


# --- the whole


def test_a_mirrored_image_has_the_mirrored_depth(backbone):
    """Positions break the symmetry; the mean with the mirrored image restores it."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 16, 16)
    head = DepthHead(backbone.architecture.width, 10.0).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    depth = predict(backbone, head, image)
    assert depth.std() > 1e-3
    assert torch.allclose(predict(backbone, head, image.flip(3)), depth.flip(3), atol=1e-5)


def known_depths(dataset: Bands) -> np.ndarray:
    depths = np.stack([dataset[i].depth for i in range(len(dataset))])
    return depths[depths > 0]


def test_a_planted_depth_is_measured(backbone):
    train = Bands(seed=1)
    val = Bands(24, seed=2)
    measured = estimate_depth(backbone, train, val, DEPTH, progress=False)
    rows = {row.metric: row for row in measured.rows}
    for row in rows.values():
        assert row.value < 0.1 * row.chance
        assert row.low <= row.value <= row.high
        assert row.n == 24
    constant = known_depths(train).mean()
    expected = np.sqrt(((known_depths(val) - constant) ** 2).mean())
    assert rows["rmse"].chance == pytest.approx(expected, rel=0.02)
    assert measured.arrays["0_predicted"].shape == (16, 16)


def test_shuffled_truths_cannot_be_learnt(backbone):
    train = ShuffledBands(seed=1)
    row = estimate_depth(backbone, train, ShuffledBands(24, seed=2), DEPTH, progress=False).rows[0]
    assert row.value > 0.6 * row.chance


@pytest.mark.parametrize("augment", [False, True])
def test_a_bad_file_is_counted_and_ends_nothing(backbone, augment):
    settings = DEPTH.model_copy(update=dict(iterations=3, batch=4, augment=augment))
    measured = estimate_depth(backbone, Bands(8, bad=2), Bands(8, bad=1), settings, progress=False)
    row = measured.rows[0]
    assert row.n == 7
    assert np.isfinite(row.value)
    assert ("augmented crops" in row.note) == augment


def test_no_usable_image_is_one_clear_line(backbone):
    with pytest.raises(ValueError, match="none of 1 training images can be used; the first: bands"):
        estimate_depth(backbone, Bands(1, bad=0), Bands(4), DEPTH, progress=False)


def test_one_odd_size_in_front_does_not_shape_the_training(backbone):
    class Odd(Bands):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            if index:
                return sample
            pixel = sample.image.crop((0, 0, 1, 1))
            return Sample(pixel, sample.name, depth=sample.depth[:1, :1])

    measured = estimate_depth(backbone, Odd(seed=1), Bands(24, seed=2), DEPTH, progress=False)
    assert measured.rows[0].value < 0.2 * measured.rows[0].chance


def test_eigens_crop_leaves_other_sizes_out():
    """Image 0 is of another size, image 1 is fine, image 2 is known outside the crop alone."""

    class Three(Bands):
        def __getitem__(self, index):
            size = (640, 480) if index else (64, 48)
            depth = np.full(size[::-1], 0.0 if index == 2 else 2.0, np.float32)
            depth[0] = 3
            return Sample(Image.new("RGB", size), f"three {index}", depth=depth)

    settings = DEPTH.model_copy(
        update=dict(iterations=1, batch=1, train_images=2, val_images=3, crop="eigen", size=16)
    )
    measured = estimate_depth(fake_backbone(size=16), Three(3), Three(3), settings, progress=False)
    row = measured.rows[0]
    assert row.n == 1
    reason = "three 0: depth of 64 x 48 pixels"
    assert f"2 of 3 images left out, the first: {reason}" in row.note


# --- metrics


def test_rmse_by_both_definitions():
    rng = np.random.default_rng(0)
    depths = rng.uniform(0.5, 9, (5, 6, 8)).astype(np.float32)
    predictions = rng.uniform(0.5, 9, (5, 6, 8)).astype(np.float32)
    depths[rng.random(depths.shape) < 0.3] = 0
    sums = np.array([errors(p, d, 10.0) for p, d in zip(predictions, depths)])
    pooled, by_image = _rows("dinov2-r0-s0", sums, sums, "", "")
    official = MeanSquaredError(squared=False)

    def rmse(p: np.ndarray, d: np.ndarray) -> float:
        return float(official(torch.from_numpy(p[d > 0]), torch.from_numpy(d[d > 0])))

    images = [rmse(p, d) for p, d in zip(predictions, depths)]
    assert pooled.value == pytest.approx(rmse(predictions, depths), rel=1e-6)
    assert by_image.value == pytest.approx(np.mean(images), rel=1e-6)
    assert by_image.value != pytest.approx(pooled.value, rel=1e-4)


def test_known_pixels_are_counted_in_range_and_in_eigens_crop():
    depth = np.full((480, 640), 2.0, np.float32)
    assert errors(depth + 1, depth, 10.0, "eigen") == (426 * 560, 426 * 560)
    assert errors(depth + 1, depth, 10.0) == (480 * 640, 480 * 640)
    depth[100, :] = 0
    depth[101, :] = 10.5
    assert errors(depth, depth, 10.0, "eigen") == (0, 424 * 560)
    with pytest.raises(ValueError, match=r"must be 640 x 480 with depth\.crop eigen"):
        errors(depth.T, depth.T, 10.0, "eigen")


# --- head, losses and schedule


def test_the_head_is_the_published_one():
    """As in decode_head.py: concatenate, upsample, convolve, relu + 0.1, normalise, expectation."""
    torch.manual_seed(0)
    head = DepthHead(5, 10.0)
    patches = torch.randn(2, 5, 3, 4)
    cls = torch.randn(2, 5)
    both = torch.cat([patches, cls[..., None, None].expand(-1, -1, 3, 4)], 1)
    x = F.interpolate(both, scale_factor=4, mode="bilinear", align_corners=False)
    share = head.conv(x).relu() + 0.1
    share = share / share.sum(1, keepdim=True)
    bins = torch.linspace(1e-3, 10.0, BINS)
    expected = torch.einsum("bkhw,k->bhw", share, bins)[:, None]
    assert torch.allclose(head(FeatureMaps(patches, cls, (0, 0), 4)), expected, atol=1e-5)


def test_a_factor_has_a_mean_but_no_variance_and_no_gradient():
    depth = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(0)) * 5 + 3
    mean = np.sqrt(0.15) * np.log(2)
    assert float(sig_loss(depth * 2, depth, 10.0)) == pytest.approx(mean, rel=1e-3)
    only = sig_loss(depth * 2, depth, 10.0, mean_only=True)
    assert float(only) == pytest.approx(mean, rel=1e-3)
    assert float(gradient_loss(depth * 2, depth, 10.0)) < 1e-2  # not 0: the eps of 0.001


def test_the_gradient_of_a_ramp_is_its_slope():
    """log p - log d = column / 10: neighbours two apart differ by 2 times the stride."""
    flat = torch.full((1, 1, 1, 16), 2.0)
    ramp = flat * torch.exp(0.1 * torch.arange(16.0))
    expected = sum(0.2 * s * (n - 2) / n for s, n in ((1, 16), (2, 8), (4, 4), (6, 3)))
    assert float(gradient_loss(ramp, flat, 10.0)) == pytest.approx(expected, rel=5e-3)


def test_unknown_pixels_do_not_count():
    depth = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(0)) * 5 + 3
    unknown = depth.clone()
    unknown[0, 0, 0, 0] = 0
    wild = depth.clone()
    wild[0, 0, 0, 0] = 9.9
    assert float(sig_loss(wild, unknown, 10.0)) == 0
    assert float(gradient_loss(wild, unknown, 10.0)) == 0


@pytest.mark.parametrize("mean_only", [False, True])
@pytest.mark.parametrize("known", range(3))
def test_depth_that_is_nearly_unknown_costs_nothing_and_spoils_nothing(known, mean_only):
    predicted = torch.ones(1, 1, 8, 8, requires_grad=True)
    depth = torch.zeros(1, 1, 8, 8)
    depth[0, 0, 0, :known] = 2.0 + torch.arange(known)
    value = sig_loss(predicted, depth, 10.0, mean_only) + gradient_loss(predicted, depth, 10.0)
    (gradient,) = torch.autograd.grad(value, predicted)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert (value > 0) == (known > 1)


def test_rate_and_momentum_follow_one_cycle():
    settings = DepthSettings(iterations=100, warmup=0, lr=1.0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rate = {}
    beta = {}
    for step in (0, 15, 30, 50, 65, 100):
        schedule(optimizer, step, settings)
        rate[step] = optimizer.param_groups[0]["lr"]
        beta[step] = optimizer.param_groups[0]["betas"][0]
    assert [rate[0], rate[50], rate[100]] == pytest.approx([1.0, 0.5, 1e-8])
    expected = [0.95, 0.9, 0.85, 0.9, 0.95]
    assert [beta[step] for step in (0, 15, 30, 65, 100)] == pytest.approx(expected)
