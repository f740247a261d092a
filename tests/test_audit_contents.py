"""The audit tells a store of the image from a constant, and says why where it cannot."""

import json
from dataclasses import replace

import numpy as np
import planted_vit
import pytest
import torch
from planted_vit import WRITER

from registers.audit import watch
from registers.audit.api import outliers, tokens
from registers.audit.contents import LEAST_IMAGES, contents
from registers.audit.errors import AuditError
from registers.audit.examine import examine
from registers.audit.watched import ModelCard, watch_features
from registers.components import components


@pytest.fixture(scope="module")
def planted():
    """The bank of a DINOv2 with four registers, its verdict and where the flat patches are."""
    model = planted_vit.build("dinov2 reg4")
    pixels, mask = planted_vit.images(model)
    bank = tokens(planted_vit.plant(model, pixels, mask), pixels)
    return bank, outliers(bank), mask


def held_by(images, each, store=False):
    """The audit of features with so many outliers in every image, of ten times the norm: a vector
    of each image, or one for all images."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((images, 1 + 64, 32))
    large = 10 * rng.standard_normal((images if store else 1, 32))
    features[:, 7 : 7 + each] += large[:, None]
    return examine(watch_features(ModelCard("planted"), features, ("[CLS]",)))


def sentence(audit):
    (line,) = [line for line in audit.sentences() if line.startswith("what they hold")]
    return line


@pytest.mark.parametrize("store", [True, False])
def test_a_store_is_told_from_a_constant(store):
    found = held_by(40, 3, store)
    held = found.contents.outliers
    # of the mean square, the vector has nearly 100 / 101
    assert held.image == pytest.approx(100 / 101 if store else 0, abs=0.05)
    assert held.constant == pytest.approx(0 if store else 100 / 101, abs=0.05)
    assert found.contents.others.own == pytest.approx(1, abs=0.01)
    told = ("0", "0", "100", "0", "1", "100") if store else ("99", "0", "0", "0", "1", "100")
    assert sentence(found) == (
        "what they hold, after layer 1 (120 outliers in 40 images): of their mean square {} % "
        "(other patches: {} %) is the same in all images, {} % (other patches: {} %) is shared by "
        "the outliers of one image but not by those of others, and {} % (other patches: {} %) is "
        "each outlier's own"
    ).format(*told)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))["contents"]
    assert written["layer"] == 1 and written["note"] == ""
    assert written["outliers"]["constant"] == held.constant
    assert (written["outliers"]["images"], written["outliers"]["tokens"]) == (40, 120)
    assert written["others"]["tokens"] == 40 * 61


def test_estimates_beyond_0_and_1_are_printed_as_0_and_100():
    found = held_by(40, 3)
    off = replace(found.contents.outliers, constant=-0.02, image=1.04, own=-0.02)
    printed = sentence(replace(found, contents=replace(found.contents, outliers=off, others=None)))
    assert "of their mean square 0 % is the same in all images, 100 % is shared" in printed
    assert "and 0 % is each outlier's own" in printed


def test_one_outlier_in_each_image_has_a_constant_and_no_more():
    """As massive activations often are: its own and its image's are one."""
    found = held_by(24, 1)
    held = found.contents.outliers
    assert held.constant == pytest.approx(100 / 101, abs=0.05)
    assert held.image is None and held.own is None and found.contents.others.own > 0.9
    assert sentence(found) == (
        "what they hold, after layer 1 (24 outliers in 24 images): of their mean square 99 % "
        "(other patches: 0 %) is the same in all images; of the rest it cannot be told what one "
        "image shares: two outliers or more are in 0 images, and at least 10 are needed"
    )
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))["contents"]
    assert written["outliers"]["image"] is None and written["note"] == found.contents.note


def test_outliers_of_few_images_have_no_shares():
    assert held_by(LEAST_IMAGES, 3).contents.outliers.images == LEAST_IMAGES
    found = held_by(LEAST_IMAGES - 1, 3)
    assert found.verdict.outliers and found.contents is None
    reason = "cannot be told: outliers are in 9 images, and at least 10 are needed"
    assert found.contents_note == found.to_dict()["contents"] == reason
    assert sentence(found) == f"what they hold: {reason}"


def test_images_of_which_one_has_most_outliers_count_as_few():
    """51 outliers in one image and one in each of 19 weigh as 70^2 / (51^2 + 19) images."""
    bank = held_by(20, 3).bank
    mask = np.zeros((20, 64), bool)
    mask[:, 6] = mask[0, :51] = True
    with pytest.raises(AuditError, match=r"in 20 images but unevenly, as if in 1\.9, and at least"):
        contents(bank, replace(outliers(bank), mask=mask))


# --- of which layer ----------------------------------------------------------------------------


def test_the_stream_after_a_layer_has_the_norms_of_that_layer(planted):
    bank, _, _ = planted
    for layer in range(1, bank.layers + 1):
        stream = watch.stream(bank.anatomy, bank.images.pixels, layer)
        np.testing.assert_allclose(stream.norm(dim=-1), bank.norms[:, layer - 1], rtol=1e-4)


def test_what_outliers_hold_is_asked_of_the_layer_that_tells_them(planted):
    """Where they stand out inside, tokens of that layer are looked at again."""
    bank, verdict, mask = planted
    held = contents(bank, replace(verdict, layer=WRITER + 1))
    assert held.layer == WRITER + 1 and held.outliers.constant > 0.95
    stream = watch.stream(bank.anatomy, bank.images.pixels, WRITER + 1)
    patches = stream[:, len(bank.layout.prefix) :][torch.from_numpy(mask)]
    again = components(patches.numpy(), mask.nonzero()[0])
    assert held.outliers.constant == pytest.approx(again.constant, abs=1e-5)
    assert held.outliers.own == pytest.approx(again.own, abs=1e-5)


def test_features_of_outliers_inside_say_that_the_model_is_needed():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 20, 1 + 64, 32))
    features[0, :, 7:10] *= 10
    found = examine(watch_features(ModelCard("planted"), features, ("[CLS]",)))
    assert found.verdict.layer == 1 and found.contents is None
    reason = "tokens of inner layers are not kept of features; give the model"
    assert found.contents_note == found.to_dict()["contents"] == reason
    assert sentence(found) == f"what they hold: {reason}"


class OnMps(torch.Tensor):
    """A tensor of a device without double precision; `cpu` brings it back."""

    def double(self):
        raise TypeError("the MPS framework doesn't support float64")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_a_device_without_double_precision_is_enough(planted, monkeypatch):
    bank, verdict, _ = planted
    inside = replace(verdict, layer=WRITER + 1)
    expected = contents(bank, inside)
    stream = watch.stream
    monkeypatch.setattr(watch, "stream", lambda *of: stream(*of).as_subclass(OnMps))
    assert contents(bank, inside) == expected
