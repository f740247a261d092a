"""Planted constants, images' vectors and tokens' own are found in their shares."""

import numpy as np
import pytest

from registers.components import components


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
def test_planted_components_are_found(shares):
    found = components(*planted(*(4 * share for share in shares)))
    assert (found.constant, found.image, found.own) == pytest.approx(shares, abs=0.02)
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


@pytest.mark.parametrize("number", [[0, 0, 0], [0, 1, 2]])
def test_pairs_that_are_missing_say_nothing(number):
    assert components(np.ones((3, 4)), np.array(number)) is None


def test_tokens_that_are_zero_say_nothing():
    assert components(np.zeros((4, 4)), np.array([0, 0, 1, 1])) is None
