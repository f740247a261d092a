"""Figures of maps: what is drawn and tabled is what was planted, and captions say in which direction."""

import io
from importlib import import_module

import numpy as np
import planted
import planted_arrays
import pytest

from registers import artifacts
from registers.figures.paint import grids

ARTIFACTS = artifacts.load()
PEAK = {"deit3": 9.0, "openclip": 7.0, "dinov2": 20.0}


def module(artifact):
    return import_module(f"registers.figures.{ARTIFACTS[artifact].module}")


def ends(without=PEAK, registers=2.0, **kwargs):
    found = {f"{m}-r0-s0": planted_arrays.maps(f"{m}-r0-s0", p, **kwargs) for m, p in without.items()}
    return found | {f"{m}-r4-s0": planted_arrays.maps(f"{m}-r4-s0", registers, **kwargs) for m in without}


def grid(rows, **where):
    for column, value in where.items():
        rows = rows[rows[column] == value]
    side = rows["row"].max() + 1
    assert len(rows) == side**2, "one value per patch"
    return rows.sort_values(["row", "column"])["value"].to_numpy().reshape(side, side)


@pytest.mark.parametrize(
    "artifact, key",
    [("fig01", "attention"), ("fig19", "attention"), ("fig21", "norms"), ("fig20", "components")],
)
def test_tables_hold_the_planted_maps(artifact, key):
    maps = ends(norm_peak=5, component=2.5)
    rng = np.random.default_rng(3)
    for arrays in maps.values():
        arrays[key] *= rng.uniform(0.5, 1.5, arrays[key].shape).astype(np.float32)
    rows = module(artifact).table(maps)
    shown = 3 if artifact == "fig01" else 4
    assert set(rows["backbone"]) == set(maps) and set(rows["image"]) == {
        f"val/{i}" for i in range(shown)
    }
    for backbone, arrays in maps.items():
        for i in range(shown):
            wanted = arrays[key][i] if key == "norms" else arrays[key][i, 0]
            np.testing.assert_allclose(
                grid(rows, backbone=backbone, image=f"val/{i}"), wanted, rtol=6e-4
            )


def test_pictures_show_what_the_table_holds():
    """Columns of Fig. 1: input, methods in the paper's order without registers, then with; each painted value is a tabled one."""
    maps = ends()
    maps["dinov2-r4-s0"]["attention"][1, 0, 5, 6] *= 3
    figure, rows = module("fig01").draw(maps), module("fig01").table(maps)
    painted = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    order = [f"{m}-r{r}-s0" for r in (0, 4) for m in ("deit3", "openclip", "dinov2")]
    assert len(painted) == 3 * 7
    for i in range(3):
        np.testing.assert_array_equal(painted[7 * i], maps["deit3-r0-s0"]["rgb"][i])
        for column, backbone in enumerate(order, start=1):
            np.testing.assert_allclose(
                painted[7 * i + column], grid(rows, backbone=backbone, image=f"val/{i}"), rtol=6e-4
            )
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == [
        "Input",
        *["DeiT-III", "OpenCLIP", "DINOv2"] * 2,
    ]


def test_captions_of_attention_say_the_direction():
    for artifact in ("fig01", "fig19"):
        text = module(artifact).caption(ends())
        assert "9.0 and 2.0 in DeiT-III, 7.0 and 2.0 in OpenCLIP and 20.0 and 2.0 in DINOv2" in text
        assert (
            "smaller with registers in 3 of 3 methods (DeiT-III, OpenCLIP and DINOv2) (the paper: smaller in all)"
            in text
        )
        text = module(artifact).caption(ends({"deit3": 9.0, "openclip": 2.05, "dinov2": 1.5}))
        assert (
            "smaller with registers in 1 of 3 methods (DeiT-III), larger in DINOv2" in text
        )  # OpenCLIP: hardly another
    text = module("fig21").caption(ends(norm_peak=6))
    assert "6.0 and 6.0 in DeiT-III" in text and "in 0 of 3 methods (the paper" in text
    assert "is at 2.5 and 2.5 in DeiT-III" in module("fig20").caption(ends(component=2.5))


def test_fig02_holds_every_method_against_dino():
    maps = {
        b: planted_arrays.maps(b, p)
        for b, p in {
            "dinov2-r0-s0": 20,
            "dino-r0-s0": 3,
            "deit3-r0-s0": 9,
            "openclip-r0-s0": 2,
        }.items()
    }
    text = module("fig02").caption(maps)
    assert (
        "9.0 in DeiT-III, 2.0 in OpenCLIP, 3.0 in DINO and 20.0 in DINOv2: larger than in DINO for DeiT-III and DINOv2 (the paper"
        in text
    )
    titles = [ax.get_title() for ax in module("fig02").draw(maps).axes[:5]]
    assert titles == ["Input", "DeiT-III", "OpenCLIP", "DINO", "DINOv2"]


def test_fig08_orders_counts_and_shows_all_methods(tmp_path):
    counts = (16, 0, 4, 1, 8, 2)
    maps = {
        f"dinov2-r{r}-s0": planted_arrays.maps(f"dinov2-r{r}-s0", 30.0 if r == 0 else 1.5) for r in counts
    }
    linear = [
        planted.accuracy("linear", f"{m}-r{r}-s0", b + r / 100)
        for m, b in (("dinov2", 0.4), ("deit3", 0.6))
        for r in (0, 4)
    ]
    given = dict(maps=maps, linear=planted.frame(tmp_path, linear))
    figure = module("fig08").draw(**given)
    assert [ax.get_title() for ax in figure.axes[1:7]] == [f"{r} [reg]" for r in sorted(counts)]
    assert figure.axes[1].images[0].get_array()[1, 2] == pytest.approx(30 / 64)
    text = module("fig08").caption(**given)
    assert (
        "30.0 (0), 1.5 (1)" in text
        and "DeiT-III 60.0 with 0 and 64.0 with 4, where 4 is best, within" in text
        and "DINOv2 40.0" in text
    )
    rows = module("fig08").table(**given)
    assert grid(rows, panel="attention", registers=0)[1, 2] == pytest.approx(30 / 64, rel=1e-3)
    assert rows[rows["panel"] == "linear"].set_index("backbone")["value"].to_dict()[
        "deit3-r4-s0"
    ] == pytest.approx(64)


@pytest.mark.parametrize(
    "registers, shown",
    [(16, ["reg0", "reg6", "reg8", "reg12"]), (8, ["reg0", "reg2", "reg5", "reg7"]), (1, ["reg0"])],
)
def test_fig09_shows_the_papers_registers_or_spread_ones(registers, shown):
    name = f"dinov2-r{registers}-s0"
    maps = {name: planted_arrays.maps(name)}
    rows = module("fig09").table(maps)
    assert list(dict.fromkeys(rows["panel"])) == ["cls", *shown]
    for panel in shown:
        r = int(panel[3:])
        assert grid(rows, panel=panel, image="val/0")[2, r % 8] == pytest.approx(2 / 64, rel=1e-3)
    same = {
        name: dict(
            maps[name], attention=np.repeat(maps[name]["attention"][:, 1:2], registers + 2, axis=1)
        )
    }
    assert "with that of [CLS] at 1.00" in module("fig09").caption(same)


def test_fig17_stretches_components_to_colours():
    maps = {"mae-r0-s0": planted_arrays.maps("mae-r0-s0", norm_peak=1.3, component=3.0)}
    rows = module("fig17").table(maps)
    red = grid(rows, panel="components.red", image="val/0")
    assert red[1, 2] == 1 and red[-1, 0] == 0 and red[0, 0] == 0.5  # -1 to 3: 0 to 1
    text = module("fig17").caption(maps)
    assert (
        "no patch stands out by its norm (as in the paper)" in text
        and "1.3 times" in text
        and "than 3.0 standard" in text
    )
    assert "some patches stand out (unlike in the paper)" in module("fig17").caption(
        {"mae-r0-s0": planted_arrays.maps("mae-r0-s0", norm_peak=7)}
    )


@pytest.mark.parametrize("heads, drawn", [(4, 3 * 5), (12, 1 + 12)])
def test_fig18_shows_every_head(heads, drawn):
    maps = {
        "deit3-r0-s0": planted_arrays.maps("deit3-r0-s0", 2.0, heads=heads),
        "dinov2-r0-s0": planted_arrays.maps("dinov2-r0-s0", 5.0, heads=heads),
    }
    rows = module("fig18").table(maps)
    assert set(rows["backbone"]) == {"dinov2-r0-s0"} and rows["panel"].nunique() == heads
    assert grid(rows, panel=f"head {heads}", image="val/0")[1, 2] == pytest.approx(
        5 * heads / 64, rel=1e-3
    )
    assert f"5.0 (head 1) to {5 * heads:.1f} (head {heads}) times the median one" in module(
        "fig18"
    ).caption(maps)
    assert (
        sum(bool(ax.images) for ax in module("fig18").draw(maps).axes if ax.get_visible()) == drawn
    )


def test_fig21_shares_a_colour_scale_per_method():
    maps = ends(norm_peak=1.0)
    maps["openclip-r0-s0"]["norms"] *= 7
    limits = [ax.images[0].get_clim() for ax in module("fig21").draw(maps).axes[1:7]]
    assert (
        limits[:3] == limits[3:]
        and limits[1] == pytest.approx((10, 70))
        and limits[0] == pytest.approx((10, 10))
    )


def test_fig03_maps_the_models_of_its_histograms(tmp_path):
    norms = [
        planted.norms(b, outliers=o, layers=2)
        for b, o in (("dino-r0-s0", 0), ("dinov2-r0-s0", 0.02), ("deit3-r0-s0", 0))
    ]
    maps = {
        b: planted_arrays.maps(b, norm_peak=p)
        for b, p in (("deit3-r0-s0", 1), ("dino-r0-s0", 1), ("dinov2-r0-s0", 9))
    }
    rows = module("fig03").table(planted.frame(tmp_path, *norms), maps)
    assert set(rows["backbone"]) == {"dino-r0-s0", "dinov2-r0-s0"}
    assert grid(rows, panel="norm", backbone="dinov2-r0-s0")[1, 2] == pytest.approx(90)
    assert (
        rows[(rows["panel"] == "histogram") & (rows["backbone"] == "dino-r0-s0")]["second_mode"]
        == False
    ).all()  # noqa: E712
    titles = [
        ax.get_title() for ax in module("fig03").draw(planted.frame(tmp_path, *norms), maps).axes
    ]
    assert [t for t in titles if t] == ["Input", "DINO norms", "DINOv2 norms", "DINO", "DINOv2"]


def test_fig10_tells_stripes_from_a_border_and_outliers_from_a_tail(tmp_path):
    fig10 = module("fig10")
    frame = planted.frame(
        tmp_path,
        planted.positions("dinov2-r0-s0"),
        planted.positions("dinov2-r0-s0-noaa", stripes=True),
    )
    rows = fig10.table(frame)
    assert list(dict.fromkeys(rows["noaa"])) == [True, False] and set(rows["cutoff"]) == {150}
    assert (
        grid(rows, noaa=False)[0, 3] == 0.1
        and grid(rows, noaa=False)[3, 3] == 0.02
        and grid(rows, noaa=True)[3, 3] == 0
    )
    text = fig10.caption(frame)
    assert (
        "with antialiasing, 2.0 % to 10.0 % of 100 images" in text
        and "10.0 % at the border and 2.0 % inside" in text
    )
    assert "above the cut-off 150" in text and "tail" not in text
    striped, smooth = (
        float(part.split("differ ")[1].split(" times")[0]) for part in text.split(";")
    )
    assert striped > 5 * smooth
    none = planted.frame(
        tmp_path,
        *(planted.positions(b, outliers=False) for b in ("dinov2-r0-s0", "dinov2-r0-s0-noaa")),
    )
    assert set(fig10.table(none)["panel"]) == {
        "share_tail"
    } and "high-norm tail (2 %, above 90.0)" in fig10.caption(none)
    assert "outlier" not in fig10.caption(none) and "cut-off" not in fig10.caption(none)


def test_fig16_measures_how_far_attention_spreads(tmp_path):
    fig16 = module("fig16")
    frame = planted.frame(tmp_path, planted.positions("dinov2-r4-s0"))
    assert list(dict.fromkeys(fig16.table(frame)["panel"])) == [
        "cls",
        "reg0",
        "reg1",
        "reg2",
        "reg3",
        "patch",
    ]
    text = fig16.caption(frame)
    assert (
        "100 % from [CLS], 100 % from the registers and" in text
        and "clearly the most focused, as in the paper" in text
    )
    swapped = frame.assign(
        token=frame["token"].map({"patch": "cls", "cls": "patch"}).fillna(frame["token"])
    )
    assert "not clearly the most focused" in fig16.caption(swapped)
    assert grid(fig16.table(frame), panel="patch")[4, 4] == 1


def test_tables_stay_small():
    """The largest grid of the paper scale (8 images of 448 pixels, 6 models) stays below 3 MB."""
    rng = np.random.default_rng(0)
    maps = ends(images=1, side=32)
    for arrays in maps.values():
        arrays["attention"] = rng.random(arrays["attention"].shape, dtype=np.float32) / 1024
    text = io.StringIO()
    module("fig19").table(maps).to_csv(text, index=False)
    assert 8 * len(text.getvalue()) < 3e6


def test_rounding_keeps_four_digits():
    assert grids.rounded(np.array([0.000123456, 98765.4, -1.00004, 0])).tolist() == [
        0.0001235,
        98770.0,
        -1.0,
        0.0,
    ]


def test_lost_is_drawn_in_the_shape_of_its_photo():
    """46 x 30 pixels in patches of 4: each cell has the photo's shape, a map reaches two pixels beyond it, the box lies on its patches."""
    models = {b: planted_arrays.lost(b, side=8, across=12) for b in ("openclip-r0-s0", "openclip-r4-s0")}
    for artifact, columns in (("fig13", 5), ("fig14", 4)):
        figure = module(artifact).draw(models)
        cells = [ax for ax in figure.axes if ax.images]
        assert len(cells) == 2 * columns
        for ax in cells:
            place = ax.get_position()
            width, height = figure.get_size_inches()
            assert place.height * height / (place.width * width) == pytest.approx(30 / 46)
            assert ax.get_xlim() == (0, 46) and ax.get_ylim() == (30, 0)
        assert cells[0].images[0].get_extent() == [0, 46, 30, 0] and cells[1].images[
            0
        ].get_extent() == [0, 48, 32, 0]
    cells = [ax for ax in module("fig13").draw(models).axes if ax.images]
    assert cells[1].patches[0].get_bbox().extents.tolist() == [0, 0, 4, 4]  # the seed
    box = cells[4].patches[0].get_bbox()
    assert box.extents.tolist() == [0, 0, 24, 16]
    bright = cells[4].images[0].get_array()[..., 0] > 100
    assert bright[:16, :24].all() and bright.sum() == 16 * 24
