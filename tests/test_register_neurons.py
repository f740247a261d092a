"""Which neurons are moved to test-time registers, and how many of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from registers.audit import register_neurons
from registers.audit.errors import AuditError
from registers.audit.register_neurons import PUBLISHED, fewest, standing_out


@pytest.mark.parametrize("needed", [1, 2, 5, 8, 13])
def test_the_fewest_neurons_that_do_are_taken(needed):
    ranked = tuple((1, neuron) for neuron in range(20))
    assert (
        fewest(ranked, lambda some: 0.0 if len(some) >= needed else 0.05, 0.05) == (ranked[:needed])
    )


def test_neurons_that_leave_most_outliers_are_not_moved():
    ranked = tuple((1, neuron) for neuron in range(6))
    assert len(fewest(ranked, lambda some: 0.05 - 0.005 * len(some), 0.05)) == 6
    with pytest.raises(AuditError, match=r"they leave 4\.0 % of patches as outliers, of 5\.0 %"):
        fewest(ranked, lambda some: 0.04, 0.05)
    with pytest.raises(AuditError, match="no neuron is twice as active"):
        fewest((), lambda some: 0.0, 0.05)


def test_an_outlier_that_only_sank_below_the_cutoff_still_stands_out():
    norms = np.full((1, 10), 10.0)
    mask = np.zeros((1, 10), bool)
    mask[0, :2] = True
    norms[0, 0] = 60  # was 200: below the cut-off of 100, and six times the others
    assert standing_out(norms, mask, 100.0) == 0.1
    norms[0, 9] = 150  # a new one
    assert standing_out(norms, mask, 100.0) == 0.2


@pytest.mark.parametrize(
    ("name", "layer", "highest", "top"),
    [
        ("vit_large_patch14_dinov2.lvd142m", 23, 18, 50),
        ("dinov2_vitl14", 23, 18, 50),
        ("vit_base_patch16_clip_224.openai", 24, 6, 10),
        ("open_clip:ViT-B-16/laion2b_s34b_b88k", 24, 6, 10),
        ("hf-hub:timm/vit_large_patch14_clip_224.laion2b@abc", 23, 15, None),
    ],
)
def test_the_authors_settings_are_used_for_their_models(name, layer, highest, top):
    """Layers counted from 1; 24 stands for the last."""
    norms = np.full((2, 8), 200.0)
    bank = SimpleNamespace(
        card=SimpleNamespace(name=name), layers=24, patch_norms=lambda layer: norms
    )
    chosen = register_neurons.choice(bank, [], None)
    assert (chosen.layer, chosen.highest, chosen.top) == (layer, highest, top)
    norms[:] = 5
    with pytest.raises(AuditError, match="nothing to move: no patch has a norm above"):
        register_neurons.choice(bank, [], None)


def test_every_published_setting_says_where_it_is_from():
    assert all(row.source.startswith("nickjiang2378/test-time-registers") for row in PUBLISHED)
