"""What the seeds of a variant say: where labels wait, and whether blanks are needed."""

import pandas as pd
import pytest

from registers.study.label_figures import places
from registers.study.seeds import PLACES, Seeds, placed, steady

#        told where [CLS] may not look at: all patches, blanks, all but blanks; norm, second mode
CLS = (0.98, 1.0, 0.99, 0.9, False)
WALL = (0.5, 0.52, 0.99, 3.0, True)
MANY = (0.5, 0.99, 0.6, 1.1, False)
EACH = (0.5, 0.99, 0.97, 1.2, False)  # all kinds hold them, so none is missed
BOTH = (0.2, 0.8, 0.5, 1.0, None)


def seeds(*runs, variant="v", others=1.0, units=6, **columns) -> Seeds:
    names = ("patches", "redundant", "but_redundant")
    rows = [
        {f"hidden_cls/{name}": told for name, told in zip(names, numbers, strict=False)}
        | dict(seed=seed, redundant_over_others=numbers[3], second_mode=numbers[4])
        for seed, numbers in enumerate(runs)
    ]
    told = {"hidden/all": 1.0, "hidden/other": others, "exchanged/own": 0.5}
    regime = dict(objective="tasks", attention="softmax", hidden=units, width=48)
    settings = {f"regime.{name}": value for name, value in regime.items()}
    frame = pd.DataFrame(rows).assign(variant=variant, registers=0, hypothesis="H44 overfull")
    return Seeds(frame.assign(**told | settings | columns))


def test_where_labels_wait_is_told_of_each_run():
    told = placed(seeds(CLS, WALL, MANY, EACH, BOTH).frame)
    assert list(told.place) == ["cls", "wall", "many", "many", "many"]
    assert set(told.place) == set(PLACES)


def test_where_labels_wait_is_told_of_runs_with_plain_labels_and_no_registers():
    others = [
        {"registers": 4},
        {"exchanged/own": float("nan")},
        {"regime.attention": "relu"},
        {"regime.objective": "deit3"},
    ]
    for columns in others:
        assert not len(placed(seeds(WALL, **columns).frame)), columns


def test_thresholds_by_which_no_run_with_narrow_mlps_has_another_place():
    narrow = seeds(WALL).frame  # loses 0.01 with blanks alone and 0.48 without them
    assert steady(narrow) == (0.02, 0.47)
    wide = seeds(WALL, variant="x", units=48).frame.assign(**{"hidden_cls/but_redundant": 0.96})
    assert steady(pd.concat([narrow, wide])) == (0.02, 0.47)


def test_runs_are_counted_by_the_place_in_which_their_labels_wait():
    again = seeds(WALL, CLS, variant="w", hypothesis="H47 the only place").frame
    again["redundant_over_others"] = 2.0
    wide = seeds(WALL, variant="x", units=48).frame.assign(second_mode=False)
    every = Seeds(pd.concat([seeds(WALL, MANY, BOTH).frame, again, wide]))
    assert every.waiting("wall", wide=False) == (2, "2.0, 3.0", "2 of 2")
    assert every.waiting("many", wide=False) == (2, "1.0, 1.1", "0 of 2")
    assert every.waiting("wall", wide=True) == (1, "3.0", "0 of 1")
    assert every.waiting("wall", wide=False, predicted=True) == (1, "2.0", "1 of 1")
    assert every.waiting("many", wide=False, predicted=True) == (0, "-", "0 of 0")


@pytest.mark.parametrize("others, needed", [(1.0, "2 of 3"), (0.9, "1 of 3")])
def test_blanks_are_needed_where_more_is_lost_without_them_than_without_others(others, needed):
    told = seeds(WALL, MANY, BOTH, others=others)
    told.frame["hidden/redundant"] = [0.5, 0.97, 0.88]
    assert told.needed("v", 0) == needed


def test_exchange_is_told_of_variants_that_were_asked():
    told = seeds(WALL, MANY)
    told.frame["exchanged/own"] = [float("nan"), 0.5]
    assert told.exchanged("v", 0) and not told.exchanged("v", 4)
    told.frame["exchanged/own"] = float("nan")
    assert not Seeds(told.frame).exchanged("v", 0)


def test_the_figure_of_places_has_a_mark_for_each_run_filled_where_there_is_a_second_mode():
    again = seeds(WALL, variant="w", hypothesis="H47 the only place").frame
    wide = seeds(MANY, BOTH, variant="x", units=192).frame
    figure = places(pd.concat([seeds(WALL, CLS).frame, again, wide]))
    found = {}
    for ax in figure.axes[:2]:
        for marks in ax.collections:
            for offset, face in zip(marks.get_offsets(), marks.get_facecolors(), strict=True):
                found.setdefault(ax.get_title(), []).append((*offset, bool(face[3])))
    assert found == {
        "narrow MLPs": [(0.99, 0.52, True), (0.99, 1.0, False), (0.99, 0.52, True)],
        "wide MLPs": [(0.6, 0.99, False), (0.5, 0.8, False)],
    }
