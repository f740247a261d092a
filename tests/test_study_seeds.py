"""What the seeds of a variant say: where labels wait, and whether blanks are needed."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps

from registers.study.label_figures import places
from registers.study.seeds import PLACES, Seeds, placed, steady

#        told where [CLS] may not look at: all patches, blanks, all but blanks; norm, second mode
CLS = (0.98, 1.0, 0.99, 0.9, False)
WALL = (0.5, 0.52, 0.99, 3.0, True)
MANY = (0.5, 0.99, 0.6, 1.1, False)
EACH = (0.5, 0.99, 0.97, 1.2, False)  # all kinds hold them, so none is missed
BOTH = (0.2, 0.8, 0.5, 1.0, None)
LITTLE = (0.93, 0.94, 0.96, 1.1, False)


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
    told = placed(seeds(CLS, WALL, MANY, EACH, BOTH, LITTLE, others=0.2).frame)
    assert list(told.place) == ["cls", "wall", "many", "many", "many", "wall"]
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


def test_a_span_is_the_least_and_the_largest_over_seeds():
    norm = "redundant_over_others"
    assert seeds(WALL, MANY, BOTH).span("v", 0, norm, 1) == "1.0 to 3.0"
    alike = seeds(WALL, MANY, BOTH, **{norm: [2.04, 2.01, float("nan")]})
    assert alike.span("v", 0, norm, 1) == "2.0"


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
    ends = [colormaps["viridis"](place) for place in (0.0, 1.0)]  # norms 0.9 and 3.0
    circles, squares = figure.axes[0].collections
    assert np.allclose(circles.get_edgecolors(), ends[::-1])
    assert np.allclose(squares.get_edgecolors(), ends[1])
    assert len(circles.get_paths()[0]) > len(squares.get_paths()[0]) == 5
    found = {}
    for ax in figure.axes[:2]:
        for marks in ax.collections:
            for offset, face in zip(marks.get_offsets(), marks.get_facecolors(), strict=True):
                found.setdefault(ax.get_title(), []).append((*offset, bool(face[3])))
    assert found == {
        "narrow MLPs": [(0.99, 0.52, True), (0.99, 1.0, False), (0.99, 0.52, True)],
        "wide MLPs": [(0.6, 0.99, False), (0.5, 0.8, False)],
    }


def told_by(registers: int = 0, **columns) -> Seeds:
    """Seeds in the opposite order of their numbers."""
    count = len(next(iter(columns.values())))
    frame = pd.DataFrame(columns).assign(variant="v", registers=registers)
    return Seeds(frame.assign(seed=range(count))[::-1])


def test_numbers_are_told_in_the_order_of_seeds():
    told = told_by(key=[0.5, 0.256, float("nan")], none=3 * [None], yes=[True, False, None])
    assert told.each("v", 0, "key") == "0.50, 0.26, -"
    assert told.each("v", 0, "key", 1) == "0.5, 0.3, -"
    assert told.each("v", 0, "none") == "-" and told.each("v", 4, "key") == ""
    assert told.each("v", 0, "yes") == "yes, no, -"
    assert told.over("v", 0, "key") == "0.50, 0.26 and -"
    assert told.told_by("v", 0, "key") == "0.50 and 0.26"
    assert (told.ran("v"), told.ran("v", 4), told.ran("w")) == (3, 0, 0)


def test_conditions_count_in_seeds_in_which_they_hold():
    told = told_by(
        second_mode=[True, True, False, None],
        redundant=[True, True, True, True],
        global_not_local=[True, False, True, True],
    )
    assert told.count("v", 0, "second_mode") == "2 of 4"
    assert told.first_three("v") == "1 of 4" and told.first_three("v", 4) == "0 of 0"


def test_of_seeds_with_four_registers_those_count_that_surely_have_no_second_mode():
    modes, shares = [True, False, False, False, None], [0.8, 0.1, 0.2, 0.3, 0.4]
    told = told_by(4, second_mode=modes, redundant_constant=shares)
    assert told.none_left("v") == "3 of 5" and told.none_left("w") == "0 of 0"
    assert told.left_over("v") == "1 of 5 seeds of `v` (0.80)"
    none = told_by(4, second_mode=[False, False], redundant_constant=[0.1, 0.2])
    assert none.left_over("v") == "0 of 2 seeds of `v`"


def test_a_query_has_settled_on_what_has_nearly_all_of_its_weight():
    told = told_by(pool_on_redundant=[0.95, 0.85, 0.05], pool_on_registers=[0.0, 0.91, 0.92])
    assert told.settled("v", 0, "redundant") == "1 of 3"
    assert told.settled("v", 0, "registers") == "2 of 3"


def test_the_shared_part_of_blanks_is_as_long_as_the_root_of_its_share():
    told = told_by(redundant_over_others=[4.0, 3.0, None], redundant_of_scene=[0.25, -0.01, None])
    assert told.lengths("v", 0) == "2.0, 0.0, -" and told.lengths("v", 4) == ""


def test_what_blanks_are_made_of_is_told_where_one_seed_tells_it():
    assert told_by(redundant_constant=[float("nan"), 0.5]).made_of("v", 0)
    assert not told_by(redundant_constant=[float("nan")]).made_of("v", 0)
