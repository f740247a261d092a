"""The drawn scenes of the emergence study are what they claim to be."""

import pytest
import torch

from registers.study.net import local_targets
from registers.study.regime import Regime
from registers.study.scenes import corners, draw
from registers.study.worlds import scenes


def some(count: int = 64, **settings):
    regime = Regime(**settings)
    return regime, draw(regime, count, torch.Generator().manual_seed(3))


def test_a_pair_is_the_only_kind_that_appears_twice():
    _, batch = some(objects=(4, 12))
    for kinds, label in zip(batch.kinds, batch.label, strict=True):
        unique, counts = kinds[kinds >= 0].unique(return_counts=True)
        assert unique[counts == 2].tolist() == [label]
        assert counts.max() == 2


def test_the_sum_is_that_of_the_two_marked_objects():
    regime, batch = some(task="sum")
    colours = regime.colours
    for kinds, label in zip(batch.kinds, batch.label, strict=True):
        first = kinds[(kinds >= 0) & (kinds < colours)]
        second = kinds[(kinds >= colours) & (kinds < 2 * colours)]
        assert len(first) == len(second) == 1
        assert (first + second - colours).item() % colours == label


def test_presence_and_latent_labels_follow_from_the_objects():
    _, batch = some(task="presence")
    for kinds, present in zip(batch.kinds, batch.present, strict=True):
        assert set(present.nonzero().flatten().tolist()) == set(kinds[kinds >= 0].tolist())
    _, batch = some(400, task="latent", latents=8, objects=(12, 12))
    sets: dict[int, set[int]] = {}
    for kinds, label in zip(batch.kinds, batch.label.tolist(), strict=True):
        sets.setdefault(label, set()).update(kinds[kinds >= 0].tolist())
    assert len(sets) == 8
    assert all(len(kinds) == 4 for kinds in sets.values())


@pytest.mark.parametrize("background", ["flat", "gradient", "tiled", "texture"])
def test_redundant_patches_look_like_each_other_and_others_do_not(background):
    regime, batch = some(8, background=background, plain=0.4, tile=0.5)
    unfolded = torch.nn.functional.unfold(batch.images, regime.patch, stride=regime.patch)
    patches = unfolded.transpose(1, 2)
    for image, redundant, contents in zip(patches, batch.redundant, batch.contents, strict=True):
        nearest = torch.cdist(image, image).fill_diagonal_(9).min(1).values
        alone = torch.tensor([(contents == c).sum() == 1 for c in contents])
        assert (redundant == (contents < 0)).all()
        assert redundant.any() and alone.any()
        assert nearest[redundant].max() < nearest[alone].min()


def test_noise_is_not_redundant():
    _, batch = some(background="noise")
    assert not batch.redundant.any()
    assert (batch.contents < 0).any()


def test_corners_are_plain_and_never_hold_an_object():
    _, batch = some(background="texture", plain_at="corners", objects=(20, 30))
    assert batch.redundant[:, corners(6)].all()
    assert batch.redundant.sum(1).max() == 4


def test_triggers_ask_for_the_label_or_the_left_neighbour():
    regime, batch = some(background="texture", triggers=16, asks="label")
    asked, triggered = local_targets(batch, regime)
    assert triggered.any()
    assert (asked == batch.label[:, None])[triggered].all()
    asked, triggered = local_targets(batch, regime.model_copy(update={"asks": "left"}))
    image, cell = (x[0].item() for x in triggered[:, 1:6].nonzero(as_tuple=True))
    assert asked[image, cell + 1] == batch.contents[image, cell]
    assert (asked[~triggered] == batch.contents[~triggered]).all()


def test_scenes_are_those_that_finished_runs_were_trained_on():
    """Sums of the first batches, taken when the runs of results.csv were made."""
    sums = [
        float(
            scenes(Regime(background=background, task=task), 16, 3, torch.device("cpu"))
            .images.double()
            .sum()
        )
        for background, task in (("gradient", "pair"), ("texture", "sum"), ("tiled", "latent"))
    ]
    assert sums == pytest.approx(EARLIER, abs=1e-3)


EARLIER = [122.3827, -404.8715, 114.1807]
