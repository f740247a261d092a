"""Pictures of the built-in world in the study: what is asked is what the pictures show."""

import numpy as np
import pytest
import torch

from registers.study.regime import TokenRegime, check_tokens
from registers.study.run import VALIDATION
from registers.study.tokens_drawn import APART, CHANNELS, PATCH, SEED, codebook
from registers.study.tokens_world import NOTHING
from registers.study.worlds import scenes
from registers.world.dataset import scene

DRAWN = dict(appearance="drawn", grid=4, channels=CHANNELS, codes=10, pictures=1000, symbols=12)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def seen():
    return scenes(TokenRegime(**DRAWN), 20, VALIDATION + 1, CPU)


def test_patches_labels_and_background_are_the_world_s(seen):
    for i in range(20):
        sample = scene(SEED, APART + i, 4 * PATCH, "val")
        things = np.asarray(sample.mask)
        assert seen.label[i] == sample.label
        for cell in range(16):
            down, across = (slice(PATCH * k, PATCH * (k + 1)) for k in divmod(cell, 4))
            shown = np.asarray(sample.image)[down, across].transpose(2, 0, 1).reshape(-1)
            assert torch.equal(seen.images[i, cell], torch.from_numpy(shown).float() / 64 - 2)
            assert seen.redundant[i, cell] == (things[down, across] == 0).all()
            assert seen.marked[i, cell] == (things[down, across] == sample.label + 1).any()


def test_words_are_asked_of_a_patch_and_its_right_neighbour(seen):
    centres = codebook(12, 1000, 4)
    nearest = (seen.images[:, :, None] - centres).pow(2).sum(-1).argmin(-1)
    assert torch.equal(seen.own, nearest) and len(nearest.unique()) > 6
    own, right = seen.own.view(-1, 4, 4), seen.right.view(-1, 4, 4)
    assert torch.equal(right[:, :, :-1], own[:, :, 1:])
    assert (right[:, :, -1] == NOTHING).all()


def test_where_background_is_free_nothing_is_asked_of_it(seen):
    free = scenes(TokenRegime(**DRAWN, background_asked=False), 20, VALIDATION + 1, CPU)
    assert torch.equal(free.images, seen.images)
    assert torch.equal(free.own, seen.own.masked_fill(seen.redundant, NOTHING))
    assert (free.right[seen.redundant] == NOTHING).all()
    before_background = seen.redundant.view(-1, 4, 4)[:, :, 1:]
    assert (free.right.view(-1, 4, 4)[:, :, :-1][before_background] == NOTHING).all()


def test_training_repeats_by_its_seed_and_never_sees_what_is_examined(seen):
    regime = TokenRegime(**DRAWN)
    one, again, other = (scenes(regime, 8, seed, CPU) for seed in (7, 7, 8))
    assert torch.equal(one.images, again.images) and not torch.equal(one.images, other.images)
    trained = scenes(regime, 500, 9, CPU).images.flatten(1)
    assert not (trained[:, None, :200] == seen.images.flatten(1)[None, :, :200]).all(-1).any()


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="channels: 64 is not allowed; must be 192 for drawn"):
        check_tokens(TokenRegime(**DRAWN | {"channels": 64}), "regime")
