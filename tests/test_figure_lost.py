"""LOST's maps in Figs. 13 and 14: one scale for each step, flat maps, the shape of the photo."""

import numpy as np
import planted_arrays
import pytest
from planted_inputs import grid, module


def lost_of(name, degrees, similarity, expansion):
    """Arrays of LOST for one backbone, whose maps (8, 8) are these; the seed is patch (0, 0)."""
    arrays = planted_arrays.lost(name)
    for facet in "kqv":
        arrays[f"0_{facet}_score"] = -degrees
        arrays[f"0_{facet}_similarity"] = similarity
        arrays[f"0_{facet}_expansion"] = expansion
    return arrays


def test_maps_of_lost_share_a_scale_for_each_step():
    """A map that hardly varies looks flat beside one that does, and its ends stand under it."""
    step = np.ones((8, 8))
    step[4:] = -1
    flat = lost_of("deit3-r0-s0", np.full((8, 8), 63), 9 + 0.1 * step, 900 + step)
    steep = lost_of("dinov2-r0-s0", 30 + 30 * step, 5 * step, 500 * step)
    lost = {"deit3-r0-s0": flat, "dinov2-r0-s0": steep}
    figure = module("fig13").draw(lost)
    cells = [ax for ax in figure.axes if ax.images]
    rows = [cells[:5], cells[5:]]
    for column in (1, 2, 3):
        (first, second) = (row[column].images[0] for row in rows)
        assert first.get_clim() == second.get_clim()
        spread = [np.ptp(image.norm(image.get_array())) for image in (first, second)]
        assert spread[0] < 0.02 and spread[1] > 0.9
    printed = [[ax.get_xlabel() for ax in row] for row in rows]
    assert printed[0] == ["", "100 %", "0.98 to 1.00", "1.00", ""]
    assert printed[1] == ["", "0 % to 95 %", "-1.00 to 1.00", "-1.00 to 1.00", ""]
    bars = [ax.get_xlabel() for ax in figure.axes[len(cells) + 2 :]]
    assert [words.split(" (")[0] for words in bars] == ["similar to", "over the largest"]

    rows = module("fig13").table(lost)
    assert grid(rows, backbone="dinov2-r0-s0", panel="score")[0, 0] == pytest.approx(95.24)
    assert grid(rows, backbone="dinov2-r0-s0", panel="expansion")[7, 0] == -1
    figure = module("fig14").draw({"openclip-r0-s0": flat, "openclip-r4-s0": steep})
    limits = {ax.images[0].get_clim() for ax in figure.axes if ax.get_xlabel().count(".") >= 1}
    assert limits == {(-1, 1)}


def test_a_map_of_lost_may_be_zero_everywhere():
    lost = lost_of("dinov2-r0-s0", np.zeros((8, 8)), np.zeros((8, 8)), -2 * np.eye(8))
    rows = module("fig13").table({"dinov2-r0-s0": lost})
    assert not grid(rows, panel="similarity").any()
    assert grid(rows, panel="expansion").min() == -1


def test_lost_is_drawn_in_the_shape_of_its_photo():
    """46 x 30 pixels in patches of 4: each cell has the photo's shape.

    A map reaches two pixels beyond the photo, and the box lies on its patches.
    """
    names = ("openclip-r0-s0", "openclip-r4-s0")
    lost = {name: planted_arrays.lost(name, side=8, across=12) for name in names}
    for artifact, columns in (("fig13", 5), ("fig14", 4)):
        figure = module(artifact).draw(lost)
        cells = [ax for ax in figure.axes if ax.images]
        assert len(cells) == 2 * columns
        width, height = figure.get_size_inches()
        for ax in cells:
            place = ax.get_position()
            assert place.height * height / (place.width * width) == pytest.approx(30 / 46)
            assert ax.get_xlim() == (0, 46) and ax.get_ylim() == (30, 0)
        assert cells[0].images[0].get_extent() == [0, 46, 30, 0]
        assert cells[1].images[0].get_extent() == [0, 48, 32, 0]

    cells = [ax for ax in module("fig13").draw(lost).axes if ax.images]
    assert cells[1].patches[0].get_bbox().extents.tolist() == [0, 0, 4, 4]  # the seed
    assert cells[4].patches[0].get_bbox().extents.tolist() == [0, 0, 24, 16]
    bright = cells[4].images[0].get_array()[..., 0] > 100
    assert bright[:16, :24].all() and bright.sum() == 16 * 24
