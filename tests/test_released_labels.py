"""Wherever registers that were added at test time are shown, they are called so."""

import planted
import planted_arrays
from planted_inputs import PRINTED, module

PAIRS = ("deit3-base-r0-s0", "deit3-base-r4-s0-tt", "dinov2-base-r0-s0", "dinov2-base-r4-s0")


def words(figure):
    """All texts of a figure, in one string."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_a_panel_of_norms_names_them(tmp_path):
    groups = [planted.norms(name, registers=4 * ("-r4-" in name)) for name in PAIRS]
    figure = module("fig07").draw(planted.frame(tmp_path, *groups))
    assert words(figure).count("test-time registers") == 1


def test_maps_side_by_side_are_marked():
    maps = {name: planted_arrays.maps(name) for name in PAIRS}
    told = words(module("fig01").draw(maps))
    assert "With 4 registers (* test-time registers)" in told
    assert "DeiT-III*" in told and "DINOv2*" not in told


def test_steps_of_lost_name_them():
    lost = {name: planted_arrays.lost(name) for name in PAIRS}
    assert words(module("fig13").draw(lost)).count("4 test-time\nregisters") == 1


def test_rows_of_tables_name_them_and_hold_no_number_of_the_paper(tmp_path):
    groups = [planted.discovery(name, 0.3, 0.4, data="VOC 2007") for name in PAIRS]
    rows = module("table3").table(planted.frame(tmp_path, *groups), PRINTED)
    papers = rows[rows["procedure"] == "LOST, as published"].set_index("model")["paper"]
    assert papers["DINOv2+reg"] == 55.4
    assert papers.isna()["DeiT-III+test-time reg"] and "DeiT-III+reg" not in papers
