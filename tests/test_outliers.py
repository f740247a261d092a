"""Outliers: planted second modes are found, one-mode norms of any shape give "no second mode"."""

import numpy as np
import pytest
import torch

from registers.norm_statistics import statistics
from registers.outliers import find_cutoff, high_norm_tail

IMAGES, PATCHES = 128, 196


def planted(
    ratio: float, share: float, seed: int = 0, sigma: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal norms around 40, a share of them `ratio` times higher, and where: both (B, P)."""
    rng = np.random.default_rng(seed)
    mask = rng.random((IMAGES, PATCHES)) < share
    norms = 40 * np.exp(sigma * rng.standard_normal(mask.shape)) * np.where(mask, ratio, 1)
    return norms, mask


ONE_MODE = {
    "normal": lambda rng, n: np.abs(40 + 8 * rng.standard_normal(n)),
    "log-normal": lambda rng, n: np.exp(0.5 * rng.standard_normal(n)),
    "wide log-normal": lambda rng, n: np.exp(1.0 * rng.standard_normal(n)),
    "gamma": lambda rng, n: rng.gamma(2, size=n),
    "skewed": lambda rng, n: 10 + rng.exponential(20, size=n),
    "Student t, 2 degrees": lambda rng, n: np.abs(rng.standard_t(2, size=n)),
    "Cauchy": lambda rng, n: np.abs(rng.standard_cauchy(size=n)),
    "uniform": lambda rng, n: rng.uniform(1, 5, size=n),
    "overlapping": lambda rng, n: np.exp(
        np.where(rng.random(n) < 0.15, 0.7, 0) + 0.35 * rng.standard_normal(n)
    ),
    "two close modes": lambda rng, n: (
        np.where(rng.random(n) < 0.15, 1.6, 1.0) * np.exp(0.03 * rng.standard_normal(n))
    ),
    "images differ": lambda rng, n: np.exp(
        0.4 * rng.standard_normal((n[0], 1)) + 0.1 * rng.standard_normal(n)
    ),
}


def test_one_patch_in_each_image():
    norms = 40 + torch.randn(64, 196, generator=torch.Generator().manual_seed(0))
    norms[:, 7] = 400.0
    cutoff = find_cutoff(norms)
    assert cutoff.second_mode
    assert cutoff.mask(norms).nonzero()[:, 1].unique().tolist() == [7]
    assert cutoff.share == pytest.approx(1 / 196)


PLANTED = [(3, 0.005), (3, 0.05), (5, 0.002), (5, 0.02)]
PLANTED += [(10, 0.002), (10, 0.0237), (10, 0.05), (10, 0.15)]


@pytest.mark.parametrize("ratio, share", PLANTED)
def test_planted_outliers_are_found(ratio, share):
    for seed in range(5):
        norms, mask = planted(ratio, share, seed)
        cutoff = find_cutoff(norms)
        assert cutoff.second_mode, cutoff.reason
        assert 40 < cutoff.value < 40 * ratio
        assert (cutoff.mask(norms) & mask).sum() >= 0.98 * mask.sum()
        assert (cutoff.mask(norms) & ~mask).sum() <= 0.02 * mask.sum()
        assert cutoff.share == pytest.approx(mask.mean(), rel=0.03)


@pytest.mark.parametrize("name", ONE_MODE)
def test_one_mode_has_no_outliers(name):
    """No false alarm in 200 draws per family, small banks and larger ones."""
    rng = np.random.default_rng(1)
    for trial in range(200):
        norms = ONE_MODE[name](rng, [(16, 16), (32, 64), (64, 196)][trial % 3])
        cutoff = find_cutoff(norms)
        assert not cutoff.second_mode and cutoff.value is None, (trial, cutoff)
        assert cutoff.share == 0 and not cutoff.mask(norms).any()
        assert cutoff.reason.startswith("no second mode: ")


def test_one_odd_image_is_no_second_mode():
    norms, _ = planted(1, 0)
    norms[5, :60] *= 8  # many tokens, but of one image
    cutoff = find_cutoff(norms)
    assert not cutoff.second_mode
    assert "too few images (1 of" in cutoff.reason
    assert find_cutoff(norms.ravel()).second_mode  # without images nothing speaks against them


def bright_images(rng, bright, images, ratio=3.0):
    """Norms of images of which some are `ratio` times as bright throughout; no outlier inside."""
    norms = 40 * np.exp(0.15 * rng.standard_normal((images, PATCHES)))
    norms[:bright] *= ratio
    return norms


@pytest.mark.parametrize("bright, images", [(5, 512), (5, 128), (20, 512)])
def test_whole_bright_images_are_no_outliers(bright, images):
    """An audit's case: 28 of 30 and 30 of 30 draws were called a second mode."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        cutoff = find_cutoff(bright_images(rng, bright, images))
        assert not cutoff.second_mode
        assert "none inside them" in cutoff.reason or "too few images" in cutoff.reason


def test_outliers_are_found_beside_bright_images():
    rng = np.random.default_rng(4)
    for ratio in (5, 10):
        norms = bright_images(rng, 5, IMAGES, ratio=2.0)
        mask = rng.random(norms.shape) < 0.02
        norms *= np.where(mask, ratio, 1)
        cutoff = find_cutoff(norms)
        assert cutoff.second_mode, cutoff.reason
        assert (cutoff.mask(norms) & mask).sum() >= 0.95 * mask.sum()


@pytest.mark.parametrize("share", [0.22, 0.25, 0.3])
def test_more_than_a_fifth_are_no_outliers(share):
    """An audit's case: true shares of 22 and 25 % were called outliers in 60 of 60 draws."""
    for seed in range(20):
        assert not find_cutoff(planted(5, share, seed)[0]).second_mode


UNUSUAL = {
    "integers 1 to 6": lambda rng, n: rng.integers(1, 7, size=n).astype(float),
    "uniform contrast": lambda rng, n: (
        np.where(rng.random(n) < 0.15, rng.uniform(1, 3.5, size=n), 1.0)
        * np.exp(0.1 * rng.standard_normal(n))
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_steps_and_contrast_are_no_second_mode(name):
    """An audit's cases: 24 of 40 and 6 of 40 draws were called a second mode."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        assert not find_cutoff(UNUSUAL[name](rng, (IMAGES, PATCHES))).second_mode


@pytest.mark.parametrize("ratio, share", [(3, 0.01), (10, 0.0237)])
def test_clear_second_modes_are_found_in_forty_of_forty_draws(ratio, share):
    assert all(find_cutoff(planted(ratio, share, seed)[0]).second_mode for seed in range(40))


def test_majority_above_the_valley_is_not_a_mode_of_outliers():
    norms, mask = planted(10, 0.4)
    assert not find_cutoff(norms).second_mode
    assert mask.mean() > 0.35


def test_scale_does_not_matter():
    norms, _ = planted(6, 0.01)
    cutoff = find_cutoff(norms)
    scaled = find_cutoff(norms * 1e-3)
    assert scaled.value == pytest.approx(cutoff.value * 1e-3, rel=1e-9)
    assert scaled.share == cutoff.share


def test_torch_and_numpy_agree():
    norms, _ = planted(6, 0.01)
    single = find_cutoff(torch.from_numpy(norms).float())
    assert single.value == pytest.approx(find_cutoff(norms).value, rel=0.06)
    assert statistics(torch.from_numpy(norms)) == pytest.approx(statistics(norms), rel=1e-5)


def test_hand_picked_cutoff():
    norms, _ = planted(1, 0)
    cutoff = find_cutoff(norms, fixed=50)
    assert (cutoff.value, cutoff.method, cutoff.second_mode) == (50.0, "fixed", False)
    assert cutoff.share == pytest.approx((norms > 50).mean())
    with pytest.raises(ValueError, match="cutoff: -1 is not allowed"):
        find_cutoff(norms, fixed=-1)


def test_constant_norms_are_one_mode():
    cutoff = find_cutoff(np.full((10, 10), 3.0))
    assert not cutoff.second_mode
    assert "largest norm is 1x the median" in cutoff.reason


@pytest.mark.parametrize(
    "norms, message",
    [
        (np.ones((3, 3)), "9 values; must be at least 64"),
        (np.full((10, 10), np.nan), "100 of 100 are NaN or infinite"),
        (-np.ones((10, 10)), "smallest -1"),
        (np.zeros((10, 10)), "median 0"),
    ],
)
def test_bad_norms_are_named(norms, message):
    with pytest.raises(ValueError, match=message):
        find_cutoff(norms)


def test_high_norm_tail_is_a_quantile_under_its_own_name():
    norms, _ = planted(1, 0)
    tail = high_norm_tail(norms)
    assert tail.share == pytest.approx(0.02, abs=1e-4)
    assert tail.mask(norms).mean() == tail.share
    assert not tail.second_mode
    assert tail.method == "high-norm tail"
    with pytest.raises(ValueError, match="share: 2 is not allowed; must be a number between 0 and"):
        high_norm_tail(norms, share=2)


def test_statistics_in_closed_form():
    # mean 2, deviations -1 -1 -1 3: variance 3, fourth moment (3 + 81) / 4 = 21
    expected = {
        "median": 1,
        "max": 5,
        "max_over_median": 5,
        "kurtosis": 21 / 9,
        "share_above_3x_median": 0.25,
    }
    assert statistics(np.array([1.0, 1.0, 1.0, 5.0])) == pytest.approx(expected)
    with pytest.raises(ValueError, match="NaN"):
        statistics(np.array([1.0, np.nan]))
