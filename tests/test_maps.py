"""Maps: right patch, right query, right sign."""

import numpy as np
import pytest
import torch
from fakes import MEAN, STD, FakeDataset, fake_backbone

from registers.evals.maps import bank_maps, components, image_maps, maps_of, save_maps
from registers.tokens import Capture, capture, write_bank

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data():
    return FakeDataset(images=4, outliers=0.15, seed=2)


def test_norm_maps_show_the_planted_outliers(data):
    maps = image_maps(fake_backbone(), [data[i].image for i in range(4)], MEAN, STD, size=16)
    norms = maps["norms"].reshape(4, 16)
    assert norms.shape == (4, 16) and data.marks.any()
    np.testing.assert_array_equal(norms > 5 * np.median(norms), data.marks)


def test_pictures_are_kept_as_seen(data):
    maps = image_maps(fake_backbone(), [data[0].image], MEAN, STD, size=16, names=["a"])
    np.testing.assert_array_equal(maps["rgb"][0], np.asarray(data[0].image))
    assert maps["names"].tolist() == ["a"] and maps["backbone"] == "dinov2-r0-s0"


def test_shapes_above_the_training_resolution(data):
    image = data[0].image.resize((32, 32))
    vit = fake_backbone(registers=2)
    vit.vit.blocks[-1].forward = type(vit.vit.blocks[-1]).forward.__get__(
        vit.vit.blocks[-1]
    )  # any size: no planted last step
    maps = image_maps(vit, [image, image], MEAN, STD, size=32)
    assert maps["queries"].tolist() == ["cls", "reg0", "reg1", "patch"]
    assert maps["attention"].shape == (2, 4, 8, 8) and maps["heads"].shape == (2, 2, 8, 8)
    assert (
        maps["prefix_norms"].shape == (2, 3)
        and maps["components"].shape == (2, 3, 8, 8)
        and maps["rgb"].shape == (2, 32, 32, 3)
    )


def test_each_query_attends_where_it_was_told():
    """q of [CLS], of a register and of the central patch each equal the key of one patch; head 1 looks elsewhere than head 0."""
    registers, grid = 1, (2, 3)
    k = torch.eye(8)[None, None].repeat(1, 2, 1, 1) * 40  # (1, H 2, N 8, d 8)
    q = torch.zeros(1, 2, 8, 8)
    for head, query, token in (
        (0, 0, 2),
        (1, 0, 7),
        (0, 1, 4),
        (1, 1, 4),
        (0, 6, 5),
        (1, 6, 5),
    ):  # patch p is token 2 + p
        q[0, head, query, token] = 40
    outputs = torch.randn(1, 8, 5)
    maps = maps_of(Capture(torch.rand(1, 1, 8), outputs, q, k, k, outputs), registers, grid)
    assert maps["queries"].tolist() == [
        "cls",
        "reg0",
        "patch",
    ]  # the patch at row 1, column 1: number 4, token 6
    head0, head1 = maps["heads"][0]
    assert head0[0, 0] == pytest.approx(1) and head1[1, 2] == pytest.approx(1)
    cls, reg, patch = maps["attention"][0]
    assert cls[0, 0] == pytest.approx(0.5) and cls[1, 2] == pytest.approx(0.5)
    assert reg[0, 2] == pytest.approx(1) and patch[1, 0] == pytest.approx(1)


def test_components_are_whitened_and_find_the_planted_direction():
    rng = np.random.default_rng(0)
    planted = np.zeros((5, 5))
    planted[1:4, 1:4] = 1
    direction = rng.normal(size=12)
    x = 30 * planted.reshape(25, 1) * direction + 0.01 * rng.normal(size=(25, 12)) + 100
    found = components(x, (5, 5))
    np.testing.assert_allclose(found.reshape(3, 25).mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(found.reshape(3, 25).var(1), 1, rtol=1e-4)
    np.testing.assert_allclose(
        found.reshape(3, 25) @ found.reshape(3, 25).T / 25, np.eye(3), atol=1e-4
    )
    assert (found[0][planted > 0] > 0).all() and (
        found[0][planted == 0] < 0
    ).all()  # the sign: border below, whatever the direction's
    np.testing.assert_allclose(components(-x, (5, 5))[0], found[0], atol=1e-4)


def test_components_beyond_the_rank_are_zero():
    x = np.arange(9.0)[:, None] * np.ones(4)
    found = components(x, (3, 3))
    assert np.abs(found[0]).max() > 1 and not found[1:].any()
    assert not components(np.ones((9, 4)), (3, 3)).any()


def test_bank_and_backbone_give_the_same_maps(tmp_path, data):
    backbone = fake_backbone(registers=1)
    look = dict(
        images=4, sample=3, batch=1, size=16, mean=MEAN, std=STD, dtype="float32", progress=False
    )
    bank = write_bank(tmp_path / "bank", backbone, data, **look)
    ours, direct = (
        bank_maps(bank, 3),
        image_maps(backbone, [data[i].image for i in range(3)], MEAN, STD, size=16),
    )
    for key in ("attention", "heads", "norms", "prefix_norms", "components"):
        np.testing.assert_allclose(ours[key], direct[key], atol=2e-3, err_msg=key)
    rows = np.concatenate(
        [maps_of(capture(backbone, data.batch(i, i + 1)), 1, (4, 4))["attention"] for i in range(4)]
    )
    np.testing.assert_allclose(ours["mean_attention"], rows.mean(0), atol=1e-5)
    with pytest.raises(ValueError, match="count = 4"):
        bank_maps(bank, 4)


def test_saved_maps_come_back(tmp_path, data):
    maps = image_maps(fake_backbone(), [data[0].image], MEAN, STD, size=16)
    save_maps(tmp_path / "deep" / "maps.npz", maps)
    with np.load(tmp_path / "deep" / "maps.npz") as loaded:
        assert set(loaded) == set(maps)
        np.testing.assert_array_equal(loaded["norms"], maps["norms"])
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["maps.npz"]


def test_bad_sizes_are_named(data):
    with pytest.raises(ValueError, match="size = 18"):
        image_maps(fake_backbone(), [data[0].image], MEAN, STD, size=18)
    with pytest.raises(ValueError, match="2 names for 1"):
        image_maps(fake_backbone(), [data[0].image], MEAN, STD, size=16, names=["a", "b"])
