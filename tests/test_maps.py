"""Maps: right patch, right query, right sign."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import FakeDataset, fake_backbone

from registers.evals import maps as question
from registers.evals.maps import components, image_maps, maps_of
from registers.files import write_arrays
from registers.readers.evaluation_set import EvaluationSet
from registers.tokens import Capture, capture, write_bank

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data():
    return FakeDataset(images=4, outliers=0.15, seed=2)


def test_norm_maps_show_the_planted_outliers(data):
    maps = image_maps(fake_backbone(), [data[i].image for i in range(4)], size=16)
    norms = maps["norms"].reshape(4, 16)
    assert data.marks.any()
    np.testing.assert_array_equal(norms > 5 * np.median(norms), data.marks)


def test_pictures_are_kept_as_the_backbone_saw_them(data):
    maps = image_maps(fake_backbone(), [data[0].image], size=16, names=["a"])
    np.testing.assert_array_equal(maps["rgb"][0], np.asarray(data[0].image))
    assert maps["names"].tolist() == ["a"]
    assert maps["backbone"] == "dinov2-r0-s0"


def test_shapes_above_the_training_resolution(data):
    image = data[0].image.resize((32, 32))
    backbone = fake_backbone(registers=2)
    last = backbone.vit.blocks[-1]
    last.forward = type(last).forward.__get__(last)  # any size: no planted last step
    maps = image_maps(backbone, [image, image], size=32)
    assert maps["queries"].tolist() == ["cls", "reg0", "reg1", "patch"]
    assert maps["attention"].shape == (2, 4, 8, 8)
    assert maps["heads"].shape == (2, 2, 8, 8)
    assert maps["prefix_norms"].shape == (2, 3)
    assert maps["components"].shape == (2, 3, 8, 8)
    assert maps["rgb"].shape == (2, 32, 32, 3)


def test_each_query_attends_where_it_was_told():
    """q of [CLS], of a register and of the central patch each equal the key of one patch.

    Head 1 looks elsewhere than head 0 from [CLS].
    """
    k = torch.eye(8)[None, None].repeat(1, 2, 1, 1) * 40  # (1, H 2, N 8, d 8)
    q = torch.zeros(1, 2, 8, 8)
    planted = [(0, 0, 2), (1, 0, 7), (0, 1, 4), (1, 1, 4), (0, 6, 5), (1, 6, 5)]
    for head, query, token in planted:  # patch p is token 2 + p
        q[0, head, query, token] = 40
    outputs = torch.randn(1, 8, 5)
    captured = Capture(torch.rand(1, 1, 8), outputs, q, k, k, outputs)
    maps = maps_of(captured, outputs, registers=1, grid=(2, 3))
    # the patch at row 1, column 1 is number 4, token 6
    assert maps["queries"].tolist() == ["cls", "reg0", "patch"]
    head0, head1 = maps["heads"][0]
    assert head0[0, 0] == pytest.approx(1)
    assert head1[1, 2] == pytest.approx(1)
    cls, register, patch = maps["attention"][0]
    assert cls[0, 0] == pytest.approx(0.5)
    assert cls[1, 2] == pytest.approx(0.5)
    assert register[0, 2] == pytest.approx(1)
    assert patch[1, 0] == pytest.approx(1)


def test_components_are_whitened_and_find_the_planted_direction():
    rng = np.random.default_rng(0)
    planted = np.zeros((5, 5))
    planted[1:4, 1:4] = 1
    direction = rng.normal(size=12)
    x = 30 * planted.reshape(25, 1) * direction + 0.01 * rng.normal(size=(25, 12)) + 100
    maps = components(x, (5, 5))
    flat = maps.reshape(3, 25)
    np.testing.assert_allclose(flat.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(flat.var(1), 1, rtol=1e-4)
    np.testing.assert_allclose(flat @ flat.T / 25, np.eye(3), atol=1e-4)
    # the sign: the border below, whatever the direction's
    assert (maps[0][planted > 0] > 0).all()
    assert (maps[0][planted == 0] < 0).all()
    np.testing.assert_allclose(components(-x, (5, 5))[0], maps[0], atol=1e-4)


def test_components_beyond_the_rank_are_zero():
    x = np.arange(9.0)[:, None] * np.ones(4)
    maps = components(x, (3, 3))
    assert np.abs(maps[0]).max() > 1
    assert not maps[1:].any()
    assert not components(np.ones((9, 4)), (3, 3)).any()


def test_a_bank_and_maps_show_the_same_attention(tmp_path, data):
    backbone = fake_backbone(registers=1)
    bank = write_bank(
        tmp_path / "bank", backbone, data, images=4, sample=1, batch=1, size=16, progress=False
    )
    maps = image_maps(backbone, [data[i].image for i in range(4)], size=16)
    mean = maps["attention"].mean(0).reshape(3, 16)
    np.testing.assert_allclose(bank.mean_attention, mean, atol=1e-5)
    captured = capture(backbone, data.batch())
    together = maps_of(captured, backbone.vit.norm(captured.outputs), 1, (4, 4))
    np.testing.assert_allclose(together["attention"], maps["attention"], atol=1e-5)


def test_measure_has_a_row_for_each_query_and_image(data):
    settings = SimpleNamespace(maps=SimpleNamespace(images=3, size=16))
    evaluation = EvaluationSet.of("fake", None, data)
    measured = question.measure(fake_backbone(registers=1), [evaluation], settings)
    uniform = [row for row in measured.rows if row.metric == "attention_over_uniform"]
    assert {(row.at, row.token) for row in uniform} == {
        (image, token) for image in range(3) for token in ("cls", "reg0", "patch")
    }
    for row in measured.rows:
        assert (row.question, row.data, row.layer) == ("maps", "fake", 2)
        assert (row.coordinate, row.n) == ("image", 16)
    attention = measured.arrays["attention"][1, 0]
    (row,) = (row for row in uniform if (row.at, row.token) == (1, "cls"))
    assert row.value == pytest.approx(attention.max() / attention.sum() * 16)


def test_saved_maps_come_back(tmp_path, data):
    maps = image_maps(fake_backbone(), [data[0].image], size=16)
    write_arrays(tmp_path / "deep" / "maps.npz", maps)
    with np.load(tmp_path / "deep" / "maps.npz") as loaded:
        assert set(loaded) == set(maps)
        np.testing.assert_array_equal(loaded["norms"], maps["norms"])


def test_bad_sizes_are_named(data):
    with pytest.raises(ValueError, match=r"at size 18: must be .* a multiple of the patch, 4"):
        image_maps(fake_backbone(), [data[0].image], size=18)
    with pytest.raises(ValueError, match="2 names for 1 images"):
        image_maps(fake_backbone(), [data[0].image], size=16, names=["a", "b"])
