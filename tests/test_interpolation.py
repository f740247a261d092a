"""Fig. 11: gradients through the bicubic resize, against exact values (protocols, section 3.11)."""

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from registers.exact import interpolation
from registers.exact.interpolation import MODES, gradient, profile, resize
from registers.settings.load import load_settings

HALF = [0.341, 0.766, -0.050, 0.989, -0.145, 0.909, 0.124, 0.567]
GOLDEN = {
    "size": HALF + HALF[::-1],
    "offset": [
        *(0.358, 0.742, -0.001, 0.970, -0.145, 0.963, 0.015, 0.723),
        *(0.381, 0.336, 0.760, -0.016, 0.976, -0.144, 0.955, 0.126),
    ],
}


@pytest.mark.parametrize("mode", GOLDEN)
def test_golden_profiles(mode):
    assert profile(mode).tolist() == pytest.approx(GOLDEN[mode], abs=6e-4)


def test_antialiasing_makes_it_flat():
    flat = profile("size+aa")
    assert flat.min() >= 0.36
    assert flat.max() < 0.495
    extremes = {m: [float(gradient(m).min()), float(gradient(m).max())] for m in MODES}
    assert extremes["size"] == pytest.approx([-0.144, 0.978], abs=1e-3)
    assert extremes["size+aa"] == pytest.approx([0.130, 0.242], abs=1e-3)


def test_the_stripes_have_the_period_of_the_resize():
    """16 positions are read at steps of 16 / 7.

    Without antialiasing the spectrum peaks at 7 cycles; with it there is no peak.
    """

    def power(mode: str) -> torch.Tensor:
        return torch.fft.rfft(profile(mode) - profile(mode).mean()).abs()

    assert int(power("size").argmax()) == 7
    assert power("size")[7] > 20 * power("size+aa")[7]


@pytest.mark.parametrize("mode", MODES)
def test_gradient_is_separable_and_sums_to_the_outputs(mode):
    g = gradient(mode)
    p = profile(mode)
    assert torch.allclose(g, torch.outer(p, p), atol=1e-12)
    assert float(g.sum()) == pytest.approx(49)
    one_at_a_time = torch.eye(256).double().view(256, 1, 16, 16)  # by definition
    finite = resize(one_at_a_time, 7, mode).sum((1, 2, 3))
    assert torch.allclose(finite.view(16, 16), g, atol=1e-12)


def test_the_mode_used_in_training_is_size_with_antialiasing():
    x = torch.randn(1, 1, 16, 16)
    position = resample_abs_pos_embed(x.flatten(2).transpose(1, 2), [7, 7], [16, 16], 0)
    assert torch.allclose(resize(x, 7, "size+aa").flatten(2).transpose(1, 2), position, atol=1e-6)
    with pytest.raises(ValueError, match="mode: nearest is not allowed; must be one of offset, si"):
        resize(x, 7, "nearest")


def test_rows():
    rows = interpolation.measure(None, [], load_settings({"scale": "laptop"})).rows
    grids = {row.data for row in rows if row.metric == "unevenness"}
    assert grids == {"16 to 7", "dinov2: 8 to 4", "dino: 8 to 4"}
    assert len(rows) == 3 * (256 + 16 + len(grids))
    assert {r.variant for r in rows} == set(MODES)
    assert {r.question for r in rows} == {"interpolation"}
    assert {r.coordinate for r in rows if r.metric != "unevenness"} == {"position"}
    values = {(r.variant, r.metric, r.at): r.value for r in rows}
    assert values["size", "gradient", 16 * 3 + 3] == pytest.approx(0.978, abs=1e-3)


@pytest.mark.parametrize("source, target", [(16, 7), (14, 6), (8, 3)])
def test_without_antialiasing_weights_are_uneven(source, target):
    for mode in ("offset", "size"):
        assert interpolation.unevenness(mode, source, target) > 2
    assert interpolation.unevenness("size+aa", source, target) < 0.1


def test_an_exact_half_is_even_but_for_the_offset():
    """Scale laptop's grids, 8 to 4: only the official offset, which `noaa` has, makes stripes."""
    assert interpolation.unevenness("size", 8, 4) == pytest.approx(0, abs=1e-12)
    assert interpolation.unevenness("offset", 8, 4) == pytest.approx(0.707, abs=1e-3)
