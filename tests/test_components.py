"""Planted constants, images' vectors and tokens' own are found in their shares."""

from itertools import combinations

import numpy as np
import pytest

from registers.components import Sums, components


def planted(constant: float, image: float, own: float, counts=(5,) * 400, scales=1.0, seed=0):
    """Tokens whose mean square is constant + image + own where scales are 1, and the numbers of
    their images. counts, scales: tokens of each image, and what they are multiplied by."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(counts)), counts)
    direction = np.zeros(64)
    direction[3] = constant**0.5
    of_image = rng.standard_normal((len(counts), 64)) * (image / 64) ** 0.5
    of_token = rng.standard_normal((len(number), 64)) * (own / 64) ** 0.5
    scale_I = np.broadcast_to(scales, len(counts))
    return (direction + of_image[number] + of_token) * scale_I[number, None], number


def shares(found) -> tuple[float, float, float]:
    return found.constant, found.image, found.own


@pytest.mark.parametrize("truth", [(0.9, 0.05, 0.05), (0.1, 0.8, 0.1), (0.0, 0.0, 1.0)])
def test_planted_components_are_found(truth):
    found = components(*planted(*(4 * share for share in truth)))
    assert shares(found) == pytest.approx(truth, abs=0.02)
    assert sum(shares(found)) == pytest.approx(1)
    assert (found.images, found.tokens, found.effective_images) == (400, 2000, 400)


@pytest.mark.parametrize("counts", [(4, 4, 4), (2, 5, 3)])
def test_means_of_products_of_pairs_written_out(counts):
    x, number = planted(1, 1, 1, counts)
    within, across = [[] for _ in counts], []
    for one, other in combinations(range(len(x)), 2):
        pairs = within[number[one]] if number[one] == number[other] else across
        pairs.append(x[one] @ x[other])
    square = (x**2).sum() / len(x)
    same = np.average([np.mean(pairs) for pairs in within], weights=counts)
    truth = np.mean(across) / square, (same - np.mean(across)) / square, 1 - same / square
    assert shares(components(x, number)) == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("truth", [(0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.0, 0.0, 1.0)])
def test_few_images_have_no_bias(truth, equal):
    rng = np.random.default_rng(0)
    drawn = []
    for seed in range(1000):
        counts = [4] * 8 if equal else [2, 2, *rng.geometric(0.3, 6)]
        drawn.append(shares(components(*planted(*truth, counts, seed=seed))))
    assert np.mean(drawn, axis=0) == pytest.approx(truth, abs=0.01)


def test_shares_of_few_images_are_far_off_by_chance():
    """As the module says: an image share of 0.8 along four directions, nine draws of ten."""
    rng = np.random.default_rng(0)
    for images, low, high in ((2, 0.16, 1.48), (10, 0.63, 0.94), (24, 0.70, 0.89)):
        number = np.repeat(np.arange(images), 4)
        found = []
        for _ in range(1500):
            of_image = rng.standard_normal((images, 4)) * 0.2**0.5
            of_token = rng.standard_normal((len(number), 4)) * 0.025**0.5
            constant = np.array([0.1**0.5, 0, 0, 0])
            found.append(components(constant + of_image[number] + of_token, number).image)
        assert np.quantile(found, (0.05, 0.95)) == pytest.approx((low, high), abs=0.06)


# --- numbers of tokens that differ, and go with their size ---------------------------------------


@pytest.mark.parametrize("truth", [(0.1, 0.8, 0.1), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)])
def test_three_images_with_more_and_larger_tokens_leave_shares_sensible(truth):
    counts, scales = [20] * 3 + [2] * 97, [25.0] * 3 + [8.0] * 97
    found = components(*planted(*truth, counts, scales))
    assert all(-0.03 <= share <= 1.03 for share in shares(found))
    assert found.own == pytest.approx(truth[2], abs=0.03)
    assert found.effective_images == pytest.approx(254**2 / (3 * 400 + 97 * 4))


def test_shares_are_of_a_token_drawn_at_random_from_all():
    """A quarter of the images has eight tokens of size 3, the others have two of size 1."""
    counts, scales = [8, 2, 2, 2] * 1000, [3.0, 1.0, 1.0, 1.0] * 1000
    found = components(*planted(0.5, 0.3, 0.2, counts, scales))
    # of all tokens, 8 in 14 have size 3
    mean, square = (8 * 3 + 6) / 14, (8 * 9 + 6) / 14
    constant = 0.5 * mean**2 / square
    assert shares(found) == pytest.approx((constant, 0.8 - constant, 0.2), abs=0.02)


def test_own_is_never_below_0_whatever_the_numbers():
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = rng.geometric(0.2, 6) + 1
        scales = np.exp(2 * rng.standard_normal(6))
        assert components(*planted(*rng.random(3), counts, scales)).own >= 0
    tokens = np.repeat(1e3 * rng.standard_normal((9, 64)), 3, axis=0)
    assert components(tokens, np.repeat(np.arange(9), 3)).own == pytest.approx(0, abs=1e-12)


def test_one_pair_does_not_divide_what_many_images_hold():
    """Nor are tokens that are alone in their images, larger and all the same, set against it."""
    one = added_up(*planted(0.1, 0.8, 0.1, [2] + [1] * 39), 40).shares()
    assert one.image is None and one.tokens == 41
    same, image = planted(1, 0, 0, [1] * 60, 25.0)
    apart, number = planted(0, 0, 1, [2] * 200, 10.0)
    found = components(np.concatenate([same, apart]), np.concatenate([image, 100 + number]))
    assert shares(found) == pytest.approx((0, 0, 1), abs=0.05)


def test_a_token_alone_in_its_image_has_no_part_in_the_shares():
    """It does not tell its own from its image's."""
    x, number = planted(1, 1, 1, [3] * 20)
    alone = np.full((5, 64), 50.0)
    found = components(np.concatenate([x, alone]), np.concatenate([number, 100 + np.arange(5)]))
    assert found == components(x, number)


# --- added up on the way -----------------------------------------------------------------------


def added_up(x, number, images, batch=None):
    sums = Sums()
    for start in range(0, images, batch or images):
        kinds = range(start, min(start + (batch or images), images))
        parts = [x[number == image] for image in kinds]
        sums.add(
            np.stack([part.sum(0) for part in parts]),
            np.array([(part**2).sum() for part in parts]),
            np.array([len(part) for part in parts]),
        )
    return sums


def test_added_up_a_few_images_at_a_time_they_are_the_same():
    counts = np.random.default_rng(0).integers(0, 6, 60)
    assert {0, 1} < set(counts)
    x, number = planted(1, 1, 1, counts)
    whole = components(x, number)
    for batch in (1, 7, 60):
        found = added_up(x, number, 60, batch).shares()
        assert shares(found) == pytest.approx(shares(whole), abs=1e-12)
        assert found.tokens == whole.tokens == counts[counts > 1].sum()


def test_what_is_held_does_not_grow_with_images():
    def numbers(images):
        sums = added_up(*planted(1, 1, 1, [3] * images), images, batch=4)
        return sum(np.size(value) for kind in vars(sums).values() for value in vars(kind).values())

    assert numbers(40) == numbers(4) < 3 * 64


def test_images_with_one_token_tell_the_constant_alone():
    x, number = planted(0.7, 0.2, 0.1, [1] * 1000)
    assert components(x, number) is None
    found = added_up(x, number, 1000).shares()
    assert found.constant == pytest.approx(0.7, abs=0.02)
    assert found.image is None and found.own is None and found.tokens == 1000


def test_images_are_too_few_where_few_have_most_tokens():
    counts = [60, *[2] * 19]
    sums = added_up(*planted(1, 1, 1, counts), 20)
    effective = sum(counts) ** 2 / sum(count**2 for count in counts)
    assert sums.shares(effective - 0.01).image is not None
    assert sums.shares(effective + 0.01) is None
    # with many tokens alone in their images, these tell the constant
    sums.add(np.ones((200, 64)), np.full(200, 64.0), np.ones(200, int))
    assert sums.shares(effective + 0.01).image is None


def test_the_order_of_tokens_and_the_names_of_images_do_not_matter():
    tokens, number = planted(1, 1, 1, [5] * 20)
    order = np.random.default_rng(1).permutation(len(tokens))
    found = components(tokens[order], 1000 - number[order])
    assert found.image == pytest.approx(components(tokens, number).image)


@pytest.mark.parametrize("number", [[0, 0, 0], [0, 1, 2], [0, 0, 1]])
def test_pairs_that_are_missing_say_nothing(number):
    assert components(np.ones((3, 4)), np.array(number)) is None


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_tokens_that_are_zero_or_not_finite_say_nothing(value):
    tokens = np.full((4, 4), value)
    assert components(tokens, np.array([0, 0, 1, 1])) is None
    tokens[:3] = 1
    assert (components(tokens, np.array([0, 0, 1, 1])) is None) == (value != 0)
