"""Probes on tokens whose content is known: fakes.py tells what each kind of token holds."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import CLASS_DIMS, MARK, PATCH, FakeDataset, fake_backbone

from registers.models.sequence import split_tokens
from registers.outliers import find_cutoff, high_norm_tail
from registers.probes import neighbours, position, reconstruction, token_class
from registers.probes.kinds import Kind, bank_kinds, halves, hold_out, patch_kinds
from registers.readers.evaluation_set import EvaluationSet
from registers.tokens import write_bank
from registers.vocabulary import NORMAL, OUTLIER, TAIL

torch.set_num_threads(1)
IMAGES = 160
SIDE = 4
STRENGTHS = np.array([1e-3, 1e-1, 10.0])
SETTINGS = SimpleNamespace(
    cutoff_of=lambda name: None, probes=SimpleNamespace(draws=2, labels=("parity",))
)


def write(folder, outliers: float, registers: int = 0):
    data = FakeDataset(images=IMAGES, outliers=outliers)
    sizes = dict(images=IMAGES, sample=IMAGES, batch=40, size=PATCH * SIDE, dtype="float32")
    backbone = fake_backbone(registers=registers)
    return write_bank(folder, backbone, data, progress=False, **sizes), data


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Outliers hold the class and nothing else; normal patches position and pixels, no class."""
    return write(tmp_path_factory.mktemp("planted") / "bank", outliers=0.1, registers=2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write(tmp_path_factory.mktemp("plain") / "bank", outliers=0.0)


def select(rows, **columns):
    """The one row with these values."""
    matching = [r for r in rows if all(getattr(r, k) == v for k, v in columns.items())]
    assert len(matching) == 1, (columns, len(matching))
    return matching[0]


def everywhere(images: int, patches: int) -> list[Kind]:
    return [Kind("all", np.ones((images, patches), dtype=bool))]


# --- kinds


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
    assert outlier.mask is None
    assert "no second mode" in outlier.note
    assert normal.mask.all()
    assert 0.01 <= tail.mask.mean() <= 0.03


def test_a_cutoff_chosen_by_hand_makes_no_outliers_of_one_mode():
    norms = np.random.default_rng(0).normal(40, 4, (50, 16))
    cutoff = find_cutoff(norms, fixed=41.0)
    normal, outlier, _ = patch_kinds(norms, cutoff, high_norm_tail(norms))
    assert outlier.mask is None
    assert normal.mask.all()


def test_halves_share_no_image():
    train, test = halves(11, seed=3)
    assert sorted([*train, *test]) == list(range(11))
    assert len(train) == 5
    with pytest.raises(ValueError, match=r"bank\.sample: 1 is not allowed; must be at least 2"):
        halves(1)


def test_a_tenth_is_held_out_to_choose_on():
    train = np.arange(30)
    held, kept = hold_out(train)
    assert (len(held), len(kept)) == (3, 27)
    assert sorted([*held, *kept]) == list(range(30))
    alone = hold_out(train[:1])
    assert [list(part) for part in alone] == [[0], [0]]


# --- one token's class


def classify(bank, draws=2):
    return token_class.classify(
        bank.final_tokens(),
        bank_kinds(bank),
        token_class.label_sets(bank),
        backbone=bank.name,
        draws=draws,
        strengths=STRENGTHS,
    )


def test_class_is_in_cls_registers_and_outliers_but_not_in_normal_patches(planted):
    bank, _ = planted
    rows = classify(bank, draws=3)
    for token in ("cls", "reg0", "reg1", OUTLIER):
        row = select(rows, metric="top1", token=token, data="parity")
        assert row.value == row.low == 1.0
        assert 0.4 < row.chance < 0.65
    normal = select(rows, metric="top1", token=NORMAL, data="parity")
    assert abs(normal.value - 0.5) < 0.15
    assert normal.low < 0.55
    assert select(rows, metric="top1_std", token=OUTLIER, data="parity").value == 0.0
    assert select(rows, metric="top1_std", token=NORMAL, data="parity").value > 0
    assert not [r for r in rows if r.metric == "top1_std" and r.token in ("cls", "reg0")]
    assert {(r.question, r.backbone) for r in rows} == {("token_class", bank.name)}


def test_images_without_an_outlier_are_left_out_and_counted(planted):
    bank, data = planted
    row = select(classify(bank), metric="top1", token=OUTLIER)
    without = int((~data.marks.any(1)).sum())
    assert without > 0
    assert f"{without} of {IMAGES} images have no such token" in row.note
    assert row.n == data.marks[halves(IMAGES)[1]].any(1).sum()


def test_no_second_mode_gives_no_outlier_accuracy(plain):
    bank, _ = plain
    row = select(classify(bank), token=OUTLIER, data="parity")
    assert (row.metric, row.value) == ("top1", None)
    assert "no second mode" in row.note


def test_label_sets_are_the_attributes_or_some_of_them(planted):
    bank, data = planted
    sets = token_class.label_sets(bank)
    assert list(sets) == ["parity"]
    np.testing.assert_array_equal(sets["parity"], data.labels % 2)
    with pytest.raises(ValueError, match='"shape" is not allowed; must be one of parity'):
        token_class.label_sets(bank, ["shape"])


def test_classes_of_all_label_sets_and_unknown_labels():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    tokens = np.eye(3)[y][:, None].repeat(5, 1) + 0.01 * rng.normal(size=(90, 5, 3))
    some = np.where(np.arange(90) < 30, -1, y)
    labels = {"y": y, "some": some, "one": np.zeros(90, dtype=int)}
    rows = token_class.classify(
        split_tokens(tokens, 0),
        everywhere(90, 4),
        labels,
        backbone="b",
        draws=2,
        strengths=STRENGTHS,
    )
    assert select(rows, metric="top1", token="all", data="y").value == 1.0
    known = select(rows, metric="top1", token="cls", data="some")
    assert known.value == 1.0
    assert known.n == (some[halves(90)[1]] >= 0).sum()
    lone = select(rows, metric="top1", token="cls", data="one")
    assert lone.value is None
    assert "too few" in lone.note


def test_mean_over_label_sets_weighs_answers_alike():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    tokens = np.eye(2)[y][:, None].repeat(5, 1) + 0.01 * rng.normal(size=(120, 5, 2))
    half = np.where(np.arange(120) % 2, y, -1)  # known for every second image only
    rows = token_class.classify(
        split_tokens(tokens, 0),
        [*everywhere(120, 4), Kind("none", None, "no such")],
        {"y": y, "noise": rng.integers(0, 2, 120), "half": half},
        backbone="b",
        draws=2,
        strengths=np.array([1.0]),
    )
    for token in ("cls", "all"):
        top1 = [r for r in rows if (r.metric, r.token) == ("top1", token)]
        weights = [r.n for r in top1]
        mean = select(rows, metric="top1_mean", token=token)
        assert mean.value == pytest.approx(np.average([r.value for r in top1], weights=weights))
        assert mean.chance == pytest.approx(np.average([r.chance for r in top1], weights=weights))
        assert mean.low < mean.value < mean.high
        assert mean.n == 60
    none = select(rows, metric="top1_mean", token="none")
    assert (none.value, none.note) == (None, "no such")


def test_tokens_without_cls_are_classified_too():
    tokens = np.random.default_rng(0).normal(size=(40, 5, 3))
    rows = token_class.classify(
        split_tokens(tokens, 1, cls=False),
        everywhere(40, 4),
        {"y": np.arange(40) % 2},
        backbone="b",
        draws=2,
        strengths=STRENGTHS,
    )
    assert {r.token for r in rows} == {"reg0", "all"}


def test_one_token_is_drawn_uniformly_from_its_kind():
    mask = np.tile([False, True, True, False, True], (3000, 1))
    counts = np.bincount(token_class.draw_one(mask, np.random.default_rng(0)), minlength=5)
    assert counts[0] == counts[3] == 0
    assert np.abs(counts[[1, 2, 4]] - 1000).max() < 120


# --- position


def test_position_is_in_normal_patches_and_not_in_outliers(planted):
    bank, _ = planted
    rows = position.measure(bank, [], SETTINGS).rows
    assert select(rows, metric="top1", token=NORMAL).value == 1.0
    assert select(rows, metric="distance", token=NORMAL).value == 0.0
    lost = select(rows, metric="top1", token=OUTLIER)
    assert lost.chance == 1 / 16
    assert lost.value < 0.2
    assert lost.low <= lost.value <= lost.high
    assert select(rows, metric="distance", token=OUTLIER).value > 1.0


def test_noise_has_no_position_and_distance_is_in_patches():
    noise = np.random.default_rng(0).normal(size=(60, 6, 8))
    rows = position.locate(noise, (2, 3), everywhere(60, 6), backbone="b")
    top1 = select(rows, metric="top1")
    assert top1.low <= 1 / 6 <= top1.high
    # all ordered pairs of a 2 x 3 grid: 6 x 0, 14 x 1, 8 x sqrt 2, 4 x 2, 4 x sqrt 5
    distance = select(rows, metric="distance")
    assert distance.chance == pytest.approx((14 + 8 * 2**0.5 + 4 * 2 + 4 * 5**0.5) / 36)
    assert abs(distance.value - distance.chance) < 0.3
    with pytest.raises(ValueError, match="grid: 4 x 2 is not allowed; must have 6 patches"):
        position.locate(np.zeros((4, 6, 2)), (4, 2), everywhere(4, 6), backbone="b")


def test_a_wrong_neighbour_is_one_patch_away():
    """Tokens that know the row but not the column: guesses stay in the row."""
    rows_only = np.repeat(np.eye(3), 3, axis=0)[None].repeat(40, 0)
    rows = position.locate(rows_only, (3, 3), everywhere(40, 9), backbone="b")
    assert select(rows, metric="top1").value == pytest.approx(1 / 3)
    # 0, 1, 2 columns away, by the guess
    assert 2 / 3 - 1e-9 <= select(rows, metric="distance").value <= 1 + 1e-9


# --- pixels


def test_patches_come_row_by_row():
    images = torch.randn(2, 3, 8, 12)
    patches = reconstruction.patchify(images, 4)
    assert patches.shape == (2, 6, 48)
    for number in range(6):
        row, column = divmod(number, 3)
        cut = images[1, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(patches[1, number].view(3, 4, 4), cut)


def test_pixels_are_those_the_bank_saw(planted):
    bank, data = planted
    pixels = reconstruction.pixels(bank, data)
    expected = reconstruction.patchify(data.batch(), PATCH)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"must be .* from which the bank was written"):
        reconstruction.pixels(bank, FakeDataset(images=IMAGES, seed=1))


def texture(bank, data):
    """The pixels that tell neither class nor mark: uniform from -1 to 1, independent."""
    pixels = reconstruction.pixels(bank, data)  # colour, row, column
    counted = pixels.reshape(*pixels.shape[:2], 3, PATCH * PATCH).swapaxes(2, 3)
    counted = counted.reshape(pixels.shape)  # as the data set counts: row, column, colour
    return np.delete(counted, [*range(CLASS_DIMS), MARK], axis=-1)


def test_pixels_are_in_normal_patches_and_not_in_outliers(planted):
    bank, data = planted
    tokens = np.asarray(split_tokens(bank.outputs, 2).patches)  # before the final norm: exact
    rows = reconstruction.reconstruct(tokens, texture(bank, data), bank_kinds(bank), backbone="b")
    normal = select(rows, token=NORMAL)
    outlier = select(rows, token=OUTLIER)
    assert normal.value < 1e-3 * normal.chance
    assert outlier.value > 0.98 * outlier.chance
    assert outlier.chance == pytest.approx((39 / 3) ** 0.5, rel=0.03)
    assert outlier.low <= outlier.value <= outlier.high


def test_pixels_after_the_final_norm(plain):
    """A norm scales each token by itself, so that the map is not exact."""
    bank, data = plain
    tokens = bank.final_tokens().patches
    rows = reconstruction.reconstruct(tokens, texture(bank, data), bank_kinds(bank), backbone="b")
    normal = select(rows, token=NORMAL)
    assert normal.value < 0.2 * normal.chance
    assert select(rows, token=OUTLIER).value is None


def test_a_linear_map_is_found_exactly_and_noise_predicts_the_mean():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(30, 9, 20))
    pixels = tokens @ rng.normal(size=(20, 12)) + 5
    (exact,) = reconstruction.reconstruct(tokens, pixels, everywhere(30, 9), backbone="b")
    assert exact.value < 1e-6
    assert exact.chance > 10
    assert exact.metric == "l2"
    noise = rng.normal(size=(30, 9, 588))
    (guess,) = reconstruction.reconstruct(tokens, noise, everywhere(30, 9), backbone="b")
    assert guess.value == pytest.approx(588**0.5, rel=0.02)  # the norm is not squared
    assert guess.chance == pytest.approx(guess.value, rel=0.02)
    with pytest.raises(ValueError, match="pixels of"):
        reconstruction.reconstruct(tokens, noise[:, 1:], everywhere(30, 9), backbone="b")


# --- neighbours


def test_similarity_by_hand():
    east, north = [2.0, 0.0], [0.0, 0.5]
    x = np.array([[east, east, north, east, north, north]])  # a 2 x 3 grid: E E N / E N N
    cosines = neighbours.similarity(x, (2, 3))[0]
    np.testing.assert_allclose(cosines, [1, 1 / 3, 1 / 2, 1 / 2, 1 / 3, 1], atol=1e-12)


def test_similarity_agrees_with_a_loop():
    x = np.random.default_rng(0).normal(size=(2, 12, 5))
    unit = (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(2, 3, 4, 5)
    cosines = neighbours.similarity(x, (3, 4))
    for image, row, column in np.ndindex(2, 3, 4):
        around = [(row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)]
        around = [(r, c) for r, c in around if 0 <= r < 3 and 0 <= c < 4]
        expected = np.mean([unit[image, row, column] @ unit[image, r, c] for r, c in around])
        assert cosines[image, row * 4 + column] == pytest.approx(expected)


def test_outliers_planted_where_patches_repeat():
    x = np.random.default_rng(0).normal(size=(40, 16, 24))
    mask = np.zeros((40, 16), dtype=bool)
    mask[:, 5] = True
    x[:, [1, 4, 6, 9]] = x[:, [5]]  # the four neighbours of patch 5
    kinds = [Kind(NORMAL, ~mask), Kind(OUTLIER, mask), Kind(TAIL, None, "none here")]
    rows = neighbours.similarity_rows(x, (4, 4), kinds, backbone="b")
    assert select(rows, metric="mean", token=OUTLIER).value == pytest.approx(1.0)
    assert select(rows, metric="mean", token=NORMAL).value < 0.6
    assert select(rows, metric="mean", token=TAIL).value is None
    densities = {
        token: [r for r in rows if (r.metric, r.token) == ("density", token)]
        for token in (NORMAL, OUTLIER, TAIL)
    }
    for token in (NORMAL, OUTLIER):
        assert len(densities[token]) == 40
        assert sum(r.value for r in densities[token]) * 0.05 == pytest.approx(1.0)
    assert not densities[TAIL]
    highest = max(densities[OUTLIER], key=lambda r: r.value)
    assert (highest.coordinate, highest.at) == ("cosine", pytest.approx(0.975))


def test_chance_is_the_cosine_of_any_two_patches(planted):
    bank, data = planted
    x = bank.embeddings[:10]
    unit = (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(160, -1)
    cosines = unit @ unit.T
    expected = (cosines.sum() - np.trace(cosines)) / (160 * 159)
    rows = neighbours.similarity_rows(x, bank.grid, everywhere(10, 16), backbone="b")
    assert select(rows, metric="mean").chance == pytest.approx(expected, abs=1e-5)
    asked = neighbours.measure(bank, [], SETTINGS).rows
    assert select(asked, metric="mean", token=OUTLIER).n == data.marks.sum()


# --- asked as the pipeline asks


@pytest.mark.parametrize("module", [token_class, neighbours, position, reconstruction])
def test_measure_gives_rows_of_its_own_question(plain, module):
    bank, data = plain
    measured = module.measure(bank, [EvaluationSet.of("fake", None, data)], SETTINGS)
    assert {row.question for row in measured.rows} == {module.__name__.split(".")[-1]}
    assert {row.backbone for row in measured.rows} == {bank.name}
    assert measured.arrays is None
