"""Probes on tokens whose content is known: fakes.py says what each kind of token holds."""

import numpy as np
import pytest
import torch
from fakes import CLASS_DIMS, MARK, MEAN, PATCH, STD, FakeDataset, fake_backbone

from registers.outliers import find_cutoff, high_norm_tail
from registers.probes import neighbours, position, reconstruction, token_class
from registers.probes.kinds import (
    NORMAL,
    OUTLIER,
    TAIL,
    Kind,
    bank_kinds,
    halves,
    patch_kinds,
    standardised,
)
from registers.tokens import write_bank

torch.set_num_threads(1)
IMAGES, SIDE = 160, 4
STRENGTHS = np.array([1e-3, 1e-1, 10.0])


def write(folder, outliers: float, registers: int = 0, images: int = IMAGES, **options):
    data = FakeDataset(images=images, outliers=outliers, **options)
    look = dict(
        images=images,
        sample=images,
        batch=40,
        size=4 * SIDE,
        mean=MEAN,
        std=STD,
        dtype="float32",
        progress=False,
    )
    return write_bank(folder, fake_backbone(registers=registers), data, **look), data


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Outliers that hold the class and nothing else; normal patches that hold position and pixels and no class."""
    return write(tmp_path_factory.mktemp("planted") / "bank", outliers=0.1, registers=2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("plain") / "bank", outliers=0.0)


def select(rows, **wanted):
    found = [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


# --- kinds ---------------------------------------------------------------------------------------------------------------


def test_kinds_are_the_planted_ones(planted):
    bank, data = planted
    normal, outlier, tail = bank_kinds(bank)
    assert [k.name for k in (normal, outlier, tail)] == [NORMAL, OUTLIER, TAIL]
    np.testing.assert_array_equal(outlier.mask, data.marks)
    np.testing.assert_array_equal(normal.mask, ~data.marks)
    assert "quantile" in tail.note


def test_without_a_second_mode_there_is_no_outlier_but_a_reason(plain):
    bank, _ = plain
    normal, outlier, tail = bank_kinds(bank)
    assert outlier.mask is None and "no second mode" in outlier.note
    assert normal.mask.all()
    assert 0.01 <= tail.mask.mean() <= 0.03


def test_a_cutoff_chosen_by_hand_makes_no_outliers_of_one_mode():
    norms = np.random.default_rng(0).normal(40, 4, (50, 16))
    kinds = patch_kinds(norms, find_cutoff(norms, fixed=41.0), high_norm_tail(norms))
    assert kinds[1].mask is None and kinds[0].mask.all()


def test_standardised_is_layer_norm():
    x = torch.randn(3, 5, 16) * 40 + 7
    expected = torch.nn.functional.layer_norm(x, (16,), eps=1e-6)
    np.testing.assert_allclose(standardised(x.numpy()), expected.numpy(), atol=1e-5)


def test_halves_share_no_image():
    train, test = halves(11, seed=3)
    assert sorted([*train, *test]) == list(range(11)) and len(train) == 5
    with pytest.raises(ValueError, match="at least 2"):
        halves(1)


# --- one token's class ---------------------------------------------------------------------------------------------------


def test_class_is_in_cls_registers_and_outliers_but_not_in_normal_patches(planted):
    bank, _ = planted
    rows = token_class.token_class(bank, draws=3, strengths=STRENGTHS)
    for token in ("cls", "reg0", "reg1", OUTLIER):
        found = select(rows, metric="top1", token=token, data="parity")
        assert found.value == 1.0 and found.low == 1.0 and 0.4 < found.chance < 0.65
    normal = select(rows, metric="top1", token=NORMAL, data="parity")
    assert abs(normal.value - 0.5) < 0.15 and normal.low < 0.55
    assert select(rows, metric="top1_std", token=OUTLIER, data="parity").value == 0.0
    assert select(rows, metric="top1_std", token=NORMAL, data="parity").value > 0
    assert not [r for r in rows if r.metric == "top1_std" and r.token in ("cls", "reg0")]
    assert {r.backbone for r in rows} == {bank.name} and {r.question for r in rows} == {
        "token_class"
    }


def test_images_without_an_outlier_are_left_out_and_counted(planted):
    bank, data = planted
    row = select(
        token_class.token_class(bank, draws=2, strengths=STRENGTHS), metric="top1", token=OUTLIER
    )
    without = int((~data.marks.any(1)).sum())
    assert without > 0 and f"{without} of {IMAGES} images have no such token" in row.note
    assert row.n == data.marks[halves(IMAGES)[1]].any(1).sum()


def test_no_second_mode_gives_no_outlier_accuracy(plain):
    bank, _ = plain
    row = select(
        token_class.token_class(bank, draws=2, strengths=STRENGTHS), token=OUTLIER, data="parity"
    )
    assert row.value is None and row.metric == "top1" and "no second mode" in row.note


def test_classes_of_all_label_sets_and_unknown_labels():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    tokens = np.eye(3)[y][:, None].repeat(5, 1) + 0.01 * rng.normal(size=(90, 5, 3))
    some = np.where(np.arange(90) < 30, -1, y)
    kinds = [Kind("all", np.ones((90, 4), dtype=bool))]
    labels = {"y": y, "some": some, "one": np.zeros(90, dtype=int)}
    rows = token_class.classify(
        tokens, 0, kinds, labels, backbone="b", draws=2, strengths=STRENGTHS
    )
    assert select(rows, metric="top1", token="all", data="y").value == 1.0
    known = select(rows, metric="top1", token="cls", data="some")
    assert known.value == 1.0 and known.n == (some[halves(90)[1]] >= 0).sum()
    lone = select(rows, metric="top1", token="cls", data="one")
    assert lone.value is None and "too few" in lone.note


def test_one_token_is_drawn_uniformly_from_its_kind():
    mask = np.tile([False, True, True, False, True], (3000, 1))
    counts = np.bincount(token_class.draw_one(mask, np.random.default_rng(0)), minlength=5)
    assert counts[0] == counts[3] == 0 and np.abs(counts[[1, 2, 4]] - 1000).max() < 120


# --- position ------------------------------------------------------------------------------------------------------------


def test_position_is_in_normal_patches_and_not_in_outliers(planted):
    bank, _ = planted
    rows = position.position(bank)
    assert select(rows, metric="top1", token=NORMAL).value == 1.0
    assert select(rows, metric="distance", token=NORMAL).value == 0.0
    lost = select(rows, metric="top1", token=OUTLIER)
    assert lost.chance == 1 / 16 and lost.value < 0.2 and lost.low <= lost.value <= lost.high
    assert select(rows, metric="distance", token=OUTLIER).value > 1.0


def test_noise_has_no_position_and_distance_is_in_patches():
    rng = np.random.default_rng(0)
    kinds = [Kind("all", np.ones((60, 6), dtype=bool))]
    rows = position.locate(rng.normal(size=(60, 6, 8)), (2, 3), kinds, backbone="b")
    top1, distance = (select(rows, metric=m) for m in ("top1", "distance"))
    assert top1.low <= 1 / 6 <= top1.high
    # all ordered pairs of a 2 x 3 grid: 6 x 0, 14 x 1, 8 x sqrt 2, 4 x 2, 4 x sqrt 5
    assert distance.chance == pytest.approx((14 + 8 * 2**0.5 + 4 * 2 + 4 * 5**0.5) / 36)
    assert abs(distance.value - distance.chance) < 0.3
    with pytest.raises(ValueError, match="grid = 4 x 2"):
        position.locate(np.zeros((4, 6, 2)), (4, 2), kinds, backbone="b")


def test_a_wrong_neighbour_is_one_patch_away():
    """Tokens that say the row but not the column: guesses stay in the row."""
    rows_only = np.repeat(np.eye(3), 3, axis=0)[None].repeat(40, 0)
    rows = position.locate(
        rows_only, (3, 3), [Kind("all", np.ones((40, 9), dtype=bool))], backbone="b"
    )
    assert select(rows, metric="top1").value == pytest.approx(1 / 3)
    assert (
        2 / 3 - 1e-9 <= select(rows, metric="distance").value <= 1 + 1e-9
    )  # 0, 1, 2 columns away, by the guess


# --- pixels --------------------------------------------------------------------------------------------------------------


def test_patchify_goes_round():
    images = torch.randn(2, 3, 8, 12)
    patches = reconstruction.patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(reconstruction.unpatchify(patches, 4, (2, 3)), images)
    assert torch.equal(
        patches[1, 4].view(3, 4, 4), images[1, :, 4:8, 4:8]
    )  # patch 4 is row 1, column 1


def test_pixels_are_those_the_bank_saw(planted):
    bank, data = planted
    seen = reconstruction.pixels(bank, data)
    grid = (SIDE, SIDE)
    np.testing.assert_allclose(
        reconstruction.unpatchify(torch.from_numpy(seen), PATCH, grid).numpy(),
        data.batch().numpy(),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="the bank was written from"):
        reconstruction.pixels(bank, FakeDataset(images=IMAGES, seed=1))


def texture(bank, data):
    """The pixels that say neither class nor mark: uniform from -1 to 1, independent."""
    pixels = reconstruction.pixels(
        bank, data
    )  # colour, row, column; the data set counts row, column, colour
    counted = (
        pixels.reshape(*pixels.shape[:2], 3, PATCH * PATCH).swapaxes(2, 3).reshape(pixels.shape)
    )
    return np.delete(counted, [*range(CLASS_DIMS), MARK], axis=-1)


def test_pixels_are_in_normal_patches_and_not_in_outliers(planted):
    bank, data = planted
    rows = reconstruction.reconstruction(bank, texture(bank, data), final_norm=False)
    normal, outlier = select(rows, token=NORMAL), select(rows, token=OUTLIER)
    assert normal.value < 1e-3 * normal.chance
    assert outlier.value > 0.98 * outlier.chance and outlier.chance == pytest.approx(
        (39 / 3) ** 0.5, rel=0.03
    )
    assert outlier.low <= outlier.value <= outlier.high


def test_pixels_after_the_final_norm(plain):
    bank, data = plain
    rows = reconstruction.reconstruction(
        bank, texture(bank, data)
    )  # a norm scales each token by itself: not exact
    found = select(rows, token=NORMAL)
    assert found.value < 0.2 * found.chance
    assert select(rows, token=OUTLIER).value is None


def test_a_linear_map_is_found_exactly_and_noise_predicts_the_mean():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(30, 9, 20))
    pixels = tokens @ rng.normal(size=(20, 12)) + 5
    kinds = [Kind("all", np.ones((30, 9), dtype=bool))]
    (exact,) = reconstruction.reconstruct(tokens, pixels, kinds, backbone="b")
    assert exact.value < 1e-6 and exact.chance > 10 and exact.metric == "l2"
    noise = rng.normal(size=(30, 9, 588))
    (guess,) = reconstruction.reconstruct(tokens, noise, kinds, backbone="b")
    assert guess.value == pytest.approx(588**0.5, rel=0.02) and guess.chance == pytest.approx(
        guess.value, rel=0.02
    )  # un-squared norm
    with pytest.raises(ValueError, match="pixels of"):
        reconstruction.reconstruct(tokens, noise[:, 1:], kinds, backbone="b")


# --- neighbours ----------------------------------------------------------------------------------------------------------


def test_similarity_by_hand():
    east, north = [2.0, 0.0], [0.0, 0.5]
    x = np.array([[east, east, north, east, north, north]])  # a 2 x 3 grid: E E N / E N N
    found = neighbours.similarity(x, (2, 3))[0]
    np.testing.assert_allclose(found, [1, 1 / 3, 1 / 2, 1 / 2, 1 / 3, 1], atol=1e-12)


def test_similarity_agrees_with_a_loop():
    x = np.random.default_rng(0).normal(size=(2, 12, 5))
    unit = (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(2, 3, 4, 5)
    for b, r, c in np.ndindex(2, 3, 4):
        around = [
            (r + dr, c + dc)
            for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))
            if 0 <= r + dr < 3 and 0 <= c + dc < 4
        ]
        expected = np.mean([unit[b, r, c] @ unit[b, i, j] for i, j in around])
        assert neighbours.similarity(x, (3, 4))[b, r * 4 + c] == pytest.approx(expected)


def test_outliers_planted_where_patches_repeat():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 16, 24))
    mask = np.zeros((40, 16), dtype=bool)
    mask[:, 5] = True
    for p in (1, 4, 6, 9):  # the four neighbours of patch 5
        x[:, p] = x[:, 5]
    kinds = [Kind(NORMAL, ~mask), Kind(OUTLIER, mask), Kind(TAIL, None, "none here")]
    rows = neighbours.densities(x, (4, 4), kinds, backbone="b")
    assert select(rows, metric="mean", token=OUTLIER).value == pytest.approx(1.0)
    assert select(rows, metric="mean", token=NORMAL).value < 0.6
    assert select(rows, metric="mean", token=TAIL).value is None
    for token in (NORMAL, OUTLIER):
        heights = [r.value for r in rows if r.metric == "density" and r.token == token]
        assert len(heights) == 40 and sum(heights) * 0.05 == pytest.approx(1.0)
    assert max(
        rows, key=lambda r: (r.metric == "density" and r.token == OUTLIER, r.value or 0)
    ).x == pytest.approx(0.975)


def test_chance_is_the_cosine_of_any_two_patches(planted):
    bank, _ = planted
    x = bank.embeddings[:10]
    unit = (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(160, -1)
    cosines = unit @ unit.T
    expected = (cosines.sum() - np.trace(cosines)) / (160 * 159)
    rows = neighbours.densities(
        x, bank.grid, [Kind("all", np.ones((10, 16), dtype=bool))], backbone="b"
    )
    assert select(rows, metric="mean").chance == pytest.approx(expected, abs=1e-5)
    assert select(neighbours.neighbours(bank), metric="mean", token=OUTLIER).n == int(
        planted[1].marks.sum()
    )
