"""Planted constants, images' vectors and tokens' own are found in their shares."""

import numpy as np
import pytest

from registers.components import Totals, components


def planted(constant: float, image: float, own: float, images: int = 400, each: int = 5):
    """Tokens whose mean square is constant + image + own, and the numbers of their images."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(images), each)
    direction = np.zeros(64)
    direction[3] = constant**0.5
    of_image = rng.standard_normal((images, 64)) * (image / 64) ** 0.5
    of_token = rng.standard_normal((images * each, 64)) * (own / 64) ** 0.5
    return direction + of_image[number] + of_token, number


@pytest.mark.parametrize("shares", [(0.9, 0.05, 0.05), (0.1, 0.8, 0.1), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("each", [2, 5])
def test_planted_components_are_found(shares, each):
    found = components(*planted(*(4 * share for share in shares), each=each))
    assert (found.constant, found.image, found.own) == pytest.approx(shares, abs=0.03)
    assert found.constant + found.image + found.own == pytest.approx(1)


def test_few_tokens_have_no_bias():
    """The mean of 8 tokens is not 0 by chance alone; means over many such draws are."""
    rng = np.random.default_rng(0)
    number = np.array([0, 0, 1, 1, 2, 3, 3, 3])
    drawn = [components(rng.standard_normal((8, 32)), number) for _ in range(2000)]
    assert np.mean([found.constant for found in drawn]) == pytest.approx(0, abs=0.01)
    assert np.mean([found.image for found in drawn]) == pytest.approx(0, abs=0.01)


def test_the_order_of_tokens_and_the_names_of_images_do_not_matter():
    tokens, number = planted(1, 1, 1, images=20)
    order = np.random.default_rng(1).permutation(len(tokens))
    found = components(tokens[order], 1000 - number[order])
    assert found.image == pytest.approx(components(tokens, number).image)


def test_shares_stay_shares_where_an_image_has_more_tokens_the_larger_they_are():
    """3 images with 20 tokens of size 25 and 97 with 2 of size 8, each image with one vector."""
    rng = np.random.default_rng(0)
    count = np.array([20] * 3 + [2] * 97)
    size = np.array([25.0] * 3 + [8.0] * 97)
    vectors = size[:, None] * rng.standard_normal((100, 64)) / 8
    number = np.repeat(np.arange(100), count)
    found = components(vectors[number] + 0.1 * rng.standard_normal((len(number), 64)), number)
    assert (found.constant, found.image, found.own) == pytest.approx((0, 1, 0), abs=0.05)


def test_unequal_counts_leave_planted_components_as_they_are():
    rng = np.random.default_rng(1)
    tokens, number = planted(1, 2, 1, images=600, each=8)
    kept = rng.random(len(number)) < np.repeat(rng.random(600), 8)
    found = components(tokens[kept], number[kept])
    assert (found.constant, found.image, found.own) == pytest.approx((0.25, 0.5, 0.25), abs=0.04)
    assert (found.images, found.tokens) == (len(np.unique(number[kept])), kept.sum())


def test_totals_are_the_same_some_images_at_a_time():
    tokens, number = planted(1, 2, 1, images=20)
    x = tokens.reshape(20, 5, 64)
    totals = Totals()
    for some in (slice(0, 7), slice(7, 7), slice(7, 20)):
        totals.add(x[some].sum(1), np.full(len(x[some]), 5), (x[some] ** 2).sum((1, 2)))
    found, at_once = totals.components(), components(tokens, number)
    assert vars(found) == pytest.approx(vars(at_once))


def test_one_token_an_image_tells_the_constant_alone():
    tokens, number = planted(3, 1, 0, each=1)
    found = components(tokens, number)
    assert found.constant == pytest.approx(0.75, abs=0.02)
    assert found.image is None and found.own is None


def test_tokens_of_one_image_say_nothing():
    assert components(np.ones((3, 4)), np.zeros(3)) is None


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_tokens_that_are_zero_or_no_numbers_say_nothing(value):
    assert components(np.full((4, 4), value), np.array([0, 0, 1, 1])) is None
